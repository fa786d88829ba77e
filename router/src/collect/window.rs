//! Measurements of about a second: what data threads served, and how the region's instances were.

use std::collections::{BTreeMap, HashMap};

use mrgc_fleet::{
    model::{InstanceId, Measured, PoolId, Sample},
    snapshot::{Level, Snapshot, View},
};

use crate::data::{Batch, Served};

/// What was served since the last window was closed.
#[derive(Debug, Default)]
pub(super) struct Window {
    answered: BTreeMap<PoolId, u64>,
    measured: BTreeMap<PoolId, Measured>,
    loads: ModelLoads,
    /// The version of the snapshot that was looked at last, and the queues of this region's pools in it:
    /// a large fleet's snapshot stays for several windows.
    seen: Option<u64>,
    queues: BTreeMap<PoolId, Measured>,
}

impl Window {
    pub fn add(&mut self, batch: Batch) {
        for Served { pool, answered, latency } in batch {
            *self.answered.entry(pool.clone()).or_default() += answered;
            self.measured.entry(pool).or_default().inference_latency.merge(&latency);
        }
    }

    /// What was measured of each pool over so many seconds; the next window begins. A pool of this region
    /// that was asked for nothing had 0 requests per second; of any other nothing is said.
    pub fn close(&mut self, seconds: f64, snapshot: &Snapshot) -> BTreeMap<PoolId, Measured> {
        let mut measured = std::mem::take(&mut self.measured);
        let mut answered = std::mem::take(&mut self.answered);
        if self.seen.replace(snapshot.version) != Some(snapshot.version) {
            self.queues = queues(snapshot);
            for (pool, ms) in self.loads.look(snapshot) {
                let load = Sample::ModelLoad { seconds: ms as f64 / 1_000.0 };
                measured.entry(pool).or_default().record(&load);
            }
        }
        for (pool, queue) in &self.queues {
            answered.entry(pool.clone()).or_default();
            measured.entry(pool.clone()).or_default().merge(queue);
        }
        for (pool, answered) in answered {
            let rate = Sample::RequestsPerSecond(answered as f64 / seconds);
            measured.entry(pool).or_default().record(&rate);
        }
        measured
    }
}

/// How many requests wait at the ready instances of each of this region's pools.
fn queues(snapshot: &Snapshot) -> BTreeMap<PoolId, Measured> {
    let at_home = snapshot.views().filter(|view| {
        view.key.level == Level::Instance && view.key.region.as_ref() == Some(&snapshot.home)
    });
    let queue = |view: &View| {
        let mut queue = Measured::default();
        let ready = view.candidates.iter().filter(|candidate| candidate.ready);
        for depth in ready.filter_map(|candidate| candidate.queue_depth) {
            // An instance's is a whole number, kept as one that a region's mean fits in.
            queue.record(&Sample::QueueDepth(depth.round() as u32));
        }
        (view.key.pool.clone(), queue)
    };
    at_home.map(queue).collect()
}

/// How long models took to load, as far as that was reported already. A report repeats it for as long as
/// the model stays loaded. Every router of a region counts each load, which moves no quantile.
#[derive(Debug, Default)]
struct ModelLoads {
    /// Of the instances that told theirs. `None` before the first look: what is reported then may be of any
    /// age.
    known_ms: Option<HashMap<InstanceId, u64>>,
}

impl ModelLoads {
    /// The load times that this region's reports newly carry, with the instances' pools.
    fn look(&mut self, snapshot: &Snapshot) -> Vec<(PoolId, u64)> {
        let mut loads = Vec::new();
        let mut now_ms = HashMap::new();
        let instances =
            snapshot.instances.iter().filter(|i| i.registration.region == snapshot.home);
        for instance in instances {
            let registration = &instance.registration;
            let last =
                self.known_ms.as_ref().and_then(|known| known.get(&registration.id).copied());
            let reported = instance.report.as_ref().and_then(|report| report.model_load_ms);
            if let (Some(ms), true) = (reported, self.known_ms.is_some() && reported != last) {
                loads.push((registration.pool.clone(), ms));
            }
            // An agent that starts anew says nothing until it knows again.
            if let Some(ms) = reported.or(last) {
                now_ms.insert(registration.id.clone(), ms);
            }
        }
        self.known_ms = Some(now_ms);
        loads
    }
}

#[cfg(test)]
mod tests;
