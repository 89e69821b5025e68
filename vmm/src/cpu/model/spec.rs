//! The `-cpu` option: read, then held against the host.
//!
//! Pure; any thread, no lock. The text is the user's: every name and number is checked.

use resources::{
    nearest::nearest,
    value::{parse_bool, parse_number},
};

use super::{
    CpuModel, Hyperv, ModelError, Source,
    features::{self, Features, KVM, W1_EDX, W81_EDX},
    host::{HostCpu, is_amd},
    named,
};

/// What the `-cpu` option asks for, not yet held against a host.
#[derive(Debug, Clone)]
pub struct CpuSpec {
    source: Source,
    on: Features,
    off: Features,
    vendor: Option<[u8; 12]>,
    family: Option<u32>,
    model: Option<u32>,
    stepping: Option<u32>,
    brand: Option<String>,
    level: Option<u32>,
    xlevel: Option<u32>,
    phys_bits: Option<u32>,
    tsc_khz: Option<u32>,
    check: bool,
    enforce: bool,
    kvm: bool,
    migratable: bool,
    pmu: bool,
    hyperv: Hyperv,
}

/// The keys besides feature names.
const KEYS: [&str; 20] = [
    "level",
    "xlevel",
    "family",
    "model",
    "stepping",
    "vendor",
    "model-id",
    "tsc-freq",
    "tsc-frequency",
    "phys-bits",
    "host-phys-bits",
    "check",
    "enforce",
    "kvm",
    "migratable",
    "pmu",
    "hv-relaxed",
    "hv-vapic",
    "hv-time",
    "hv-spinlocks",
];

/// Set by the topology or by KVM; asking for them changes nothing and is no mistake.
const DERIVED: &str = "ht cmp-legacy osxsave ospke";

/// The performance counters.
const PMU: &str = "pdcm perfctr-core perfctr-nb arch-lbr";

/// Most a brand string holds: three leaves of four registers.
const BRAND_BYTES: usize = 48;

impl Default for CpuSpec {
    /// The model of a machine started without `-cpu`: `qemu64`, which every 64-bit host can run,
    /// so that a guest moves between hosts unless its owner asks for more.
    fn default() -> Self {
        Self::of(Source::Named(&named::MODELS[0]))
    }
}

impl CpuSpec {
    fn of(source: Source) -> Self {
        Self {
            source,
            on: Features::default(),
            off: Features::default(),
            vendor: None,
            family: None,
            model: None,
            stepping: None,
            brand: None,
            level: None,
            xlevel: None,
            phys_bits: None,
            tsc_khz: None,
            check: true,
            enforce: false,
            kvm: true,
            migratable: true,
            pmu: true,
            hyperv: Hyperv::default(),
        }
    }

