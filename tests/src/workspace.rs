//! Where the project's files are, and building the program under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::Result;
use crate::rig::vm::Peer;

/// The workspace's directory.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The running program, also when cargo has replaced its file meanwhile: building the unit tests
/// does that.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// The NBD server, which is built beside `vmm`: it makes images disks of the kernel it runs on.
pub const NBD: &str = "vmm-nbd";

/// Cargo's target directory: the running program is two levels below it.
pub fn target() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("vmtest is not in a target directory")?;
    Ok(target.to_owned())
}

/// Where the rig keeps what it downloads and makes.
pub fn cache() -> Result<PathBuf> {
    Ok(target()?.join("vmtest"))
}

/// A cargo command in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A `vmm` for tests that `cargo test` runs, which need no KVM: built now, as these tests were, or
/// what `VMTEST_VMM` names.
pub fn debug_peer() -> Result<Peer> {
    if let Some(path) = std::env::var_os("VMTEST_VMM") {
        return Ok(Peer::Vmm(std::fs::canonicalize(path)?));
    }
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", "vmm", "--bin", "vmm"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if !command.status()?.success() {
        return Err("vmm does not build".into());
    }
    // A test program is one level deeper than `vmm`.
    let program = std::env::current_exe()?;
    let dir = program.ancestors().nth(2).ok_or("the test is not in a target directory")?;
    Ok(Peer::Vmm(dir.join("vmm")))
}

/// The program under test: `vmm`, built for release now; or what `VMTEST_VMM` names (a built
/// `vmm`), or QEMU when `VMTEST_PEER=qemu` checks the tests themselves.
pub fn peer() -> Result<Peer> {
    if std::env::var("VMTEST_PEER").is_ok_and(|peer| peer == "qemu") {
        return Ok(Peer::Qemu(crate::host::image::QEMU.into()));
    }
    if let Some(path) = std::env::var_os("VMTEST_VMM") {
        return Ok(Peer::Vmm(std::fs::canonicalize(path)?));
    }
    println!("building vmm");
    let mut command = cargo();
    command.args(["build", "--release", "--package", "vmm", "--bin", "vmm"]);
    let built = command.args(["--package", "block", "--bin", NBD]).status()?;
    if !built.success() {
        return Err("vmm does not build".into());
    }
    Ok(Peer::Vmm(target()?.join("release/vmm")))
}
