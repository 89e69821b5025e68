//! How many processors a machine has and how they sit in sockets, cores and threads (`-smp`).
//!
//! Pure; any thread, no lock. The option comes from whoever starts the process: every number is
//! bounded before it is used.

use std::fmt;

use resources::{nearest::nearest, value::parse_number};

/// The most processors a machine can have: APIC id 255 is the broadcast of the 8-bit xAPIC.
pub const MAX_CPUS: u32 = 255;

const KEYS: [&str; 5] = ["cpus", "sockets", "cores", "threads", "maxcpus"];

/// The processors of a machine. Made by [`Topology::parse`], which holds the fields together:
/// all are at least 1, `cpus <= max_cpus <= 255`, `sockets * cores * threads >= max_cpus`, and no
/// APIC id is above 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    cpus: u32,
    max_cpus: u32,
    sockets: u32,
    cores: u32,
    threads: u32,
}

/// Where one processor sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The socket, from 0.
    pub socket: u32,
    /// The core within the socket, from 0.
    pub core: u32,
    /// The thread within the core, from 0.
    pub thread: u32,
}

/// Why an `-smp` option was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TopologyError(String);

impl Default for Topology {
    fn default() -> Self {
        Self { cpus: 1, max_cpus: 1, sockets: 1, cores: 1, threads: 1 }
    }
}

impl Topology {
    /// Makes a topology from the keys and values of `-smp`; an empty key is the one that was left
    /// out (`-smp 4`) and means `cpus`. Of a repeated key the last value counts.
    ///
    /// What is missing is computed, preferring sockets over cores over threads: `maxcpus` is
    /// `cpus`; `cpus` is the product of the rest; then threads, cores and sockets, each 1 unless
    /// all that could hold the processors before it are given.
    ///
    /// # Errors
    /// An unknown key (with the nearest one), a value that is not a number or is zero, more than
    /// 255 processors, fewer `maxcpus` than `cpus`, a topology too small for the processors or one
    /// whose APIC ids do not fit.
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, TopologyError> {
        let mut values = [None; KEYS.len()];
        for (key, value) in options {
            let key = if key.as_ref().is_empty() { "cpus" } else { key.as_ref() };
            let Some(slot) = KEYS.iter().zip(&mut values).find(|(name, _)| **name == key) else {
                let hint = nearest(key, KEYS).map(|k| format!(" (nearest: '{k}')"));
                return fail(format_args!(
                    "Invalid parameter '{key}' of -smp{}",
                    hint.unwrap_or_default()
                ));
            };
            *slot.1 = Some(number(key, value.as_ref())?);
        }
        let [cpus, sockets, cores, threads, max] = values;

        let product = u64::from(sockets.unwrap_or(1))
            * u64::from(cores.unwrap_or(1))
            * u64::from(threads.unwrap_or(1));
        let cpus = match cpus {
            Some(n) => n,
            None => u32::try_from(product).unwrap_or(u32::MAX),
        };
        let max_cpus = max.unwrap_or(cpus);
        if max_cpus > MAX_CPUS {
            return fail(format_args!("Unsupported number of maxcpus"));
        }
        if max_cpus < cpus {
            return fail(format_args!("maxcpus must be equal to or greater than smp"));
        }

        // `among`: how many of the next level up are needed, for `max_cpus` processors in groups.
        let among = |groups: u64| u32::try_from(u64::from(max_cpus).div_ceil(groups)).unwrap_or(1);
        let (sockets, cores, threads) = match (sockets, cores, threads) {
            (Some(s), Some(c), None) => (s, c, among(u64::from(s) * u64::from(c))),
            (Some(s), None, t) => {
                let t = t.unwrap_or(1);
                (s, among(u64::from(s) * u64::from(t)), t)
            }
            (None, c, t) => {
                let (c, t) = (c.unwrap_or(1), t.unwrap_or(1));
                (among(u64::from(c) * u64::from(t)), c, t)
            }
            (Some(s), Some(c), Some(t)) => (s, c, t),
        };
        let product = u64::from(sockets) * u64::from(cores) * u64::from(threads);
        if product < u64::from(max_cpus) {
            return fail(format_args!(
                "cpu topology: sockets ({sockets}) * cores ({cores}) * threads ({threads}) < maxcpus ({max_cpus})"
            ));
        }
        let topology = Self { cpus, max_cpus, sockets, cores, threads };
        if topology.package_shift() > 8 {
            return fail(format_args!(
                "cpu topology: cores ({cores}) * threads ({threads}) need more than the 8 bits of an APIC id"
            ));
        }
        let id = topology.apic_id(max_cpus - 1);
        if id >= MAX_CPUS {
            return fail(format_args!(
                "cpu topology: the last of {max_cpus} processors would have APIC id {id}; the largest is 254"
            ));
        }
        Ok(topology)
    }

