//! How many of a region's instances take requests, of those that should.

use std::collections::BTreeMap;

use crate::{
    model::{Lifecycle, PoolId, RegionId, Registration, Standing},
    snapshot::Member,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Those that take requests, as far as state, heartbeats and probes tell.
    pub ready: u32,
    /// Those that should: in service, and nobody planned otherwise.
    pub all: u32,
}

#[derive(Debug, Default)]
pub(super) struct Tallies {
    regions: BTreeMap<RegionId, Tally>,
    /// Those that should take requests, by home's pools.
    pools: BTreeMap<PoolId, u32>,
}

impl Tallies {
    /// Of those that count.
    pub fn count(members: impl Iterator<Item = Member>, home: &RegionId) -> Self {
        let mut tallies = Self::default();
        for member in members {
            let Registration { region, pool, .. } = &*member.standing.registration;
            let tally = tallies.regions.entry(region.clone()).or_default();
            tally.all += 1;
            tally.ready += u32::from(member.is_ready());
            if region == home {
                *tallies.pools.entry(pool.clone()).or_default() += 1;
            }
        }
        tallies
    }

    pub fn of(&self, region: &RegionId) -> Tally {
        self.regions.get(region).copied().unwrap_or_default()
    }

    pub fn pools(&self) -> &BTreeMap<PoolId, u32> {
        &self.pools
    }
}

/// Whether an instance counts for its region's health. One that still starts, or that leaves because it was
/// told to or its machine goes, has not failed. One that a router drained for failing its probes has.
pub(super) fn counts(standing: &Standing) -> bool {
    if let Some(desired) = &standing.desired
        && desired.state.lifecycle() != Lifecycle::Available
    {
        return desired.automatic;
    }
    match standing.lifecycle() {
        Lifecycle::Available | Lifecycle::Quarantined => true,
        Lifecycle::Registering
        | Lifecycle::Draining
        | Lifecycle::Cleaning
        | Lifecycle::Terminated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Desired, DesiredState, Registration, Report, Timestamp};

    #[test]
    fn what_was_planned_is_no_failure() {
        use DesiredState as Want;
        use Lifecycle::{Available, Cleaning, Draining, Quarantined, Registering, Terminated};
        for (lifecycle, wanted, expected) in [
            (Available, None, true),
            (Registering, None, false),
            (Draining, None, false),
            (Cleaning, None, false),
            (Terminated, None, false),
            // The agent found its GPU unfit.
            (Quarantined, None, true),
            (Available, Some((Want::Serving, false)), true),
            (Available, Some((Want::Draining, false)), false),
            (Quarantined, Some((Want::Quarantined, false)), false),
            (Available, Some((Want::Draining, true)), true),
            (Draining, Some((Want::Draining, true)), true),
        ] {
            let report = Report { lifecycle, ..Report::new("i", "r", 0, 1) };
            let desired = wanted.map(|(state, automatic)| Desired {
                instance: "i".into(),
                region: "r".into(),
                state,
                reason: None,
                operator: None,
                automatic,
                at: Timestamp(0),
                writer_region: "r".into(),
                stamp: Default::default(),
            });
            let registration = Registration::new("i", "r", "p", "i:1");
            let standing = Standing { desired, ..Standing::new(registration, Some(report)) };
            assert_eq!(counts(&standing), expected, "{lifecycle:?}, {wanted:?}");
        }
    }
}
