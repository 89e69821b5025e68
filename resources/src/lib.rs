//! What a machine hands out.

pub mod iol;
pub mod nearest;
pub mod value;
