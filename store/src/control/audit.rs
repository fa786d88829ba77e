//! The audit trail: what operators and programs did to the fleet. Records are added and never changed.

use mrgc_fleet::model::{AuditRecord, Timestamp};

use crate::{
    Store,
    calls::{Condition, Key, Written},
    clock::{self, DAY_MS, DAY_SECONDS},
    error::StoreError,
    item,
    range::{LAST, Order, Range},
    schema::Table,
};

/// What a record may take.
pub const AUDIT_BUDGET_BYTES: usize = 2_048;

/// For how many days records are kept.
const KEPT_DAYS: u64 = 400;

/// What is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditEntry<'a> {
    /// By the program's clock.
    pub at: Timestamp,
    /// Who, as the program authenticated them.
    pub operator: &'a str,
    /// As in `quarantine`.
    pub action: &'a str,
    /// What it is done to, as in `instance i-1234567890abcdef0`.
    pub subject: &'a str,
    pub reason: Option<&'a str>,
}

impl Store {
    /// Adds a record. Record first, then act: a crash between the two leaves a record of what was attempted,
    /// and never an action without one.
    pub async fn record_audit(&self, entry: AuditEntry<'_>) -> Result<AuditRecord, StoreError> {
        let at = entry.at;
        let record = AuditRecord {
            at,
            id: format!("{:016x}", fastrand::u64(..)),
            operator: entry.operator.to_owned(),
            action: entry.action.to_owned(),
            subject: entry.subject.to_owned(),
            reason: entry.reason.map(str::to_owned),
            expires_at: clock::seconds(at) + KEPT_DAYS * DAY_SECONDS,
        };
        let key = Key { pk: partition(at), sk: format!("{}#{}", clock::instant(at), record.id) };
        let item = self.item(Table::Control, &key, &record)?;
        self.within(Table::Control, &key, &item, AUDIT_BUDGET_BYTES)?;
        let absent = Condition::new("attribute_not_exists(#pk)", &[item::PK], &[]);
        match self.put_if(Table::Control, item, absent).await? {
            Written::Done => Ok(record),
            Written::Refused(held) if self.is_own_write(held.as_ref(), &record) => Ok(record),
            Written::Refused(_) => {
                let call = self.call("PutItem", Table::Control, &key);
                Err(StoreError::Contended { call, attempts: 1 })
            }
        }
    }

    /// The records from one moment to another, both included, the last one first: one query for each day
    /// until the limit is reached.
    pub async fn audit_trail(
        &self,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let mut records: Vec<AuditRecord> = Vec::new();
        // Nobody's clock is a day ahead, so that an open end costs no queries.
        let last = to.0.min(clock::now().0 + DAY_MS) / DAY_MS;
        let first = (from.0 / DAY_MS).max(last.saturating_sub(KEPT_DAYS));
        for day in (first..=last).rev() {
            let left = limit - records.len();
            if left == 0 {
                break;
            }
            let range = Range {
                from: clock::instant(from),
                to: format!("{}{LAST}", clock::instant(to)),
                order: Order::LastKeyFirst,
                limit: Some(left),
                consistent: true,
            };
            let pk = partition(Timestamp(day * DAY_MS));
            let items = self.query_range(Table::Control, &pk, &range).await?;
            records.extend(self.readable::<AuditRecord>(Table::Control, items));
        }
        Ok(records)
    }
}

fn partition(at: Timestamp) -> String {
    format!("AUDIT#{}", clock::day(at))
}
