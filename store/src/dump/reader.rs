//! Reading a copy line by line, with every line checked.

use std::io::{BufRead, Read};

use serde::Deserialize;
use serde_json::Value;

use super::{Counts, DUMP_VERSION, DumpError, DumpHeader, End, FORMAT, MAX_LINE_BYTES, json};
use crate::{
    item::{self, Item, PK, SK},
    schema::Table,
};

/// The service's bound on an item.
const MAX_ITEM_BYTES: usize = 400 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemLine {
    table: String,
    item: Value,
}

/// What a copy that was read to its end holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpSummary {
    pub header: DumpHeader,
    /// Items by table, in the order of the tables' names.
    pub items: Vec<(&'static str, u64)>,
}

impl DumpSummary {
    /// Items of all tables.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|(_, items)| items).sum()
    }
}

/// A copy that is being read: one line is in memory at a time.
#[derive(Debug)]
pub struct DumpReader<R> {
    input: R,
    buffer: Vec<u8>,
    header: DumpHeader,
    /// Lines read.
    line: u64,
    bytes: u64,
    counts: Counts,
    ended: bool,
}

impl<R: BufRead> DumpReader<R> {
    /// Reads the first line.
    pub fn open(input: R) -> Result<Self, DumpError> {
        let nothing = DumpHeader {
            format: String::new(),
            version: 0,
            table_prefix: String::new(),
            tables: Vec::new(),
        };
        let mut reader = Self {
            input,
            buffer: Vec::new(),
            header: nothing,
            line: 0,
            bytes: 0,
            counts: Counts::new(),
            ended: false,
        };
        let not_a_dump = |reason: String| DumpError::NotADump { reason };
        match reader.read_line() {
            Ok(true) => {}
            Ok(false) => return Err(not_a_dump("the file is empty".to_owned())),
            Err(DumpError::Line { reason, .. }) => return Err(not_a_dump(reason)),
            Err(error) => return Err(error),
        }
        reader.header = header(&reader.buffer)?;
        Ok(reader)
    }

    pub fn header(&self) -> &DumpHeader {
        &self.header
    }

    /// How far it has read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads to the end without keeping anything: whether the whole file is as it was written.
    pub fn validate(mut self) -> Result<DumpSummary, DumpError> {
        while self.next_item()?.is_some() {}
        let items = self.counts.iter().map(|(table, items)| (table.short_name(), *items)).collect();
        Ok(DumpSummary { header: self.header, items })
    }

    /// The next item; `None` once the counts at the end were read and are right.
    pub(crate) fn next_item(&mut self) -> Result<Option<(Table, Item)>, DumpError> {
        if self.ended {
            return Ok(None);
        }
        if !self.read_line()? {
            let items = self.counts.values().sum();
            return Err(DumpError::Truncated { line: self.line, items });
        }
        if let Ok(End { end }) = serde_json::from_slice(&self.buffer) {
            self.check_counts(&end.items)?;
            return Ok(None);
        }
        let found = item_line(&self.buffer);
        let (table, item) = found.map_err(|reason| self.at_line(reason))?;
        *self.counts.entry(table).or_default() += 1;
        Ok(Some((table, item)))
    }

    fn check_counts(
        &mut self,
        stated: &std::collections::BTreeMap<String, u64>,
    ) -> Result<(), DumpError> {
        self.ended = true;
        for table in Table::ALL {
            let found = self.counts.get(&table).copied().unwrap_or(0);
            let stated = stated.get(table.short_name()).copied().unwrap_or(0);
            if found != stated {
                let table = table.short_name().to_owned();
                return Err(DumpError::Miscounted { table, found, stated });
            }
        }
        if self.read_line()? {
            return Err(self.at_line("there is more after the line that ends the file".to_owned()));
        }
        Ok(())
    }

    /// Reads a line without its end into the buffer; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, DumpError> {
        self.buffer.clear();
        let mut bounded = self.input.by_ref().take(MAX_LINE_BYTES);
        let read = bounded.read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(false);
        }
        self.line += 1;
        self.bytes += read as u64;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if read as u64 == MAX_LINE_BYTES {
            return Err(self.at_line(format!("it is longer than {MAX_LINE_BYTES} bytes")));
        }
        Ok(true)
    }

    fn at_line(&self, reason: String) -> DumpError {
        DumpError::Line { line: self.line, reason }
    }
}

