//! What agents say of their enclaves, replaced by what this router knows.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use mrgc_fleet::model::{EnclaveState, InstanceId, Report, Standing};

use super::board::Board;
use crate::ping::AttestedPools;

/// Instances beyond the fleet's that may be remembered before the gone are forgotten.
const SLACK: usize = 64;

/// What is known of enclaves at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Of this region.
    pub board: &'a Board,
    /// By the word of the other regions' routers, who are asked again where such a request arrives.
    pub elsewhere: &'a AttestedPools,
    pub now: Instant,
}

impl Known<'_> {
    fn is_attested(&self, standing: &Standing) -> bool {
        let registration = &standing.registration;
        let there = self.elsewhere.get(&registration.region);
        there.is_some_and(|pools| pools.contains(&registration.pool))
            || self.board.is_attested(standing, self.now)
    }
}

/// Makes standings that say what is known. One that did not change is the same allocation as before.
#[derive(Debug, Default)]
pub struct Mask {
    made: HashMap<InstanceId, Made>,
}

/// A standing, and what it was made of.
#[derive(Debug)]
struct Made {
    from: Arc<Standing>,
    to: Arc<Standing>,
}

impl Mask {
    /// An enclave that runs is attested where that is known, and only there: an agent that claims it is not
    /// believed.
    pub fn apply(&mut self, standing: &Arc<Standing>, known: &Known<'_>) -> Arc<Standing> {
        let id = &standing.registration.id;
        let said = standing.report.as_ref().map_or(EnclaveState::Absent, |report| report.enclave);
        let is = match said {
            EnclaveState::Absent => EnclaveState::Absent,
            _ if known.is_attested(standing) => EnclaveState::Attested,
            _ => EnclaveState::Running,
        };
        if said == is {
            self.made.remove(id);
            return standing.clone();
        }
        let made = self.made.get(id).filter(|made| Arc::ptr_eq(&made.from, standing));
        if let Some(made) = made.filter(|made| enclave(&made.to) == is) {
            return made.to.clone();
        }
        let mut changed = Standing::clone(standing);
        changed.report = changed.report.map(|report| Report { enclave: is, ..report });
        let to = Arc::new(changed);
        self.made.insert(id.clone(), Made { from: standing.clone(), to: to.clone() });
        to
    }

    /// Forgets the gone.
    pub fn keep(&mut self, fleet: &[Arc<Standing>]) {
        if self.made.len() > fleet.len() + SLACK {
            let known: HashSet<_> = fleet.iter().map(|s| &s.registration.id).collect();
            self.made.retain(|id, _| known.contains(id));
        }
    }
}

fn enclave(standing: &Standing) -> EnclaveState {
    standing.report.as_ref().map_or(EnclaveState::Absent, |report| report.enclave)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mrgc_fleet::model::{Registration, Timestamp};

    use super::*;
    use crate::attestation::{Attested, Pace, board::Outcome};

    static NOWHERE: AttestedPools = AttestedPools::new();

    fn known(board: &Board, now: Instant) -> Known<'_> {
        Known { board, elsewhere: &NOWHERE, now }
    }

    fn board() -> Board {
        let pace = Pace { interval: Duration::from_secs(1), max_age: Duration::from_secs(3) };
        Board::new("us".into(), vec!["p".into()], pace)
    }

    fn saying(enclave: EnclaveState) -> Arc<Standing> {
        instance("i-1", "us", "p", enclave)
    }

    fn instance(id: &str, region: &str, pool: &str, enclave: EnclaveState) -> Arc<Standing> {
        let report = Report { enclave, ..Report::new(id, region, 0, 1) };
        let health_address = "a:2".to_owned();
        let registration =
            Registration { health_address, ..Registration::new(id, region, pool, "a:1") };
        Standing::new(registration, Some(report)).into()
    }

    #[test]
    fn an_agents_word_is_never_proof() {
        let (board, mut mask, now) = (board(), Mask::default(), Instant::now());
        for (said, is) in [
            (EnclaveState::Absent, EnclaveState::Absent),
            (EnclaveState::Running, EnclaveState::Running),
            (EnclaveState::Attested, EnclaveState::Running),
        ] {
            let standing = saying(said);
            let masked = mask.apply(&standing, &known(&board, now));
            assert_eq!(enclave(&masked), is);
            assert_eq!(Arc::ptr_eq(&masked, &standing), said == is, "{said:?}");
            let again = mask.apply(&standing, &known(&board, now));
            assert!(Arc::ptr_eq(&masked, &again), "{said:?}: made once");
        }
        let unreported: Arc<_> =
            Standing::new(Registration::new("i-2", "us", "p", "a:1"), None).into();
        assert!(Arc::ptr_eq(&mask.apply(&unreported, &known(&board, now)), &unreported));
    }

    #[test]
    fn what_the_board_attests_is_shown_until_it_lapses() {
        let (mut board, mut mask, now) = (board(), Mask::default(), Instant::now());
        let standing = saying(EnclaveState::Running);
        let target = board.due(std::slice::from_ref(&standing), 1, now).remove(0);
        let attested = Attested {
            module_id: "i-1-enc1".to_owned(),
            at: Timestamp(0),
            certificate_left: Duration::MAX,
        };
        board.answered(&target, Outcome::Attested(attested), now, now, 0.0);
        let masked = mask.apply(&standing, &known(&board, now));
        assert_eq!(enclave(&masked), EnclaveState::Attested);
        assert!(Arc::ptr_eq(&masked, &mask.apply(&standing, &known(&board, now))), "made once");

        let next = saying(EnclaveState::Running);
        assert!(
            !Arc::ptr_eq(&masked, &mask.apply(&next, &known(&board, now))),
            "made of the next report"
        );
        let stopped = saying(EnclaveState::Absent);
        assert_eq!(enclave(&mask.apply(&stopped, &known(&board, now))), EnclaveState::Absent);
        let lapsed = mask.apply(&standing, &known(&board, now + Duration::from_secs(3)));
        assert!(Arc::ptr_eq(&lapsed, &standing));
    }

    #[test]
    fn another_regions_router_is_believed_of_its_own_pools() {
        let (board, mut mask) = (board(), Mask::default());
        let elsewhere = AttestedPools::from([("eu".into(), ["p".into()].into())]);
        let known = Known { board: &board, elsewhere: &elsewhere, now: Instant::now() };
        for (region, pool, said, is) in [
            ("eu", "p", EnclaveState::Running, EnclaveState::Attested),
            ("eu", "p", EnclaveState::Absent, EnclaveState::Absent),
            ("eu", "q", EnclaveState::Attested, EnclaveState::Running),
            ("us", "p", EnclaveState::Running, EnclaveState::Running),
        ] {
            let masked = mask.apply(&instance("i-1", region, pool, said), &known);
            assert_eq!(enclave(&masked), is, "{region} {pool} {said:?}");
        }
    }

    #[test]
    fn the_gone_are_forgotten() {
        let (board, mut mask, now) = (board(), Mask::default(), Instant::now());
        for n in 0..200 {
            mask.apply(
                &instance(&format!("i-{n}"), "us", "p", EnclaveState::Attested),
                &known(&board, now),
            );
        }
        mask.keep(&[saying(EnclaveState::Running)]);
        assert_eq!(mask.made.len(), 1);
    }
}
