//! Character devices: listing, making and removing them, ring buffers, and clients that were
//! accepted elsewhere.
//!
//! Main thread. Nothing here waits for a peer. What a client asks for becomes the same
//! [`Backend`] that the command line's options become.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devices::chardev::{
    Address, Backend, CharError, Console, File, Given, Inet, Msmouse, Null, Parallel, Pipe, Pty,
    Ring, Ringbuf, Socket, Stdio, Tty, Udp, Vc,
};
use qmp::{
    AddClient, ChardevAdd, ChardevBackend, ChardevChange, ChardevInfo, ChardevRemove,
    ChardevReturn, ChardevRingbuf, ChardevSendBreak, ChardevSocket, ChardevUdp, ChardevVC,
    DataFormat, ErrorClass, Handle, InetSocketAddress, QmpError, QueryChardev, RingbufRead,
    RingbufWrite, SocketAddress,
};
use resources::base64;

use crate::chardevs::ChardevError;
use crate::vm::Vm;

impl Handle<QueryChardev> for Vm {
    fn handle(&mut self, _: QueryChardev) -> Result<Vec<ChardevInfo>, QmpError> {
        let info = |(label, filename): (&str, _)| ChardevInfo { filename, label: label.to_owned() };
        Ok(self.chardevs.list().map(info).collect())
    }
}

impl Handle<ChardevAdd> for Vm {
    fn handle(
        &mut self,
        ChardevAdd { id, backend }: ChardevAdd,
    ) -> Result<ChardevReturn, QmpError> {
        if self.chardevs.list().any(|(other, _)| other == id) {
            return Err(QmpError::generic(format!("Chardev '{id}' already exists")));
        }
        let backend = self.chardev_backend(backend)?;
        self.chardevs.hot_add(&id, backend).map_err(refused)?;
        Ok(self.made(&id))
    }
}

impl Handle<ChardevChange> for Vm {
    fn handle(
        &mut self,
        ChardevChange { id, backend }: ChardevChange,
    ) -> Result<ChardevReturn, QmpError> {
        if !self.chardevs.list().any(|(other, _)| other == id) {
            return Err(QmpError::generic(format!("Chardev '{id}' does not exist")));
        }
        let backend = self.chardev_backend(backend)?;
        self.chardevs.change(&id, backend).map_err(refused)?;
        Ok(self.made(&id))
    }
}

impl Handle<ChardevRemove> for Vm {
    fn handle(&mut self, ChardevRemove { id }: ChardevRemove) -> Result<(), QmpError> {
        self.chardevs.remove(&id).map_err(|error| match error {
            ChardevError::Unknown { id, .. } => not_found(&id),
            error => QmpError::generic(error.to_string()),
        })
    }
}

impl Handle<ChardevSendBreak> for Vm {
    fn handle(&mut self, ChardevSendBreak { id }: ChardevSendBreak) -> Result<(), QmpError> {
        match self.chardevs.plain(&id) {
            Ok(chardev) => chardev.send_break(),
            Err(true) => self.chardevs.break_shared(&id),
            Err(false) => return Err(not_found(&id)),
        }
        Ok(())
    }
}

impl Handle<RingbufWrite> for Vm {
    fn handle(&mut self, write: RingbufWrite) -> Result<(), QmpError> {
        let ring = self.ring(&write.device)?;
        match write.format {
            Some(DataFormat::Base64) => ring.write(&base64::decode_leniently(&write.data)),
            Some(DataFormat::Utf8) | None => ring.write(write.data.as_bytes()),
        }
        Ok(())
    }
}

impl Handle<RingbufRead> for Vm {
    fn handle(&mut self, read: RingbufRead) -> Result<String, QmpError> {
        let ring = self.ring(&read.device)?;
        let size = usize::try_from(read.size).ok().filter(|size| *size > 0);
        let size = size.ok_or_else(|| QmpError::generic("size must be greater than zero"))?;
        let data = ring.read(size);
        Ok(match read.format {
            Some(DataFormat::Base64) => base64::encode(&data),
            Some(DataFormat::Utf8) | None => {
                let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
                String::from_utf8_lossy(text).into_owned()
            }
        })
    }
}

impl Handle<AddClient> for Vm {
    fn handle(&mut self, add: AddClient) -> Result<(), QmpError> {
        let fd = self.take_named_fd(&add.fdname)?;
        if let "spice" | "vnc" = add.protocol.as_str() {
            let desc = format!("Device '{}' has not been activated", add.protocol);
            return Err(QmpError::new(ErrorClass::DeviceNotActive, desc));
        }
        match self.chardevs.plain(&add.protocol) {
            Ok(chardev) if chardev.add_client(fd) => Ok(()),
            Ok(_) | Err(true) => Err(QmpError::generic("failed to add client")),
            Err(false) => Err(QmpError::generic(format!("protocol '{}' is invalid", add.protocol))),
        }
    }
}

fn not_found(id: &str) -> QmpError {
    QmpError::generic(format!("Chardev '{id}' not found"))
}

/// Why a chardev was not made, as clients know it.
fn refused(error: ChardevError) -> QmpError {
    match error {
        ChardevError::Chardev(CharError::Create(why)) => {
            tracing::warn!("chardev-add: {why}");
            QmpError::generic("Failed to create chardev")
        }
        error => QmpError::generic(error.to_string()),
    }
}

