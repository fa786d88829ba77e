//! What live requests say of one candidate.
//!
//! ```text
//!             unreachable, or 5 soft failures in a row and room
//!      Healthy ──────────────────────────────────────────────► Ejected ◄─┐
//!         ▲                                                       │      │ a trial failed:
//!         │ all trials answered: ramping up            its time is over, │ longer than before
//!         │                                            or it answered    │
//!         └───────────────────────────────────────────── Probing ────────┘
//! ```
//!
//! A soft failure (a 5xx, a timeout, a broken connection) may be the request's fault, and a pool that fails
//! as a whole serves better overloaded than not at all. So soft failures eject at most a share of a pool.
//! Who cannot be connected to serves nobody, and is ejected whatever the others do.

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::planted::{self, Fault};

/// Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EjectionConfig {
    /// Soft failures in a row that eject.
    pub consecutive_failures: u32,
    /// The first ejection's time; each further one's is twice the one before.
    pub base_ms: u64,
    pub max_ms: u64,
    /// Of a pool's instances, how many may be out for soft failures at once, 0 to 1.
    pub max_share: f64,
    /// Requests at once that try out a candidate after its ejection, and answers that bring it back.
    pub trial_requests: u32,
    /// For how long a candidate that came back gets less than its share.
    pub slow_start_ms: u64,
    /// The share that it begins with, above 0 to 1.
    pub slow_start_floor: f64,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ms: 2_000,
            max_ms: 60_000,
            max_share: 0.5,
            trial_requests: 3,
            slow_start_ms: 30_000,
            slow_start_floor: 0.1,
        }
    }
}

impl EjectionConfig {
    /// All that contradicts itself or makes no sense.
    pub fn problems(&self) -> Vec<String> {
        let Self { base_ms, max_ms, max_share, slow_start_floor, .. } = *self;
        let mut problems = Vec::new();
        if self.consecutive_failures == 0 {
            problems.push("consecutive_failures is 0: it must be at least 1".to_owned());
        }
        if self.trial_requests == 0 {
            problems.push(
                "trial_requests is 0: nobody that was ejected could come back; it must be at least 1"
                    .to_owned(),
            );
        }
        if base_ms == 0 || base_ms > max_ms {
            problems.push(format!(
                "the first ejection's time ({base_ms} ms) must be above 0 and at most the longest's \
                 ({max_ms} ms)"
            ));
        }
        if !(0.0..=1.0).contains(&max_share) {
            problems.push(format!("max_share is {max_share}: it must be from 0 to 1"));
        }
        if !(slow_start_floor > 0.0 && slow_start_floor <= 1.0) {
            problems.push(format!(
                "slow_start_floor is {slow_start_floor}: it must be above 0 and at most 1"
            ));
        }
        problems
    }
}

/// How many of a pool's instances are out for soft failures, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Those whose [`Breaker::takes_room`].
    pub taken: u32,
    pub instances: u32,
}

impl Room {
    /// Whether one more may be ejected for soft failures. One always may, or a pool of one or two would
    /// never be rid of an instance that fails.
    pub fn for_one_more(self, max_share: f64) -> bool {
        planted::is(Fault::NoEjectionCap)
            || self.taken == 0
            || f64::from(self.taken) + 1.0 <= f64::from(self.instances) * max_share
    }
}

/// The answer to whoever is about to begin an attempt; it is given back with the attempt's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Yes,
    /// Tries out a candidate that was ejected. Its place must be given back: by [`Breaker::handle`], or
    /// by [`Breaker::abandon`].
    Trial,
    No,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    Ejected {
        until_ms: u64,
        cause: Outcome,
    },
    /// It answered before its time was over, and is tried out.
    Probing,
    /// It takes requests again, few at first.
    Rejoined,
}

/// What a decision needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BreakerState {
    Healthy,
    /// Came back, and takes this share of the decisions that it could be part of.
    Ramping {
        share: f32,
    },
    /// `room`: one more trial may begin.
    Probing {
        room: bool,
    },
    /// `soft`: for failures that may be the requests' fault.
    Ejected {
        soft: bool,
    },
}

