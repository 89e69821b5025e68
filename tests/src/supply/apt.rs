//! Debian packages: the tools the rig calls, installed when they are missing, and files taken out
//! of packages that are never installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::run;
use crate::rig::Result;

/// Every package the rig calls a tool of.
const TOOLS: [&str; 17] = [
    "binutils",
    "busybox-static",
    "e2fsprogs",
    "erofs-utils",
    "gdb",
    "iperf3",
    "iproute2",
    "libnbd-bin",
    "lz4",
    "mmdebstrap",
    "python3-libnbd",
    "python3-venv",
    "qemu-system-x86",
    "qemu-utils",
    "tcpdump",
    "xz-utils",
    "zstd",
];

/// How long another apt may be at work, in seconds.
const WAIT: &str = "-oDPkg::Lock::Timeout=300";

/// Installs what is missing of the tools.
pub fn install_tools() -> Result {
    // One may drive out another that came from elsewhere (backports): that one is missing then.
    for _ in 0..TOOLS.len() {
        let missing: Vec<&str> = TOOLS.into_iter().filter(|name| !installed(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        println!("  installing {}", missing.join(" "));
        update()?;
        let mut install = as_root(&["apt-get", "install", "-y", "--no-install-recommends", WAIT]);
        run(install.args(&missing)).map_err(|error| {
            format!(
                "{error}\ncould not install what the tests need; install it yourself: \
                 apt-get install {}",
                missing.join(" ")
            )
        })?;
    }
    Err(format!("these packages drive out each other: {}", TOOLS.join(" ")).into())
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    let status = run(query.args(["-W", "-f", "${Status}", package]));
    status.is_ok_and(|text| text == b"install ok installed")
}

/// Fetches the package lists.
fn update() -> Result {
    println!("  updating the package lists");
    run(&mut as_root(&["apt-get", "update", "-q"]))?;
    Ok(())
}

/// A command that runs as root, through sudo where we are not.
pub(super) fn as_root(words: &[&str]) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(words[0])
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("DEBIAN_FRONTEND=noninteractive").arg(words[0]);
        sudo
    };
    command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The newest package that the metapackage `meta` stands for.
pub fn resolve(meta: &str, prefix: &str) -> Result<String> {
    match depends(meta, prefix) {
        Some(package) => Ok(package),
        None => {
            update()?;
            depends(meta, prefix)
                .ok_or_else(|| format!("apt knows no package {meta} (a Debian 12 one)").into())
        }
    }
}

fn depends(meta: &str, prefix: &str) -> Option<String> {
    let text = run(Command::new("apt-cache").args(["depends", meta])).ok()?;
    first_dependency(&String::from_utf8_lossy(&text), prefix)
}

fn first_dependency(text: &str, prefix: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

/// Downloads `package` and unpacks it into `dir`, without installing it.
pub fn unpack(package: &str, dir: &Path) -> Result {
    let download = || run(Command::new("apt-get").args(["download", package]).current_dir(dir));
    if download().is_err() {
        // The archive moves on, and old lists name packages that are gone.
        update()?;
        download()?;
    }
    for entry in fs::read_dir(dir)? {
        let deb = entry?.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&deb).arg(dir))?;
            fs::remove_file(deb)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_package_behind_a_metapackage() {
        let text = "linux-image-cloud-amd64\n  Depends: initramfs\n  \
                    Depends: linux-image-6.1.0-9-cloud-amd64\n";
        let found = super::first_dependency(text, "linux-image-");
        assert_eq!(found.as_deref(), Some("linux-image-6.1.0-9-cloud-amd64"));
        assert_eq!(super::first_dependency("linux-image\n", "linux-image-"), None);
    }
}
