//! One exchange with an upstream: what it holds, and how it can end.

use std::{rc::Rc, sync::Arc, task::Context};

use super::{shard::Shard, stats::Stats, upstream::Connection};
use crate::flight::InFlight;

/// Held until the response's body has ended.
#[derive(Debug)]
pub(super) struct Exchange {
    shard: Rc<Shard>,
    address: Arc<str>,
    connection: Option<Connection>,
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
        Self { shard, address, connection: Some(connection), done: false, _in_flight: in_flight }
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
