//! The `cargo vmtest`, `cargo demo` and `cargo vmbench` commands.
fn main() {}
