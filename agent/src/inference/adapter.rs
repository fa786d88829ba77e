//! A page of metrics → the load, by the names in the server's row or those that were configured.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use super::{
    metrics::{Page, Reader, Selector, Series},
    servers::{self, PROCESS_START, Server},
    window::{Counters, Latency},
};
use crate::{
    config::{MetricNames, TimeUnit},
    signals::{Check, Load, Reading, Status},
};

/// More requests than this no server has: the number is garbage.
const MAX_REQUESTS: f64 = 1e6;

/// A selector's text.
type Name = Cow<'static, str>;

/// Reads one server's metrics, scrape after scrape.
#[derive(Debug)]
pub(super) struct Adapter {
    server: &'static str,
    names: Names,
    selectors: Vec<Selector>,
    replicas: &'static [&'static str],
    /// See [`Server::is_complete`].
    is_complete: bool,
    latency: Latency,
    first_token: Latency,
}

/// What is looked for. Of alternatives the first that is on the page counts.
#[derive(Debug)]
struct Names {
    /// Sums of alternatives.
    waiting: Vec<Vec<Name>>,
    running: Vec<Vec<Name>>,
    kv_cache: Vec<Name>,
    latency: Vec<Ratio>,
    first_token: Vec<Ratio>,
}

#[derive(Debug)]
struct Ratio {
    sum: Name,
    count: Name,
    /// Milliseconds in one of the sum.
    ms: f64,
}

/// Why a number is not known.
#[derive(Debug, PartialEq)]
enum Unknown {
    /// The server never says it, or not yet.
    Absent(String),
    /// It says something that cannot be.
    Garbled(String),
}

impl Unknown {
    fn reason(&self) -> &str {
        let (Self::Absent(reason) | Self::Garbled(reason)) = self;
        reason
    }
}

impl Adapter {
    pub(super) fn of(server: &'static Server, window: Duration) -> Self {
        let owned = |names: &'static [&'static str]| -> Vec<Name> {
            names.iter().map(|name| Cow::Borrowed(*name)).collect()
        };
        let ratios = |histograms: &'static [servers::Histogram]| {
            let ratio = |h: &'static servers::Histogram| Ratio {
                sum: Cow::Borrowed(h.sum),
                count: Cow::Borrowed(h.count),
                ms: h.ms,
            };
            histograms.iter().map(ratio).collect()
        };
        let names = Names {
            waiting: server.waiting.iter().map(|names| owned(names)).collect(),
            running: server.running.iter().map(|names| owned(names)).collect(),
            kv_cache: owned(server.kv_cache),
            latency: ratios(server.latency),
            first_token: ratios(server.first_token),
        };
        let adapter = Self::new(server.name, names, window);
        Self { replicas: server.replicas, is_complete: server.is_complete, ..adapter }
    }

    /// Of a server of which only the metrics' names are known.
    pub(super) fn configured(metrics: &MetricNames, window: Duration) -> Self {
        let one = |name: &Option<String>| -> Vec<Name> {
            name.iter().map(|name| Cow::Owned(name.clone())).collect()
        };
        let gauge = |name| Vec::from_iter(Some(one(name)).filter(|names| !names.is_empty()));
        let ms = match metrics.latency_unit {
            TimeUnit::Seconds => servers::SECONDS,
            TimeUnit::Milliseconds => servers::MILLISECONDS,
        };
        let ratio = |sum: &Option<String>, count: &Option<String>| {
            let names = sum.clone().zip(count.clone()).into_iter();
            names.map(|(sum, count)| Ratio { sum: sum.into(), count: count.into(), ms }).collect()
        };
        let names = Names {
            waiting: gauge(&metrics.waiting),
            running: gauge(&metrics.running),
            kv_cache: one(&metrics.kv_cache_usage),
            latency: ratio(&metrics.latency_sum, &metrics.latency_count),
            first_token: ratio(&metrics.first_token_sum, &metrics.first_token_count),
        };
        let Server { name, is_complete, .. } = servers::CONFIGURED;
        Self { is_complete, ..Self::new(name, names, window) }
    }

    fn new(server: &'static str, names: Names, window: Duration) -> Self {
        let gauges = names.waiting.iter().chain(&names.running).chain([&names.kv_cache]).flatten();
        let ratios = names.latency.iter().chain(&names.first_token);
        let texts = gauges.chain(ratios.flat_map(|ratio| [&ratio.sum, &ratio.count]));
        // Those of the table can all be read, and those configured were checked.
        let selectors = texts.map(|text| &**text).chain([PROCESS_START]);
        Self {
            server,
            selectors: selectors.filter_map(Selector::parse).collect(),
            names,
            replicas: &[],
            is_complete: false,
            latency: Latency::over(window),
            first_token: Latency::over(window),
        }
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::new(&self.selectors, self.replicas)
    }

    /// The load on the page, which was asked for at `at` since the agent's start.
    pub(super) fn read(&mut self, page: &Page, at: Duration) -> Reading<Load> {
        let Self { server, names, is_complete, latency, first_token, .. } = self;
        // When its process started any server may say.
        let is_its_page = page.has_more_than(PROCESS_START);
        if !is_its_page && (*is_complete || page.server.is_none()) {
            let lines = page.lines;
            return Reading::missing(format!(
                "none of the metrics of {server} is among the {lines} lines of its page"
            ));
        }
        let sum = |places, what| sum(page, places, what, server, *is_complete);
        let waiting = sum(&names.waiting, "waiting requests");
        let running = sum(&names.running, "running requests");
        let average = |window: &mut Latency, ratios: &[Ratio], what| {
            average(page, ratios, what, server)
                .and_then(|series| milliseconds(window.add(at, series), what))
        };
        let latency = average(latency, &names.latency, "latency");
        let first_token = average(first_token, &names.first_token, "time to first token");
        let kv_cache = fraction(page, &names.kv_cache, "KV cache use", server);

        let spoils = |number: &Result<u32, Unknown>, is_expected: bool| match number {
            Ok(_) => false,
            Err(Unknown::Absent(_)) => is_expected && *is_complete,
            Err(Unknown::Garbled(_)) => true,
        };
        // What else is not known is said, and does not decide whether the server is fit.
        let is_degraded = spoils(&waiting, !names.waiting.is_empty())
            || spoils(&running, !names.running.is_empty());
        let errors = [waiting.as_ref().err(), running.as_ref().err(), latency.as_ref().err()];
        let errors =
            errors.into_iter().chain([first_token.as_ref().err(), kv_cache.as_ref().err()]);
        let told: Vec<&str> = errors.flatten().map(Unknown::reason).collect();
        let reason = (!told.is_empty()).then(|| told.join("; "));
        let status = if is_degraded { Status::Degraded } else { Status::Ok };
        let load = Load {
            waiting: waiting.ok(),
            running: running.ok(),
            avg_latency_ms: latency.ok(),
            time_to_first_token_ms: first_token.ok(),
            kv_cache_usage: kv_cache.ok(),
        };
        Reading::noted(load, Check { status, reason })
    }
}

