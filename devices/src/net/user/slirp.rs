#![expect(unsafe_code, reason = "a C library, opened at run time")]
//! libslirp: the TCP/IP stack inside the process, opened at run time.
//!
//! A [`Slirp`] is used by one thread at a time; whoever has it sees to that with a lock, under
//! which the library calls back. What it calls back does no more than put a frame into a lane and
//! note timers and descriptors in [`Calls`], whose leaf mutexes are held for nothing else. The
//! guest's frames go to the library as they are: it is made for those of hostile guests.
//!
//! Declarations follow `libslirp.h` of libslirp 4.0, whose configuration of version 1 all later
//! ones take.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use resources::iol::Notify;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::super::lane::Lane;
use super::outlet::Outlet;

/// The library's file.
const FILE: &CStr = c"libslirp.so.0";

/// `struct in_addr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct InAddr(u32);

impl From<Ipv4Addr> for InAddr {
    fn from(address: Ipv4Addr) -> InAddr {
        InAddr(u32::from_ne_bytes(address.octets()))
    }
}

/// `struct in6_addr`, which is aligned as its words.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct In6Addr([u8; 16]);

/// `SlirpConfig`, the members of version 1.
#[repr(C)]
struct RawConfig {
    version: u32,
    restricted: c_int,
    in_enabled: bool,
    vnetwork: InAddr,
    vnetmask: InAddr,
    vhost: InAddr,
    in6_enabled: bool,
    vprefix_addr6: In6Addr,
    vprefix_len: u8,
    vhost6: In6Addr,
    vhostname: *const c_char,
    tftp_server_name: *const c_char,
    tftp_path: *const c_char,
    bootfile: *const c_char,
    vdhcp_start: InAddr,
    vnameserver: InAddr,
    vnameserver6: In6Addr,
    vdnssearch: *const *const c_char,
    vdomainname: *const c_char,
    if_mtu: usize,
    if_mru: usize,
    disable_host_loopback: bool,
    enable_emu: bool,
}

type TimerFn = unsafe extern "C" fn(*mut c_void);

/// `SlirpCb`, the members that a configuration of version 1 has called.
#[repr(C)]
struct RawCalls {
    send_packet: extern "C" fn(*const c_void, usize, *mut c_void) -> isize,
    guest_error: extern "C" fn(*const c_char, *mut c_void),
    clock_get_ns: extern "C" fn(*mut c_void) -> i64,
    timer_new: extern "C" fn(Option<TimerFn>, *mut c_void, *mut c_void) -> *mut c_void,
    timer_free: extern "C" fn(*mut c_void, *mut c_void),
    timer_mod: extern "C" fn(*mut c_void, i64, *mut c_void),
    register_poll_fd: extern "C" fn(c_int, *mut c_void),
    unregister_poll_fd: extern "C" fn(c_int, *mut c_void),
    notify: extern "C" fn(*mut c_void),
    // What later versions added, never called.
    later: [usize; 8],
}

static CALLS: RawCalls = RawCalls {
    send_packet,
    guest_error,
    clock_get_ns,
    timer_new,
    timer_free,
    timer_mod,
    register_poll_fd,
    unregister_poll_fd,
    notify,
    later: [0; 8],
};

/// `Slirp`.
enum Opaque {}

type AddPoll = extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
type WriteFn = extern "C" fn(*const c_void, usize, *mut c_void) -> isize;
type GetEvents = extern "C" fn(c_int, *mut c_void) -> c_int;

