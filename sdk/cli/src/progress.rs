//! How far long work is, on standard error: a bar on a terminal, otherwise a line every few seconds.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const REDRAWS_PER_SECOND: u8 = 10;

/// What is counted towards the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Items,
    Bytes,
}

#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` where standard error is no terminal.
    bar: Option<ProgressBar>,
    what: &'static str,
    told: Instant,
}

impl Progress {
    /// `total` is `None`, or 0, where nobody knows how much there is.
    pub(crate) fn new(what: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| bar(what, unit, total.filter(|n| *n > 0)));
        Self { bar, what, told: Instant::now() }
    }

    pub(crate) fn set(&mut self, position: u64, items: u64) {
        match &self.bar {
            Some(bar) => {
                // The service's own count may be hours old.
                if bar.length().is_some_and(|length| length < position) {
                    bar.set_length(position);
                }
                bar.set_position(position);
                bar.set_message(format!("{items} items"));
            }
            None if self.told.elapsed() >= LINE_EVERY => {
                self.told = Instant::now();
                let _ = writeln!(io::stderr(), "{}: {items} items", self.what);
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    /// The result is told by whoever did the work.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, unit: Unit, total: Option<u64>) -> ProgressBar {
    let template = match (total, unit) {
        (None, _) => "{prefix} {spinner} {msg}, {elapsed}",
        (Some(_), Unit::Items) => "{prefix} [{wide_bar}] {pos}/{len} items, {eta} left",
        (Some(_), Unit::Bytes) => "{prefix} [{wide_bar}] {bytes}/{total_bytes}, {msg}, {eta} left",
    };
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
    let bar = ProgressBar::with_draw_target(total, target).with_prefix(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
