//! What a policy says of a candidate.

/// 0 to 100, higher is better, or [`Score::RuledOut`].
///
/// The router clamps and counts what is above 100. A score that is not a number is the policy's fault.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Score(f32);

impl Score {
    /// Not this candidate, whatever other policies say.
    #[allow(non_upper_case_globals, reason = "reads as the variant it is in the contract")]
    pub const RuledOut: Self = Self(-1.0);

    /// Negative where ruled out.
    pub fn points(self) -> f32 {
        self.0
    }
}

/// What is below 0 becomes 0: only [`Score::RuledOut`] rules out.
impl From<f32> for Score {
    fn from(points: f32) -> Self {
        Self(if points < 0.0 { 0.0 } else { points })
    }
}

impl From<f64> for Score {
    fn from(points: f64) -> Self {
        Self::from(points as f32)
    }
}
