//! An instance, as it registers (slow facts) and as it reports (fast facts).

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Desired, Framework, InstanceId, Lifecycle, PoolId, RegionId, Timestamp};
use crate::{
    planted::{self, Fault},
    routing::routing_score,
};

/// What an instance says once, when it joins. Stored in `gpu-instances`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    pub id: InstanceId,
    pub region: RegionId,
    pub pool: PoolId,
    /// `host:port` of the inference server, as the router reaches it.
    pub address: String,
    /// `host:port` of the agent's `/health`.
    pub health_address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// As in `subnet-12345`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<String>,
    /// As in `10.66.10.0/23`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_cidr: Option<String>,
    /// The image that it was started from, as in `ami-12345`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ami_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Requests it can serve at once; `None` where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<f64>,
    /// What this instance satisfies beyond what its region does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frameworks: Vec<Framework>,
    /// Free facts, as in `{"rack": "b12"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    pub registered_at: Timestamp,
    /// Raised by each registration, so that a writer from before it loses.
    pub generation: u64,
    /// Who registered it; `None` where nobody can be in doubt, as in a list of a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
}

impl Registration {
    /// One that says nothing beyond what it must; `health_address` and `generation` are still to come.
    pub fn new(
        id: impl Into<InstanceId>,
        region: impl Into<RegionId>,
        pool: impl Into<PoolId>,
        address: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            region: region.into(),
            pool: pool.into(),
            address: address.into(),
            health_address: String::new(),
            zone: None,
            subnet_id: None,
            subnet_cidr: None,
            ami_id: None,
            provider: None,
            instance_type: None,
            slots: None,
            cost_per_hour: None,
            frameworks: Vec::new(),
            metadata: BTreeMap::new(),
            registered_at: Timestamp(0),
            generation: 0,
            writer: None,
        }
    }
}

/// The process that registered an instance: what tells two apart that use one id, as those of a cloned
/// image do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Random, drawn by each process at its start.
    pub id: String,
    /// The name of its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// What an instance says every few seconds. Stored in `routing-state`.
///
/// A value that was not measured is `None`: never 0, and never healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub id: InstanceId,
    pub region: RegionId,
    pub generation: u64,
    /// Raised by each report of a generation. Freshness is its rise, by the reader's clock.
    pub sequence: u64,
    /// By the instance's clock; for people, never for freshness.
    pub at: Timestamp,
    pub lifecycle: Lifecycle,
    pub health: Health,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Requests waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// Requests being served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg_latency_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    pub enclave: EnclaveState,
    /// Mean over the instance's GPUs, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_utilization: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_free_bytes: Option<u64>,
    /// How long its model took to load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_load_ms: Option<u64>,
    /// By [`crate::routing::routing_score`], 0 to 100: written with each report by whoever writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_score: Option<f64>,
    /// Within which the next report follows, if nothing fails; `None` where it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_within_ms: Option<u32>,
}

impl Report {
    /// One that measured nothing: registering and unhealthy, until it says otherwise.
    pub fn new(
        id: impl Into<InstanceId>,
        region: impl Into<RegionId>,
        generation: u64,
        sequence: u64,
    ) -> Self {
        Self {
            id: id.into(),
            region: region.into(),
            generation,
            sequence,
            at: Timestamp(0),
            lifecycle: Lifecycle::Registering,
            health: Health::Unhealthy,
            reason: None,
            queue_depth: None,
            running: None,
            avg_latency_ms: None,
            time_to_first_token_ms: None,
            models: Vec::new(),
            enclave: EnclaveState::Absent,
            gpu_utilization: None,
            gpu_memory_free_bytes: None,
            model_load_ms: None,
            routing_score: None,
            next_within_ms: None,
        }
    }

    /// What orders an instance's reports: the generation, and in it the sequence.
    fn fence(&self) -> (u64, u64) {
        (self.generation, self.sequence)
    }

    /// Whether it was made after the other. Reports are not always read in their order: a replica may lag,
    /// and what was sent twice may arrive late.
    pub fn supersedes(&self, other: &Self) -> bool {
        match planted::is(Fault::LowerSequenceAccepted) {
            true => self.fence() != other.fence(),
            false => self.fence() > other.fence(),
        }
    }

