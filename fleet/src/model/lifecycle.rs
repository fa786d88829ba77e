//! Where an instance is in its life, and how it may go on from there.
//!
//! ```text
//!  registering ──► available ──► draining ──► cleaning
//!       │              ▲ ▲           │            │
//!       │              │ └───────────┘ undrained  │
//!       │              └──────────────────────────┘ cleaned
//!       └──► draining, where it goes before it served
//!
//!  any but terminated ──► quarantined ──► available, cleaning      (released)
//!  any ─────────────────► terminated                               (for good: only a new registration
//!                                                                   starts again, under a new generation)
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an instance is in its life. Only `Available` gets new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    Registering,
    Available,
    Draining,
    Cleaning,
    Quarantined,
    Terminated,
}

impl Lifecycle {
    pub const ALL: [Self; 6] = [
        Self::Registering,
        Self::Available,
        Self::Draining,
        Self::Cleaning,
        Self::Quarantined,
        Self::Terminated,
    ];

    /// What may come next, staying as it is apart.
    pub const fn successors(self) -> &'static [Self] {
        use Lifecycle::{Available, Cleaning, Draining, Quarantined, Terminated};
        match self {
            Self::Registering => &[Available, Draining, Quarantined, Terminated],
            Self::Available => &[Draining, Quarantined, Terminated],
            Self::Draining => &[Available, Cleaning, Quarantined, Terminated],
            Self::Cleaning => &[Available, Quarantined, Terminated],
            Self::Quarantined => &[Cleaning, Available, Terminated],
            Self::Terminated => &[],
        }
    }

    /// Whether it may be `next` from now on; staying is allowed.
    pub fn may_become(self, next: Self) -> bool {
        self == next || self.successors().contains(&next)
    }

    /// How far it keeps requests away; of two opinions, the stricter counts.
    pub fn strictness(self) -> u8 {
        match self {
            Self::Available => 0,
            Self::Registering => 1,
            Self::Draining => 2,
            Self::Cleaning => 3,
            Self::Quarantined => 4,
            Self::Terminated => 5,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Available => "available",
            Self::Draining => "draining",
            Self::Cleaning => "cleaning",
            Self::Quarantined => "quarantined",
            Self::Terminated => "terminated",
        }
    }

    /// The state of that name, as [`Lifecycle::as_str`] writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row for each state it is in, a column for each it is to become, both in the order of `ALL`.
    #[test]
    fn the_whole_table() {
        let table = [
            ("registering", "RAD-QT"),
            ("available", "-AD-QT"),
            ("draining", "-ADCQT"),
            ("cleaning", "-A-CQT"),
            ("quarantined", "-A-CQT"),
            ("terminated", "-----T"),
        ];
        for (from, (name, row)) in Lifecycle::ALL.into_iter().zip(table) {
            assert_eq!(from.as_str(), name);
            assert_eq!(Lifecycle::from_name(name), Some(from));
            for (to, allowed) in Lifecycle::ALL.into_iter().zip(row.chars()) {
                assert_eq!(from.may_become(to), allowed != '-', "{from} to {to}");
            }
        }
        assert_eq!(Lifecycle::from_name("Available"), None);
    }

    #[test]
    fn only_available_lets_requests_in_and_no_two_are_as_strict() {
        let mut order = Lifecycle::ALL;
        order.sort_by_key(|state| state.strictness());
        assert_eq!(order[0], Lifecycle::Available);
        assert_eq!(order[5], Lifecycle::Terminated);
        assert!(order.windows(2).all(|pair| pair[0].strictness() < pair[1].strictness()));
    }

    #[test]
    fn names_are_the_stored_form() {
        for state in Lifecycle::ALL {
            assert_eq!(serde_json::to_value(state).ok(), Some(state.as_str().into()));
        }
    }
}
