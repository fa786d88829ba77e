use proptest::{prelude::*, strategy::Strategy as _};

use super::{Strategy, *};
use crate::testing::{merge_alike, some_in_two_orders};

fn order(epoch: u64, sequence: u64, wish: Wish, writer: &str) -> RegionOrder {
    RegionOrder {
        region: "us".into(),
        wish,
        reason: None,
        operator: None,
        at: Timestamp(sequence),
        writer_region: writer.into(),
        stamp: Stamp { epoch, sequence },
    }
}

fn fail_over(to: Option<&str>, strategy: Strategy) -> Wish {
    Wish::FailOver { to: to.map(RegionId::from), strategy }
}

fn pinned(state: RegionState) -> Wish {
    Wish::Pinned { state }
}

#[test]
fn the_highest_stamp_counts_and_a_tie_goes_to_the_stricter() {
    let immediate = || fail_over(None, Strategy::Immediate);
    let graceful = || fail_over(None, Strategy::Graceful);
    for (a, b, expected) in [
        ((0, 2, Wish::Automatic), (0, 1, immediate()), Wish::Automatic),
        ((1, 1, Wish::Automatic), (0, 9, immediate()), Wish::Automatic),
        // Two operators' opposite commands, in two regions at once.
        ((0, 3, Wish::Automatic), (0, 3, immediate()), immediate()),
        ((0, 3, Wish::Automatic), (0, 3, pinned(RegionState::Normal)), pinned(RegionState::Normal)),
        ((0, 3, pinned(RegionState::Normal)), (0, 3, graceful()), graceful()),
        ((0, 3, pinned(RegionState::FailoverActive)), (0, 3, graceful()), graceful()),
        (
            (0, 3, pinned(RegionState::Normal)),
            (0, 3, pinned(RegionState::Degraded)),
            pinned(RegionState::Degraded),
        ),
        ((0, 3, graceful()), (0, 3, immediate()), immediate()),
    ] {
        let a = order(a.0, a.1, a.2, "us");
        let b = order(b.0, b.1, b.2, "eu");
        assert_eq!(a.clone().merge(b.clone()).wish, expected, "{a:?} {b:?}");
        assert_eq!(b.merge(a).wish, expected);
    }
}

#[test]
fn the_stored_form_is_flat() {
    let common = serde_json::json!({
        "region": "us", "reason": "planned maintenance", "operator": "alice", "at": 7,
        "writer_region": "eu", "epoch": 0, "sequence": 7,
    });
    for (wish, own) in [
        (Wish::Automatic, serde_json::json!({ "wish": "automatic" })),
        (
            pinned(RegionState::FailoverActive),
            serde_json::json!({ "wish": "pinned", "state": "failover_active" }),
        ),
        (
            fail_over(Some("eu"), Strategy::Graceful),
            serde_json::json!({ "wish": "fail_over", "to": "eu", "strategy": "graceful" }),
        ),
        (
            fail_over(None, Strategy::Immediate),
            serde_json::json!({ "wish": "fail_over", "strategy": "immediate" }),
        ),
    ] {
        let order = RegionOrder {
            reason: Some("planned maintenance".to_owned()),
            operator: Some("alice".to_owned()),
            ..order(0, 7, wish, "eu")
        };
        let mut stored = common.clone();
        if let (Some(stored), Some(own)) = (stored.as_object_mut(), own.as_object()) {
            stored.extend(own.clone());
        }
        assert_eq!(serde_json::to_value(&order).ok(), Some(stored.clone()));
        assert_eq!(serde_json::from_value::<RegionOrder>(stored).ok(), Some(order));
    }
}

#[test]
fn a_graceful_failover_takes_its_time_and_an_immediate_one_none() {
    let thresholds = Thresholds::default();
    let share = |strategy, from: f64, after_ms: u64| {
        let given = Given::new(order(0, 1, fail_over(None, strategy), "us"), from, 1_000);
        match given.bound(1_000 + after_ms, &thresholds) {
            Bound::AtMost { rating, .. } => Some((rating.state, rating.share)),
            Bound::Free | Bound::Exactly { .. } => None,
        }
    };
    for (from, after_ms, expected) in [
        (1.0, 0, 1.0),
        (1.0, 500, 0.8),
        (1.0, 1_250, 0.5),
        (1.0, 2_499, 0.0004),
        (1.0, 2_500, 0.0),
        (1.0, 60_000, 0.0),
        (0.7, 1_250, 0.35),
    ] {
        let expected = Some((RegionState::FailoverActive, expected));
        assert_eq!(share(Strategy::Graceful, from, after_ms), expected, "{after_ms} ms");
    }
    assert_eq!(share(Strategy::Immediate, 1.0, 0), Some((RegionState::FailoverActive, 0.0)));
}

#[test]
fn an_order_says_who_wants_what_and_why() {
    let told = |wish, operator: Option<&str>, reason: Option<&str>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let order = order(0, 1, wish, "us");
        RegionOrder { operator: owned(operator), reason: owned(reason), ..order }.describe()
    };
    let failed_over = told(fail_over(None, Strategy::Graceful), Some("alice"), Some("maintenance"));
    assert_eq!(failed_over, "failed over by alice: maintenance");
    assert_eq!(told(pinned(RegionState::Normal), None, None), "pinned by an operator");
}

fn any_order() -> impl proptest::strategy::Strategy<Value = RegionOrder> {
    use RegionState::{Degraded, FailoverActive, Normal, Recovering};
    let strategy = prop::sample::select(vec![Strategy::Graceful, Strategy::Immediate]);
    let to = prop::option::of(prop::sample::select(vec!["eu", "ap"]));
    let wish = prop_oneof![
        Just(Wish::Automatic),
        prop::sample::select(vec![Normal, Degraded, FailoverActive, Recovering]).prop_map(pinned),
        (to, strategy).prop_map(|(to, strategy)| fail_over(to, strategy)),
    ];
    let writer = prop::sample::select(vec!["us", "eu", "ap"]);
    (0..2u64, 0..3u64, wish, writer, 0..3u64, prop::option::of("[ab]")).prop_map(
        |(epoch, sequence, wish, writer, at, operator)| RegionOrder {
            at: Timestamp(at),
            operator,
            ..order(epoch, sequence, wish, writer)
        },
    )
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(all in some_in_two_orders(any_order())) {
        merge_alike(all, RegionOrder::merge)?;
    }
}
