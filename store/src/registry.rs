//! The instances of a region, for programs that manage them: each step of an instance's life is a call.
//!
//! A [`Registry`] holds the generation and the sequence of each instance that it registered, so its calls
//! name the instance only. Calls about one instance are written one after the other. Where another process
//! registers the same id, this one's next call is [`StoreError::Fenced`] and names the other.
//!
//! What this process has not registered it can read, remove ([`Registry::delete`]), or want drained or in
//! quarantine ([`Store::desire`]); it cannot speak for it.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use mrgc_fleet::model::{
    Health, InstanceId, Lifecycle, PoolId, RegionId, Registration, Report, Standing, Writer,
};
use tokio::sync;

use crate::{Store, clock, error::StoreError, item, routing_state::GENERATION, schema::Table};

impl Store {
    /// Removes an instance that is gone for good, whoever registered it, and what was wanted of it. One that
    /// has registered anew stays: [`StoreError::Fenced`]. What is gone already is no error.
    pub async fn forget(&self, gone: &Registration) -> Result<(), StoreError> {
        self.deregister(&gone.id, &gone.region, gone.generation).await?;
        self.forget_desired(&gone.region, &gone.id).await
    }

    /// The same, for programs: one that a person keeps out of service stays. What was wanted of it goes first, so
    /// that who breaks off half-way finds the instance again.
    pub async fn forget_unheld(&self, gone: &Registration) -> Result<(), StoreError> {
        if self.forget_unheld_desired(&gone.region, &gone.id).await? {
            self.deregister(&gone.id, &gone.region, gone.generation).await?;
        }
        Ok(())
    }
}

/// The instances of one region. Share it by reference or in an `Arc`.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    region: RegionId,
    writer: Writer,
    /// The last report of each instance that was registered here; locked while the next is written.
    held: Mutex<HashMap<InstanceId, Arc<sync::Mutex<Report>>>>,
    /// When each instance's (generation, sequence) was first seen, for `stale`.
    seen: Mutex<HashMap<InstanceId, Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    fence: (u64, u64),
    since: Instant,
}

impl Registry {
    pub fn new(store: Store, region: impl Into<RegionId>) -> Self {
        let writer = Writer { id: format!("{:016x}", fastrand::u64(..)), host: None };
        Self {
            store,
            region: region.into(),
            writer,
            held: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    pub fn region(&self) -> &RegionId {
        &self.region
    }

    /// Registers an instance under a new generation, and reports it as registering: it gets no requests
    /// before [`Registry::mark_available`]. Its region, generation, time and writer are this registry's,
    /// whatever it says. Of two processes that register one id, the later has it.
    pub async fn register_new_instance(
        &self,
        instance: Registration,
    ) -> Result<Registration, StoreError> {
        let registration = Registration {
            region: self.region.clone(),
            registered_at: clock::now(),
            writer: Some(self.writer.clone()),
            ..instance
        };
        let registered = self.store.register(&registration).await?;
        let id = &registered.id;
        let first = Report::new(id.clone(), self.region.clone(), registered.generation, 0);
        let first = Arc::new(sync::Mutex::new(first));
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), first);
        self.write(id, |_| ()).await?;
        Ok(registered)
    }

    /// Lets requests in, once its reports say that it is fit.
    pub async fn mark_available(&self, id: &InstanceId) -> Result<(), StoreError> {
        self.become_state(id, Lifecycle::Available, None).await
    }

    /// No new requests; those under way end.
    pub async fn mark_draining(&self, id: &InstanceId) -> Result<(), StoreError> {
        self.become_state(id, Lifecycle::Draining, None).await
    }

    /// It is drained, and being cleaned.
    pub async fn mark_cleaning(&self, id: &InstanceId) -> Result<(), StoreError> {
        self.become_state(id, Lifecycle::Cleaning, None).await
    }

    /// Something is wrong with it. It stays out until it is marked available again.
    pub async fn mark_quarantined(&self, id: &InstanceId, reason: &str) -> Result<(), StoreError> {
        self.become_state(id, Lifecycle::Quarantined, Some(reason.to_owned())).await
    }

    /// It is gone for good: only a new registration brings its id back.
    pub async fn mark_terminated(&self, id: &InstanceId) -> Result<(), StoreError> {
        let held = self.held("UpdateItem", id)?;
        let last = held.lock().await;
        self.store.deregister(id, &self.region, last.generation).await?;
        self.forget(id);
        Ok(())
    }

    /// Reports that it lives, and its queue; what else it reported stays.
    pub async fn heartbeat(&self, id: &InstanceId, queue_depth: u32) -> Result<(), StoreError> {
        self.write(id, |report| report.queue_depth = Some(queue_depth)).await
    }

    /// Reports what routing goes by, and returns the score that follows from it.
    pub async fn update_routing_metrics(
        &self,
        id: &InstanceId,
        queue_depth: u32,
        avg_latency_ms: f64,
        health: Health,
    ) -> Result<f64, StoreError> {
        self.write(id, |report| {
            report.queue_depth = Some(queue_depth);
            report.avg_latency_ms = Some(avg_latency_ms);
            report.health = health;
        })
        .await?;
        Ok(mrgc_fleet::routing::routing_score(f64::from(queue_depth), avg_latency_ms, health))
    }

