//! What the machine could have and has not, or has but one of: TPM, VNC, mice, kinds of machines.
//!
//! Main thread. They change nothing.

use qmp::{
    Handle, MachineInfo, MouseInfo, QmpError, QueryMachines, QueryMice, QueryTpm, QueryTpmModels,
    QueryTpmTypes, QueryVnc, TPMInfo, TpmModel, TpmType, VncInfo,
};

use crate::machine::MACHINES;
use crate::vm::Vm;

impl Handle<QueryTpm> for Vm {
    fn handle(&mut self, _: QueryTpm) -> Result<Vec<TPMInfo>, QmpError> {
        Ok(Vec::new())
    }
}

impl Handle<QueryTpmModels> for Vm {
    fn handle(&mut self, _: QueryTpmModels) -> Result<Vec<TpmModel>, QmpError> {
        Ok(Vec::new())
    }
}

impl Handle<QueryTpmTypes> for Vm {
    fn handle(&mut self, _: QueryTpmTypes) -> Result<Vec<TpmType>, QmpError> {
        Ok(Vec::new())
    }
}

impl Handle<QueryVnc> for Vm {
    fn handle(&mut self, _: QueryVnc) -> Result<VncInfo, QmpError> {
        let (auth, family, clients, service, host) = (None, None, None, None, None);
        Ok(VncInfo { enabled: false, auth, family, clients, service, host })
    }
}

impl Handle<QueryMice> for Vm {
    fn handle(&mut self, _: QueryMice) -> Result<Vec<MouseInfo>, QmpError> {
        // The one at the keyboard controller.
        let has = self.board.devices.iter().any(|device| device.name() == "/machine/i8042");
        let mouse = MouseInfo {
            index: 0,
            name: "QEMU PS/2 Mouse".to_owned(),
            current: true,
            absolute: false,
        };
        Ok(has.then_some(mouse).into_iter().collect())
    }
}

impl Handle<QueryMachines> for Vm {
    fn handle(&mut self, _: QueryMachines) -> Result<Vec<MachineInfo>, QmpError> {
        let info = |(index, machine): (usize, &crate::machine::Machine)| MachineInfo {
            name: machine.name.to_owned(),
            is_default: (index == 0).then_some(true),
            cpu_max: machine.max_cpus.into(),
            alias: machine.alias.map(str::to_owned),
        };
        // The last one first, as QEMU does.
        Ok(MACHINES.iter().enumerate().map(info).rev().collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::cmd::testing::{ask, fake, nothing, refuses};
    use serde_json::json;

    #[test]
    fn what_is_absent_is_listed_as_empty_or_off() {
        let mut vm = fake();
        for (command, answer) in [
            ("query-tpm", json!([])),
            ("query-tpm-models", json!([])),
            ("query-tpm-types", json!([])),
            ("query-vnc", json!({"enabled": false})),
            (
                "query-mice",
                json!([{
                    "index": 0, "name": "QEMU PS/2 Mouse", "current": true, "absolute": false
                }]),
            ),
        ] {
            assert_eq!(ask(&mut vm, command, json!({})), Ok(answer));
            refuses(&mut vm, command, &[(json!({"x": 1}), "Invalid parameter 'x'")]);
        }
        assert_eq!(ask(&mut nothing(), "query-mice", json!({})), Ok(json!([])));
    }

    #[test]
    fn machines_are_listed_with_the_default_one() {
        let list = ask(&mut fake(), "query-machines", json!({})).unwrap();
        let pc = json!({
            "name": "pc-i440fx-2.0", "is-default": true, "cpu-max": 255, "alias": "pc"
        });
        assert_eq!(list, json!([{"name": "none", "cpu-max": 1}, pc]));
    }
}
