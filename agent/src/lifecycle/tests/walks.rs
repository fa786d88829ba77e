//! Whatever happens, in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Registered,
    Wish(Option<Desired>),
    Notices(Vec<Notice>),
    Obey(Order, bool),
    Unfit,
    Cleaned(bool),
    Terminate,
    Pass(u64, bool),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    use DesiredState::{Draining, Quarantined, Serving};
    let wish = prop::sample::select(vec![Serving, Draining, Quarantined]);
    let wish = (wish, 0..4u64).prop_map(|(state, sequence)| desired(state, sequence));
    let cause = prop::sample::select(vec![
        Cause::SpotInterruption,
        Cause::AutoScaling,
        Cause::Rebalance,
        Cause::Maintenance,
    ]);
    let notices = prop::collection::vec(cause.prop_map(|cause| notice(cause, "n")), 0..2);
    let order = prop::sample::select(vec![Order::Drain, Order::Undrain, Order::Clean]);
    prop_oneof![
        2 => Just(Step::Registered),
        2 => prop_oneof![Just(None), wish].prop_map(Step::Wish),
        1 => notices.prop_map(Step::Notices),
        3 => (order, any::<bool>()).prop_map(|(order, can)| Step::Obey(order, can)),
        1 => Just(Step::Unfit),
        2 => any::<bool>().prop_map(Step::Cleaned),
        1 => Just(Step::Terminate),
        4 => (0..40u64, any::<bool>()).prop_map(|(seconds, busy)| Step::Pass(seconds, busy)),
        1 => Just(Step::Restart),
    ]
}

fn take(story: &mut Story, step: Step) {
    let now = story.now;
    match step {
        Step::Registered => story.life.registered(story.life.desired().cloned(), now),
        Step::Wish(desired) => story.life.wish(desired, now),
        Step::Notices(notices) => story.life.notice(notices, now),
        Step::Obey(order, can_clean) => {
            let before = (story.life.phase(), story.life.kept());
            if story.life.obey(order, can_clean, now).is_err() {
                assert_eq!((story.life.phase(), story.life.kept()), before, "refused, and done");
            }
        }
        Step::Unfit => story.life.unfit("unfit", now),
        Step::Cleaned(passed) => {
            if story.life.phase() == Lifecycle::Cleaning && story.life.kept().owes_cleanup {
                story.life.cleaned((!passed).then(|| "failed".to_owned()), now);
            }
        }
        Step::Terminate => story.life.terminate(now),
        Step::Pass(seconds, busy) => {
            story.pass(seconds, if busy { BUSY } else { IDLE });
        }
        Step::Restart => *story = Story::restored(story.life.kept()),
    }
}

/// What holds after every step, whatever came before.
fn check(life: &Life) {
    let phase = life.phase();
    let wanted = life.desired().map_or(DesiredState::Serving, |desired| desired.state);
    let is_quarantined = life.quarantine().is_some() || wanted == DesiredState::Quarantined;
    let kept = life.kept();
    if phase == Lifecycle::Available {
        assert!(life.is_registered);
        assert!(life.holds().is_empty() && wanted == DesiredState::Serving);
        assert!(!is_quarantined && !kept.owes_cleanup);
        assert!(life.reason().is_none());
    }
    if is_quarantined {
        assert!(matches!(phase, Lifecycle::Quarantined | Lifecycle::Terminated), "{phase}");
    }
    if phase == Lifecycle::Terminated {
        assert!(life.is_leaving());
    }
    if phase == Lifecycle::Cleaning {
        assert!(life.is_registered && life.drained().is_some());
    }
    if life.is_draining() {
        assert!(matches!(phase, Lifecycle::Draining | Lifecycle::Quarantined), "{phase}");
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_never_serves_when_it_should_not(
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let mut story = Story::restored(Kept::default());
        for step in steps {
            let was = story.life.phase();
            let is_restart = matches!(step, Step::Restart);
            take(&mut story, step);
            check(&story.life);
            let terminated = was == Lifecycle::Terminated && !is_restart;
            prop_assert!(!terminated || story.life.phase() == Lifecycle::Terminated);
        }
        // What is said twice is said once.
        let (notices, wish) = (story.life.notices().to_vec(), story.life.desired().cloned());
        let before = format!("{:?}", story.life);
        story.life.notice(notices, story.now);
        story.life.wish(wish, story.now);
        prop_assert_eq!(format!("{:?}", story.life), before);
        // Asked to go, with nothing in flight, it goes.
        story.life.terminate(story.now);
        story.pass(61, IDLE);
        prop_assert!(story.life.is_over());
    }
}
