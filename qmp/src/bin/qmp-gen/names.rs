//! From the schema's names to Rust's.

const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "box", "break", "const", "continue", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "static",
    "struct", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual",
    "where", "while", "yield",
];

/// Names that generated code uses for something else.
const TAKEN: &[&str] =
    &["String", "Vec", "Option", "Box", "Value", "Map", "Self", "Event", "Result"];

/// A type or variant: `finish-migrate` is `FinishMigrate`, `RTC_CHANGE` is
/// `RtcChange`, `8042` is `N8042`.
pub(crate) fn camel(name: &str) -> String {
    let shout = !name.chars().any(|c| c.is_ascii_lowercase());
    let mut out = String::new();
    for part in name.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut chars = part.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.extend(chars.map(|c| if shout { c.to_ascii_lowercase() } else { c }));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) { format!("N{out}") } else { out }
}

/// The name of a type of the schema, kept clear of the names in `TAKEN`.
pub(crate) fn type_name(name: &str) -> String {
    let out = camel(name);
    if TAKEN.contains(&out.as_str()) { format!("Qmp{out}") } else { out }
}

/// A field: `cpu-index` is `cpu_index`. If `siblings` has the name in lower case
/// too, one in upper case is told apart by its ending.
pub(crate) fn snake<'a>(name: &str, mut siblings: impl Iterator<Item = &'a str>) -> String {
    let lower = name.to_ascii_lowercase();
    let mut out: String =
        lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if lower != name && siblings.any(|other| other == lower) {
        out.push_str("_upper");
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, 'n');
    }
    if KEYWORDS.contains(&out.as_str()) { format!("r#{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("query-status", "QueryStatus"),
            ("add_client", "AddClient"),
            ("RTC_CHANGE", "RtcChange"),
            ("KVMMissingCap", "KVMMissingCap"),
            ("EAX", "Eax"),
            ("1", "N1"),
        ] {
            assert_eq!(camel(name), expected);
        }
        assert_eq!(type_name("String"), "QmpString");
        let all = ["pc", "PC", "CPU", "type", "cpu-index"];
        let found: Vec<_> = all.iter().map(|name| snake(name, all.into_iter())).collect();
        assert_eq!(found, ["pc", "pc_upper", "cpu", "r#type", "cpu_index"]);
    }
}
