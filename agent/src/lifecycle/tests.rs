#![allow(clippy::unwrap_used)]

mod walks;

use mrgc_fleet::model::Timestamp;

use super::*;

const LIMITS: DrainLimits = DrainLimits {
    deadline: Duration::from_secs(60),
    settle: Duration::from_secs(3),
    unknown_grace: Duration::from_secs(30),
};
const IDLE: InFlight = InFlight::Known { running: 0, waiting: 0 };
const BUSY: InFlight = InFlight::Known { running: 1, waiting: 0 };

fn desired(state: DesiredState, sequence: u64) -> Option<Desired> {
    Some(Desired {
        instance: "i-1".into(),
        region: "us".into(),
        state,
        reason: Some("ticket 4711".to_owned()),
        operator: Some("eve".to_owned()),
        automatic: false,
        at: Timestamp(0),
        writer_region: "us".into(),
        stamp: Stamp { epoch: 0, sequence },
    })
}

fn notice(cause: Cause, text: &str) -> Notice {
    Notice { text: text.to_owned(), cause: Some(cause) }
}

/// A life and its clock.
struct Story {
    life: Life,
    now: Duration,
}

impl Story {
    /// One that cleans after drains, and serves.
    fn serving() -> Self {
        let mut story = Self::restored(Kept::default());
        assert_eq!(story.phase(), "registering");
        story.life.registered(None, story.now);
        assert_eq!(story.phase(), "available");
        story
    }

    fn restored(kept: Kept) -> Self {
        Self { life: Life::new(true, kept, Duration::ZERO), now: Duration::ZERO }
    }

    fn phase(&self) -> &'static str {
        self.life.phase().as_str()
    }

    /// Lets seconds pass with this in flight, and gives the phase.
    fn pass(&mut self, seconds: u64, in_flight: InFlight) -> &'static str {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.life.observe(in_flight, self.now, self.now, &LIMITS);
        }
        self.phase()
    }

    fn obey(&mut self, order: Order) -> Result<&'static str, String> {
        let done = self.life.obey(order, true, self.now);
        done.map(|()| self.phase()).map_err(|refusal| refusal.to_string())
    }

    fn notice(&mut self, notices: &[Notice]) -> &'static str {
        self.life.notice(notices.to_vec(), self.now);
        self.phase()
    }

    fn wish(&mut self, desired: Option<Desired>) -> &'static str {
        self.life.wish(desired, self.now);
        self.phase()
    }

    fn unfit(&mut self, reason: &str) -> &'static str {
        self.life.unfit(reason, self.now);
        self.phase()
    }

    fn cleaned(&mut self, failure: Option<&str>) -> &'static str {
        self.life.cleaned(failure.map(str::to_owned), self.now);
        self.phase()
    }
}

#[test]
fn a_signal_drains_and_ends() {
    let mut story = Story::serving();
    story.life.terminate(story.now);
    assert_eq!(story.pass(10, BUSY), "draining");
    assert!(!story.life.is_over());
    assert_eq!(story.pass(4, IDLE), "terminated");
    assert!(story.life.is_over());
    assert_eq!(story.life.drained(), Some(Drained::Idle));
}

#[test]
fn a_signal_before_the_registration_ends_it_without_one() {
    let mut story = Story::restored(Kept::default());
    story.life.terminate(story.now);
    assert!(story.life.is_leaving());
    assert_eq!(story.pass(4, IDLE), "terminated");
}

#[test]
fn what_is_called_off_before_the_registration_serves_again() {
    let mut story = Story::restored(Kept::default());
    assert_eq!(story.obey(Order::Drain), Ok("draining"));
    story.notice(&[notice(Cause::SpotInterruption, "terminate at 8")]);
    assert_eq!(story.pass(4, BUSY), "draining");
    story.notice(&[]);
    assert_eq!(story.obey(Order::Undrain), Ok("registering"));
    assert!(!story.life.is_leaving() && story.life.drained().is_none());
    story.life.registered(None, story.now);
    assert_eq!(story.phase(), "available");
}

