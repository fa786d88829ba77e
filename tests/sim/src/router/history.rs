//! What a router knows of past failovers from the store.

use crate::{
    calls::{Asked, Call},
    world::World,
};

/// Until it is read again that was not.
const TRY_AGAIN_MS: u64 = 5_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// In which epoch of its lease.
    pub known_in: Option<u64>,
    asked_ms: Option<u64>,
}

impl World {
    /// Reads what the lease's holders before this one have written, until that is known; and once, as soon as
    /// it starts, what there is.
    pub(super) fn read_history(&mut self, no: usize) {
        let router = &mut self.routers[no];
        let (epoch, now_ms) = (router.epochs(self.now_ms).failover, router.now_ms(self.now_ms));
        let history = &mut router.history;
        let is_first = history.asked_ms.is_none();
        let is_due = history.asked_ms.is_none_or(|asked_ms| now_ms >= asked_ms + TRY_AGAIN_MS);
        let is_new = epoch.is_some() && epoch != history.known_in;
        if is_first || (is_new && is_due) {
            history.asked_ms = Some(now_ms);
            self.call(no, Call::ReadHistory, Asked::ReadHistory { epoch });
        }
    }
}
