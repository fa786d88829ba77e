//! Writing a copy into the tables, after all of it was found to be whole.

use std::{
    collections::HashMap,
    io::{BufRead, Seek},
    time::Duration,
};

use aws_sdk_dynamodb::types::{PutRequest, Select, WriteRequest};
use tokio::{task::JoinSet, time::sleep};

use super::{DumpError, DumpReader, DumpSummary};
use crate::{
    Store,
    calls::{Condition, Written},
    error::StoreError,
    item::{self, Item, PK},
    schema::Table,
};

/// The service's bound on a `BatchWriteItem`.
const BATCH_ITEMS: usize = 25;
/// Batches on their way at the same time.
const BATCHES_AT_ONCE: usize = 8;
/// How often the rest of a batch that the service had no capacity for is sent again.
const MAX_REPEATS: u32 = 12;
/// The wait before the n-th repeat is uniform between 0 and 50 ms · 2^n, at most 5 s.
const FIRST_BACKOFF_MS: u64 = 50;
const MAX_BACKOFF_MS: u64 = 5_000;

/// What becomes of an item whose key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing is written, unless the tables that the file has items of are empty.
    Fail,
    /// What is stored stays.
    Skip,
    /// The file's item is written over it.
    Overwrite,
}

/// How far an import is.
#[derive(Clone, Copy, Debug)]
pub struct ImportProgress {
    /// Of the file.
    pub bytes: u64,
    pub imported: Imported,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub written: u64,
    /// Left as they were stored.
    pub skipped: u64,
}

type Batch = Vec<(Table, Item)>;

impl Store {
    /// Writes a copy's items. Before the first write, the whole file is read and checked, and the tables
    /// are: an error other than [`DumpError::Interrupted`] says that nothing was written.
    ///
    /// The file is read in between writes, on the caller's thread. Where it has an item twice, which
    /// [`Store::export`] does not write, either may remain.
    pub async fn import(
        &self,
        mut file: impl BufRead + Seek,
        on_conflict: OnConflict,
        told: impl FnMut(ImportProgress),
    ) -> Result<Imported, DumpError> {
        let start = file.stream_position()?;
        let summary = DumpReader::open(&mut file)?.validate()?;
        self.check().await?;
        if on_conflict == OnConflict::Fail {
            self.refuse_full_tables(&summary).await?;
        }
        file.seek(std::io::SeekFrom::Start(start))?;
        self.write_all(DumpReader::open(file)?, on_conflict, told).await
    }

    async fn refuse_full_tables(&self, summary: &DumpSummary) -> Result<(), DumpError> {
        let mut tables = Vec::new();
        for (name, items) in &summary.items {
            let Some(table) = Table::from_short_name(name).filter(|_| *items > 0) else { continue };
            let request = self.0.client.scan().table_name(table.name(&self.0.table_prefix));
            let found = request.limit(1).select(Select::Count).consistent_read(true).send().await;
            let found =
                found.map_err(|error| self.failed(self.table_call("Scan", table), error))?;
            if found.count() > 0 {
                tables.push(format!("`{}`", table.name(&self.0.table_prefix)));
            }
        }
        if tables.is_empty() { Ok(()) } else { Err(DumpError::NotEmpty { tables }) }
    }

