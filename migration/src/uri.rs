//! Where the other side of a migration is.
