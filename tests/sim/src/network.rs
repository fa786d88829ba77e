//! What carries messages, and what becomes of them.

use std::fmt;

use fastrand::Rng;

use crate::faults::{Fault, Tally};

/// Who sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub role: Role,
    pub region: usize,
    /// Among those of its role.
    pub no: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Router,
    /// An instance: its agent and its model server.
    Machine,
    /// The region's replica of the store.
    Store,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, region, no } = self;
        match role {
            Role::Router => write!(f, "router {no} of region {region}"),
            Role::Machine => write!(f, "i-{no} of region {region}"),
            Role::Store => write!(f, "the store in region {region}"),
        }
    }
}

/// Some nodes: what is not said is any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Side {
    pub role: Option<Role>,
    pub region: Option<usize>,
    pub no: Option<usize>,
}

impl Side {
    pub(crate) fn of(node: Node) -> Self {
        Self { role: Some(node.role), region: Some(node.region), no: Some(node.no) }
    }

    fn has(&self, node: Node) -> bool {
        self.role.is_none_or(|role| role == node.role)
            && self.region.is_none_or(|region| region == node.region)
            && self.no.is_none_or(|no| no == node.no)
    }
}

/// What is wrong between two sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub from: Side,
    pub to: Side,
    pub both_ways: bool,
    pub kind: TroubleKind,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum TroubleKind {
    /// Nothing gets through; counted as this fault.
    Cut(Fault),
    /// Messages in a thousand that are lost.
    Loss(u32),
    Delay {
        ms: u64,
    },
    /// Some messages take up to so much longer, and later ones overtake them.
    Reorder {
        ms: u64,
    },
    /// Some messages arrive twice.
    Duplicate,
}

/// Troubles at once; what would be one more is not begun.
const MAX_TROUBLES: usize = 16;
/// Half a round trip within a region.
const NEAR_MS: u64 = 1;
/// Of a message's usual time, what may come on top.
const JITTER: f64 = 0.3;

/// Names a trouble, to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TroubleId(u64);

/// When a message arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// `None`: it is lost.
    pub after_ms: Option<u64>,
    /// Once more.
    pub again_after_ms: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Network {
    rng: Rng,
    /// The way from one region to another, in milliseconds; the way back may be another.
    far_ms: Vec<Vec<u64>>,
    troubles: Vec<(TroubleId, Trouble)>,
    begun: u64,
}

impl Network {
    pub(crate) fn new(regions: usize, mut rng: Rng) -> Self {
        let mut draw = |here: usize, there: usize| match here == there {
            true => NEAR_MS,
            false => rng.u64(10..90),
        };
        let far_ms = (0..regions)
            .map(|here| (0..regions).map(|there| draw(here, there)).collect())
            .collect();
        Self { rng, far_ms, troubles: Vec::new(), begun: 0 }
    }

    /// What becomes of a message.
    pub(crate) fn send(&mut self, from: Node, to: Node, tally: &mut Tally) -> Delivery {
        let usual = self.far_ms[from.region][to.region];
        let mut after_ms = usual + (self.rng.f64() * JITTER * usual as f64) as u64;
        let mut again_after_ms = None;
        for (_, trouble) in &self.troubles {
            let there = trouble.from.has(from) && trouble.to.has(to);
            let back = trouble.both_ways && trouble.from.has(to) && trouble.to.has(from);
            if !there && !back {
                continue;
            }
            match trouble.kind {
                TroubleKind::Cut(fault) => {
                    tally.add(fault);
                    return Delivery::default();
                }
                TroubleKind::Loss(per_mille) if self.rng.u32(0..1_000) < per_mille => {
                    tally.add(Fault::MessageLoss);
                    return Delivery::default();
                }
                TroubleKind::Loss(_) => {}
                TroubleKind::Delay { ms } => {
                    tally.add(Fault::MessageDelay);
                    after_ms += ms;
                }
                TroubleKind::Reorder { ms } if self.rng.u8(0..4) == 0 => {
                    tally.add(Fault::MessageReordering);
                    after_ms += self.rng.u64(0..ms);
                }
                TroubleKind::Duplicate if self.rng.u8(0..4) == 0 => {
                    tally.add(Fault::MessageDuplication);
                    again_after_ms = Some(after_ms + self.rng.u64(0..500));
                }
                TroubleKind::Reorder { .. } | TroubleKind::Duplicate => {}
            }
        }
        Delivery { after_ms: Some(after_ms), again_after_ms }
    }

    /// `None` where there are as many as there may be.
    pub(crate) fn begin(&mut self, trouble: Trouble) -> Option<TroubleId> {
        if self.troubles.len() == MAX_TROUBLES {
            return None;
        }
        self.begun += 1;
        let id = TroubleId(self.begun);
        self.troubles.push((id, trouble));
        Some(id)
    }

    pub(crate) fn end(&mut self, id: TroubleId) {
        self.troubles.retain(|(other, _)| *other != id);
    }

    /// All that is wrong ends.
    pub(crate) fn heal(&mut self) {
        self.troubles.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Role, region: usize, no: usize) -> Node {
        Node { role, region, no }
    }

    #[test]
    fn a_cut_one_way_lets_the_other_way_through() {
        let (mut network, mut tally) = (Network::new(3, Rng::with_seed(1)), Tally::default());
        let (a, b) = (node(Role::Router, 0, 0), node(Role::Router, 1, 2));
        let from = Side { region: Some(0), ..Side::default() };
        let to = Side::of(b);
        let kind = TroubleKind::Cut(Fault::OneWayPartition);
        let id = network.begin(Trouble { from, to, both_ways: false, kind }).unwrap();
        assert_eq!(network.send(a, b, &mut tally).after_ms, None);
        assert!(network.send(b, a, &mut tally).after_ms.is_some());
        network.end(id);
        assert!(network.send(a, b, &mut tally).after_ms.is_some());
        network.begin(Trouble { from, to, both_ways: true, kind }).unwrap();
        assert_eq!(network.send(b, a, &mut tally).after_ms, None);
        assert_eq!(tally.count(Fault::OneWayPartition), 2);
    }

    #[test]
    fn what_is_reordered_is_overtaken_and_nothing_is_lost() {
        let (mut network, mut tally) = (Network::new(2, Rng::with_seed(2)), Tally::default());
        let all = Side::default();
        let kind = TroubleKind::Reorder { ms: 1_000 };
        network.begin(Trouble { from: all, to: all, both_ways: false, kind });
        let (a, b) = (node(Role::Router, 0, 0), node(Role::Machine, 0, 0));
        let arrivals: Vec<u64> =
            (0..100).map(|n| n * 10 + network.send(a, b, &mut tally).after_ms.unwrap()).collect();
        assert!(!arrivals.is_sorted());
        assert!(tally.count(Fault::MessageReordering) > 0);
    }
}
