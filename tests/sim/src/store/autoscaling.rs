//! What the auto-scaler is asked for: instances in the place of others, and capacity.

use std::collections::BTreeMap;

use mrgc_fleet::model::{Capacity, PoolId};

use super::Refused;

#[derive(Debug, Default)]
pub(crate) struct Autoscaling {
    /// By the instances' numbers: whether it is still to be replaced. None where that was never asked for.
    replacements: BTreeMap<usize, bool>,
    /// By region, which is the only one that writes its own.
    capacities: BTreeMap<(usize, PoolId), Capacity>,
}

impl Autoscaling {
    /// Asks for another instance in the place of one. Asking again changes nothing.
    pub(crate) fn ask_for(&mut self, no: usize) {
        self.replacements.insert(no, true);
    }

    /// It is not to be replaced any more, if it was.
    pub(crate) fn call_off(&mut self, no: usize) {
        self.replacements.entry(no).and_modify(|is_open| *is_open = false);
    }

    pub(crate) fn is_to_be_replaced(&self, no: usize) -> bool {
        self.replacements.get(&no).copied().unwrap_or(false)
    }

    /// Writes a pool's capacity over an earlier one.
    pub(crate) fn scale(&mut self, region: usize, capacity: Capacity) -> Result<(), Refused> {
        let stored = self.capacity(region, &capacity.pool);
        if stored.is_some_and(|stored| stored.stamp >= capacity.stamp) {
            return Err(Refused::Superseded);
        }
        self.capacities.insert((region, capacity.pool.clone()), capacity);
        Ok(())
    }

    pub(crate) fn capacity(&self, region: usize, pool: &PoolId) -> Option<&Capacity> {
        self.capacities.get(&(region, pool.clone()))
    }
}
