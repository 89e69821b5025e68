//! The reader: takes any fragments of text, gives whole values.
//!
//! It is more lenient than JSON where QEMU is: strings in single quotes, raw
//! control characters in strings, `\'` in either kind. It is stricter where
//! QEMU's laxness has no meaning: text must be UTF-8, a `\u` surrogate must have
//! its partner, and `\u0000` is refused. `null` is not a word of this protocol.
//!
//! A value ends with the bracket that closes it; a scalar outside brackets is a
//! value by itself. Two kinds of mistake are told apart, because clients resync
//! by them (a byte 0xFF ends whatever went before, with one error):
//! - a byte that can begin or continue no token: everything so far is dropped
//!   and reading starts afresh with the next byte;
//! - tokens in a wrong order, an unknown word, or a value over the limits: the
//!   rest is read to the closing bracket without being kept, and gives one
//!   error there.

use serde_json::{Map, Number, Value};

/// How many `{`, and how many `[`, may be open.
pub const NESTING_MAX: u32 = 1024;

/// What one value may take, in bytes of memory: a printable character counts
/// for two (as it is read, and in its place), any other for six (as it would be
/// echoed), and each value and name for its node. So 32 MiB of plain text
/// is the longest request; QEMU takes 64 MiB.
pub const MEMORY_MAX: usize = 64 << 20;

const SCALAR_COST: usize = 160;
const CONTAINER_COST: usize = 640;

/// The text was not JSON, or over the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError;

/// Reads values from text that comes in fragments.
#[derive(Debug, Default, PartialEq)]
pub struct Parser {
    token: Token,
    /// The decoded bytes of the token being read; empty while `tree.bad`.
    text: Vec<u8>,
    tree: Tree,
}

/// Where inside a token the last byte left off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Token {
    #[default]
    None,
    String(Quote, Inside),
    Minus,
    Zero,
    Digits,
    Dot,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    Word,
    /// A printf-like escape, which QEMU's lexer knows and no client may use.
    Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Single,
    Double,
}

/// Where inside a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Text,
    Backslash,
    /// After `\u`: digits so far, their value, and the high surrogate before.
    Unicode(u8, u16, Option<u16>),
    /// After a high surrogate, whose partner must follow.
    High(u16),
    /// After a high surrogate and a backslash.
    HighBackslash(u16),
}

/// What to do with a byte.
enum Step {
    /// It was taken.
    Taken,
    /// It was taken and the token is whole.
    Whole,
    /// The token is whole without it.
    Before,
    /// No token has it.
    Wrong,
}

