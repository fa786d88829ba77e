//! Faults that the simulator must catch, planted on purpose and only where the feature `planted` is on,
//! which no build of a program has. Code that a fault breaks asks `planted::is`; without the feature the
//! answer is a constant and nothing of it is compiled.

/// A fault of the kind that would pass every test of a single function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The guard is asked on the first attempt only.
    GuardSkippedOnRetry,
    /// One failed probe less condemns an instance.
    ThresholdOffByOne,
    /// A region's state improves as soon as its evidence does.
    NoHysteresis,
    /// Every instance of a pool may be ejected.
    NoEjectionCap,
    /// A record of a lease that was taken over counts.
    StaleLeaseAccepted,
    /// A report older than one that was read counts as heard.
    LowerSequenceAccepted,
    /// A retry may go to the instance that just failed.
    RetryOnTried,
}

#[cfg(not(feature = "planted"))]
pub const fn is(_: Fault) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use on::{Planted, is, plant};

#[cfg(feature = "planted")]
mod on {
    use std::{cell::Cell, marker::PhantomData};

    use super::Fault;

    thread_local! {
        /// One at a time: two faults can hide each other.
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether this thread's code has the fault.
    pub fn is(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Plants a fault in this thread, in place of any other, until the answer is dropped.
    pub fn plant(fault: Fault) -> Planted {
        PLANTED.set(Some(fault));
        Planted(PhantomData)
    }

    /// Takes the fault out when dropped. It stays in its thread.
    #[derive(Debug)]
    #[must_use = "the fault is taken out at once where nobody holds this"]
    pub struct Planted(PhantomData<*const ()>);

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}
