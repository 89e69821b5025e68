//! A virtual processor and its thread.
//!
//! Each vCPU has a thread, `vcpu-N`, which alone touches its file. It runs the guest while the
//! [`Gate`] is open; for everything else it is sent closures ([`VcpuHandle::call`]) that run on
//! it between two entries into the guest. To be *parked* is to wait for messages behind a closed
//! gate.
//!
//! An access to a port or to memory-mapped I/O is finished only by the next KVM_RUN: until then
//! the register is not written and the instruction pointer not advanced. A kick makes that
//! KVM_RUN return before another instruction, so whenever closures run here, and whenever the
//! vCPU is parked, its state is complete.
//!
//! Locks: none held while in the guest. Accesses take the lock of the one device they hit.
//! The guest decides every exit: its addresses and sizes go to the address spaces, which check
//! them; an exit that is not understood stops the machine with a message, never the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use kvm_ioctls::{VcpuExit, VcpuFd};
use resources::request::{Mailbox as _, Request};
use resources::space::Space;

use super::run_page::{Kick, RunPage};
use super::setup::PowerOn;
use super::state::{self, StateCaps, StateError as CpuStateError, VcpuState};
use super::throttle::Pace;
use crate::cli::log::tell;
use crate::mailbox::Mailbox;

/// Whether vCPUs may enter the guest.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
}

impl Gate {
    /// Lets vCPUs in. Those that wait must be woken for it: [`VcpuHandle::wake`]. Returns whether
    /// the gate was closed.
    pub fn open(&self) -> bool {
        !self.open.swap(true, Ordering::SeqCst)
    }

    /// Keeps vCPUs out from now on. Those inside must be kicked.
    pub fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
    }

    /// Whether vCPUs may enter.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }
}

/// A closure that runs on a vCPU's thread.
type Work = Box<dyn FnOnce(&mut Vcpu) + Send>;

enum Message {
    Call(Work),
    /// Look at the gate again.
    Wake,
    Exit,
}

/// A virtual processor, as its own thread sees it.
pub struct Vcpu {
    // Dropped first: it points into the file's mapping.
    page: RunPage,
    /// The vCPU's file.
    pub fd: VcpuFd,
    /// Its number, from 0.
    pub index: usize,
    memory: Arc<Space>,
    ports: Arc<Space>,
    mailbox: Arc<Mailbox>,
    gate: Arc<Gate>,
    caps: Arc<StateCaps>,
    power_on: PowerOn,
}

/// A vCPU as the rest of the process sees it. Dropping it ends the thread.
pub struct VcpuHandle {
    index: usize,
    thread_id: i32,
    kick: Arc<Kick>,
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// A vCPU's thread is gone.
#[derive(Debug, thiserror::Error)]
#[error("the thread of vCPU {0} has ended")]
pub struct Gone(pub usize);

impl Vcpu {
    /// Wraps the file of a vCPU that has its CPUID and has not run yet.
    ///
    /// # Errors
    /// When KVM does not give its state at power-on.
    pub fn new(
        mut fd: VcpuFd,
        index: usize,
        caps: &Arc<StateCaps>,
        (memory, ports): (&Arc<Space>, &Arc<Space>),
        mailbox: &Arc<Mailbox>,
    ) -> Result<Vcpu, CpuStateError> {
        Ok(Vcpu {
            power_on: PowerOn::capture(&fd, caps)?,
            caps: caps.clone(),
            page: RunPage::new(&mut fd),
            fd,
            index,
            memory: memory.clone(),
            ports: ports.clone(),
            mailbox: mailbox.clone(),
            gate: mailbox.gate().clone(),
        })
    }

    /// Puts the vCPU into its power-on state.
    ///
    /// # Errors
    /// When KVM refuses a part of it.
    pub fn reset(&mut self) -> Result<(), CpuStateError> {
        self.power_on.reset(&self.fd, &self.caps)
    }

    /// The vCPU's state.
    ///
    /// # Errors
    /// When KVM does not give it.
    pub fn save(&mut self) -> Result<VcpuState, CpuStateError> {
        state::save(&self.fd, &self.caps)
    }

    /// Takes over a state, which is untrusted.
    ///
    /// # Errors
    /// When it cannot be the state of this vCPU.
    pub fn load(&mut self, state: &VcpuState) -> Result<(), CpuStateError> {
        state::load(&self.fd, &self.caps, state)
    }

    /// Starts the vCPU's thread; it waits behind the gate. Kicks of the mailbox reach it from now
    /// on.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn spawn(self) -> io::Result<VcpuHandle> {
        let (messages, inbox) = channel();
        let (tell_id, id) = channel();
        let (index, kick) = (self.index, self.page.kick().clone());
        self.mailbox.add_kick(kick.clone());
        let thread =
            std::thread::Builder::new().name(format!("vcpu-{index}")).spawn(move || {
                self.page.entered_thread();
                let _ = tell_id.send(rustix::thread::gettid().as_raw_nonzero().get());
                let _guard = Unfinished(self.mailbox.clone());
                self.main(&inbox);
            })?;
        let thread_id = id.recv().unwrap_or(0);
        Ok(VcpuHandle { index, thread_id, kick, messages, thread: Some(thread) })
    }

    fn main(mut self, inbox: &Receiver<Message>) {
        let mut pace = Pace::new(self.mailbox.throttle());
        while self.serve(inbox, &mut pace) {
            self.enter();
        }
    }