/// When the server's process started, in seconds since the epoch.
pub(super) fn process_start(page: &Page) -> Option<f64> {
    page.series(PROCESS_START)?.values().ok()?.values().copied().reduce(f64::max)
}

/// The first of the names that is on the page, with its series.
fn first<'a>(page: &'a Page, names: &'a [Name]) -> Option<(&'a str, &'a Series)> {
    names.iter().find_map(|name| Some((&**name, page.series(name)?)))
}

fn absent(names: Option<&Name>, what: &str, server: &str) -> Unknown {
    Unknown::Absent(match names {
        Some(name) => format!("{what}: {name} is not among the metrics"),
        None => format!("{what}: not said by {server}"),
    })
}

fn garbled(name: &str, reason: &str) -> Unknown {
    Unknown::Garbled(format!("{name} {reason}"))
}

/// A number of requests: all places where they may be, over all series. Of a server that is complete, the
/// first place must be there.
fn sum(
    page: &Page,
    places: &[Vec<Name>],
    what: &str,
    server: &str,
    is_complete: bool,
) -> Result<u32, Unknown> {
    let mut found = None;
    for (place, names) in places.iter().enumerate() {
        let Some((name, series)) = first(page, names) else {
            if is_complete && place == 0 {
                break;
            }
            continue;
        };
        let values = series.values().map_err(|reason| garbled(name, reason))?;
        let requests: f64 = values.values().sum();
        if requests > MAX_REQUESTS {
            return Err(garbled(name, &format!("is {requests}: no number of requests")));
        }
        // At most a million for each place, of which there are few.
        *found.get_or_insert(0) += requests.round() as u32;
    }
    found.ok_or_else(|| absent(places.iter().flatten().next(), what, server))
}

/// The fullest of all: there requests wait first.
fn fraction(page: &Page, names: &[Name], what: &str, server: &str) -> Result<f64, Unknown> {
    let Some((name, series)) = first(page, names) else {
        return Err(absent(names.first(), what, server));
    };
    let values = series.values().map_err(|reason| garbled(name, reason))?;
    let fullest = values.values().copied().fold(0.0, f64::max);
    if fullest > 1.0 {
        return Err(garbled(name, &format!("is {fullest}: more than all")));
    }
    Ok(fullest)
}

/// Sums, in milliseconds, and counts of the first histogram of which anything is on the page, by series.
fn average(
    page: &Page,
    ratios: &[Ratio],
    what: &str,
    server: &str,
) -> Result<HashMap<u64, Counters>, Unknown> {
    let is_there =
        |ratio: &&Ratio| [&ratio.sum, &ratio.count].iter().any(|n| page.series(n).is_some());
    let Some(Ratio { sum, count, ms }) = ratios.iter().find(is_there) else {
        return Err(absent(ratios.first().map(|ratio| &ratio.sum), what, server));
    };
    let values = |name: &Name| match page.series(name) {
        Some(series) => series.values().map_err(|reason| garbled(name, reason)),
        None => Err(absent(Some(name), what, server)),
    };
    let (sums, counts) = (values(sum)?, values(count)?);
    if sums.len() != counts.len() || !sums.keys().all(|key| counts.contains_key(key)) {
        return Err(garbled(sum, &format!("and {count} are not of the same series")));
    }
    let counters = |(key, sum): (&u64, &f64)| {
        Some((*key, Counters { sum: sum * ms, count: *counts.get(key)? }))
    };
    Ok(sums.iter().filter_map(counters).collect())
}

fn milliseconds(average: Option<f64>, what: &str) -> Result<f64, Unknown> {
    let average =
        average.ok_or_else(|| Unknown::Absent(format!("{what}: nothing was measured yet")))?;
    // To a microsecond: what is beyond is noise that only makes reports longer.
    Ok((average * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests;