    /// Checks that the machine type `name` can have that many processors.
    ///
    /// # Errors
    /// When `max_cpus` is above the machine's `limit`.
    pub fn check_machine(&self, name: &str, limit: u32) -> Result<(), TopologyError> {
        if self.max_cpus > limit {
            return fail(format_args!(
                "Number of SMP cpus requested ({}), exceeds max cpus supported by machine `{name}' ({limit})",
                self.max_cpus
            ));
        }
        Ok(())
    }

    /// Processors present at start.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Processors that can be present after hot-plug.
    #[must_use]
    pub fn max_cpus(&self) -> u32 {
        self.max_cpus
    }

    /// Sockets.
    #[must_use]
    pub fn sockets(&self) -> u32 {
        self.sockets
    }

    /// Cores in a socket.
    #[must_use]
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Threads in a core.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// Logical processors in a socket.
    #[must_use]
    pub fn threads_per_socket(&self) -> u32 {
        self.cores.saturating_mul(self.threads)
    }

    /// Where processor `index` sits: threads of a core are neighbours, then cores of a socket.
    #[must_use]
    pub fn place(&self, index: u32) -> Place {
        Place {
            socket: index / self.threads_per_socket(),
            core: index / self.threads % self.cores,
            thread: index % self.threads,
        }
    }

    /// The APIC id of processor `index` (below [`Self::max_cpus`]): its place, each level in a
    /// field whose width is a power of two, as CPUID leaf 0xB describes.
    #[must_use]
    pub fn apic_id(&self, index: u32) -> u32 {
        let place = self.place(index);
        (place.socket << self.package_shift()) | (place.core << self.core_shift()) | place.thread
    }

    /// How far an APIC id is shifted right to give the core: the width of the thread field.
    #[must_use]
    pub fn core_shift(&self) -> u32 {
        width(self.threads)
    }

    /// How far an APIC id is shifted right to give the socket: the width of thread and core fields.
    #[must_use]
    pub fn package_shift(&self) -> u32 {
        width(self.cores) + width(self.threads)
    }
}

/// The bits needed for `count` different values.
fn width(count: u32) -> u32 {
    u32::BITS - (count - 1).leading_zeros()
}

fn fail<T>(message: fmt::Arguments<'_>) -> Result<T, TopologyError> {
    Err(TopologyError(message.to_string()))
}

