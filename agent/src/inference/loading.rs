//! How long the model took to load. Pure: time comes in, as the time since the agent's start.
//!
//! It is measured where the agent saw that no model was ready, and then that one was. It begins when the
//! server's process started, where its metrics say that (`process_start_time_seconds`), and else with the first
//! poll that found nothing ready: then the time until somebody started the server counts, too. Both are as exact
//! as the polls are frequent. A server that was ready when the agent came says nothing about its load.

use std::time::Duration;

/// A longer wait is no load: nobody had started the server.
const MAX_LOAD: Duration = Duration::from_secs(3_600);

/// The load of the model that is ready now.
#[derive(Debug, Default)]
pub(super) struct Loading {
    waiting_since: Option<Duration>,
    last_ready: Option<Duration>,
    took: Option<Duration>,
}

impl Loading {
    /// Takes a poll: whether a model is ready, where that is known, and how long the process runs.
    pub(super) fn observe(
        &mut self,
        is_ready: Option<bool>,
        at: Duration,
        process_age: Option<Duration>,
    ) {
        match is_ready {
            None => {}
            Some(false) => {
                self.waiting_since.get_or_insert(at);
            }
            Some(true) => {
                if let Some(since) = self.waiting_since.take() {
                    self.end(since, at, process_age);
                }
                self.last_ready = Some(at);
            }
        }
    }

    fn end(&mut self, since: Duration, at: Duration, process_age: Option<Duration>) {
        let waited = at.saturating_sub(since);
        let since_ready = self.last_ready.map(|last| at.saturating_sub(last));
        let took = match process_age {
            // The process from before, which only did not answer for a moment.
            Some(age) if since_ready.is_some_and(|since| age > since) => return,
            Some(age) => age,
            None => waited,
        };
        self.took = (took <= MAX_LOAD).then_some(took);
    }

    /// Of the model that is ready; `None` where that was not seen.
    pub(super) fn took_ms(&self) -> Option<u64> {
        let took = self.took.filter(|_| self.waiting_since.is_none())?;
        u64::try_from(took.as_millis()).ok()
    }
}

#[cfg(test)]
mod tests;
