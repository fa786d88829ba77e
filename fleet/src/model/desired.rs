//! What operators and routers want of an instance, apart from what it says of itself.
//!
//! Several regions may want something of one instance, and each writes an opinion of its own, so that no
//! write undoes another's. The opinion with the highest stamp counts; of two with the same stamp, written
//! at the same time in two regions that had not heard of each other, the stricter.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{InstanceId, Lifecycle, RegionId, Stamp, Timestamp};

/// What is wanted of an instance. Stored in `gpu-instances`, one for each region that wants something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub instance: InstanceId,
    /// Where the instance is.
    pub region: RegionId,
    pub state: DesiredState,
    /// For people, as in `ticket 4711: ECC errors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who wants it: a person's name, or a router's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// A router wants it by itself, of what it found unhealthy: no person decided it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// By the writer's clock; for people, never to decide which counts.
    pub at: Timestamp,
    /// Where it was written.
    pub writer_region: RegionId,
    #[serde(flatten)]
    pub stamp: Stamp,
}

/// Whether an instance should serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    /// Whatever it says of itself holds.
    Serving,
    Draining,
    Quarantined,
}

impl DesiredState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
        }
    }

    /// The lifecycle that it asks for, at least.
    pub fn lifecycle(self) -> Lifecycle {
        match self {
            Self::Serving => Lifecycle::Available,
            Self::Draining => Lifecycle::Draining,
            Self::Quarantined => Lifecycle::Quarantined,
        }
    }
}

impl Desired {
    /// Which of two opinions on one instance counts. It does not matter in which order, or how often,
    /// opinions are merged.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.counts_over(&other) { self } else { other }
    }

    pub fn counts_over(&self, other: &Self) -> bool {
        self.order(other) != Ordering::Less
    }

    /// Whether it is to leave what is stored as it is: what a person keeps out of service, no router changes
    /// by itself, be it to something stricter.
    pub fn yields_to(&self, stored: &Self) -> bool {
        self.automatic && !stored.automatic && stored.state != DesiredState::Serving
    }

    /// By stamp, then by strictness, then a person's before a router's; what follows only makes the order
    /// total.
    fn order(&self, other: &Self) -> Ordering {
        self.stamp
            .cmp(&other.stamp)
            .then(self.state.cmp(&other.state))
            .then(other.automatic.cmp(&self.automatic))
            .then_with(|| self.writer_region.cmp(&other.writer_region))
            .then(self.at.cmp(&other.at))
            .then_with(|| self.reason.cmp(&other.reason))
            .then_with(|| self.operator.cmp(&other.operator))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, merge_alike, some_in_two_orders};

    fn desired(epoch: u64, sequence: u64, state: DesiredState, writer: &str) -> Desired {
        Desired {
            at: Timestamp(sequence),
            writer_region: writer.into(),
            stamp: Stamp { epoch, sequence },
            ..testing::desired("i-1", state)
        }
    }

    #[test]
    fn the_highest_stamp_counts_and_a_tie_goes_to_the_stricter() {
        use DesiredState::{Draining, Quarantined, Serving};
        for (a, b, expected) in [
            ((0, 2, Serving), (0, 1, Quarantined), Serving),
            ((1, 1, Serving), (0, 9, Quarantined), Serving),
            ((0, 3, Serving), (0, 3, Quarantined), Quarantined),
            ((0, 3, Draining), (0, 3, Quarantined), Quarantined),
            ((0, 3, Draining), (0, 3, Serving), Draining),
        ] {
            let a = desired(a.0, a.1, a.2, "us");
            let b = desired(b.0, b.1, b.2, "eu");
            assert_eq!(a.clone().merge(b.clone()).state, expected, "{a:?} {b:?}");
            assert_eq!(b.merge(a).state, expected);
        }
    }

    #[test]
    fn a_router_leaves_alone_what_a_person_keeps_out_of_service() {
        use DesiredState::{Draining, Quarantined, Serving};
        let by = |automatic, state| Desired { automatic, ..desired(0, 1, state, "us") };
        for (offered, stored, yields) in [
            (by(true, Draining), by(false, Quarantined), true),
            (by(true, Quarantined), by(false, Draining), true),
            (by(true, Serving), by(false, Draining), true),
            (by(true, Draining), by(false, Serving), false),
            (by(true, Serving), by(true, Draining), false),
            (by(false, Serving), by(false, Quarantined), false),
            (by(false, Draining), by(true, Draining), false),
        ] {
            assert_eq!(offered.yields_to(&stored), yields, "{offered:?} {stored:?}");
        }
        let (person, router) = (by(false, Draining), by(true, Draining));
        assert_eq!(router.merge(person.clone()), person);
    }

    #[test]
    fn the_stored_form_is_flat() {
        let stored = serde_json::json!({
            "instance": "i-1", "region": "us", "state": "quarantined", "at": 7,
            "writer_region": "eu", "epoch": 0, "sequence": 7,
        });
        let expected = desired(0, 7, DesiredState::Quarantined, "eu");
        assert_eq!(serde_json::to_value(&expected).ok(), Some(stored.clone()));
        assert_eq!(serde_json::from_value::<Desired>(stored.clone()).ok(), Some(expected.clone()));

        let expected = Desired { automatic: true, ..expected };
        let mut by_a_router = stored;
        by_a_router["automatic"] = true.into();
        assert_eq!(serde_json::to_value(&expected).ok(), Some(by_a_router.clone()));
        assert_eq!(serde_json::from_value::<Desired>(by_a_router).ok(), Some(expected));
    }

    fn any_desired() -> impl Strategy<Value = Desired> {
        use DesiredState::{Draining, Quarantined, Serving};
        let state = prop::sample::select(vec![Serving, Draining, Quarantined]);
        let writer = prop::sample::select(vec!["us", "eu", "ap"]);
        (0..2u64, 0..3u64, state, writer, 0..3u64, prop::option::of("[ab]"), any::<bool>())
            .prop_map(|(epoch, sequence, state, writer, at, reason, automatic)| Desired {
                at: Timestamp(at),
                reason,
                automatic,
                ..desired(epoch, sequence, state, writer)
            })
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(all in some_in_two_orders(any_desired())) {
            merge_alike(all, Desired::merge)?;
        }
    }
}
