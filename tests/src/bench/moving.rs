//! How guests move: between two processes on this machine, with small guests whose memory and
//! writes are known. One call is one round, as in `measure`.

use std::arch::x86_64::_rdtsc;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use iced_x86::code_asm::*;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::measure::{Place, kib, millis};
use super::process::beyond_ram;
use super::sample::{Figure, Samples, Who};
use crate::rig::Result;
use crate::rig::registry::Ctx;
use crate::rig::vm::{BOOT, SOON, TestVm, VmBuilder};
use crate::tiny::asm::{COM1, DATA, Guest};

/// Where a guest's ticks go.
const DEBUGCON: u32 = 0xe9;
/// RAM of the guest that does nothing.
const IDLE: u32 = 2048;
/// RAM of all others.
const SMALL: u32 = 512;
/// RAM of the guest whose process is weighed.
const LARGE: u32 = 4096;
/// The cache for differences of that process: what it may hold, and something beside.
const CACHE: u64 = 64 << 20;
/// The link that is written to at 70 %, in bytes a second.
const LINK: u64 = 128 << 20;
/// Pages that are written again and again.
const WORKING_SET: u32 = 256;
/// Pages written at a time.
const BATCH: u64 = 64;
/// So often an idle guest moves for one value.
const MOVES: u32 = 4;
/// Between two ticks of a guest.
const TICK: Duration = Duration::from_micros(100);

/// How a guest is to move.
struct How {
    /// Bytes a second.
    speed: u64,
    /// The capability that is on.
    capability: Option<&'static str>,
    cache: u64,
}

const FREELY: How = How { speed: 1 << 40, capability: None, cache: CACHE };
/// Over two channels of their own.
const TWO: How = How { capability: Some(MULTIFD), ..FREELY };
const MULTIFD: &str = "multifd";

/// Ticks of the time stamp counter in this time.
fn ticks(time: Duration) -> u64 {
    let (start, from) = (Instant::now(), counter());
    sleep(Duration::from_millis(50));
    let rate = (counter() - from) as f64 / start.elapsed().as_secs_f64();
    (rate * time.as_secs_f64()) as u64
}

fn counter() -> u64 {
    #[expect(unsafe_code)] // Any processor of this machine has it.
    // SAFETY: it only reads a counter.
    unsafe {
        _rdtsc()
    }
}

/// A guest that has written each page of its first `filled` MiB, says so, and goes on with `then`
/// in user mode.
fn guest(filled: u32, then: impl FnOnce(&mut Guest) -> Result) -> Result<Guest> {
    let mut g = Guest::new()?;
    g.in_user_mode(|g| {
        let mut next = g.create_label();
        g.cld()?;
        g.mov(edi, DATA)?;
        g.mov(r8d, filled << 20)?;
        g.set_label(&mut next)?;
        g.lea(rax, ptr(rdi + 1))?;
        g.mov(ecx, 512)?;
        g.rep().stosq()?;
        g.cmp(rdi, r8)?;
        g.jb(next)?;
        for byte in *b"filled\n" {
            g.outb(COM1, byte.into())?;
        }
        then(g)
    })?;
    Ok(g)
}

/// Waits until `period` has passed since the last time; R9 is lost. Does not care if time jumps.
fn pace(g: &mut Guest, period: u64) -> Result {
    let mut wait = g.create_label();
    g.mov(r10, period)?;
    g.set_label(&mut wait)?;
    g.rdtsc()?;
    g.shl(rdx, 32)?;
    g.or(rax, rdx)?;
    g.mov(r11, rax)?;
    g.sub(rax, r9)?;
    g.cmp(rax, r10)?;
    g.jb(wait)?;
    g.mov(r9, r11)?;
    Ok(())
}

/// A guest that says a byte in each tick.
fn ticker() -> Result<Guest> {
    let period = ticks(TICK);
    guest(4, |g| {
        let mut again = g.create_label();
        g.set_label(&mut again)?;
        pace(g, period)?;
        g.outb(DEBUGCON, 't' as u32)?;
        g.jmp(again)?;
        Ok(())
    })
}

