//! The failovers that there were. One is written again as it goes on, until it has ended.

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::{failover::FailoverEvent, model::Timestamp};

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    clock::{self, DAY_SECONDS},
    error::StoreError,
    item,
    range::{LAST, Order, Range},
    schema::{EXPIRES_AT, Table},
};

/// What an event may take.
pub const FAILOVER_BUDGET_BYTES: usize = 2_048;

const FAILOVERS: &str = "FAILOVERS";
const ENDED_AT: &str = "ended_at";
/// As long as the audit trail.
const KEPT_DAYS: u64 = 400;

impl Store {
    /// Writes an event as it stands. One that has ended stays as it is, and nothing that was known of it is
    /// forgotten: whoever is late with what it saw changes nothing.
    pub async fn record_failover_event(&self, event: &FailoverEvent) -> Result<(), StoreError> {
        let sk = format!("{}#{}", clock::instant(event.at), event.id);
        let key = Key { pk: FAILOVERS.to_owned(), sk };
        let item = self.item(Table::Control, &key, event)?;
        self.within(Table::Control, &key, &item, FAILOVER_BUDGET_BYTES)?;
        let end = clock::seconds(event.at).saturating_add(KEPT_DAYS * DAY_SECONDS);
        let update =
            Update::record(item, &[]).setting(EXPIRES_AT, AttributeValue::N(end.to_string()));
        let not_ended = Condition::new(
            "attribute_not_exists(#pk) OR attribute_not_exists(#ended_at)",
            &[item::PK, ENDED_AT],
            &[],
        );
        let (Written::Done | Written::Refused(_)) =
            self.update_if(Table::Control, update, not_ended).await?;
        Ok(())
    }

    /// The events that began from one moment to another, both included, the last one first.
    pub async fn failover_events(
        &self,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<FailoverEvent>, StoreError> {
        let range = Range {
            from: clock::instant(from),
            to: format!("{}{LAST}", clock::instant(to)),
            order: Order::LastKeyFirst,
            limit: Some(limit),
            consistent: true,
        };
        let items = self.query_range(Table::Control, FAILOVERS, &range).await?;
        Ok(self.readable(Table::Control, items))
    }
}
