//! What each action writes. Each may break off anywhere: what it leaves makes the monitor issue it again.

use mrgc_fleet::{
    model::{Desired, DesiredState, RegionId, Replacement, Stamp, Standing},
    monitor::{Action, Gone, Scaling, is_drained},
};
use mrgc_store::{AuditEntry, Store, StoreError};

use crate::{cloud::Groups, sync::wall_clock};

/// Of a request's reason: what an instance answered may be long.
const MAX_REASON_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    home: RegionId,
    /// As in `router us-east-1-3f9c12aa`.
    operator: String,
    groups: Option<Groups>,
}

impl Writer {
    pub(super) fn new(store: Store, home: RegionId, router: &str, groups: Option<Groups>) -> Self {
        Self { store, home, operator: format!("router {router}"), groups }
    }

    pub(super) async fn act(&self, action: &Action) -> Result<(), StoreError> {
        match action {
            Action::Replace { instance, reason } => self.replace(instance, reason).await,
            Action::Release { instance } => self.release(instance).await,
            Action::Forget { instance, gone } => self.forget(instance, *gone).await,
            Action::Scale(scaling) => self.scale(scaling).await,
            Action::Record(record) => match self.store.put_region_record(record).await {
                // Another holds the lease by now.
                Err(StoreError::Superseded { .. }) => Ok(()),
                written => written,
            },
            Action::Event(event) => self.store.record_failover_event(event).await,
        }
    }

    /// Drains first: one that is drained is asked for again until it is well, one that serves is not. Record
    /// first, then act: see [`Store::record_audit`].
    async fn replace(&self, instance: &Standing, reason: &str) -> Result<(), StoreError> {
        let registration = &instance.registration;
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
        let wanted = if is_drained(instance) {
            // What the monitor has read may be old. Of one that was released since, nothing would call the
            // request off.
            self.store.desired(&registration.region, &registration.id).await?
        } else {
            tracing::warn!(instance = %registration.id, reason, "unhealthy: drained, to be replaced");
            self.audit("drain", instance, reason).await?;
            Some(self.desire(instance, DesiredState::Draining, Some(reason)).await?)
        };
        // What a person keeps out of service is a person's to replace.
        let is_ours = |it: &Desired| it.automatic && it.state == DesiredState::Draining;
        let Some(drain) = wanted.filter(is_ours) else { return Ok(()) };
        let request = Replacement {
            region: registration.region.clone(),
            pool: registration.pool.clone(),
            instance: registration.id.clone(),
            generation: registration.generation,
            reason: reason.to_owned(),
            requested_by: self.operator.clone(),
            requested_at: wall_clock(),
            closed: None,
            expires_at: None,
        };
        self.store.request_replacement(&request).await?;
        if let Some(groups) = &self.groups {
            groups.replace(&registration.id, drain.at);
        }
        Ok(())
    }

    /// Calls off first: one that is drained still, and well, is released again.
    async fn release(&self, instance: &Standing) -> Result<(), StoreError> {
        let registration = &instance.registration;
        let outcome = why_released(instance);
        tracing::info!(instance = %registration.id, outcome, "healthy again: released");
        self.audit("release", instance, &outcome).await?;
        let (region, id) = (&registration.region, &registration.id);
        self.store.call_off_replacement(region, id, &outcome).await?;
        self.desire(instance, DesiredState::Serving, None).await?;
        Ok(())
    }

    async fn forget(&self, instance: &Standing, gone: Gone) -> Result<(), StoreError> {
        let registration = &instance.registration;
        let why = match gone {
            Gone::Terminated => "EC2 has terminated it, and it reports no more",
            Gone::Unknown => "EC2 does not know it, and it has not reported for long",
        };
        tracing::warn!(instance = %registration.id, why, "gone for good: forgotten");
        self.audit("forget", instance, why).await?;
        match self.store.forget_unheld(registration).await {
            // It has registered anew.
            Err(StoreError::Fenced { .. }) => Ok(()),
            forgotten => forgotten,
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

    /// What is wanted of it then: what a person wants stays.
    async fn desire(
        &self,
        instance: &Standing,
        state: DesiredState,
        reason: Option<&str>,
    ) -> Result<Desired, StoreError> {
        let wish = Desired {
            instance: instance.registration.id.clone(),
            region: instance.registration.region.clone(),
            state,
            reason: reason.map(str::to_owned),
            operator: Some(self.operator.clone()),
            automatic: true,
            at: wall_clock(),
            writer_region: self.home.clone(),
            stamp: Stamp::default(),
        };
        self.store.desire(&wish).await
    }

    async fn audit(
        &self,
        action: &str,
        instance: &Standing,
        reason: &str,
    ) -> Result<(), StoreError> {
        let subject = format!("instance {}", instance.registration.id);
        let (at, operator, reason) = (wall_clock(), self.operator.as_str(), Some(reason));
        let entry = AuditEntry { at, operator, action, subject: &subject, reason };
        self.store.record_audit(entry).await?;
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

#[cfg(test)]
mod tests;
