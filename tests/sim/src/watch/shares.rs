//! Whether requests go as the regions' shares say.

use std::fmt;

use mrgc_fleet::{
    failover::{Lane, Limit, Steered},
    routing::Attempts,
};

use super::Watch;
use crate::router::Router;

/// Between what was kept and what should have been, in standard deviations: chance goes so far in one of
/// hundreds of millions of runs.
const FAR: f64 = 6.0;
/// The same where there were few requests, whose sums are not spread like those of many.
const FEW: f64 = 12.0;

/// One request that home was to keep with this probability, and whether it did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    share: f64,
    is_kept: bool,
}

/// All requests for which it was drawn whether home keeps them: of one run, which shows what is far off, or of
/// many, which show more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draws {
    kept: f64,
    /// What was to be kept, and how far from it chance goes, squared.
    expected: f64,
    variance: f64,
}

impl Draws {
    pub fn merge(&mut self, other: &Self) {
        self.kept += other.kept;
        self.expected += other.expected;
        self.variance += other.variance;
    }

    /// Whether chance explains what was kept.
    pub fn holds(&self) -> bool {
        (self.kept - self.expected).abs() <= FAR * self.variance.sqrt() + FEW
    }
}

impl fmt::Display for Draws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, expected, .. } = self;
        write!(f, "of all draws {kept} were kept, and {expected:.1} should have been")
    }
}

impl Draw {
    /// Only where home comes first and another region could have taken it: else there was no choice.
    pub(crate) fn of(
        order: &Attempts,
        lanes: &[Lane],
        in_flight: impl Fn(u32) -> u32,
        limit: Limit,
        steered: &Steered,
    ) -> Option<Self> {
        let (first, others) = order.as_slice().split_first()?;
        let home = lanes.get(*first as usize).filter(|lane| lane.home)?;
        let takes = |region: &u32| {
            let lane = lanes.get(*region as usize);
            lane.is_some_and(|lane| {
                !lane.closed && lane.share > 0.0 && lane.has_room(in_flight(*region), limit)
            })
        };
        let is_kept = match steered {
            Steered::Stay(to) | Steered::Moved(to) => to.as_slice().first() == Some(first),
            Steered::Shed => false,
        };
        let share = f64::from(home.share);
        others.iter().any(takes).then_some(Self { share, is_kept })
    }
}

impl Watch {
    /// A router has a new snapshot, by which its requests go from now on.
    pub(crate) fn published(&mut self, router: &Router) {
        let (snapshot, handler) = (&router.snapshot, router.monitor.handler());
        for pool in snapshot.pools() {
            let candidates = snapshot.regions_with(pool).map_or(&[][..], |view| &view.candidates);
            let lanes = snapshot.steering.lanes(pool);
            let is_so = lanes.len() == candidates.len()
                && lanes.iter().zip(candidates).all(|(lane, candidate)| {
                    lane.share == handler.share(&candidate.region) as f32
                        && (lane.share == 1.0 || !snapshot.steering.is_normal())
                });
            self.check(is_so, "a snapshot has the shares of its moment", || {
                format!("{} steers {pool} by {lanes:?}", router.node)
            });
        }
    }

    /// It was drawn whether home keeps a request.
    pub(crate) fn drawn(&mut self, router: &Router, draw: Draw) {
        let Draw { share, is_kept } = draw;
        let is_certain = share <= 0.0 || share >= 1.0;
        let (kept, variance) = (f64::from(u8::from(is_kept)), share * (1.0 - share));
        self.draws.merge(&Draws { kept, expected: share, variance });
        let holds = self.draws.holds() && (!is_certain || is_kept == (share > 0.0));
        if !holds {
            let message = format!("{} draws {draw:?}: {}", router.node, self.draws);
            self.check(false, "requests go as the shares say", || message);
        }
    }
}