fn number(key: &str, value: &str) -> Result<u32, TopologyError> {
    let n = parse_number(key, value).map_err(|e| TopologyError(e.to_string()))?;
    match u32::try_from(n) {
        Ok(0) => fail(format_args!("Parameter '{key}' of -smp must be greater than zero")),
        // More would give socket or core fields wider than an APIC id, whatever the rest is.
        Ok(n) if n <= 0xffff => Ok(n),
        _ if matches!(key, "cpus" | "maxcpus") => {
            fail(format_args!("Unsupported number of maxcpus"))
        }
        _ => fail(format_args!("Parameter '{key}' of -smp is too large: {n}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn smp(text: &str) -> Result<Topology, String> {
        let pairs = text.split(',').map(|part| part.split_once('=').unwrap_or(("", part)));
        Topology::parse(pairs).map_err(|e| e.to_string())
    }

    fn shape(text: &str) -> (u32, u32, u32, u32, u32) {
        let t = smp(text).unwrap();
        (t.cpus, t.max_cpus, t.sockets, t.cores, t.threads)
    }

    #[test]
    fn computes_what_is_missing() {
        assert_eq!(Topology::default(), smp("1").unwrap());
        assert_eq!(Topology::parse([("", ""); 0]).unwrap(), Topology::default());
        assert_eq!(shape("4"), (4, 4, 4, 1, 1));
        assert_eq!(shape("cpus=4,maxcpus=8"), (4, 8, 8, 1, 1));
        assert_eq!(shape("sockets=2,cores=3,threads=2"), (12, 12, 2, 3, 2));
        assert_eq!(shape("8,sockets=2"), (8, 8, 2, 4, 1));
        assert_eq!(shape("8,sockets=2,cores=2"), (8, 8, 2, 2, 2));
        assert_eq!(shape("8,sockets=2,threads=2"), (8, 8, 2, 2, 2));
        assert_eq!(shape("8,cores=4"), (8, 8, 2, 4, 1));
        assert_eq!(shape("4,cores=3"), (4, 4, 2, 3, 1));
        assert_eq!(shape("2,cores=2,maxcpus=4"), (2, 4, 2, 2, 1));
        assert_eq!(shape("1,sockets=2,cores=4,threads=2"), (1, 1, 2, 4, 2));
        assert_eq!(shape("0x10"), (16, 16, 16, 1, 1));
        assert_eq!(shape("2,cpus=3"), (3, 3, 3, 1, 1));
        assert_eq!(shape("255"), (255, 255, 255, 1, 1));
    }

    #[test]
    fn refuses_with_the_reason() {
        let message = |text: &str| smp(text).unwrap_err();
        assert_eq!(message("256"), "Unsupported number of maxcpus");
        assert_eq!(message("2,maxcpus=300"), "Unsupported number of maxcpus");
        assert_eq!(message("99999999999999"), "Unsupported number of maxcpus");
        assert_eq!(
            message("sockets=4096,cores=4096,threads=4096"),
            "Unsupported number of maxcpus"
        );
        assert_eq!(message("4,maxcpus=2"), "maxcpus must be equal to or greater than smp");
        assert_eq!(message("0"), "Parameter 'cpus' of -smp must be greater than zero");
        assert_eq!(message("4,cores=0"), "Parameter 'cores' of -smp must be greater than zero");
        assert_eq!(message("four"), "Parameter 'cpus' expects a number");
        assert_eq!(message("-1"), "Parameter 'cpus' expects a number");
        assert_eq!(message("+1"), "Parameter 'cpus' expects a number");
        assert_eq!(message("0x+1"), "Parameter 'cpus' expects a number");
        assert_eq!(
            message("4,thread=2"),
            "Invalid parameter 'thread' of -smp (nearest: 'threads')"
        );
        assert_eq!(message("4,banana=2"), "Invalid parameter 'banana' of -smp");
        assert_eq!(
            message("4,sockets=1,cores=2,threads=1"),
            "cpu topology: sockets (1) * cores (2) * threads (1) < maxcpus (4)"
        );
        assert_eq!(
            message("255,cores=3"),
            "cpu topology: the last of 255 processors would have APIC id 338; the largest is 254"
        );
        assert_eq!(
            message("1,sockets=1,cores=65535,threads=65535"),
            "cpu topology: cores (65535) * threads (65535) need more than the 8 bits of an APIC id"
        );
        assert_eq!(
            smp("8").unwrap().check_machine("isapc", 1).unwrap_err().to_string(),
            "Number of SMP cpus requested (8), exceeds max cpus supported by machine `isapc' (1)"
        );
        assert_eq!(smp("8").unwrap().check_machine("pc", 255), Ok(()));
    }

    #[test]
    fn apic_ids_have_power_of_two_fields() {
        let t = smp("sockets=2,cores=3,threads=2").unwrap();
        let ids: Vec<u32> = (0..12).map(|i| t.apic_id(i)).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
        assert_eq!((t.core_shift(), t.package_shift()), (1, 3));
        assert_eq!(t.place(9), Place { socket: 1, core: 1, thread: 1 });
        let flat = smp("4").unwrap();
        assert_eq!((0..4).map(|i| flat.apic_id(i)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn any_accepted_topology_holds_together(
            values in prop::array::uniform5(prop::option::of(0u64..400)),
        ) {
            let pairs = KEYS.iter().zip(values).filter_map(|(k, v)| Some((*k, v?.to_string())));
            if let Ok(t) = Topology::parse(pairs) {
                prop_assert!(t.cpus >= 1 && t.cpus <= t.max_cpus && t.max_cpus <= MAX_CPUS);
                prop_assert!(t.sockets * t.cores * t.threads >= t.max_cpus);
                let ids: Vec<u32> = (0..t.max_cpus).map(|i| t.apic_id(i)).collect();
                prop_assert!(ids.windows(2).all(|w| w[0] < w[1]));
                prop_assert!(ids.iter().all(|id| *id < MAX_CPUS));
            }
        }
    }
}