/// A guest that changes eight bytes of one page after the other, 70 % of the link in pages.
fn dirtier() -> Result<Guest> {
    let pages = LINK as f64 * 0.7 / 4096.0;
    let period = ticks(Duration::from_secs_f64(BATCH as f64 / pages));
    guest(WORKING_SET + 2, |g| {
        let (mut round, mut batch, mut page) =
            (g.create_label(), g.create_label(), g.create_label());
        g.xor(r9d, r9d)?;
        g.xor(r8d, r8d)?;
        g.set_label(&mut round)?;
        g.mov(edi, DATA)?;
        g.set_label(&mut batch)?;
        pace(g, period)?;
        g.mov(ecx, u32::try_from(BATCH)?)?;
        g.set_label(&mut page)?;
        g.add(r8, 0x1238)?;
        g.mov(rax, r8)?;
        g.and(rax, 0xff8)?;
        g.mov(qword_ptr(rdi + rax), r8)?;
        g.add(rdi, 4096)?;
        g.dec(ecx)?;
        g.jnz(page)?;
        g.cmp(rdi, i32::try_from((WORKING_SET + 2) << 20)?)?;
        g.jb(batch)?;
        g.jmp(round)?;
        Ok(())
    })
}

/// Sets what commands of the peer's time set.
fn set_up(vm: &mut TestVm, who: Who, how: &How) -> Result {
    if who == Who::Vmm {
        vm.qmp.execute("migrate_set_speed", json!({ "value": how.speed }))?;
        vm.qmp.execute("migrate_set_downtime", json!({ "value": 0.3 }))?;
        vm.qmp.execute("migrate-set-cache-size", json!({ "value": how.cache }))?;
    } else {
        let limits = json!({
            "max-bandwidth": how.speed, "downtime-limit": 300, "xbzrle-cache-size": how.cache,
        });
        vm.qmp.execute("migrate-set-parameters", limits)?;
    }
    Ok(())
}

fn switch_on(vm: &mut TestVm, capability: &str) -> Result {
    let on = json!([{ "capability": capability, "state": true }]);
    vm.qmp.execute("migrate-set-capabilities", json!({ "capabilities": on }))?;
    if capability == MULTIFD {
        vm.qmp.execute("migrate-set-parameters", json!({ "multifd-channels": 2 }))?;
    }
    Ok(())
}

/// A guest that can move.
struct Traveller<'a> {
    ctx: &'a Ctx,
    who: Who,
    builder: VmBuilder,
    here: TestVm,
}

impl<'a> Traveller<'a> {
    /// Boots it and waits until its memory is filled.
    fn start(ctx: &'a Ctx, who: Who, memory: u32, builder: VmBuilder) -> Result<Traveller<'a>> {
        let builder = builder.memory(&memory.to_string());
        let builder = builder.args(["-cpu", "host,arch-capabilities=off"]);
        let mut here = builder.clone().start()?;
        here.console.expect("filled\n", BOOT).map_err(|error| here.process.explain(error))?;
        Ok(Traveller { ctx, who, builder, here })
    }

    /// Moves it; calls `watch` with the source's process now and then. Gives the time until the
    /// destination runs it, and what query-migrate says then.
    fn moves(
        &mut self,
        how: &How,
        mut watch: impl FnMut(u32) -> Result,
    ) -> Result<(Duration, Value)> {
        let uri = format!("unix:{}", self.ctx.dir.join("moves").display());
        let mut there = self.builder.clone().args(["-incoming", "defer"]).start()?;
        if let Some(capability) = how.capability {
            switch_on(&mut self.here, capability)?;
            switch_on(&mut there, capability)?;
        }
        there.qmp.execute("migrate-incoming", json!({ "uri": uri }))?;
        set_up(&mut self.here, self.who, how)?;
        let start = Instant::now();
        self.here.qmp.execute("migrate", json!({ "uri": uri }))?;
        let info = loop {
            watch(self.here.process.id())?;
            let info = self.here.qmp.execute("query-migrate", json!({}))?;
            match info["status"].as_str() {
                Some("completed") => break info,
                Some("failed" | "cancelled") | None => {
                    let text = format!("{:?} does not move: {info}", self.who);
                    return Err(self.here.process.explain(text.into()));
                }
                _ if start.elapsed() > BOOT => {
                    return Err(format!("{:?} does not end: {info}", self.who).into());
                }
                _ => sleep(Duration::from_millis(5)),
            }
        };
        there.qmp.event("RESUME", SOON).map_err(|error| there.process.explain(error))?;
        let time = start.elapsed();
        self.here = there;
        Ok((time, info))
    }
}

/// When the last byte came on a connection, and the first.
#[derive(Clone, Copy, Default)]
struct Heard {
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Notes when bytes come on each connection.
fn listen(listener: UnixListener) -> Arc<Mutex<Vec<Heard>>> {
    let heard = Arc::new(Mutex::new(Vec::<Heard>::new()));
    let all = heard.clone();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let all = all.clone();
            all.lock().push(Heard::default());
            thread::spawn(move || {
                let mut bytes = [0; 64];
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    let now = Instant::now();
                    let mut all = all.lock();
                    let heard = &mut all[number];
                    heard.first.get_or_insert(now);
                    heard.last = Some(now);
                }
            });
        }
    });
    heard
}

