//! The connection to the other side of a migration.
