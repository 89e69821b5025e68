//! Expressions in arguments of the human monitor: `$pc+4*(2|'a')`.
//!
//! Pure functions on the main thread. The text is a client's: values wrap round, and what nests
//! deeper than `DEPTH` is refused.

use super::parse::Cursor;

/// How deep parentheses may nest.
const DEPTH: usize = 100;

/// Gives the value of a processor register by its name, or says why there is none.
pub type Registers<'a> = dyn FnMut(&str) -> Result<u64, String> + 'a;

/// Reads an expression; what stands behind the longest one is left. From loosest to tightest:
/// `+ -`, `& | ^`, `* / %`, then `+ - ~` before a value.
///
/// # Errors
/// One line for the user.
pub fn evaluate(text: &mut Cursor<'_>, registers: &mut Registers<'_>) -> Result<i64, String> {
    Evaluator { text, registers, depth: 0 }.sum()
}

struct Evaluator<'a, 'b, 'c, 'd> {
    text: &'a mut Cursor<'b>,
    registers: &'c mut Registers<'d>,
    depth: usize,
}

impl Evaluator<'_, '_, '_, '_> {
    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.logic()?;
        while let Some(operator) = self.operator(b"+-") {
            let right = self.logic()?;
            value = match operator {
                b'+' => value.wrapping_add(right),
                _ => value.wrapping_sub(right),
            };
        }
        Ok(value)
    }

    fn logic(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        while let Some(operator) = self.operator(b"&|^") {
            let right = self.product()?;
            match operator {
                b'&' => value &= right,
                b'|' => value |= right,
                _ => value ^= right,
            }
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.unary()?;
        while let Some(operator) = self.operator(b"*/%") {
            let right = self.unary()?;
            value = match operator {
                b'*' => value.wrapping_mul(right),
                _ if right == 0 => return Err("division by zero".to_owned()),
                b'/' => value.wrapping_div(right),
                _ => value.wrapping_rem(right),
            };
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<i64, String> {
        // Signs in a row would otherwise nest as deep as they are many: each is `a * x + b`.
        let (mut factor, mut offset) = (1i64, 0i64);
        while let Some(sign) = self.operator(b"+-~") {
            if sign != b'+' {
                factor = factor.wrapping_neg();
            }
            if sign == b'~' {
                // ~x is -x - 1, under what was read before it.
                offset = offset.wrapping_add(factor);
            }
        }
        let value = self.value()?;
        Ok(factor.wrapping_mul(value).wrapping_add(offset))
    }

    fn value(&mut self) -> Result<i64, String> {
        match self.text.peek() {
            None => Err("unexpected end of expression".to_owned()),
            Some(b'(') => {
                self.next();
                if self.depth == DEPTH {
                    return Err(format!("expression nests deeper than {DEPTH}"));
                }
                self.depth += 1;
                let value = self.sum()?;
                self.depth -= 1;
                if self.text.peek() != Some(b')') {
                    return Err("')' expected".to_owned());
                }
                self.next();
                Ok(value)
            }
            Some(b'\'') => {
                self.text.bump();
                let Some(value) = self.text.bump() else {
                    return Err("character constant expected".to_owned());
                };
                if self.text.peek() != Some(b'\'') {
                    return Err("missing terminating ' character".to_owned());
                }
                self.next();
                Ok(value.into())
            }
            Some(b'$') => {
                self.text.bump();
                let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
                let name = self.text.take_while(part);
                let value = (self.registers)(&name)?;
                self.text.skip_blanks();
                Ok(value as i64)
            }
            Some(other) => self.number(other),
        }
    }

    /// A number as C writes it.
    fn number(&mut self, first: u8) -> Result<i64, String> {
        if !first.is_ascii_digit() {
            return Err(format!("invalid char '{}' in expression", char::from(first)));
        }
        let base = self.text.number_base();
        let digits = self.text.take_while(|byte| char::from(byte).is_digit(base));
        // A lone prefix has left its 0 behind.
        let value = u64::from_str_radix(&digits, base).map_err(|_| "number too large")?;
        self.text.skip_blanks();
        Ok(value as i64)
    }

    fn operator(&mut self, of: &[u8]) -> Option<u8> {
        self.text.skip_blanks();
        let operator = self.text.peek().filter(|byte| of.contains(byte))?;
        self.next();
        Some(operator)
    }

    fn next(&mut self) {
        self.text.bump();
        self.text.skip_blanks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Result<(i64, String), String> {
        let mut cursor = Cursor::new(text);
        let mut registers = |name: &str| match name {
            "pc" => Ok(0x1000),
            "cs.base" => Ok(0x10),
            _ => Err("unknown register".to_owned()),
        };
        let value = evaluate(&mut cursor, &mut registers)?;
        Ok((value, cursor.rest().into_owned()))
    }

    #[test]
    fn values() {
        for (text, value) in [
            ("1", 1),
            ("0x1F", 31),
            ("017", 15),
            ("0", 0),
            ("1 + 2 * 3", 7),
            // The loosest are the signs, not the bits.
            ("1 + 2 & 3", 3),
            ("6|1*2", 6),
            ("(1+2)*3", 9),
            ("-1", -1),
            ("- - 5", 5),
            ("~0", -1),
            ("-~3", 4),
            ("~-3", 2),
            ("+~+~7", 7),
            ("7 % 4", 3),
            ("-7 / 2", -3),
            ("5^1", 4),
            ("'a'", 97),
            ("$pc+4", 0x1004),
            ("$cs.base * 2", 0x20),
            ("0xffffffffffffffff", -1),
            ("0x8000000000000000 / -1", i64::MIN),
            ("  ( ( 3 ) ) ", 3),
        ] {
            assert_eq!(all(text), Ok((value, String::new())), "{text}");
        }
    }

    #[test]
    fn an_expression_ends_where_it_cannot_go_on() {
        for (text, value, rest) in
            [("1 2", 1, "2"), ("0x", 0, "x"), ("09", 0, "9"), ("3)", 3, ")"), ("1.2", 1, ".2")]
        {
            assert_eq!(all(text), Ok((value, rest.to_owned())), "{text}");
        }
    }

    #[test]
    fn mistakes() {
        let deep = "(".repeat(DEPTH + 1);
        for (text, error) in [
            ("", "unexpected end of expression"),
            ("1+", "unexpected end of expression"),
            ("(1", "')' expected"),
            ("(1;2)", "')' expected"),
            ("'", "character constant expected"),
            ("'a", "missing terminating ' character"),
            ("'ab'", "missing terminating ' character"),
            ("$foo", "unknown register"),
            ("$", "unknown register"),
            ("99999999999999999999", "number too large"),
            ("x", "invalid char 'x' in expression"),
            ("1+;", "invalid char ';' in expression"),
            ("1/0", "division by zero"),
            ("1%(2-2)", "division by zero"),
            (&deep, "expression nests deeper than 100"),
        ] {
            assert_eq!(all(text), Err(error.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[-+*/%&|^~()$'0-9a-fx. ]{0,300}") {
            let _ = all(&text);
        }

        #[test]
        fn signs_are_applied_from_the_inside(signs in "[-+~]{0,20}", number: u32) {
            let mut expected = i64::from(number);
            for sign in signs.bytes().rev() {
                expected = match sign { b'-' => -expected, b'~' => !expected, _ => expected };
            }
            prop_assert_eq!(all(&format!("{signs}{number}")).unwrap().0, expected);
        }
    }
}
