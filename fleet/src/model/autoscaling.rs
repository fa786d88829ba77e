//! What the `autoscaling-state` table holds: how large a pool should be, and whom to replace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{InstanceId, PoolId, RegionId, Stamp, Timestamp};

/// A pool's capacity in a region, as one writing region decided it. Stored in `autoscaling-state`.
///
/// Several regions may decide for one pool, where a region takes over another's work. Each has an item of
/// its own, and the highest stamp counts ([`Capacity::in_force`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    pub region: RegionId,
    pub pool: PoolId,
    /// The region whose program decided.
    pub written_by: RegionId,
    /// Under the lease of whoever decides for the pool.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// Instances there should be.
    pub desired: u32,
    /// Instances that serve; `None` where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_service: Option<u32>,
    /// Instances that start; `None` where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// The last time that `desired` changed; `None` where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<ScalingDecision>,
    /// By the writer's clock.
    pub at: Timestamp,
}

impl Capacity {
    /// What counts for each pool of one region: of several writing regions' items the one with the highest
    /// stamp; of equal stamps, which only writers without a common lease make, that of the region whose
    /// name sorts last, so that every reader sees the same.
    pub fn in_force(all: impl IntoIterator<Item = Self>) -> BTreeMap<PoolId, Self> {
        let mut in_force: BTreeMap<PoolId, Self> = BTreeMap::new();
        for capacity in all {
            let rank = |c: &Self| (c.stamp, c.written_by.clone());
            match in_force.get_mut(&capacity.pool) {
                Some(best) if rank(best) >= rank(&capacity) => {}
                Some(best) => *best = capacity,
                None => {
                    in_force.insert(capacity.pool.clone(), capacity);
                }
            }
        }
        in_force
    }
}

/// Why a pool's desired capacity is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingDecision {
    /// By the decider's clock.
    pub at: Timestamp,
    /// Instances desired before and after.
    pub from: u32,
    pub to: u32,
    /// For people, as in `queue depth 14 above 10 for 5 min`.
    pub reason: String,
    /// For other regions' traffic and until that is back: then `from` is desired again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failover: bool,
}

/// That an instance should be replaced. Stored in `autoscaling-state`, one for each instance, which is of
/// the generation that last needed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    pub instance: InstanceId,
    pub region: RegionId,
    pub pool: PoolId,
    /// The instance's generation: where the same id registers again, it may be asked for again.
    pub generation: u64,
    /// As in `GPU 3: XID 79, fallen off the bus`.
    pub reason: String,
    /// Who asked first, as in `router us-east-1`.
    pub requested_by: String,
    /// By the first asker's clock.
    pub requested_at: Timestamp,
    /// How it ended; `None` while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<ReplacementOutcome>,
    /// When a closed one may be removed, in seconds since 1970; an open one stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// How a replacement ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacementOutcome {
    /// By the clock of whoever closed it.
    pub at: Timestamp,
    /// As in `replaced by i-0fedcba0987654321`.
    pub outcome: String,
    /// Not done, as the instance serves again: where that fails once more, it is asked for once more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub called_off: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(pool: &str, written_by: &str, epoch: u64, sequence: u64) -> Capacity {
        Capacity {
            region: "us-east-1".into(),
            pool: pool.into(),
            written_by: written_by.into(),
            stamp: Stamp { epoch, sequence },
            desired: 4,
            in_service: None,
            pending: None,
            last_decision: None,
            at: Timestamp(0),
        }
    }

    #[test]
    fn the_highest_stamp_counts_whatever_the_order() {
        let all = [
            capacity("a", "us-east-1", 2, 9),
            capacity("a", "us-east-2", 3, 0),
            capacity("a", "us-west-2", 3, 0),
            capacity("b", "us-east-1", 1, 0),
        ];
        let forwards = Capacity::in_force(all.clone());
        let backwards = Capacity::in_force(all.into_iter().rev());
        assert_eq!(forwards, backwards);
        let written_by = |pool: &str| forwards.get(pool).map(|c| c.written_by.as_str());
        assert_eq!((written_by("a"), written_by("b")), (Some("us-west-2"), Some("us-east-1")));
    }
}
