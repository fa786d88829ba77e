//! What the `control` table holds: who leads, and who did what.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Orders what successive writers say of one fact: the higher pair is the later one.
///
/// The epoch comes from a [`Lease`] and rises whenever another holder takes over; the sequence rises with
/// each write in an epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    pub epoch: u64,
    pub sequence: u64,
}

impl Stamp {
    /// The next one of a writer in `epoch` that saw `seen`. Where that is of a later epoch, the writer has
    /// been superseded, and so is what it writes.
    pub fn next(seen: Option<Self>, epoch: u64) -> Self {
        match seen {
            Some(seen) if seen.epoch == epoch => {
                Self { epoch, sequence: seen.sequence.saturating_add(1) }
            }
            _ => Self { epoch, sequence: 0 },
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, sequence {}", self.epoch, self.sequence)
    }
}

/// A task that one process at a time should do. Stored in `control`; how it is contended for is in
/// [`lease`](crate::lease).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// As in `autoscaling`.
    pub name: String,
    /// One run of one process, never reused; `None` where it was given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The epoch rises with each holder, the sequence with each renewal.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// By the holder's clock; for people, never for judging whether the holder lives.
    pub at: Timestamp,
}

/// What somebody did to the fleet. Stored in `control`, only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// By the clock of the program that did it.
    pub at: Timestamp,
    /// Tells records of one millisecond apart.
    pub id: String,
    /// Who, as the program authenticated them.
    pub operator: String,
    /// As in `quarantine`.
    pub action: String,
    /// What it was done to, as in `instance i-1234567890abcdef0`.
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it may be removed, in seconds since 1970.
    pub expires_at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_stamp_wins_unless_its_writer_was_superseded() {
        let stamp = |epoch, sequence| Stamp { epoch, sequence };
        for (seen, epoch, expected, wins) in [
            (None, 3, stamp(3, 0), true),
            (Some(stamp(3, 7)), 3, stamp(3, 8), true),
            (Some(stamp(2, 7)), 3, stamp(3, 0), true),
            (Some(stamp(4, 0)), 3, stamp(3, 0), false),
        ] {
            let next = Stamp::next(seen, epoch);
            assert_eq!(next, expected);
            assert_eq!(seen.is_none_or(|seen| seen < next), wins, "{seen:?}");
        }
    }
}
