//! AML of the processors: one device for each that the machine may have, and what tells the guest
//! of those that come ([`super::cpu`]).
//!
//! ```text
//! \_SB.CPUS                processor container
//!   CREG, CLCK             the registers, and a lock around their use
//!   CSTA(n)                status of processor n
//!   CSCN()                 tells of each that came
//!   C000 ...               _HID ACPI0007, _UID n, _STA, _MAT
//! \_GPE._E02               a processor came
//! ```
//!
//! Pure; runs on the main thread.

use acpi_tables::aml::{
    Acquire, Arg, BufferData, Device, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, If, Local, Method, MethodCall, Mutex, Name, Notify, ONE, OpRegion,
    OpRegionSpace, Path, Release, Return, Store, While, ZERO,
};
use acpi_tables::{Aml, AmlSink};

use super::cpu;
use super::tables::Processor;

/// Status of a device that is there: present, enabled, shown, working.
const WORKING: u8 = 0xf;
/// Notification: look whether the device is there.
const DEVICE_CHECK: u8 = 1;

fn name(number: u32) -> Path {
    Path::new(&format!("C{number:03X}"))
}

/// So many bytes, in bits.
fn bytes(count: usize) -> usize {
    count.saturating_mul(8)
}

/// The container with all processors, for scope `\_SB`.
pub fn container(processors: &[Processor]) -> Vec<u8> {
    let mut body = Vec::new();
    Name::new("_HID".into(), &"ACPI0010").to_aml_bytes(&mut body);
    registers(&mut body);
    scan(&mut body);
    // A number that AML cannot name is beyond what a machine may have.
    let numbered = || (0u32..0x1000).zip(processors);
    status(&mut body);
    for (number, processor) in numbered() {
        device(&mut body, number, processor);
    }
    // Arg0: the number; told is the device of that number.
    let paths: Vec<_> = numbered().map(|(number, _)| (number, name(number))).collect();
    let notify: Vec<_> =
        paths.iter().map(|(number, path)| (number, Notify::new(path, &DEVICE_CHECK))).collect();
    let is: Vec<_> = notify.iter().map(|(number, _)| Equal::new(&Arg(0), *number)).collect();
    let cases: Vec<_> =
        is.iter().zip(&notify).map(|(is, (_, notify))| If::new(is, vec![notify])).collect();
    let cases: Vec<&dyn Aml> = cases.iter().map(|case| case as &dyn Aml).collect();
    Method::new("CTEL".into(), 1, false, cases).to_aml_bytes(&mut body);

    let mut out = Vec::new();
    Device::new("CPUS".into(), vec![&Raw(body)]).to_aml_bytes(&mut out);
    out
}

/// The method of the event, for scope `\_GPE`.
pub fn event() -> Vec<u8> {
    let mut out = Vec::new();
    let scan = MethodCall::new("\\_SB_.CPUS.CSCN".into(), Vec::new());
    Method::new("_E02".into(), 0, false, vec![&scan]).to_aml_bytes(&mut out);
    out
}

/// AML that was made already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn registers(body: &mut Vec<u8>) {
    let port = u16::try_from(cpu::PORT).unwrap_or(0);
    OpRegion::new("CREG".into(), OpRegionSpace::SystemIO, &port, &12u8).to_aml_bytes(body);
    // Bits that are written stand alone: the others are written as zero, which does nothing.
    let field = |access, rule, fields| {
        Field::new("CREG".into(), access, FieldLockRule::NoLock, rule, fields)
    };
    let fields = vec![
        FieldEntry::Reserved(bytes(4)),
        FieldEntry::Named(*b"CPEN", 1),
        FieldEntry::Named(*b"CINS", 1),
        FieldEntry::Reserved(6),
        FieldEntry::Named(*b"CCMD", 8),
    ];
    field(FieldAccessType::Byte, FieldUpdateRule::WriteAsZeroes, fields).to_aml_bytes(body);
    let fields = vec![
        FieldEntry::Named(*b"CSEL", 32),
        FieldEntry::Reserved(bytes(4)),
        FieldEntry::Named(*b"CDAT", 32),
    ];
    field(FieldAccessType::DWord, FieldUpdateRule::Preserve, fields).to_aml_bytes(body);
    Mutex::new("CLCK".into(), 0).to_aml_bytes(body);
}

