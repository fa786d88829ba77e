//! Doing in the store what the monitor found, while this router holds the lease for it.

use std::{collections::VecDeque, time::Duration};

use mrgc_fleet::{
    failover::{FailoverEvent, MAX_EVENTS},
    model::{
        Desired, DesiredState, RegionId, Replacement, ReplacementOutcome, Stamp, Standing,
        Timestamp,
    },
    monitor::{Action, Epochs, Scaling},
};
use mrgc_store::{AuditEntry, LeaseKeeper, Store, StoreError};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    cloud::Groups,
    config::{Config, Role},
    monitor::Event,
    sync::wall_clock,
};

/// Actions that wait. At the bound they are dropped: the monitor finds again what is left to do.
const WAITING: usize = 256;
/// Of an action, which is a few writes.
const LIMIT: Duration = Duration::from_secs(10);
/// History that waits for the store to come back; the oldest goes first.
const UNWRITTEN: usize = 256;
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Holds the leases of this router's roles and does what their holder must.
#[derive(Debug, Default)]
pub struct Executor {
    health: Option<LeaseKeeper>,
    failover: Option<LeaseKeeper>,
    waiting: Option<mpsc::Sender<Action>>,
    /// Where the history is, and whose of it counts.
    history: Option<(Store, RegionId)>,
}

impl Executor {
    /// Contends for the leases from now on. `router` is who this is, for people; `groups` are told of what
    /// is to be replaced.
    pub fn start(store: &Store, config: &Config, router: &str, groups: Option<Groups>) -> Self {
        let home = config.home();
        let keep = |role: Role, lease: String| {
            let has = config.roles.has(role);
            has.then(|| store.keep_lease(&lease, router, config.failover.lease()))
        };
        let (waiting, actions) = mpsc::channel(WAITING);
        let worker = Worker {
            store: store.clone(),
            home: home.clone(),
            router: router.to_owned(),
            groups,
            unwritten: VecDeque::new(),
        };
        tokio::spawn(worker.run(actions));
        Self {
            health: keep(Role::Health, format!("health/{home}")),
            failover: keep(Role::Failover, failover_lease(&home)),
            waiting: Some(waiting),
            history: Some((store.clone(), home)),
        }
    }

    pub fn epochs(&self) -> Epochs {
        let epoch = |keeper: &Option<LeaseKeeper>| keeper.as_ref().and_then(LeaseKeeper::epoch);
        Epochs { health: epoch(&self.health), failover: epoch(&self.failover) }
    }

    /// Who writes the region's records, as far as is known; `None` without a store.
    pub fn holder(&self, router: &str) -> Option<String> {
        let keeper = self.failover.as_ref()?;
        match keeper.epoch() {
            Some(_) => Some(router.to_owned()),
            None => keeper.other_holder(),
        }
    }

    /// Reads what the lease's holders before this one have written, and tells the monitor. Without it nothing
    /// new is written, so it is tried until it is read.
    pub fn read_history(&self, events: mpsc::Sender<Event>) {
        let Some((store, home)) = self.history.clone() else { return };
        let Some(epoch) = self.epochs().failover else { return };
        tokio::spawn(async move {
            let past = loop {
                match past_failovers(&store, &home).await {
                    Ok(past) => break past,
                    Err(error) => tracing::warn!(%error, "the history of failovers was not read"),
                }
                tokio::time::sleep(TRY_AGAIN).await;
            };
            // The monitor is gone when the process ends.
            let _ = events.send(Event::History { epoch, events: past }).await;
        });
    }

    /// Never waits.
    pub fn submit(&self, action: Action) {
        if let Some(waiting) = &self.waiting
            && waiting.try_send(action).is_err()
        {
            tracing::warn!("too many actions wait for the store: one is dropped");
        }
    }
}

/// The lease under which a region's records are written.
pub fn failover_lease(home: &RegionId) -> String {
    format!("failover/{home}")
}

/// What the routers of `home` have stored of failovers, the latest: each region's tell of the same ones.
pub async fn past_failovers(
    store: &Store,
    home: &RegionId,
) -> Result<Vec<FailoverEvent>, StoreError> {
    let mut events = store.failover_events(Timestamp(0), wall_clock(), MAX_EVENTS).await?;
    events.retain(|event| event.writer_region == *home);
    Ok(events)
}

struct Worker {
    store: Store,
    home: RegionId,
    router: String,
    groups: Option<Groups>,
    /// Events of the history, and what is asked of the auto-scaler: nothing else would bring them again.
    unwritten: VecDeque<Action>,
}

impl Worker {
    async fn run(mut self, mut actions: mpsc::Receiver<Action>) {
        loop {
            let action = match self.unwritten.is_empty() {
                true => actions.recv().await,
                false => match timeout(TRY_AGAIN, actions.recv()).await {
                    Ok(action) => action,
                    Err(_) => self.unwritten.pop_front(),
                },
            };
            let Some(action) = action else { return };
            if let Action::Scale(new) = &action {
                let is_old =
                    |action: &Action| matches!(action, Action::Scale(old) if old.pool == new.pool);
                self.unwritten.retain(|action| !is_old(action));
            }
            let done = timeout(LIMIT, self.act(&action)).await;
            let error = match done {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("not done within {} s", LIMIT.as_secs()),
            };
            tracing::warn!(%error, action = name(&action), "not written");
            if matches!(action, Action::Event(_) | Action::Scale(_)) {
                if self.unwritten.len() == UNWRITTEN {
                    self.unwritten.pop_front();
                }
                self.unwritten.push_back(action);
            }
        }
    }