    /// Runs closures; waits for the gate, and for its turn. `false`: the thread is to end.
    fn serve(&mut self, inbox: &Receiver<Message>, pace: &mut Pace) -> bool {
        self.page.clear_kick();
        loop {
            let message = if !self.gate.is_open() {
                pace.pause();
                match inbox.recv() {
                    Ok(message) => message,
                    Err(_) => return false,
                }
            } else if let Some(rest) = pace.rest() {
                match inbox.recv_timeout(rest) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            } else {
                match inbox.try_recv() {
                    Ok(message) => message,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            };
            match message {
                Message::Call(work) => work(self),
                Message::Wake => {}
                Message::Exit => return false,
            }
        }
    }

    /// Runs the guest until a kick.
    fn enter(&mut self) {
        loop {
            match self.fd.run() {
                Ok(exit) => match exit {
                    VcpuExit::IoOut(port, data) => {
                        let size = self.page.io_size();
                        data.chunks(size).for_each(|item| self.ports.write(port.into(), item));
                    }
                    VcpuExit::IoIn(port, data) => {
                        let size = self.page.io_size();
                        data.chunks_mut(size).for_each(|item| self.ports.read(port.into(), item));
                    }
                    VcpuExit::MmioRead(address, data) => self.memory.read(address, data),
                    VcpuExit::MmioWrite(address, data) => self.memory.write(address, data),
                    VcpuExit::Shutdown => {
                        resources::guest_error!("cpu", "triple fault: the machine is reset");
                        self.mailbox.request(Request::Reset);
                    }
                    VcpuExit::SystemEvent(kind, _) => match kind {
                        kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => {
                            self.mailbox.request(Request::Shutdown);
                        }
                        _ => self.mailbox.request(Request::Reset),
                    },
                    VcpuExit::Unsupported(kvm_bindings::KVM_EXIT_DIRTY_RING_FULL) => {
                        if let Err(error) = self.memory.log_full() {
                            return self.fail(&error.to_string());
                        }
                    }
                    VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen => {}
                    VcpuExit::InternalError => {
                        let (suberror, data) = self.page.internal_error();
                        let data = format!("{data:x?}");
                        return self
                            .fail(&format!("KVM internal error. Suberror: {suberror} {data}"));
                    }
                    VcpuExit::FailEntry(reason, cpu) => {
                        return self.fail(&format!(
                            "KVM: entry failed, hardware error {reason:#x} on host CPU {cpu}"
                        ));
                    }
                    other => {
                        let text = format!("KVM: unknown exit {other:?}");
                        return self.fail(&text);
                    }
                },
                Err(error) => match error.errno() {
                    // A kick, or a signal that was not meant for us: look at the messages.
                    libc::EINTR => return,
                    // A waiting application processor that was signalled.
                    libc::EAGAIN => return,
                    _ => {
                        return self.fail(&format!("KVM: cannot run vCPU {}: {error}", self.index));
                    }
                },
            }
        }
    }

    /// The guest cannot go on: says why on stderr, with the registers, and stops the machine.
    fn fail(&self, why: &str) {
        let mut text = why.to_owned();
        if let (Ok(regs), Ok(sregs)) = (self.fd.get_regs(), self.fd.get_sregs()) {
            text.push_str(&format!(
                "\nvCPU {}: rip={:016x} rflags={:08x} rsp={:016x} rax={:016x} rbx={:016x} \
                 rcx={:016x} rdx={:016x} rsi={:016x} rdi={:016x}\n\
                 cs={:04x}:{:x} cr0={:08x} cr2={:016x} cr3={:x} cr4={:08x} efer={:x}",
                self.index,
                regs.rip,
                regs.rflags,
                regs.rsp,
                regs.rax,
                regs.rbx,
                regs.rcx,
                regs.rdx,
                regs.rsi,
                regs.rdi,
                sregs.cs.selector,
                sregs.cs.base,
                sregs.cr0,
                sregs.cr2,
                sregs.cr3,
                sregs.cr4,
                sregs.efer,
            ));
        }
        tell(text);
        self.mailbox.internal_error();
    }
}

/// On a vCPU's thread: if that panics, the machine stops instead of going on without the vCPU.
struct Unfinished(Arc<Mailbox>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.internal_error();
        }
    }
}

impl VcpuHandle {
    /// The vCPU's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The host's id of its thread.
    pub fn thread_id(&self) -> i32 {
        self.thread_id
    }

    /// Has the vCPU look at the gate.
    pub fn wake(&self) {
        let _ = self.messages.send(Message::Wake);
    }

    /// Runs `work` on the vCPU's thread, outside the guest, and waits for its result. The guest
    /// goes on afterwards if the gate is open.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vcpu) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        self.start_call(work)?.recv().map_err(|_| Gone(self.index))
    }

    /// As [`call`](Self::call), without waiting: so that several vCPUs work at once.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn start_call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vcpu) -> T + Send + 'static,
    ) -> Result<Receiver<T>, Gone> {
        let (reply, result) = channel();
        let work: Work = Box::new(move |vcpu| {
            let _ = reply.send(work(vcpu));
        });
        self.messages.send(Message::Call(work)).map_err(|_| Gone(self.index))?;
        self.kick.kick();
        Ok(result)
    }
}

impl Drop for VcpuHandle {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Exit);
        self.kick.kick();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of vCPU {} panicked", self.index);
        }
    }
}
