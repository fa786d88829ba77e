//! Settings in layers: a TOML file, and over it the environment. Nothing here knows the agent.
//!
//! `PREFIX__HEARTBEAT__INTERVAL_SECONDS=10` sets `heartbeat.interval_seconds`: double underscores nest, case
//! does not matter. What a variable's text means depends on what is asked for, so that an id of `12345` stays
//! text; a list is `a,b` or TOML, a table is TOML (`{ ami = "ami-1" }`).
//!
//! ```text
//!  file ─► tree ─┐
//!                ├─► merged, each value with its origin ─► read::<T>() ─► checks ─► finish()
//!  environment ──┘                                           │              │         │
//!                                            problems  ──────┴──────────────┴─────────┘ all at once
//! ```
//!
//! A value that does not fit is told and taken out, and the type is read again from the rest, until it fits.
//! So `T` gives every field a default and refuses unknown ones:
//! `#[serde(default, deny_unknown_fields)]`, with `Option` for what must be set ([`Layers::require`]).
#![forbid(unsafe_code)]

mod reader;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
};

use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::tree::{Node, Value};

/// Problems beyond this many are not looked for: a file that wrong is another kind of file.
const MAX_PROBLEMS: usize = 100;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable's name.
    Variable(String),
    /// Nowhere: a default, or missing.
    Unset,
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub origin: Origin,
    /// As in `heartbeat.interval_seconds` or `routes[2].match`; empty for the file's own syntax.
    pub key: String,
    pub message: String,
}

/// Everything that is wrong with the settings, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Problems {
    file: Option<String>,
    list: Vec<Problem>,
}

impl Problems {
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("configuration");
        for (i, Problem { origin, key, message }) in self.list.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            match origin {
                Origin::Line(line) => write!(f, "{separator}{file}:{line}: ")?,
                Origin::Variable(name) => write!(f, "{separator}{name}: ")?,
                Origin::Unset => f.write_str(separator)?,
            }
            if !key.is_empty() {
                write!(f, "{key}: ")?;
            }
            f.write_str(message)?;
        }
        Ok(())
    }
}

/// What is set at one time, by key. The values are for comparing only: a setting may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Written(BTreeMap<String, String>);

impl Written {
    /// The keys that are set otherwise in `later`, or only in one of the two.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let keys: BTreeSet<&String> = self.0.keys().chain(later.0.keys()).collect();
        let is_changed = |key: &&String| self.0.get(*key) != later.0.get(*key);
        keys.into_iter().filter(is_changed).cloned().collect()
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Settings being read.
#[derive(Debug)]
pub struct Layers {
    prefix: &'static str,
    file: Option<String>,
    tree: Node,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
    /// The file could not be parsed: whatever else seems wrong follows from that.
    broken: bool,
}

impl Layers {
    /// No settings yet. `prefix` is that of the environment variables, as in `MRGC_AGENT`.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            file: None,
            tree: Node::empty_table(),
            origins: BTreeMap::new(),
            problems: Vec::new(),
            broken: false,
        }
    }

    /// Takes a file's text; `name` is for messages.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.file = Some(name.to_owned());
        match Node::parse_document(text) {
            Ok(tree) => self.tree = tree,
            Err(problems) => {
                self.broken = true;
                self.problems.extend(problems);
            }
        }
        self
    }

    /// Narrows a file to one of its tables, as in `store`: its keys are the keys from here on, and the rest of
    /// the file is for somebody else.
    pub fn section(mut self, name: &str) -> Self {
        let Value::Table(entries) = &mut self.tree.value else { return self };
        match entries.remove(name) {
            Some(section) => self.tree = section,
            None if self.broken => {}
            None => self.problems.push(Problem {
                origin: Origin::Unset,
                key: name.to_owned(),
                message: format!("is missing: the file has no [{name}]"),
            }),
        }
        self
    }

    /// Lays the variables with the prefix over what is there.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let start = format!("{}__", self.prefix);
        for (name, text) in variables {
            let Some((name, keys)) =
                name.to_str().and_then(|name| Some((name, name.strip_prefix(&start)?)))
            else {
                continue;
            };
            let origin = Origin::Variable(name.to_owned());
            let keys: Vec<String> = keys.split("__").map(str::to_ascii_lowercase).collect();
            match text.into_string() {
                Ok(text) => self.tree.set_text(&keys, text, &origin),
                Err(_) => self.problems.push(Problem {
                    origin,
                    key: keys.join("."),
                    message: "is not UTF-8: set it again as plain text".to_owned(),
                }),
            }
        }
        self
    }

    /// Reads what is there as `T`; what does not fit is a problem and left at its default.
    pub fn read<T: DeserializeOwned + Default>(&mut self) -> T {
        self.origins = self.tree.origins();
        while self.problems.len() < MAX_PROBLEMS {
            match reader::read(&self.tree) {
                Ok(value) => return value,
                Err(error) => {
                    let key = tree::render(&error.path);
                    // What is missing because it was wrong and taken out has been told.
                    if !error.lacks.is_some_and(|lacks| self.is_told(&format!("{key}.{lacks}"))) {
                        let origin = self.origin(&key);
                        self.problems.push(Problem { origin, key, message: error.message });
                    }
                    if !self.tree.remove(&error.path) {
                        break;
                    }
                }
            }
        }
        T::default()
    }

    /// What is set, to be compared with what is set later.
    pub fn written(&self) -> Written {
        Written(self.tree.leaves())
    }

    /// Tells that `key` has a value that will not do. Says nothing where the key was told of already.
    pub fn reject(&mut self, key: &str, message: impl Into<String>) {
        if !self.is_told(key) {
            let (origin, message) = (self.origin(key), message.into());
            self.problems.push(Problem { origin, key: key.to_owned(), message });
        }
    }

    /// Tells that `key` must be set where `value` is `None`.
    pub fn require<T>(&mut self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            let place = self.file.as_deref().unwrap_or("the configuration file");
            let variable = self.variable(key);
            self.reject(key, format!("is missing: set it in {place}, or as {variable}"));
        }
        value
    }

    /// The environment variable that sets `key`.
    pub fn variable(&self, key: &str) -> String {
        format!("{}__{}", self.prefix, key.replace('.', "__").to_ascii_uppercase())
    }

    /// The checked value where nothing is wrong. `None` as the value must have been rejected.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Problems> {
        if self.broken {
            self.problems.retain(|problem| problem.key.is_empty());
        }
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => {
                self.problems.sort();
                Err(Problems { file: self.file, list: self.problems })
            }
        }
    }

    /// Where `key` was set; for what was not, where the table it belongs to begins.
    fn origin(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return origin.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Origin::Unset,
            }
        }
    }

    fn is_told(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| {
            key.strip_prefix(problem.key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}
