//! What a follower knows: which items it must read, and what they change. Pure.

use std::{collections::HashMap, sync::Arc};

use mrgc_fleet::model::{Desired, InstanceId, Registration, Report, Standing};

use super::Changes;

/// Reports without a registration that are remembered; above it, all are forgotten.
const MAX_STRANGERS: usize = 10_000;

/// Looks in a row that must not find an opinion any more before it counts no longer. One may be at a
/// replica that lags, or at a moment before the opinion was written.
const LOOKS_WITHOUT: u32 = 5;

/// (generation, sequence): the higher pair is the later one.
pub(super) type Fence = (u64, u64);

/// What of an item tells whether it is new.
#[derive(Debug)]
pub(super) struct Head {
    /// Where it is: an index into the region's partitions.
    pub(super) partition: u32,
    pub(super) id: String,
    /// A registration's has the sequence 0.
    pub(super) fence: Fence,
    /// A tombstone, or expired.
    pub(super) gone: bool,
}

/// Which items to read, with their partitions; and who is gone without a question.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) reports: Vec<(u32, InstanceId)>,
    pub(super) registrations: Vec<(u32, InstanceId)>,
    /// What the heads of those reports that are new say.
    fences: HashMap<InstanceId, Fence>,
    gone: Vec<InstanceId>,
}

impl Plan {
    /// Reads both, for an instance of which nothing is known for certain.
    fn look_up(&mut self, partition: u32, id: &InstanceId) {
        self.registrations.push((partition, id.clone()));
        self.reports.push((partition, id.clone()));
    }
}

/// What was read by the plan. An item that is not there is not in the maps; one that cannot be read is
/// `None`.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) plan: Plan,
    pub(super) registrations: HashMap<InstanceId, Option<Registration>>,
    pub(super) reports: HashMap<InstanceId, Option<Report>>,
    /// Of all instances of which something is wanted, not only of new ones.
    pub(super) desired: HashMap<InstanceId, Desired>,
}

#[derive(Clone, Debug)]
struct Known {
    /// Its place among the standings.
    index: usize,
    partition: u32,
    /// Of the registration.
    generation: u64,
    /// Of the last report that was read, also where that could not be understood.
    report: Option<Fence>,
}

/// What is wanted of an instance, by the latest opinion that was seen.
#[derive(Clone, Debug)]
struct Wanted {
    desired: Desired,
    /// Looks in a row that found an earlier one, or none.
    looks_without: u32,
}

