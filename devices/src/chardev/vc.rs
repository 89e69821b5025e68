//! A text screen: what a terminal would show of the output.
//!
//! Any thread, a leaf mutex. It understands new lines, tabs, backspaces and the sequences that move
//! the cursor and clear; others are skipped, so that the text stays readable. A guest can write what
//! it likes: the screen has a fixed size.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::port::{Port, Sink};
use super::{CharError, Extra, Size};

/// A character's size in pixels.
const CELL: (u64, u64) = (8, 16);

/// The largest number of columns and of rows.
const MOST: u64 = 1000;

/// Numbers in one control sequence that count.
const PARAMETERS: usize = 4;

/// Options of the vc back end: a size in pixels, or in characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vc {
    /// Width in pixels.
    pub width: Option<u64>,
    /// Height in pixels.
    pub height: Option<u64>,
    /// Width in characters.
    pub cols: Option<u64>,
    /// Height in characters.
    pub rows: Option<u64>,
}

impl Vc {
    pub(super) fn open(self, port: &Arc<Port>) -> Result<(), CharError> {
        let size = |chars: Option<u64>, pixels: Option<u64>, cell: u64, usual: u64| {
            let size = chars.or(pixels.and_then(|pixels| pixels.checked_div(cell)));
            usize::try_from(size.unwrap_or(usual).clamp(1, MOST)).unwrap_or(1)
        };
        let cols = size(self.cols, self.width, CELL.0, 80);
        let rows = size(self.rows, self.height, CELL.1, 24);
        let screen = Arc::new(Screen(Mutex::new(Text::new(cols, rows))));
        let _ = port.extra.set(Extra::Screen(screen.clone()));
        port.opened(Box::new(VcSink(screen)));
        Ok(())
    }
}

/// What a text screen shows.
pub struct Screen(Mutex<Text>);

impl Screen {
    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let text = self.0.lock();
        (text.cols, text.lines.len())
    }

    /// The lines from the top, without the blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        let text = self.0.lock();
        let line = |line: &Vec<u8>| {
            line.iter().map(|byte| char::from(*byte)).collect::<String>().trim_end().to_owned()
        };
        text.lines.iter().map(line).collect()
    }
}

struct VcSink(Arc<Screen>);

impl Sink for VcSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut text = self.0.0.lock();
        data.iter().for_each(|byte| text.put(*byte));
        Ok(data.len())
    }

    fn size(&self) -> Option<Size> {
        let (cols, rows) = self.0.size();
        Some(Size { cols: cols.try_into().ok()?, rows: rows.try_into().ok()? })
    }
}

/// Where in a control sequence the output is.
enum State {
    Text,
    /// After ESC.
    Escape,
    /// After ESC `[`.
    Control {
        parameters: [usize; PARAMETERS],
        count: usize,
    },
}

struct Text {
    cols: usize,
    lines: Vec<Vec<u8>>,
    /// The cursor; the column may be one past the last.
    x: usize,
    y: usize,
    state: State,
}

impl Text {
    fn new(cols: usize, rows: usize) -> Text {
        Text { cols, lines: vec![vec![b' '; cols]; rows], x: 0, y: 0, state: State::Text }
    }

