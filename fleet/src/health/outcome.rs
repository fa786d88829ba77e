//! What an attempt at a candidate came to, as evidence about that candidate.

use serde::{Deserialize, Serialize};

/// How an attempt ended. Only its response's head counts: what breaks later is told from a client that went
/// away too late to be evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Any answer but those below. A 4xx is one: the request was wrong, not who refused it.
    Answered,
    /// It sheds load: a 429, or another region's router that marked its 503 as no capacity. Evidence of
    /// neither kind.
    Busy,
    /// Any 5xx.
    ServerError,
    /// No head in time.
    TimedOut,
    /// The connection broke, or carried garbage, before the head was whole.
    Broken,
    /// No connection could be made: refused, no route, or not in time.
    Unreachable,
}

impl Outcome {
    pub fn of_status(status: u16) -> Self {
        match status {
            429 => Self::Busy,
            500.. => Self::ServerError,
            _ => Self::Answered,
        }
    }

    pub fn is_failure(self) -> bool {
        self == Self::Unreachable || self.is_soft()
    }

    /// A failure that may be the request's fault: some requests fail wherever they go.
    pub fn is_soft(self) -> bool {
        matches!(self, Self::ServerError | Self::TimedOut | Self::Broken)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Busy => "busy",
            Self::ServerError => "server_error",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::Unreachable => "unreachable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_is_no_evidence_against_who_refused_it() {
        for (statuses, expected) in [
            (100..429, Outcome::Answered),
            (429..430, Outcome::Busy),
            (430..500, Outcome::Answered),
            (500..600, Outcome::ServerError),
        ] {
            for status in statuses {
                assert_eq!(Outcome::of_status(status), expected, "{status}");
            }
        }
        assert!(!Outcome::Answered.is_failure() && !Outcome::Busy.is_failure());
        assert!(Outcome::Unreachable.is_failure() && !Outcome::Unreachable.is_soft());
    }
}