/// The version is judged before the rest, which a newer one may have changed.
fn header(line: &[u8]) -> Result<DumpHeader, DumpError> {
    #[derive(Deserialize)]
    struct Version {
        format: String,
        version: u32,
    }
    let not_a_dump = |error: serde_json::Error| DumpError::NotADump { reason: error.to_string() };
    let Version { format, version } = serde_json::from_slice(line).map_err(not_a_dump)?;
    if format != FORMAT {
        let reason = format!("`format` is `{format}`, not `{FORMAT}`");
        return Err(DumpError::NotADump { reason });
    }
    if version > DUMP_VERSION {
        return Err(DumpError::Newer { found: version });
    }
    serde_json::from_slice(line).map_err(not_a_dump)
}

fn item_line(line: &[u8]) -> Result<(Table, Item), String> {
    let ItemLine { table, item } = serde_json::from_slice(line)
        .map_err(|error| format!("it is no item, or was cut off: {error}"))?;
    let Some(table) = Table::from_short_name(&table) else {
        return Err(format!("there is no table `{table}`"));
    };
    let item = json::from_json(item)?;
    for key in [PK, SK] {
        if item.get(key).and_then(|value| value.as_s().ok()).is_none_or(String::is_empty) {
            return Err(format!("`{key}` must be a string that is not empty"));
        }
    }
    let bytes = item::size_bytes(&item);
    if bytes > MAX_ITEM_BYTES {
        return Err(format!(
            "the item has {bytes} bytes, and at most {MAX_ITEM_BYTES} can be stored"
        ));
    }
    Ok((table, item))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HEADER: &str =
        r#"{"format":"mrgc-state","version":1,"table_prefix":"mrgc","tables":["regions"]}"#;
    const ITEM: &str = r#"{"table":"regions","item":{"pk":{"S":"REGIONS"},"sk":{"S":"r"}}}"#;
    const END: &str = r#"{"end":{"items":{"regions":1}}}"#;

    fn validated(lines: &[&str]) -> Result<DumpSummary, DumpError> {
        let text = lines.join("\n");
        DumpReader::open(text.as_bytes()).and_then(DumpReader::validate)
    }

    #[test]
    fn a_whole_file_is_summed_up() {
        for end in [END.to_owned(), format!("{END}\n")] {
            let summary = validated(&[HEADER, ITEM, &end]).unwrap();
            assert_eq!(summary.items, [("regions", 1)]);
            assert_eq!(summary.total(), 1);
            assert_eq!(summary.header.table_prefix, "mrgc");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let newer = HEADER.replace(":1,", r#":2,"more":[],"#);
        let other = HEADER.replace("mrgc-state", "csv");
        let cut = &ITEM[..ITEM.len() - 5];
        let no_table = ITEM.replace("regions", "nowhere");
        let no_key = ITEM.replace(r#""sk":{"S":"r"}"#, r#""sk":{"S":""}"#);
        let with_more = ITEM.replace(r#"{"table""#, r#"{"x":1,"table""#);
        for (lines, expected) in [
            (&[][..], "line 1: the file is empty: this is no file of"),
            (&["hello"], "line 1: expected value"),
            (&[&other], "line 1: `format` is `csv`"),
            (&[&newer], "the file has format version 2, and this program knows versions up to 1"),
            (&[HEADER], "the file ends after line 1, with 0 items"),
            (&[HEADER, ITEM], "the file ends after line 2, with 1 items"),
            (&[HEADER, ITEM, cut], "line 3: it is no item, or was cut off: EOF"),
            (&[HEADER, "", ITEM, END], "line 2: it is no item"),
            (&[HEADER, &no_table, END], "line 2: there is no table `nowhere`"),
            (&[HEADER, &no_key, END], "line 2: `sk` must be a string that is not empty"),
            (&[HEADER, &with_more, END], "line 2: it is no item"),
            (
                &[HEADER, ITEM, ITEM, END],
                "the file has 2 items of table `regions` and says that it has 1",
            ),
            (&[HEADER, END], "the file has 0 items of table `regions` and says that it has 1"),
            (&[HEADER, ITEM, END, ITEM], "line 4: there is more after the line that ends the file"),
        ] {
            let error = validated(lines).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{lines:?}: {error}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_read_into_memory() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        let error = DumpReader::open(endless).unwrap_err().to_string();
        assert!(error.starts_with("line 1: it is longer than 8388608 bytes"), "{error}");
    }

    #[test]
    fn an_item_beyond_the_service_s_bound_is_told() {
        let long = "x".repeat(MAX_ITEM_BYTES);
        let line =
            format!(r#"{{"table":"regions","item":{{"pk":{{"S":"{long}"}},"sk":{{"S":"s"}}}}}}"#);
        let error = validated(&[HEADER, &line, END]).unwrap_err().to_string();
        assert!(error.starts_with("line 2: the item has 409605 bytes"), "{error}");
    }
}
