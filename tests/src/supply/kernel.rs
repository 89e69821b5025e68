//! Debian kernels taken out of their packages: the image as it is, the uncompressed ELF file
//! inside it, and modules with what they depend on.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cache::{Item, item};
use super::{apt, run};
use crate::rig::Result;
use crate::rig::vm::Kernel;

/// An unpacked kernel package: `bzImage`, `vmlinux` and `lib/modules`.
pub struct Files {
    item: Item,
}

impl Files {
    /// Gets the current version of `kernel`.
    pub fn get(cache: &Path, kernel: Kernel) -> Result<Self> {
        let meta = match kernel {
            Kernel::V6_12 => "linux-image-6.12-cloud-amd64",
            Kernel::V6_1 => "linux-image-cloud-amd64",
        };
        let package = apt::resolve(meta, "linux-image-")?;
        let what = format!("getting the kernel {package}");
        let name = format!("kernel-{}", kernel.name());
        let item = item(cache, &name, format!("{package}\n"), &what, |dir| {
            apt::unpack(&package, dir)?;
            let boot = fs::read_dir(dir.join("boot"))?;
            let image = boot
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
                .ok_or("the package has no kernel image")?;
            fs::rename(&image, dir.join("bzImage"))?;
            extract_vmlinux(&dir.join("bzImage"), &dir.join("vmlinux"))
        })?;
        Ok(Self { item })
    }

    /// The compressed image.
    pub fn bz_image(&self) -> PathBuf {
        self.item.path().join("bzImage")
    }

    /// The uncompressed ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        self.item.path().join("vmlinux")
    }

    /// What this kernel is, as a part of other keys.
    pub fn key(&self) -> &str {
        self.item.key()
    }

    /// The named modules and what they depend on, in an order in which they load. Names the
    /// package does not have are left out: that kernel has them built in, or not at all.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut files = HashMap::new();
        index_modules(&self.item.path().join("lib/modules"), &mut files)?;
        let mut ordered = Vec::new();
        for name in names {
            add_module(&files, name, &mut ordered)?;
        }
        Ok(ordered)
    }

    /// The directory of all modules, as they are in the package.
    pub fn all_modules(&self) -> PathBuf {
        self.item.path().join("lib/modules")
    }
}

/// A kernel module.
pub struct Module {
    /// Its name, as the running kernel writes it.
    pub name: String,
    /// The modules it needs, and what these need, in an order in which they load.
    pub needs: Vec<String>,
    /// The file, without debug information.
    pub data: Vec<u8>,
}

/// The name under which a module is known: the kernel takes - for _.
fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

fn index_modules(dir: &Path, files: &mut HashMap<String, PathBuf>) -> Result {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index_modules(&path, files)?;
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(module_name(stem), path);
        }
    }
    Ok(())
}

/// Adds the module `name` after what it needs, unless it is there; gives its whole need.
fn add_module(
    files: &HashMap<String, PathBuf>,
    name: &str,
    ordered: &mut Vec<Module>,
) -> Result<Vec<String>> {
    let name = module_name(name);
    if let Some(there) = ordered.iter().find(|module| module.name == name) {
        return Ok(there.needs.iter().cloned().chain([name]).collect());
    }
    let Some(path) = files.get(&name) else { return Ok(Vec::new()) };
    let packed = path.extension().is_some_and(|extension| extension == "xz");
    let data = if packed { run(Command::new("xz").arg("-dc").arg(path))? } else { fs::read(path)? };
    let mut needs: Vec<String> = Vec::new();
    for direct in dependencies(&data) {
        for needed in add_module(files, &direct, ordered)? {
            if !needs.contains(&needed) {
                needs.push(needed);
            }
        }
    }
    ordered.push(Module { name: name.clone(), needs: needs.clone(), data: strip(&data)? });
    needs.push(name);
    Ok(needs)
}

/// The `depends=` entry of a module's `.modinfo` section: zero-terminated `key=value` strings.
fn dependencies(module: &[u8]) -> Vec<String> {
    module
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="))
        .map(|list| String::from_utf8_lossy(list).into_owned())
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Drops debug and type information, which halves the time a large module takes to load. The
/// signature goes with it; Debian's kernels do not insist on one.
fn strip(module: &[u8]) -> Result<Vec<u8>> {
    let file = std::env::temp_dir().join(format!("vmtest-{}.ko", std::process::id()));
    fs::write(&file, module)?;
    run(Command::new("objcopy").args(["--strip-debug", "-R", ".BTF"]).arg(&file))?;
    let stripped = fs::read(&file)?;
    fs::remove_file(&file)?;
    Ok(stripped)
}

/// Takes the compressed kernel out of a bzImage and unpacks it. The setup header says where it
/// is (the kernel's Documentation/arch/x86/boot.rst, `payload_offset` and `payload_length`).
fn extract_vmlinux(image: &Path, output: &Path) -> Result {
    let image = fs::read(image)?;
    let payload = payload(&image).ok_or("the image has no valid setup header")?;
    let (program, payload) = match payload {
        // The build appends the unpacked size to what has no size of its own.
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", without_size(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("xz", without_size(payload)),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", without_size(payload)),
        [0x1f, 0x8b, ..] => ("gzip", payload),
        _ => return Err("the kernel is packed in an unknown way".into()),
    };
    let packed = output.with_extension("packed");
    fs::write(&packed, payload)?;
    let mut command = Command::new(program);
    command.arg("-dc").stdin(File::open(&packed)?).stdout(File::create(output)?);
    let done = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    if !done.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    fs::remove_file(packed)?;
    let mut magic = [0; 4];
    std::io::Read::read_exact(&mut File::open(output)?, &mut magic)?;
    if &magic == b"\x7fELF" { Ok(()) } else { Err("what is inside is not an ELF file".into()) }
}

fn without_size(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().saturating_sub(4)]
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match usize::from(*image.get(0x1f1)?) {
        0 => 4,
        count => count,
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_payload_of_an_image() {
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        image[0x248] = 16;
        image[0x24c] = 3;
        image[1024 + 16..1024 + 19].copy_from_slice(b"abc");
        assert_eq!(payload(&image), Some(&b"abc"[..]));
        image[0x24f] = 0xff;
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..0x200]), None);
    }

    #[test]
    fn reads_what_a_module_depends_on() {
        assert_eq!(dependencies(b"license=GPL\0depends=kvm,ccp\0name=x"), ["kvm", "ccp"]);
        assert!(dependencies(b"depends=\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}
