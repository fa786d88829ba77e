//! Reads that fall over to a replica when the region's endpoint is gone, and come back.
//!
//! With no replicas configured a read is one call of the primary. With some, [`Nearest`] says whom to ask
//! in which order, and the call's deadline is shared among them: each but the last may take half of what
//! is left. A source gives way to the next when nothing answers there, when its time is over, or when the
//! service itself fails after its retries (5xx). Throttling, a denial or a missing table at the primary
//! are answers, and stay errors: another region would only hide them.
//!
//! What a replica answers is as old as the replication is behind, typically below a second; also where a
//! read is strongly consistent, which holds within one region. Whoever writes by what was read is safe:
//! the write goes to the primary and carries its condition.
//!
//! **Writes never go to a replica.** A condition is judged where it is written, and global tables resolve
//! two writers of one item by the later timestamp. A heartbeat's fence or a lease's holder, judged in
//! another region on older data, would pass there and silently undo what was decided here. A write whose
//! region is gone fails, and its writer tries again later.

use std::{
    error::Error,
    future::Future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
};
use tokio::time;
use tracing::{info, warn};

use crate::{
    Store,
    counts::add,
    error::{Call, StoreError},
    replicas::{Nearest, Source, Turn, share},
};

/// Where a store's reads go at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadingFrom {
    Primary,
    /// The replica's endpoint, for people.
    Replica(String),
}

/// The same tables in another region.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) client: Client,
    /// For messages.
    pub(crate) name: String,
}

/// The replicas, nearest first, and which source is in use.
#[derive(Debug)]
pub(crate) struct Replicas {
    endpoints: Vec<Endpoint>,
    nearest: Mutex<Nearest>,
    start: Instant,
}

impl Replicas {
    pub(crate) fn new(endpoints: Vec<Endpoint>) -> Self {
        let nearest = Mutex::new(Nearest::new(endpoints.len()));
        Self { endpoints, nearest, start: Instant::now() }
    }

    fn nearest<T>(&self, ask: impl FnOnce(&mut Nearest, Duration) -> T) -> T {
        let mut nearest = self.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut nearest, self.start.elapsed())
    }
}

impl Store {
    /// Where reads go at present. It changes only with reads.
    pub fn reading_from(&self) -> ReadingFrom {
        match self.0.replicas.nearest(|nearest, _| nearest.source()) {
            Source::Primary => ReadingFrom::Primary,
            Source::Replica(i) => ReadingFrom::Replica(self.0.replicas.endpoints[i].name.clone()),
        }
    }

    /// Asks the nearest source that answers. `ask` makes the request for the client that it is given.
    pub(crate) async fn ask<T, E, F>(
        &self,
        call: impl Fn() -> Call,
        ask: impl Fn(&Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        if self.0.replicas.endpoints.is_empty() {
            return ask(&self.0.client).await.map_err(|error| self.failed(call(), error));
        }
        let end = Instant::now() + Duration::from_millis(self.0.timeout_ms);
        let order = self.0.replicas.nearest(|nearest, now| nearest.order(now, fastrand::f64()));
        let mut first_failure = None;
        let mut primary_failed = false;
        for (asked, source) in order.iter().copied().enumerate() {
            let time_left = end.saturating_duration_since(Instant::now());
            let limit = share(time_left, order.len() - asked);
            let (client, endpoint) = self.endpoint(source);
            let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let error = match time::timeout(limit, ask(client)).await {
                Ok(Ok(answer)) => {
                    self.answered(source, primary_failed);
                    return Ok(answer);
                }
                Ok(Err(error)) => StoreError::from_sdk(call(), endpoint, timeout_ms, error),
                Err(_) => {
                    StoreError::Timeout { call: call(), endpoint: endpoint.to_owned(), timeout_ms }
                }
            };
            if source == Source::Primary {
                if !error.is_endpoint_down() {
                    self.0.counters.count_failure(&error);
                    return Err(error);
                }
                primary_failed = true;
            }
            first_failure.get_or_insert(error);
        }
        let error = first_failure.unwrap_or_else(|| {
            let reason = "there was no source to ask".to_owned();
            StoreError::Other { call: call(), reason, retryable: false }
        });
        self.0.counters.count_failure(&error);
        Err(error)
    }

    fn endpoint(&self, source: Source) -> (&Client, &str) {
        match source {
            Source::Primary => (&self.0.client, &self.0.endpoint),
            Source::Replica(i) => {
                let Endpoint { client, name } = &self.0.replicas.endpoints[i];
                (client, name)
            }
        }
    }

    fn answered(&self, source: Source, primary_failed: bool) {
        if source != Source::Primary {
            add(&self.0.counters.replica_reads);
        }
        let turn = self
            .0
            .replicas
            .nearest(|nearest, now| nearest.answered(source, primary_failed, now, fastrand::f64()));
        let primary = &self.0.endpoint;
        match turn {
            None => {}
            Some(Turn::ToPrimary) => info!(primary, "the primary answers again: reads are back"),
            Some(Turn::ToReplica(i)) => {
                add(&self.0.counters.turned_to_replica);
                let replica = &self.0.replicas.endpoints[i].name;
                warn!(primary, replica, "the primary does not answer: reads go to a replica");
            }
        }
    }
}
