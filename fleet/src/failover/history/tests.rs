use super::*;

fn event(id: u64, from: &str) -> FailoverEvent {
    FailoverEvent {
        id: format!("{id:013}-{from}-us"),
        from: from.into(),
        to: vec!["ap".into()],
        at: Timestamp(id),
        ended_at: None,
        duration_ms: None,
        cause: Cause::Automatic,
        strategy: Strategy::Immediate,
        reason: Some("2 of 10 instances take requests".to_owned()),
        operator: None,
        writer_region: "us".into(),
    }
}

#[test]
fn a_failover_begins_moves_and_ends() {
    let mut history = History::default();
    let eu = RegionId::from("eu");
    history.begin(event(7, "eu"), 1_000);
    assert_eq!(history.open(&eu), Some(&event(7, "eu")));
    assert!(history.moved(&eu, 1_400, 1_000));
    assert!(!history.moved(&eu, 1_500, 1_000), "it has moved already");
    let moved = FailoverEvent { duration_ms: Some(400), ..event(7, "eu") };
    assert_eq!(history.open(&eu), Some(&moved));
    let ended = FailoverEvent { ended_at: Some(Timestamp(90)), ..moved };
    assert_eq!(history.end(&eu, Timestamp(90)), Some(ended.clone()));
    assert_eq!(history.end(&eu, Timestamp(91)), None);
    assert_eq!(history.events(), [ended]);
}

#[test]
fn what_takes_longer_than_the_timeout_is_late_unless_it_was_asked_for() {
    let mut history = History::default();
    for (from, cause, duration_ms) in [
        ("a", Cause::Automatic, 1_000),
        ("b", Cause::Automatic, 1_001),
        ("c", Cause::Manual, 2_500),
    ] {
        history.begin(FailoverEvent { cause, ..event(1, from) }, 0);
        assert!(history.moved(&from.into(), duration_ms, 1_000));
    }
    let totals = history.totals();
    assert_eq!((totals.failovers, totals.moved, totals.late), (3, 3, 1));
    assert_eq!(totals.duration_ms, 4_501);
}

#[test]
fn the_list_is_bounded_and_the_totals_are_not() {
    let mut history = History::default();
    let many = MAX_EVENTS as u64 + 10;
    for id in 0..many {
        history.begin(event(id, "eu"), 0);
        history.end(&"eu".into(), Timestamp(id));
    }
    let events = history.events();
    assert_eq!(events.len(), MAX_EVENTS);
    assert_eq!(events.first().map(|event| event.at), Some(Timestamp(10)), "the oldest are gone");
    assert_eq!(history.totals().failovers, many);
}

#[test]
fn a_restart_takes_up_what_was_stored() {
    let ended = |id, from| FailoverEvent {
        ended_at: Some(Timestamp(id + 1)),
        duration_ms: Some(300),
        ..event(id, from)
    };
    let mut history = History::default();
    for _ in 0..2 {
        history.restore(vec![ended(3, "eu"), ended(1, "ap"), event(5, "eu")], 1_000);
        let ids: Vec<_> = history.events().iter().map(|event| event.at.0).collect();
        assert_eq!(ids, [1, 3, 5], "the oldest first, and each once");
        assert_eq!((history.totals().failovers, history.totals().moved), (3, 2));
    }
    let eu = RegionId::from("eu");
    assert_eq!(history.open(&eu).map(|event| event.at), Some(Timestamp(5)));
    assert!(!history.moved(&eu, 9, 1_000), "how long it took, another one knew");
    assert_eq!(history.end(&eu, Timestamp(9)).and_then(|event| event.duration_ms), None);
}

#[test]
fn two_routers_that_saw_one_failover_make_one_event_of_it() {
    let mut history = History::default();
    history.begin(event(7, "eu"), 0);
    history.moved(&"eu".into(), 250, 1_000);
    // The other one saw it a moment earlier, and wrote it.
    history.restore(vec![event(6, "eu")], 1_000);
    let expected = FailoverEvent { duration_ms: Some(250), ..event(6, "eu") };
    assert_eq!(history.events(), [expected]);
    assert_eq!(history.totals().failovers, 1);
}

#[test]
fn the_stored_form_names_regions() {
    let stored = serde_json::json!({
        "id": "0000000000007-eu-us", "from_region": "eu", "to_regions": ["ap"], "at": 7,
        "cause": "automatic", "strategy": "immediate",
        "reason": "2 of 10 instances take requests", "writer_region": "us",
    });
    assert_eq!(serde_json::to_value(event(7, "eu")).ok(), Some(stored.clone()));
    assert_eq!(serde_json::from_value::<FailoverEvent>(stored).ok(), Some(event(7, "eu")));
}