/// The library's functions.
struct Library {
    new: unsafe extern "C" fn(*const RawConfig, *const RawCalls, *mut c_void) -> *mut Opaque,
    cleanup: unsafe extern "C" fn(*mut Opaque),
    fill: unsafe extern "C" fn(*mut Opaque, *mut u32, AddPoll, *mut c_void),
    poll: unsafe extern "C" fn(*mut Opaque, c_int, GetEvents, *mut c_void),
    input: unsafe extern "C" fn(*mut Opaque, *const u8, c_int),
    add_hostfwd: unsafe extern "C" fn(*mut Opaque, c_int, InAddr, c_int, InAddr, c_int) -> c_int,
    remove_hostfwd: unsafe extern "C" fn(*mut Opaque, c_int, InAddr, c_int) -> c_int,
    add_exec: unsafe extern "C" fn(*mut Opaque, *const c_char, *mut InAddr, c_int) -> c_int,
    add_guestfwd:
        unsafe extern "C" fn(*mut Opaque, WriteFn, *mut c_void, *mut InAddr, c_int) -> c_int,
    socket_can_recv: unsafe extern "C" fn(*mut Opaque, InAddr, c_int) -> usize,
    socket_recv: unsafe extern "C" fn(*mut Opaque, InAddr, c_int, *const u8, c_int),
    connection_info: unsafe extern "C" fn(*mut Opaque) -> *mut c_char,
}

impl Library {
    #[expect(clippy::missing_transmute_annotations, reason = "the members' types say it")]
    fn open() -> Result<Library, String> {
        // SAFETY: the library's initialisers do nothing but set up its own data and GLib's.
        let handle = unsafe { libc::dlopen(FILE.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err("the user-mode network needs libslirp.so.0, which is not installed: \
                        install the package libslirp0 (Debian, Ubuntu) or libslirp (Fedora, Arch)"
                .to_owned());
        }
        let find = |name: &CStr| {
            // SAFETY: the handle is that of an open library, which is never closed.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            let lacks = || format!("libslirp.so.0 lacks {}", name.to_string_lossy());
            if found.is_null() { Err(lacks()) } else { Ok(found) }
        };
        let version = find(c"slirp_version_string")?;
        // SAFETY: it is declared as `const char *slirp_version_string(void)`, whose text is
        // constant.
        let version = unsafe {
            let version: extern "C" fn() -> *const c_char = std::mem::transmute(version);
            CStr::from_ptr(version())
        };
        if !version.to_bytes().starts_with(b"4.") {
            let version = version.to_string_lossy();
            return Err(format!("libslirp {version} is not known here, only version 4"));
        }
        // SAFETY: each is the function of that name, whose declaration in `libslirp.h` is the type
        // of the member.
        unsafe {
            Ok(Library {
                new: std::mem::transmute(find(c"slirp_new")?),
                cleanup: std::mem::transmute(find(c"slirp_cleanup")?),
                fill: std::mem::transmute(find(c"slirp_pollfds_fill")?),
                poll: std::mem::transmute(find(c"slirp_pollfds_poll")?),
                input: std::mem::transmute(find(c"slirp_input")?),
                add_hostfwd: std::mem::transmute(find(c"slirp_add_hostfwd")?),
                remove_hostfwd: std::mem::transmute(find(c"slirp_remove_hostfwd")?),
                add_exec: std::mem::transmute(find(c"slirp_add_exec")?),
                add_guestfwd: std::mem::transmute(find(c"slirp_add_guestfwd")?),
                socket_can_recv: std::mem::transmute(find(c"slirp_socket_can_recv")?),
                socket_recv: std::mem::transmute(find(c"slirp_socket_recv")?),
                connection_info: std::mem::transmute(find(c"slirp_connection_info")?),
            })
        }
    }

    fn get() -> Result<&'static Library, String> {
        static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
        LIBRARY.get_or_init(Library::open).as_ref().map_err(Clone::clone)
    }
}

/// What the stack is like.
pub(super) struct Config {
    /// The guest reaches nothing but the stack itself.
    pub(super) restricted: bool,
    /// There is IPv4.
    pub(super) ipv4: bool,
    /// IPv6, if there is.
    pub(super) ipv6: Option<Six>,
    /// The network's address.
    pub(super) net: Ipv4Addr,
    /// Its mask.
    pub(super) mask: Ipv4Addr,
    /// The host in it.
    pub(super) host: Ipv4Addr,
    /// The first address that DHCP gives.
    pub(super) dhcp: Ipv4Addr,
    /// The name server in it.
    pub(super) dns: Ipv4Addr,
    /// The guest's name.
    pub(super) hostname: Option<CString>,
    /// The directory of the TFTP server.
    pub(super) tftp: Option<CString>,
    /// The file to boot.
    pub(super) bootfile: Option<CString>,
    /// Domains to search.
    pub(super) search: Vec<CString>,
}

