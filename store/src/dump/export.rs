//! Reading every table into lines: parallel scans, whose pages wait in a short queue.
//!
//! ```text
//!  table ─┬─ scan of segment 0 ─┐
//!         ├─ …                  ├─► queue of pages ─► next(): header, lines of a page, …, end
//!         └─ scan of segment n ─┘                         tables one after the other
//! ```

use std::collections::BTreeMap;

use serde_json::json;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{Counts, DUMP_VERSION, DumpHeader, End, EndCounts, FORMAT, json as items_as_json};
use crate::{
    Store,
    error::StoreError,
    item::{self, Item},
    schema::Table,
};

/// Pages of up to 1 MB that may wait for who writes them.
const WAITING_PAGES: usize = 4;
const MAX_SEGMENTS: u32 = 64;

/// How the tables are read.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    /// Parts of a table that are read at the same time, up to 64. Each costs the table's capacity.
    pub segments: u32,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { segments: 4 }
    }
}

/// Whole lines of the file.
#[derive(Debug)]
pub struct ExportChunk {
    /// JSON Lines, the last one's end included.
    pub lines: Vec<u8>,
    /// Items among them.
    pub items: u64,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Header,
    Items,
    Nothing,
}

type Page = Result<(Table, Vec<Item>), StoreError>;

/// A copy that is being made. Dropping it ends the scans.
#[derive(Debug)]
pub struct Export {
    store: Store,
    pages: mpsc::Receiver<Page>,
    scans: AbortHandle,
    next: Next,
    counts: Counts,
}

impl Drop for Export {
    fn drop(&mut self) {
        self.scans.abort();
    }
}

impl Store {
    /// Begins to copy all tables. What is written in the meantime may be in the copy or not.
    ///
    /// Must be called within a Tokio runtime.
    pub fn export(&self, options: ExportOptions) -> Export {
        let (sender, pages) = mpsc::channel(WAITING_PAGES);
        let segments = options.segments.clamp(1, MAX_SEGMENTS);
        let store = self.clone();
        let scans = tokio::spawn(async move {
            if let Err(error) = store.scan_all(segments, &sender).await {
                // Where nobody receives any more, nobody wants to know.
                let _ = sender.send(Err(error)).await;
            }
        });
        Export {
            store: self.clone(),
            pages,
            scans: scans.abort_handle(),
            next: Next::Header,
            counts: Table::ALL.into_iter().map(|table| (table, 0)).collect(),
        }
    }

    async fn scan_all(&self, segments: u32, pages: &mpsc::Sender<Page>) -> Result<(), StoreError> {
        for table in Table::ALL {
            let mut scans = JoinSet::new();
            for segment in 0..segments {
                let (store, pages) = (self.clone(), pages.clone());
                scans.spawn(async move { store.scan(table, (segment, segments), &pages).await });
            }
            while let Some(scanned) = scans.join_next().await {
                match scanned {
                    Ok(scanned) => scanned?,
                    Err(error) => {
                        let reason = format!("a scan ended early: {error}");
                        let call = self.table_call("Scan", table);
                        return Err(StoreError::Other { call, reason, retryable: true });
                    }
                }
            }
        }
        Ok(())
    }

    /// One segment of a table, page by page, strongly consistent.
    async fn scan(
        &self,
        table: Table,
        (segment, segments): (u32, u32),
        pages: &mpsc::Sender<Page>,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let request = self.0.client.scan().table_name(table.name(&self.0.table_prefix));
            let page = request
                .consistent_read(true)
                .segment(segment.cast_signed())
                .total_segments(segments.cast_signed())
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| self.failed(self.table_call("Scan", table), error))?;
            let items = page.items.unwrap_or_default();
            if !items.is_empty() && pages.send(Ok((table, items))).await.is_err() {
                return Ok(());
            }
            after = page.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

impl Export {
    /// The next lines; `None` after the last. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<ExportChunk, StoreError>> {
        match self.next {
            Next::Header => {
                self.next = Next::Items;
                Some(Ok(self.header()))
            }
            Next::Items => match self.pages.recv().await {
                Some(page) => {
                    let chunk = page.and_then(|(table, items)| self.lines(table, &items));
                    if chunk.is_err() {
                        self.next = Next::Nothing;
                    }
                    Some(chunk)
                }
                None => {
                    self.next = Next::Nothing;
                    Some(Ok(self.end()))
                }
            },
            Next::Nothing => None,
        }
    }

    fn header(&self) -> ExportChunk {
        let header = DumpHeader {
            format: FORMAT.to_owned(),
            version: DUMP_VERSION,
            table_prefix: self.store.0.table_prefix.clone(),
            tables: Table::ALL.iter().map(ToString::to_string).collect(),
        };
        ExportChunk { lines: line(&json!(header)), items: 0 }
    }

    fn lines(&mut self, table: Table, items: &[Item]) -> Result<ExportChunk, StoreError> {
        let mut lines = Vec::new();
        for item in items {
            let item_json = items_as_json::to_json(item).map_err(|reason| {
                let call = self.store.call("Scan", table, &item::key_of(item));
                StoreError::Corrupt { call, reason }
            })?;
            lines.extend(line(&json!({"table": table.short_name(), "item": item_json})));
        }
        let items = items.len() as u64;
        *self.counts.entry(table).or_default() += items;
        Ok(ExportChunk { lines, items })
    }

    fn end(&self) -> ExportChunk {
        let items: BTreeMap<String, u64> =
            self.counts.iter().map(|(table, items)| (table.to_string(), *items)).collect();
        ExportChunk { lines: line(&json!(End { end: EndCounts { items } })), items: 0 }
    }
}

fn line(value: &serde_json::Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}
