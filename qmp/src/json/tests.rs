//! Reading, writing, and both.

use super::parse::{MEMORY_MAX, NESTING_MAX};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Everything in `text`, fed in pieces of `size`. Mistakes are `None`.
fn messages_in(text: &[u8], size: usize) -> Vec<Option<Value>> {
    let mut parser = Parser::new();
    let mut all = Vec::new();
    for mut piece in text.chunks(size) {
        while let (used, Some(message)) = parser.parse(piece) {
            all.push(message.ok());
            piece = &piece[used..];
        }
    }
    all
}

fn messages(text: impl AsRef<[u8]>) -> Vec<Option<Value>> {
    messages_in(text.as_ref(), usize::MAX)
}

fn one(text: &str) -> Value {
    let mut all = messages(format!("[{text}]"));
    assert_eq!(all.len(), 1, "{text}");
    match all.remove(0) {
        Some(Value::Array(mut items)) if items.len() == 1 => items.remove(0),
        other => panic!("{text}: {other:?}"),
    }
}

fn written(value: &Value, pretty: bool) -> String {
    let mut out = Vec::new();
    write(&mut out, value, pretty);
    String::from_utf8(out).unwrap()
}

#[test]
fn scalars() {
    for (text, expected) in [
        ("0", json!(0)),
        ("-0", json!(0)),
        ("-12", json!(-12)),
        ("9223372036854775807", json!(i64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("9223372036854775808", json!(9_223_372_036_854_775_808.0)),
        ("1e5", json!(1e5)),
        ("0.5", json!(0.5)),
        ("-1.25E-2", json!(-0.0125)),
        ("true", json!(true)),
        ("false", json!(false)),
        (r#""a""#, json!("a")),
        (r#"'a"b'"#, json!("a\"b")),
        (r#""a'b""#, json!("a'b")),
        (r#"'\'\"\\\/\b\f\n\r\t'"#, json!("'\"\\/\u{8}\u{c}\n\r\t")),
        (r#""\'""#, json!("'")),
        (r#"'\\'"#, json!("\\")),
        ("\"a\nb\u{1}\"", json!("a\nb\u{1}")),
        (r#""\u00e9\u20AC""#, json!("é€")),
        (r#""\ud83d\uDE00""#, json!("😀")),
        ("\"é€😀\"", json!("é€😀")),
        ("{}", json!({})),
        ("[ ]", json!([])),
        ("{'a': 1, \"b\": [1, {'c': 'd'}], 'a': 2}", json!({"a": 2, "b": [1, {"c": "d"}]})),
    ] {
        assert_eq!(one(text), expected, "{text}");
    }
}

/// Mistakes that end with the bracket: one error, and the next value is read.
#[test]
fn mistakes_of_grammar_give_one_error() {
    for text in [
        "[null]",
        "[nul]",
        "[1 2]",
        "[1,]",
        "[,]",
        "{,}",
        "{'a'}",
        "{'a':}",
        "{'a' 1}",
        "{1: 2}",
        "{'a': 1,}",
        "{'a': 1 'b': 2}",
        "[%d]",
        "[%I64d]",
        "{]",
        "[}",
        "]",
        "}",
        ",",
        ":",
        "[:]",
        "{true: 1}",
        r#"["\ud83d"]"#,
        r#"["\ude00"]"#,
        r#"["\ud83d\n"]"#,
        r#"["\ud83dx"]"#,
        r#"["\ud83d\ud83d"]"#,
        r#"["\u0000"]"#,
        "[1e999]",
        "{[]: 1}",
        "null ",
        "nonsense ",
        "%d ",
    ] {
        assert_eq!(messages(format!("{text}[1]")), [None, Some(json!([1]))], "{text}");
    }
    for bytes in [&b"['\x80']"[..], b"['\xc3']", b"['\xed\xa0\x80']", b"['\xf4\x90\x80\x80']"] {
        assert_eq!(messages(bytes), [None], "{bytes:?}");
    }
}

/// Bytes that fit nowhere give an error at once, and reading starts afresh.
#[test]
fn wrong_bytes_give_an_error_each() {
    assert_eq!(messages("HELLO\r\n[1]"), [None, None, None, None, None, Some(json!([1]))]);
    for byte in ["\\", "#", "A", "+", "(", "\0"] {
        assert_eq!(messages(format!("{byte}[1]")), [None, Some(json!([1]))], "{byte}");
    }
    for begun in ["", "{'a': ", "{'a': 'b", "[[[1, ", "['\\", "['\\u12", "{'a': tru", "[1.", "[12"]
    {
        let mut text = begun.as_bytes().to_vec();
        text.extend_from_slice(b"\xff{'b': 1}");
        assert_eq!(messages(&text), [None, Some(json!({"b": 1}))], "{begun}");
    }
    for (text, errors) in [("[01]", 3), ("[-]", 1), ("[1.]", 1), ("[1e]", 1), ("['\\x']", 3)] {
        let all = messages(text);
        assert!(!all.is_empty() && all.len() <= errors, "{text}: {all:?}");
        assert_eq!(all[0], None, "{text}");
    }
    assert_eq!(messages(b"['a\0")[0], None);
}

#[test]
fn scalars_outside_brackets_are_messages() {
    assert_eq!(messages("3 'x' true "), [Some(json!(3)), Some(json!("x")), Some(json!(true))]);
    assert_eq!(messages("3"), []);
}

#[test]
fn several_in_one_piece() {
    assert_eq!(
        messages("{'a': 1}{'b': 2}\r\n {'c': 3}"),
        [Some(json!({"a": 1})), Some(json!({"b": 2})), Some(json!({"c": 3}))]
    );
}

#[test]
fn nesting_is_limited() {
    let limit = NESTING_MAX as usize;
    let nest = |braces: usize, brackets: usize| {
        let inner = "[".repeat(brackets) + &"]".repeat(brackets);
        "{'a':".repeat(braces) + &inner + &"}".repeat(braces)
    };
    let fits = messages(nest(limit, limit));
    assert!(matches!(fits[..], [Some(Value::Object(_))]));
    // Written, too, on the stack of a test's thread.
    let text = written(fits[0].as_ref().unwrap(), true);
    assert_eq!(messages(text), fits);
    for text in [nest(limit + 1, 1), nest(0, limit + 1), nest(1_000_000, 1)] {
        assert_eq!(messages(text + "[1]"), [None, Some(json!([1]))]);
    }
}

#[test]
fn size_is_limited_without_being_held() {
    let piece = vec![b'a'; 1 << 20];
    let mut parser = Parser::new();
    assert_eq!(parser.parse(b"{'a': '"), (7, None));
    for _ in 0..MEMORY_MAX >> 20 {
        assert_eq!(parser.parse(&piece), (piece.len(), None));
    }
    // What was read is gone, although the end has not come yet.
    let held = format!("{parser:?}").len();
    assert!(held < 1000, "{held}");
    assert_eq!(parser.parse(b"'}"), (2, Some(Err(SyntaxError))));
    assert_eq!(parser.parse(b"[1]"), (3, Some(Ok(json!([1])))));

    let many = "[0".to_owned() + &",0".repeat(MEMORY_MAX / 160) + "]";
    assert_eq!(messages(many), [None]);
    let mega = format!("['{}']", "b".repeat(1 << 20));
    assert!(matches!(messages(mega)[..], [Some(_)]));
}

#[test]
fn writing() {
    let value = json!({"b": [1, -2, 0.5, 30.0, 1e-9, true], "a": {}, "c": []});
    assert_eq!(written(&value, false), r#"{"b": [1, -2, 0.5, 30, 0, true], "a": {}, "c": []}"#);
    assert_eq!(
        written(&value, true),
        "{\r\n    \"b\": [\r\n        1, \r\n        -2, \r\n        0.5, \r\n        30, \r\n        0, \r\n        true\r\n    ], \
         \r\n    \"a\": {\r\n    }, \r\n    \"c\": [\r\n    ]\r\n}"
    );
    assert_eq!(
        written(&json!("\"\\/\u{8}\u{c}\n\r\t\u{1}\u{7f}~é€😀"), false),
        r#""\"\\/\b\f\n\r\t\u0001\u007F~\u00E9\u20AC\uD83D\uDE00""#
    );
    assert_eq!(written(&json!(u64::MAX), false), "-1");
    assert_eq!(written(&json!(-0.25), false), "-0.25");
}

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000_000..1_000_000_i32).prop_map(|n| Value::from(f64::from(n) / 32.0 + 1.0 / 64.0)),
        "[^\0]*".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[^\0]{0,8}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Text that is more often nearly right than random bytes are.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "'", "\"", "\\", "\\u", "d83d", "de00", "true", "null",
            "-", "0", "12", ".", "e", " ", "\n", "%d", "'a'", "'a': 1", "A"
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..3),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in any_value(), pretty: bool) {
        // In brackets, because a number alone has no end.
        let text = written(&json!([value]), pretty);
        prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')));
        prop_assert_eq!(messages(text), [Some(json!([value]))]);
    }

    #[test]
    fn fragmentation_does_not_matter(text in any_text(), size in 1..9_usize) {
        prop_assert_eq!(messages_in(&text, size), messages(&text));
    }

    #[test]
    fn proper_json_is_read_as_others_do(value in any_value()) {
        let text = serde_json::to_vec(&json!([value])).unwrap();
        prop_assert_eq!(messages(text), [Some(json!([value]))]);
    }

    #[test]
    fn a_byte_ff_always_clears(text in any_text()) {
        let mut text = text;
        text.extend_from_slice(b"\xff{'a': 1}");
        let all = messages(&text);
        prop_assert_eq!(all.last(), Some(&Some(json!({"a": 1}))));
    }
}
