//! Where the other side of a migration is.
//!
//! Text of the command line or of a client; parsing touches nothing of the host.

use std::path::PathBuf;

use crate::Error;

/// Where a stream goes to or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uri {
    /// `tcp:HOST:PORT`, `tcp:[V6]:PORT`.
    Tcp {
        /// A name or an address; empty for every address of this host.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `fd:NAME`: a file descriptor that the caller knows under this name or number.
    Fd(String),
    /// `exec:COMMAND`, for `/bin/sh -c`.
    Exec(String),
    /// `file:PATH`, `file:PATH,offset=N`.
    File {
        /// The file.
        path: PathBuf,
        /// The stream begins at this byte.
        offset: u64,
    },
}

impl Uri {
    /// The URI of `migrate`.
    ///
    /// # Errors
    /// It is none, in the words that `migrate` answers.
    pub fn outgoing(text: &str) -> Result<Self, Error> {
        match Self::parse(text)? {
            Some(Self::Unix(path)) if path.as_os_str().is_empty() => {
                Err(Error::new("unix connect: no path specified"))
            }
            Some(Self::Tcp { host, .. }) if host.is_empty() => {
                Err(Error::new("host and/or port not specified"))
            }
            Some(uri) => Ok(uri),
            None => Err(Error::new("Parameter 'uri' expects a valid migration protocol")),
        }
    }

    /// The URI of `-incoming`; the caller knows `defer`.
    ///
    /// # Errors
    /// It is none, in the words that follow `-incoming URI: `.
    pub fn incoming(text: &str) -> Result<Self, Error> {
        match Self::parse(text)? {
            Some(Self::Unix(path)) if path.as_os_str().is_empty() => {
                Err(Error::new("unix listen: no path specified"))
            }
            Some(uri) => Ok(uri),
            None => Err(Error(format!("unknown migration protocol: {text}"))),
        }
    }

    /// None: there is no such scheme.
    fn parse(text: &str) -> Result<Option<Self>, Error> {
        let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
        Ok(Some(match scheme {
            "tcp" => tcp(rest)?,
            "unix" => Self::Unix(rest.into()),
            "fd" => Self::Fd(rest.into()),
            "exec" => Self::Exec(rest.into()),
            "file" => file(rest)?,
            _ => return Ok(None),
        }))
    }
}

fn tcp(text: &str) -> Result<Uri, Error> {
    let bad = |what: &str| Error(format!("error parsing {what} '{text}'"));
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        rest.split_once("]:").ok_or_else(|| bad("IPv6 address"))?
    } else {
        text.split_once(':').ok_or_else(|| bad("address"))?
    };
    if port.is_empty() {
        return Err(bad(if host.is_empty() { "port in address" } else { "address" }));
    }
    let port = port.parse().map_err(|_| bad("port in address"))?;
    Ok(Uri::Tcp { host: host.into(), port })
}

fn file(text: &str) -> Result<Uri, Error> {
    let Some((path, offset)) = text.rsplit_once(",offset=") else {
        return Ok(Uri::File { path: text.into(), offset: 0 });
    };
    let offset = size(offset).filter(|&offset| i64::try_from(offset).is_ok());
    let offset = offset.ok_or_else(|| Error(format!("file URI has bad offset in '{text}'")))?;
    Ok(Uri::File { path: path.into(), offset })
}

/// A number of bytes, in hexadecimal after 0x, else with a suffix of 1024s or without.
fn size(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        let digits = Some(digits).filter(|digits| !digits.starts_with('+'))?;
        return u64::from_str_radix(digits, 16).ok();
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let shift = match suffix {
        "" | "B" | "b" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(host: &str, port: u16) -> Uri {
        Uri::Tcp { host: host.into(), port }
    }

    fn file(path: &str, offset: u64) -> Uri {
        Uri::File { path: path.into(), offset }
    }

    #[test]
    fn each_scheme_is_understood() {
        for (text, uri) in [
            ("tcp:10.0.0.1:4444", tcp("10.0.0.1", 4444)),
            ("tcp:host.example:1", tcp("host.example", 1)),
            ("tcp:[fe80::1%eth0]:65535", tcp("fe80::1%eth0", 65535)),
            ("unix:/run/a:b", Uri::Unix("/run/a:b".into())),
            ("fd:migrate", Uri::Fd("migrate".into())),
            ("exec:gzip -c > 'a b'", Uri::Exec("gzip -c > 'a b'".into())),
            ("file:/a,b", file("/a,b", 0)),
            ("file:/a,offset=512", file("/a", 512)),
            ("file:/a,offset=0x1000", file("/a", 4096)),
            ("file:/a,offset=3M", file("/a", 3 << 20)),
        ] {
            assert_eq!(Uri::outgoing(text).unwrap(), uri);
            assert_eq!(Uri::incoming(text).unwrap(), uri);
        }
        assert_eq!(Uri::incoming("tcp::4444").unwrap(), tcp("", 4444));
    }

    #[test]
    fn others_are_refused_in_known_words() {
        for (text, error) in [
            ("", "Parameter 'uri' expects a valid migration protocol"),
            ("tcp", "Parameter 'uri' expects a valid migration protocol"),
            ("TCP:a:1", "Parameter 'uri' expects a valid migration protocol"),
            ("x-rdma:a:1", "Parameter 'uri' expects a valid migration protocol"),
            ("unix:", "unix connect: no path specified"),
            ("tcp::4444", "host and/or port not specified"),
            ("tcp:", "error parsing address ''"),
            ("tcp:host", "error parsing address 'host'"),
            ("tcp:host:", "error parsing address 'host:'"),
            ("tcp::", "error parsing port in address ':'"),
            ("tcp:host:65536", "error parsing port in address 'host:65536'"),
            ("tcp:[::1", "error parsing IPv6 address '[::1'"),
            ("tcp:[::1]", "error parsing IPv6 address '[::1]'"),
            ("file:a,offset=", "file URI has bad offset in 'a,offset='"),
            ("file:a,offset=-1", "file URI has bad offset in 'a,offset=-1'"),
            ("file:a,offset=8388608T", "file URI has bad offset in 'a,offset=8388608T'"),
            ("file:a,offset=99999999999T", "file URI has bad offset in 'a,offset=99999999999T'"),
        ] {
            assert_eq!(Uri::outgoing(text).unwrap_err().to_string(), error);
        }
        let error = Uri::incoming("what:ever").unwrap_err();
        assert_eq!(error.to_string(), "unknown migration protocol: what:ever");
        let error = Uri::incoming("unix:").unwrap_err();
        assert_eq!(error.to_string(), "unix listen: no path specified");
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in "(tcp|unix|fd|exec|file|.{0,4}):.{0,20}(,offset=.{0,8})?") {
            let _ = Uri::outgoing(&text);
            let _ = Uri::incoming(&text);
        }
    }
}
