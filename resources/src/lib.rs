//! What a machine hands out.

pub mod nearest;
pub mod value;
