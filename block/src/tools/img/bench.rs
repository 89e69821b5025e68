//! `vmm-img bench`: how many requests an image does in a second.
//!
//! On the tool's loop: as many tasks as requests are to be in flight.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use resources::iol::IoBuf;

use super::{Call, Command, Fail, Running};
use crate::node::Node;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{Wanted, why};
use crate::tools::signals;
use crate::tools::size;
use crate::tools::work::crew;

pub(super) const COMMAND: Command = Command {
    name: "bench",
    synopsis: "[-c COUNT] [-d DEPTH] [-f FMT | --image-opts] [--flush-interval=N] [-i AIO] [-n] \
               [--no-drain] [-o OFFSET] [--pattern=BYTE] [-q] [-s BUFFER] [-S STEP] [-t CACHE] \
               [-w] [-U] FILE",
    options: &[
        value('c').long("count"),
        value('d').long("depth"),
        value('f').long("format"),
        long_value("flush-interval"),
        value('i').long("aio"),
        flag('n').long("native"),
        long_flag("no-drain"),
        value('o').long("offset"),
        long_value("pattern"),
        flag('q').long("quiet"),
        value('s').long("buffer-size"),
        value('S').long("step-size"),
        value('t').long("cache"),
        flag('w').long("write"),
        flag('U').long("force-share"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

/// Requests in flight, and bytes of one, are bounded by what can be meant.
const MAX_DEPTH: u64 = 4096;
const MAX_BUFFER: u64 = 1 << 30;

#[derive(Clone)]
struct Plan {
    count: u64,
    depth: u64,
    buffer: u64,
    step: u64,
    offset: u64,
    write: bool,
    flush_interval: u64,
    no_drain: bool,
}

struct Work {
    image: Rc<dyn Node>,
    plan: Plan,
    started: Cell<u64>,
    done: Cell<u64>,
    /// Wraps at the end of the image.
    offset: Cell<u64>,
}

fn number(
    call: &Call,
    option: impl Into<crate::tools::args::Name>,
    default: u64,
    what: &str,
) -> Result<u64, Fail> {
    let Some(text) = call.args.get(option) else { return Ok(default) };
    let number = resources::value::parse_number("", text).ok();
    let number = number.filter(|number| i32::try_from(*number).is_ok());
    number.ok_or_else(|| Fail::Told(format!("Invalid {what} specified")))
}

fn plan(call: &Call) -> Result<Plan, Fail> {
    let bytes = |option: char, default: u64, what: &str| {
        let Some(text) = call.args.get(option) else { return Ok(default) };
        let bytes = size::parse(text);
        bytes.ok_or_else(|| Fail::Told(format!("Invalid {what} specified. {}", size::SUFFIXES)))
    };
    let count = number(call, 'c', 75_000, "request count")?;
    let depth = number(call, 'd', 64, "queue depth")?;
    let depth = Some(depth).filter(|depth| (1..=MAX_DEPTH).contains(depth));
    let depth = depth.ok_or("Invalid queue depth specified")?;
    let buffer = bytes('s', 4096, "buffer size")?;
    let buffer = Some(buffer).filter(|buffer| (1..=MAX_BUFFER).contains(buffer));
    let buffer = buffer.ok_or("Invalid buffer size specified")?;
    let step = match bytes('S', 0, "step size")? {
        0 => buffer,
        step => step,
    };
    let write = call.args.has('w');
    let flush_interval = number(call, "flush-interval", 0, "flush interval")?;
    if flush_interval > 0 && !write {
        return Err("--flush-interval is only available in write tests".into());
    }
    if flush_interval > 0 && flush_interval < depth {
        return Err("Flush interval can't be smaller than depth".into());
    }
    if let Some(aio) = call.args.get('i')
        && !["threads", "native", "io_uring"].contains(&aio)
    {
        return Err(Fail::Told(format!("Invalid aio option: {aio}")));
    }
    let no_drain = call.args.has("no-drain");
    let offset = bytes('o', 0, "offset")?;
    Ok(Plan { count, depth, buffer, step, offset, write, flush_interval, no_drain })
}

async fn run(call: &Call) -> Result<(), Fail> {
    let [name] = call.operands("Expecting one image file name")?;
    let plan = plan(call)?;
    let pattern = number(call, "pattern", 0, "pattern byte")?;
    let pattern = u8::try_from(pattern).map_err(|_| "Invalid pattern byte specified")?;
    let cache = call.cache('t', "writeback", "Invalid cache mode")?;
    // Where there is io_uring it is used for `native` too.
    let threads = call.args.get('i') == Some("threads");
    let wanted = Wanted { writable: plan.write, cache, threads, ..call.wanted(name)? };
    let image = call.open(&wanted).await?;
    let size = image.info().size;
    if size < plan.buffer {
        return Err("the image is smaller than one request".into());
    }
    if !call.quiet() {
        let Plan { count, depth, buffer, step, offset, flush_interval, .. } = plan;
        let kind = if plan.write { "write" } else { "read" };
        call.console.line(format_args!(
            "Sending {count} {kind} requests, {buffer} bytes each, {depth} in parallel \
             (starting at offset {offset}, step size {step})"
        ));
        if flush_interval > 0 {
            let drain = if plan.no_drain { "" } else { "drain and " };
            call.console.line(format_args!("Sending {drain}flush every {flush_interval} requests"));
        }
    }
    let depth = plan.depth as usize;
    let buffer = plan.buffer as usize;
    let offset = Cell::new(plan.offset % (size - plan.buffer + 1));
    let (started, done) = (Cell::new(0), Cell::new(0));
    let work = Rc::new(Work { image, plan, started, done, offset });
    let begin = Instant::now();
    crew(&call.local, depth, || {
        let work = work.clone();
        let buf = IoBuf::zeroed(buffer);
        buf.fill(pattern);
        async move { work.serve(buf).await }
    })
    .await?;
    let seconds = begin.elapsed().as_secs_f64();
    if !call.quiet() {
        call.console.line(format_args!("Run completed in {seconds:.3} seconds."));
    }
    Ok(())
}

impl Work {
    /// The offset of the next request, if there is one more.
    fn next(&self) -> Option<u64> {
        if self.started.get() >= self.plan.count {
            return None;
        }
        self.started.set(self.started.get() + 1);
        let offset = self.offset.get();
        // A request fits behind every offset below this.
        let places = self.image.info().size.saturating_sub(self.plan.buffer).saturating_add(1);
        let next = offset.saturating_add(self.plan.step);
        self.offset.set(if next < places {
            next
        } else {
            next % places / self.plan.align() * self.plan.align()
        });
        Some(offset)
    }

    async fn serve(&self, buf: IoBuf) -> Result<(), Fail> {
        while let Some(offset) = self.next() {
            signals::check()?;
            let done = match self.plan.write {
                true => self.image.write(offset, buf.clone(), false).await,
                false => self.image.read(offset, buf.clone()).await,
            };
            done.map_err(|error| format!("Failed request: {}", why(&error)))?;
            self.done.set(self.done.get() + 1);
            let interval = self.plan.flush_interval;
            if interval > 0 && self.done.get().is_multiple_of(interval) {
                let flushed = self.image.flush().await;
                flushed.map_err(|error| format!("Failed request: {}", why(&error)))?;
            }
        }
        Ok(())
    }
}

impl Plan {
    /// Offsets that wrap stay multiples of what they were multiples of.
    fn align(&self) -> u64 {
        let bits = (self.offset | self.step | self.buffer).trailing_zeros().min(12);
        1 << bits
    }
}
