//! Names of files: their protocol, and names relative to others.
//!
//! Any thread, no lock. Names come from users, clients and images.

use crate::node::Node;

/// The word before a colon that comes before any slash, if there is one.
pub fn protocol(name: &str) -> Option<&str> {
    let first = name.split('/').next().unwrap_or_default();
    first.split_once(':').map(|(word, _)| word)
}

/// What a name that stands in `parent` means: itself if it is absolute or says its protocol,
/// otherwise a file next to `parent`.
pub fn combine(parent: &str, name: &str) -> String {
    if name.starts_with('/') || protocol(name).is_some() {
        return name.to_owned();
    }
    let start = protocol(parent).map_or(0, |word| word.len() + 1);
    let directory = match parent.get(start..).and_then(|rest| rest.rfind('/')) {
        Some(slash) => start + slash + 1,
        None => start,
    };
    format!("{}{name}", parent.get(..directory).unwrap_or_default())
}

/// The name of the file that a node stands on; empty if it has none.
pub fn of(node: &dyn Node) -> String {
    if let Some(name) = node.filename() {
        return name;
    }
    let file = node.children().into_iter().find(|(role, _)| *role == "file");
    file.map(|(_, file)| of(&*file)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_image() {
        assert_eq!(combine("/a/b.qcow2", "c.raw"), "/a/c.raw");
        assert_eq!(combine("b.qcow2", "c.raw"), "c.raw");
        assert_eq!(combine("a/b", "../c"), "a/../c");
        assert_eq!(combine("/a/b", "/c"), "/c");
        assert_eq!(combine("/a/b", "nbd:host:1"), "nbd:host:1");
        assert_eq!(combine("nbd:x/y", "z"), "nbd:x/z");
        assert_eq!(combine("file:y", "z"), "file:z");
        assert_eq!((protocol("a/b:c"), protocol("nbd:x")), (None, Some("nbd")));
    }
}
