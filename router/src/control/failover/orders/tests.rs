use mrgc_fleet::failover::Refused;

use super::*;

fn order(wish: Wish) -> RegionOrder {
    RegionOrder {
        region: "us".into(),
        wish,
        reason: None,
        operator: Some("ada".to_owned()),
        at: wall_clock(),
        writer_region: "us".into(),
        stamp: Stamp { epoch: 0, sequence: 7 },
    }
}

fn away() -> Wish {
    Wish::FailOver { to: None, strategy: Strategy::Immediate }
}

fn pinned() -> Wish {
    Wish::Pinned { state: RegionState::Normal }
}

fn checked(in_force: Option<Wish>) -> Checked {
    Checked { verdict: Ok(()), in_force: in_force.map(order) }
}

#[test]
fn what_is_lifted_must_be_there_unless_forced() {
    let start = Action::FailOver { to: None, strategy: Strategy::Graceful };
    let pin = Action::Pin(RegionState::Degraded);
    for (action, in_force, refused) in [
        (&start, None, None),
        (&start, Some(pinned()), None),
        (&pin, Some(away()), None),
        (&Action::Recover, Some(away()), None),
        (&Action::Unpin, Some(pinned()), None),
        (&Action::Recover, Some(pinned()), Some("`us` is pinned in NORMAL: unpin it")),
        (&Action::Unpin, Some(away()), Some("failed over and not pinned: recover it")),
        (&Action::Recover, None, Some("comes back by itself")),
        (&Action::Recover, Some(Wish::Automatic), Some("comes back by itself")),
        (&Action::Unpin, Some(Wish::Automatic), Some("is not pinned; `force`")),
    ] {
        let allowed = allow(action, &"us".into(), checked(in_force.clone()), false);
        match (allowed, refused) {
            (Ok(replaced), None) => assert_eq!(replaced.map(|order| order.wish), in_force),
            (Err(Refusal::Conflict(why)), Some(expected)) => {
                assert!(why.contains(expected), "{why}")
            }
            (other, _) => panic!("{action:?} over {in_force:?}: {other:?}"),
        }
        assert!(allow(action, &"us".into(), checked(in_force), true).is_ok());
    }
}

#[test]
fn force_overrides_what_is_unwise_and_not_what_makes_no_sense() {
    let start = Action::failover(Some("eu".into()));
    let to = "eu".into();
    let unhealthy = Refused::Unhealthy { to, healthy: 1, all: 4, minimum: 0.5 };
    for (refused, status, forced) in [
        (unhealthy, 409, true),
        (Refused::NoTarget { from: "us".into(), minimum: 0.5 }, 409, true),
        (Refused::Closed("eu".into()), 409, false),
        (Refused::ToItself("us".into()), 400, false),
        (Refused::Unknown("eu".into()), 404, false),
    ] {
        let checked = || Checked { verdict: Err(refused.clone()), in_force: None };
        let refusal = allow(&start, &"us".into(), checked(), false).expect_err("it is refused");
        assert_eq!(refusal.status(), status, "{refusal}");
        assert_eq!(allow(&start, &"us".into(), checked(), true).is_ok(), forced, "{refusal}");
    }
}

#[test]
fn an_order_that_could_not_be_stored_goes_above_what_was_heard_of() {
    let stamp = |epoch, sequence| Stamp { epoch, sequence };
    for (seen, expected) in
        [(None, stamp(0, 0)), (Some(stamp(0, 7)), stamp(0, 8)), (Some(stamp(3, 1)), stamp(3, 2))]
    {
        assert_eq!(late(order(away()), seen).stamp, expected);
    }
}

#[test]
fn an_audit_record_says_what_was_done_to_what() {
    let to = Some(RegionId::from("eu"));
    for (action, name, subject) in [
        (Action::failover(None), "failover", "region us, immediate"),
        (
            Action::FailOver { to, strategy: Strategy::Graceful },
            "failover",
            "region us to eu, graceful",
        ),
        (Action::Recover, "recover", "region us"),
        (Action::Pin(RegionState::FailoverActive), "pin", "region us in FAILOVER_ACTIVE"),
        (Action::Unpin, "unpin", "region us"),
    ] {
        assert_eq!((action.name(), action.subject(&"us".into()).as_str()), (name, subject));
    }
}

#[test]
fn a_text_says_something_and_has_room() {
    assert_eq!(short("reason", "  ticket 4711 ").ok().as_deref(), Some("ticket 4711"));
    for text in ["", " \n", &"x".repeat(MAX_TEXT_BYTES + 1)] {
        assert!(matches!(short("reason", text), Err(Refusal::BadRequest(_))), "{text:?}");
    }
}
