//! One request's regions, while not all of them are normal.

use super::{Lane, Limit};
use crate::routing::{Attempts, chance};

/// Tells this module's draws apart from those that the same seed decides elsewhere.
const SALT: u64 = 0x6661_696c_6f76_6572;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// To its first choice.
    Stay(Attempts),
    /// Elsewhere: its first choice gives this share of its traffic away.
    Moved(Attempts),
    /// Nowhere: its first choice gives it away, and no other region can carry it. To be refused with 503
    /// and Retry-After.
    Shed,
}

/// Steers one request. `order` are its regions, best first, as indices into the pool's view of regions;
/// `lanes` run parallel to that view, and `in_flight` counts this router's requests to one of them.
///
/// ```text
///  the first choice keeps it, by its share: it, then the normal ones, then the others, in order
///  else, of those with room: the one an operator named; a normal one by spare capacity; the other normal
///        ones; those that give traffic away themselves; the first choice
///  else, where no region is said to be alive: what is said is set aside, and the order stays
///  else: shed
/// ```
///
/// A closed region keeps its share and is nobody's resort. Others' room ends at `limit`, the first choice's
/// own at its last slot.
pub fn steer(
    order: &Attempts,
    lanes: &[Lane],
    in_flight: impl Fn(u32) -> u32,
    limit: Limit,
    seed: u64,
) -> Steered {
    let lane = |region: u32| lanes.get(region as usize).copied().unwrap_or_default();
    let open = || order.as_slice().iter().copied().filter(|region| !lane(*region).closed);
    let is_normal = |region: &u32| lane(*region).share >= 1.0;
    let Some(first) = order.as_slice().first().copied() else { return Steered::Shed };

    if unit(seed, 0) < lane(first).share {
        let others = || open().filter(|region| *region != first);
        let normal = others().filter(is_normal);
        let weak = others().filter(|region| !is_normal(region));
        return Steered::Stay([first].into_iter().chain(normal).chain(weak).collect());
    }

    let is_alive = |region: &u32| lane(*region).share > 0.0;
    let fits = |region: &u32| {
        let limit = if *region == first { Limit::FULL } else { limit };
        is_alive(region) && lane(*region).has_room(in_flight(*region), limit)
    };
    let others = || open().filter(|region| *region != first).filter(fits);
    let spare = |region: u32| (region, lane(region).spare(in_flight(region), limit));
    let named = lane(first).to.filter(|to| others().any(|other| other == *to));
    let drawn = named
        .or_else(|| draw(|| others().filter(is_normal).map(spare), lane, seed))
        .or_else(|| draw(|| others().map(spare), lane, seed));
    let rest = || others().filter(|other| Some(*other) != drawn);
    let moved: Attempts = drawn
        .into_iter()
        .chain(rest().filter(is_normal))
        .chain(rest().filter(|region| !is_normal(region)))
        .chain(open().filter(|region| *region == first).filter(fits))
        .collect();

    if !moved.as_slice().is_empty() {
        Steered::Moved(moved)
    } else if open().next().is_some() && !open().any(|region| is_alive(&region)) {
        Steered::Stay(open().collect())
    } else {
        Steered::Shed
    }
}

/// One of the regions, by their spare slots; where any one's are unknown, by their healthy instances.
fn draw<I: Iterator<Item = (u32, Option<u32>)>>(
    regions: impl Fn() -> I,
    lane: impl Fn(u32) -> Lane,
    seed: u64,
) -> Option<u32> {
    let is_known = regions().all(|(_, spare)| spare.is_some());
    let weight = |(region, spare): (u32, Option<u32>)| match spare {
        Some(spare) if is_known => (region, f64::from(spare)),
        _ => (region, f64::from(lane(region).healthy.max(1))),
    };
    let sum: f64 = regions().map(|region| weight(region).1).sum();
    let mut left = sum * f64::from(unit(seed, 1));
    let mut last = None;
    for (region, weight) in regions().map(weight) {
        left -= weight;
        last = Some(region);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// One of a seed's numbers, evenly from 0 to below 1.
fn unit(seed: u64, n: u32) -> f32 {
    (chance(seed ^ SALT, n) >> 40) as f32 / (1u64 << 24) as f32
}

#[cfg(test)]
mod tests;
