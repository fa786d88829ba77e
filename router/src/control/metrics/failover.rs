//! What this router's probes and its judgement of the regions come to: what alerts of failovers are built on.

use std::sync::atomic::Ordering::Relaxed;

use mrgc_fleet::failover::{RegionState, RegionStatus};

use super::{Context, Exposition};
use crate::{control::failover::Status, failovers::Failovers};

const STATES: [RegionState; 4] = [
    RegionState::Normal,
    RegionState::Recovering,
    RegionState::Degraded,
    RegionState::FailoverActive,
];

/// Where the monitor does not answer, what it would say is left out: nothing is known.
pub(super) async fn text(text: &mut Exposition, context: &Context) {
    let status = context.failover.status().await.ok();
    if let Some(Status { regions, .. }) = &status {
        self::regions(text, regions);
        failovers(text, regions, &context.failovers);
    }
    let Some(prober) = &context.failover.prober else { return };
    let (name, counts) = ("mrgc_router_probes_total", prober.counts());
    let mut family = text.family(name, "counter", "Probes of the region's agents, by outcome.");
    for (outcome, count) in
        [("passed", &counts.passed), ("timed_out", &counts.timed_out), ("failed", &counts.failed)]
    {
        family.sample(&[("outcome", outcome)], count.load(Relaxed) as f64);
    }
    let Some(Status { unhealthy, .. }) = status else { return };
    let (name, help) =
        ("mrgc_router_unhealthy_instances", "The region's instances that fail their probes.");
    text.single(name, "gauge", help, unhealthy as f64);
}

fn regions(text: &mut Exposition, regions: &[RegionStatus]) {
    // One series for each state, as alerts name states and not numbers.
    let mut states = text.family("mrgc_region_state", "gauge", "1 of the state a region is in.");
    for status in regions {
        for state in STATES {
            let name = state.as_str().to_lowercase();
            let labels = [("region", status.region.as_str()), ("state", name.as_str())];
            states.sample(&labels, f64::from(u8::from(status.state == state)));
        }
    }
    let (name, help) = ("mrgc_region_share", "What a region keeps of its own traffic, 0 to 1.");
    let mut shares = text.family(name, "gauge", help);
    for status in regions {
        shares.sample(&[("region", status.region.as_str())], status.share);
    }
    let name = "mrgc_region_health_ratio";
    let help = "Instances that take requests among those whose drain is not planned, 0 to 1.";
    let mut ratios = text.family(name, "gauge", help);
    for status in regions {
        if let Some(ratio) = status.evidence.and_then(|evidence| evidence.ratio()) {
            ratios.sample(&[("region", status.region.as_str())], ratio);
        }
    }
}

fn failovers(text: &mut Exposition, regions: &[RegionStatus], failovers: &Failovers) {
    let counts = failovers.counts();
    let name = "mrgc_router_failovers_total";
    let mut family = text.family(name, "counter", "Failovers that this router saw begin.");
    for status in regions {
        let causes = counts.of(&status.region);
        for (cause, count) in [("automatic", causes.automatic), ("manual", causes.manual)] {
            let labels = [("region", status.region.as_str()), ("cause", cause)];
            family.sample(&labels, count as f64);
        }
    }
    let name = "mrgc_router_late_failovers_total";
    let help = "Automatic failovers that took longer than the failover timeout.";
    text.single(name, "counter", help, counts.late as f64);
}
