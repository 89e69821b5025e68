//! The commands of the debug port. A new one is a row of [`COMMANDS`] and its function.
//!
//! Runs where the engine is fed, see [`super`]. Arguments are a client's: sizes and times are
//! bounded.

use resources::base64;
use resources::nearest::nearest;
use resources::value::parse_number;

use super::{MAX_DATA, Qtest};

/// The most bytes that `memset` fills.
const MAX_FILL: u64 = 64 << 20;

/// The most timers that one command runs. Virtual time may jump by centuries, and a periodic
/// timer would keep the thread for as long.
const MAX_TIMERS: usize = 1 << 18;

/// The names of the one interrupt controller whose inputs can be watched.
const CONTROLLER: [&str; 2] = ["ioapic", "/machine/ioapic"];

/// What follows `OK`, or the reason for `FAIL`.
type Reply = Result<String, String>;

struct Command {
    name: &'static str,
    /// How it is written; a word in brackets may be left out.
    args: &'static [&'static str],
    run: fn(&mut Qtest, &Args) -> Reply,
}

const fn command(
    name: &'static str,
    args: &'static [&'static str],
    run: fn(&mut Qtest, &Args) -> Reply,
) -> Command {
    Command { name, args, run }
}

const COMMANDS: &[Command] = &[
    command("inb", &["ADDR"], |q, a| q.port_in(a, 1)),
    command("inw", &["ADDR"], |q, a| q.port_in(a, 2)),
    command("inl", &["ADDR"], |q, a| q.port_in(a, 4)),
    command("outb", &["ADDR", "VALUE"], |q, a| q.port_out(a, 1)),
    command("outw", &["ADDR", "VALUE"], |q, a| q.port_out(a, 2)),
    command("outl", &["ADDR", "VALUE"], |q, a| q.port_out(a, 4)),
    command("readb", &["ADDR"], |q, a| q.memory_read(a, 1)),
    command("readw", &["ADDR"], |q, a| q.memory_read(a, 2)),
    command("readl", &["ADDR"], |q, a| q.memory_read(a, 4)),
    command("readq", &["ADDR"], |q, a| q.memory_read(a, 8)),
    command("writeb", &["ADDR", "VALUE"], |q, a| q.memory_write(a, 1)),
    command("writew", &["ADDR", "VALUE"], |q, a| q.memory_write(a, 2)),
    command("writel", &["ADDR", "VALUE"], |q, a| q.memory_write(a, 4)),
    command("writeq", &["ADDR", "VALUE"], |q, a| q.memory_write(a, 8)),
    command("read", &["ADDR", "SIZE"], |q, a| Ok(to_hex(&q.read_block(a)?))),
    command("write", &["ADDR", "SIZE", "DATA"], |q, a| {
        let (address, size) = a.block(MAX_DATA as u64)?;
        q.write_block(address, &from_hex(a.text(2), size)?)
    }),
    command("b64read", &["ADDR", "SIZE"], |q, a| Ok(base64::encode(&q.read_block(a)?))),
    command("b64write", &["ADDR", "SIZE", "DATA"], |q, a| {
        let (address, size) = a.block(MAX_DATA as u64)?;
        let data = base64::decode(a.text(2)).ok_or("DATA is not base 64")?;
        if data.len() as u64 != size {
            return Err(format!("DATA has {} bytes, not {size}", data.len()));
        }
        q.write_block(address, &data)
    }),
    command("memset", &["ADDR", "SIZE", "VALUE"], |q, a| q.fill(a)),
    command("clock_step", &["[NS]"], |q, a| q.clock_step(a)),
    command("clock_set", &["NS"], |q, a| {
        let target = a.number(0)?;
        q.advance(target)
    }),
    command("irq_intercept_in", &["PATH"], |q, a| q.intercept(a.text(0))),
    command("irq_intercept_out", &["PATH"], |q, a| q.intercept(a.text(0))),
    command("endianness", &[], |_, _| Ok("little".to_owned())),
];

