//! Processor models: the `-cpu` option, and the CPUID leaves a guest sees.
//!
//! [`CpuSpec::parse`] reads the option without a host; [`CpuSpec::resolve`] holds it against what
//! KVM supports ([`HostCpu`]); [`CpuModel::cpuid`] makes one processor's leaves. Pure but for
//! [`HostCpu::probe`]; any thread, no lock. The option comes from whoever starts the process: text
//! is bounded and every number checked. Nothing KVM does not support is ever handed to a guest.

mod features;
mod host;
mod leaves;
mod named;
mod spec;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use features::Features;
pub use host::HostCpu;
use named::Named;
pub use spec::CpuSpec;

/// Why a processor model was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModelError(String);

/// Where a model's features come from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Everything KVM supports on this host (`host` and `max`).
    Host,
    Named(&'static Named),
}

/// The Hyper-V interfaces offered to the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Hyperv {
    relaxed: bool,
    vapic: bool,
    time: bool,
    /// How often to retry a spinlock before telling the hypervisor.
    spinlocks: Option<u32>,
}

/// A processor model that this host can run.
#[derive(Debug, Clone)]
pub struct CpuModel {
    source: Source,
    host: HostCpu,
    features: Features,
    vendor: [u8; 12],
    /// CPUID leaf 1 EAX.
    signature: u32,
    brand: String,
    level: u32,
    xlevel: u32,
    phys_bits: u32,
    kvm: bool,
    pmu: bool,
    hyperv: Hyperv,
    tsc_khz: Option<u32>,
    warning: Option<String>,
}

impl CpuModel {
    /// Whether the processor has the named feature (`-` between words).
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.features.has(feature)
    }

    /// The width of a guest-physical address in bits; RAM and devices must lie below.
    #[must_use]
    pub fn phys_bits(&self) -> u32 {
        self.phys_bits
    }

    /// The TSC frequency asked for, in kHz.
    #[must_use]
    pub fn tsc_khz(&self) -> Option<u32> {
        self.tsc_khz
    }

    /// One line for the user: features asked for that this host lacks and the guest will not have.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

/// The names of the models, without `host` and `max`, which are what a host makes of them. (QMP's
/// query-cpu-definitions lists them in reverse.)
pub fn model_names() -> impl DoubleEndedIterator<Item = &'static str> {
    named::MODELS.iter().map(|m| m.name)
}

/// The text of `-cpu help`: models, then the names of features.
#[must_use]
pub fn help_text() -> String {
    let host = "KVM processor with all supported host features";
    let mut text = String::new();
    let models =
        named::MODELS.iter().map(|m| (m.name, m.id)).chain([("host", host), ("max", host)]);
    for (name, id) in models {
        let line = format!("x86 {name:>16}  {id}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str("\nRecognized CPUID flags:\n");
    let mut line = String::new();
    for name in features::all_names() {
        if line.len() + name.len() > 76 {
            let _ = writeln!(text, " {line}");
            line.clear();
        }
        line.push(' ');
        line.push_str(name);
    }
    let _ = writeln!(text, " {line}");
    text
}