/// Method CSTA: the status of processor Arg0.
fn status(body: &mut Vec<u8>) {
    let [enabled, select] = ["CPEN", "CSEL"].map(Path::new);
    let there = Equal::new(&enabled, &ONE);
    let working = Store::new(&Local(0), &WORKING);
    let acquire = Acquire::new("CLCK".into(), 0xffff);
    // The first zero after a reset turns the registers on.
    let on = Store::new(&select, &ZERO);
    let choose = Store::new(&select, &Arg(0));
    let absent = Store::new(&Local(0), &ZERO);
    let present = If::new(&there, vec![&working]);
    let release = Release::new("CLCK".into());
    let done = Return::new(&Local(0));
    let steps: Vec<&dyn Aml> = vec![&acquire, &on, &choose, &absent, &present, &release, &done];
    Method::new("CSTA".into(), 1, true, steps).to_aml_bytes(body);
}

/// Method CSCN: tells of each processor that came.
fn scan(body: &mut Vec<u8>) {
    let [select, command, inserted, data] = ["CSEL", "CCMD", "CINS", "CDAT"].map(Path::new);
    let acquire = Acquire::new("CLCK".into(), 0xffff);
    let on = Store::new(&select, &ZERO);
    let again = Store::new(&Local(0), &ONE);
    let next = Store::new(&command, &ZERO);
    let came = Equal::new(&inserted, &ONE);
    let tell = MethodCall::new("CTEL".into(), vec![&data]);
    let told = Store::new(&inserted, &ONE);
    let found = If::new(&came, vec![&tell, &told, &again]);
    let more = Equal::new(&Local(0), &ONE);
    let end = Store::new(&Local(0), &ZERO);
    let each = While::new(&more, vec![&end, &next, &found]);
    let release = Release::new("CLCK".into());
    let steps: Vec<&dyn Aml> = vec![&acquire, &on, &again, &each, &release];
    Method::new("CSCN".into(), 0, true, steps).to_aml_bytes(body);
}

fn device(body: &mut Vec<u8>, number: u32, processor: &Processor) {
    let hid = Name::new("_HID".into(), &"ACPI0007");
    let uid = Name::new("_UID".into(), &number);
    let status = MethodCall::new("CSTA".into(), vec![&number]);
    let status = Return::new(&status);
    let status = Method::new("_STA".into(), 0, true, vec![&status]);
    // The entry of the interrupt controllers' table, as it is when the processor is there.
    let entry = BufferData::new(super::tables::local_apic(number, processor.apic_id, true));
    let entry = Name::new("_MAT".into(), &entry);
    Device::new(name(number), vec![&hid, &uid, &status, &entry]).to_aml_bytes(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(aml: &[u8], part: &[u8]) -> bool {
        aml.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn every_processor_has_a_device_that_names_its_apic() {
        let processors = [0, 1, 16].map(|apic_id| Processor { apic_id, present: apic_id == 0 });
        let aml = container(&processors);
        for name in ["CPUS", "CREG", "CSTA", "CSCN", "CTEL", "C000", "C001", "C002"] {
            assert!(has(&aml, name.as_bytes()), "{name}");
        }
        assert!(!has(&aml, b"C003"));
        assert!(has(&aml, &[0, 8, 2, 16, 1, 0, 0, 0]));
        // Notify (C002, 1) if Arg0 == 2.
        assert!(has(&aml, b"\x93\x68\x0a\x02\x86C002\x01"));
        assert!(has(&event(), b"_E02\x00\\\x2f\x03_SB_CPUSCSCN"));
    }

    #[test]
    fn all_processors_of_the_largest_machine_fit() {
        let processors: Vec<_> =
            (0..255).map(|apic_id| Processor { apic_id, present: false }).collect();
        assert!(container(&processors).len() < 0x6000);
    }
}
