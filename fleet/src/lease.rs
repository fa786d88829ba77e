//! Who holds a lease: one contender's part, as a pure machine.
//!
//! The lease is one item that is written conditionally on the stamp (epoch, sequence) that was read.
//! Renewing raises the sequence, taking over raises the epoch. Nobody's clock is compared with another's:
//!
//! - The **holder** believes in its lease for [`HOLD_SHARE`] of the time to live, by its own clock, from
//!   the moment at which it *sent* the last renewal that succeeded.
//! - **Another** takes over when it has seen the same stamp for the whole time to live, by its own clock,
//!   from the moment at which it *got* the stamp.
//!
//! The second span begins after the first and is longer, so the belief ends before the takeover, as long
//! as one clock does not run a third faster than the other. A process that was paused may act on a belief
//! that ended meanwhile; therefore what a holder writes carries its epoch, and is refused where a later
//! one has written.
//!
//! ```text
//!                 free, or unchanged for the time to live: claim
//!            ┌───────────────────────────────────────────────────────┐
//!            │                                                       ▼
//!        Watching ◄─── the stored lease is another's ──────────── Holding ──┐
//!            ▲                                                      │  ▲    │ renew
//!            └──────────────── given back ──────────────────────────┘  └────┘
//! ```
//!
//! Contenders of one lease write to one region, or to a table whose conditions hold across regions. The
//! item is never deleted: its epochs would start again.

use crate::model::{Lease, Stamp, Timestamp};

/// For how much of the time to live a holder believes in its last renewal.
pub const HOLD_SHARE: f64 = 0.75;
/// Between renewals, and between the looks of those who watch.
pub const RENEW_SHARE: f64 = 0.2;
/// After a call that failed or lost, until the next.
const RETRY_SHARE: f64 = 0.05;
/// A time to live outside of these is taken as the nearer one: an answer takes milliseconds, and no fleet
/// waits a day for a new leader.
pub const MIN_TTL_MS: u64 = 200;
pub const MAX_TTL_MS: u64 = 24 * 60 * 60 * 1_000;

/// One process that wants a lease. Times are milliseconds of its own monotonic clock.
#[derive(Clone, Debug)]
pub struct Contender {
    name: String,
    holder: String,
    ttl_ms: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Watching {
        /// What was read last, and since when it has been the same; `None` before the first look.
        seen: Option<(Option<Lease>, u64)>,
        look_at_ms: u64,
    },
    Holding {
        stamp: Stamp,
        /// `None` where the lease was found to be this contender's by a write of unknown age.
        until_ms: Option<u64>,
        renew_at_ms: u64,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Wait { ms: u64 },
    Read,
    Write(Write),
}

/// A conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub lease: Lease,
    /// The stamp that must be stored; `None`: there must be no lease.
    pub expected: Option<Stamp>,
}

impl Contender {
    /// `holder` names one run of one process and is never used again, or a restarted process would take
    /// its former self's lease for its own.
    pub fn new(name: &str, holder: &str, ttl_ms: u64) -> Self {
        let ttl_ms = ttl_ms.clamp(MIN_TTL_MS, MAX_TTL_MS);
        let state = State::Watching { seen: None, look_at_ms: 0 };
        Self { name: name.to_owned(), holder: holder.to_owned(), ttl_ms, state }
    }

    /// The epoch under which this contender holds the lease now.
    pub fn epoch(&self, now_ms: u64) -> Option<u64> {
        match &self.state {
            State::Holding { stamp, until_ms: Some(until_ms), .. } if now_ms < *until_ms => {
                Some(stamp.epoch)
            }
            _ => None,
        }
    }

    /// The next step; `at` is the time of day that a write would be marked with.
    pub fn next(&self, now_ms: u64, at: Timestamp) -> Action {
        match &self.state {
            State::Watching { seen, look_at_ms } => {
                if now_ms < *look_at_ms {
                    return Action::Wait { ms: look_at_ms - now_ms };
                }
                match seen {
                    None => Action::Read,
                    Some((None, _)) => Action::Write(self.claim(None, at)),
                    Some((Some(lease), since_ms)) => {
                        let unchanged = now_ms.saturating_sub(*since_ms) >= self.ttl_ms;
                        match lease.holder.is_none() || unchanged {
                            true => Action::Write(self.claim(Some(lease.stamp), at)),
                            false => Action::Read,
                        }
                    }
                }
            }
            State::Holding { renew_at_ms, .. } if now_ms < *renew_at_ms => {
                Action::Wait { ms: renew_at_ms - now_ms }
            }
            State::Holding { stamp, .. } => {
                Action::Write(self.successor(*stamp, Some(self.holder.clone()), at))
            }
        }
    }

