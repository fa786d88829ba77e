//! From the regions' states to the lanes that requests read.

use super::{Handler, Lane, Steering};
use crate::{
    model::RegionId,
    snapshot::{Candidate, Snapshot, View},
};

impl Handler {
    /// What requests read besides a snapshot, parallel to its views.
    pub fn steering(&self, snapshot: &Snapshot) -> Steering {
        let pools = snapshot
            .pools()
            .filter_map(|pool| Some((pool.clone(), self.lanes(snapshot.regions_with(pool)?))));
        Steering::new(pools.collect(), self.thresholds().max_utilization)
    }

    /// The lanes of a pool, by its view of regions.
    pub(super) fn lanes(&self, view: &View) -> Vec<Lane> {
        let place = |region: &RegionId| {
            (0u32..).zip(&view.candidates).find(|(_, c)| c.region == *region).map(|(at, _)| at)
        };
        let lane = |candidate: &Candidate| {
            let watch = self.watched(&candidate.region);
            let order = watch.and_then(|watch| watch.wanted());
            Lane {
                share: self.share(&candidate.region) as f32,
                slots: candidate.slots,
                running: candidate.running.unwrap_or(0),
                healthy: candidate.healthy_instances,
                home: candidate.region == *self.home(),
                closed: watch.is_some_and(|watch| watch.is_closed()),
                to: order.and_then(|order| order.wish.target()).and_then(place),
            }
        };
        view.candidates.iter().map(lane).collect()
    }
}
