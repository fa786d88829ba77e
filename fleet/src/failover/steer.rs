//! One request's regions, while not all of them are normal.

use super::{Lane, Limit, capacity::weight};
use crate::routing::{Attempts, chance};

/// Tells this module's draws apart from those that the same seed decides elsewhere.
const SALT: u64 = 0x6661_696c_6f76_6572;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// To its first choice, which takes it whatever it has to do.
    Stay(Attempts),
    /// To regions that may still refuse it for want of room ([`Steering::admits`]).
    ///
    /// [`Steering::admits`]: super::Steering::admits
    Moved(Attempts),
    /// Nowhere: its first choice does not keep it, and no other region can carry it. To be refused with 503
    /// and Retry-After.
    Shed,
}

/// Steers one request. `order` are its regions, best first, as indices into the pool's view of regions;
/// `lanes` run parallel to that view, and `in_flight` counts this router's requests to one of them.
///
/// ```text
///  the first choice keeps it, by its share, and has room or is home:
///        it; then the normal ones; then those that give traffic away themselves
///  else, of those with room:
///        the one an operator named; or a normal one, by spare capacity; then the other normal ones; then
///        those that give traffic away themselves; then the first choice
///  else, where no region is said to be alive:
///        what is said is set aside, and the order stays
///  else: shed
/// ```
///
/// Home's room ends at its last slot, others' at `limit`. A closed region keeps its share and is nobody's
/// resort.
pub fn steer(
    order: &Attempts,
    lanes: &[Lane],
    in_flight: impl Fn(u32) -> u32,
    limit: Limit,
    seed: u64,
) -> Steered {
    let lane = |region: u32| lanes.get(region as usize).copied().unwrap_or_default();
    let open = || order.as_slice().iter().copied().filter(|region| !lane(*region).closed);
    let spare = |region: u32| {
        let limit = if lane(region).home { Limit::FULL } else { limit };
        lane(region).spare(in_flight(region), limit)
    };
    let is_alive = |region: &u32| lane(*region).share > 0.0;
    let is_normal = |region: &u32| lane(*region).share >= 1.0;
    let has_room = |region: &u32| spare(*region).is_none_or(|spare| spare > 0);
    let Some(first) = order.as_slice().first().copied() else { return Steered::Shed };
    let is_other = |region: &u32| *region != first;

    if unit(seed, 0) < lane(first).share && (lane(first).home || has_room(&first)) {
        let others = || open().filter(is_other);
        let kept = [first]
            .into_iter()
            .chain(others().filter(is_normal))
            .chain(others().filter(|region| !is_normal(region)))
            .collect();
        return if lane(first).home { Steered::Stay(kept) } else { Steered::Moved(kept) };
    }

    let able = || open().filter(is_alive).filter(has_room);
    let others = || able().filter(is_other);
    let weigh = |region: u32| (region, spare(region), lane(region).healthy);
    let drawn = lane(first)
        .to
        .filter(|to| others().any(|other| other == *to))
        .or_else(|| draw(|| others().filter(is_normal).map(weigh), seed))
        .or_else(|| draw(|| others().map(weigh), seed));
    let rest = || others().filter(|other| Some(*other) != drawn);
    let moved: Attempts = drawn
        .into_iter()
        .chain(rest().filter(is_normal))
        .chain(rest().filter(|region| !is_normal(region)))
        .chain(able().filter(|region| !is_other(region)))
        .collect();

    if !moved.as_slice().is_empty() {
        Steered::Moved(moved)
    } else if open().next().is_some() && !open().any(|region| is_alive(&region)) {
        Steered::Stay(open().collect())
    } else {
        Steered::Shed
    }
}

/// One of the regions, by their weights.
fn draw<I: Iterator<Item = (u32, Option<u32>, u32)>>(
    regions: impl Fn() -> I,
    seed: u64,
) -> Option<u32> {
    let is_known = regions().all(|(_, spare, _)| spare.is_some());
    let weighed =
        || regions().map(|(region, spare, healthy)| (region, weight(spare, healthy, is_known)));
    let mut left = f64::from(unit(seed, 1)) * weighed().map(|(_, weight)| weight).sum::<f64>();
    let mut drawn = None;
    for (region, weight) in weighed() {
        drawn = Some(region);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    drawn
}

/// One of a seed's numbers, evenly from 0 to below 1.
fn unit(seed: u64, n: u32) -> f32 {
    (chance(seed ^ SALT, n) >> 40) as f32 / (1u64 << 24) as f32
}

#[cfg(test)]
mod tests;
