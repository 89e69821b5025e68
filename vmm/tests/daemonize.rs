//! Tests of going to the background. They fork, which a thread of the usual test harness must not,
//! so this program runs itself once for each case.

use std::env;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Duration;
use vmm::cli::daemonize::{Daemon, Forked};
use vmm::cli::pidfile::Pidfile;

/// The variable that tells a run of this program which case it is.
const CASE: &str = "VMM_TEST_DAEMONIZE";

fn main() -> ExitCode {
    if let Ok(case) = env::var(CASE) {
        return run(&case);
    }
    let dir = env::temp_dir().join(format!("vmm-daemonize-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    becomes_a_daemon(&dir);
    the_exit_code_tells_of_a_failed_start(&dir);
    threads_are_refused(&dir);
    a_second_process_does_not_get_the_pidfile(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
    println!("daemonize: 4 tests passed");
    ExitCode::SUCCESS
}

/// What a run of this program does; it starts in the test's directory.
fn run(case: &str) -> ExitCode {
    let thread = (case == "thread").then(|| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        (sender, std::thread::spawn(move || receiver.recv()))
    });
    let dir = env::current_dir().unwrap();
    if case == "pidfile" {
        return match Pidfile::acquire(Path::new("pid")) {
            Ok(_) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::FAILURE
            }
        };
    }
    match Daemon::fork() {
        Err(e) => {
            eprintln!("{e}");
            drop(thread);
            ExitCode::from(7)
        }
        Ok(Forked::Parent(code)) => ExitCode::from(code),
        Ok(Forked::Daemon(_)) if case == "fail" => {
            eprintln!("no such machine");
            ExitCode::from(9)
        }
        Ok(Forked::Daemon(daemon)) => {
            let pidfile = Pidfile::acquire(Path::new("pid")).unwrap();
            eprintln!("nearly there");
            daemon.ready(|| Ok(())).unwrap();
            let mut report = format!("{}\n", std::process::id());
            report += &format!("{}\n", env::current_dir().unwrap().display());
            for fd in 0..3 {
                let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
                report += &format!("{}\n", target.display());
            }
            let session = rustix::process::getsid(None).unwrap();
            report += &format!("{}\n", session == rustix::process::getpid());
            report += &format!("{:o}\n", rustix::process::umask(rustix::fs::Mode::empty()));
            let mut stream = UnixStream::connect(dir.join("socket")).unwrap();
            std::io::Write::write_all(&mut stream, report.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Runs until the test has looked at it.
            let _ = stream.read(&mut [0]);
            drop(pidfile);
            ExitCode::SUCCESS
        }
    }
}

fn start(case: &str, dir: &Path) -> Output {
    // This waits for the end of standard error too, which the daemon must have let go of.
    Command::new(env::current_exe().unwrap())
        .env(CASE, case)
        .current_dir(dir)
        .stdin(std::process::Stdio::piped())
        .output()
        .unwrap()
}

fn becomes_a_daemon(dir: &Path) {
    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    let output = start("ready", dir);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, b"nearly there\n");
    // The parent waited: what the daemon did before it was ready is done.
    let pid = std::fs::read_to_string(dir.join("pid")).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut report = String::new();
    stream.read_to_string(&mut report).unwrap();
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(
        lines,
        [pid.trim_end(), "/", "/dev/null", "/dev/null", "/dev/null", "false", "27"],
        "{report}"
    );
    // While it runs, its pidfile is taken.
    let second = start("pidfile", dir);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.starts_with("Could not acquire pidfile: "), "{text}");
    std::fs::remove_file(dir.join("socket")).unwrap();
}

fn the_exit_code_tells_of_a_failed_start(dir: &Path) {
    let output = start("fail", dir);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stderr, b"no such machine\n");
}

fn threads_are_refused(dir: &Path) {
    let output = start("thread", dir);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(output.stderr, b"cannot daemonize: other threads run already\n");
}

fn a_second_process_does_not_get_the_pidfile(dir: &Path) {
    let path: PathBuf = dir.join("pid2");
    let pidfile = Pidfile::acquire(&path).unwrap();
    std::fs::rename(&path, dir.join("pid")).unwrap();
    let output = start("pidfile", dir);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    drop(pidfile);
}
