//! What came of a load, counted by each worker and summed when asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::client::{Outcome, Verdict};

/// Error texts kept for each reason, of each worker and in the sum.
const SAMPLES_MAX: usize = 4;
/// Values counted apart for each header; further ones are counted under [`OTHER_VALUES`].
const HEADER_VALUES_MAX: usize = 4_096;
const OTHER_VALUES: &str = "(other)";
/// Two digits: a percentile is at most 1% off, and a histogram a few dozen kilobytes.
const SIGNIFICANT_DIGITS: u8 = 2;
/// An hour; a longer latency is counted as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    #[error("cannot connect")]
    Connect,
    #[error("no answer")]
    Send,
    #[error("timed out")]
    Timeout,
    #[error("status {0}")]
    Status(u16),
    #[error("answer broke off")]
    Body,
    #[error("answer too long")]
    TooLong,
    #[error("answer is no JSON")]
    Json,
    #[error("stream without [DONE]")]
    NoDone,
    /// A fault of this client.
    #[error("client fault")]
    Client,
}

/// The failures of one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    pub count: u64,
    /// The first few, with the target and the error's text.
    pub samples: Vec<String>,
}

/// How often a header's value came, in answers of any status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub count: u64,
    /// When the first answer with it was complete.
    pub first: Instant,
    /// When the latest was.
    pub last: Instant,
}

/// A distribution of durations, exact to 1%.
#[derive(Clone)]
pub struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    fn new() -> Self {
        // `None` only if the constants were out of the crate's range, which they are not.
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS).ok())
    }

    fn record(&mut self, latency: Duration) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn add(&mut self, other: &Self) {
        if let (Some(sum), Some(histogram)) = (&mut self.0, &other.0) {
            // It fails only where the bounds differ, and they are the same in all.
            let _ = sum.add(histogram);
        }
    }

    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// The latency that the given share (0 to 1) does not exceed; zero where there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        let us = self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(share));
        Duration::from_micros(us)
    }

    pub fn p50(&self) -> Duration {
        self.quantile(0.50)
    }

    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.as_ref().map_or(0, Histogram::max))
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies")
            .field("count", &self.count())
            .field("p50", &self.p50())
            .field("p99", &self.p99())
            .field("max", &self.max())
            .finish()
    }
}

/// The counts of a load. `sent - ok - shed - failed()` is in flight.
#[derive(Debug, Clone)]
pub struct Stats {
    pub elapsed: Duration,
    pub sent: u64,
    /// Answered in full: a plain answer parsed as JSON, a stream said `[DONE]`.
    pub ok: u64,
    /// Of `ok`, those that streamed.
    pub streamed: u64,
    /// 503 with `retry-after`.
    pub shed: u64,
    pub failures: BTreeMap<Reason, Failures>,
    /// Of `count_headers`: header → value → how often.
    pub headers: BTreeMap<String, BTreeMap<String, Seen>>,
    /// To the last byte, of those that were ok.
    pub latency: Latencies,
    /// To the first event, of streams that were ok.
    pub first_event: Latencies,
}

impl Stats {
    pub(super) fn new(count_headers: &[HeaderName]) -> Self {
        Self {
            elapsed: Duration::ZERO,
            sent: 0,
            ok: 0,
            streamed: 0,
            shed: 0,
            failures: BTreeMap::new(),
            headers: count_headers
                .iter()
                .map(|name| (name.as_str().to_owned(), BTreeMap::new()))
                .collect(),
            latency: Latencies::new(),
            first_event: Latencies::new(),
        }
    }

    pub fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    pub fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.ok + self.shed + self.failed())
    }

    /// Whole answers each second.
    pub fn per_second(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// The counts of one header's values; empty where it was not configured or never came.
    pub fn values(&self, header: &str) -> impl Iterator<Item = (&str, Seen)> {
        self.headers.get(header).into_iter().flatten().map(|(value, seen)| (value.as_str(), *seen))
    }

    pub(super) fn record(&mut self, begun: Instant, target: &str, outcome: Outcome) {
        let now = Instant::now();
        if let Some(headers) = &outcome.headers {
            self.count_values(headers, now);
        }
        match outcome.verdict {
            Verdict::Ok => {
                self.ok += 1;
                self.latency.record(now - begun);
                if let Some(first) = outcome.first_event {
                    self.streamed += 1;
                    self.first_event.record(first - begun);
                }
            }
            Verdict::Shed => self.shed += 1,
            Verdict::Failed(reason, text) => self.fail(reason, format!("{target}: {text}")),
        }
    }

    pub(super) fn fail(&mut self, reason: Reason, text: String) {
        let failures = self.failures.entry(reason).or_default();
        failures.count += 1;
        if failures.samples.len() < SAMPLES_MAX {
            failures.samples.push(text);
        }
    }

    fn count_values(&mut self, headers: &HeaderMap, now: Instant) {
        for (name, values) in &mut self.headers {
            for value in headers.get_all(name) {
                let value = String::from_utf8_lossy(value.as_bytes());
                count(values, &value, Seen { count: 1, first: now, last: now });
            }
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.ok += other.ok;
        self.streamed += other.streamed;
        self.shed += other.shed;
        for (reason, more) in &other.failures {
            let failures = self.failures.entry(*reason).or_default();
            failures.count += more.count;
            let room = SAMPLES_MAX.saturating_sub(failures.samples.len());
            failures.samples.extend(more.samples.iter().take(room).cloned());
        }
        for (name, values) in &other.headers {
            let sum = self.headers.entry(name.clone()).or_default();
            for (value, seen) in values {
                count(sum, value, *seen);
            }
        }
        self.latency.add(&other.latency);
        self.first_event.add(&other.first_event);
    }
}

fn count(values: &mut BTreeMap<String, Seen>, value: &str, more: Seen) {
    if let Some(seen) = values.get_mut(value) {
        return seen.add(more);
    }
    let key = if values.len() < HEADER_VALUES_MAX { value } else { OTHER_VALUES };
    values.entry(key.to_owned()).and_modify(|seen| seen.add(more)).or_insert(more);
}

impl Seen {
    fn add(&mut self, more: Self) {
        self.count += more.count;
        self.first = self.first.min(more.first);
        self.last = self.last.max(more.last);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent in {:.1} s, {} ok ({} streamed), {} shed, {} failed, p50 {:?}, p99 {:?}",
            self.sent,
            self.elapsed.as_secs_f64(),
            self.ok,
            self.streamed,
            self.shed,
            self.failed(),
            self.latency.p50(),
            self.latency.p99()
        )?;
        for (reason, failures) in &self.failures {
            write!(f, "\n  {} × {reason}: {}", failures.count, failures.samples.join(" | "))?;
        }
        Ok(())
    }
}
