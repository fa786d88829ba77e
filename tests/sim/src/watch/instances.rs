//! What routers learn of instances: their reports, and their probes, which are counted here once more.

use mrgc_fleet::health::ProbeResult;

use super::Watch;
use crate::{
    machine::Machine,
    plan::Plan,
    router::{Known, Router},
    store::Look,
};

impl Watch {
    /// A probe ended: the verdict that should follow.
    pub(crate) fn probed(
        &mut self,
        router: &Router,
        machine: &Machine,
        result: &ProbeResult,
        answered: bool,
        plan: &Plan,
    ) {
        let config = plan.probes();
        let expected = &mut self.probes[router.node.no][machine.node.no];
        match result {
            ProbeResult::Passed => {
                expected.failures = 0;
                expected.passes += 1;
                let needed = if expected.is_unhealthy { config.recovery_passes } else { 1 };
                expected.is_unhealthy &= expected.passes < needed;
            }
            ProbeResult::TimedOut if answered => {}
            ProbeResult::TimedOut | ProbeResult::Failed(_) => {
                expected.passes = 0;
                expected.failures += 1;
                expected.is_unhealthy |= expected.failures > config.failure_threshold;
            }
        }
    }

    /// A probe was judged.
    pub(crate) fn judged(&mut self, router: &Router, machine: &Machine) {
        let no = machine.node.no;
        let is_unhealthy = router.monitor.verdict(&machine.registration.id).is_unhealthy();
        let expected = &self.probes[router.node.no][no];
        // One that was out of service meanwhile has begun anew: it may only be judged milder.
        let may_differ = self.interrupted[no] && !is_unhealthy;
        let holds = expected.is_unhealthy == is_unhealthy || may_differ;
        let failures = expected.failures;
        self.check(holds, "a verdict after just as many failed probes as configured", || {
            let verdict = if is_unhealthy { "unhealthy" } else { "not unhealthy" };
            format!("{} finds i-{no} {verdict} after {failures} failures in a row", router.node)
        });
    }

    /// A router has read the store. No instance ever leaves for good, so whoever was once read of is there.
    pub(crate) fn learned(&mut self, router: &Router, look: &Look, at_ms: u64) {
        let (router, known) = (router.node, &router.known);
        let read = look.instances.iter().flatten().count();
        let (before, _) = self.read_of[router.no];
        self.check(read >= before, "no instance is lost", || {
            format!("{router} reads of {read} instances, after {before}")
        });
        if read > before {
            self.read_of[router.no] = (read, at_ms);
        }
        for (no, known) in known.iter().enumerate() {
            let Some(fence) = known.as_ref().and_then(Known::fence) else { continue };
            let last = self.fences[router.no][no];
            self.check(last <= Some(fence), "an instance's reports never go back", || {
                format!("{router} takes {fence:?} of i-{no} after {last:?}")
            });
            self.fences[router.no][no] = Some(fence);
        }
    }

    /// A report was written.
    pub(crate) fn report_stored(
        &mut self,
        no: usize,
        before: Option<(u64, u64)>,
        fence: (u64, u64),
    ) {
        self.check(before < Some(fence), "an instance's reports never go back", || {
            format!("{fence:?} of i-{no} is stored over {before:?}")
        });
    }
}