    /// One instance, strongly consistent.
    pub async fn get(&self, id: &InstanceId) -> Result<Option<Standing>, StoreError> {
        self.store.instance(&self.region, id).await
    }

    /// The instances that are available, all told, by id; of one pool or of all.
    pub async fn available(&self, pool: Option<&PoolId>) -> Result<Vec<Standing>, StoreError> {
        let mut instances = self.store.instances(&self.region).await?;
        instances.retain(|standing| {
            standing.lifecycle() == Lifecycle::Available
                && pool.is_none_or(|pool| standing.registration.pool == *pool)
        });
        Ok(instances)
    }

    /// The available instances that are not unhealthy and have a score: the best first, `limit` at most.
    pub async fn best_for_routing(&self, limit: usize) -> Result<Vec<Standing>, StoreError> {
        let score = |standing: &Standing| {
            let report = standing.report.as_ref()?;
            let score = report.routing_score.filter(|_| report.health != Health::Unhealthy)?;
            // As an integer that orders as it does: scores are 0 to 100.
            Some(score.max(0.0).to_bits())
        };
        let mut instances = self.available(None).await?;
        instances.retain(|standing| score(standing).is_some());
        // Stable: of equal scores, the lower id comes first.
        instances.sort_by_key(|standing| Reverse(score(standing)));
        instances.truncate(limit);
        Ok(instances)
    }

    /// A pool's instances, in whatever state, by id.
    pub async fn by_pool(&self, pool: &PoolId) -> Result<Vec<Standing>, StoreError> {
        let mut instances = self.store.instances(&self.region).await?;
        instances.retain(|standing| standing.registration.pool == *pool);
        Ok(instances)
    }

    /// The instances that have not reported for `after`, by id.
    ///
    /// It is told by this process's own clock, from when it first saw each one's last report here: so the
    /// first call finds none, and who wants to know calls it regularly. What the instances' clocks say
    /// does not matter.
    pub async fn stale(&self, after: Duration) -> Result<Vec<Standing>, StoreError> {
        let mut instances = self.store.instances(&self.region).await?;
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still = HashMap::with_capacity(instances.len());
        instances.retain(|standing| {
            let registration = &standing.registration;
            let sequence = standing.report.as_ref().map_or(0, |report| report.sequence);
            let fence = (registration.generation, sequence);
            let same = seen.get(&registration.id).filter(|seen| seen.fence == fence);
            let since = same.map_or(now, |seen| seen.since);
            still.insert(registration.id.clone(), Seen { fence, since });
            now.duration_since(since) >= after
        });
        *seen = still;
        Ok(instances)
    }

    /// Removes an instance whoever registered it, and what was wanted of it. An agent that still speaks for
    /// it is told by its next report. What is gone already is no error.
    pub async fn delete(&self, id: &InstanceId) -> Result<(), StoreError> {
        let key = self.store.instance_key(&self.region, id).await?;
        let registered = self.store.get(Table::GpuInstances, &key).await?;
        if let Some(generation) = registered.and_then(|item| item::integer(&item, GENERATION)) {
            self.store.deregister(id, &self.region, generation).await?;
        }
        self.store.forget_desired(&self.region, id).await?;
        self.forget(id);
        Ok(())
    }

    async fn become_state(
        &self,
        id: &InstanceId,
        lifecycle: Lifecycle,
        reason: Option<String>,
    ) -> Result<(), StoreError> {
        self.write(id, |report| {
            report.lifecycle = lifecycle;
            report.reason = reason;
        })
        .await
    }

    /// Writes the instance's next report: the last one with a change. A report that was refused changes
    /// nothing; its sequence is used up, for one that failed may have been written all the same.
    async fn write(
        &self,
        id: &InstanceId,
        change: impl FnOnce(&mut Report),
    ) -> Result<(), StoreError> {
        let held = self.held("UpdateItem", id)?;
        let mut last = held.lock().await;
        last.sequence = last.sequence.saturating_add(1);
        let mut next = last.clone();
        next.at = clock::now();
        change(&mut next);
        self.store.report(&next).await?;
        *last = next;
        Ok(())
    }

    fn held(
        &self,
        operation: &'static str,
        id: &InstanceId,
    ) -> Result<Arc<sync::Mutex<Report>>, StoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(id).cloned().ok_or_else(|| {
            let table = Table::RoutingState.name(&self.store.0.table_prefix);
            let key = format!("{} / {id}", self.region);
            let reason = "this process has not registered the instance: register it, or use `desire` \
                          to have another's drained or in quarantine";
            let call = crate::Call { operation, table, key };
            StoreError::Invalid { call, reason: reason.to_owned() }
        })
    }

    fn forget(&self, id: &InstanceId) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
