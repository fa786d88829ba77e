//! The XIDs since boot, each counted once, and held against its GPU until something has resolved it. Pure.
//!
//! | it asks for | it is held until |
//! |---|---|
//! | nothing | it never is |
//! | restart the application | [`APPLICATION_WINDOW`] after the last one |
//! | reset the GPU, contact support | the driver is loaded anew, or its recovery action goes back to none |
//! | reboot | the machine reboots: the kernel's log, and this ledger, begin anew |
//! | any | an operator acknowledges it |
//!
//! The driver tells of most XIDs twice, as an event of NVML and in the kernel's log, in either order. Two
//! sightings by different sources within [`PAIR_WINDOW`] are one XID.

use std::{collections::BTreeMap, time::Duration};

use mrgc_fleet::model::Timestamp;

use super::{
    status::{Action, PciAddress, Xid},
    xid,
};

/// An application that broke says little about the GPU after this.
const APPLICATION_WINDOW: Duration = Duration::from_secs(300);

/// Longer than an event or a line takes to get here on a busy machine.
pub(super) const PAIR_WINDOW: Duration = Duration::from_secs(10);

/// A full machine with every code that is common; above it, the one that was seen longest ago is forgotten.
const MAX_ENTRIES: usize = 512;

/// Who told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    NvmlEvents,
    KernelLog,
}

/// One XID as one source tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) source: Source,
    pub(super) pci: PciAddress,
    pub(super) code: u32,
    pub(super) action: Action,
    pub(super) at: Moment,
}

/// The same moment by the clock that never jumps, and by the one that people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) since_boot: Duration,
    pub(super) wall: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<(PciAddress, u32), Entry>,
    /// An operator has seen everything until then, also what is only read later.
    acknowledged: Option<Timestamp>,
}

#[derive(Debug)]
struct Entry {
    count: u64,
    first: Moment,
    last: Moment,
    /// What it asks for; nothing, once it was resolved.
    held: Action,
    unpaired: Unpaired,
}

/// What one source told and the other has not, yet.
#[derive(Debug)]
struct Unpaired {
    source: Source,
    count: u64,
    last: Duration,
}

impl Ledger {
    pub(super) fn see(&mut self, sighting: Sighting) {
        let Sighting { source, pci, code, action, at } = sighting;
        let is_resolved = code == xid::RECOVERY_ACTION_CHANGED
            && source == Source::KernelLog
            && action == Action::None;
        if is_resolved {
            self.resolve(at.since_boot, |entry_pci| entry_pci == pci);
        }
        let entries = &mut self.entries;
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&(pci, code)) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.last.since_boot);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                entries.remove(&key);
            }
        }
        let is_acknowledged = self.acknowledged.is_some_and(|until| at.wall <= until);
        let action = if is_acknowledged { Action::None } else { action };
        let entry = entries.entry((pci, code)).or_insert(Entry {
            count: 0,
            first: at,
            last: at,
            held: Action::None,
            unpaired: Unpaired { source, count: 0, last: at.since_boot },
        });
        if entry.unpaired.takes(source, at.since_boot) {
            entry.count += 1;
            entry.held = entry.held.max(action);
            entry.last = at;
        }
    }

    /// What asks for a reset is resolved, where it was seen before the driver was loaded `at`.
    pub(super) fn driver_loaded(&mut self, at: Duration) {
        self.resolve(at, |_| true);
    }

    /// The driver asked for a recovery of this GPU, and no longer does.
    pub(super) fn recovered(&mut self, pci: PciAddress, at: Duration) {
        self.resolve(at, |entry_pci| entry_pci == pci);
    }

    fn resolve(&mut self, until: Duration, is_meant: impl Fn(PciAddress) -> bool) {
        for ((pci, _), entry) in &mut self.entries {
            let is_before = entry.last.since_boot <= until;
            if is_meant(*pci) && is_before && entry.held != Action::Reboot {
                entry.held = Action::None;
            }
        }
    }

    /// An operator has seen everything until then.
    pub(super) fn acknowledge(&mut self, until: Timestamp) {
        self.acknowledged = Some(until);
        for entry in self.entries.values_mut().filter(|entry| entry.last.wall <= until) {
            entry.held = Action::None;
        }
    }

    /// Everything since boot; `now` decides what is held.
    pub(super) fn list(&self, now: Duration) -> Vec<Xid> {
        let entries = self.entries.iter();
        entries
            .map(|(&(pci, code), entry)| Xid {
                pci,
                code,
                name: xid::name(code),
                action: entry.held,
                is_held: entry.is_held(now),
                count: entry.count,
                first_seen: entry.first.wall,
                last_seen: entry.last.wall,
            })
            .collect()
    }
}

impl Entry {
    fn is_held(&self, now: Duration) -> bool {
        match self.held {
            Action::None => false,
            Action::RestartApplication => {
                now.saturating_sub(self.last.since_boot) < APPLICATION_WINDOW
            }
            _ => true,
        }
    }
}

impl Unpaired {
    /// Whether this is news, and not the other source's word for the same.
    fn takes(&mut self, source: Source, at: Duration) -> bool {
        let is_other = source != self.source && self.count > 0;
        if is_other && at.abs_diff(self.last) <= PAIR_WINDOW {
            self.count -= 1;
            return false;
        }
        let before = if source == self.source { self.count } else { 0 };
        *self = Self { source, count: before + 1, last: at };
        true
    }
}

#[cfg(test)]
mod tests;
