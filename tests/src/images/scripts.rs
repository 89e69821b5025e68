//! The exerciser's words.

use super::tools::{Tools, Whose, equal};
use crate::rig::Result;

const SCRIPT: &[&str] = &[
    "length",
    "map",
    "write -P 0xa 0 64k",
    "read -P 10 0 64k",
    "read -v 65520 32",
    "read -P 10 65520 32",
    "read -P 0 -s 16 -l 16 65520 32",
    "read -C 0 1k",
    "readv -v -P 10 100 5 20",
    "writev -P 1 100k 1k 2k 512",
    "write -z 1M 64k",
    "write -zu 1M 64k",
    "write -c -P 3 2M 64k",
    "read -P 3 2M 64k",
    "write -P 4 2M 512",
    // What a discarded range is afterwards is open: a zero cluster there, none here.
    "discard 3M 64k",
    "write 3M 64k",
    "read -P 0 0 64k",
    "aio_write -P 5 3M 4k",
    "aio_flush",
    "aio_read -P 5 3M 4k",
    "aio_flush",
    "alloc 0",
    "alloc 3M 1M",
    "alloc 100 10",
    "flush",
    "truncate 5M",
    "length",
    "write -P 6 4900k 100k",
    "read 5M 1",
    "write 4M 2M",
    "read 6M 4k",
    "foo",
    "read 1",
    "read a 1",
    "read 1 b",
    "read 0 3G",
    "read 0 8E",
    "write -P 256 0 1k",
    "write -P -1 0 1k",
    "write -P x 0 1k",
    "write -P 0x10 0 1k",
    "read -P 020 0 1k",
    "write -u 0 1k",
    "write -n 0 1k",
    "write -zP 5 0 1k",
    "write -c 0 1k",
    "write -s nothing 0 1k",
    "read -P 0 -s 5k 0 4k",
    "read -P 0 -s 1k -l 4k 0 4k",
    "alloc 1 2 3",
    "length 1",
    "writev 0",
    "aio_read 0",
    "aio_write -z 0 1k 1k",
    "discard 10M 1k",
    "truncate x",
    "break read_aio tag",
    "remove_break tag",
    "resume tag",
    "open a",
    "help foo",
    "write 1.5k 0.5k",
    "read -q -P 0xcd 1536 512",
    "sleep 1",
    "quit",
    "length",
];

/// Without what differs from run to run: rates, times, the name of the tool.
fn plain(text: &[u8]) -> Vec<String> {
    let plain = |line: &str| {
        let line = line.replace("qemu-io", "tool").replace("vmm-io", "tool");
        if let Some((count, _)) = line.split_once(" ops; ") {
            return format!("{count} ops");
        }
        // For programs: bytes and operations.
        let fields: Vec<&str> = line.split(',').collect();
        match fields.as_slice() {
            [bytes, "1", _, _, _] if bytes.parse::<u64>().is_ok() => format!("{bytes},1"),
            _ => line,
        }
    };
    String::from_utf8_lossy(text).lines().map(plain).collect()
}

pub(super) fn same_output(tools: &Tools) -> Result {
    for options in ["", "-o cluster_size=4k", "-o extended_l2=on"] {
        let said = |whose: Whose, script: &[&str]| -> Result<_> {
            tools.ok(Whose::Others, &format!("create -q -f qcow2 {options} a 4M"))?;
            let lines: Vec<String> = script.iter().map(|line| (*line).to_owned()).collect();
            let output = tools.io(whose, "a", &lines)?;
            let code = output.status.code();
            Ok((code, plain(&output.stdout), plain(&output.stderr)))
        };
        let script: Vec<&str> = SCRIPT
            .iter()
            .copied()
            .filter(|line| options.is_empty() || !line.starts_with("write -c"))
            .collect();
        // One after the other says which of them differs.
        for end in 1..=script.len() {
            let alone = &script[end - 1..end];
            equal(
                &format!("{options} {}", alone[0]),
                &said(Whose::Ours, alone)?,
                &said(Whose::Others, alone)?,
            )?;
        }
        equal(options, &said(Whose::Ours, &script)?, &said(Whose::Others, &script)?)?;
    }
    Ok(())
}