    /// What a look found: the stored lease, if there is one.
    pub fn read(&mut self, stored: Option<Lease>, now_ms: u64) {
        if let Some(lease) = stored.as_ref().filter(|lease| self.is_mine(lease)) {
            self.adopt(lease.stamp, now_ms);
            return;
        }
        let same_as_before = match &self.state {
            State::Watching { seen: Some((seen, since_ms)), .. } => {
                let key = |lease: &Option<Lease>| {
                    lease.as_ref().map(|lease| (lease.stamp, lease.holder.clone()))
                };
                (key(seen) == key(&stored)).then_some(*since_ms)
            }
            _ => None,
        };
        let since_ms = same_as_before.unwrap_or(now_ms);
        let is_free = stored.as_ref().is_none_or(|lease| lease.holder.is_none());
        let look_at_ms = match is_free {
            true => now_ms,
            // The look at which it may have been unchanged for long enough is not put off beyond that.
            false => {
                (now_ms + share(self.ttl_ms, RENEW_SHARE)).min(since_ms + self.ttl_ms).max(now_ms)
            }
        };
        self.state = State::Watching { seen: Some((stored, since_ms)), look_at_ms };
    }

    /// A write was done that was sent at `sent_ms`.
    pub fn done(&mut self, write: &Write, sent_ms: u64) {
        if !self.is_mine(&write.lease) {
            // Given back; another may want it first.
            let look_at_ms = sent_ms + share(self.ttl_ms, RENEW_SHARE);
            self.state = State::Watching { seen: None, look_at_ms };
            return;
        }
        self.state = State::Holding {
            stamp: write.lease.stamp,
            until_ms: Some(sent_ms + share(self.ttl_ms, HOLD_SHARE)),
            renew_at_ms: sent_ms + share(self.ttl_ms, RENEW_SHARE),
        };
    }

    /// A write was refused for what is stored.
    ///
    /// It may be stored by an earlier attempt of this contender, whose answer was lost. When that one was
    /// sent is not known here, so it is renewed before it is believed.
    pub fn refused(&mut self, stored: Option<Lease>, now_ms: u64) {
        self.read(stored, now_ms);
        if let State::Watching { look_at_ms, .. } = &mut self.state {
            *look_at_ms = (*look_at_ms).max(now_ms + share(self.ttl_ms, RETRY_SHARE));
        }
    }

    /// A call failed, and whether it was done is not known.
    pub fn failed(&mut self, now_ms: u64) {
        let again_ms = now_ms + share(self.ttl_ms, RETRY_SHARE);
        match &mut self.state {
            State::Watching { look_at_ms, .. } => *look_at_ms = again_ms,
            State::Holding { renew_at_ms, .. } => *renew_at_ms = again_ms,
        }
    }

    /// Stops believing at once; the write gives the lease back, so that others need not wait. `None` where
    /// it is not held.
    pub fn release(&mut self, at: Timestamp) -> Option<Write> {
        let State::Holding { stamp, until_ms, .. } = &mut self.state else { return None };
        *until_ms = None;
        let stamp = *stamp;
        Some(self.successor(stamp, None, at))
    }

    /// Who held the lease when it was last seen, where that was not this contender.
    pub fn other_holder(&self) -> Option<&str> {
        match &self.state {
            State::Watching { seen: Some((Some(lease), _)), .. } => lease.holder.as_deref(),
            _ => None,
        }
    }

    fn adopt(&mut self, stored: Stamp, now_ms: u64) {
        let believed = match &self.state {
            State::Holding { stamp, until_ms, .. } if stamp.epoch == stored.epoch => *until_ms,
            _ => None,
        };
        self.state = State::Holding { stamp: stored, until_ms: believed, renew_at_ms: now_ms };
    }

    fn claim(&self, expected: Option<Stamp>, at: Timestamp) -> Write {
        let epoch = expected.map_or(0, |stamp| stamp.epoch).saturating_add(1);
        let stamp = Stamp { epoch, sequence: 0 };
        Write { lease: self.lease(stamp, Some(self.holder.clone()), at), expected }
    }

    fn successor(&self, stored: Stamp, holder: Option<String>, at: Timestamp) -> Write {
        let stamp = Stamp { sequence: stored.sequence.saturating_add(1), ..stored };
        Write { lease: self.lease(stamp, holder, at), expected: Some(stored) }
    }

    fn lease(&self, stamp: Stamp, holder: Option<String>, at: Timestamp) -> Lease {
        Lease { name: self.name.clone(), holder, stamp, at }
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        lease.holder.as_deref() == Some(&self.holder)
    }
}

fn share(ttl_ms: u64, share: f64) -> u64 {
    (ttl_ms as f64 * share) as u64
}

#[cfg(test)]
mod tests;