    /// Its routing score, where queue and latency were measured.
    pub fn score(&self) -> Option<f64> {
        let (queue_depth, latency_ms) = (self.queue_depth?, self.avg_latency_ms?);
        Some(routing_score(f64::from(queue_depth), latency_ms, self.health))
    }
}

/// How fit an instance is to serve.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Healthy,
    Degraded,
    #[default]
    Unhealthy,
}

impl Health {
    /// Its part in the routing score: 100, 50 or 0.
    pub fn score(self) -> f64 {
        match self {
            Self::Healthy => 100.0,
            Self::Degraded => 50.0,
            Self::Unhealthy => 0.0,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of the instance's Nitro enclave, from nothing to proof.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum EnclaveState {
    #[default]
    Absent,
    /// The agent says that one runs.
    Running,
    /// A router verified its attestation document.
    Attested,
}

/// An instance as a reader of the state knows it: what it registered, what it last reported if it did, and
/// what is wanted of it if anybody wants anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Shared, so that a new report costs no copy of it.
    pub registration: Arc<Registration>,
    pub report: Option<Report>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Desired>,
}

impl Standing {
    /// One of which nobody wants anything in particular.
    pub fn new(registration: impl Into<Arc<Registration>>, report: Option<Report>) -> Self {
        Self { registration: registration.into(), report, desired: None }
    }

    /// Where it is in its life, all told: the stricter of what it reports and what is wanted of it. Without
    /// a report of the registered generation it is still registering.
    pub fn lifecycle(&self) -> Lifecycle {
        let generation = self.registration.generation;
        let report = self.report.as_ref().filter(|report| report.generation == generation);
        let reported = report.map_or(Lifecycle::Registering, |report| report.lifecycle);
        let desired = self.desired.as_ref().map_or(Lifecycle::Available, |d| d.state.lifecycle());
        if desired.strictness() > reported.strictness() { desired } else { reported }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DesiredState, Stamp};

    #[test]
    fn the_stricter_of_reported_and_desired_wins() {
        use DesiredState as Want;
        use Lifecycle::{Available, Cleaning, Draining, Quarantined, Registering, Terminated};
        for (reported, wanted, expected) in [
            (None, None, Registering),
            (None, Some(Want::Serving), Registering),
            (None, Some(Want::Quarantined), Quarantined),
            (Some(Available), None, Available),
            (Some(Available), Some(Want::Serving), Available),
            (Some(Available), Some(Want::Draining), Draining),
            (Some(Available), Some(Want::Quarantined), Quarantined),
            (Some(Draining), Some(Want::Serving), Draining),
            (Some(Cleaning), Some(Want::Draining), Cleaning),
            (Some(Quarantined), Some(Want::Serving), Quarantined),
            (Some(Terminated), Some(Want::Quarantined), Terminated),
        ] {
            let registration =
                Registration { generation: 2, ..Registration::new("i", "r", "p", "i:1") };
            let report = |lifecycle| Report { lifecycle, ..Report::new("i", "r", 2, 1) };
            let desired = wanted.map(|state| Desired {
                instance: "i".into(),
                region: "r".into(),
                state,
                reason: None,
                operator: None,
                automatic: false,
                at: Timestamp(0),
                writer_region: "r".into(),
                stamp: Stamp { epoch: 0, sequence: 1 },
            });
            let standing =
                Standing { desired, ..Standing::new(registration, reported.map(report)) };
            assert_eq!(standing.lifecycle(), expected, "{reported:?}, {wanted:?}");
        }
    }

    #[test]
    fn a_report_of_another_generation_does_not_count() {
        let registration =
            Registration { generation: 3, ..Registration::new("i", "r", "p", "i:1") };
        let report = Report { lifecycle: Lifecycle::Available, ..Report::new("i", "r", 2, 1) };
        assert_eq!(Standing::new(registration, Some(report)).lifecycle(), Lifecycle::Registering);
    }

    #[test]
    fn a_score_wants_queue_and_latency() {
        let report = Report {
            queue_depth: Some(2),
            avg_latency_ms: Some(150.0),
            health: Health::Healthy,
            ..Report::new("i", "r", 1, 1)
        };
        assert_eq!(report.score(), Some(85.5));
        assert_eq!(Report { queue_depth: None, ..report.clone() }.score(), None);
        assert_eq!(Report { avg_latency_ms: None, ..report }.score(), None);
    }
}