/// The words after a command's name; as many as its row says, but for what may be left out.
struct Args<'a> {
    names: &'static [&'static str],
    words: &'a [&'a str],
}

impl<'a> Args<'a> {
    /// A word; empty if it was left out.
    fn text(&self, index: usize) -> &'a str {
        self.words.get(index).copied().unwrap_or_default()
    }

    /// A number in base 10, 16 (`0x`) or 8 (`0`).
    fn number(&self, index: usize) -> Result<u64, String> {
        let word = self.text(index);
        let name = self.names.get(index).map_or("", |name| name.trim_matches(['[', ']']));
        parse_number(name, word).map_err(|_| format!("{name} is not a number: {}", shown(word)))
    }

    /// A number of at most `width` bytes.
    fn sized(&self, index: usize, width: usize) -> Result<u64, String> {
        let value = self.number(index)?;
        if width < 8 && value >> (8 * width) != 0 {
            return Err(format!("VALUE {value:#x} does not fit {width} bytes"));
        }
        Ok(value)
    }

    /// An I/O port.
    fn port(&self) -> Result<u64, String> {
        match self.number(0)? {
            port @ 0..=0xffff => Ok(port),
            port => Err(format!("ADDR {port:#x} is not an I/O port")),
        }
    }

    /// Address and size of a block of at least 1 and at most `limit` bytes.
    fn block(&self, limit: u64) -> Result<(u64, u64), String> {
        let (address, size) = (self.number(0)?, self.number(1)?);
        if !(1..=limit).contains(&size) {
            return Err(format!("SIZE {size} is not from 1 to {limit}"));
        }
        if address.checked_add(size - 1).is_none() {
            return Err(format!("{address:#x}+{size:#x} is past the end of memory"));
        }
        Ok((address, size))
    }
}

impl Qtest {
    /// Runs one line.
    pub(super) fn command(&mut self, line: &[u8]) -> Reply {
        let line = std::str::from_utf8(line).map_err(|_| "line is not text".to_owned())?;
        let words: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
        let Some((name, words)) = words.split_first() else {
            return Err("empty line".to_owned());
        };
        let Some(command) = COMMANDS.iter().find(|command| command.name == *name) else {
            let near = nearest(name, COMMANDS.iter().map(|command| command.name));
            let hint = near.map(|near| format!(" (did you mean '{near}'?)")).unwrap_or_default();
            return Err(format!("Unknown command {}{hint}", shown(name)));
        };
        let needed = command.args.iter().filter(|arg| !arg.starts_with('[')).count();
        if !(needed..=command.args.len()).contains(&words.len()) {
            return Err(format!("usage: {} {}", command.name, command.args.join(" ")));
        }
        let value = (command.run)(self, &Args { names: command.args, words })?;
        // What the command made due happens before the reply.
        self.run_timers(self.clock.now())?;
        Ok(value)
    }

    fn port_in(&self, args: &Args, width: usize) -> Reply {
        let mut data = [0; 8];
        self.ports.read(args.port()?, &mut data[..width]);
        Ok(format!("{:#06x}", u64::from_le_bytes(data)))
    }

    fn port_out(&self, args: &Args, width: usize) -> Reply {
        let (port, value) = (args.port()?, args.sized(1, width)?);
        self.ports.write(port, &value.to_le_bytes()[..width]);
        Ok(String::new())
    }

    fn memory_read(&self, args: &Args, width: usize) -> Reply {
        let mut data = [0; 8];
        self.memory.read(args.number(0)?, &mut data[..width]);
        Ok(format!("{:#018x}", u64::from_le_bytes(data)))
    }

    fn memory_write(&self, args: &Args, width: usize) -> Reply {
        let (address, value) = (args.number(0)?, args.sized(1, width)?);
        self.memory.write(address, &value.to_le_bytes()[..width]);
        Ok(String::new())
    }

