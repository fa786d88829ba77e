//! What came of the requests: counted as each is answered, read by the table and by the verdict.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::stage::ROUTE_POLICY;

/// How far back an instance's share of the traffic looks.
pub const SHARE_WINDOW: Duration = Duration::from_secs(4);
/// Different failures that are told apart; all are counted.
const FAILURES_MAX: usize = 8;
/// Answers remembered for the shares; older ones are forgotten first.
const RECENT_MAX: usize = 16_384;
/// A minute, in microseconds; a longer latency is counted as this.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What a request demanded of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    Nothing,
    Gdpr,
    Enclave,
}

/// Who served a request, as the answer's head says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub instance: String,
    pub region: String,
    /// Generation of the version of [`ROUTE_POLICY`] that decided.
    pub generation: Option<u64>,
    pub attempts: u64,
}

impl Served {
    /// `policies` is as in `latency@0,score@3`.
    pub fn new(instance: &str, region: &str, policies: &str, attempts: u64) -> Self {
        let generation = policies.split(',').find_map(|label| {
            let (name, generation) = label.split_once('@')?;
            (name == ROUTE_POLICY).then(|| generation.parse().ok())?
        });
        Self { instance: instance.to_owned(), region: region.to_owned(), generation, attempts }
    }
}

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// Whole, after so long.
    Answered(Duration),
    /// The head came, and the rest did not.
    BrokeOff(String),
    Failed(String),
}

/// Requests with a demand, and where they were served.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// By instance and region.
    pub served: BTreeMap<(String, String), u64>,
}

/// The counts.
#[derive(Debug)]
pub struct Counts {
    pub started: Instant,
    pub sent: u64,
    pub answered: u64,
    pub streamed: u64,
    /// Answered after more than one attempt.
    pub retried: u64,
    pub failed: u64,
    /// Answers that the killed instance had begun.
    pub cut_by_kill: u64,
    /// By what was wrong.
    pub failures: BTreeMap<String, u64>,
    pub latency: Option<Histogram<u64>>,
    pub placed: BTreeMap<Demand, Placed>,
    /// Answers by generation and instance, those without a demand.
    pub by_version: BTreeMap<(u64, String), u64>,
    /// When a region first answered by a generation's decision.
    first: BTreeMap<(String, u64), Instant>,
    /// Which generation decided on an instance last.
    last: BTreeMap<String, u64>,
    /// What each generation is.
    versions: BTreeMap<u64, String>,
    recent: VecDeque<(Instant, String)>,
    killed: Option<String>,
}

/// The counts, shared.
#[derive(Debug)]
pub struct Tally(Mutex<Counts>);

impl Default for Tally {
    fn default() -> Self {
        Self(Mutex::new(Counts {
            started: Instant::now(),
            sent: 0,
            answered: 0,
            streamed: 0,
            retried: 0,
            failed: 0,
            cut_by_kill: 0,
            failures: BTreeMap::new(),
            // `None` only if the constants were out of the crate's range, which they are not.
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).ok(),
            placed: BTreeMap::new(),
            by_version: BTreeMap::new(),
            first: BTreeMap::new(),
            last: BTreeMap::new(),
            versions: BTreeMap::from([(0, ROUTE_POLICY.to_owned())]),
            recent: VecDeque::new(),
            killed: None,
        }))
    }
}

impl Tally {
    /// Plain counts: a panic elsewhere cannot leave them half-written.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// A head came: this generation has decided here.
    pub fn decided(&mut self, served: &Served, at: Instant) {
        let Some(generation) = served.generation else { return };
        self.first.entry((served.region.clone(), generation)).or_insert(at);
        self.last.insert(served.instance.clone(), generation);
    }

    /// A request ended. `router` is where it was sent; `served` is left out where no head came.
    pub fn ended(
        &mut self,
        router: &str,
        demand: Demand,
        streams: bool,
        served: Option<&Served>,
        outcome: Outcome,
    ) {
        match (outcome, served) {
            (Outcome::Answered(latency), Some(served)) => {
                self.answered += 1;
                self.streamed += u64::from(streams);
                self.retried += u64::from(served.attempts > 1);
                if let Some(latencies) = &mut self.latency {
                    latencies.saturating_record(latency.as_micros() as u64);
                }
                self.place(demand, served);
            }
            (Outcome::BrokeOff(_), Some(served))
                if self.killed.as_ref() == Some(&served.instance) =>
            {
                self.cut_by_kill += 1;
            }
            (Outcome::Answered(_), None) => {
                self.fail(router, "the answer does not say who served it")
            }
            (Outcome::BrokeOff(why), Some(served)) => {
                self.fail(router, &format!("{} broke off: {why}", served.instance));
            }
            (Outcome::BrokeOff(why) | Outcome::Failed(why), _) => self.fail(router, &why),
        }
    }