    async fn act(&self, action: &Action) -> Result<(), StoreError> {
        match action {
            Action::Replace { instance, reason } => self.replace(instance, reason).await,
            Action::Release { instance } => self.release(instance).await,
            Action::Scale(scaling) => self.scale(scaling).await,
            Action::Record(record) => match self.store.put_region_record(record).await {
                // Another holds the lease by now.
                Err(StoreError::Superseded { .. }) => Ok(()),
                written => written,
            },
            Action::Event(event) => self.store.record_failover_event(event).await,
        }
    }

    /// Record first, then act: see [`Store::record_audit`].
    async fn replace(&self, instance: &Standing, reason: &str) -> Result<(), StoreError> {
        let registration = &instance.registration;
        tracing::warn!(instance = %registration.id, reason, "unhealthy: drained, to be replaced");
        self.audit("drain", instance, Some(reason)).await?;
        self.desire(instance, DesiredState::Draining, Some(reason)).await?;
        let replacement = Replacement {
            region: registration.region.clone(),
            pool: registration.pool.clone(),
            instance: registration.id.clone(),
            generation: registration.generation,
            reason: reason.to_owned(),
            requested_by: format!("router {}", self.router),
            requested_at: wall_clock(),
            closed: None,
            expires_at: None,
        };
        self.store.request_replacement(&replacement).await?;
        if let Some(groups) = &self.groups {
            groups.replace(&registration.id);
        }
        Ok(())
    }

    async fn release(&self, instance: &Standing) -> Result<(), StoreError> {
        let registration = &instance.registration;
        let outcome = why_released(instance);
        tracing::info!(instance = %registration.id, outcome, "healthy again: released");
        self.audit("release", instance, Some(&outcome)).await?;
        self.desire(instance, DesiredState::Serving, None).await?;
        let outcome = ReplacementOutcome { at: wall_clock(), outcome };
        let (region, id) = (&registration.region, &registration.id);
        // Asked for, perhaps, before its agent was started again, which made another generation of it.
        let Some(asked) = self.store.replacement(region, id).await? else { return Ok(()) };
        match self.store.close_replacement(region, id, asked.generation, &outcome).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn scale(&self, scaling: &Scaling) -> Result<(), StoreError> {
        let stored = self.store.capacities(&self.home).await?.remove(&scaling.pool);
        let Some(capacity) = scaling.over(stored.as_ref(), &self.home) else { return Ok(()) };
        let (pool, desired, reason) = (&scaling.pool, capacity.desired, &scaling.reason);
        tracing::info!(%pool, desired, reason, "capacity asked for");
        match self.store.put_capacity(&capacity).await {
            // Another holds the lease by now, or has asked for more since.
            Err(StoreError::Superseded { .. }) => Ok(()),
            written => written,
        }
    }

    async fn desire(
        &self,
        instance: &Standing,
        state: DesiredState,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let wish = Desired {
            instance: instance.registration.id.clone(),
            region: instance.registration.region.clone(),
            state,
            reason: reason.map(str::to_owned),
            operator: Some(format!("router {}", self.router)),
            automatic: true,
            at: wall_clock(),
            writer_region: self.home.clone(),
            stamp: Stamp::default(),
        };
        self.store.desire(&wish).await?;
        Ok(())
    }

    async fn audit(
        &self,
        action: &str,
        instance: &Standing,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let (operator, subject) =
            (format!("router {}", self.router), format!("instance {}", instance.registration.id));
        let (at, operator, subject) = (wall_clock(), operator.as_str(), subject.as_str());
        self.store.record_audit(AuditEntry { at, operator, action, subject, reason }).await?;
        Ok(())
    }
}

/// With what it was drained for: its probes, or EC2's word.
fn why_released(instance: &Standing) -> String {
    match instance.desired.as_ref().and_then(|drain| drain.reason.as_deref()) {
        Some(reason) => format!("its probes pass, and this is over: {reason}"),
        None => "its probes pass again".to_owned(),
    }
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::Replace { .. } => "replace",
        Action::Release { .. } => "release",
        Action::Scale(_) => "scale",
        Action::Record(_) => "record",
        Action::Event(_) => "event",
    }
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::model::Registration;

    use super::*;

    #[test]
    fn a_release_says_what_is_over() {
        let registration = Registration::new("i-1", "us", "p", "a:1");
        let drained_for = |reason: Option<&str>| {
            let drain = Desired {
                instance: "i-1".into(),
                region: "us".into(),
                state: DesiredState::Draining,
                reason: reason.map(str::to_owned),
                operator: None,
                automatic: true,
                at: Timestamp(0),
                writer_region: "us".into(),
                stamp: Stamp::default(),
            };
            let standing = Standing::new(registration.clone(), None);
            why_released(&Standing { desired: Some(drain), ..standing })
        };
        for reason in ["answered 503", "EC2: system status impaired"] {
            let told = drained_for(Some(reason));
            assert_eq!(told, format!("its probes pass, and this is over: {reason}"));
        }
        assert_eq!(drained_for(None), "its probes pass again");
    }
}
