//! The steady stream of chat completions: to each router in turn, every other one streaming, some of them
//! with a demand on where they are served. Every answer is judged; nothing is retried or left out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use http::HeaderMap;
use reqwest::Response;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet, time::MissedTickBehavior};

use super::{
    stage,
    tally::{Demand, Outcome, Served, Tally},
};

/// Requests in flight; one that is due at the bound fails unsent.
const IN_FLIGHT_MAX: usize = 512;
/// For one exchange.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of so many requests to a router, one demands GDPR and one an enclave.
const DEMAND_EVERY: u64 = 10;
const GDPR_AT: u64 = 3;
const ENCLAVE_AT: u64 = 7;
/// How much of a refusal is quoted.
const QUOTE_CHARS: usize = 200;

/// A router's data plane.
#[derive(Clone, Debug)]
pub struct Target {
    pub region: String,
    pub url: String,
}

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    target: usize,
    streams: bool,
    demand: Demand,
}

impl Ticket {
    fn new(number: u64, targets: usize) -> Self {
        let targets = targets.max(1) as u64;
        let of_target = number / targets;
        Self {
            // Less than a `Vec`'s length.
            target: (number % targets) as usize,
            // Shifted from one ten to the next, so that demands stream by halves, too.
            streams: (of_target + of_target / DEMAND_EVERY).is_multiple_of(2),
            demand: match of_target % DEMAND_EVERY {
                GDPR_AT => Demand::Gdpr,
                ENCLAVE_AT => Demand::Enclave,
                _ => Demand::Nothing,
            },
        }
    }
}

/// The running traffic. Dropping it ends it at once.
#[derive(Debug)]
pub struct Traffic {
    pace: JoinSet<()>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Traffic {
    pub fn start(targets: Vec<Target>, per_second: f64, tally: Arc<Tally>) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let interval = Duration::from_secs_f64(1.0 / per_second);
        tally.counts().started = Instant::now();
        let mut pace = JoinSet::new();
        pace.spawn(send(client, targets, interval, tally, stopped));
        Ok(Self { pace, stop })
    }

    /// Sends no more, and waits for what is in flight.
    pub async fn finish(mut self) {
        self.stop.send_replace(true);
        while self.pace.join_next().await.is_some() {}
    }
}

/// Owns what is in flight: when it is aborted, all ends.
async fn send(
    client: reqwest::Client,
    targets: Vec<Target>,
    interval: Duration,
    tally: Arc<Tally>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let targets: Arc<[Target]> = targets.into();
    let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut flights = JoinSet::new();
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => break,
        }
        while flights.try_join_next().is_some() {}
        let ticket = Ticket::new(number, targets.len());
        tally.counts().sent += 1;
        let permit = room.clone().try_acquire_owned();
        let (client, targets, tally) = (client.clone(), targets.clone(), tally.clone());
        flights.spawn(async move {
            let target = &targets[ticket.target];
            let (served, outcome) = match permit {
                Ok(_permit) => exchange(&client, target, ticket, &tally).await,
                Err(_) => {
                    let why = format!("not sent: {IN_FLIGHT_MAX} requests were in flight");
                    (None, Outcome::Failed(why))
                }
            };
            let mut counts = tally.counts();
            counts.ended(&target.region, ticket.demand, ticket.streams, served.as_ref(), outcome);
        });
    }
    while flights.join_next().await.is_some() {}
}

/// Sends one request and reads its whole answer.
async fn exchange(
    client: &reqwest::Client,
    target: &Target,
    ticket: Ticket,
    tally: &Tally,
) -> (Option<Served>, Outcome) {
    let mut body = stage::completion("Say something golden.");
    body["stream"] = json!(ticket.streams);
    let request = client.post(&target.url).json(&body);
    let request = match ticket.demand {
        Demand::Nothing => request,
        Demand::Gdpr => request.header("x-mrgc-frameworks", "gdpr"),
        Demand::Enclave => request.header("x-mrgc-enclave", "required"),
    };
    let begun = Instant::now();
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return (None, Outcome::Failed(describe(&error))),
    };
    let served = served(response.headers());
    if let Some(served) = &served {
        tally.counts().decided(served, Instant::now());
    }
    let status = response.status();
    if !status.is_success() {
        let by = served.as_ref().map_or("the router", |served| served.instance.as_str()).to_owned();
        let words = response.text().await.unwrap_or_default();
        let words: String = words.chars().take(QUOTE_CHARS).collect();
        return (served, Outcome::Failed(format!("{by} answered {status}: {words}")));
    }
    let outcome = match read(response, ticket.streams).await {
        Ok(()) => Outcome::Answered(begun.elapsed()),
        Err(why) => Outcome::BrokeOff(why),
    };
    (served, outcome)
}

/// Who served it, where the answer says so.
fn served(headers: &HeaderMap) -> Option<Served> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let attempts = text("x-mrgc-attempts").and_then(|n| n.parse().ok()).unwrap_or(1);
    let (instance, region) = (text("x-mrgc-instance")?, text("x-mrgc-region")?);
    Some(Served::new(instance, region, text("x-mrgc-policies").unwrap_or_default(), attempts))
}

/// Reads an answer to its end: a stream has to have said `[DONE]` by then, a plain one is JSON.
async fn read(mut response: Response, streams: bool) -> Result<(), String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        bytes.extend_from_slice(&chunk);
    }
    if streams {
        let done =
            bytes.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == b"data: [DONE]");
        return if done { Ok(()) } else { Err("the stream ended without [DONE]".into()) };
    }
    let read = serde_json::from_slice::<IgnoredAny>(&bytes);
    read.map(|_| ()).map_err(|error| format!("{} bytes are no JSON: {error}", bytes.len()))
}

/// An error with its causes, in one line.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_router_gets_all_kinds_of_requests() {
        let tickets: Vec<Ticket> = (0..80).map(|number| Ticket::new(number, 2)).collect();
        for target in 0..2 {
            for (demand, expected) in
                [(Demand::Nothing, 32), (Demand::Gdpr, 4), (Demand::Enclave, 4)]
            {
                let of_kind =
                    || tickets.iter().filter(|t| t.target == target && t.demand == demand);
                assert_eq!(of_kind().count(), expected, "{demand:?}");
                assert_eq!(of_kind().filter(|t| t.streams).count(), expected / 2, "{demand:?}");
            }
        }
    }
}
