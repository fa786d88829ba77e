//! `control`: who leads, what operators want of regions, which failovers there were, and who did what.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `LEASES` | lease's name | [`Lease`], below 0.5 KB; never deleted, for its epochs would start again |
//! | `ORDERS` | region `#` writing region | [`RegionOrder`](mrgc_fleet::failover::RegionOrder), below 1 KB, one for each region that wants something ([`opinions`](crate::opinions)) |
//! | `FAILOVERS` | time `#` id | [`FailoverEvent`](mrgc_fleet::failover::FailoverEvent), at most 2 KB; ends after 400 days |
//! | `AUDIT#day` | time `#` 16 random digits | [`AuditRecord`](mrgc_fleet::model::AuditRecord), at most 2 KB; ends after 400 days |
//!
//! Leases are one partition: a fleet has a handful, each written once in a fifth of its time to live. So are
//! orders, of which there are at most as many as pairs of regions, and failovers, a few a day at worst. The
//! audit trail takes what operators do, a few records a second at most, in one partition for each day.
//!
//! Conditions on a lease hold within one region, unless the table is strongly consistent across regions.
//! Where it is not, a lease is contended for by programs of one region only.

mod audit;
mod failovers;
mod keeper;
mod orders;

use mrgc_fleet::{lease::Write, model::Lease};

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    error::StoreError,
    item,
    schema::Table,
    stamp::still,
};

pub use audit::{AUDIT_BUDGET_BYTES, AuditEntry};
pub use failovers::FAILOVER_BUDGET_BYTES;
pub use keeper::LeaseKeeper;

const LEASES: &str = "LEASES";

/// What a write to a lease came to.
enum LeaseWritten {
    Done,
    /// Another stamp is stored than the one that was expected; the lease, if there is one.
    Refused(Option<Lease>),
}

impl Store {
    /// All leases, by name. That one has a holder does not say that the holder lives.
    pub async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        let items = self.query(Table::Control, LEASES, true).await?;
        Ok(self.readable(Table::Control, items))
    }

    async fn lease(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let item = self.get(Table::Control, &lease_key(name)).await?;
        item.map(|item| self.read(Table::Control, item)).transpose()
    }

    async fn write_lease(&self, write: &Write) -> Result<LeaseWritten, StoreError> {
        let item = self.item(Table::Control, &lease_key(&write.lease.name), &write.lease)?;
        let condition = match write.expected {
            None => Condition::new("attribute_not_exists(#pk)", &[item::PK], &[]),
            expected => still(expected),
        };
        let update = Update::record(item, &["holder"]);
        match self.update_if(Table::Control, update, condition).await? {
            Written::Done => Ok(LeaseWritten::Done),
            Written::Refused(None) => Ok(LeaseWritten::Refused(None)),
            Written::Refused(Some(held)) => {
                Ok(LeaseWritten::Refused(Some(self.read(Table::Control, held)?)))
            }
        }
    }
}

fn lease_key(name: &str) -> Key {
    Key { pk: LEASES.to_owned(), sk: name.to_owned() }
}
