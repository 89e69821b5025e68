//! What machine it is that moves: sent first, so that one that cannot take the guest says so while
//! the guest still runs at home.
//!
//! Plain data, read from anybody: its size is that of a blob, and it is only compared.

use std::collections::BTreeMap;

use resources::state::Blob;
use serde::{Deserialize, Serialize};

use crate::needs::{self, Needs};
use crate::stream::Error;

/// The name of its section.
pub const NAME: &str = "inventory";

/// A machine, as far as the other side must have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The kind of machine.
    #[serde(default)]
    pub machine: String,
    /// The model of its processors.
    #[serde(default)]
    pub cpu: String,
    /// What the processors tell of themselves, by leaf and subleaf of CPUID; none of a source
    /// that does not say it.
    #[serde(default)]
    pub cpuid: BTreeMap<String, String>,
    /// The parts that have a state, by name, with what each is.
    #[serde(default)]
    pub parts: BTreeMap<String, String>,
    /// Bytes of the disks whose contents move too; here, of those that could be written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<String, u64>,
}

impl Inventory {
    pub(crate) fn to_bytes(&self, needs: &Needs) -> Result<Vec<u8>, Error> {
        let bytes = Blob::new(1, self).and_then(|blob| needs.put(blob)?.to_bytes());
        bytes.map_err(|error| Error::Here(error.to_string()))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<(Inventory, Needs), Error> {
        let blob = Blob::from_bytes(bytes);
        let parsed = blob.and_then(|blob| Ok((blob.parse(1, needs::KNOWN)?, blob)));
        let (inventory, blob) =
            parsed.map_err(|error| Error::bad(format!("the inventory: {error}")))?;
        Ok((inventory, Needs::of(&blob)?))
    }

    /// Whether this machine, the destination, can take the guest of the other.
    ///
    /// # Errors
    /// The first difference, by name.
    pub fn check(&self, source: &Inventory) -> Result<(), Error> {
        for (what, here, there) in [
            ("machine", &self.machine, &source.machine),
            ("processor model", &self.cpu, &source.cpu),
        ] {
            if here != there {
                let text = format!("the {what} is '{there}' at the source and '{here}' here");
                return Err(Error::bad(text));
            }
        }
        if !source.cpuid.is_empty() {
            let leaves = source.cpuid.keys().chain(self.cpuid.keys());
            for leaf in leaves {
                let of = |it: &Inventory| it.cpuid.get(leaf).map_or("nothing", |it| it).to_owned();
                let (here, there) = (of(self), of(source));
                if here != there {
                    return Err(Error::bad(format!(
                        "the processors differ: CPUID leaf {leaf} is {there} at the source and \
                         {here} here"
                    )));
                }
            }
        }
        for (part, there) in &source.parts {
            match self.parts.get(part) {
                None => {
                    let text = format!("the source has '{part}' ({there}), this machine has not");
                    return Err(Error::bad(text));
                }
                Some(here) if here != there => {
                    let text = format!("'{part}' is a {there} at the source and a {here} here");
                    return Err(Error::bad(text));
                }
                Some(_) => {}
            }
        }
        for (disk, there) in &source.disks {
            let text = match self.disks.get(disk) {
                None => format!("the source sends disk '{disk}', which this machine cannot fill"),
                Some(here) if here != there => {
                    format!("disk '{disk}' has {there} bytes at the source and {here} here")
                }
                Some(_) => continue,
            };
            return Err(Error::bad(text));
        }
        match self.parts.iter().find(|(part, _)| !source.parts.contains_key(*part)) {
            Some((part, here)) => {
                let text = format!("this machine has '{part}' ({here}), the source has not");
                Err(Error::bad(text))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(parts: &[(&str, &str)]) -> Inventory {
        let parts = parts.iter().map(|(name, class)| ((*name).to_owned(), (*class).to_owned()));
        let (machine, cpu) = ("pc".to_owned(), "qemu64".to_owned());
        Inventory { machine, cpu, parts: parts.collect(), ..Inventory::default() }
    }

    #[test]
    fn differences_are_named() {
        let here = of(&[("/rtc", "mc146818rtc"), ("/net0", "e1000")]);
        let refused = |source: Inventory| here.check(&source).unwrap_err().to_string();
        let bytes = here.to_bytes(&Needs::default()).unwrap();
        here.check(&Inventory::from_bytes(&bytes).unwrap().0).unwrap();
        let text = refused(Inventory { machine: "q35".to_owned(), ..here.clone() });
        assert_eq!(text, "the machine is 'q35' at the source and 'pc' here");
        let leaf = |words: &str| BTreeMap::from([("0x7.0".to_owned(), words.to_owned())]);
        let text = refused(Inventory { cpuid: leaf("0 1 0 0"), ..here.clone() });
        let differs = "the processors differ: CPUID leaf 0x7.0 is ";
        assert_eq!(text, format!("{differs}0 1 0 0 at the source and nothing here"));
        let better = Inventory { cpuid: leaf("0 3 0 0"), ..here.clone() };
        let text = better.check(&Inventory { cpuid: leaf("0 1 0 0"), ..here.clone() });
        let differs = format!("{differs}0 1 0 0 at the source and 0 3 0 0 here");
        assert_eq!(text.unwrap_err().to_string(), differs);
        better.check(&here).unwrap();
        let text = refused(of(&[("/rtc", "mc146818rtc")]));
        assert_eq!(text, "this machine has '/net0' (e1000), the source has not");
        let text = refused(of(&[("/rtc", "x"), ("/net0", "e1000")]));
        assert_eq!(text, "'/rtc' is a x at the source and a mc146818rtc here");
        let text = refused(of(&[("/disk", "virtio-blk"), ("/rtc", "mc146818rtc")]));
        assert_eq!(text, "the source has '/disk' (virtio-blk), this machine has not");
        let with = |name: &str, size| {
            let disks = [(name.to_owned(), size)].into();
            Inventory { disks, ..here.clone() }
        };
        let text = refused(with("d", 5));
        assert_eq!(text, "the source sends disk 'd', which this machine cannot fill");
        let text = with("d", 4).check(&with("d", 5)).unwrap_err().to_string();
        assert_eq!(text, "disk 'd' has 5 bytes at the source and 4 here");
        // Disks that are not sent need not be the same.
        with("d", 4).check(&here).unwrap();
    }
}
