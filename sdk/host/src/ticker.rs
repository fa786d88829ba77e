//! The thread that counts an engine's epochs, by which calls that run too long are ended.
//!
//! It ticks every [`TICK`] while a call runs and every [`REST`] otherwise: nearly every call is over within
//! microseconds, so a look seldom finds one, and an idle router should sleep. A call that runs on is found
//! within one rest, and from then on its time is counted in ticks.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use wasmtime::EngineWeak;

/// How often deadlines are looked at while a call runs: it ends within two of these and one [`REST`]
/// after its deadline.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// How often the ticker looks whether a call runs.
const REST: Duration = Duration::from_millis(4);

/// Whether an instance is in a call. On a cache line of its own: the instance's thread writes it twice for
/// each call, the ticker reads it at each look.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Running(AtomicBool);

impl Running {
    pub(crate) fn set(&self, running: bool) {
        self.0.store(running, Relaxed);
    }
}

/// The marks of an engine's instances. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticker(Arc<Mutex<Vec<Weak<Running>>>>);

impl Ticker {
    /// Ticks on a thread of its own while the engine lives.
    pub(crate) fn start(engine: EngineWeak) -> io::Result<Self> {
        let ticker = Self::default();
        let marks = ticker.clone();
        thread::Builder::new().name("policy-deadlines".into()).spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                // A tick missed while the machine was busy is not made up for: a call must not be charged
                // for it twice.
                thread::sleep(if marks.is_any_running() { TICK } else { REST });
            }
        })?;
        Ok(ticker)
    }

    /// The mark of a new instance.
    pub(crate) fn mark(&self) -> Arc<Running> {
        let mark = Arc::new(Running::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&mark));
        mark
    }

    /// Also forgets the instances that are gone.
    fn is_any_running(&self) -> bool {
        let mut any = false;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|mark| {
            let mark = mark.upgrade();
            any |= mark.as_ref().is_some_and(|mark| mark.0.load(Relaxed));
            mark.is_some()
        });
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_call_is_seen_and_a_dropped_instance_forgotten() {
        let ticker = Ticker::default();
        let (idle, busy) = (ticker.mark(), ticker.mark());
        assert!(!ticker.is_any_running());
        busy.set(true);
        assert!(ticker.is_any_running());
        drop(busy);
        assert!(!ticker.is_any_running());
        assert_eq!(ticker.0.lock().unwrap().len(), 1);
        drop(idle);
    }
}
