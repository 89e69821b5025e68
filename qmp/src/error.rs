//! The error object of QMP and the texts that many commands share.
//!
//! Clients compare these texts, so they are QEMU's, letter for letter.

use crate::ErrorClass;

/// What a command answers when it fails: `{"class": ..., "desc": ...}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{desc}")]
pub struct QmpError {
    /// For clients that branch.
    pub class: ErrorClass,
    /// For people, and for clients that compare it all the same.
    pub desc: String,
}

impl QmpError {
    /// An error of any class.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self { class, desc: desc.into() }
    }

    /// A `GenericError`.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self::new(ErrorClass::GenericError, desc)
    }

    /// Text that is not JSON, or JSON over the limits of [`crate::json`].
    pub fn syntax() -> Self {
        Self::generic("Invalid JSON syntax")
    }

    /// No such command, or not now.
    pub fn command_not_found(name: &str) -> Self {
        Self::new(ErrorClass::CommandNotFound, format!("The command {name} has not been found"))
    }

    /// No device of that name.
    pub fn device_not_found(name: &str) -> Self {
        Self::new(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"))
    }

    /// A mandatory argument was not given.
    pub fn missing(name: &str) -> Self {
        Self::generic(format!("Parameter '{name}' is missing"))
    }

    /// An argument that the command does not take, or (with the value for
    /// `what`) a word that an enum does not have.
    pub fn invalid(what: &str) -> Self {
        Self::generic(format!("Invalid parameter '{what}'"))
    }

    /// An argument of the wrong JSON type.
    pub fn invalid_type(name: &str, expected: &str) -> Self {
        Self::generic(format!("Invalid parameter type for '{name}', expected: {expected}"))
    }

    /// A value outside what the argument can hold.
    pub fn expects(name: &str, what: &str) -> Self {
        Self::generic(format!("Parameter '{name}' expects {what}"))
    }

    /// A member of a request of the wrong JSON type.
    pub fn member_expects(name: &str, what: &str) -> Self {
        Self::generic(format!("QMP input object member '{name}' expects '{what}'"))
    }

    /// A file that cannot be opened, with the system's words for it.
    pub fn could_not_open(path: &str, error: &std::io::Error) -> Self {
        let text = error.to_string();
        let words = text.split(" (os error ").next().unwrap_or_default();
        Self::generic(format!("Could not open '{path}': {words}"))
    }

    /// A member that the object does not have.
    pub fn unexpected_member(name: &str) -> Self {
        Self::generic(format!("QMP input object member '{name}' is unexpected"))
    }
}
