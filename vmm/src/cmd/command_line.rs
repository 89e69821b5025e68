//! The command line as clients ask for it: what its options take.
//!
//! Main thread; a table of constants, given out as it is.

use qmp::{
    CommandLineOptionInfo, CommandLineParameterInfo, CommandLineParameterType as Type, Handle,
    QmpError, QueryCommandLineOptions,
};

use crate::cli::keyval::{Key, Keys, Kind};
use crate::cli::table;
use crate::vm::Vm;

impl Handle<QueryCommandLineOptions> for Vm {
    fn handle(
        &mut self,
        command: QueryCommandLineOptions,
    ) -> Result<Vec<CommandLineOptionInfo>, QmpError> {
        options(command.option.as_deref())
    }
}

/// Groups and their parameters come in the reverse of their order, as QEMU lists them.
fn options(only: Option<&str>) -> Result<Vec<CommandLineOptionInfo>, QmpError> {
    let Some(name) = only else {
        return Ok(table::groups().into_iter().rev().map(describe).collect());
    };
    match table::group(name) {
        Some(keys) => Ok(vec![describe(keys)]),
        None => Err(QmpError::generic(format!("invalid option name: {name}"))),
    }
}

fn describe(keys: &Keys) -> CommandLineOptionInfo {
    let parameters = keys.keys.iter().rev().map(parameter).collect();
    CommandLineOptionInfo { parameters, option: keys.group.to_owned() }
}

fn parameter(key: &Key) -> CommandLineParameterInfo {
    let r#type = match key.kind {
        Kind::String | Kind::OneOf(_) => Type::String,
        Kind::Boolean => Type::Boolean,
        Kind::Number => Type::Number,
        Kind::Size => Type::Size,
    };
    CommandLineParameterInfo { name: key.name.to_owned(), help: Some(key.help.to_owned()), r#type }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_parameters_are_listed_backwards() {
        let all = options(None).unwrap();
        let place = |name: &str| all.iter().position(|info| info.option == name).unwrap();
        assert!(place("machine") < place("chardev"));
        assert!(place("mon") < place("rtc"));
        let rtc = options(Some("rtc")).unwrap();
        assert_eq!(rtc.len(), 1);
        let names: Vec<_> = rtc[0].parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["driftfix", "clock", "base"]);
        assert_eq!(rtc[0], all[place("rtc")]);
    }

    #[test]
    fn what_libvirt_looks_for_is_there() {
        let machine = options(Some("machine")).unwrap();
        let of = |name: &str| machine[0].parameters.iter().find(|p| p.name == name).unwrap();
        assert_eq!(of("kernel_irqchip").r#type, Type::Boolean);
        assert_eq!(of("mem-merge").r#type, Type::Boolean);
        assert_eq!(of("kvm_shadow_mem").r#type, Type::Size);
        assert_eq!(of("phandle_start").r#type, Type::Number);
        assert_eq!(of("type").r#type, Type::String);
        assert!(of("type").help.is_some());
    }

    #[test]
    fn a_group_that_takes_anything_has_no_parameters() {
        for name in ["device", "object"] {
            assert!(options(Some(name)).unwrap()[0].parameters.is_empty());
        }
    }

    #[test]
    fn an_unknown_group_is_named() {
        let error = options(Some("nope")).unwrap_err();
        assert_eq!(error, QmpError::generic("invalid option name: nope"));
    }
}