    /// Reads `MODEL[,+feature][,-feature][,feature[=on|off]][,key=value]`. `_` in a key is `-`.
    /// `+feature` and then `-feature` are applied after everything else.
    ///
    /// # Errors
    /// An unknown model, feature or key (with the nearest one), or a value its key does not take.
    pub fn parse(option: &str) -> Result<Self, ModelError> {
        let mut parts = option.split(',');
        let mut spec = Self::of(source(parts.next().unwrap_or_default())?);
        let (mut plus, mut minus) = (Features::default(), Features::default());
        for part in parts {
            if let Some(name) = part.strip_prefix('+') {
                plus = plus.union(&feature(name)?);
            } else if let Some(name) = part.strip_prefix('-') {
                minus = minus.union(&feature(name)?);
            } else {
                let (key, value) = match part.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (part, None),
                };
                spec.set(&key.replace('_', "-"), value)?;
            }
        }
        spec.switch(&plus, true);
        spec.switch(&minus, false);
        Ok(spec)
    }

    fn switch(&mut self, features: &Features, on: bool) {
        let (to, from) =
            if on { (&mut self.on, &mut self.off) } else { (&mut self.off, &mut self.on) };
        *to = to.union(features);
        *from = from.minus(features);
    }

    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), ModelError> {
        let switch =
            || parse_bool(key, value.unwrap_or("on")).map_err(|e| ModelError(e.to_string()));
        let text = || value.ok_or_else(|| ModelError(format!("Parameter '{key}' needs a value")));
        let number = |limit: u32| {
            let text = text()?;
            let n = parse_number(key, text)
                .map_err(|_| ModelError(format!("bad numerical value {text}")))?;
            match u32::try_from(n) {
                Ok(n) if n <= limit => Ok(n),
                _ => Err(ModelError(format!(
                    "Parameter '{key}' of -cpu is at most {limit}, not {text}"
                ))),
            }
        };
        match key {
            "level" => self.level = Some(number(0xffff)?),
            "xlevel" => {
                let n = number(u32::MAX)?;
                let n = if n < 0x8000_0000 { n.saturating_add(0x8000_0000) } else { n };
                if n > 0x8000_ffff {
                    return Err(ModelError(format!("bad numerical value {}", text()?)));
                }
                self.xlevel = Some(n);
            }
            "family" => self.family = Some(number(0xff + 0xf)?),
            "model" => self.model = Some(number(0xff)?),
            "stepping" => self.stepping = Some(number(0xf)?),
            "vendor" => {
                let vendor = text()?.as_bytes().try_into().map_err(|_| {
                    ModelError("Parameter 'vendor' of -cpu takes exactly 12 characters".to_owned())
                })?;
                self.vendor = Some(vendor);
            }
            "model-id" => {
                let text = text()?;
                if text.len() > BRAND_BYTES {
                    return Err(ModelError(format!(
                        "Parameter 'model-id' of -cpu holds at most {BRAND_BYTES} bytes"
                    )));
                }
                self.brand = Some(text.to_owned());
            }
            "tsc-freq" | "tsc-frequency" => self.tsc_khz = Some(tsc_khz(text()?)?),
            "phys-bits" => self.phys_bits = Some(number(52)?).filter(|n| *n != 0),
            "host-phys-bits" => {
                if switch()? {
                    self.phys_bits = Some(u32::MAX);
                }
            }
            "check" => self.check = switch()?,
            "enforce" => self.enforce = switch()?,
            "kvm" => self.kvm = switch()?,
            "migratable" => self.migratable = switch()?,
            "pmu" => self.pmu = switch()?,
            "hv-relaxed" => self.hyperv.relaxed = switch()?,
            "hv-vapic" => self.hyperv.vapic = switch()?,
            "hv-time" => self.hyperv.time = switch()?,
            // Fewer retries than 0xfff are raised to it: the guest would call out all the time.
            "hv-spinlocks" => self.hyperv.spinlocks = Some(number(u32::MAX)?.max(0xfff)),
            _ if key.starts_with("hv-") => {
                return Err(ModelError(format!("Hyper-V feature '{key}' is not supported")));
            }
            _ => {
                let named = feature(key)?;
                let on = switch()?;
                self.switch(&named, on);
            }
        }
        Ok(())
    }

    /// Whether the guest is to have the TSC at a frequency of its own, in kHz.
    #[must_use]
    pub fn tsc_khz(&self) -> Option<u32> {
        self.tsc_khz
    }

    /// Makes the model this host can run.
    ///
    /// A feature that was asked for, by name or as part of a named model, and that KVM lacks is
    /// left out with a [`CpuModel::warning`] (unless `check=off`).
    ///
    /// # Errors
    /// With `enforce`, when a feature is lacking; a Hyper-V interface that KVM does not emulate;
    /// more physical address bits than the host has.
    pub fn resolve(&self, host: &HostCpu) -> Result<CpuModel, ModelError> {
        self.check_hyperv(host)?;
        let host_named = match self.source {
            Source::Host => "host",
            Source::Named(n) => n.name,
        };
        let vendor = self.vendor.unwrap_or_else(|| host.vendor());

        // What the model holds by itself, and what KVM adds to every model that it can.
        let (own, added) = match self.source {
            Source::Host => {
                let unsafe_to_move = Features::list(if self.migratable { "invtsc" } else { "" });
                (Features::default(), host.features.minus(&unsafe_to_move))
            }
            Source::Named(n) => {
                let mut added = Features::list("x2apic hypervisor");
                added.0[KVM] = u32::MAX;
                (n.features(), added.intersection(&host.features))
            }
        };
        let asked = own.union(&self.on).minus(&self.off).minus(&Features::list(DERIVED));
        let missing = asked.minus(&host.features);
        let wanted = asked.union(&added.minus(&self.off));
        let mut features = wanted.intersection(&host.features).without_orphans();
        if !self.kvm {
            features.0[KVM] = 0;
        }
        if !self.pmu {
            features = features.minus(&Features::list(PMU));
        }
        features.0[W81_EDX] &= !features::AMD_REPEATS;
        if is_amd(&vendor) {
            features.0[W81_EDX] |=
                features.0[W1_EDX] & host.features.0[W81_EDX] & features::AMD_REPEATS;
        }

        let missing = missing.names();
        let mut warning = None;
        if !missing.is_empty() && (self.check || self.enforce) {
            let text = format!(
                "this host's KVM lacks features of CPU '{host_named}': {}",
                missing.join(", ")
            );
            if self.enforce {
                return Err(ModelError(text));
            }
            warning = Some(text);
        }

        let (family, model, stepping, level, xlevel, brand) = match self.source {
            Source::Host => {
                let eax = host.leaf(1, 0).map_or(0, |e| e.eax);
                let max = |leaf| host.leaf(leaf, 0).map_or(0, |e| e.eax);
                let (family, model) = family_and_model(eax);
                let brand = host.brand().unwrap_or_else(|| "KVM virtual processor".to_owned());
                (family, model, eax & 0xf, max(0), max(0x8000_0000), brand)
            }
            Source::Named(n) => {
                let (basic, extended) = features.highest_leaves();
                let basic = if features.has("xsave") { basic.max(0xd) } else { basic };
                let (level, xlevel) = (n.level.max(basic), n.xlevel.max(extended));
                (n.family, n.model, n.stepping, level, xlevel, n.id.to_owned())
            }
        };
        let signature = signature(
            self.family.unwrap_or(family),
            self.model.unwrap_or(model),
            self.stepping.unwrap_or(stepping),
        );
        Ok(CpuModel {
            source: self.source,
            host: host.clone(),
            features,
            vendor,
            signature,
            brand: self.brand.clone().unwrap_or(brand),
            level: self.level.unwrap_or(level),
            xlevel: self.xlevel.unwrap_or(xlevel),
            phys_bits: self.phys_bits(host, &features)?,
            kvm: self.kvm,
            pmu: self.pmu,
            hyperv: self.hyperv,
            tsc_khz: self.tsc_khz,
            warning,
        })
    }

    fn check_hyperv(&self, host: &HostCpu) -> Result<(), ModelError> {
        let asked = [
            ("hv-relaxed", self.hyperv.relaxed, host.hyperv.base),
            ("hv-vapic", self.hyperv.vapic, host.hyperv.base && host.hyperv.vapic),
            ("hv-time", self.hyperv.time, host.hyperv.base && host.hyperv.time),
            (
                "hv-spinlocks",
                self.hyperv.spinlocks.is_some(),
                host.hyperv.base && host.hyperv.spinlocks,
            ),
        ];
        match asked.iter().find(|(_, wanted, there)| *wanted && !there) {
            Some((name, ..)) => Err(ModelError(format!(
                "Hyper-V feature '{name}' is not supported by this host's KVM"
            ))),
            None => Ok(()),
        }
    }

    fn phys_bits(&self, host: &HostCpu, features: &Features) -> Result<u32, ModelError> {
        let most = host.phys_bits();
        match (self.phys_bits, self.source) {
            (Some(u32::MAX), _) => Ok(most),
            (Some(n), _) if (32..=most).contains(&n) => Ok(n),
            (Some(n), _) => Err(ModelError(format!(
                "phys-bits is {n}, but this host's guests can have 32 to {most}"
            ))),
            (None, Source::Host) => Ok(most),
            (None, Source::Named(_)) if features.has("lm") => Ok(most.min(40)),
            (None, Source::Named(_)) if features.has("pse36") => Ok(most.min(36)),
            (None, Source::Named(_)) => Ok(32),
        }
    }
}