#[test]
fn a_spot_interruption_drains_for_good_and_the_process_stays() {
    let mut story = Story::serving();
    let spot = notice(Cause::SpotInterruption, "terminate at 8");
    assert_eq!(story.notice(std::slice::from_ref(&spot)), "draining");
    let refused = story.obey(Order::Undrain).unwrap_err();
    assert!(refused.starts_with("the instance goes for good (spot interruption)"), "{refused}");
    assert_eq!(story.pass(4, IDLE), "terminated");
    assert!(!story.life.is_over(), "it answers until it is told to end");
    story.life.terminate(story.now);
    assert!(story.life.is_over());
}

#[test]
fn a_notice_is_news_once_and_does_not_take_itself_back() {
    let mut story = Story::serving();
    let rebalance = [notice(Cause::Rebalance, "at 7")];
    assert_eq!(story.notice(&rebalance), "draining");
    assert_eq!(story.notice(&[]), "draining", "gone, and nobody undrained");
    assert_eq!(story.notice(&rebalance), "draining");
    assert_eq!(story.obey(Order::Undrain), Ok("available"));
    assert_eq!(story.notice(&rebalance), "available", "seen before");
    assert_eq!(story.notice(&[notice(Cause::Rebalance, "at 9")]), "draining", "another one");
}

#[test]
fn a_spot_interruption_that_is_gone_can_be_undrained() {
    let mut story = Story::serving();
    story.notice(&[notice(Cause::SpotInterruption, "terminate at 8")]);
    assert_eq!(story.pass(5, BUSY), "draining");
    story.notice(&[]);
    assert_eq!(story.obey(Order::Undrain), Ok("available"));
}

#[test]
fn a_command_drains_and_holds() {
    let mut story = Story::serving();
    assert_eq!(story.obey(Order::Drain), Ok("draining"));
    assert_eq!(story.obey(Order::Drain), Ok("draining"));
    assert_eq!(story.pass(2, BUSY), "draining");
    assert_eq!(story.obey(Order::Undrain), Ok("available"), "called off before it was over");
    story.obey(Order::Drain).unwrap();
    assert_eq!(story.pass(100, IDLE), "draining", "drained, and held");
    assert_eq!(story.life.drained(), Some(Drained::Idle));
    assert_eq!(
        story.obey(Order::Undrain),
        Ok("cleaning"),
        "nothing was in flight: it is validated"
    );
    assert_eq!(story.cleaned(None), "available");
    assert_eq!(story.life.drained(), None);
}

#[test]
fn a_drain_by_command_is_followed_by_its_end() {
    let mut story = Story::serving();
    story.obey(Order::Drain).unwrap();
    story.pass(10, IDLE);
    story.life.terminate(story.now);
    assert!(story.life.is_over(), "drained already");
}

#[test]
fn what_is_cleaned_on_request_serves_again() {
    let mut story = Story::serving();
    assert_eq!(story.obey(Order::Clean), Ok("draining"));
    assert_eq!(story.pass(10, BUSY), "draining");
    assert_eq!(story.pass(4, IDLE), "cleaning");
    assert_eq!(story.obey(Order::Clean), Err(Refusal::Cleaning.to_string()));
    assert_eq!(story.cleaned(None), "available");
    let nothing = story.life.obey(Order::Clean, false, story.now);
    assert_eq!(nothing, Err(Refusal::NothingToCheck));
}

