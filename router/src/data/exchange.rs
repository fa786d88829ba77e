//! One exchange with an upstream: what it holds, and how it can end.

use std::{rc::Rc, sync::Arc, task::Context};

use super::{meter::Measurement, shard::Shard, stats::Stats, upstream::Connection};
use crate::flight::InFlight;

/// Held until the response's body has ended.
#[derive(Debug)]
pub(super) struct Exchange {
    shard: Rc<Shard>,
    address: Arc<str>,
    connection: Option<Connection>,
    /// How long it takes is measured up to its end; only of one that may end well.
    measurement: Option<Measurement>,
    done: bool,
    _in_flight: InFlight,
}

impl Exchange {
    pub fn new(
        shard: Rc<Shard>,
        address: Arc<str>,
        connection: Connection,
        in_flight: InFlight,
    ) -> Self {
        Self {
            shard,
            address,
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

    /// Lets the connection bring more of the body.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection {
            connection.drive(cx);
        }
    }

    /// The body has ended: the connection can carry another request.
    pub fn completed(&mut self) {
        self.done = true;
        if let Some(measurement) = self.measurement.take() {
            self.shard.meter.completed(measurement);
        }
        if let Some(connection) = self.connection.take() {
            let most = self.shard.config().limits.idle_connections;
            self.shard.idle.borrow_mut().keep(&self.address, connection, most);
        }
    }

    /// The upstream broke off in the middle: the client has seen part of it, so nobody else is tried.
    pub fn broken(&mut self, error: &dyn std::fmt::Display) {
        self.done = true;
        tracing::info!(address = &*self.address, "response broke off: {error}");
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
