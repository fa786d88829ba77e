//! Orders that would do harm.

use super::{Handler, RegionOrder, Wish};
use crate::model::RegionId;

/// Why an order should not be given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("region `{0}` is not known")]
    Unknown(RegionId),
    #[error("region `{0}` cannot fail over to itself")]
    ToItself(RegionId),
    #[error(
        "no other region with {:.0} % or more of its instances healthy is left to take the traffic of \
         `{from}`: force it, and what fits nowhere is refused with 503", minimum * 100.0
    )]
    NoTarget { from: RegionId, minimum: f64 },
    #[error("`{0}` cannot be reached, or is failed over itself: name another region")]
    Closed(RegionId),
    #[error(
        "{healthy} of {all} instances of `{to}` take requests, less than the minimum of {:.0} %: name \
         another region, or force it", minimum * 100.0
    )]
    Unhealthy { to: RegionId, healthy: u32, all: u32, minimum: f64 },
}

impl Refused {
    /// Whether an operator may insist.
    pub fn may_be_forced(&self) -> bool {
        matches!(self, Self::NoTarget { .. } | Self::Unhealthy { .. })
    }
}

impl Handler {
    /// Whether an order makes sense as things are: its regions are known, and where it is a failover, there
    /// is a region to take the traffic.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn check(&self, order: &RegionOrder) -> Result<(), Refused> {
        if self.watched(&order.region).is_none() {
            return Err(Refused::Unknown(order.region.clone()));
        }
        match &order.wish {
            Wish::FailOver { to: Some(to), .. } if *to == order.region => {
                Err(Refused::ToItself(to.clone()))
            }
            Wish::FailOver { to: Some(to), .. } => self.check_target(to),
            Wish::FailOver { to: None, .. } => {
                let preference = self.preference();
                let mut others = preference.iter().filter(|region| **region != order.region);
                if others.any(|region| self.check_target(region).is_ok()) {
                    return Ok(());
                }
                let minimum = self.thresholds().minimum_healthy;
                Err(Refused::NoTarget { from: order.region.clone(), minimum })
            }
            Wish::Automatic | Wish::Pinned { .. } => Ok(()),
        }
    }

    fn check_target(&self, to: &RegionId) -> Result<(), Refused> {
        let watch = self.watched(to).ok_or_else(|| Refused::Unknown(to.clone()))?;
        if watch.is_closed() {
            return Err(Refused::Closed(to.clone()));
        }
        let minimum = self.thresholds().minimum_healthy;
        let evidence = watch.machine.evidence();
        if evidence.and_then(|evidence| evidence.ratio()).is_some_and(|ratio| ratio >= minimum) {
            return Ok(());
        }
        let (healthy, all) = evidence.map_or((0, 0), |evidence| (evidence.healthy, evidence.all));
        Err(Refused::Unhealthy { to: to.clone(), healthy, all, minimum })
    }
}

#[cfg(test)]
mod tests;
