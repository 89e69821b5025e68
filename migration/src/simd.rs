//! Which vector instructions this processor has.

/// A set of vector instructions; the more capable are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// What every processor has.
    Portable,
    /// 32 bytes at once.
    Avx2,
    /// 64 bytes at once, compared into masks (AVX-512 F and BW).
    Avx512,
}

impl Simd {
    /// The best this processor has. Cheap: the answer is remembered.
    #[inline]
    #[must_use]
    pub fn detect() -> Self {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("popcnt")
        {
            Self::Avx512
        } else if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("popcnt")
        {
            Self::Avx2
        } else {
            Self::Portable
        }
    }

    /// All that this processor has, for tests and benches.
    pub fn available() -> impl Iterator<Item = Self> {
        let best = Self::detect();
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(move |&simd| simd <= best)
    }
}
