//! `vmm-img dd`: copies a part of an image, in the words of dd.
//!
//! On the tool's loop.

use super::copy::{Copy, Source};
use super::{Call, Command, Fail, Running};
use crate::NewImage;
use crate::create::is_zero_when_new;
use crate::tools::args::{flag, long_flag, long_value, value};
use crate::tools::images::{self, Wanted};
use crate::tools::size;

pub(super) const COMMAND: Command = Command {
    name: "dd",
    synopsis: "[-f FMT | --image-opts] [-O FMT] [-U] [bs=SIZE] [count=N] [skip=N] if=FILE of=FILE",
    options: &[
        value('f'),
        value('O'),
        flag('U').long("force-share"),
        long_flag("image-opts"),
        long_value("object"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

#[derive(Debug, Default, PartialEq, Eq)]
struct Plan<'a> {
    input: Option<&'a str>,
    output: Option<&'a str>,
    block: Option<u64>,
    count: Option<u64>,
    skip: Option<u64>,
}

impl<'a> Plan<'a> {
    fn parse(words: &'a [String]) -> Result<Self, Fail> {
        let mut plan = Plan::default();
        for word in words {
            let unknown = || Fail::Told(format!("unrecognized operand {word}"));
            let (name, text) = word.split_once('=').ok_or_else(unknown)?;
            let size = || {
                let known = size::parse(text);
                known.ok_or_else(|| Fail::Told(format!("invalid number: '{text}'")))
            };
            match name {
                "if" => plan.input = Some(text),
                "of" => plan.output = Some(text),
                "bs" => plan.block = Some(size()?),
                "count" => plan.count = Some(size()?),
                "skip" => plan.skip = Some(size()?),
                _ => return Err(Fail::Told(format!("unrecognized operand {name}"))),
            }
        }
        if plan.block.is_some_and(|block| block == 0 || block > 1 << 31) {
            return Err("Invalid block size".into());
        }
        Ok(plan)
    }

    /// Bytes left out, and bytes of the input that are looked at, of `size`.
    fn range(&self, size: u64) -> (u64, u64) {
        let block = self.block.unwrap_or(512);
        let bytes = |blocks: u64| blocks.saturating_mul(block);
        (self.skip.map_or(0, bytes), self.count.map_or(size, bytes).min(size))
    }
}

async fn run(call: &Call) -> Result<(), Fail> {
    let plan = Plan::parse(&call.args.operands)?;
    let (Some(input), Some(output)) = (plan.input, plan.output) else {
        return Err("Must specify both input and output files".into());
    };
    let format = call.args.get('O').unwrap_or("raw");
    let source = call.open(&call.wanted(input)?).await?;
    let size = source.info().size;
    let (skip, end) = plan.range(size);
    let beyond = skip > end || skip > size;
    if beyond {
        call.console.error(format_args!("{input}: cannot skip to specified offset"));
    }
    let len = end.saturating_sub(skip);
    let new = NewImage {
        filename: output.to_owned(),
        format: format.to_owned(),
        size: Some(len),
        ..NewImage::default()
    };
    let made = images::create(&call.local, &new).await;
    made.map_err(|error| {
        format!("{output}: error while creating output image of type {format}: {error}")
    })?;
    if len == 0 {
        return Ok(());
    }
    let wanted = Wanted { writable: true, ..Wanted::read(output, Some(format)) };
    let target = call.open(&wanted).await?;
    let copy = Copy::new(vec![Source { node: source, skip, len }], &target);
    let zeroed = is_zero_when_new(&*target);
    Copy { zeroed, ..copy }.run(&call.local, &call.console, false).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands() {
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let line = words("if=a bs=1k of=b count=3 skip=1");
        let plan = Plan::parse(&line).unwrap();
        assert_eq!((plan.input, plan.output), (Some("a"), Some("b")));
        assert_eq!(plan.range(10_000), (1024, 3072));
        assert_eq!(plan.range(2000), (1024, 2000));
        for (line, said) in [
            ("foo=1", "unrecognized operand foo"),
            ("foo", "unrecognized operand foo"),
            ("bs=x", "invalid number: 'x'"),
            ("bs=0", "Invalid block size"),
        ] {
            assert_eq!(Plan::parse(&words(line)), Err(Fail::Told(said.to_owned())));
        }
    }
}
