//! The settings as a tree in which each value knows where it was set.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::{Origin, Problem};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Boolean(bool),
    Integer(i128),
    Float(f64),
    String(String),
    /// Of a variable: what it is depends on what is asked for.
    Text(String),
    /// Each with its place in the file, which stays when another is taken out.
    List(Vec<(usize, Node)>),
    Table(BTreeMap<String, Node>),
}

/// A step from a value to one within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

/// A path as people write it: `routes[2].match`.
pub(super) fn render(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
        }
    }
    text
}

impl Node {
    pub(super) fn empty_table() -> Self {
        Self { value: Value::Table(BTreeMap::new()), origin: Origin::Unset }
    }

    /// A TOML document; all of its syntax errors where it has any.
    pub(super) fn parse_document(text: &str) -> Result<Self, Vec<Problem>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let line_of = |offset: usize| Origin::Line(line(text, offset));
            return Ok(Self { value: table(document.get_ref(), &line_of), origin: Origin::Unset });
        }
        Err(errors
            .iter()
            .map(|error| Problem {
                origin: error.span().map_or(Origin::Unset, |s| Origin::Line(line(text, s.start))),
                key: String::new(),
                message: error.message().to_owned(),
            })
            .collect())
    }

    /// A variable's text as one TOML value.
    pub(super) fn parse_value(text: &str, origin: &Origin) -> Result<Self, String> {
        let parsed = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
        Ok(Self { value: value(parsed.get_ref(), &|_| origin.clone()), origin: origin.clone() })
    }

    /// Sets a variable's text at `keys`, making tables on the way and replacing what is no table.
    pub(super) fn set_text(&mut self, keys: &[String], text: String, origin: &Origin) {
        let mut node = self;
        for key in keys {
            if !matches!(node.value, Value::Table(_)) {
                *node = Self { value: Value::Table(BTreeMap::new()), origin: origin.clone() };
            }
            let Value::Table(entries) = &mut node.value else { return };
            node = entries.entry(key.clone()).or_insert_with(|| Self {
                value: Value::Table(BTreeMap::new()),
                origin: origin.clone(),
            });
        }
        *node = Self { value: Value::Text(text), origin: origin.clone() };
    }

    /// Takes the value at `path` out, or of a variable the whole text; false where there is none.
    pub(super) fn remove(&mut self, path: &[Segment]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match (&mut self.value, first) {
            (Value::Table(entries), Segment::Key(key)) => match entries.get_mut(key) {
                Some(node) => node.remove(rest) || entries.remove(key).is_some(),
                None => false,
            },
            (Value::List(items), Segment::Index(index)) => {
                match items.iter().position(|(at, _)| at == index) {
                    Some(found) => {
                        if !items[found].1.remove(rest) {
                            items.remove(found);
                        }
                        true
                    }
                    None => false,
                }
            }
            _ => false,
        }
    }

    /// Each value that is no table, by its path. A list is one value.
    pub(super) fn leaves(&self) -> BTreeMap<String, String> {
        let mut leaves = BTreeMap::new();
        self.collect_leaves("", &mut leaves);
        leaves
    }

    fn collect_leaves(&self, path: &str, leaves: &mut BTreeMap<String, String>) {
        match &self.value {
            Value::Table(entries) => {
                for (key, node) in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    node.collect_leaves(&format!("{path}{dot}{key}"), leaves);
                }
            }
            _ => {
                leaves.insert(path.to_owned(), self.text());
            }
        }
    }

    /// The value without where it was set: equal for what is written alike.
    fn text(&self) -> String {
        match &self.value {
            Value::Boolean(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::String(text) | Value::Text(text) => format!("{text:?}"),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|(_, node)| node.text()).collect();
                format!("[{}]", items.join(","))
            }
            Value::Table(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|(key, node)| format!("{key:?}={}", node.text())).collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    /// Where each value was set, by its path.
    pub(super) fn origins(&self) -> BTreeMap<String, Origin> {
        let mut origins = BTreeMap::new();
        self.collect_origins("", &mut origins);
        origins
    }

    fn collect_origins(&self, path: &str, origins: &mut BTreeMap<String, Origin>) {
        if !path.is_empty() {
            origins.insert(path.to_owned(), self.origin.clone());
        }
        match &self.value {
            Value::Table(entries) => {
                for (key, node) in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    node.collect_origins(&format!("{path}{dot}{key}"), origins);
                }
            }
            Value::List(items) => {
                for (index, node) in items {
                    node.collect_origins(&format!("{path}[{index}]"), origins);
                }
            }
            _ => {}
        }
    }
}

fn table(entries: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Value {
    Value::Table(
        entries
            .iter()
            .map(|(key, node)| {
                // The key's line, which for a table is its header's.
                let node =
                    Node { value: value(node.get_ref(), origin), origin: origin(key.span().start) };
                (key.get_ref().clone().into_owned(), node)
            })
            .collect(),
    )
}

fn spanned(node: &toml::Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) -> Node {
    Node { value: value(node.get_ref(), origin), origin: origin(node.span().start) }
}

fn value(value: &DeValue<'_>, origin: &dyn Fn(usize) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        // What does not fit 128 bits fits no setting either, and is refused as too large.
        DeValue::Integer(integer) => Value::Integer(
            i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX),
        ),
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        DeValue::Array(items) => Value::List(
            items.iter().enumerate().map(|(i, item)| (i, spanned(item, origin))).collect(),
        ),
        DeValue::Table(entries) => table(entries, origin),
    }
}

/// The line of a byte offset, from 1.
fn line(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}
