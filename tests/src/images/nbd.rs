//! NBD: our server with the clients of libnbd and QEMU, QEMU's server with ours.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::tools::{Tools, Whose, equal};
use crate::rig::Result;
use crate::rig::process::die_with_parent;
use crate::supply::run;

const SIZE: usize = 4 << 20;
/// How long a server may take to begin.
const SOON: Duration = Duration::from_secs(30);

/// A server that ends with this.
pub(super) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves a raw image at the socket `s` as `disk`.
fn serve(tools: &Tools, whose: Whose, image: &str) -> Result<Server> {
    serve_as(tools, whose, &["-f", "raw", "-D", "a text"], image)
}

/// Serves an image at the socket `s` as `disk`, with more options.
pub(super) fn serve_as(
    tools: &Tools,
    whose: Whose,
    options: &[&str],
    image: &str,
) -> Result<Server> {
    let socket = tools.path("s");
    let _ = fs::remove_file(&socket);
    let mut command = tools.command(whose, "nbd");
    command.args(["-t", "-e", "0", "-x", "disk"]).args(options);
    command.arg("-k").arg(&socket).arg(image);
    die_with_parent(&mut command);
    let server = Server(command.spawn()?);
    let start = Instant::now();
    // It has a name before it listens.
    while UnixStream::connect(&socket).is_err() {
        if start.elapsed() > SOON {
            return Err(format!("{whose:?} nbd does not listen").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(server)
}

/// Bytes without order, with holes between them.
fn image(path: &Path) -> Result<Vec<u8>> {
    let mut seed = 9u64;
    let mut bytes = vec![0; SIZE];
    for (number, page) in bytes.chunks_mut(65536).enumerate() {
        if number % 3 == 0 {
            for byte in page {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
        }
    }
    fs::write(path, &bytes)?;
    run(Command::new("fallocate").arg("--dig-holes").arg(path))?;
    Ok(bytes)
}

pub(super) fn uri(tools: &Tools) -> String {
    format!("nbd+unix:///disk?socket={}", tools.path("s").display())
}

/// nbdinfo and nbdcopy, at our server.
pub(super) fn libnbd(tools: &Tools) -> Result {
    let bytes = image(&tools.path("a"))?;
    let _server = serve(tools, Whose::Ours, "a")?;
    let text = run(Command::new("nbdinfo").arg(uri(tools)))?;
    let text = String::from_utf8(text)?;
    for line in ["export-size: 4194304", "description: a text", "can_fast_zero: true"] {
        if !text.contains(line) {
            return Err(format!("nbdinfo does not say '{line}': {text}").into());
        }
    }
    let map = String::from_utf8(run(Command::new("nbdinfo").arg("--map").arg(uri(tools)))?)?;
    equal("extents", &map.lines().count(), &(SIZE / 65536 * 2 / 3 + 1))?;
    let copy = tools.path("b");
    run(Command::new("nbdcopy").arg(uri(tools)).arg(&copy))?;
    equal("what nbdcopy took", &(fs::read(&copy)? == bytes), &true)?;
    let other: Vec<u8> = bytes.iter().rev().copied().collect();
    fs::write(&copy, &other)?;
    run(Command::new("nbdcopy").arg("--flush").arg(&copy).arg(uri(tools)))?;
    equal("what nbdcopy brought", &(fs::read(tools.path("a"))? == other), &true)
}

const SHELL: &str = "
assert h.get_size() == 4194304 and h.can_multi_conn() and h.can_cache()
h.pwrite(b'abc' * 100, 777, nbd.CMD_FLAG_FUA)
assert bytes(h.pread(300, 777)) == b'abc' * 100
h.zero(8192, 65536, nbd.CMD_FLAG_NO_HOLE)
h.trim(65536, 131072)
h.cache(65536, 0)
h.flush()
extents = []
h.block_status(4194304, 0, lambda name, at, entries, error: extents.append((name, at)))
assert extents == [('base:allocation', 0)], extents
for broken, number in [
    (lambda: h.pread(1, 4194304), errno.EINVAL),
    (lambda: h.pwrite(b'x', 4194304), errno.ENOSPC),
]:
    h.set_strict_mode(0)
    try:
        broken()
        assert False
    except nbd.Error as error:
        assert error.errnum == number, error
h.shutdown()
";

/// nbdsh, at our server.
pub(super) fn shell(tools: &Tools) -> Result {
    image(&tools.path("a"))?;
    let _server = serve(tools, Whose::Ours, "a")?;
    let script = format!("import errno{SHELL}");
    let mut nbdsh = Command::new("/usr/bin/python3");
    run(nbdsh.args(["-m", "nbd", "--base-allocation", "-u", &uri(tools), "-c", &script]))?;
    Ok(())
}

/// Each one's image tools at the other's server.
pub(super) fn images(tools: &Tools) -> Result {
    for (server, client) in [(Whose::Ours, Whose::Others), (Whose::Others, Whose::Ours)] {
        let bytes = image(&tools.path("a"))?;
        let _server = serve(tools, server, "a")?;
        let name = uri(tools);
        tools.ok(client, &format!("convert -f raw -O raw {name} b"))?;
        equal("what was taken", &(fs::read(tools.path("b"))? == bytes), &true)?;
        let commands = ["write -P 7 1000 70000", "write -z 1M 1M", "discard 2M 64k", "flush"];
        let commands: Vec<String> = commands.iter().map(|&line| line.to_owned()).collect();
        tools.io_ok(client, &format!("-f raw {name}"), &commands)?;
        let now = fs::read(tools.path("a"))?;
        equal("a pattern", &now[1000..71000].iter().all(|byte| *byte == 7), &true)?;
        equal("zeros", &now[1 << 20..2 << 20].iter().all(|byte| *byte == 0), &true)?;
        let info = tools.json(client, &format!("info -f raw --output=json {name}"))?;
        equal("the size", &info["virtual-size"].as_u64(), &Some(SIZE as u64))?;
    }
    Ok(())
}

/// Both list the exports of a server in the same words.
pub(super) fn list(tools: &Tools) -> Result {
    image(&tools.path("a"))?;
    for server in [Whose::Ours, Whose::Others] {
        let _server = serve(tools, server, "a")?;
        let says =
            |whose| run(tools.command(whose, "nbd").arg("-L").arg("-k").arg(tools.path("s")));
        let words = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        equal("lists", &words(says(Whose::Ours)?), &words(says(Whose::Others)?))?;
    }
    Ok(())
}
