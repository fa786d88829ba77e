//! What came of each exchange of a load, one by one: for what sums cannot tell, as which requests were under
//! way when a region was lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use tokio::time::Instant;

use super::client::{Outcome, Verdict};

/// Exchanges on record; further ones are counted alone.
const RECORDS_MAX: usize = 1_000_000;

/// Shared with the load that writes it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Records>>);

#[derive(Debug, Default)]
struct Records {
    kept: Vec<Record>,
    left_out: u64,
}

/// One exchange. A request that was sent to another target after the first one did not answer has several.
#[derive(Clone, Debug)]
pub struct Record {
    pub request: u64,
    /// Index among the load's targets.
    pub target: usize,
    pub streams: bool,
    pub sent: Instant,
    /// When the answer's head came.
    pub head: Option<Instant>,
    pub ended: Instant,
    /// Of the router beside the instance that answered.
    pub region: Option<String>,
    /// That were made until the answer, where a router said so.
    pub attempts: Option<u32>,
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Ok,
    Shed,
    Failed(String),
}

impl Journal {
    /// So far, in the order in which they ended, from the `first` on.
    pub fn records(&self, first: usize) -> Vec<Record> {
        self.lock().kept.get(first..).unwrap_or_default().to_vec()
    }

    pub fn len(&self) -> usize {
        self.lock().kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exchanges that are not on record.
    pub fn left_out(&self) -> u64 {
        self.lock().left_out
    }

    pub(super) fn write(&self, record: Record) {
        let mut records = self.lock();
        if records.kept.len() < RECORDS_MAX {
            records.kept.push(record);
        } else {
            records.left_out += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    pub(super) fn new(
        request: u64,
        target: usize,
        streams: bool,
        sent: Instant,
        outcome: &Outcome,
    ) -> Self {
        let text =
            |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let header = |name| outcome.headers.as_ref().and_then(|headers| text(headers, name));
        Self {
            request,
            target,
            streams,
            sent,
            head: outcome.head,
            ended: Instant::now(),
            region: header("x-mrgc-region"),
            attempts: header("x-mrgc-attempts").and_then(|n| n.parse().ok()),
            end: match &outcome.verdict {
                Verdict::Ok => End::Ok,
                Verdict::Shed => End::Shed,
                Verdict::Failed(reason, text) => End::Failed(format!("{reason}: {text}")),
            },
        }
    }

    pub fn is_ok(&self) -> bool {
        self.end == End::Ok
    }
}