fn source(name: &str) -> Result<Source, ModelError> {
    if matches!(name, "host" | "max") {
        return Ok(Source::Host);
    }
    named::find(name).map(Source::Named).ok_or_else(|| {
        let hint = nearest(name, super::model_names().chain(["host", "max"]));
        ModelError(format!("Unable to find CPU definition: {name}{}", hint_text(hint)))
    })
}

fn feature(name: &str) -> Result<Features, ModelError> {
    let name = name.replace('_', "-");
    Features::named(&name).ok_or_else(|| {
        let hint = nearest(&name, features::all_names().chain(KEYS));
        ModelError(format!("CPU feature {name} not found{}", hint_text(hint)))
    })
}

fn hint_text(nearest: Option<&str>) -> String {
    nearest.map(|n| format!(" (nearest: '{n}')")).unwrap_or_default()
}

/// Reads a frequency in Hz with an optional decimal suffix, and gives kHz.
fn tsc_khz(text: &str) -> Result<u32, ModelError> {
    let bad = || ModelError(format!("bad numerical value {text}"));
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        Some((at, 'g' | 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad());
    }
    let khz = digits.parse::<f64>().map_err(|_| bad())? * unit / 1e3;
    // What KVM takes is an unsigned 32-bit number; below 1 MHz no guest calibrates.
    if !(1e3..=f64::from(u32::MAX)).contains(&khz) {
        return Err(ModelError(format!("TSC frequency {text} is out of range")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
    Ok(khz.round() as u32)
}

/// Leaf 1 EAX: extended family and model where a processor needs them.
fn signature(family: u32, model: u32, stepping: u32) -> u32 {
    let (base, extended) = if family > 0xf { (0xf, family - 0xf) } else { (family, 0) };
    (extended << 20) | ((model >> 4) << 16) | (base << 8) | ((model & 0xf) << 4) | stepping
}

/// The inverse of [`signature`].
fn family_and_model(eax: u32) -> (u32, u32) {
    let base = (eax >> 8) & 0xf;
    let family = if base == 0xf { base + ((eax >> 20) & 0xff) } else { base };
    (family, ((eax >> 4) & 0xf) | (((eax >> 16) & 0xf) << 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_round_trip() {
        assert_eq!(signature(6, 60, 1), 0x306c1);
        assert_eq!(signature(0x19, 0x11, 1), 0xa10f11);
        assert_eq!(family_and_model(0xa10f11), (0x19, 0x11));
        assert_eq!(family_and_model(signature(15, 107, 1)), (15, 107));
        assert_eq!(family_and_model(signature(6, 13, 3)), (6, 13));
    }

    #[test]
    fn frequencies_have_decimal_suffixes() {
        assert_eq!(tsc_khz("2500000000"), Ok(2_500_000));
        assert_eq!(tsc_khz("2.5G"), Ok(2_500_000));
        assert_eq!(tsc_khz("800M"), Ok(800_000));
        for bad in ["", "G", "1.2.3G", "-1G", "nan", "inf", "1e9", "fast", "é", "5"] {
            assert!(tsc_khz(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_do_not_hide_features() {
        for key in KEYS {
            assert_eq!(Features::named(key), None, "{key}");
        }
    }
}
