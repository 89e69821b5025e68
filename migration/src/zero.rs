//! Pages of zeros.
