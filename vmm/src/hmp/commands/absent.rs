//! What this machine has none of, or what takes one line to tell.

use qmp::{Handle, QueryMice};

use crate::hmp::table::{Row, bare};

pub(super) const INFO: &[Row] = &[
    bare(&["mice"], "show the mouse that takes what is moved", |call, _| {
        let mice = call.vm.handle(QueryMice {})?;
        if mice.is_empty() {
            call.line("No mouse devices connected");
        }
        for mouse in mice {
            let star = if mouse.current { '*' } else { ' ' };
            let absolute = if mouse.absolute { " (absolute)" } else { "" };
            call.line(format_args!("{star} Mouse #{}: {}{absolute}", mouse.index, mouse.name));
        }
        Ok(())
    }),
    bare(&["irq"], "show how often interrupts came", |call, _| {
        call.line("irq statistic code not compiled.");
        Ok(())
    }),
    bare(&["pic"], "show the interrupt controllers that are not KVM's own", |_, _| Ok(())),
    bare(&["jit"], "show what the translator did", |call, _| {
        call.line("JIT information is only available with accel=tcg");
        Ok(())
    }),
    bare(&["profile"], "show what the profiler counted", |call, _| {
        call.line("Internal profiler not compiled");
        Ok(())
    }),
    bare(&["pcmcia"], "show the PCMCIA sockets", |call, _| {
        call.line("No PCMCIA sockets");
        Ok(())
    }),
    bare(&["usb"], "show the USB devices", |call, _| {
        call.line("USB support not enabled");
        Ok(())
    }),
    bare(&["capture"], "show what sound is being recorded", |_, _| Ok(())),
    bare(&["tpm"], "show the TPM", |_, _| Ok(())),
    bare(&["trace-events"], "show the events that can be traced", |call, _| {
        call.line("error: no events can be traced; see the items of 'help log'");
        Ok(())
    }),
];