impl Wanted {
    /// Whether it still counts after a look that found this.
    fn outlasts(&mut self, found: Option<&Desired>) -> bool {
        if found == Some(&self.desired) {
            self.looks_without = 0;
            return true;
        }
        self.looks_without += 1;
        let is_later = found.is_some_and(|found| found.counts_over(&self.desired));
        !is_later && self.looks_without < LOOKS_WITHOUT
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    known: HashMap<InstanceId, Known>,
    /// By id; parallel to `known`'s indices.
    standings: Vec<Arc<Standing>>,
    /// Reports whose instance was looked up and is not registered: asked about again when they change.
    strangers: HashMap<InstanceId, Fence>,
    wanted: HashMap<InstanceId, Wanted>,
}

impl Ledger {
    pub(super) fn standings(&self) -> &[Arc<Standing>] {
        &self.standings
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Arc<Standing>> {
        self.known.get(id).map(|known| &self.standings[known.index])
    }

    /// Compares heads with what is known. `registrations` is `None` where they were not listed.
    pub(super) fn plan(&self, reports: &[Head], registrations: Option<&[Head]>) -> Plan {
        let mut plan = Plan::default();
        // Nothing is allocated for an instance that is as it was.
        let mut reported = vec![false; self.standings.len()];
        for head in reports {
            match self.known.get_key_value(head.id.as_str()) {
                Some((id, known)) => {
                    reported[known.index] = true;
                    self.plan_known(&mut plan, head, id, known);
                }
                None if head.gone => {}
                None if self.strangers.get(head.id.as_str()) == Some(&head.fence) => {}
                None => {
                    let id = InstanceId::from(head.id.as_str());
                    plan.look_up(head.partition, &id);
                    plan.fences.insert(id, head.fence);
                }
            }
        }
        for (id, known) in &self.known {
            if known.report.is_some() && !reported[known.index] {
                plan.look_up(known.partition, id);
            }
        }
        if let Some(registrations) = registrations {
            self.plan_registrations(&mut plan, registrations, reports);
        }
        plan.reports.sort_unstable();
        plan.reports.dedup();
        plan.registrations.sort_unstable();
        plan.registrations.dedup();
        plan
    }

    fn plan_known(&self, plan: &mut Plan, head: &Head, id: &InstanceId, known: &Known) {
        let (generation, _) = head.fence;
        if generation < known.generation {
            // Somebody who does not count any more.
        } else if generation > known.generation {
            if !head.gone {
                plan.look_up(head.partition, id);
                plan.fences.insert(id.clone(), head.fence);
            }
        } else if head.gone {
            plan.gone.push(id.clone());
        } else if known.report.is_none_or(|last| last < head.fence) {
            plan.reports.push((head.partition, id.clone()));
            plan.fences.insert(id.clone(), head.fence);
        }
    }

    fn plan_registrations(&self, plan: &mut Plan, registrations: &[Head], reports: &[Head]) {
        let over: HashMap<&str, u64> = reports
            .iter()
            .filter(|report| report.gone)
            .map(|report| (report.id.as_str(), report.fence.0))
            .collect();
        let mut registered = vec![false; self.standings.len()];
        for head in registrations {
            let (generation, _) = head.fence;
            match self.known.get_key_value(head.id.as_str()) {
                Some((id, known)) => {
                    registered[known.index] = true;
                    if head.gone && generation >= known.generation {
                        plan.gone.push(id.clone());
                    } else if generation != known.generation {
                        // Lower in an old answer, or where a table was restored: the item itself will tell.
                        plan.look_up(head.partition, id);
                    }
                }
                None if head.gone => {}
                // About to be deregistered: its report is over already.
                None if over.get(head.id.as_str()).is_some_and(|last| *last >= generation) => {}
                None => plan.look_up(head.partition, &InstanceId::from(head.id.as_str())),
            }
        }
        for (id, known) in &self.known {
            if !registered[known.index] {
                plan.look_up(known.partition, id);
            }
        }
    }

    /// Takes what was read, and says what it changed.
    pub(super) fn apply(&mut self, reading: Reading) -> Changes {
        let Reading { plan, mut registrations, mut reports, desired } = reading;
        let mut changes = Changes::default();
        for id in &plan.gone {
            self.forget(id, &mut changes);
        }
        for (partition, id) in &plan.registrations {
            match registrations.remove(id) {
                Some(Some(registration)) => {
                    self.register(*partition, registration, &mut changes);
                }
                // What cannot be read may be there still.
                Some(None) => self.remember_stranger(id, &plan),
                None => {
                    self.remember_stranger(id, &plan);
                    self.forget(id, &mut changes);
                }
            }
        }
        let looked_up = plan.registrations;
        for (partition, id) in plan.reports {
            let fence = plan.fences.get(&id).copied();
            match reports.remove(&id) {
                Some(Some(report)) => self.report(&id, report, &mut changes),
                Some(None) => self.lose_report(&id, fence, &mut changes),
                // It was looked up because it was missed, and it is not there.
                None if fence.is_none()
                    && looked_up.binary_search(&(partition, id.clone())).is_ok() =>
                {
                    self.lose_report(&id, None, &mut changes);
                }
                None => {}
            }
        }
        self.want(desired, &mut changes);
        self.put_in_order(&changes);
        Self::settle(&mut changes);
        changes
    }

    fn remember_stranger(&mut self, id: &InstanceId, plan: &Plan) {
        if let Some(fence) = plan.fences.get(id)
            && !self.known.contains_key(id)
        {
            // They are asked about once more.
            if self.strangers.len() >= MAX_STRANGERS {
                self.strangers.clear();
            }
            self.strangers.insert(id.clone(), *fence);
        }
    }

    fn register(&mut self, partition: u32, registration: Registration, changes: &mut Changes) {
        let (id, generation) = (registration.id.clone(), registration.generation);
        self.strangers.remove(&id);
        let desired = self.desired(&id).cloned();
        let standing = || Arc::new(Standing { desired, ..Standing::new(registration, None) });
        match self.known.get_mut(&id) {
            Some(known) if generation == known.generation => {}
            Some(known) => {
                *known = Known { partition, generation, report: None, ..*known };
                self.standings[known.index] = standing();
                changes.changed.push(id);
            }
            None => {
                let index = self.standings.len();
                self.standings.push(standing());
                let known = Known { index, partition, generation, report: None };
                self.known.insert(id.clone(), known);
                changes.added.push(id);
            }
        }
    }

    fn report(&mut self, id: &InstanceId, report: Report, changes: &mut Changes) {
        let Some(known) = self.known.get_mut(id) else { return };
        let fence = (report.generation, report.sequence);
        if report.generation != known.generation || known.report.is_some_and(|last| last >= fence) {
            return;
        }
        known.report = Some(fence);
        let standing = &mut self.standings[known.index];
        let Standing { registration, desired, .. } = &**standing;
        // Not changed in place: readers hold the one before.
        let desired = desired.clone();
        *standing =
            Arc::new(Standing { desired, ..Standing::new(registration.clone(), Some(report)) });
        changes.changed.push(id.clone());
    }

    /// The report is gone, or cannot be read: then `fence` is remembered, and it is read again when it
    /// changes.
    fn lose_report(&mut self, id: &InstanceId, fence: Option<Fence>, changes: &mut Changes) {
        let Some(known) = self.known.get_mut(id) else { return };
        known.report = fence;
        if self.standings[known.index].report.is_some() {
            Arc::make_mut(&mut self.standings[known.index]).report = None;
            changes.changed.push(id.clone());
        }
    }

    fn forget(&mut self, id: &InstanceId, changes: &mut Changes) {
        if self.known.remove(id).is_some() {
            changes.gone.push(id.clone());
        }
    }

    fn desired(&self, id: &InstanceId) -> Option<&Desired> {
        self.wanted.get(id).map(|wanted| &wanted.desired)
    }

    /// What was seen counts until something later is. Where looks in a row find something earlier, the
    /// later one was forgotten, and stamps have begun anew.
    fn want(&mut self, mut found: HashMap<InstanceId, Desired>, changes: &mut Changes) {
        let mut differing = Vec::new();
        self.wanted.retain(|id, wanted| {
            let counts = wanted.outlasts(found.get(id));
            if counts {
                found.remove(id);
            } else {
                differing.push(id.clone());
            }
            counts
        });
        for (id, desired) in found {
            differing.push(id.clone());
            self.wanted.insert(id, Wanted { desired, looks_without: 0 });
        }
        for id in differing {
            if let Some(known) = self.known.get(&id) {
                let desired = self.desired(&id).cloned();
                Arc::make_mut(&mut self.standings[known.index]).desired = desired;
                changes.changed.push(id);
            }
        }
    }

    /// Takes out who is gone and puts the new ones in their place.
    fn put_in_order(&mut self, changes: &Changes) {
        if changes.added.is_empty() && changes.gone.is_empty() {
            return;
        }
        let known = &self.known;
        let mut index = 0;
        self.standings.retain(|standing| {
            let own = known.get(&standing.registration.id).is_some_and(|k| k.index == index);
            index += 1;
            own
        });
        self.standings.sort_by(|a, b| a.registration.id.cmp(&b.registration.id));
        for (index, standing) in self.standings.iter().enumerate() {
            if let Some(known) = self.known.get_mut(&standing.registration.id) {
                known.index = index;
            }
        }
    }

    /// Each id once, and in one list only.
    fn settle(changes: &mut Changes) {
        let Changes { added, changed, gone, .. } = changes;
        for ids in [&mut *added, &mut *changed, &mut *gone] {
            ids.sort_unstable();
            ids.dedup();
        }
        // Gone and back at once, under another generation.
        let back: Vec<_> =
            added.iter().filter(|id| gone.binary_search(id).is_ok()).cloned().collect();
        added.retain(|id| back.binary_search(id).is_err());
        gone.retain(|id| back.binary_search(id).is_err());
        changed.extend(back);
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|id| added.binary_search(id).is_err() && gone.binary_search(id).is_err());
    }
}

#[cfg(test)]
mod tests;
