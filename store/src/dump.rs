//! A copy of the whole state as a file, and back: what `mrgc state export` and `import` do.
//!
//! The file is JSON Lines, UTF-8:
//!
//! ```text
//!  {"format":"mrgc-state","version":1,"table_prefix":"mrgc","tables":["gpu-instances", …]}
//!  {"table":"gpu-instances","item":{"pk":{"S":"us-east-1#2"},"sk":{"S":"i-1"}, …}}
//!  …
//!  {"end":{"items":{"gpu-instances":3, …}}}
//! ```
//!
//! Tables are named without their prefix, so that a copy can go to other tables. An item is DynamoDB's own
//! JSON, in which every attribute is kept as it was: numbers as text, binary as base64, sets as sets, and
//! attributes that this version does not know. The last line counts the items of each table, so that a file
//! that was cut off is noticed.
//!
//! A copy is not of one moment: each table is read while it may be written. For a copy as of one second, use
//! the service's point-in-time recovery.

mod export;
mod import;
mod json;
mod reader;

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};

pub use self::{
    export::{Export, ExportChunk, ExportOptions},
    import::{ImportProgress, Imported, OnConflict},
    reader::{DumpReader, DumpSummary},
};
use crate::{error::StoreError, schema::Table};

/// The version that is written, and the newest that is read.
pub const DUMP_VERSION: u32 = 1;

const FORMAT: &str = "mrgc-state";

/// A line's bound: an item is at most 400 KB for the service, and its JSON at most about 14 times that.
const MAX_LINE_BYTES: u64 = 8 << 20;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpHeader {
    pub format: String,
    pub version: u32,
    /// Of the tables that were copied; for people, nothing depends on it.
    pub table_prefix: String,
    /// The tables that were copied, without the prefix.
    pub tables: Vec<String>,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: EndCounts,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndCounts {
    /// Of each table, those without items included.
    items: BTreeMap<String, u64>,
}

/// Items by table.
type Counts = BTreeMap<Table, u64>;

/// Why a copy was not read or not written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),

    #[error("line 1: {reason}: this is no file of `mrgc state export`")]
    NotADump { reason: String },

    #[error(
        "the file has format version {found}, and this program knows versions up to {DUMP_VERSION}: use a \
         newer `mrgc`"
    )]
    Newer { found: u32 },

    #[error("line {line}: {reason}")]
    Line { line: u64, reason: String },

    #[error(
        "the file ends after line {line}, with {items} items and without the line that counts them: it was \
         cut off, export it again"
    )]
    Truncated { line: u64, items: u64 },

    #[error(
        "the file has {found} items of table `{table}` and says that it has {stated}: it is not whole, export \
         it again"
    )]
    Miscounted { table: String, found: u64, stated: u64 },

    #[error(
        "there are items already in {}: skip or overwrite those that the file has, too (`--on-conflict skip` or \
         `overwrite`), or use another `table_prefix`", tables.join(", ")
    )]
    NotEmpty { tables: Vec<String> },

    #[error(
        "{written} items were written, then: {source}. To finish, import the same file again with \
         `--on-conflict overwrite`"
    )]
    Interrupted { written: u64, source: Box<DumpError> },

    #[error(transparent)]
    Store(#[from] StoreError),
}
