//! The line that a user of the human monitor types, on a terminal that is the user's own.
//!
//! A pure state machine on the main thread: bytes in, echo and whole lines out. The bytes are a
//! client's: a line is at most [`MAX_LINE`] long, and what is echoed for a byte no more than the
//! line. Columns are counted as one for each character.

use std::collections::VecDeque;
use std::ops::Range;

/// What stands before the line.
pub const PROMPT: &str = "(qemu) ";

/// The longest line in bytes; what is typed beyond is lost.
pub const MAX_LINE: usize = 4095;

/// How many lines are kept to be recalled.
const MAX_HISTORY: usize = 64;

/// The lines that were entered, oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<String>);

impl History {
    /// Adds a line as the last one. It is there once.
    pub fn add(&mut self, line: &str) {
        if !line.is_empty() {
            self.0.retain(|known| known != line);
            self.0.push_back(line.to_owned());
            if self.0.len() > MAX_HISTORY {
                self.0.pop_front();
            }
        }
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What a key has brought about.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// The line goes on.
    Nothing,
    /// The line is whole.
    Line(String),
    /// Words are asked for that go on from here; [`Editor::complete`] takes them.
    Complete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Text,
    /// After a carriage return: a line feed or zero that belongs to it is dropped.
    Return,
    Escape,
    /// In a control sequence, with its first number.
    Sequence(u8),
    /// After `ESC O`.
    Function,
}

/// The line being typed.
#[derive(Debug, Default)]
pub struct Editor {
    line: Vec<u8>,
    /// The cursor, in bytes.
    at: usize,
    mode: Mode,
    /// How far back in the history the line is from, 0 for a new one, which is kept here meanwhile.
    back: usize,
    draft: Vec<u8>,
}

/// Whether a byte begins a character.
fn begins(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

fn columns(text: &[u8]) -> usize {
    text.iter().filter(|byte| begins(**byte)).count()
}

impl Editor {
    /// Shows the prompt, and the line as far as it has been typed.
    pub fn show(&self, echo: &mut Vec<u8>) {
        echo.extend_from_slice(PROMPT.as_bytes());
        echo.extend_from_slice(&self.line);
        self.move_terminal(self.line.len(), self.at, echo);
    }

    /// What has been typed before the cursor.
    pub fn before_cursor(&self) -> String {
        String::from_utf8_lossy(self.slice(0..self.at)).into_owned()
    }

    /// Takes a byte; what the terminal is to show is added to `echo`.
    pub fn key(&mut self, byte: u8, history: &History, echo: &mut Vec<u8>) -> Typed {
        match std::mem::take(&mut self.mode) {
            Mode::Return if matches!(byte, b'\n' | 0) => {}
            Mode::Text | Mode::Return => return self.text_key(byte, history, echo),
            Mode::Escape => {
                self.mode = match byte {
                    b'[' => Mode::Sequence(0),
                    b'O' => Mode::Function,
                    _ => Mode::Text,
                }
            }
            Mode::Sequence(number) => match byte {
                b'0'..=b'9' => {
                    let digit = byte.wrapping_sub(b'0');
                    self.mode = Mode::Sequence(number.saturating_mul(10).saturating_add(digit));
                }
                b'~' => match number {
                    1 | 7 => self.move_to(0, echo),
                    3 => self.delete(self.at..self.after(), echo),
                    4 | 8 => self.move_to(self.line.len(), echo),
                    _ => {}
                },
                0x40..=0x7e => self.cursor_key(byte, history, echo),
                // The rest of a sequence of which the end is not seen yet.
                0x20..=0x3f => self.mode = Mode::Sequence(u8::MAX),
                _ => {}
            },
            Mode::Function => self.cursor_key(byte, history, echo),
        }
        Typed::Nothing
    }

    fn text_key(&mut self, byte: u8, history: &History, echo: &mut Vec<u8>) -> Typed {
        match byte {
            b'\r' | b'\n' => {
                if byte == b'\r' {
                    self.mode = Mode::Return;
                }
                echo.extend_from_slice(b"\r\n");
                let line = String::from_utf8_lossy(&self.line).into_owned();
                *self = Editor { mode: self.mode, ..Editor::default() };
                return Typed::Line(line);
            }
            b'\t' => return Typed::Complete,
            0x1b => self.mode = Mode::Escape,
            // Control keys, by their letters.
            0x01 => self.move_to(0, echo),
            0x02 => self.move_to(self.before(), echo),
            0x04 => self.delete(self.at..self.after(), echo),
            0x05 => self.move_to(self.line.len(), echo),
            0x06 => self.move_to(self.after(), echo),
            0x08 | 0x7f => self.delete(self.before()..self.at, echo),
            0x0b => self.delete(self.at..self.line.len(), echo),
            0x0e => self.recall(self.back.saturating_sub(1), history, echo),
            0x10 => self.recall(self.back.saturating_add(1), history, echo),
            0x15 => self.delete(0..self.at, echo),
            0x17 => self.delete(self.word_before()..self.at, echo),
            0x00..0x20 => {}
            _ => self.insert(&[byte], echo),
        }
        Typed::Nothing
    }

    fn cursor_key(&mut self, byte: u8, history: &History, echo: &mut Vec<u8>) {
        match byte {
            b'A' => self.recall(self.back.saturating_add(1), history, echo),
            b'B' => self.recall(self.back.saturating_sub(1), history, echo),
            b'C' => self.move_to(self.after(), echo),
            b'D' => self.move_to(self.before(), echo),
            b'H' => self.move_to(0, echo),
            b'F' => self.move_to(self.line.len(), echo),
            _ => {}
        }
    }

    /// Puts the line in its place that was entered `back` lines ago, if there is one.
    fn recall(&mut self, back: usize, history: &History, echo: &mut Vec<u8>) {
        let line = match back {
            0 => std::mem::take(&mut self.draft),
            _ => match history.0.iter().nth_back(back.saturating_sub(1)) {
                Some(line) => line.as_bytes().to_vec(),
                None => return,
            },
        };
        let old = std::mem::replace(&mut self.back, back);
        if old == 0 && back != 0 {
            self.draft.clone_from(&self.line);
        } else if old == back {
            self.draft = line;
            return;
        }
        self.replace(0..self.line.len(), &line, echo);
    }

    /// Takes the words that could stand where what is typed begins `typed` bytes before the
    /// cursor. One is filled in; of several what they have in common, and if that is nothing new
    /// they are listed.
    pub fn complete(&mut self, typed: usize, words: &[String], echo: &mut Vec<u8>) {
        let Some(first) = words.first() else { return };
        let common = words.iter().fold(first.as_str(), |common, word| {
            let same = common.char_indices().zip(word.chars());
            let end = same.take_while(|((_, a), b)| a == b).last();
            let end = end.map_or(0, |((at, same), _)| at.saturating_add(same.len_utf8()));
            common.get(..end).unwrap_or_default()
        });
        let mut new = common.as_bytes().get(typed..).unwrap_or_default().to_vec();
        if words.len() == 1 && !common.ends_with(['/', '=']) {
            new.push(b' ');
        }
        if !new.is_empty() {
            return self.insert(&new, echo);
        }
        echo.extend_from_slice(b"\r\n");
        let width = words.iter().map(|word| word.chars().count()).max().unwrap_or(0);
        let width = width.saturating_add(2).clamp(10, 80);
        let per_line = 80usize.checked_div(width).unwrap_or(1).max(1);
        for line in words.chunks(per_line) {
            let cells: String = line.iter().map(|word| format!("{word:<width$}")).collect();
            echo.extend_from_slice(cells.trim_end().as_bytes());
            echo.extend_from_slice(b"\r\n");
        }
        self.show(echo);
    }

    fn insert(&mut self, text: &[u8], echo: &mut Vec<u8>) {
        self.replace(self.at..self.at, text, echo);
    }

    fn delete(&mut self, range: Range<usize>, echo: &mut Vec<u8>) {
        if !range.is_empty() {
            self.replace(range, &[], echo);
        }
    }

    /// Changes a part of the line; the cursor is behind it afterwards.
    fn replace(&mut self, range: Range<usize>, text: &[u8], echo: &mut Vec<u8>) {
        let Range { start, end } = range;
        if start > end || end > self.line.len() {
            return;
        }
        let room = MAX_LINE.saturating_sub(self.line.len().saturating_sub(end.abs_diff(start)));
        let text = text.get(..room.min(text.len())).unwrap_or_default();
        self.move_to(start, echo);
        self.line.splice(start..end, text.iter().copied());
        echo.extend_from_slice(self.slice(start..self.line.len()));
        if start != end {
            echo.extend_from_slice(b"\x1b[K");
        }
        self.at = start.saturating_add(text.len());
        self.move_terminal(self.line.len(), self.at, echo);
    }

    fn move_to(&mut self, to: usize, echo: &mut Vec<u8>) {
        self.move_terminal(self.at, to, echo);
        self.at = to;
    }

    fn move_terminal(&self, from: usize, to: usize, echo: &mut Vec<u8>) {
        let count = columns(self.slice(from.min(to)..from.max(to)));
        let direction = if to < from { 'D' } else { 'C' };
        match count {
            0 => {}
            1 => echo.extend_from_slice(format!("\x1b[{direction}").as_bytes()),
            _ => echo.extend_from_slice(format!("\x1b[{count}{direction}").as_bytes()),
        }
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        self.line.get(range).unwrap_or_default()
    }

    /// Where the character before the cursor begins.
    fn before(&self) -> usize {
        self.slice(0..self.at).iter().rposition(|byte| begins(*byte)).unwrap_or(0)
    }

    /// Where the character at the cursor ends.
    fn after(&self) -> usize {
        let rest = self.slice(self.at..self.line.len());
        let length = rest.iter().skip(1).position(|byte| begins(*byte));
        length.map_or(self.line.len(), |length| self.at.saturating_add(length).saturating_add(1))
    }

    /// Where the word before the cursor begins.
    fn word_before(&self) -> usize {
        let typed = self.slice(0..self.at);
        let end = typed.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at.saturating_add(1));
        let blank = self.slice(0..end).iter().rposition(|byte| *byte == b' ');
        blank.map_or(0, |at| at.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A terminal of one line that understands what is echoed.
    #[derive(Default)]
    struct Screen {
        line: Vec<char>,
        at: usize,
    }

    impl Screen {
        fn show(&mut self, echo: &[u8]) {
            let text = String::from_utf8_lossy(echo).into_owned();
            let mut chars = text.chars().peekable();
            while let Some(c) = chars.next() {
                match c {
                    '\x1b' => {
                        assert_eq!(chars.next(), Some('['));
                        let mut count = String::new();
                        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                            count.push(digit);
                        }
                        let count = count.parse().unwrap_or(1);
                        match chars.next() {
                            Some('K') => self.line.truncate(self.at),
                            Some('C') => self.at += count,
                            Some('D') => self.at -= count,
                            other => panic!("the terminal is sent {other:?}"),
                        }
                    }
                    '\r' | '\n' => {
                        self.line.clear();
                        self.at = 0;
                    }
                    c => {
                        assert!(self.at <= self.line.len());
                        self.line.truncate(self.line.len().max(self.at));
                        match self.line.get_mut(self.at) {
                            Some(place) => *place = c,
                            None => self.line.push(c),
                        }
                        self.at += 1;
                    }
                }
            }
        }
    }

    /// Types, and gives the line with `|` for the cursor; what the screen shows is compared.
    fn type_in(keys: &str, history: &[&str]) -> (String, Vec<String>) {
        let mut known = History::default();
        history.iter().for_each(|line| known.add(line));
        let (mut editor, mut screen, mut lines) = (Editor::default(), Screen::default(), vec![]);
        for byte in keys.bytes() {
            let mut echo = Vec::new();
            if let Typed::Line(line) = editor.key(byte, &known, &mut echo) {
                lines.push(line);
            }
            // Bytes of one character are echoed one by one.
            if byte.is_ascii() {
                screen.show(&echo);
                let shown: String = screen.line.iter().collect();
                assert_eq!(shown.as_bytes(), editor.line, "after {byte:#x} of {keys:?}");
                assert_eq!(screen.at, columns(&editor.line[..editor.at]));
            }
        }
        let (left, right) = editor.line.split_at(editor.at);
        let line = [left, b"|", right].concat();
        (String::from_utf8_lossy(&line).into_owned(), lines)
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, line) in [
            ("abc", "abc|"),
            ("abc\x01", "|abc"),
            ("abc\x01x\x05y", "xabcy|"),
            ("abc\x7f\x08", "a|"),
            ("\x7f\x04", "|"),
            ("abc\x1b[D\x1b[D\x04", "a|c"),
            ("abc\x1b[D\x1b[D\x1b[C\x1b[CX", "abcX|"),
            ("abc\x1b[H1\x1b[F2", "1abc2|"),
            ("abc\x1b[1~1\x1b[4~2\x1b[7~3\x1b[8~4", "31abc24|"),
            ("abc\x1bOH1\x1bOF2", "1abc2|"),
            ("abc\x01\x1b[3~", "|bc"),
            ("one two  \x17", "one |"),
            ("one two\x17\x17\x17", "|"),
            ("one two\x02\x02\x0b", "one t|"),
            ("one two\x02\x02\x15", "|wo"),
            ("a\x1b[1;5Cb\x1b[200~c\x1bxd\x1b[\x07e", "abcde|"),
            ("a\x00\x03\x0cb", "ab|"),
        ] {
            assert_eq!(type_in(keys, &[]).0, line, "{keys:?}");
        }
    }

    #[test]
    fn a_character_of_several_bytes_is_one() {
        let mut editor = Editor::default();
        let history = History::default();
        for byte in "a\u{e9}\u{20ac}\x7f\x02X".bytes() {
            editor.key(byte, &history, &mut Vec::new());
        }
        assert_eq!(editor.line, "aX\u{e9}".as_bytes());
    }

    #[test]
    fn lines_are_handed_over() {
        for keys in ["a\rb\r", "a\nb\n", "a\r\nb\r\n", "a\r\0b\r\0"] {
            let (line, lines) = type_in(keys, &[]);
            assert_eq!((line.as_str(), lines), ("|", vec!["a".to_owned(), "b".to_owned()]));
        }
        assert_eq!(type_in("\n\n", &[]).1, ["", ""]);
        assert_eq!(type_in("ac\x1b[Db\r", &[]).1, ["abc"]);
    }

    #[test]
    fn what_was_entered_is_recalled() {
        let known = ["one", "two", "three", "two"];
        for (keys, line) in [
            ("\x1b[A", "two|"),
            ("\x1b[A\x1b[A", "three|"),
            ("\x1b[A\x1b[A\x1b[A\x1b[A", "one|"),
            ("new\x1b[A\x1b[A\x1b[B\x1b[B", "new|"),
            ("new\x1b[B", "new|"),
            ("\x10\x10\x0e!", "two!|"),
            ("x\x1b[A\x1b[A\rab", "ab|"),
        ] {
            assert_eq!(type_in(keys, &known).0, line, "{keys:?}");
        }
        assert_eq!(type_in("abc\x1b[A", &[]).0, "abc|");
        let mut history = History::default();
        (0..100).for_each(|number| history.add(&number.to_string()));
        assert_eq!(history.lines().next(), Some("36"));
        assert_eq!(history.lines().count(), MAX_HISTORY);
    }

    #[test]
    fn words_complete_what_is_typed() {
        let complete = |line: &str, typed, words: &[&str]| {
            let mut editor = Editor::default();
            let (history, mut echo) = (History::default(), Vec::new());
            line.bytes().for_each(|byte| drop(editor.key(byte, &history, &mut Vec::new())));
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            editor.complete(typed, &words, &mut echo);
            (editor.before_cursor(), String::from_utf8(echo).unwrap())
        };
        let is = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(complete("sys", 3, &[]), is("sys", ""));
        assert_eq!(complete("st", 2, &["stop"]), is("stop ", "op "));
        assert_eq!(complete("a /t", 2, &["/tmp/"]), is("a /tmp/", "mp/"));
        assert_eq!(complete("s", 1, &["system_reset", "system_wakeup"]), is("system_", "ystem_"));
        assert_eq!(
            complete("system_", 7, &["system_reset", "system_wakeup"]),
            is("system_", "\r\nsystem_reset   system_wakeup\r\n(qemu) system_")
        );
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let mut editor = Editor::default();
        for _ in 0..2 * MAX_LINE {
            editor.key(b'a', &History::default(), &mut Vec::new());
        }
        assert_eq!(editor.line.len(), MAX_LINE);
    }

    proptest! {
        #[test]
        fn any_bytes_keep_the_line_sound(bytes: Vec<u8>) {
            let mut history = History::default();
            let mut editor = Editor::default();
            for byte in bytes {
                let mut echo = Vec::new();
                if let Typed::Line(line) = editor.key(byte, &history, &mut echo) {
                    history.add(&line);
                }
                prop_assert!(editor.at <= editor.line.len());
                editor.complete(0, &["ab".to_owned(), "ac".to_owned()], &mut echo);
            }
        }

        #[test]
        fn the_screen_shows_the_line(
            keys in "([ab ]|\x01|\x04|\x05|\x7f|\x0b|\x15|\x17|\x1b\\[[ABCDHF]|\x1b\\[3~){0,40}",
        ) {
            type_in(&keys, &["one two", "three"]);
        }
    }
}
