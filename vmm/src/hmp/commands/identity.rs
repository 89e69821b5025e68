//! What the machine is called and what it is made by.

use qmp::{Handle, QmpError, QueryKvm, QueryName, QueryUuid, QueryVersion, QueryVmGenerationId};

use crate::hmp::Call;
use crate::hmp::parse::Args;
use crate::hmp::table::{Row, bare};

pub(super) const INFO: &[Row] = &[
    bare(&["version"], "show the version of the interface", version),
    bare(&["name"], "show the guest's name", name),
    bare(&["vm-generation-id"], "show the machine's generation id", |call, _| {
        let info = call.vm.handle(QueryVmGenerationId {})?;
        call.line(info.guid);
        Ok(())
    }),
    bare(&["uuid"], "show the machine's UUID", uuid),
    bare(&["kvm"], "show whether KVM is used", kvm),
];

fn version(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let info = call.vm.handle(QueryVersion {})?;
    let qmp::VersionInfoQemu { major, minor, micro } = info.qemu;
    call.line(format_args!("{major}.{minor}.{micro}{}", info.package));
    Ok(())
}

fn name(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    if let Some(name) = call.vm.handle(QueryName {})?.name {
        call.line(name);
    }
    Ok(())
}

fn uuid(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let info = call.vm.handle(QueryUuid {})?;
    call.line(info.uuid);
    Ok(())
}

fn kvm(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let info = call.vm.handle(QueryKvm {})?;
    call.line(match (info.present, info.enabled) {
        (_, true) => "kvm support: enabled",
        (true, false) => "kvm support: disabled",
        (false, false) => "kvm support: not compiled",
    });
    Ok(())
}
