//! Whether an instance has answered since the probe before: what tells one that is busy from one that is dead.
//!
//! Live requests tell, where this process forwards any. One that only probes forwards none: there the
//! instance's own word counts, a report that came since and tells what its inference server says.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use mrgc_fleet::model::{Health, InstanceId, Standing};

/// Probes of instances that are gone are forgotten when there are so many more than instances.
const FORGOTTEN_BEYOND: usize = 64;

/// What was known of an instance when a probe of it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at_ms: u64,
    /// As it was read last.
    pub standing: Option<Arc<Standing>>,
}

/// The last probe of each instance.
#[derive(Debug, Default)]
pub struct LastProbes(HashMap<InstanceId, Sent>);

impl LastProbes {
    /// A probe is sent; returns the one before it.
    pub fn sent(&mut self, id: &InstanceId, sent: Sent) -> Option<Sent> {
        self.0.insert(id.clone(), sent)
    }

    /// The instances that there are.
    pub fn keep<'a>(&mut self, ids: impl Iterator<Item = &'a InstanceId> + Clone) {
        if self.0.len() > ids.clone().count() + FORGOTTEN_BEYOND {
            let ids: HashSet<_> = ids.collect();
            self.0.retain(|id, _| ids.contains(id));
        }
    }
}

/// Whether it has answered a live request since. `answered_ms`: when it last did, 0 for never.
pub fn has_answered_since(before: Option<&Sent>, answered_ms: u64) -> bool {
    answered_ms > 0 && before.is_none_or(|sent| answered_ms >= sent.at_ms)
}

/// Whether a report has been read since by which its inference server works.
pub fn has_reported_since(before: Option<&Sent>, standing: &Standing) -> bool {
    let (Some(before), Some(report)) = (before, &standing.report) else { return false };
    let last = before.standing.as_ref().and_then(|standing| standing.report.as_ref());
    let is_news = last.is_none_or(|last| report.supersedes(last));
    let server_answers = report.running.is_some() || !report.models.is_empty();
    let works = report.health != Health::Unhealthy && server_answers;
    is_news && works && report.generation == standing.registration.generation
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::model::{Registration, Report};

    use super::*;

    const INTERVAL_MS: u64 = 30_000;
    const TIMEOUT_MS: u64 = 10_000;

    fn reported(sequence: u64, change: impl FnOnce(&mut Report)) -> Arc<Standing> {
        let mut report = Report {
            health: Health::Degraded,
            running: Some(8),
            ..Report::new("i-1", "us", 0, sequence)
        };
        change(&mut report);
        Standing::new(Registration::new("i-1", "us", "p", "a:1"), Some(report)).into()
    }

    /// Its heads take longer than a probe may: each comes while none is under way.
    #[test]
    fn an_answer_between_two_probes_counts_as_one_while_the_second_was_under_way_does() {
        let (id, mut probes) = (InstanceId::from("i-1"), LastProbes::default());
        let mut has_answered = |sent_ms, answered_ms| {
            let sent = Sent { at_ms: sent_ms, standing: None };
            has_answered_since(probes.sent(&id, sent).as_ref(), answered_ms)
        };
        assert!(!has_answered(INTERVAL_MS, 0), "it never did");
        for (probe, after_ms) in [(2, 1_000), (3, 15_000), (4, INTERVAL_MS + TIMEOUT_MS)] {
            let answered_ms = (probe - 1) * INTERVAL_MS + after_ms;
            assert!(has_answered(probe * INTERVAL_MS, answered_ms), "{after_ms} ms after one");
        }
        assert!(!has_answered(5 * INTERVAL_MS, 4 * INTERVAL_MS - 1), "not since the last one");
    }

    #[test]
    fn a_report_counts_that_is_new_and_tells_of_a_server_that_works() {
        let at_probe = Some(reported(7, |_| ()));
        let before = Sent { at_ms: INTERVAL_MS, standing: at_probe };
        let told = |standing: &Standing| has_reported_since(Some(&before), standing);
        assert!(told(&reported(8, |_| ())));
        assert!(told(&reported(8, |report| {
            (report.running, report.models) = (None, vec!["llama".to_owned()]);
        })));
        for (what, standing) in [
            ("the one from before", reported(7, |_| ())),
            ("an older one", reported(6, |_| ())),
            ("its server says nothing", reported(8, |report| report.running = None)),
            ("it is sick", reported(8, |report| report.health = Health::Unhealthy)),
            ("another generation's", reported(8, |report| report.generation = 1)),
        ] {
            assert!(!told(&standing), "{what}");
        }
        assert!(!has_reported_since(None, &reported(8, |_| ())), "there was no probe before");
    }

    #[test]
    fn probes_of_instances_that_are_gone_are_forgotten() {
        let mut probes = LastProbes::default();
        let here = InstanceId::from("here");
        for n in 0..1_000 {
            probes.sent(&format!("i-{n}").as_str().into(), Sent { at_ms: n, standing: None });
            probes.sent(&here, Sent { at_ms: n, standing: None });
            probes.keep([&here].into_iter());
            assert!(probes.0.len() <= FORGOTTEN_BEYOND + 2);
        }
        assert!(probes.sent(&here, Sent { at_ms: 0, standing: None }).is_some());
    }
}