    fn read_block(&self, args: &Args) -> Result<Vec<u8>, String> {
        let (address, size) = args.block(MAX_DATA as u64)?;
        let mut data = vec![0; size as usize];
        let mut rest = data.as_mut_slice();
        for (address, width) in accesses(address, size) {
            let (now, later) = rest.split_at_mut(width);
            self.memory.read(address, now);
            rest = later;
        }
        Ok(data)
    }

    fn write_block(&self, address: u64, data: &[u8]) -> Reply {
        let mut rest = data;
        for (address, width) in accesses(address, data.len() as u64) {
            let (now, later) = rest.split_at(width);
            self.memory.write(address, now);
            rest = later;
        }
        Ok(String::new())
    }

    fn fill(&self, args: &Args) -> Reply {
        let (address, size) = args.block(MAX_FILL)?;
        let value = [args.sized(2, 1)? as u8; 8];
        for (address, width) in accesses(address, size) {
            self.memory.write(address, &value[..width]);
        }
        Ok(String::new())
    }

    /// Steps by a number of nanoseconds, or to the next timer.
    fn clock_step(&self, args: &Args) -> Reply {
        let now = self.clock.now();
        let target = if args.words.is_empty() {
            self.clock.next_deadline().unwrap_or(now).max(now)
        } else {
            let step = args.number(0)?;
            now.checked_add(step).ok_or_else(|| format!("NS {step} is past the end of time"))?
        };
        self.advance(target)
    }

    /// Moves virtual time forward to `target`, running each timer at its own time.
    fn advance(&self, target: u64) -> Reply {
        // Time does not go back: timers may already have acted on it.
        self.run_timers(target)?;
        if target > self.clock.now() {
            self.clock.set(target);
        }
        Ok(self.clock.now().to_string())
    }

    fn run_timers(&self, target: u64) -> Result<(), String> {
        for _ in 0..MAX_TIMERS {
            if !self.clock.step_timer(target) {
                return Ok(());
            }
        }
        let now = self.clock.now();
        Err(format!("{MAX_TIMERS} timers ran; the clock is at {now}, go on from there"))
    }

    /// Watches the inputs of the interrupt controller, which are what the devices put out: so
    /// both commands do the same.
    fn intercept(&mut self, path: &str) -> Reply {
        if !CONTROLLER.contains(&path) {
            return Err(format!("Unknown device {} (there is 'ioapic')", shown(path)));
        }
        self.watch();
        Ok(String::new())
    }
}

/// The accesses that cover a block as a bus makes them: 1, 2, 4 or 8 bytes at their own alignment.
fn accesses(address: u64, size: u64) -> impl Iterator<Item = (u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let rest = size - done;
        let at = address.wrapping_add(done);
        let fits = |width: &u64| *width <= rest && at.is_multiple_of(*width);
        let width = [8, 4, 2, 1].into_iter().find(fits)?;
        done += width;
        Some((at, width as usize))
    })
}

/// `0x` and two digits for each byte.
fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// `size` bytes from `0x` and digits; zeros where there are fewer.
fn from_hex(text: &str, size: u64) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix("0x").ok_or("DATA does not begin with 0x")?;
    if !digits.len().is_multiple_of(2) {
        return Err("DATA has an odd number of digits".to_owned());
    }
    if digits.len() as u64 / 2 > size {
        return Err(format!("DATA has {} bytes, not {size}", digits.len() / 2));
    }
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let mut data = vec![0; size as usize];
    for (pair, byte) in digits.as_bytes().chunks_exact(2).zip(&mut data) {
        let digits = nibble(pair[0]).zip(nibble(pair[1]));
        let (high, low) = digits.ok_or("DATA is not hexadecimal")?;
        *byte = (high << 4 | low) as u8;
    }
    Ok(data)
}

/// A word of the client's in a reply: short, and without control characters.
fn shown(word: &str) -> String {
    let cut: String = word.chars().take(32).collect();
    let more = if cut.len() < word.len() { "..." } else { "" };
    format!("'{}{more}'", cut.escape_default())
}
