//! `GET /metrics`: the Prometheus text format. Names are a contract: a dashboard reads them. A family that a
//! process without the role for it could not fill is left out.

mod failover;

use std::fmt::Write;

use mrgc_fleet::{model::EnclaveState, snapshot::Level};
use mrgc_store::ReadingFrom;

use super::{Context, Proxy};
use crate::{
    cloud::Looks,
    data::{EJECTION_CAUSES, LATENCY_BOUNDS_MS, Totals},
    health,
    policies::Status,
};

/// An exposition under construction.
#[derive(Debug, Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> Family<'_> {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name: name.to_owned() }
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }
}

struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let name = self.name.clone();
        self.named(&name, labels, value);
    }

    fn named(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let start = if i == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{start}{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

pub(super) async fn text(context: &Context) -> String {
    let mut text = Exposition::default();
    if let Some(proxy) = &context.proxy {
        requests(&mut text, &proxy.threads.totals());
        policies(&mut text, context);
        attestation(&mut text, proxy);
    }
    fleet(&mut text, context);
    failover::text(&mut text, context).await;
    ec2(&mut text, context);
    store(&mut text, context);
    text.0
}

fn attestation(text: &mut Exposition, proxy: &Proxy) {
    let counts = proxy.attestations.counts();
    let name = "mrgc_router_attestations_total";
    let mut family = text.family(name, "counter", "Enclaves asked for a document, by outcome.");
    for (outcome, value) in [
        ("attested", counts.attested),
        ("refused", counts.refused),
        ("unanswered", counts.unanswered),
    ] {
        family.sample(&[("outcome", outcome)], value as f64);
    }
}

/// How EC2 answers the router that holds the lease; nothing where it is not asked.
fn ec2(text: &mut Exposition, context: &Context) {
    let Some(counts) = context.looks.as_ref().map(Looks::counts) else { return };
    let name = "mrgc_router_ec2_looks_total";
    let mut family = text.family(name, "counter", "Looks at EC2's instance status, by outcome.");
    for (outcome, value) in [("answered", counts.answered), ("failed", counts.failed)] {
        family.sample(&[("outcome", outcome)], value as f64);
    }
    let Some(answered_at) = counts.answered_at else { return };
    let (name, help) =
        ("mrgc_router_ec2_look_age_seconds", "Since EC2 answered last, on the router that asks.");
    text.single(name, "gauge", help, answered_at.elapsed().as_secs_f64());
}

/// Whether the shared state can be read, from where, and what its calls came to.
fn store(text: &mut Exposition, context: &Context) {
    let is_up = context.health.get("store").is_none_or(|check| check.status == health::Status::Ok);
    let (name, help) = ("mrgc_router_store_up", "1 while the shared state can be read.");
    text.single(name, "gauge", help, f64::from(u8::from(is_up)));
    let Some(store) = &context.store else { return };
    let is_replica = store.reading_from() != ReadingFrom::Primary;
    let (name, help) = ("mrgc_router_store_replica", "1 while reads go to another region.");
    text.single(name, "gauge", help, f64::from(u8::from(is_replica)));
    let counts = store.counts();
    for (name, help, value) in [
        ("retries", "Attempts after the first of a call.", counts.retried),
        ("throttled", "Answers that throttled, each attempt counted.", counts.throttled),
        ("corrupt_items", "Items that could not be read and were skipped.", counts.corrupt_items),
        ("replica_reads", "Reads that another region answered.", counts.replica_reads),
    ] {
        let name = format!("mrgc_router_store_{name}_total");
        text.single(&name, "counter", help, value as f64);
    }
    if let Some(collection) = context.proxy.as_ref().and_then(|proxy| proxy.collection.as_ref()) {
        let failed = collection.counts().failed_flushes as f64;
        let (name, help) =
            ("mrgc_router_failed_flushes_total", "Flushes of measurements not taken whole.");
        text.single(name, "counter", help, failed);
    }
    let name = "mrgc_router_store_failures_total";
    let mut failures = text.family(name, "counter", "Calls that failed, retries included.");
    for (kind, value) in [
        ("unreachable", counts.failed_unreachable),
        ("timeout", counts.failed_timeout),
        ("throttled", counts.failed_throttled),
        ("denied", counts.failed_denied),
        ("other", counts.failed_other),
    ] {
        failures.sample(&[("kind", kind)], value as f64);
    }
}

fn requests(text: &mut Exposition, totals: &Totals) {
    for (name, help, value) in [
        ("mrgc_router_connections_total", "Client connections accepted.", totals.connections),
        (
            "mrgc_router_connections_refused_total",
            "Client connections refused at the limit.",
            totals.connections_refused,
        ),
        ("mrgc_router_requests_total", "Requests received.", totals.requests),
        ("mrgc_router_retries_total", "Attempts after the first of a request.", totals.retries),
        (
            "mrgc_router_connect_failures_total",
            "Attempts that could not connect.",
            totals.connect_failures,
        ),
        (
            "mrgc_router_abandoned_attempts_total",
            "Attempts given up because who they waited for was gone.",
            totals.abandoned,
        ),
        (
            "mrgc_router_trials_total",
            "Attempts that tried out an ejected candidate.",
            totals.trials,
        ),
        ("mrgc_router_moved_total", "Requests moved away from a region that fails.", totals.moved),
        ("mrgc_router_shed_total", "Requests that no region had room for.", totals.shed),
        (
            "mrgc_router_peer_requests_total",
            "Requests forwarded to another region's router.",
            totals.forwarded_to_peers,
        ),
        (
            "mrgc_router_native_scores_total",
            "Policy answers replaced by the native score.",
            totals.native_decisions,
        ),
        (
            "mrgc_router_client_gone_total",
            "Responses cut short because the client went away.",
            totals.client_gone,
        ),
    ] {
        text.single(name, "counter", help, value as f64);
    }
    let name = "mrgc_router_ejections_total";
    let mut ejections = text.family(name, "counter", "Candidates taken out on live evidence.");
    for (cause, count) in EJECTION_CAUSES.iter().zip(totals.ejections) {
        ejections.sample(&[("cause", cause.as_str())], count as f64);
    }
    let mut responses =
        text.family("mrgc_router_responses_total", "counter", "Responses by class of status.");
    for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(totals.by_class) {
        responses.sample(&[("class", class)], count as f64);
    }
    let name = "mrgc_router_response_head_seconds";
    let mut latency = text.family(name, "histogram", "Time from a request to its response's head.");
    let (mut sum, bucket) = (0, format!("{name}_bucket"));
    for (i, count) in totals.latency.iter().enumerate() {
        sum += count;
        let bound = LATENCY_BOUNDS_MS.get(i).map(|ms| (*ms as f64 / 1000.0).to_string());
        latency.named(&bucket, &[("le", bound.as_deref().unwrap_or("+Inf"))], sum as f64);
    }
    latency.named(&format!("{name}_sum"), &[], totals.latency_sum_ms / 1000.0);
    latency.named(&format!("{name}_count"), &[], sum as f64);
}

fn policies(text: &mut Exposition, context: &Context) {
    let statuses: Vec<Status> =
        context.conductor.versions().iter().map(|v| Status::of(v)).collect();
    type Count = fn(&Status) -> u64;
    let families: [(&str, &str, Count); 3] = [
        ("mrgc_policy_decisions_total", "Score calls answered by the active version.", |s| {
            s.decisions
        }),
        ("mrgc_policy_faults_total", "Faults of the active version.", |s| s.faults),
        ("mrgc_policy_clamped_total", "Scores above 100, clamped.", |s| s.clamped),
    ];
    for (name, help, value) in families {
        let mut family = text.family(name, "counter", help);
        for status in &statuses {
            let generation = status.generation.to_string();
            let labels = [("policy", status.name.as_str()), ("generation", generation.as_str())];
            family.sample(&labels, value(status) as f64);
        }
    }
}

fn fleet(text: &mut Exposition, context: &Context) {
    let fleet = context.conductor.fleet();
    let now_ms = context.clock.now_ms();
    text.single(
        "mrgc_router_snapshot_version",
        "gauge",
        "Version of the snapshot in use.",
        fleet.snapshot.version as f64,
    );
    text.single(
        "mrgc_router_uptime_seconds",
        "gauge",
        "Time since start.",
        context.started.elapsed().as_secs_f64(),
    );
    let instances: Vec<_> = fleet
        .snapshot
        .views()
        .filter(|view| view.key.level == Level::Instance)
        .flat_map(|view| view.candidates.iter().zip(fleet.slots(view)))
        .filter(|(candidate, _)| candidate.region == fleet.snapshot.home)
        .collect();
    type Value<'a> = &'a dyn Fn(usize) -> f64;
    // The last four are of requests and enclaves, which only a process that forwards knows of.
    let known = if context.proxy.is_some() { 5 } else { 1 };
    let families: [(&str, &str, &str, Value<'_>); 5] = [
        ("mrgc_instance_ready", "gauge", "1 while the state says it takes requests.", &|i| {
            f64::from(u8::from(instances[i].0.ready))
        }),
        (
            "mrgc_instance_ejected",
            "gauge",
            "1 while this router's own evidence keeps it out.",
            &|i| f64::from(u8::from(instances[i].1.is_ejected(now_ms))),
        ),
        ("mrgc_instance_attested", "gauge", "1 while its enclave is verified.", &|i| {
            f64::from(u8::from(instances[i].0.enclave == EnclaveState::Attested))
        }),
        ("mrgc_instance_in_flight", "gauge", "Requests of this router under way there.", &|i| {
            f64::from(instances[i].1.live(now_ms).in_flight)
        }),
        ("mrgc_instance_requests_total", "counter", "Attempts this router made there.", &|i| {
            instances[i].1.sent() as f64
        }),
    ];
    for (name, kind, help, value) in families.into_iter().take(known) {
        let mut family = text.family(name, kind, help);
        for (i, (candidate, _)) in instances.iter().enumerate() {
            let labels = [("instance", &*candidate.id), ("pool", candidate.pool.as_str())];
            family.sample(&labels, value(i));
        }
    }
}
