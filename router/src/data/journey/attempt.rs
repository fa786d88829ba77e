//! One attempt: the request on its way to one candidate, up to the head of the response.

use std::{future::poll_fn, task::Poll, time::Duration};

use http::{HeaderMap, Response, StatusCode};
use mrgc_fleet::{health::Outcome, snapshot::Level};

use super::Journey;
use crate::{
    data::{
        alarm,
        exchange::Exchange,
        shard::{InFlight, Place},
        stats::Stats,
        upstream::{self, Connection, SendError, Terms},
        wire::WireError,
    },
    flight::Slot,
    problem::{Failure, NO_CAPACITY},
};

impl Journey<'_> {
    /// One attempt, with headers added: counted in flight from here to the end of its response's body.
    pub(super) async fn attempt(
        &mut self,
        address: &str,
        place: Place<'_>,
        added: &HeaderMap,
    ) -> Option<(Response<()>, Exchange)> {
        if self.received.body.is_gone() {
            self.trail.give_up();
            return None;
        }
        let (shard, level) = (self.shard, place.candidate.level);
        let permit = place.admit(shard.now_ms())?;
        if permit.is_trial() {
            Stats::count(&shard.stats.trials);
        }
        if self.trail.attempts() > 0 {
            Stats::count(&shard.stats.retries);
        }
        self.trail.begin();
        let facts = &self.received.facts;
        let tokens =
            u64::from(facts.prompt_tokens.unwrap_or(0)) + u64::from(facts.max_tokens.unwrap_or(0));
        let in_flight = InFlight::new(place, tokens);
        let sent = self.send(address, place.slot, permit.is_trial(), added).await;
        let (outcome, counts) = match &sent {
            Ok((response, _)) => (outcome(level, response), true),
            Err(error) => (error.outcome(), is_evidence(level, error)),
        };
        // What is no evidence gives the permit back.
        if let Some(outcome) = self.trail.ended(place.candidate, outcome).filter(|_| counts) {
            shard.judge(place, permit, outcome);
        }
        match sent {
            Ok((response, connection)) => {
                Some((response, Exchange::new(shard.clone(), connection, in_flight)))
            }
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    fn note(&mut self, error: &SendError) {
        tracing::info!(decision = %self.decision, "attempt failed: {error}");
        let (stats, mut how) = (&self.shard.stats, Failure::Broken);
        match error {
            SendError::Connect { .. } => {
                Stats::count(&stats.connect_failures);
                how = Failure::Unreachable;
            }
            SendError::Lost { .. } => {
                Stats::count(&stats.abandoned);
                how = Failure::Unreachable;
            }
            SendError::Timeout { .. } => how = Failure::TimedOut,
            SendError::NoSocket { .. } | SendError::Broken { .. } => {}
        }
        self.last = Some((how, error.to_string()));
    }

    /// Sends the request over a kept connection or a new one, and waits for the head of its response. A
    /// server may close a kept one in the moment it is used, which says nothing of the server: the request
    /// is then sent again over a new one. One that cannot be sent again is not risked on a kept one.
    ///
    /// The candidate may turn out to be lost meanwhile: then this ends, unless the request's body is gone, too.
    /// A connection to a machine that is gone breaks by itself, and within seconds.
    async fn send(
        &mut self,
        address: &str,
        slot: &Slot,
        is_trial: bool,
        added: &HeaderMap,
    ) -> Result<(Response<()>, Box<Connection>), SendError> {
        let (idle, limits) = (&self.shard.idle, &self.shard.config().limits);
        let first_byte = Duration::from_millis(limits.first_byte_timeout_ms);
        let can_resend = self.received.body.is_kept();
        // One that is tried as a last resort is waited for.
        let may_leave = can_resend && !slot.is_lost();
        let is_lost = || may_leave && slot.is_lost();
        let mut terms = Terms {
            timeout: limits.connect_timeout(),
            // That one is still open says nothing of whether there can be new ones.
            may_reuse: can_resend && !is_trial,
            is_streamed: !can_resend,
        };
        loop {
            let (mut connection, was_kept) =
                upstream::connection(idle, address, terms, is_lost).await?;
            connection.begin(&self.received.head, added, self.received.body.send());
            let limit = first_byte.min(self.left());
            let head = poll_fn(|cx| match connection.poll_head(cx) {
                Poll::Pending if is_lost() => Poll::Ready(None),
                head => head.map(Some),
            });
            let address = || address.to_owned();
            match alarm::within(limit, head).await {
                Some(Some(Ok(response))) => return Ok((response, connection)),
                Some(Some(Err(WireError::Closed | WireError::Io(_)))) if was_kept => {
                    terms.may_reuse = false;
                }
                Some(Some(Err(error))) => {
                    return Err(SendError::Broken { address: address(), error });
                }
                Some(None) => return Err(SendError::Lost { address: address() }),
                None => {
                    let by_request = limit < first_byte || !can_resend;
                    let ms = limit.as_millis() as u64;
                    return Err(SendError::Timeout { address: address(), ms, by_request });
                }
            }
        }
    }

    /// An instance that is itself behind a failing gateway, or sheds load, is not the last word while
    /// attempts are left. A 500 is: more often than not it is the request that an inference server fails on,
    /// and it would fail on the next one as well. It counts against both, and is not tried again.
    pub(super) fn is_worth_retrying(&mut self, status: StatusCode, who: &str) -> bool {
        let how = match status {
            StatusCode::BAD_GATEWAY => Failure::Broken,
            StatusCode::SERVICE_UNAVAILABLE => Failure::Full,
            StatusCode::GATEWAY_TIMEOUT => Failure::TimedOut,
            _ => return false,
        };
        self.last = Some((how, format!("{who} answered {status}")));
        !self.is_spent()
    }
}

/// What a response says of who gave it. Another region's router passes on what its instances say, and that is
/// evidence about them.
fn outcome(level: Level, response: &Response<()>) -> Outcome {
    match level {
        Level::Instance => Outcome::of_status(response.status().as_u16()),
        Level::Region if response.headers().contains_key(NO_CAPACITY) => Outcome::Busy,
        Level::Region => Outcome::Answered,
    }
}

/// Whether a failure is the candidate's doing. Another region's router may wait for an instance itself: its
/// pings tell whether it lives.
fn is_evidence(level: Level, error: &SendError) -> bool {
    match error {
        SendError::Connect { .. } => true,
        SendError::Broken { error, .. } => !matches!(error, WireError::Body(_)),
        SendError::Timeout { by_request, .. } => !by_request && level == Level::Instance,
        SendError::NoSocket { .. } | SendError::Lost { .. } => false,
    }
}
