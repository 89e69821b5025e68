//! Steps on the way of a guest to another process, for guests of every kind.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

use super::Result;
use super::vm::{SOON, TestVm};

/// A place for a guest to go to, by TCP, where nobody listens yet.
pub fn tcp() -> Result<String> {
    let free = TcpListener::bind("127.0.0.1:0")?;
    Ok(format!("tcp:127.0.0.1:{}", free.local_addr()?.port()))
}

/// Begins a migration of so many bytes a second, too slow to end, and waits until so many have
/// been sent.
pub fn begin_slowly(vm: &mut TestVm, uri: &str, speed: u64, sent: u64) -> Result {
    vm.qmp.execute("migrate_set_speed", json!({ "value": speed }))?;
    vm.qmp.execute("migrate_set_downtime", json!({ "value": 0 }))?;
    vm.qmp.execute("migrate", json!({ "uri": uri }))?;
    let deadline = Instant::now() + SOON;
    loop {
        let info = vm.qmp.execute("query-migrate", json!({}))?;
        if info["ram"]["transferred"].as_u64() > Some(sent) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("nothing is sent: {info}").into());
        }
        sleep(Duration::from_millis(5));
    }
}

/// Credentials of both ends in a new directory, from an authority of their own.
pub fn credentials(dir: &Path) -> Result<PathBuf> {
    fs::create_dir(dir)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(dir.join("ca-cert.pem"), authority.pem())?;
    for end in ["server", "client"] {
        let key = KeyPair::generate()?;
        let names = vec!["127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        fs::write(dir.join(format!("{end}-cert.pem")), certificate.pem())?;
        fs::write(dir.join(format!("{end}-key.pem")), key.serialize_pem())?;
    }
    Ok(dir.to_owned())
}

/// Gives the machine the credentials of an end, `server` or `client`, for its next migration.
pub fn trust(vm: &mut TestVm, end: &str, dir: &Path) -> Result {
    let creds = json!({
        "qom-type": "tls-creds-x509", "id": end, "endpoint": end, "dir": dir.to_str(),
    });
    vm.qmp.execute("object-add", creds)?;
    vm.qmp.execute("migrate-set-parameters", json!({ "tls-creds": end }))?;
    Ok(())
}