/// The addresses of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Six {
    /// The network's.
    pub(super) prefix: Ipv6Addr,
    /// Bits of it that are the network's.
    pub(super) length: u8,
    /// The host in it.
    pub(super) host: Ipv6Addr,
    /// The name server in it.
    pub(super) dns: Ipv6Addr,
}

/// What the library calls back.
pub(super) struct Calls {
    /// Frames for the guest.
    to_guest: Lane,
    /// Watches the library's descriptors.
    epoll: Epoll,
    /// What is watched of each.
    watched: Mutex<BTreeMap<RawFd, u32>>,
    timers: Mutex<Vec<Option<Timer>>>,
    changed: Notify,
    start: Instant,
}

#[derive(Clone, Copy)]
struct Timer {
    run: TimerFn,
    /// Its argument, as a number.
    argument: usize,
    /// In milliseconds of the stack's clock.
    deadline: Option<i64>,
}

impl Calls {
    fn milliseconds(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Has epoll watch what the library waits for now.
    fn watch(&self, wanted: &[(RawFd, u32)]) {
        let mut watched = self.watched.lock();
        let gone: Vec<RawFd> = (watched.keys().copied())
            .filter(|fd| wanted.iter().all(|(other, _)| other != fd))
            .collect();
        for fd in gone {
            watched.remove(&fd);
            let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        }
        for (fd, events) in wanted {
            if watched.get(fd) == Some(events) {
                continue;
            }
            let data = u64::try_from(*fd).unwrap_or_default();
            let event = EpollEvent::new(EventSet::from_bits_truncate(*events), data);
            // A number may have been closed and be another socket's by now.
            let done = (self.epoll.ctl(ControlOperation::Modify, *fd, event))
                .or_else(|_| self.epoll.ctl(ControlOperation::Add, *fd, event));
            if done.is_ok() {
                watched.insert(*fd, *events);
            }
        }
    }
}

/// A stack.
pub(super) struct Slirp {
    library: &'static Library,
    stack: *mut Opaque,
    calls: Arc<Calls>,
    /// The descriptors of the last fill, with what they are ready for.
    polled: Vec<(RawFd, u32, c_int)>,
    /// Addresses inside that lead to chardevs; the library has pointers to them.
    outlets: Vec<Arc<Outlet>>,
    // What the configuration points to.
    _config: Config,
}

// SAFETY: the library keeps nothing by thread; `&mut` sees to one thread at a time, and what is
// called back is `Sync`.
unsafe impl Send for Slirp {}

/// Which side of a forwarded port is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) udp: bool,
    pub(super) host: (Ipv4Addr, u16),
    pub(super) guest: (Ipv4Addr, u16),
}

