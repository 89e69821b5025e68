//! A line of the human monitor, over QMP.
//!
//! Main thread. The line is a client's; see [`crate::hmp`].

use qmp::{Handle, HumanMonitorCommand, QmpError};

use crate::hmp::{self, Monitor};
use crate::vm::Vm;

impl Handle<HumanMonitorCommand> for Vm {
    /// Each line has a monitor of its own, which remembers nothing and owns no descriptors.
    fn handle(&mut self, command: HumanMonitorCommand) -> Result<String, QmpError> {
        let cpu = match command.cpu_index {
            None => 0,
            Some(index) => usize::try_from(index)
                .ok()
                .filter(|index| self.vcpu(*index).is_some())
                .ok_or_else(|| QmpError::expects("cpu-index", "a CPU number"))?,
        };
        let client = (self.context.monitor.take(), self.context.fd.take());
        let mut monitor = Monitor { cpu, ..Monitor::default() };
        let text = hmp::run(self, &mut monitor, &command.command_line);
        (self.context.monitor, self.context.fd) = client;
        Ok(hmp::with_returns(&text))
    }
}
