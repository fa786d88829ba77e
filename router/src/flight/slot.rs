//! One candidate, by this router's own traffic.

use std::{
    mem::ManuallyDrop,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use mrgc_fleet::{
    health::{Admission, Breaker, BreakerState, Change, EjectionConfig, Outcome, Room},
    routing::Live,
};
use tokio::sync::{Notify, watch};

/// Between two moments on record at which a candidate has answered: who asks does so in seconds.
const ANSWERED_STEP_MS: u64 = 500;

/// The breaker has something to say.
const UNCLEAN: u8 = 1;
/// It counts among those that are out for soft failures.
const TAKES_ROOM: u8 = 1 << 1;
/// Whoever waits there leaves.
const LOST: u8 = 1 << 2;

/// What a router's slots have in common.
#[derive(Debug)]
pub(super) struct Rules {
    pub ejection: EjectionConfig,
    pub signs: Signs,
    /// Held while failures that may pass are judged, so that two threads do not both take the last room.
    capping: Mutex<()>,
}

impl Rules {
    pub fn new(ejection: EjectionConfig, signs: Signs) -> Self {
        Self { ejection, signs, capping: Mutex::new(()) }
    }
}

/// What is told at once of who is taken out, and comes back, by this router's own evidence. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Signs(Arc<Listeners>);

#[derive(Debug, Default)]
struct Listeners {
    monitor: Notify,
    data_threads: watch::Sender<()>,
}

impl Signs {
    /// Waits until live requests have ejected a candidate, or brought one back; for one task.
    pub async fn changed(&self) {
        self.0.monitor.notified().await;
    }

    /// Tells whenever a candidate turns out to be lost: whoever waits for it has to look elsewhere.
    pub fn losses(&self) -> watch::Receiver<()> {
        self.0.data_threads.subscribe()
    }
}

/// Counts of one candidate, and what is held against it. They outlive snapshots. On cache lines of their own:
/// every data thread writes them.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot {
    in_flight: AtomicU32,
    /// Requests sent there since the router started.
    sent: AtomicU64,
    in_flight_tokens: AtomicU64,
    /// 0 nearly always, and then nothing else is looked at.
    held: AtomicU8,
    /// See [`Slot::answered_ms`].
    answered_ms: AtomicU64,
    breaker: Mutex<Breaker>,
    rules: Arc<Rules>,
}