    fn put(&mut self, byte: u8) {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.put_text(byte),
            State::Escape if byte == b'[' => {
                self.state = State::Control { parameters: [0; PARAMETERS], count: 0 };
            }
            State::Escape => {}
            State::Control { mut parameters, mut count } => {
                match byte {
                    b'0'..=b'9' => {
                        if let Some(number) = parameters.get_mut(count) {
                            let digit = usize::from(byte.saturating_sub(b'0'));
                            *number = number.saturating_mul(10).saturating_add(digit).min(9999);
                        }
                    }
                    b';' => count = count.saturating_add(1).min(PARAMETERS),
                    b'@'..=b'~' => return self.control(byte, parameters),
                    _ => {}
                }
                self.state = State::Control { parameters, count };
            }
        }
    }

    fn put_text(&mut self, byte: u8) {
        match byte {
            b'\r' => self.x = 0,
            b'\n' => self.new_line(),
            8 => self.x = self.x.saturating_sub(1),
            b'\t' => self.x = (self.x | 7).saturating_add(1).min(self.cols.saturating_sub(1)),
            0x1b => self.state = State::Escape,
            0..=0x1f | 0x7f => {}
            _ => {
                if self.x >= self.cols {
                    self.x = 0;
                    self.new_line();
                }
                if let Some(cell) = self.lines.get_mut(self.y).and_then(|l| l.get_mut(self.x)) {
                    *cell = byte;
                }
                self.x = self.x.saturating_add(1);
            }
        }
    }

    fn new_line(&mut self) {
        if self.y.saturating_add(1) < self.lines.len() {
            self.y = self.y.saturating_add(1);
        } else if let Some(first) = self.lines.first_mut() {
            first.fill(b' ');
            self.lines.rotate_left(1);
        }
    }

    /// A control sequence of ECMA-48, as far as it moves the cursor or clears.
    fn control(&mut self, end: u8, parameters: [usize; PARAMETERS]) {
        let [first, second, ..] = parameters;
        let steps = first.max(1);
        match end {
            b'A' => self.y = self.y.saturating_sub(steps),
            b'B' => self.y = self.y.saturating_add(steps),
            b'C' => self.x = self.x.saturating_add(steps),
            b'D' => self.x = self.x.saturating_sub(steps),
            b'G' => self.x = first.saturating_sub(1),
            b'H' | b'f' => {
                self.y = first.saturating_sub(1);
                self.x = second.saturating_sub(1);
            }
            b'J' => {
                let line = self.y.min(self.lines.len());
                let (above, below) = self.lines.split_at_mut(line);
                if first > 0 {
                    above.iter_mut().for_each(|line| line.fill(b' '));
                }
                if first != 1 {
                    let whole = below.iter_mut().skip(1);
                    whole.for_each(|line| line.fill(b' '));
                }
                self.clear_line(first);
            }
            b'K' => self.clear_line(first),
            _ => {}
        }
        self.x = self.x.min(self.cols.saturating_sub(1));
        self.y = self.y.min(self.lines.len().saturating_sub(1));
    }

    /// From the cursor (0), up to it (1), or all (2).
    fn clear_line(&mut self, what: usize) {
        let x = self.x.min(self.cols.saturating_sub(1));
        let range = match what {
            0 => x..self.cols,
            1 => 0..x.saturating_add(1),
            _ => 0..self.cols,
        };
        if let Some(part) = self.lines.get_mut(self.y).and_then(|line| line.get_mut(range)) {
            part.fill(b' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(cols: usize, rows: usize, data: &[u8]) -> Vec<String> {
        let screen = Arc::new(Screen(Mutex::new(Text::new(cols, rows))));
        VcSink(screen.clone()).write(data).unwrap();
        screen.lines()
    }

    #[test]
    fn text_wraps_and_scrolls() {
        assert_eq!(shown(4, 3, b"ab\r\ncdefgh\r\n\ti"), ["cdef", "gh", "   i"]);
        assert_eq!(shown(4, 2, b"ab\x08x\rA"), ["Ax", ""]);
    }

    #[test]
    fn sequences_move_and_clear() {
        assert_eq!(shown(8, 2, b"hello\x1b[2J\x1b[1;1Hbye\x1b[1;31m!"), ["bye!", ""]);
        assert_eq!(shown(8, 2, b"abcdef\x1b[3D\x1b[K\x1b[B.\x1b[A\x1b[99Cz"), ["abc    z", "   ."]);
        assert_eq!(shown(8, 2, b"ab\x1b[1Kc\x1b[?25h\x1bMd"), ["  cd", ""]);
    }

    proptest! {
        #[test]
        fn any_output_is_survived(
            data in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), b'0'..=b'K'], 0..300),
            cols in 1usize..5, rows in 1usize..4,
        ) {
            let lines = shown(cols, rows, &data);
            prop_assert_eq!(lines.len(), rows);
        }
    }
}
