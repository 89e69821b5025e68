//! Directory trees that become read-only disk images, with the shared libraries their programs
//! need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;
use crate::rig::Result;

/// The shared libraries of `program` and its dynamic loader, as ldd names them.
pub fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = run(Command::new("ldd").arg(program).env_remove("LD_LIBRARY_PATH"))?;
    Ok(parse_ldd(&String::from_utf8_lossy(&text)))
}

fn parse_ldd(text: &str) -> BTreeSet<PathBuf> {
    text.lines()
        .filter_map(|line| {
            let target = line.split_once("=>").map_or(line, |(_, target)| target);
            let path = target.split_whitespace().next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

/// Copies the file at the absolute path `source` to the same place below `root`.
pub fn copy_in(root: &Path, source: &Path) -> Result {
    copy(source, &root.join(source.strip_prefix("/")?))
}

/// Copies a file and makes the directories it needs.
pub fn copy(source: &Path, target: &Path) -> Result {
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(source, target).map_err(|error| format!("{}: {error}", source.display()))?;
    Ok(())
}

/// Makes an uncompressed erofs image of `root`.
pub fn erofs(root: &Path, image: &Path) -> Result {
    run(Command::new("mkfs.erofs").args(["-T0", "--all-root"]).arg(image).arg(root))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_all_forms_of_ldd_lines() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let found: Vec<_> = super::parse_ldd(text).into_iter().collect();
        let paths = ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, paths.map(std::path::PathBuf::from));
    }
}
