//! The Prometheus text format, as far as the agent needs it: the series of a few metrics, out of a page that is
//! read as it arrives. Kept are one line and the series that are wanted, however long the page is.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::servers::{self, Server};

/// A longer line is no sample of a metric that is wanted here.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Label sets of one metric; a page with more of them is another server's.
const MAX_SERIES: usize = 4_096;

/// What a metric's line is quoted with in a message.
const MAX_QUOTED_BYTES: usize = 80;

/// The series of one metric: `name`, or `name{label="value",other!="value"}`. As in PromQL, `""` is a label that
/// is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    /// As it was written.
    text: String,
    name: String,
    /// Which value each must have, or must not.
    labels: Vec<(String, Is, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Equal,
    Other,
}

impl Selector {
    /// `None` where the text is neither form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, rest) = split_name(text);
        let is_name = name.bytes().enumerate().all(|(i, byte)| {
            byte.is_ascii_alphabetic() || b"_:".contains(&byte) || i > 0 && byte.is_ascii_digit()
        });
        if name.is_empty() || !is_name {
            return None;
        }
        let mut labels = Vec::new();
        let rest = match rest.strip_prefix('{') {
            Some(inner) => each_label(inner, |name, value| {
                let (name, is) = match name.strip_suffix('!') {
                    Some(name) => (name, Is::Other),
                    None => (name, Is::Equal),
                };
                labels.push((name.trim_end().to_owned(), is, value.to_owned()));
            })?,
            None => rest,
        };
        rest.is_empty().then(|| Self { text: text.to_owned(), name: name.to_owned(), labels })
    }

    fn matches(&self, labels: &[(&str, &str)]) -> bool {
        self.labels.iter().all(|(name, is, value)| {
            let found = labels.iter().find(|(label, _)| label == name);
            let is_equal = found.map_or("", |(_, value)| value) == value;
            is_equal == (*is == Is::Equal)
        })
    }
}

/// One metric's series on a page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Series {
    values: HashMap<u64, f64>,
    /// What is wrong with it: then the whole metric is unknown, since a sum over the rest would be too small.
    garbled: Option<String>,
}

impl Series {
    /// By a hash of the labels, or what is wrong with the metric.
    pub(super) fn values(&self) -> Result<&HashMap<u64, f64>, &str> {
        self.garbled.as_deref().map_or(Ok(&self.values), Err)
    }

    fn is_there(&self) -> bool {
        self.garbled.is_some() || !self.values.is_empty()
    }

    fn add(&mut self, key: u64, value: f64) {
        if self.garbled.is_some() {
            return;
        }
        if self.values.len() >= MAX_SERIES && !self.values.contains_key(&key) {
            self.garble(format!("has more than {MAX_SERIES} series"));
            return;
        }
        // A series that is there twice is counted once.
        let known = self.values.entry(key).or_insert(value);
        *known = known.max(value);
    }

    fn garble(&mut self, reason: String) {
        self.garbled.get_or_insert(reason);
        self.values = HashMap::new();
    }
}

/// What a page said.
#[derive(Debug)]
pub(super) struct Page {
    series: Vec<(Selector, Series)>,
    /// Lines of any metric.
    pub(super) lines: usize,
    /// Whose page it is, by the first sample that tells.
    pub(super) server: Option<&'static Server>,
}

impl Page {
    /// What the selector that is written so found; `None`: nothing is there.
    pub(super) fn series(&self, selector: &str) -> Option<&Series> {
        let (_, series) = self.series.iter().find(|(known, _)| known.text == selector)?;
        series.is_there().then_some(series)
    }

    /// Whether anything was found by a selector but that one.
    pub(super) fn has_more_than(&self, selector: &str) -> bool {
        self.series.iter().any(|(known, series)| known.text != selector && series.is_there())
    }
}

/// Reads one page, chunk after chunk.
#[derive(Debug)]
pub(super) struct Reader {
    /// Labels of replicas that all report the same requests: of these, the highest value counts.
    replicas: &'static [&'static str],
    page: Page,
    line: Vec<u8>,
}

impl Reader {
    pub(super) fn new(selectors: &[Selector], replicas: &'static [&'static str]) -> Self {
        let empty = |selector: &Selector| (selector.clone(), Series::default());
        let series = selectors.iter().map(empty).collect();
        Self { replicas, page: Page { series, lines: 0, server: None }, line: Vec::new() }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        let mut parts = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if parts.peek().is_some() {
                self.end_line(true);
            }
        }
    }

    /// The page, of which the last line must have ended: half a number is a number, too.
    pub(super) fn finish(mut self) -> Page {
        self.end_line(false);
        self.page
    }

    fn end_line(&mut self, is_whole: bool) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('#') {
            self.page.lines += 1;
            self.read(text, is_whole && line.len() < MAX_LINE_BYTES);
        }
        // Its room serves the next line.
        self.line = line;
        self.line.clear();
    }

    fn read(&mut self, line: &str, is_whole: bool) {
        let (name, rest) = split_name(line);
        self.page.server = self.page.server.or_else(|| servers::by_sample(name));
        let wanted = |selector: &Selector| selector.name == name;
        if rest.is_empty() || !self.page.series.iter().any(|(selector, _)| wanted(selector)) {
            return;
        }
        let sample = if is_whole { Sample::parse(rest) } else { None };
        for (selector, series) in self.page.series.iter_mut().filter(|(known, _)| wanted(known)) {
            match &sample {
                Some(sample) if !selector.matches(&sample.labels) => {}
                Some(Sample { value, labels }) if *value >= 0.0 && value.is_finite() => {
                    series.add(key(labels, self.replicas), *value);
                }
                Some(Sample { value, .. }) => series.garble(format!("is {value}")),
                None => {
                    let quoted = &line[..line.floor_char_boundary(MAX_QUOTED_BYTES)];
                    series.garble(format!("is not a number in `{quoted}`"));
                }
            }
        }
    }
}

/// `{labels} value [timestamp]`
struct Sample<'a> {
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut labels = Vec::new();
        let rest = match text.strip_prefix('{') {
            Some(inner) => each_label(inner, |name, value| labels.push((name, value)))?,
            None => text,
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { labels, value })
    }
}

/// The name before labels, blanks or the end, and what follows it.
fn split_name(text: &str) -> (&str, &str) {
    text.split_at(text.find(['{', ' ', '\t']).unwrap_or(text.len()))
}

/// Gives each label after the opening brace with its value, as it is escaped, and what follows the closing one.
fn each_label<'a>(mut text: &'a str, mut take: impl FnMut(&'a str, &'a str)) -> Option<&'a str> {
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (name, rest) = text.split_once('=')?;
        let quoted = rest.trim_start().strip_prefix('"')?;
        let end = closing_quote(quoted)?;
        take(name.trim(), &quoted[..end]);
        text = quoted[end + 1..].trim_start();
        text = match text.strip_prefix(',') {
            Some(rest) => rest,
            None if text.starts_with('}') => text,
            None => return None,
        };
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

/// The same for the same labels, whatever their order.
fn key(labels: &[(&str, &str)], replicas: &[&'static str]) -> u64 {
    let told = labels.iter().filter(|(name, _)| !replicas.contains(name));
    told.fold(0, |key, label| {
        let mut hasher = DefaultHasher::new();
        label.hash(&mut hasher);
        key.wrapping_add(hasher.finish())
    })
}

#[cfg(test)]
mod tests;