impl Slot {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self {
            in_flight: AtomicU32::default(),
            sent: AtomicU64::default(),
            in_flight_tokens: AtomicU64::default(),
            held: AtomicU8::default(),
            answered_ms: AtomicU64::default(),
            breaker: Mutex::default(),
            rules,
        }
    }

    /// What a decision needs to know of it.
    pub fn live(&self, now_ms: u64) -> Live {
        let (masked, share) = match self.held.load(Relaxed) {
            0 => (false, 1.0),
            held => self.mask_and_share(held, now_ms),
        };
        Live {
            in_flight: self.in_flight.load(Relaxed),
            in_flight_tokens: self.in_flight_tokens.load(Relaxed),
            masked,
            share,
        }
    }

    #[cold]
    fn mask_and_share(&self, held: u8, now_ms: u64) -> (bool, f32) {
        let state = self.state(now_ms);
        let masked = state.is_masked() || held & LOST != 0;
        (masked, state.share(&self.rules.ejection))
    }

    /// By live requests alone.
    fn state(&self, now_ms: u64) -> BreakerState {
        match self.is(UNCLEAN) {
            true => self.breaker().state(now_ms, &self.rules.ejection),
            false => BreakerState::Healthy,
        }
    }

    /// Requests of this router under way there.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Requests sent there since the router started.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// A request of so many tokens is sent there.
    pub fn started(&self, tokens: u64) {
        self.in_flight.fetch_add(1, Relaxed);
        self.sent.fetch_add(1, Relaxed);
        self.in_flight_tokens.fetch_add(tokens, Relaxed);
    }

    /// It has ended, however it did.
    pub fn ended(&self, tokens: u64) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.in_flight_tokens.fetch_sub(tokens, Relaxed);
    }

    /// When it last answered a live request, give or take half a second; 0 for never.
    pub fn answered_ms(&self) -> u64 {
        self.answered_ms.load(Relaxed)
    }

    /// Whether live requests keep it out, but for those that try it out.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        matches!(self.state(now_ms), BreakerState::Ejected { .. } | BreakerState::Probing { .. })
    }

    /// Whether its ejection lasts, so that nobody may even try it out.
    pub fn is_shut_out(&self, now_ms: u64) -> bool {
        matches!(self.state(now_ms), BreakerState::Ejected { .. })
    }

    /// Until when that is so, at the least.
    pub fn shut_out_until_ms(&self, now_ms: u64) -> Option<u64> {
        self.is(UNCLEAN).then(|| self.breaker().ejected_until_ms(now_ms)).flatten()
    }

    /// Whether nobody is to wait for it: a region whose routers do not answer pings, or an instance against
    /// which there is evidence beside these requests, and which answers none of them either.
    pub fn is_lost(&self) -> bool {
        self.is(LOST)
    }

    /// Says so, for one task. Whoever waits there then looks elsewhere.
    pub fn set_lost(&self, is_lost: bool) {
        // Said often, and what all data threads read is not written for nothing.
        if is_lost == self.is_lost() {
            return;
        }
        if is_lost {
            self.held.fetch_or(LOST, Relaxed);
            self.rules.signs.0.data_threads.send_replace(());
        } else {
            self.held.fetch_and(!LOST, Relaxed);
        }
    }

    /// It came back by other evidence, its probes or its heartbeats: it starts slowly.
    pub fn rejoin(&self, now_ms: u64) {
        let mut breaker = self.breaker();
        breaker.rejoin(now_ms, &self.rules.ejection);
        self.mark(&breaker);
    }

    /// Asks for a place for one attempt. `None` while it takes none; one that nobody else is left for goes
    /// there all the same, as its `last_resort`.
    pub fn admit(&self, last_resort: bool, now_ms: u64) -> Option<Permit<'_>> {
        let admission = match self.is(UNCLEAN) {
            true => self.admission(now_ms),
            false => Admission::Yes,
        };
        (admission != Admission::No || last_resort).then_some(Permit { slot: self, admission })
    }

    #[cold]
    fn admission(&self, now_ms: u64) -> Admission {
        let mut breaker = self.breaker();
        let admission = breaker.admit(now_ms, &self.rules.ejection);
        self.mark(&breaker);
        admission
    }

    fn answered(&self, now_ms: u64) {
        let before_ms = self.answered_ms.load(Relaxed);
        if before_ms == 0 || now_ms >= before_ms + ANSWERED_STEP_MS {
            self.answered_ms.store(now_ms.max(1), Relaxed);
        }
    }

    #[cold]
    fn judge(&self, outcome: Outcome, admission: Admission, room: Room, now_ms: u64) -> Change {
        let mut breaker = self.breaker();
        let change = breaker.handle(outcome, admission, room, now_ms, &self.rules.ejection);
        self.mark(&breaker);
        if change != Change::None {
            self.rules.signs.0.monitor.notify_one();
        }
        change
    }

    fn is(&self, held: u8) -> bool {
        self.held.load(Relaxed) & held != 0
    }

    /// Puts in the mark what the breaker says by now. Its lock is held, so that no older word comes last.
    fn mark(&self, breaker: &Breaker) {
        for (bit, is_set) in [(UNCLEAN, !breaker.is_clean()), (TAKES_ROOM, breaker.takes_room())] {
            match is_set {
                true => self.held.fetch_or(bit, Relaxed),
                false => self.held.fetch_and(!bit, Relaxed),
            };
        }
    }

    /// Plain data: a panic elsewhere cannot leave it half-written.
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place on a candidate for one attempt. Dropped with nothing learned, it is given back.
#[derive(Debug)]
#[must_use]
pub struct Permit<'a> {
    slot: &'a Slot,
    admission: Admission,
}

impl Permit<'_> {
    /// Whether it tries out a candidate that was ejected.
    pub fn is_trial(&self) -> bool {
        self.admission == Admission::Trial
    }

    /// Tells what came of the attempt. `pool` is everybody of its pool, asked only where it matters.
    pub(super) fn conclude(self, outcome: Outcome, pool: &[Arc<Slot>], now_ms: u64) -> Change {
        let Self { slot, admission } = *ManuallyDrop::new(self);
        if matches!(outcome, Outcome::Answered | Outcome::Busy) {
            slot.answered(now_ms);
            if !slot.is(UNCLEAN) {
                return Change::None;
            }
        }
        let mut room = Room { taken: 0, instances: pool.len() as u32 };
        let _capping = outcome.is_soft().then(|| slot.rules.capping.lock());
        if outcome.is_soft() {
            room.taken = pool.iter().filter(|slot| slot.is(TAKES_ROOM)).count() as u32;
        }
        slot.judge(outcome, admission, room, now_ms)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_trial() {
            let mut breaker = self.slot.breaker();
            breaker.abandon(self.admission);
            self.slot.mark(&breaker);
        }
    }
}

#[cfg(test)]
mod tests;
