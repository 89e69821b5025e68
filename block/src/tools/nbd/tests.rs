//! Options that are refused, in whose words.

use super::*;
use crate::tools::testing::Heard;

#[test]
fn mistakes_are_told() {
    let tool = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let heard = Heard::default();
        let code = main(&heard.console(), &words);
        assert_eq!(heard.out(), "", "{line}");
        (code, heard.err())
    };
    let usage = "\nTry `tool --help' for more information.";
    for (line, said) in [
        ("", format!("Invalid number of arguments{usage}")),
        ("a b", format!("Invalid number of arguments{usage}")),
        ("--bogus", format!("unrecognized option '--bogus'{usage}")),
        ("-e x f", "Invalid shared device number 'x'".to_owned()),
        ("-o 2M f", "Invalid offset '2M'".to_owned()),
        ("--cache=x f", "Invalid cache mode `x'".to_owned()),
        ("--discard=x f", "Invalid discard mode `x'".to_owned()),
        ("--aio=x f", "Invalid aio mode 'x'".to_owned()),
        ("-k relative f", "socket path must be absolute".to_owned()),
        ("-L f", "List mode is incompatible with a file name".to_owned()),
        ("-L -r", "List mode is incompatible with per-device settings".to_owned()),
        (
            "-L -k /nonexistent/s",
            "Failed to connect to '/nonexistent/s': No such file or directory".to_owned(),
        ),
        (
            "-k /nonexistent/s /no/such",
            "Failed to open '/no/such': Could not open '/no/such': No such file or directory"
                .to_owned(),
        ),
        (
            "-c /nonexistent/nbd0 f",
            "Failed to open /nonexistent/nbd0: No such file or directory".to_owned(),
        ),
        (
            "-d /nonexistent/nbd0",
            "Cannot open /nonexistent/nbd0: No such file or directory".to_owned(),
        ),
        (
            "-c /dev/null f",
            "Failed to open /dev/null: it is not a device of the kernel's NBD client".to_owned(),
        ),
        (
            "-d /dev/null",
            "Cannot open /dev/null: it is not a device of the kernel's NBD client".to_owned(),
        ),
        (
            "--discard=off --detect-zeroes=unmap f",
            "setting detect-zeroes to unmap is not allowed without setting discard operation to \
             unmap"
                .to_owned(),
        ),
        ("--detect-zeroes=x f", "Invalid detect-zeroes mode `x'".to_owned()),
        ("--tls-creds=t f", "No TLS credentials with id 't'".to_owned()),
        ("--tls-creds=t -c /dev/null f", "TLS is not supported with a host device".to_owned()),
    ] {
        assert_eq!(tool(line), (1, format!("tool: {said}\n")), "{line}");
    }
}
