//! The Prometheus text format, as far as the agent needs it: sums of a few metrics over all their label sets.

use std::collections::BTreeMap;

/// The sum of each wanted metric that occurs, and what was wrong with those that cannot be read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sums {
    /// By name. A metric with an unreadable line is not here.
    pub(super) values: BTreeMap<&'static str, f64>,
    pub(super) garbled: BTreeMap<&'static str, String>,
}

/// Sums `wanted` over label sets, ranks and engines. Lines of other metrics are not looked at.
pub(super) fn sum(text: &str, wanted: &[&'static str]) -> Sums {
    let mut sums = Sums::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some(name) = wanted.iter().find(|name| is_of(line, name)) else { continue };
        match value(&line[name.len()..]) {
            Some(value) => *sums.values.entry(name).or_insert(0.0) += value,
            None => {
                sums.garbled.insert(name, shorten(line));
            }
        }
    }
    sums.values.retain(|name, _| !sums.garbled.contains_key(name));
    sums
}

/// Whether the line is of the metric itself, and not of one whose name starts like it.
fn is_of(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '\t']))
}

/// The value in `{labels} value [timestamp]`; `None` where it is no finite number.
fn value(rest: &str) -> Option<f64> {
    let rest = match rest.strip_prefix('{') {
        Some(labels) => &labels[labels_end(labels)? + 1..],
        None => rest,
    };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Where the closing brace is: a quoted label value may hold others, and escapes.
fn labels_end(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    labels.bytes().position(|byte| {
        let is_end = byte == b'}' && !quoted;
        (quoted, escaped) = match byte {
            _ if escaped => (quoted, false),
            b'\\' => (quoted, true),
            b'"' => (!quoted, false),
            _ => (quoted, false),
        };
        is_end
    })
}

/// Enough of a line to recognise it in a message.
fn shorten(line: &str) -> String {
    line[..line.floor_char_boundary(80)].to_owned()
}

#[cfg(test)]
mod tests;
