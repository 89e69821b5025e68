//! The nearest valid word to one that is not: for "did you mean" in error messages.
//!
//! Pure; any thread, no lock. The word may come from a client or the command line: one that is
//! much longer than every candidate is given up at once, so that the work stays bounded.

/// Words longer than this are never compared (bounds the work on a hostile word).
const LONGEST: usize = 64;

/// Returns the candidate with the smallest edit distance to `word`, compared without regard to
/// case, or `None` when nothing is near enough to be what was meant: a distance of at most a third
/// of the longer word (at least one edit), or a candidate that `word` begins. Among equals the
/// first wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        if candidate.is_empty() || candidate.len() > LONGEST {
            continue;
        }
        let lower = candidate.to_lowercase();
        let mut distance = edits(&word, &lower);
        let mut limit = (word.chars().count().max(lower.chars().count()) / 3).max(1);
        if word.len() >= 3 && lower.starts_with(&word) {
            // A shortened word is meant more often than one of equal length with other letters.
            distance = distance.min(2);
            limit = limit.max(2);
        }
        if distance <= limit && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The number of insertions, deletions, substitutions and swaps of neighbours that turn `a` into
/// `b` (optimal string alignment distance).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Rows of the distance table: two back, the last one, the one being made.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, ca) in a.chars().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &cb) in b.iter().enumerate() {
            let change = last[j] + usize::from(ca != cb);
            let mut cost = change.min(last[j + 1] + 1).min(row[j] + 1);
            if j > 0 && previous == Some(cb) && b[j - 1] == ca {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
        previous = Some(ca);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(edits("", ""), 0);
        assert_eq!(edits("abc", "abc"), 0);
        assert_eq!(edits("abc", ""), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("thraeds", "threads"), 1);
    }

    #[test]
    fn finds_what_was_meant() {
        let keys = ["cpus", "sockets", "cores", "threads", "maxcpus"];
        assert_eq!(nearest("thread", keys), Some("threads"));
        assert_eq!(nearest("Socket", keys), Some("sockets"));
        assert_eq!(nearest("croes", keys), Some("cores"));
        assert_eq!(nearest("soc", keys), Some("sockets"));
    }

    #[test]
    fn is_silent_when_nothing_is_near() {
        assert_eq!(nearest("banana", ["cpus", "cores"]), None);
        assert_eq!(nearest("", ["cpus"]), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), ["cpus"]), None);
        assert_eq!(nearest("cpus", []), None);
    }

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(nearest("cat", ["bat", "rat", "cat"]), Some("cat"));
        assert_eq!(nearest("mat", ["bat", "rat"]), Some("bat"));
    }
}
