//! `routing-state`, beside the heartbeats: what each region's lease holder says of all regions.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `STATES#writing region` | region | [`RegionRecord`], below 1 KB |
//!
//! A router writes those of its own region, and only while it holds the lease: over a lower stamp, so that
//! one that was paused loses against its successor. The partition is in no agent's reach.

use mrgc_fleet::{failover::RegionRecord, model::RegionId};

use crate::{Store, calls::Key, error::StoreError, schema::Table};

/// What a record may take: one write unit.
pub const REGION_RECORD_BUDGET_BYTES: usize = 1_024;

const OPTIONAL: [&str; 1] = ["reason"];

impl Store {
    /// Writes what a lease holder says of a region. Where one of the same or a later stamp is stored it is
    /// [`StoreError::Superseded`]: this writer should look whether it still holds its lease.
    pub async fn put_region_record(&self, record: &RegionRecord) -> Result<(), StoreError> {
        let sk = record.region.as_str().to_owned();
        let key = Key { pk: partition(&record.writer_region), sk };
        let (table, budget) = (Table::RoutingState, REGION_RECORD_BUDGET_BYTES);
        self.put_stamped(table, &key, record, &OPTIONAL, budget).await
    }

    /// What the lease holders of a region said last of each region; eventually consistent, so that a look
    /// may find less than the one before: readers go by the stamps.
    pub async fn region_records(
        &self,
        writer_region: &RegionId,
    ) -> Result<Vec<RegionRecord>, StoreError> {
        let pk = partition(writer_region);
        let items = self.query(Table::RoutingState, &pk, false).await?;
        Ok(self.readable(Table::RoutingState, items))
    }
}

fn partition(writer_region: &RegionId) -> String {
    format!("STATES#{writer_region}")
}
