//! What a router knows of an instance, from one read of the store to the next.

use std::sync::Arc;

use mrgc_fleet::model::{Desired, DesiredState, Standing};

/// An instance as this router read it last.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// As the store has it.
    source: Arc<Standing>,
    /// With what is wanted of it.
    pub standing: Arc<Standing>,
    /// Since when this router knows that it should not serve, in virtual time.
    pub unwanted_ms: Option<u64>,
}

impl Known {
    pub(super) fn new(source: &Arc<Standing>, desired: Option<&Desired>, now_ms: u64) -> Self {
        let mut known =
            Self { source: source.clone(), standing: source.clone(), unwanted_ms: None };
        known.want(desired.cloned(), now_ms);
        known
    }

    /// Takes over what was read, unless it is older than what is known.
    pub(super) fn learn(&mut self, source: &Arc<Standing>, desired: Option<&Desired>, now_ms: u64) {
        let is_new = !Arc::ptr_eq(&self.source, source) && supersedes(source, &self.source);
        if is_new {
            self.source = source.clone();
        }
        let before = self.standing.desired.as_ref();
        let merged = match (before, desired) {
            (Some(before), Some(seen)) => Some(before.clone().merge(seen.clone())),
            (before, seen) => before.or(seen).cloned(),
        };
        if is_new || merged.as_ref() != before {
            self.want(merged, now_ms);
        }
    }

    /// What its last report was.
    pub(crate) fn fence(&self) -> Option<(u64, u64)> {
        self.source.report.as_ref().map(|report| (report.generation, report.sequence))
    }

    fn want(&mut self, desired: Option<Desired>, now_ms: u64) {
        let is_unwanted = desired.as_ref().is_some_and(|d| d.state != DesiredState::Serving);
        self.unwanted_ms = is_unwanted.then(|| self.unwanted_ms.unwrap_or(now_ms));
        self.standing = match desired {
            None => self.source.clone(),
            desired => Standing { desired, ..Standing::clone(&self.source) }.into(),
        };
    }
}

/// Whether one read of an instance is later than another.
fn supersedes(new: &Standing, old: &Standing) -> bool {
    let generation = |standing: &Standing| standing.registration.generation;
    match (&new.report, &old.report) {
        _ if generation(new) != generation(old) => generation(new) > generation(old),
        (Some(new), Some(old)) => new.supersedes(old),
        (new, _) => new.is_some(),
    }
}
