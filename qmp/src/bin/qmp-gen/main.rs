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
    use crate::schema::{Data, Schema, Type};

    /// Collects what clients are told by a type and is not in the order in which QEMU tells it.
    fn unordered(schema: &Schema, ty: &Type, seen: &mut Vec<String>, found: &mut Vec<String>) {
        let name = match ty {
            Type::List(inner) => return unordered(schema, inner, seen, found),
            Type::Named(name) if !seen.contains(name) => name,
            _ => return,
        };
        seen.push(name.clone());
        let members = schema.members_of(name).unwrap_or_default();
        if !members.is_sorted_by_key(|member| qmp::check::bucket(&member.name)) {
            found.push(name.clone());
        }
        let union = schema.unions.iter().filter(|union| union.name == *name);
        let cases = union.flat_map(|union| union.cases.iter().map(|(_, _, ty)| ty));
        for ty in members.iter().map(|member| &member.ty).chain(cases) {
            unordered(schema, ty, seen, found);
        }
    }

    #[test]
    fn clients_are_told_members_in_qemu_s_order() {
        let schema = Schema::load(&crate_dir().join("schema")).unwrap();
        let (mut seen, mut found) = (Vec::new(), Vec::new());
        for ty in schema.commands.iter().filter_map(|command| command.returns.as_ref()) {
            unordered(&schema, ty, &mut seen, &mut found);
        }
        for event in &schema.events {
            match &event.data {
                Data::Named(name) => {
                    unordered(&schema, &Type::Named(name.clone()), &mut seen, &mut found);
                }
                Data::Members(members) => {
                    if !members.is_sorted_by_key(|member| qmp::check::bucket(&member.name)) {
                        found.push(event.name.clone());
                    }
                    for member in members {
                        unordered(&schema, &member.ty, &mut seen, &mut found);
                    }
                }
            }
        }
        assert!(seen.len() > 30, "{seen:?}");
        assert!(found.is_empty(), "not in order: {found:?}");
    }

    #[test]
    fn generated_code_is_up_to_date() {
        for (from, to) in OUTPUTS {
            let made = generate(&crate_dir().join(from)).unwrap();
            let found = std::fs::read_to_string(crate_dir().join(to)).unwrap_or_default();
            assert!(made == found, "{to} is old: run `cargo run -p qmp --bin qmp-gen`");
        }
    }
}
