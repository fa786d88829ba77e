use super::*;

fn stamp(epoch: u64, sequence: u64) -> Stamp {
    Stamp { epoch, sequence }
}

fn record(stamp: Stamp) -> RegionRecord {
    RegionRecord {
        region: "eu".into(),
        state: RegionState::Degraded,
        share: 0.7,
        healthy: 6,
        all: 10,
        reason: Some("6 of 10 instances take requests".to_owned()),
        ordered: false,
        since: Timestamp(5),
        at: Timestamp(9),
        writer_region: "us".into(),
        by: "router-1".to_owned(),
        stamp,
    }
}

#[test]
fn only_a_higher_stamp_is_news() {
    for (seen, new, expected) in [
        (None, stamp(3, 0), true),
        (Some(stamp(3, 7)), stamp(3, 8), true),
        (Some(stamp(3, 7)), stamp(4, 0), true),
        (Some(stamp(3, 7)), stamp(3, 7), false),
        (Some(stamp(3, 7)), stamp(3, 6), false),
        // A holder that was paused while another took over, however often it writes.
        (Some(stamp(4, 0)), stamp(3, 900), false),
    ] {
        assert_eq!(accepts(seen, new), expected, "{new} after {seen:?}");
    }
}

#[test]
fn a_word_counts_for_its_time_to_live_by_the_readers_clock() {
    let word = HeldRecord::new(record(stamp(3, 7)), 1_000_000);
    let counts = |now_ms| word.bound(None, now_ms) != Bound::Free;
    assert!(counts(1_000_000));
    assert!(counts(1_000_000 + RECORD_TTL_MS - 1));
    assert!(!counts(1_000_000 + RECORD_TTL_MS));
    assert_eq!(word.ends_ms(), 1_000_000 + RECORD_TTL_MS);
}

#[test]
fn a_word_binds_others_than_the_holder_and_those_who_lost_the_lease_to_it() {
    let word = HeldRecord::new(record(stamp(3, 7)), 0);
    let reason = "6 of 10 instances take requests, says router-1".to_owned();
    let rating = Rating { state: RegionState::Degraded, share: 0.7 };
    let binds = Bound::AtMost { rating, reason };
    for (epoch, expected) in
        [(None, &binds), (Some(2), &binds), (Some(3), &Bound::Free), (Some(4), &Bound::Free)]
    {
        assert_eq!(word.bound(epoch, 1), *expected, "by one with epoch {epoch:?}");
    }
}

#[test]
fn a_share_out_of_bounds_is_taken_as_the_nearest() {
    let share = |share| RegionRecord { share, ..record(stamp(0, 0)) }.rating().share;
    assert_eq!((share(-3.0), share(7.0)), (0.0, 1.0));
}

#[test]
fn a_region_that_is_said_to_be_normal_and_to_keep_less_than_all_is_not_normal() {
    let normal =
        |share| RegionRecord { state: RegionState::Normal, share, ..record(stamp(0, 0)) }.rating();
    assert_eq!(normal(1.0), Rating::NORMAL);
    assert_eq!(normal(0.5), Rating { state: RegionState::Recovering, share: 0.5 });
}

#[test]
fn the_stored_form_is_flat() {
    let stored = serde_json::json!({
        "region": "eu", "state": "degraded", "share": 0.7, "healthy": 6, "all": 10,
        "reason": "6 of 10 instances take requests", "since": 5, "at": 9,
        "writer_region": "us", "by": "router-1", "epoch": 3, "sequence": 7,
    });
    let record = record(stamp(3, 7));
    assert_eq!(serde_json::to_value(&record).ok(), Some(stored.clone()));
    assert_eq!(serde_json::from_value::<RegionRecord>(stored).ok(), Some(record));
}