    fn place(&mut self, demand: Demand, served: &Served) {
        let now = Instant::now();
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, served.instance.clone()));
        let placed = self.placed.entry(demand).or_default();
        *placed.served.entry((served.instance.clone(), served.region.clone())).or_default() += 1;
        if let (Demand::Nothing, Some(generation)) = (demand, served.generation) {
            *self.by_version.entry((generation, served.instance.clone())).or_default() += 1;
        }
    }

    fn fail(&mut self, router: &str, why: &str) {
        self.failed += 1;
        let why = format!("by {router}: {why}");
        if self.failures.len() < FAILURES_MAX || self.failures.contains_key(&why) {
            *self.failures.entry(why).or_default() += 1;
        }
    }

    /// From now on an answer of this instance that breaks off is the kill's doing.
    pub fn kills(&mut self, instance: &str) {
        self.killed = Some(instance.to_owned());
    }

    pub fn name_version(&mut self, generation: u64, policy: &str) {
        self.versions.insert(generation, policy.to_owned());
    }

    /// What a generation is, as it was uploaded.
    pub fn version(&self, generation: u64) -> &str {
        self.versions.get(&generation).map_or("?", String::as_str)
    }

    pub fn first_decision(&self, region: &str, generation: u64) -> Option<Instant> {
        self.first.get(&(region.to_owned(), generation)).copied()
    }

    /// The generation that last sent a request to this instance.
    pub fn last_generation(&self, instance: &str) -> Option<u64> {
        self.last.get(instance).copied()
    }

    /// Each instance's share of the last few seconds' answers, 0 to 1.
    pub fn shares(&mut self) -> BTreeMap<String, f64> {
        let now = Instant::now();
        while self.recent.front().is_some_and(|(at, _)| now - *at > SHARE_WINDOW) {
            self.recent.pop_front();
        }
        let each = 1.0 / self.recent.len().max(1) as f64;
        let mut shares = BTreeMap::new();
        for (_, instance) in &self.recent {
            *shares.entry(instance.clone()).or_default() += each;
        }
        shares
    }

    /// Of the answers decided by these generations, how many these instances gave.
    pub fn answers_by(&self, generations: &[u64], instances: &[&str]) -> u64 {
        let wanted = |(generation, instance): &(u64, String)| {
            generations.contains(generation) && instances.contains(&instance.as_str())
        };
        self.by_version.iter().filter(|(key, _)| wanted(key)).map(|(_, count)| count).sum()
    }

    /// Of this policy, in any upload of it.
    pub fn generations_of(&self, policy: &str) -> Vec<u64> {
        self.versions.iter().filter(|(_, name)| *name == policy).map(|(g, _)| *g).collect()
    }

    /// The latency that the given share (0 to 1) does not exceed, in ms.
    pub fn latency_ms(&self, share: f64) -> f64 {
        let us = self.latency.as_ref().map_or(0, |latency| latency.value_at_quantile(share));
        us as f64 / 1000.0
    }

    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.started.elapsed().as_secs_f64().max(f64::EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(instance: &str) -> Served {
        Served::new(instance, "us-east-1", "latency@0,score@3", 1)
    }

    #[test]
    fn the_generation_is_read_off_the_label() {
        let cases = [
            ("latency@0,score@3", Some(3)),
            ("score@0", Some(0)),
            ("high-score@7", None),
            ("score@none", None),
            ("", None),
        ];
        for (label, generation) in cases {
            assert_eq!(Served::new("i", "r", label, 1).generation, generation, "{label}");
        }
    }

    #[test]
    fn only_the_killed_instance_may_break_off() {
        let tally = Tally::default();
        let mut counts = tally.counts();
        let broke = |counts: &mut Counts, instance: &str| {
            let outcome = Outcome::BrokeOff("reset".into());
            counts.ended("us-east-1", Demand::Nothing, true, Some(&served(instance)), outcome);
        };
        broke(&mut counts, "eu-2");
        counts.kills("eu-2");
        broke(&mut counts, "eu-2");
        broke(&mut counts, "eu-1");
        assert_eq!((counts.failed, counts.cut_by_kill), (2, 1));
        assert_eq!(counts.failures["by us-east-1: eu-1 broke off: reset"], 1);
    }

    #[test]
    fn answers_are_counted_by_version_and_share() {
        let tally = Tally::default();
        let mut counts = tally.counts();
        for (instance, demand) in
            [("a", Demand::Nothing), ("a", Demand::Gdpr), ("b", Demand::Nothing)]
        {
            let outcome = Outcome::Answered(Duration::from_millis(2));
            counts.ended("us-east-1", demand, false, Some(&served(instance)), outcome);
        }
        counts.name_version(3, "capacity");
        let generations = counts.generations_of("capacity");
        assert_eq!(counts.answers_by(&generations, &["a", "b"]), 2);
        assert_eq!(counts.answers_by(&generations, &["a"]), 1);
        assert_eq!(counts.shares().into_keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!((counts.shares()["a"] - 2.0 / 3.0).abs() < 1e-9);
    }
}