    async fn write_all<R: BufRead>(
        &self,
        mut reader: DumpReader<R>,
        on_conflict: OnConflict,
        mut told: impl FnMut(ImportProgress),
    ) -> Result<Imported, DumpError> {
        let mut imported = Imported::default();
        let mut failed: Option<DumpError> = None;
        let mut writing: JoinSet<Result<Imported, (Imported, StoreError)>> = JoinSet::new();
        let mut at_end = false;
        loop {
            while failed.is_none() && !at_end && writing.len() < BATCHES_AT_ONCE {
                match next_batch(&mut reader) {
                    Ok(batch) if batch.is_empty() => at_end = true,
                    Ok(batch) => {
                        let store = self.clone();
                        writing.spawn(async move { store.write_batch(batch, on_conflict).await });
                    }
                    Err(error) => failed = Some(error),
                }
            }
            let Some(done) = writing.join_next().await else { break };
            let (done, error) = match done {
                Ok(Ok(done)) => (done, None),
                Ok(Err((done, error))) => (done, Some(error)),
                Err(error) => {
                    let reason = format!("a write ended early: {error}");
                    let call = self.table_call("BatchWriteItem", Table::GpuInstances);
                    (Imported::default(), Some(StoreError::Other { call, reason, retryable: true }))
                }
            };
            imported.written += done.written;
            imported.skipped += done.skipped;
            told(ImportProgress { bytes: reader.bytes(), imported });
            if let Some(error) = error {
                failed.get_or_insert(error.into());
            }
        }
        // Told only now: what was on its way has come to its end.
        failed.map_or(Ok(imported), |source| {
            Err(DumpError::Interrupted { written: imported.written, source: Box::new(source) })
        })
    }

    /// Writes a batch; of one that failed, what was done of it before.
    async fn write_batch(
        &self,
        batch: Batch,
        on_conflict: OnConflict,
    ) -> Result<Imported, (Imported, StoreError)> {
        if on_conflict == OnConflict::Skip {
            return self.write_where_free(batch).await;
        }
        let (all, mut done) = (batch.len() as u64, Imported::default());
        let table = batch.first().map_or(Table::GpuInstances, |(table, _)| *table);
        let call = || self.table_call("BatchWriteItem", table);
        let mut requests = self.requests(batch).map_err(|error| (done, error))?;
        for repeat in 0..=MAX_REPEATS {
            let request = self.0.client.batch_write_item().set_request_items(Some(requests));
            let answer =
                request.send().await.map_err(|error| (done, self.failed(call(), error)))?;
            requests = answer.unprocessed_items.unwrap_or_default();
            let left: usize = requests.values().map(Vec::len).sum();
            done.written = all - left as u64;
            if left == 0 {
                return Ok(done);
            }
            let bound = FIRST_BACKOFF_MS.saturating_mul(1 << repeat).min(MAX_BACKOFF_MS);
            sleep(Duration::from_millis(fastrand::u64(0..=bound))).await;
        }
        let reason = format!("the service had no capacity for a batch {MAX_REPEATS} times");
        Err((done, StoreError::Throttled { call: call(), reason }))
    }

    /// A batch cannot have conditions, so these are single writes.
    async fn write_where_free(&self, batch: Batch) -> Result<Imported, (Imported, StoreError)> {
        let mut done = Imported::default();
        for (table, item) in batch {
            let is_free = Condition::new("attribute_not_exists(#pk)", &[PK], &[]);
            let written = self.put_if(table, item, is_free).await.map_err(|error| (done, error))?;
            match written {
                Written::Done => done.written += 1,
                Written::Refused(_) => done.skipped += 1,
            }
        }
        Ok(done)
    }

    /// The service refuses a batch that names a key twice.
    fn requests(&self, batch: Batch) -> Result<HashMap<String, Vec<WriteRequest>>, StoreError> {
        let mut requests: HashMap<String, Vec<WriteRequest>> = HashMap::new();
        for (table, item) in batch {
            let call = self.call("BatchWriteItem", table, &item::key_of(&item));
            let put = PutRequest::builder().set_item(Some(item)).build();
            let put =
                put.map_err(|error| StoreError::Invalid { call, reason: error.to_string() })?;
            let request = WriteRequest::builder().put_request(put).build();
            requests.entry(table.name(&self.0.table_prefix)).or_default().push(request);
        }
        Ok(requests)
    }
}

/// Up to a batch of items with different keys; none at the file's end.
fn next_batch<R: BufRead>(reader: &mut DumpReader<R>) -> Result<Batch, DumpError> {
    let mut batch: Batch = Vec::with_capacity(BATCH_ITEMS);
    while batch.len() < BATCH_ITEMS
        && let Some((table, item)) = reader.next_item()?
    {
        let key = item::key_of(&item);
        batch.retain(|(other, held)| *other != table || item::key_of(held) != key);
        batch.push((table, item));
    }
    Ok(batch)
}
