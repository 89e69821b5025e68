use proptest::prelude::*;

use super::*;

fn parse_with(params: &[Param], line: &str, last: &mut LastFormat) -> Result<Args, String> {
    let mut registers = |_: &str| Err("unknown register".to_owned());
    arguments("cmd", params, &mut Cursor::new(line), last, &mut registers)
}

fn parse(params: &[Param], line: &str) -> Result<Args, String> {
    parse_with(params, line, &mut LastFormat::default())
}

fn text(kind: Kind, line: &str) -> Result<String, String> {
    parse(&[arg("a", kind)], line).map(|args| args.text("a").to_owned())
}

fn number(kind: Kind, line: &str) -> Result<i64, String> {
    parse(&[arg("a", kind)], line).map(|args| args.number("a"))
}

fn seconds(line: &str) -> Result<f64, String> {
    parse(&[arg("a", Kind::Seconds)], line).map(|args| args.opt_seconds("a").unwrap())
}

#[test]
fn words_and_strings() {
    for (line, word) in [
        ("abc", "abc"),
        ("  abc  ", "abc"),
        ("\"a b\"", "a b"),
        ("\"\"", ""),
        (r#""a\n\r\\\"\'""#, "a\n\r\\\"'"),
        ("a\"b", "a\"b"),
        ("/dev/x", "/dev/x"),
        ("\u{e9}t\u{e9}", "\u{e9}t\u{e9}"),
    ] {
        assert_eq!(text(Kind::Word, line), Ok(word.to_owned()), "{line}");
    }
    assert_eq!(text(Kind::Rest, " a  b\"c "), Ok("a  b\"c ".to_owned()));
}

#[test]
fn what_is_no_string() {
    for line in ["", "  ", "\"abc", r#""a\q""#, r#""a\"#] {
        assert_eq!(text(Kind::Word, line), Err("cmd: string expected".to_owned()), "{line}");
        assert_eq!(text(Kind::File, line), Err("cmd: filename expected".to_owned()), "{line}");
        let error = Err("cmd: block device name expected".to_owned());
        assert_eq!(text(Kind::Block, line), error, "{line}");
    }
    assert_eq!(text(Kind::Rest, "  "), Err("cmd: string expected".to_owned()));
    let error = Err("cmd: extraneous characters at the end of line".to_owned());
    assert_eq!(text(Kind::Word, "a b"), error);
    assert_eq!(parse(&[], "b"), Err("cmd: extraneous characters at the end of line".to_owned()));
}

#[test]
fn numbers() {
    assert_eq!(number(Kind::Int, "0xffffffff"), Ok(0xffff_ffff));
    for line in ["0x100000000", "-1"] {
        let error = "'cmd' has failed: integer is for 32-bit values".to_owned();
        assert_eq!(number(Kind::Int, line), Err(error));
    }
    assert_eq!(number(Kind::Long, "-1"), Ok(-1));
    assert_eq!(number(Kind::Mib, "1+1"), Ok(2 << 20));
    assert_eq!(number(Kind::Mib, "-1"), Err("enter a positive value".to_owned()));
    assert_eq!(number(Kind::Mib, "0x7fffffffffffffff"), Err("number too large".to_owned()));
    assert_eq!(number(Kind::Size, "2"), Ok(2 << 20));
    assert_eq!(number(Kind::Size, "2k"), Ok(2 << 10));
    for line in ["", "x", "1q", "-1"] {
        assert_eq!(number(Kind::Size, line), Err("invalid size".to_owned()), "{line}");
    }
    assert_eq!(
        number(Kind::Long, "1 2"),
        Err("cmd: extraneous characters at the end of line".into())
    );
    assert_eq!(number(Kind::Long, ""), Err("unexpected end of expression".to_owned()));
}

#[test]
fn times() {
    for (line, value) in
        [("1", 1.0), ("1.5", 1.5), ("30ms", 0.03), ("5us", 5e-6), ("7ns", 7e-9), ("1e-3", 1e-3)]
    {
        assert!((seconds(line).unwrap() - value).abs() < 1e-12, "{line}");
    }
    for (line, error) in [
        ("", "Number expected"),
        ("x", "Number expected"),
        ("1m", "Unknown unit suffix"),
        ("1s", "Unknown unit suffix"),
        ("1msx", "Unknown unit suffix"),
        ("1e999", "Bad number"),
    ] {
        assert_eq!(seconds(line), Err(error.to_owned()), "{line}");
    }
}

#[test]
fn switches() {
    let params = [arg("a", Kind::Switch)];
    assert!(parse(&params, "on").unwrap().is_on("a"));
    assert!(!parse(&params, "off").unwrap().is_on("a"));
    for line in ["", "yes", "onn"] {
        assert_eq!(parse(&params, line), Err("Expected 'on' or 'off'".to_owned()), "{line}");
    }
}

#[test]
fn flags_come_in_order() {
    let params = [flag("d", b'd'), flag("b", b'b'), arg("uri", Kind::Word)];
    let given = |line: &str| {
        parse(&params, line)
            .map(|args| (args.is_on("d"), args.is_on("b"), args.text("uri").to_owned()))
    };
    assert_eq!(given("x"), Ok((false, false, "x".to_owned())));
    assert_eq!(given("-d -b x"), Ok((true, true, "x".to_owned())));
    assert_eq!(given("-b x"), Ok((false, true, "x".to_owned())));
    assert_eq!(given("-q x"), Err("cmd: unsupported option -q".to_owned()));
    assert_eq!(given("-b -d x"), Err("cmd: extraneous characters at the end of line".to_owned()));
    assert_eq!(given("-"), Err("cmd: unsupported option -".to_owned()));
}

#[test]
fn formats_are_remembered() {
    let params = [arg("fmt", Kind::Format), arg("a", Kind::Long)];
    let mut last = LastFormat::default();
    for (line, count, letter, size) in [
        ("1", 1, b'x', Some(4)),
        ("/4 1", 4, b'x', Some(4)),
        ("/2db 1", 2, b'd', Some(1)),
        ("1", 1, b'd', Some(1)),
        ("/g 1", 1, b'd', Some(8)),
        ("/hx 1", 1, b'x', Some(2)),
        ("/3i 1", 3, b'i', None),
        ("1", 1, b'i', None),
        ("/c 1", 1, b'c', Some(2)),
        ("/99999999999999999999o 1", u64::MAX, b'o', Some(2)),
    ] {
        let format = parse_with(&params, line, &mut last).unwrap().format();
        assert_eq!(format, Format { count, letter, size }, "{line}");
    }
    let error = Err("invalid char in format: 'z'".to_owned());
    assert_eq!(parse_with(&params, "/z 1", &mut last), error);
}

#[test]
fn what_may_be_left_out() {
    let params = [arg("addr", Kind::Int), opt("index", Kind::Int).after_dot()];
    let both =
        |line| parse(&params, line).map(|args| (args.number("addr"), args.opt_number("index")));
    assert_eq!(both("0x70"), Ok((0x70, None)));
    assert_eq!(both("0x70.3"), Ok((0x70, Some(3))));
    assert_eq!(both("0x70 . 3"), Ok((0x70, Some(3))));
    let params = [opt("a", Kind::Word), opt("b", Kind::Long)];
    assert_eq!(parse(&params, " "), Ok(Args::default()));
    assert_eq!(parse(&params, "x").unwrap().opt_number("b"), None);
    assert_eq!(parse(&params, "x 3").unwrap().opt_number("b"), Some(3));
}

#[test]
fn the_name_of_a_command_ends_at_a_blank_or_slash() {
    for (line, name, rest) in
        [("x/4wx 0", "x", "/4wx 0"), ("  info  a", "info", "  a"), ("", "", ""), ("q", "q", "")]
    {
        let mut cursor = Cursor::new(line);
        assert_eq!(cursor.command(), name);
        assert_eq!(cursor.rest(), rest);
    }
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in "\\PC{0,80}", kind in 0usize..12) {
        let kind = [
            Kind::Word, Kind::File, Kind::Block, Kind::Rest, Kind::Options, Kind::Int, Kind::Long,
            Kind::Mib, Kind::Size, Kind::Seconds, Kind::Switch, Kind::Format,
        ][kind];
        let params = [flag("f", b'f'), arg("a", kind), opt("b", Kind::Word)];
        let _ = parse(&params, &line);
        let _ = parse(&params, &format!("-f {line}"));
    }
}