/// A kind of back end that is not built in, by its number among the kinds.
fn absent(number: u32) -> QmpError {
    QmpError::generic(format!("unknown chardev backend ({number})"))
}

impl Vm {
    /// What there is to tell of a chardev that was made.
    fn made(&self, id: &str) -> ChardevReturn {
        let filename = self.chardevs.plain(id).map(|chardev| chardev.filename());
        let pty = filename.ok().and_then(|name| name.strip_prefix("pty:").map(str::to_owned));
        ChardevReturn { pty }
    }

    fn ring(&self, device: &str) -> Result<Arc<Ring>, QmpError> {
        let no_ring = || QmpError::generic(format!("{device} is not a ringbuf device"));
        match self.chardevs.plain(device) {
            Ok(chardev) => chardev.ring().ok_or_else(no_ring),
            Err(true) => Err(no_ring()),
            Err(false) => Err(QmpError::generic(format!("Device '{device}' not found"))),
        }
    }

    /// The options that a client asks for, as the command line's become them.
    fn chardev_backend(&mut self, backend: ChardevBackend) -> Result<Backend, QmpError> {
        Ok(match backend {
            ChardevBackend::File(file) => Backend::File(File {
                path: file.out.into(),
                append: false,
                input: file.r#in.map(PathBuf::from),
            }),
            ChardevBackend::Serial(host) => Backend::Serial(Tty { device: host.device.into() }),
            ChardevBackend::Parallel(host) => {
                Backend::Parallel(Parallel { device: host.device.into() })
            }
            ChardevBackend::Pipe(host) => Backend::Pipe(Pipe { path: host.device.into() }),
            ChardevBackend::Socket(socket) => Backend::Socket(self.socket(socket)?),
            ChardevBackend::Udp(addresses) => Backend::Udp(udp(addresses)?),
            ChardevBackend::Pty(_) => Backend::Pty(Pty),
            ChardevBackend::Null(_) => Backend::Null(Null),
            ChardevBackend::Mux(mux) => Backend::Mux(mux.chardev),
            ChardevBackend::Msmouse(_) => Backend::Msmouse(Msmouse),
            ChardevBackend::Braille(_) => return Err(absent(10)),
            ChardevBackend::Stdio(stdio) => {
                Backend::Stdio(Stdio { signal: stdio.signal.unwrap_or(true) })
            }
            ChardevBackend::Console(_) => Backend::Console(Console),
            ChardevBackend::Spicevmc(_) => return Err(absent(13)),
            ChardevBackend::Spiceport(_) => return Err(absent(14)),
            ChardevBackend::Vc(vc) => Backend::Vc(screen(&vc)),
            ChardevBackend::Ringbuf(ring) => Backend::Ringbuf(ringbuf(&ring, false)),
            ChardevBackend::Memory(ring) => Backend::Ringbuf(ringbuf(&ring, true)),
        })
    }

    fn socket(&mut self, socket: ChardevSocket) -> Result<Socket, QmpError> {
        let server = socket.server.unwrap_or(true);
        let seconds = u64::try_from(socket.reconnect.unwrap_or(0));
        let seconds = seconds.map_err(|_| QmpError::expects("reconnect", "a number of seconds"))?;
        if server && seconds > 0 {
            let text = "'reconnect' option is incompatible with socket in server listen mode";
            return Err(QmpError::generic(text));
        }
        let address = match socket.addr {
            SocketAddress::Inet(address) => Address::Inet(inet(address)?),
            SocketAddress::Unix(unix) => Address::Unix(unix.path.into()),
            SocketAddress::Fd(name) => Address::Fd(Given::new(self.take_named_fd(&name.str)?)),
        };
        Ok(Socket {
            address,
            server,
            wait: socket.wait.unwrap_or(false),
            nodelay: socket.nodelay.unwrap_or(false),
            telnet: socket.telnet.unwrap_or(false),
            reconnect: Duration::from_secs(seconds),
        })
    }
}

/// An address whose port may be given by number only; none at all is 0.
fn inet(address: InetSocketAddress) -> Result<Inet, QmpError> {
    let InetSocketAddress { host, port, to, ipv4, ipv6 } = address;
    let number = if port.is_empty() { Ok(0) } else { port.parse() };
    let number = number.map_err(|_| {
        let why = "Servname not supported for ai_socktype";
        QmpError::generic(format!("address resolution failed for {host}:{port}: {why}"))
    })?;
    Ok(Inet { host, port: number, to, ipv4, ipv6 })
}

fn udp(addresses: ChardevUdp) -> Result<Udp, QmpError> {
    let inet = |address| match address {
        SocketAddress::Inet(address) => inet(address),
        _ => Err(QmpError::generic("socket type unsupported for datagram")),
    };
    let remote = inet(addresses.remote)?;
    if remote.port == 0 {
        return Err(QmpError::generic("remote port not specified"));
    }
    Ok(Udp { remote, local: addresses.local.map(inet).transpose()? })
}

fn screen(vc: &ChardevVC) -> Vc {
    let size = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    Vc { width: size(vc.width), height: size(vc.height), cols: size(vc.cols), rows: size(vc.rows) }
}

/// A negative size is no power of two either.
fn ringbuf(ring: &ChardevRingbuf, memory: bool) -> Ringbuf {
    let size = ring.size.map(|size| u64::try_from(size).unwrap_or(0));
    Ringbuf { size: size.unwrap_or(Ringbuf::default().size), memory }
}

#[cfg(test)]
mod tests;