fn text(text: Option<&CString>) -> *const c_char {
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

impl Slirp {
    /// Starts a stack that sends to `to_guest`, and wants [`step`](Self::step) when `changed` is
    /// raised.
    ///
    /// # Errors
    /// When the library is not there, or refuses the configuration.
    pub(super) fn new(config: Config, to_guest: Lane, changed: Notify) -> Result<Slirp, String> {
        let library = Library::get()?;
        let epoll = Epoll::new().map_err(|error| format!("epoll: {error}"))?;
        let calls = Arc::new(Calls {
            to_guest,
            epoll,
            watched: Mutex::default(),
            timers: Mutex::default(),
            changed,
            start: Instant::now(),
        });
        let mut search: Vec<*const c_char> =
            config.search.iter().map(|domain| domain.as_ptr()).collect();
        search.push(std::ptr::null());
        let six = |address: fn(Six) -> Ipv6Addr| {
            In6Addr(config.ipv6.map_or([0; 16], |six| address(six).octets()))
        };
        let raw = RawConfig {
            version: 1,
            restricted: config.restricted.into(),
            in_enabled: config.ipv4,
            vnetwork: config.net.into(),
            vnetmask: config.mask.into(),
            vhost: config.host.into(),
            in6_enabled: config.ipv6.is_some(),
            vprefix_addr6: six(|six| six.prefix),
            vprefix_len: config.ipv6.map_or(0, |six| six.length),
            vhost6: six(|six| six.host),
            vhostname: text(config.hostname.as_ref()),
            tftp_server_name: std::ptr::null(),
            tftp_path: text(config.tftp.as_ref()),
            bootfile: text(config.bootfile.as_ref()),
            vdhcp_start: config.dhcp.into(),
            vnameserver: config.dns.into(),
            vnameserver6: six(|six| six.dns),
            vdnssearch: if config.search.is_empty() { std::ptr::null() } else { search.as_ptr() },
            vdomainname: std::ptr::null(),
            if_mtu: 0,
            if_mru: 0,
            disable_host_loopback: false,
            enable_emu: false,
        };
        let opaque = Arc::as_ptr(&calls).cast_mut().cast();
        // SAFETY: `raw` is laid out as version 1 of the configuration, and what it points to lives
        // until the stack is cleaned up; so do the static calls and `calls`, which is what they are
        // called with.
        let stack = unsafe { (library.new)(&raw, &CALLS, opaque) };
        if stack.is_null() {
            return Err("libslirp refuses the configuration".to_owned());
        }
        Ok(Slirp {
            library,
            stack,
            calls,
            polled: Vec::new(),
            outlets: Vec::new(),
            _config: config,
        })
    }

    /// A descriptor that is readable when the stack has something to do.
    pub(super) fn waker(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        // SAFETY: it is open as long as `calls`.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.calls.epoll.as_raw_fd()) };
        fd.try_clone_to_owned()
    }

    /// Takes a frame of the guest.
    pub(super) fn input(&mut self, frame: &[u8]) {
        let Ok(len) = c_int::try_from(frame.len()) else { return };
        // SAFETY: `frame` is readable for `len` bytes, which the library copies.
        unsafe { (self.library.input)(self.stack, frame.as_ptr(), len) };
    }

    /// Learns what the stack waits for, and for how long at most.
    pub(super) fn fill(&mut self) -> Option<Duration> {
        let mut timeout = u32::MAX;
        self.polled.clear();
        let polled = std::ptr::from_mut(&mut self.polled).cast();
        // SAFETY: `add_poll` takes `polled`, which nothing else uses meanwhile.
        unsafe { (self.library.fill)(self.stack, &mut timeout, add_poll, polled) };
        let wanted: Vec<(RawFd, u32)> =
            self.polled.iter().map(|(fd, events, _)| (*fd, *events)).collect();
        self.calls.watch(&wanted);
        let now = self.calls.milliseconds();
        let timers = self.calls.timers.lock();
        let next = timers.iter().flatten().filter_map(|timer| timer.deadline).min();
        let next = next.map(|deadline| u64::try_from(deadline.saturating_sub(now)).unwrap_or(0));
        let timeout = (timeout != u32::MAX).then_some(u64::from(timeout));
        timeout.into_iter().chain(next).min().map(Duration::from_millis)
    }

    /// Does what there is to do with the descriptors of the last fill and with timers.
    pub(super) fn poll(&mut self) {
        let mut events = [EpollEvent::default(); 64];
        let count = self.calls.epoll.wait(0, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            let found =
                self.polled.iter_mut().find(|(fd, ..)| u64::try_from(*fd) == Ok(event.data()));
            if let Some((_, _, ready)) = found {
                *ready = ready_bits(event.events());
            }
        }
        let polled = std::ptr::from_mut(&mut self.polled).cast();
        // SAFETY: `get_events` takes `polled`, which nothing else uses meanwhile.
        unsafe { (self.library.poll)(self.stack, 0, get_events, polled) };
        self.polled.clear();
        let now = self.calls.milliseconds();
        let due: Vec<Timer> = (self.calls.timers.lock().iter_mut().flatten())
            .filter_map(|timer| {
                timer.deadline.filter(|deadline| *deadline <= now)?;
                timer.deadline = None;
                Some(*timer)
            })
            .collect();
        for timer in due {
            // SAFETY: the library gave the function with this argument, and timers are freed only
            // with the stack.
            unsafe { (timer.run)(timer.argument as *mut c_void) };
        }
    }

    /// Leads a port of the host to the guest; false if the host refuses.
    pub(super) fn add_forward(&mut self, rule: &Forward) -> bool {
        let (host, guest) = (rule.host, rule.guest);
        // SAFETY: plain numbers.
        let result = unsafe {
            (self.library.add_hostfwd)(
                self.stack,
                rule.udp.into(),
                host.0.into(),
                host.1.into(),
                guest.0.into(),
                guest.1.into(),
            )
        };
        self.calls.changed.notify();
        result >= 0
    }

    /// Takes a port of the host back; false if it led nowhere.
    pub(super) fn remove_forward(&mut self, udp: bool, host: (Ipv4Addr, u16)) -> bool {
        // SAFETY: plain numbers.
        let result = unsafe {
            (self.library.remove_hostfwd)(self.stack, udp.into(), host.0.into(), host.1.into())
        };
        result >= 0
    }

    /// Runs a command for each connection to an address inside; false if there is no such address.
    pub(super) fn add_command(&mut self, command: &CStr, server: Ipv4Addr, port: u16) -> bool {
        let mut address = InAddr::from(server);
        // SAFETY: the text is copied; the address is written to at most.
        unsafe {
            (self.library.add_exec)(self.stack, command.as_ptr(), &mut address, port.into()) >= 0
        }
    }

    /// Leads connections to an address inside to a chardev; false if there is no such address.
    pub(super) fn add_outlet(&mut self, outlet: Arc<Outlet>) -> bool {
        let mut address = InAddr::from(outlet.server);
        let opaque = Arc::as_ptr(&outlet).cast_mut().cast();
        // SAFETY: `write_outlet` takes an outlet, which lives in `outlets` until the stack has been
        // cleaned up; the address is written to at most.
        let added = unsafe {
            let port = outlet.port.into();
            (self.library.add_guestfwd)(self.stack, write_outlet, opaque, &mut address, port) >= 0
        };
        if added {
            self.outlets.push(outlet);
        }
        added
    }

    /// Whether the guest's frames have to wait for one who takes what they hold.
    pub(super) fn is_full(&self) -> bool {
        self.outlets.iter().any(|outlet| outlet.is_full())
    }

    /// Gives the guest's connections what there is for them, as far as they have room.
    pub(super) fn receive(&mut self) {
        for outlet in &self.outlets {
            let (address, port) = (InAddr::from(outlet.server), c_int::from(outlet.port));
            while outlet.has_input() {
                // SAFETY: plain numbers.
                let room = unsafe { (self.library.socket_can_recv)(self.stack, address, port) };
                let data = outlet.receive(room);
                let Ok(len @ 1..) = c_int::try_from(data.len()) else { break };
                // SAFETY: `data` is readable for `len` bytes, which the library copies; there is
                // room for them.
                unsafe {
                    (self.library.socket_recv)(self.stack, address, port, data.as_ptr(), len)
                };
            }
        }
    }

    /// A table of the connections.
    pub(super) fn connections(&mut self) -> String {
        // SAFETY: the library gives a new text, which is the caller's; GLib takes it from malloc.
        unsafe {
            let text = (self.library.connection_info)(self.stack);
            if text.is_null() {
                return String::new();
            }
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            libc::free(text.cast());
            copy
        }
    }
}

impl Drop for Slirp {
    fn drop(&mut self) {
        // SAFETY: it is the stack of `new`, used for the last time; what it calls back is still
        // there.
        unsafe { (self.library.cleanup)(self.stack) };
    }
}

/// The library's bits of readiness: in, out, urgent, error, end.
const BITS: [(c_int, EventSet); 5] = [
    (1, EventSet::IN),
    (2, EventSet::OUT),
    (4, EventSet::PRIORITY),
    (8, EventSet::ERROR),
    (16, EventSet::HANG_UP),
];

fn ready_bits(events: u32) -> c_int {
    let has = |set: &EventSet| events & set.bits() != 0;
    BITS.iter().filter(|(_, set)| has(set)).fold(0, |all, (bit, _)| all | bit)
}

extern "C" fn add_poll(fd: c_int, events: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: `fill` passes its list.
    let polled = unsafe { &mut *opaque.cast::<Vec<(RawFd, u32, c_int)>>() };
    let wanted = BITS.iter().filter(|(bit, _)| events & bit != 0);
    let wanted = wanted.fold(0, |all, (_, set)| all | set.bits());
    polled.push((fd, wanted, 0));
    c_int::try_from(polled.len().saturating_sub(1)).unwrap_or(-1)
}

extern "C" fn get_events(index: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: `poll` passes its list.
    let polled = unsafe { &*opaque.cast::<Vec<(RawFd, u32, c_int)>>() };
    let entry = usize::try_from(index).ok().and_then(|index| polled.get(index));
    entry.map_or(0, |(_, _, ready)| *ready)
}

/// What the library calls back with.
fn calls<'a>(opaque: *mut c_void) -> &'a Calls {
    // SAFETY: the library passes what it was made with, which outlives the stack.
    unsafe { &*opaque.cast::<Calls>() }
}

extern "C" fn send_packet(frame: *const c_void, len: usize, opaque: *mut c_void) -> isize {
    // SAFETY: the library passes a frame of its own.
    let frame = unsafe { std::slice::from_raw_parts(frame.cast::<u8>(), len) };
    // When there is no room it is lost, as on a network; the stack is not polled before there is.
    calls(opaque).to_guest.put(|| frame.to_vec());
    isize::try_from(len).unwrap_or(isize::MAX)
}

/// What the guest has sent to an address that leads to a chardev: all is taken.
extern "C" fn write_outlet(data: *const c_void, len: usize, opaque: *mut c_void) -> isize {
    // SAFETY: the library passes bytes of its own, and what it was given with this function, which
    // outlives the stack.
    let (data, outlet) =
        unsafe { (std::slice::from_raw_parts(data.cast::<u8>(), len), &*opaque.cast::<Outlet>()) };
    outlet.send(data);
    isize::try_from(len).unwrap_or(isize::MAX)
}

extern "C" fn guest_error(text: *const c_char, _: *mut c_void) {
    // SAFETY: the library passes a text.
    let text = unsafe { CStr::from_ptr(text) };
    resources::guest_error!("user network", "{}", text.to_string_lossy());
}

extern "C" fn clock_get_ns(opaque: *mut c_void) -> i64 {
    i64::try_from(calls(opaque).start.elapsed().as_nanos()).unwrap_or(i64::MAX)
}

/// The library knows a timer by its number, counted from 1.
extern "C" fn timer_new(
    run: Option<TimerFn>,
    argument: *mut c_void,
    opaque: *mut c_void,
) -> *mut c_void {
    let Some(run) = run else { return std::ptr::null_mut() };
    let mut timers = calls(opaque).timers.lock();
    timers.push(Some(Timer { run, argument: argument as usize, deadline: None }));
    timers.len() as *mut c_void
}

fn with_timer(timer: *mut c_void, opaque: *mut c_void, work: impl FnOnce(&mut Option<Timer>)) {
    let mut timers = calls(opaque).timers.lock();
    if let Some(entry) = (timer as usize).checked_sub(1).and_then(|at| timers.get_mut(at)) {
        work(entry);
    }
}

extern "C" fn timer_free(timer: *mut c_void, opaque: *mut c_void) {
    with_timer(timer, opaque, |entry| *entry = None);
}

extern "C" fn timer_mod(timer: *mut c_void, milliseconds: i64, opaque: *mut c_void) {
    with_timer(timer, opaque, |entry| {
        if let Some(timer) = entry {
            timer.deadline = Some(milliseconds);
        }
    });
    calls(opaque).changed.notify();
}

extern "C" fn register_poll_fd(_: c_int, _: *mut c_void) {}

/// Before the library closes a descriptor.
extern "C" fn unregister_poll_fd(fd: c_int, opaque: *mut c_void) {
    let calls = calls(opaque);
    if calls.watched.lock().remove(&fd).is_some() {
        let _ = calls.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }
}

extern "C" fn notify(opaque: *mut c_void) {
    calls(opaque).changed.notify();
}
