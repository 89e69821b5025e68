//! `--object secret,id=ID,data=TEXT` or `file=NAME`, with `format=base64` if they are encoded so:
//! passwords of images, by their names; and `tls-creds-x509,id=ID,dir=DIRECTORY`.
//!
//! Plain functions. Words and files come from whoever starts the tool.

use std::io::Read;
use std::sync::Arc;

use resources::base64;
use resources::tls::Credentials;

use super::args::Parsed;
use super::console::Fail;
use super::images::{split_options, why};
use crate::open::{Objects, Secrets};

/// Bytes of a file with a secret, at most.
const MOST: u64 = 64 << 10;

/// The secrets and credentials of a command line.
///
/// # Errors
/// When something else is asked for, or a secret cannot be read.
pub fn parse(args: &Parsed) -> Result<Secrets, Fail> {
    let mut objects = Objects::default();
    for text in args.all("object") {
        let pairs = split_options(text);
        let first = pairs.first().map(|(key, value)| (key.as_str(), value.as_str()));
        let tls = matches!(first, Some((TLS, "on") | ("qom-type", TLS)));
        let (id, taken) = if tls {
            let (id, credentials) = credentials(pairs)?;
            (id.clone(), objects.tls.insert(id, credentials).is_some())
        } else {
            let (id, secret) = one(text)?;
            (id.clone(), objects.passwords.insert(id, secret).is_some())
        };
        if taken || objects.tls.contains_key(&id) && objects.passwords.contains_key(&id) {
            return Err(Fail::Told(format!("attempt to add duplicate property '{id}' to object")));
        }
    }
    Ok(Arc::new(objects))
}

/// The type of what says whom to believe.
const TLS: &str = "tls-creds-x509";

fn credentials(pairs: Vec<(String, String)>) -> Result<(String, Credentials), Fail> {
    let refuse = |text: String| Err(Fail::Told(text));
    let (mut id, mut dir, mut server, mut verify_peer) = (None, None, false, true);
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        match (key.as_str(), value.as_str()) {
            (TLS, "on") if index == 0 => {}
            ("qom-type", TLS) => {}
            ("id", _) => id = Some(value),
            ("dir", _) => dir = Some(value),
            ("endpoint", "server" | "client") => server = value == "server",
            ("verify-peer", "on" | "yes" | "true") => verify_peer = true,
            ("verify-peer", "off" | "no" | "false") => verify_peer = false,
            _ => return refuse(format!("--object {TLS}: '{key}={value}' is not supported")),
        }
    }
    match (id.filter(|id| !id.is_empty()), dir) {
        (Some(id), Some(dir)) => {
            Ok((id, Credentials { directory: dir.into(), server, verify_peer }))
        }
        (None, _) => refuse("Parameter 'id' is missing".to_owned()),
        (_, None) => refuse("Parameter 'dir' is missing".to_owned()),
    }
}

fn one(text: &str) -> Result<(String, String), Fail> {
    let refuse = |text: String| Err(Fail::Told(text));
    let (mut id, mut data, mut file, mut encoded) = (None, None, None, false);
    for (index, (key, value)) in split_options(text).into_iter().enumerate() {
        match key.as_str() {
            "secret" if index == 0 && value == "on" => {}
            "qom-type" if value == "secret" => {}
            other if index == 0 => return refuse(format!("--object: there is no type '{other}'")),
            "id" => id = Some(value),
            "data" => data = Some(value),
            "file" => file = Some(value),
            "format" if matches!(value.as_str(), "raw" | "base64") => encoded = value == "base64",
            _ => return refuse(format!("--object secret: '{key}={value}' is not supported")),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return refuse("Parameter 'id' is missing".to_owned());
    };
    let secret = match (data, file) {
        (Some(data), None) => data,
        (None, Some(file)) => {
            let mut secret = String::new();
            let read = std::fs::File::open(&file)
                .and_then(|file| file.take(MOST).read_to_string(&mut secret));
            match read {
                Ok(_) => secret,
                Err(error) => return refuse(format!("Unable to read {file}: {}", why(&error))),
            }
        }
        (Some(_), Some(_)) => return refuse("'file' and 'data' are mutually exclusive".to_owned()),
        (None, None) => return refuse("Either 'file' or 'data' must be provided".to_owned()),
    };
    if !encoded {
        return Ok((id, secret));
    }
    let Some(bytes) = base64::decode(&secret.replace('\n', "")) else {
        return refuse("Base64 data contains invalid characters".to_owned());
    };
    match String::from_utf8(bytes) {
        Ok(secret) => Ok((id, secret)),
        Err(_) => refuse(format!("Data from secret {id} is not valid UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::args;

    fn parsed(text: &str) -> Result<Secrets, Fail> {
        let words = ["--object".to_owned(), text.to_owned()];
        parse(&args::parse(&[args::long_value("object")], &words).unwrap())
    }

    #[test]
    fn secrets_have_names() {
        assert_eq!(parsed("secret,id=a,data=b,,c").unwrap().passwords["a"], "b,c");
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
        std::fs::write(file.as_path(), "word").unwrap();
        let from = format!("secret,id=a,format=raw,file={}", file.as_path().display());
        assert_eq!(parsed(&from).unwrap().passwords["a"], "word");
        assert_eq!(
            parsed("secret,id=a,data=w7xiZXI=,format=base64").unwrap().passwords["a"],
            "über"
        );
        std::fs::write(file.as_path(), "d29y\nZA==\n").unwrap();
        let from = from.replace("raw", "base64");
        assert_eq!(parsed(&from).unwrap().passwords["a"], "word");
        let tls = parsed("tls-creds-x509,id=t,dir=d,endpoint=server,verify-peer=off").unwrap();
        let here = Credentials { directory: "d".into(), server: true, verify_peer: false };
        assert_eq!(tls.tls["t"], here);
        for wrong in [
            "secret,id=a,data=/w==,format=base64",
            "secret,id=a,data=b,format=hex",
            "throttle-group,id=a",
            "tls-creds-x509,id=a",
            "tls-creds-x509,dir=d",
            "tls-creds-x509,id=a,dir=d,endpoint=both",
            "secret,data=b",
            "secret,id=a",
            "secret,id=a,data=b,file=c",
            "secret,id=a,file=/no/such",
            "secret,id=a,data=b,format=base64",
        ] {
            parsed(wrong).unwrap_err();
        }
    }
}
