//! What a failover would do, without doing it.

use serde::{Deserialize, Serialize};

use super::{Handler, Lane, Limit, capacity::weight};
use crate::{
    model::{PoolId, RegionId},
    snapshot::{Candidate, Snapshot, View},
};

/// What would happen were all of a region's traffic moved now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Simulation {
    pub region: RegionId,
    /// Those that it has instances of.
    pub pools: Vec<PoolSimulation>,
}

/// One pool. Numbers are requests at once, of ordinary priority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSimulation {
    pub pool: PoolId,
    /// What would move; `None` where no instance reports what it serves.
    pub moved: Option<u32>,
    /// Who would take it, in the order in which they are filled.
    pub to: Vec<Target>,
    /// What would fit nowhere and be refused; `None` where that is not known.
    pub shortfall: Option<u32>,
}

/// A region that would take a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub region: RegionId,
    /// Its part, 0 to 1.
    pub share: f64,
    /// What fits there; `None` where its slots are unknown.
    pub spare: Option<u32>,
}

impl Handler {
    /// What would happen were a region failed over now, to `to` first where one is named.
    pub fn simulate(
        &self,
        region: &RegionId,
        to: Option<&RegionId>,
        snapshot: &Snapshot,
    ) -> Simulation {
        let views = snapshot.pools().filter_map(|pool| snapshot.regions_with(pool));
        let pools = views.filter_map(|view| self.simulate_pool(region, to, view)).collect();
        Simulation { region: region.clone(), pools }
    }

    fn simulate_pool(
        &self,
        region: &RegionId,
        to: Option<&RegionId>,
        view: &View,
    ) -> Option<PoolSimulation> {
        let moved = view.candidates.iter().find(|c| c.region == *region)?.running;
        let lanes = self.lanes(view);
        let takes = |(candidate, lane): &(&Candidate, &Lane)| {
            candidate.ready && candidate.region != *region && !lane.closed && lane.share > 0.0
        };
        let limit = Limit::new(self.thresholds().max_utilization, 0);
        let mut others: Vec<_> = view
            .candidates
            .iter()
            .zip(&lanes)
            .filter(takes)
            .map(|(candidate, lane)| Other {
                region: &candidate.region,
                tier: match lane.share {
                    _ if Some(&candidate.region) == to => 0,
                    share if share >= 1.0 => 1,
                    _ => 2,
                },
                spare: lane.spare(0, limit),
                healthy: lane.healthy,
            })
            .collect();
        others.sort_by_key(|other| other.tier);
        let (to, shortfall) = pour(moved, &others);
        Some(PoolSimulation { pool: view.key.pool.clone(), moved, to, shortfall })
    }
}

/// A region that could take a part.
struct Other<'a> {
    region: &'a RegionId,
    /// 0: named by the operator; 1: normal; 2: one that gives traffic away itself.
    tier: u8,
    spare: Option<u32>,
    healthy: u32,
}

/// Fills regions, tier by tier, with what is moved: what each takes, and what fits nowhere.
fn pour(moved: Option<u32>, others: &[Other<'_>]) -> (Vec<Target>, Option<u32>) {
    // Where nothing is known to be served, the parts are those of the first request.
    let all = f64::from(moved.unwrap_or(0).max(1));
    let (mut left, mut is_known, mut targets) = (all, true, Vec::new());
    for tier in others.chunk_by(|one, other| one.tier == other.tier) {
        let room = tier.iter().map(|other| other.spare.map(f64::from)).sum::<Option<f64>>();
        is_known &= room.is_some() || left == 0.0;
        let taken = room.map_or(left, |room| left.min(room));
        left -= taken;
        let weight = |other: &Other<'_>| weight(other.spare, other.healthy, room.is_some());
        let sum: f64 = tier.iter().map(weight).sum();
        targets.extend(tier.iter().map(|other| {
            let part = if sum > 0.0 { weight(other) / sum } else { 0.0 };
            let share = taken / all * part;
            Target { region: other.region.clone(), share, spare: other.spare }
        }));
    }
    let shortfall = moved.filter(|_| is_known).map(|moved| moved.min(left as u32));
    (targets, shortfall)
}

#[cfg(test)]
mod tests;
