//! Commands on files and on nodes in memory.

use resources::iol::Local;
use vmm_sys_util::tempfile::TempFile;

use super::Session;
use crate::disk::Disk;
use crate::memory::Memory;
use crate::tools::testing::{Heard, run};

/// A session over so many bytes in memory.
fn memory(local: &Local, heard: &Heard, size: usize) -> Session {
    let disk = Disk::alone(Memory::new(vec![0; size], 1 << 24));
    Session::borrowing(local, &heard.console(), disk)
}

/// Without what differs from run to run.
fn plain(text: &str) -> String {
    let plain = |line: &str| match line.split_once(" ops; ") {
        Some((count, _)) => format!("{count} ops\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(plain).collect()
}

/// Runs commands; what each says, one behind the other.
async fn said(session: &Session, heard: &Heard, line: &str, good: bool) -> String {
    assert_eq!(session.run(line).await, good, "{line}");
    plain(&heard.out()) + &heard.err()
}

#[test]
fn what_is_written_is_read() {
    run(async |local| {
        let heard = Heard::default();
        let session = memory(&local, &heard, 1 << 20);
        for (line, good, expected) in [
            ("write -P 5 4k 1k", true, "wrote 1024/1024 bytes at offset 4096\n1 KiB, 1 ops\n"),
            ("read -P 5 4k 1k", true, "read 1024/1024 bytes at offset 4096\n1 KiB, 1 ops\n"),
            ("read -q -P 0 -s 1k -l 512 4k 2k", true, ""),
            ("read -q -P 5 -l 1k 4k 2k", true, ""),
            ("read -q -P 0 -s 1k 4k 2k", true, ""),
            ("read -q -P 6 0 16", false, "Pattern verification failed at offset 0, 16 bytes\n"),
            ("write -z 4k 512", true, "wrote 512/512 bytes at offset 4096\n512 bytes, 1 ops\n"),
            ("readv -q -P 0 4k 256 256", true, ""),
            ("writev -P 0x41 0 16 4", true, "wrote 20/20 bytes at offset 0\n20 bytes, 1 ops\n"),
            (
                "read -v 0 24",
                true,
                "00000000:  41 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41  AAAAAAAAAAAAAAAA\n\
                 00000010:  41 41 41 41 00 00 00 00  AAAA....\n\
                 read 24/24 bytes at offset 0\n24 bytes, 1 ops\n",
            ),
            ("discard 0 1k", true, "discard 1024/1024 bytes at offset 0\n1 KiB, 1 ops\n"),
            ("length", true, "1 MiB\n"),
            ("alloc 1k", true, "512/512 bytes allocated at offset 1 KiB\n"),
            ("map", true, "1 MiB (0x100000) bytes     allocated at offset 0 bytes (0x0)\n"),
            ("flush", true, ""),
            ("truncate 2M", true, ""),
            ("length", true, "2 MiB\n"),
            ("", true, ""),
        ] {
            assert_eq!(said(&session, &heard, line, good).await, expected, "{line}");
        }
    });
}

#[test]
fn mistakes_are_told() {
    run(async |local| {
        let heard = Heard::default();
        let session = memory(&local, &heard, 4096);
        for (line, expected) in [
            ("foo", "command \"foo\" not found\n"),
            ("read 1", "bad argument count 1 to read, expected at least 2 arguments\n"),
            ("alloc 1 2 3", "bad argument count 3 to alloc, expected between 1 and 2 arguments\n"),
            ("length x", "bad argument count 1 to length, expected 0 arguments\n"),
            ("write -P 300 0 1", "300 is not a valid pattern byte\n"),
            ("read 0 3G", "length cannot exceed 268435456, given 3G\n"),
            ("read 0 8E", "Parsing error: argument too large -- 8E\n"),
            (
                "read 0 x",
                "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- x\n",
            ),
            ("read 4k 1k", "read failed: Input/output error\n"),
            ("write 0 8k", "write failed: Input/output error\n"),
            ("read -P 1 -s 5k 0 4k", "pattern verification range exceeds end of read data\n"),
            ("write -zP 1 0 1k", "Only one of -z, -P, and -s can be specified at the same time\n"),
            ("write -u 0 1k", "-u requires -z to be specified\n"),
            ("write -s /nonexistent 0 1k", "/nonexistent: No such file or directory\n"),
            ("break read_aio x", "Could not set breakpoint: Operation not supported\n"),
            ("abort", "not with a disk that is in use\n"),
            ("open x", "not with a disk that is in use\n"),
        ] {
            assert_eq!(said(&session, &heard, line, false).await, expected, "{line}");
        }
        let usage = "writev [-Cfq] [-P pattern] off len [len..] -- writes a number of bytes at a \
                     specified offset\n";
        let heard_of = said(&session, &heard, "writev -x 0 1", false).await;
        assert_eq!(heard_of, format!("{usage}writev: unrecognized option '-x'\n"));
    });
}

#[test]
fn requests_in_the_background_end_before_the_flush_does() {
    run(async |local| {
        let heard = Heard::default();
        let session = memory(&local, &heard, 1 << 20);
        for at in 0..8 {
            assert!(session.run(&format!("aio_write -q -P {at} {at}k 1k")).await);
        }
        assert!(session.run("aio_flush").await);
        for at in 0..8 {
            assert!(session.run(&format!("read -q -P {at} {at}k 1k")).await);
        }
        assert!(session.run("aio_read -P 3 3k 1k 1").await);
        assert!(session.run("aio_flush").await);
        let out = plain(&heard.out());
        let failed = "Pattern verification failed at offset 3072, 1025 bytes\n";
        assert_eq!(out, format!("{failed}read 1025/1025 bytes at offset 3072\n1.001 KiB, 1 ops\n"));
    });
}

#[test]
fn files_are_opened_and_closed() {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let name = file.as_path().to_str().unwrap();
    let heard = Heard::default();
    let tool = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let code = match super::start(&heard.console(), &words) {
            Ok(()) => 0,
            Err(fail) => fail.tell(&heard.console()),
        };
        (code, plain(&heard.out()), heard.err())
    };
    let write = tool(&["-f", "raw", "-c", "write -q -P 7 0 1k", "-c", "read -q -P 7 0 1k", name]);
    assert_eq!(write, (0, String::new(), String::new()));
    let (code, out, _) =
        tool(&["-f", "raw", "-r", "-c", "write 0 1k", "-c", "quit", "-c", "foo", name]);
    assert_eq!((code, out.as_str()), (1, "write failed: Permission denied\n"));
    let open = format!("open -o driver=raw {name}");
    let again = tool(&["-c", &open, "-c", &open, "-c", "close", "-c", "length"]);
    let said = "tool: file open already, try 'help close'\nno file open, try 'help open'\n";
    assert_eq!(again, (1, String::new(), said.to_owned()));
    let (code, _, err) = tool(&["/nonexistent", "-c", "length"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("tool: can't open device /nonexistent: Could not open"), "{err}");
}
