//! The commands this crate answers from its own tables.

use crate::{
    COMMANDS, CommandInfo, EVENTS, EventInfo, Handle, QmpError, QueryCommands, QueryEvents,
};

/// Answers for the tables.
pub(crate) struct Tables;

impl Handle<QueryCommands> for Tables {
    /// Newest registration first, as QEMU lists them.
    fn handle(&mut self, _: QueryCommands) -> Result<Vec<CommandInfo>, QmpError> {
        Ok(COMMANDS.iter().rev().map(|spec| CommandInfo { name: spec.name.into() }).collect())
    }
}

impl Handle<QueryEvents> for Tables {
    fn handle(&mut self, _: QueryEvents) -> Result<Vec<EventInfo>, QmpError> {
        Ok(EVENTS.iter().rev().map(|name| EventInfo { name: (*name).into() }).collect())
    }
}
