//! What happened, for people and for comparing runs.

use std::{collections::VecDeque, fmt};

use mrgc_fleet::{
    failover::RegionState,
    health::Outcome,
    model::{DesiredState, Stamp},
};

use crate::{faults::Fault, network::Node};

/// Notes that are kept for the report of a failure.
const KEPT: usize = 60;

/// Something worth telling.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    Lost { from: Node, to: Node },
    Fault { fault: Fault, subject: usize },
    Over { fault: Fault, subject: usize },
    Sent { router: Node, machine: usize, attempt: u32 },
    Forwarded { router: Node, to: Node },
    Ended { router: Node, outcome: Outcome },
    Finished { router: Node, ending: crate::traffic::Ending },
    Ejected { router: Node, machine: usize },
    Rejoined { router: Node, machine: usize },
    Verdict { router: Node, machine: usize, is_unhealthy: bool },
    Region { router: Node, about: usize, state: RegionState, share: f64 },
    Leased { by: Node, which: usize, stamp: Stamp },
    Recorded { by: Node, about: usize, stamp: Stamp },
    Wished { by: Node, machine: usize, state: DesiredState },
    Replacement { by: Node, machine: usize, is_open: bool },
    Scaled { by: Node, desired: u32 },
    Failover { by: Node, about: usize, is_over: bool },
}

/// The latest notes, and a hash of all.
#[derive(Debug)]
pub(crate) struct Trace {
    kept: VecDeque<(u64, Note)>,
    hash: u64,
    notes: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { kept: VecDeque::with_capacity(KEPT), hash: 0xCBF2_9CE4_8422_2325, notes: 0 }
    }
}

impl Trace {
    pub(crate) fn note(&mut self, at_ms: u64, note: Note) {
        self.notes += 1;
        self.hash = note.fingerprint().fold(self.hash ^ at_ms, |hash, word| {
            (hash ^ word).wrapping_mul(0x100_0000_01B3).rotate_left(23)
        });
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((at_ms, note));
    }

    /// Equal for equal runs.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn notes(&self) -> u64 {
        self.notes
    }

    /// The latest notes, one to a line.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.kept.iter().map(|(at_ms, note)| format!("{at_ms:>8} ms  {note}")).collect()
    }
}

impl Note {
    /// All that tells it from another note.
    fn fingerprint(self) -> impl Iterator<Item = u64> {
        let node = |node: Node| (node.region << 16 | node.no) as u64;
        let words = match self {
            Self::Lost { from, to } => [1, node(from), node(to), 0],
            Self::Fault { fault, subject } => [2, fault as u64, subject as u64, 0],
            Self::Over { fault, subject } => [3, fault as u64, subject as u64, 0],
            Self::Sent { router, machine, attempt } => {
                [4, node(router), machine as u64, attempt.into()]
            }
            Self::Forwarded { router, to } => [5, node(router), node(to), 0],
            Self::Ended { router, outcome } => [6, node(router), outcome as u64, 0],
            Self::Finished { router, ending } => [7, node(router), ending as u64, 0],
            Self::Ejected { router, machine } => [8, node(router), machine as u64, 0],
            Self::Rejoined { router, machine } => [9, node(router), machine as u64, 0],
            Self::Verdict { router, machine, is_unhealthy } => {
                [10, node(router), machine as u64, is_unhealthy.into()]
            }
            Self::Region { router, about, state, share } => [
                11,
                node(router),
                (about << 8) as u64 | u64::from(state.severity()),
                share.to_bits(),
            ],
            Self::Leased { by, which, stamp } => {
                [12, node(by), which as u64 + (stamp.epoch << 8), stamp.sequence]
            }
            Self::Recorded { by, about, stamp } => {
                [13, node(by), about as u64 + (stamp.epoch << 8), stamp.sequence]
            }
            Self::Wished { by, machine, state } => [14, node(by), machine as u64, state as u64],
            Self::Replacement { by, machine, is_open } => {
                [15, node(by), machine as u64, is_open.into()]
            }
            Self::Scaled { by, desired } => [16, node(by), desired.into(), 0],
            Self::Failover { by, about, is_over } => [17, node(by), about as u64, is_over.into()],
        };
        words.into_iter()
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { from, to } => write!(f, "lost: a message from {from} to {to}"),
            Self::Fault { fault, subject } => write!(f, "FAULT: {fault} ({subject})"),
            Self::Over { fault, subject } => write!(f, "over: {fault} ({subject})"),
            Self::Sent { router, machine, attempt } => {
                write!(f, "{router} sends a request to i-{machine}, attempt {attempt}")
            }
            Self::Forwarded { router, to } => write!(f, "{router} forwards a request to {to}"),
            Self::Ended { router, outcome } => {
                write!(f, "{router}: its attempt ended: {}", outcome.as_str())
            }
            Self::Finished { router, ending } => write!(f, "{router}: a request is {ending:?}"),
            Self::Ejected { router, machine } => write!(f, "{router} ejects i-{machine}"),
            Self::Rejoined { router, machine } => write!(f, "{router} takes i-{machine} back"),
            Self::Verdict { router, machine, is_unhealthy } => {
                let verdict = if *is_unhealthy { "unhealthy" } else { "healthy" };
                write!(f, "{router}: by its probes, i-{machine} is {verdict}")
            }
            Self::Region { router, about, state, share } => {
                write!(f, "{router}: region {about} is {state}, and keeps {share:.3}")
            }
            Self::Leased { by, which, stamp } => write!(f, "{by} holds lease {which}: {stamp}"),
            Self::Recorded { by, about, stamp } => {
                write!(f, "{by} writes a record about region {about}: {stamp}")
            }
            Self::Wished { by, machine, state } => {
                write!(f, "{by} wants i-{machine} {}", state.as_str())
            }
            Self::Replacement { by, machine, is_open } => {
                let verb = if *is_open { "asks for" } else { "calls off" };
                write!(f, "{by} {verb} a replacement of i-{machine}")
            }
            Self::Scaled { by, desired } => {
                write!(f, "{by} asks for {desired} instances of a pool")
            }
            Self::Failover { by, about, is_over } => {
                let phase = if *is_over { "over" } else { "under way" };
                write!(f, "{by} writes of a failover of region {about} that is {phase}")
            }
        }
    }
}
