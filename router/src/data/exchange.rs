//! One exchange with an upstream: what it holds, and how it can end.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    meter::Measurement,
    shard::{InFlight, Shard},
    stats::Stats,
    upstream::Connection,
    wire::WireError,
};

/// Held until the response's body has ended.
#[derive(Debug)]
pub(super) struct Exchange {
    shard: Rc<Shard>,
    /// `None` once it brought the whole response.
    connection: Option<Box<Connection>>,
    /// How long it takes is measured up to its end; only of one that may end well.
    measurement: Option<Measurement>,
    done: bool,
    _in_flight: InFlight,
}

impl Exchange {
    pub fn new(shard: Rc<Shard>, connection: Box<Connection>, in_flight: InFlight) -> Self {
        Self {
            shard,
            connection: Some(connection),
            measurement: None,
            done: false,
            _in_flight: in_flight,
        }
    }

    /// Its response is passed on: what is told again when it has ended.
    pub fn measure(&mut self, measurement: Option<Measurement>) {
        self.measurement = measurement;
    }

    /// The next part of its response's body.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        let frame = ready!(connection.poll_frame(cx));
        self.complete_if_ended();
        Poll::Ready(frame)
    }

    /// Once the body has ended, the connection can carry another request.
    fn complete_if_ended(&mut self) {
        let Some(connection) = self.connection.take_if(|connection| connection.has_ended()) else {
            return;
        };
        self.done = true;
        if let Some(measurement) = self.measurement.take() {
            self.shard.meter.completed(measurement);
        }
        let most = self.shard.config().limits.idle_connections;
        self.shard.idle.borrow_mut().keep(connection, most);
    }

    /// The rest of the body, where all of it was read already.
    pub fn take_rest(&mut self) -> Option<Bytes> {
        let rest = self.connection.as_mut()?.take_rest()?;
        self.complete_if_ended();
        Some(rest)
    }

    pub fn has_completed(&self) -> bool {
        self.connection.is_none()
    }

    /// How much of the body is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match &self.connection {
            Some(connection) => connection.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }

    /// The upstream broke off in the middle: the client has seen part of it, so nobody else is tried.
    pub fn broken(&mut self, error: &dyn std::fmt::Display) {
        self.done = true;
        let address = self.connection.as_ref().map(|connection| &**connection.address());
        tracing::info!(address, "response broke off: {error}");
    }

    /// The response is not passed on: whoever waits for one gets another.
    pub fn discard(&mut self) {
        self.done = true;
    }
}

impl Drop for Exchange {
    /// A body dropped before its end: the client went away. The connection closes, which tells the upstream.
    fn drop(&mut self) {
        if !self.done {
            Stats::count(&self.shard.stats.client_gone);
        }
    }
}