impl Place {
    /// All about moves.
    pub(super) fn moves(&self, round: usize, samples: &mut Samples) -> Result {
        for who in Who::order(Who::PAIR, round) {
            self.idle_moves(who, samples)?;
            self.stands_still(who, samples)?;
            self.under_writes(who, samples)?;
            self.weighed(who, samples)?;
        }
        // Both have moved in this round: what two channels gain over one is known.
        if let Some(one) = samples.last(Figure::MovePages, Who::Pc) {
            for who in Who::PAIR {
                let two = samples.last(Figure::MoveTwo, who);
                samples.add(Figure::MoveTwoGain, who, two.map(|two| two / one));
            }
        }
        Ok(())
    }

    /// Pages a second of a guest that does nothing.
    fn idle_moves(&self, who: Who, samples: &mut Samples) -> Result {
        let ways = [
            (Figure::MovePages, IDLE, &FREELY),
            (Figure::MoveTwo, IDLE, &TWO),
            (Figure::MoveZeros, 4, &FREELY),
        ];
        for (figure, filled, how) in ways {
            let ctx = self.ctx(who)?;
            let vm = guest(filled, |_| Ok(()))?.vm(&ctx)?;
            let mut guest = Traveller::start(&ctx, who, IDLE, vm)?;
            // A machine that is a guest itself waits for its own host when it uses memory that was
            // free for long, so the first moves say little. The next get what the last have left.
            let mut time = Duration::MAX;
            for _ in 0..MOVES {
                time = time.min(guest.moves(how, |_| Ok(()))?.0);
            }
            samples.push(figure, who, f64::from(IDLE) * 256.0 / time.as_secs_f64());
        }
        Ok(())
    }

    /// For how long nothing is heard of an idle guest.
    fn stands_still(&self, who: Who, samples: &mut Samples) -> Result {
        let ctx = self.ctx(who)?;
        let socket = ctx.dir.join("ticks");
        let heard = listen(UnixListener::bind(&socket)?);
        let chardev = format!("socket,id=ticks,path={}", socket.display());
        let args = ["-chardev", &chardev, "-device", "isa-debugcon,iobase=0xe9,chardev=ticks"];
        let mut guest = Traveller::start(&ctx, who, SMALL, ticker()?.vm(&ctx)?.args(args))?;
        guest.moves(&FREELY, |_| Ok(()))?;
        let deadline = Instant::now() + SOON;
        let gap = loop {
            let all = heard.lock().clone();
            if let [Heard { last: Some(last), .. }, Heard { first: Some(first), .. }] = all[..] {
                break first.saturating_duration_since(last);
            }
            if Instant::now() > deadline {
                return Err(format!("{who:?} says nothing where it came to").into());
            }
            sleep(Duration::from_millis(5));
        };
        samples.push(Figure::MoveGap, who, millis(gap));
        Ok(())
    }

    /// A guest that writes, with differences.
    fn under_writes(&self, who: Who, samples: &mut Samples) -> Result {
        let ctx = self.ctx(who)?;
        let mut guest = Traveller::start(&ctx, who, SMALL, dirtier()?.vm(&ctx)?)?;
        let cache = u64::from(WORKING_SET) << 20;
        let how = How { speed: LINK, capability: Some("xbzrle"), cache };
        let (time, info) = guest.moves(&how, |_| Ok(()))?;
        samples.push(Figure::DeltaTotal, who, millis(time));
        samples.push(Figure::DeltaDowntime, who, info["downtime"].as_f64().unwrap_or(f64::NAN));
        let bytes = info["ram"]["transferred"].as_f64().unwrap_or(f64::NAN);
        samples.push(Figure::DeltaBytes, who, bytes / f64::from(1 << 20));
        Ok(())
    }

    /// How much more memory the process takes while its guest moves.
    fn weighed(&self, who: Who, samples: &mut Samples) -> Result {
        let ctx = self.ctx(who)?;
        let mut guest = Traveller::start(&ctx, who, LARGE, dirtier()?.vm(&ctx)?)?;
        let before = beyond_ram(guest.here.process.id())?.private;
        let how = How { speed: LINK, capability: Some("xbzrle"), cache: CACHE };
        let mut most = before;
        guest.moves(&how, |id| {
            most = most.max(beyond_ram(id)?.private);
            Ok(())
        })?;
        samples.push(Figure::MoveMemory, who, kib(most.saturating_sub(before)));
        Ok(())
    }
}
