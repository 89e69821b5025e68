//! Makes `src/generated.rs` from the schema. `schema/README.md` tells how the
//! schema is written.
//!
//! A tool for building: it reads the schema in this repository and nothing else, on one thread.

mod emit;
mod introspect;
mod names;
mod schema;

use std::path::{Path, PathBuf};

/// What is made from what, below the crate's directory. The second pair is the
/// schema of the decoder's tests: it has a definition of every shape.
const OUTPUTS: &[(&str, &str)] =
    &[("schema", "src/generated.rs"), ("src/decode/shapes", "src/decode/shapes/generated.rs")];

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate(dir: &Path) -> Result<String, String> {
    Ok(emit::emit(&schema::Schema::load(dir)?))
}

fn main() -> Result<(), String> {
    for (from, to) in OUTPUTS {
        let text = generate(&crate_dir().join(from))?;
        let to = crate_dir().join(to);
        std::fs::write(&to, text).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_code_is_up_to_date() {
        for (from, to) in OUTPUTS {
            let made = generate(&crate_dir().join(from)).unwrap();
            let found = std::fs::read_to_string(crate_dir().join(to)).unwrap_or_default();
            assert!(made == found, "{to} is old: run `cargo run -p qmp --bin qmp-gen`");
        }
    }
}