impl Parser {
    /// A parser at the start of a value.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `input` up to the end of the first value or mistake, and tells how
    /// many bytes that took. `None`: all were taken and nothing is whole yet.
    pub fn parse(&mut self, input: &[u8]) -> (usize, Option<Result<Value, SyntaxError>>) {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            let step = self.step(byte);
            if !matches!(step, Step::Before) {
                used += 1;
            }
            let result = match step {
                Step::Taken => None,
                Step::Whole | Step::Before => self.finish_token(),
                Step::Wrong => {
                    *self = Self::default();
                    Some(Err(SyntaxError))
                }
            };
            if result.is_some() {
                return (used, result);
            }
        }
        (used, None)
    }

    fn step(&mut self, byte: u8) -> Step {
        let next = match (self.token, byte) {
            (Token::None, b' ' | b'\t' | b'\r' | b'\n') => return Step::Taken,
            (Token::None, b'{' | b'}' | b'[' | b']' | b',' | b':') => {
                self.text.push(byte);
                return Step::Whole;
            }
            (Token::None, b'"') => Token::String(Quote::Double, Inside::Text),
            (Token::None, b'\'') => Token::String(Quote::Single, Inside::Text),
            (Token::String(quote, inside), _) => return self.step_string(quote, inside, byte),

            (Token::None, b'-') => self.keep(byte, Token::Minus),
            (Token::None | Token::Minus, b'0') => self.keep(byte, Token::Zero),
            (Token::None | Token::Minus, b'1'..=b'9') => self.keep(byte, Token::Digits),
            (Token::Digits, b'0'..=b'9') => self.keep(byte, Token::Digits),
            (Token::Zero, b'0'..=b'9') => return Step::Wrong,
            (Token::Zero | Token::Digits, b'.') => self.keep(byte, Token::Dot),
            (Token::Dot | Token::Fraction, b'0'..=b'9') => self.keep(byte, Token::Fraction),
            (Token::Zero | Token::Digits | Token::Fraction, b'e' | b'E') => {
                self.keep(byte, Token::Exponent)
            }
            (Token::Exponent, b'+' | b'-') => self.keep(byte, Token::ExponentSign),
            (Token::Exponent | Token::ExponentSign | Token::ExponentDigits, b'0'..=b'9') => {
                self.keep(byte, Token::ExponentDigits)
            }

            (Token::None | Token::Word, b'a'..=b'z') => self.keep(byte, Token::Word),
            (Token::None, b'%') => Token::Template,
            (Token::Template, b'a'..=b'z' | b'I' | b'6' | b'4') => Token::Template,

            (
                Token::Zero
                | Token::Digits
                | Token::Fraction
                | Token::ExponentDigits
                | Token::Word
                | Token::Template,
                _,
            ) => return Step::Before,
            (
                Token::None | Token::Minus | Token::Dot | Token::Exponent | Token::ExponentSign,
                _,
            ) => return Step::Wrong,
        };
        self.token = next;
        Step::Taken
    }

    fn step_string(&mut self, quote: Quote, inside: Inside, byte: u8) -> Step {
        let inside = match (inside, byte) {
            (Inside::Text | Inside::High(_), b'"') if quote == Quote::Double => {
                self.unpaired(inside);
                return Step::Whole;
            }
            (Inside::Text | Inside::High(_), b'\'') if quote == Quote::Single => {
                self.unpaired(inside);
                return Step::Whole;
            }
            (Inside::Text, b'\\') => Inside::Backslash,
            (Inside::High(high), b'\\') => Inside::HighBackslash(high),
            // Bytes that UTF-8 never has are a client's way to start afresh.
            (Inside::Text | Inside::High(_), 0 | 0xC0 | 0xC1 | 0xF5..) => return Step::Wrong,
            (Inside::Text | Inside::High(_), _) => {
                self.unpaired(inside);
                self.keep_byte(byte);
                Inside::Text
            }
            (Inside::Backslash, b'u') => Inside::Unicode(0, 0, None),
            (Inside::HighBackslash(high), b'u') => Inside::Unicode(0, 0, Some(high)),
            (Inside::Backslash | Inside::HighBackslash(_), _) => {
                self.unpaired(inside);
                let c = match byte {
                    b'"' | b'\'' | b'\\' | b'/' => byte,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    _ => return Step::Wrong,
                };
                self.keep_byte(c);
                Inside::Text
            }
            (Inside::Unicode(digits, unit, high), _) => {
                let Some(digit) = char::from(byte).to_digit(16) else { return Step::Wrong };
                let unit = unit << 4 | (digit & 0xf) as u16;
                match digits {
                    0..=2 => Inside::Unicode(digits + 1, unit, high),
                    _ => self.code_unit(high, unit),
                }
            }
        };
        self.token = Token::String(quote, inside);
        Step::Taken
    }

    /// Takes in the UTF-16 code unit of a `\uXXXX`.
    fn code_unit(&mut self, high: Option<u16>, unit: u16) -> Inside {
        if high.is_none() && (0xD800..0xDC00).contains(&unit) {
            return Inside::High(unit);
        }
        let units = high.into_iter().chain([unit]);
        for c in char::decode_utf16(units) {
            match c {
                Ok(c) if c != '\0' => {
                    let mut bytes = [0; 4];
                    for &byte in c.encode_utf8(&mut bytes).as_bytes() {
                        self.keep_byte(byte);
                    }
                }
                _ => self.tree.spoil(),
            }
        }
        Inside::Text
    }

    /// A high surrogate that is not followed by its partner spoils the string.
    fn unpaired(&mut self, inside: Inside) {
        if matches!(inside, Inside::High(_) | Inside::HighBackslash(_)) {
            self.tree.spoil();
        }
    }

    fn keep(&mut self, byte: u8, token: Token) -> Token {
        self.keep_byte(byte);
        token
    }

    fn keep_byte(&mut self, byte: u8) {
        self.tree.charge(if matches!(byte, b' '..=b'~') { 2 } else { 6 });
        if self.tree.bad {
            self.text = Vec::new();
        } else {
            self.text.push(byte);
        }
    }

    /// Hands the whole token to the tree; gives the value it completes.
    fn finish_token(&mut self) -> Option<Result<Value, SyntaxError>> {
        let token = std::mem::take(&mut self.token);
        let text = std::mem::take(&mut self.text);
        match token {
            Token::None => self.tree.punctuation(text.first().copied().unwrap_or_default()),
            _ if self.tree.bad => {}
            Token::String(..) => match String::from_utf8(text) {
                Ok(text) => self.tree.string(text),
                Err(_) => self.tree.spoil(),
            },
            Token::Word => match text.as_slice() {
                b"true" => self.tree.value(Value::Bool(true)),
                b"false" => self.tree.value(Value::Bool(false)),
                _ => self.tree.spoil(),
            },
            Token::Template => self.tree.spoil(),
            _ => match number(&text) {
                Some(number) => self.tree.value(Value::Number(number)),
                None => self.tree.spoil(),
            },
        }
        self.tree.take_whole()
    }
}

/// An integer of 64 bits, or else a float; `None` if not even that can hold it.
fn number(text: &[u8]) -> Option<Number> {
    let text = std::str::from_utf8(text).ok()?;
    match text.parse::<i64>() {
        Ok(n) => Some(n.into()),
        Err(_) => Number::from_f64(text.parse().ok()?),
    }
}