impl BreakerState {
    /// Whether it takes no request now.
    pub fn is_masked(self) -> bool {
        matches!(self, Self::Ejected { .. } | Self::Probing { room: false })
    }

    /// Of the decisions that it could be part of, those that it takes: [`crate::routing::Live::share`].
    pub fn share(self, config: &EjectionConfig) -> f32 {
        match self {
            Self::Ramping { share } => share,
            Self::Probing { .. } => config.slow_start_floor as f32,
            Self::Healthy | Self::Ejected { .. } => 1.0,
        }
    }
}

/// The evidence of one candidate's live requests.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    /// Ejections that are held against it: each doubles the next one's time.
    ejections: u32,
    /// Attempts admitted as trials that have not ended, those of an earlier ejection included.
    trials: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Healthy {
        /// Soft failures in a row.
        failures: u32,
        /// When it came back, while that matters.
        back: Option<Back>,
    },
    Ejected {
        soft: bool,
        until_ms: u64,
    },
    Probing {
        soft: bool,
        passes: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Back {
    since_ms: u64,
    /// From when on the next ejection is forgotten.
    forget_ms: u64,
}

impl Default for State {
    fn default() -> Self {
        Self::Healthy { failures: 0, back: None }
    }
}

impl Breaker {
    /// An attempt is about to begin: whether it may.
    pub fn admit(&mut self, now_ms: u64, config: &EjectionConfig) -> Admission {
        match self.state {
            State::Healthy { .. } => return Admission::Yes,
            State::Ejected { until_ms, .. } if now_ms < until_ms => return Admission::No,
            State::Ejected { soft, .. } => self.state = State::Probing { soft, passes: 0 },
            State::Probing { .. } => {}
        }
        if self.trials >= config.trial_requests {
            return Admission::No;
        }
        self.trials += 1;
        Admission::Trial
    }

    /// An attempt ended without evidence: a trial gives its place back.
    pub fn abandon(&mut self, admission: Admission) {
        if admission == Admission::Trial {
            self.trials = self.trials.saturating_sub(1);
        }
    }

    /// An attempt ended. `admission` is what it began with; one that had none, because nobody was left to
    /// send it to, passes [`Admission::No`].
    pub fn handle(
        &mut self,
        outcome: Outcome,
        admission: Admission,
        room: Room,
        now_ms: u64,
        config: &EjectionConfig,
    ) -> Change {
        self.abandon(admission);
        let is_trial = admission == Admission::Trial;
        match (outcome, self.state) {
            (Outcome::Busy, _) => Change::None,
            (Outcome::Unreachable, State::Ejected { until_ms, .. }) if now_ms < until_ms => {
                self.state = State::Ejected { soft: false, until_ms };
                Change::None
            }
            (Outcome::Unreachable, _) => self.eject(outcome, now_ms, config),
            (Outcome::Answered, State::Healthy { back, .. }) => {
                let back = self.forget(back, now_ms, config);
                self.state = State::Healthy { failures: 0, back };
                Change::None
            }
            (Outcome::Answered, State::Ejected { soft, .. }) => {
                self.state = State::Probing { soft, passes: 0 };
                Change::Probing
            }
            (Outcome::Answered, State::Probing { soft, passes }) if is_trial => {
                self.pass(soft, passes + 1, now_ms, config)
            }
            (_, State::Healthy { failures, back }) => {
                let failures = failures.saturating_add(1);
                let back = self.forget(back, now_ms, config);
                self.state = State::Healthy { failures, back };
                let ejects =
                    failures >= config.consecutive_failures && room.for_one_more(config.max_share);
                if ejects { self.eject(outcome, now_ms, config) } else { Change::None }
            }
            (_, State::Probing { soft, .. }) if is_trial => {
                if soft || room.for_one_more(config.max_share) {
                    return self.eject(outcome, now_ms, config);
                }
                self.state = State::Probing { soft, passes: 0 };
                Change::None
            }
            // Begun before the ejection: what it met is known already.
            (_, State::Ejected { .. } | State::Probing { .. }) => Change::None,
        }
    }

    /// It came back by other evidence, its probes or its heartbeats, and starts slowly. What live requests
    /// hold against it stands: a health answer may lie.
    pub fn rejoin(&mut self, now_ms: u64, config: &EjectionConfig) {
        if let State::Healthy { failures, .. } = self.state {
            self.state = State::Healthy { failures, back: Some(Back::new(now_ms, config)) };
        }
    }

    pub fn state(&self, now_ms: u64, config: &EjectionConfig) -> BreakerState {
        match self.state {
            State::Healthy { back: Some(back), .. } => {
                let ramped = now_ms.saturating_sub(back.since_ms);
                if ramped >= config.slow_start_ms {
                    return BreakerState::Healthy;
                }
                let ramped = ramped as f64 / config.slow_start_ms as f64;
                let floor = config.slow_start_floor;
                BreakerState::Ramping { share: (floor + (1.0 - floor) * ramped) as f32 }
            }
            State::Healthy { back: None, .. } => BreakerState::Healthy,
            State::Ejected { soft, until_ms } if now_ms < until_ms => {
                BreakerState::Ejected { soft }
            }
            State::Ejected { .. } | State::Probing { .. } => {
                BreakerState::Probing { room: self.trials < config.trial_requests }
            }
        }
    }

    /// Until when its ejection lasts, while it does.
    pub fn ejected_until_ms(&self, now_ms: u64) -> Option<u64> {
        match self.state {
            State::Ejected { until_ms, .. } => Some(until_ms).filter(|until_ms| now_ms < *until_ms),
            State::Healthy { .. } | State::Probing { .. } => None,
        }
    }

    /// Whether it counts among those that are out for soft failures, for [`Room::taken`].
    pub fn takes_room(&self) -> bool {
        matches!(self.state, State::Ejected { soft: true, .. } | State::Probing { soft: true, .. })
    }

    /// Whether nothing is held against it and nothing of it is under way: it need not be asked.
    pub fn is_clean(&self) -> bool {
        matches!(self.state, State::Healthy { failures: 0, back: None })
            && self.ejections == 0
            && self.trials == 0
    }

    fn pass(&mut self, soft: bool, passes: u32, now_ms: u64, config: &EjectionConfig) -> Change {
        if passes < config.trial_requests {
            self.state = State::Probing { soft, passes };
            return Change::None;
        }
        self.state = State::Healthy { failures: 0, back: Some(Back::new(now_ms, config)) };
        Change::Rejoined
    }

    fn eject(&mut self, cause: Outcome, now_ms: u64, config: &EjectionConfig) -> Change {
        let factor = 1u64.checked_shl(self.ejections).unwrap_or(u64::MAX);
        let for_ms = config.base_ms.saturating_mul(factor).min(config.max_ms);
        // At the longest time another doubling would only make it be remembered for longer.
        if for_ms < config.max_ms {
            self.ejections += 1;
        }
        let until_ms = now_ms.saturating_add(for_ms);
        self.state = State::Ejected { soft: cause.is_soft(), until_ms };
        Change::Ejected { until_ms, cause }
    }

    /// Forgets one ejection for each longest ejection's time that it has been back, and that it was ever
    /// away once there is none left and it takes its whole share.
    fn forget(&mut self, back: Option<Back>, now_ms: u64, config: &EjectionConfig) -> Option<Back> {
        let mut back = back?;
        while self.ejections > 0 && now_ms >= back.forget_ms {
            self.ejections -= 1;
            back.forget_ms = back.forget_ms.saturating_add(config.max_ms);
        }
        let is_ramping = now_ms.saturating_sub(back.since_ms) < config.slow_start_ms;
        (self.ejections > 0 || is_ramping).then_some(back)
    }
}

impl Back {
    fn new(now_ms: u64, config: &EjectionConfig) -> Self {
        Self { since_ms: now_ms, forget_ms: now_ms.saturating_add(config.max_ms) }
    }
}

#[cfg(test)]
mod tests;
