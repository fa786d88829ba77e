//! Why instances take no requests, for people.

use std::collections::BTreeMap;

use super::{Monitor, reading::Heard};
use crate::model::{DesiredState, Health, InstanceId, Lifecycle, Standing};

impl Monitor {
    /// Who takes no requests, each with all that stands against it: what is wanted of it, its own word, the
    /// cloud's, its probes, its silence, and its region. What live requests show is not in it.
    pub fn out(&self) -> BTreeMap<InstanceId, String> {
        let out = |heard: &Heard| Some((heard.id().clone(), self.because(heard)?));
        self.heard.iter().filter_map(out).collect()
    }

    /// What stands against one of them.
    pub fn out_because(&self, id: &InstanceId) -> Option<String> {
        self.because(self.heard(id)?)
    }

    fn because(&self, heard: &Heard) -> Option<String> {
        let Heard { standing, is_fresh, .. } = heard;
        let (id, region) = (heard.id(), &standing.registration.region);
        let is_silent = !is_fresh && standing.report.is_some();
        let is_unknown = !self.regions.iter().any(|known| known.id == *region);
        let is_cut_off = self.peers.is_ejected(region);
        let reasons = [
            wanted(standing),
            own(standing),
            self.impaired.get(id).cloned(),
            self.probes.failure(id).map(|why| format!("probes: {why}")),
            is_silent.then(|| "stale: its reports do not come".to_owned()),
            is_unknown.then(|| format!("its region {region} is not registered")),
            is_cut_off.then(|| format!("no router of {region} answers")),
        ];
        let reasons: Vec<_> = reasons.into_iter().flatten().collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// As in `drained by ada: ticket 4711`.
fn wanted(standing: &Standing) -> Option<String> {
    let desired = standing.desired.as_ref()?;
    let what = match desired.state {
        DesiredState::Serving => return None,
        DesiredState::Draining => "drained",
        DesiredState::Quarantined => "quarantined",
    };
    let by = desired.operator.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
    let why = desired.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("{what}{by}{why}"))
}

/// As in `it calls itself unhealthy: the server does not answer`; nothing where it only does as it is told.
fn own(standing: &Standing) -> Option<String> {
    let Some(report) = &standing.report else {
        return Some("it has not reported yet".to_owned());
    };
    if report.generation != standing.registration.generation {
        return Some("it has not reported since it registered".to_owned());
    }
    let wanted = standing.desired.as_ref().map(|desired| desired.state.lifecycle());
    let word = match (report.lifecycle, report.health) {
        (_, Health::Unhealthy) => report.health.as_str(),
        (Lifecycle::Available, _) => return None,
        (lifecycle, _) if Some(lifecycle) == wanted => return None,
        (lifecycle, _) => lifecycle.as_str(),
    };
    let why = report.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("it calls itself {word}{why}"))
}

#[cfg(test)]
mod tests;