/// The value that grows as tokens come.
#[derive(Debug, Default, PartialEq)]
struct Tree {
    /// What is open, outermost first.
    open: Vec<Node>,
    /// The outermost value, once it is whole.
    whole: Option<Value>,
    /// Nothing is kept any more; the end of the text gives an error.
    bad: bool,
    braces: u32,
    brackets: u32,
    /// A closing brace or bracket had nothing to close.
    orphan: bool,
    memory: usize,
}

/// A container that is being filled.
#[derive(Debug, PartialEq)]
enum Node {
    Array { items: Vec<Value>, expect: InArray },
    Object { members: Map<String, Value>, name: String, expect: InObject },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InArray {
    ValueOrEnd,
    Value,
    CommaOrEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InObject {
    NameOrEnd,
    Name,
    Colon,
    Value,
    CommaOrEnd,
}

impl Tree {
    fn spoil(&mut self) {
        self.bad = true;
        self.whole = None;
        self.open = Vec::new();
    }

    fn charge(&mut self, bytes: usize) {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MEMORY_MAX && !self.bad {
            self.spoil();
        }
    }

    /// The value, or the mistake, if the brackets say that this is the end.
    fn take_whole(&mut self) -> Option<Result<Value, SyntaxError>> {
        if !self.orphan && (self.braces > 0 || self.brackets > 0) {
            return None;
        }
        let tree = std::mem::take(self);
        match tree.whole {
            Some(value) if !tree.bad && !tree.orphan => Some(Ok(value)),
            _ => Some(Err(SyntaxError)),
        }
    }

    fn punctuation(&mut self, byte: u8) {
        match byte {
            b'{' => {
                self.braces = self.braces.saturating_add(1);
                self.enter(
                    self.braces,
                    Node::Object {
                        members: Map::new(),
                        name: String::new(),
                        expect: InObject::NameOrEnd,
                    },
                );
            }
            b'[' => {
                self.brackets = self.brackets.saturating_add(1);
                self.enter(
                    self.brackets,
                    Node::Array { items: Vec::new(), expect: InArray::ValueOrEnd },
                );
            }
            b'}' => match self.braces.checked_sub(1) {
                Some(braces) => {
                    self.braces = braces;
                    self.leave(true);
                }
                None => self.orphan = true,
            },
            b']' => match self.brackets.checked_sub(1) {
                Some(brackets) => {
                    self.brackets = brackets;
                    self.leave(false);
                }
                None => self.orphan = true,
            },
            b',' => match self.open.last_mut() {
                Some(Node::Array { expect: expect @ InArray::CommaOrEnd, .. }) => {
                    *expect = InArray::Value;
                }
                Some(Node::Object { expect: expect @ InObject::CommaOrEnd, .. }) => {
                    *expect = InObject::Name;
                }
                _ => self.spoil(),
            },
            _ => match self.open.last_mut() {
                Some(Node::Object { expect: expect @ InObject::Colon, .. }) => {
                    *expect = InObject::Value;
                }
                _ => self.spoil(),
            },
        }
    }

    fn enter(&mut self, depth: u32, node: Node) {
        self.charge(CONTAINER_COST);
        let allowed = match self.open.last() {
            None => true,
            Some(Node::Array { expect, .. }) => *expect != InArray::CommaOrEnd,
            Some(Node::Object { expect, .. }) => *expect == InObject::Value,
        };
        if depth > NESTING_MAX || !allowed {
            self.spoil();
        }
        if !self.bad {
            self.open.push(node);
        }
    }

    fn leave(&mut self, brace: bool) {
        if self.bad {
            return;
        }
        match self.open.pop() {
            Some(Node::Object { members, expect, .. })
                if brace && matches!(expect, InObject::NameOrEnd | InObject::CommaOrEnd) =>
            {
                self.place(Value::Object(members));
            }
            Some(Node::Array { items, expect })
                if !brace && matches!(expect, InArray::ValueOrEnd | InArray::CommaOrEnd) =>
            {
                self.place(Value::Array(items));
            }
            _ => self.spoil(),
        }
    }

    /// A string: a value, or the name of a member.
    fn string(&mut self, text: String) {
        match self.open.last_mut() {
            Some(Node::Object { name, expect, .. })
                if matches!(expect, InObject::NameOrEnd | InObject::Name) =>
            {
                *name = text;
                *expect = InObject::Colon;
                self.charge(SCALAR_COST);
            }
            _ => self.value(Value::String(text)),
        }
    }

    fn value(&mut self, value: Value) {
        self.charge(SCALAR_COST);
        if !self.bad {
            self.place(value);
        }
    }

    /// Puts a whole value where it belongs.
    fn place(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.whole = Some(value),
            Some(Node::Array { items, expect }) if *expect != InArray::CommaOrEnd => {
                items.push(value);
                *expect = InArray::CommaOrEnd;
            }
            Some(Node::Object { members, name, expect }) if *expect == InObject::Value => {
                members.insert(std::mem::take(name), value);
                *expect = InObject::CommaOrEnd;
            }
            Some(_) => self.spoil(),
        }
    }
}
