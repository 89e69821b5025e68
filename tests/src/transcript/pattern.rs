//! Text with holes: what a peer is expected to say where parts of it vary.
//!
//! `<int>` stands for an integer, `<num>` for a number, `<str>` for what can stand between quotes,
//! `<any>` for anything. `<NAME=int>` also gives what it stood for a name, and `<NAME>` later stands
//! for just that, in the same pattern too. Any other text in angle brackets stands for itself.
//! Any thread; no lock.

use std::collections::BTreeMap;

/// What names stand for.
pub type Names = BTreeMap<String, String>;

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole {
        kind: Hole,
        name: Option<String>,
    },
    /// What the hole of this name met.
    Again(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Int,
    Num,
    Str,
    Any,
}

impl Hole {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "int" => Self::Int,
            "num" => Self::Num,
            "str" => Self::Str,
            "any" => Self::Any,
            _ => return None,
        })
    }

    fn accepts(self, text: &str) -> bool {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        match self {
            Self::Int => digits(unsigned),
            Self::Num => match unsigned.split_once('.') {
                Some((whole, part)) => digits(whole) && digits(part),
                None => digits(unsigned),
            },
            Self::Str => !text.replace("\\\"", "").contains('"'),
            Self::Any => true,
        }
    }
}

/// Puts in what names stand for.
pub fn fill(text: &str, names: &Names) -> String {
    names
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("<{name}>"), value))
}

/// Whether `text` is what `pattern` expects; the names in it then stand for what they met.
pub fn matches(pattern: &str, text: &str, names: &mut Names) -> bool {
    let pieces = parse(&fill(pattern, names));
    // Most do not match, and holes are costly to try.
    let lacks = |piece: &Piece| matches!(piece, Piece::Text(part) if !text.contains(part.as_str()));
    if pieces.iter().any(lacks) {
        return false;
    }
    let mut met = Vec::new();
    if !from(&pieces, text, &mut met) {
        return false;
    }
    names.extend(met);
    true
}

fn parse(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('<') {
        text.push_str(before);
        let word = after.split_once('>').map(|(word, rest)| (word.split_once('='), word, rest));
        let piece = word.and_then(|(named, word, rest)| {
            let piece = match named {
                Some((name, kind)) => {
                    Piece::Hole { kind: Hole::from_word(kind)?, name: Some(name.to_owned()) }
                }
                None if has_name(&pieces, word) => Piece::Again(word.to_owned()),
                None => Piece::Hole { kind: Hole::from_word(word)?, name: None },
            };
            Some((piece, rest))
        });
        if let Some((piece, after)) = piece {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(piece);
            rest = after;
        } else {
            text.push('<');
            rest = after;
        }
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text));
    pieces
}

fn has_name(pieces: &[Piece], wanted: &str) -> bool {
    let named =
        |piece: &Piece| matches!(piece, Piece::Hole { name: Some(name), .. } if name == wanted);
    pieces.iter().any(named)
}

/// Whether all of `text` is what `pieces` expect; tries the longest for each hole first.
fn from(pieces: &[Piece], text: &str, met: &mut Vec<(String, String)>) -> bool {
    match pieces.split_first() {
        None => text.is_empty(),
        Some((Piece::Text(literal), rest)) => {
            text.strip_prefix(literal.as_str()).is_some_and(|text| from(rest, text, met))
        }
        Some((Piece::Again(name), rest)) => {
            let before = met.iter().find(|(other, _)| other == name).map(|(_, text)| text.clone());
            let after = before.and_then(|before| text.strip_prefix(before.as_str()));
            after.is_some_and(|text| from(rest, text, met))
        }
        Some((Piece::Hole { kind, name }, rest)) => {
            let ends = (0..=text.len()).rev().filter(|&end| text.is_char_boundary(end));
            for end in ends {
                let (inside, after) = text.split_at(end);
                if !kind.accepts(inside) {
                    continue;
                }
                let before = met.len();
                met.extend(name.clone().map(|name| (name, inside.to_owned())));
                if from(rest, after, met) {
                    return true;
                }
                met.truncate(before);
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_what_they_stand_for() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("{\"fd\": <int>}", "{\"fd\": 12}", true),
            ("{\"fd\": <int>}", "{\"fd\": -12}", true),
            ("{\"fd\": <int>}", "{\"fd\": 1.5}", false),
            ("{\"fd\": <int>}", "{\"fd\": }", false),
            ("<num>", "-0.5", true),
            ("\"<str>\"", "\"a\\\"b\"", true),
            ("\"<str>\"", "\"a\", \"b\"", false),
            ("a<any>b", "a, anything, b", true),
            ("a<any>b", "a, anything", false),
            ("child<pc>", "child<pc>", true),
            ("child<pc>", "child<q>", false),
            ("<int>, <int>", "1, 2", true),
            ("'<x=any>' | no '<x>'", "'a' | no 'a'", true),
            ("'<x=any>' | no '<x>'", "'a' | no 'b'", false),
        ] {
            assert_eq!(matches(pattern, text, &mut Names::new()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn names_keep_what_they_met() {
        let mut names = Names::new();
        assert!(matches("{\"fd\": <fd=int>}", "{\"fd\": 12}", &mut names));
        assert_eq!(fill("fd <fd>", &names), "fd 12");
        assert!(matches("is <fd>", "is 12", &mut names));
        assert!(!matches("is <fd>", "is 13", &mut names));
    }
}