#[test]
fn a_cleanup_that_failed_quarantines_until_one_passes_or_an_operator_releases() {
    let failed = || {
        let mut story = Story::serving();
        story.wish(desired(DesiredState::Serving, 4));
        story.obey(Order::Clean).unwrap();
        story.pass(4, IDLE);
        assert_eq!(story.cleaned(Some("paths: /scratch")), "quarantined");
        assert_eq!(story.life.reason().unwrap(), "quarantined: paths: /scratch");
        story
    };
    let mut story = failed();
    let refused = story.obey(Order::Undrain).unwrap_err();
    assert!(refused.starts_with("it is quarantined (paths: /scratch)"), "{refused}");
    assert_eq!(story.obey(Order::Clean), Ok("cleaning"));
    assert_eq!(story.cleaned(None), "available");

    let mut story = failed();
    assert_eq!(story.wish(desired(DesiredState::Serving, 4)), "quarantined", "wanted before");
    assert_eq!(story.wish(None), "quarantined");
    assert_eq!(story.wish(desired(DesiredState::Serving, 5)), "available");
}

#[test]
fn an_unfit_gpu_quarantines_until_an_operator_releases() {
    let mut story = Story::serving();
    assert_eq!(story.unfit("GPU 0: XID 79"), "quarantined");
    assert_eq!(story.wish(desired(DesiredState::Serving, 1)), "available");
    assert_eq!(story.unfit("GPU 0: XID 79"), "quarantined", "it is still unfit");
    assert_eq!(story.wish(desired(DesiredState::Serving, 1)), "quarantined");
    story.life.terminate(story.now);
    assert_eq!(story.pass(4, IDLE), "terminated");
}

#[test]
fn a_wish_from_before_the_start_releases_nothing_that_began_after() {
    let mut story = Story::restored(Kept::default());
    story.unfit("GPU 0: XID 79");
    story.life.registered(desired(DesiredState::Serving, 3), story.now);
    assert_eq!(story.phase(), "quarantined");
    let kept = story.life.kept();
    assert_eq!(story.wish(desired(DesiredState::Serving, 4)), "available");
    let mut restored = Story::restored(kept);
    restored.life.registered(desired(DesiredState::Serving, 4), restored.now);
    assert_eq!(restored.phase(), "available", "released while no agent ran");
}

#[test]
fn an_operator_is_obeyed_and_only_the_store_lifts_that() {
    let mut story = Story::serving();
    assert_eq!(story.wish(desired(DesiredState::Draining, 1)), "draining");
    let refused = story.obey(Order::Undrain).unwrap_err();
    assert!(refused.starts_with("it is wanted draining by eve (ticket 4711)"), "{refused}");
    assert_eq!(story.wish(desired(DesiredState::Quarantined, 2)), "quarantined");
    assert_eq!(story.wish(desired(DesiredState::Draining, 3)), "quarantined", "the stricter holds");
    assert_eq!(story.wish(None), "available");
}

#[test]
fn what_is_clean_and_held_waits_in_cleaning() {
    let mut story = Story::serving();
    story.wish(desired(DesiredState::Draining, 1));
    story.obey(Order::Clean).unwrap();
    assert_eq!(story.pass(4, IDLE), "cleaning");
    assert_eq!(story.cleaned(None), "cleaning", "wanted draining");
    assert_eq!(story.wish(desired(DesiredState::Serving, 2)), "available");
}

#[test]
fn a_restart_forgets_nothing_that_matters() {
    let mut drained = Story::serving();
    drained.obey(Order::Drain).unwrap();
    let mut cleaning = Story::serving();
    cleaning.obey(Order::Clean).unwrap();
    cleaning.pass(4, IDLE);
    let mut unfit = Story::serving();
    unfit.unfit("GPU 0: XID 79");
    let mut noticed = Story::serving();
    noticed.notice(&[notice(Cause::Rebalance, "at 7")]);
    for (case, story, expected) in [
        ("drained by command", drained, "draining"),
        ("killed while it was cleaned", cleaning, "draining"),
        ("unfit", unfit, "quarantined"),
        ("a notice, which is read again", noticed, "available"),
    ] {
        let mut restored = Story::restored(story.life.kept());
        restored.life.registered(None, restored.now);
        assert_eq!(restored.phase(), expected, "{case}");
    }
}
