//! What must be once the faults are over and all has had its time.

use mrgc_fleet::{model::InstanceId, snapshot::Level};

use super::Watch;
use crate::{
    chaos::Lasting,
    plan::{Plan, number},
    router::Router,
    store::Store,
};

impl Watch {
    /// After the faults: everything is as if there had been none, but for what operators still want.
    pub(crate) fn settled(
        &mut self,
        routers: &[Router],
        store: &Store,
        lasting: &Lasting,
        at_ms: u64,
        plan: &Plan,
    ) {
        self.all_is_written(routers, store, lasting, at_ms, plan);
        let all = plan.instances.len();
        for router in routers {
            let node = router.node;
            let known = router.snapshot.instances.len();
            self.check(known == all, "no instance is lost", || {
                format!("{node} knows {known} of {all} instances")
            });
            let views = router.snapshot.views().filter(|view| view.key.level == Level::Instance);
            for candidate in views.flat_map(|view| &view.candidates) {
                let no = Some(number(&candidate.id));
                let is_out = lasting.instance == no || lasting.failing == no;
                self.check(candidate.ready != is_out, "in the end all serve who should", || {
                    format!("{} is ready: {}, by {node}", candidate.id, candidate.ready)
                });
            }
            let ejected = router.flight.ejected(&router.snapshot, router.now_ms(at_ms), plan);
            let is_known = |id: &InstanceId| lasting.instance == Some(number(id.as_str()));
            self.check(ejected.iter().all(is_known), "in the end nobody is ejected", || {
                format!("{node} has {ejected:?} ejected")
            });
            for (about, region) in plan.regions.iter().enumerate() {
                let share = router.monitor.handler().share(&region.id);
                let wanted = if lasting.region == Some(about) { 0.0 } else { 1.0 };
                self.check(share == wanted, "in the end every region has its traffic", || {
                    let state = router.monitor.handler().state(&region.id);
                    format!("by {node}, {} is {state} and keeps {share}", region.id)
                });
            }
        }
    }
}
