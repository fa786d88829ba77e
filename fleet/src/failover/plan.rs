//! From the regions' states to the lanes that requests read.

use super::{Handler, Lane, Steering, capacity::Lanes};
use crate::{
    model::RegionId,
    snapshot::{Candidate, Snapshot, View},
};

impl Handler {
    /// What requests read besides a snapshot, parallel to its views.
    pub fn steering(&self, snapshot: &Snapshot) -> Steering {
        let pools = snapshot.pools().filter_map(|pool| {
            let view = snapshot.regions_with(pool)?;
            let home = view.candidates.iter().position(|c| c.region == *self.home());
            Some((pool.clone(), Lanes { all: self.lanes(view), home }))
        });
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
                closed: watch.is_some_and(|watch| watch.is_closed()),
                to: order.and_then(|order| order.wish.target()).and_then(place),
            }
        };
        view.candidates.iter().map(lane).collect()
    }
}
