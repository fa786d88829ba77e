//! What operators want of regions, what lease holders say of them, and the failovers that there were.

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::{
    failover::{Cause, FailoverEvent, RegionOrder, RegionRecord, RegionState, Strategy, Wish},
    model::{Stamp, Timestamp},
};
use mrgc_store::StoreError;
use tokio::task::JoinSet;

use crate::support::{Engine, Folder, Lossy, REGION, store_at, without};

const WEST: &str = "us-west-2";
const AT: Timestamp = Timestamp(1_760_000_000_000);

fn order(wish: Wish, writer_region: &str) -> RegionOrder {
    RegionOrder {
        region: REGION.into(),
        wish,
        reason: Some("planned maintenance".to_owned()),
        operator: Some("ada".to_owned()),
        at: AT,
        writer_region: writer_region.into(),
        stamp: Stamp::default(),
    }
}

fn away() -> Wish {
    Wish::FailOver { to: Some(WEST.into()), strategy: Strategy::Graceful }
}

fn pinned() -> Wish {
    Wish::Pinned { state: RegionState::Normal }
}

#[tokio::test]
async fn of_opposite_orders_the_later_counts_wherever_it_was_given() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    assert_eq!(store.region_orders().await.unwrap(), []);
    let first = store.put_region_order(&order(away(), REGION)).await.unwrap();
    assert_eq!(store.region_orders().await.unwrap(), std::slice::from_ref(&first));
    let second = store.put_region_order(&order(Wish::Automatic, WEST)).await.unwrap();
    assert!(second.stamp > first.stamp);
    assert_eq!(store.region_orders().await.unwrap(), std::slice::from_ref(&second));

    // Over the first region's own item, of which nothing stays: no target, no strategy.
    let third = store.put_region_order(&order(pinned(), REGION)).await.unwrap();
    assert!(third.stamp > second.stamp);
    assert_eq!(store.region_orders().await.unwrap(), [third]);
    assert_eq!(engine.items("control").await.len(), 2, "one for each region that wrote");
    let item = engine.item(("control", "us-east-1#us-east-1")).await;
    assert!(!item.contains_key("to") && !item.contains_key("strategy"), "{item:?}");

    // A region whose name begins alike is another one.
    let other = RegionOrder { region: "us-east".into(), ..order(away(), REGION) };
    let other = store.put_region_order(&other).await.unwrap();
    assert_eq!(other.stamp, Stamp::default());
    assert_eq!(store.region_orders().await.unwrap().len(), 2);
    engine.stop().await;
}

#[tokio::test]
async fn orders_at_once_each_get_a_stamp_and_the_last_counts() {
    if without("atomic-writes") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut giving = JoinSet::new();
    for n in 0..4 {
        let store = store.clone();
        giving.spawn(async move {
            let wish = if n % 2 == 0 { away() } else { Wish::Automatic };
            let operator = Some(format!("operator {n}"));
            let order = RegionOrder { operator, ..order(wish, REGION) };
            store.put_region_order(&order).await.unwrap()
        });
    }
    let mut given = giving.join_all().await;
    given.sort_by_key(|order| order.stamp);
    assert!(given.windows(2).all(|pair| pair[0].stamp < pair[1].stamp), "{given:?}");
    assert_eq!(store.region_orders().await.unwrap().last(), given.last());
    engine.stop().await;
}

/// As a router writes it that was told while the store was away.
#[tokio::test]
async fn a_late_order_gives_way_to_what_was_ordered_meanwhile() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let in_force = async || store.region_orders().await.unwrap().remove(0);
    let seen = store.put_region_order(&order(Wish::Automatic, REGION)).await.unwrap();
    let next = Stamp::next(Some(seen.stamp), seen.stamp.epoch);
    let late = |wish, writer| RegionOrder { stamp: next, ..order(wish, writer) };

    // Nobody said anything meanwhile; saying it again changes nothing.
    let failed_over = late(away(), REGION);
    for _ in 0..2 {
        assert_eq!(store.put_late_region_order(&failed_over).await.unwrap(), failed_over);
        assert_eq!(in_force().await, failed_over);
    }
    // Another router's of the same moment, less strict: it is not written.
    assert_eq!(store.put_late_region_order(&late(pinned(), WEST)).await.unwrap(), failed_over);
    assert_eq!(in_force().await, failed_over);
    // A stricter one of that moment counts, from another region and from the same.
    let at_once = Wish::FailOver { to: None, strategy: Strategy::Immediate };
    let stricter = late(at_once.clone(), WEST);
    assert_eq!(store.put_late_region_order(&stricter).await.unwrap(), stricter);
    assert_eq!(in_force().await, stricter);
    // Whoever has seen them goes above.
    let last = store.put_region_order(&order(Wish::Automatic, REGION)).await.unwrap();
    assert_eq!(store.put_late_region_order(&late(at_once, REGION)).await.unwrap(), last);
    assert_eq!(in_force().await, last);
    engine.stop().await;
}

#[tokio::test]
async fn an_order_that_the_sdk_repeats_is_one() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    // The first answer tells what is there, the second that it is written.
    lossy.lose_answer(2);
    let written = store.put_region_order(&order(away(), REGION)).await.unwrap();
    assert!(lossy.has_lost_it());
    assert_eq!(written.stamp, Stamp::default());
    assert_eq!(store.counts().repeated_writes, 1);
    engine.stop().await;
}

fn record(writer_region: &str, epoch: u64, sequence: u64, reason: Option<&str>) -> RegionRecord {
    RegionRecord {
        region: WEST.into(),
        state: RegionState::Degraded,
        share: 0.7,
        healthy: 6,
        all: 10,
        reason: reason.map(str::to_owned),
        ordered: false,
        since: AT,
        at: AT,
        writer_region: writer_region.into(),
        by: "router-1".to_owned(),
        stamp: Stamp { epoch, sequence },
    }
}

#[tokio::test]
async fn a_lease_holder_that_was_superseded_writes_no_more() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let records = async |writer: &str| store.region_records(&writer.into()).await.unwrap();
    store.put_region_record(&record(REGION, 2, 7, Some("6 of 10 are healthy"))).await.unwrap();
    let taken_over = record(REGION, 3, 0, None);
    store.put_region_record(&taken_over).await.unwrap();
    assert_eq!(records(REGION).await, std::slice::from_ref(&taken_over));
    // The same again is what is stored already; what a paused one brings is refused.
    store.put_region_record(&taken_over).await.unwrap();
    for (epoch, sequence) in [(2, 8), (2, 7)] {
        let late = record(REGION, epoch, sequence, None);
        let error = store.put_region_record(&late).await.unwrap_err();
        let StoreError::Superseded { offered, stored, .. } = &error else { panic!("{error}") };
        assert_eq!((*offered, *stored), (late.stamp, taken_over.stamp));
    }
    let other = RegionRecord { healthy: 0, ..taken_over.clone() };
    let error = store.put_region_record(&other).await.unwrap_err();
    assert!(matches!(error, StoreError::Superseded { .. }), "one stamp, one word: {error}");

    // Another region's word is another item.
    store.put_region_record(&record(WEST, 1, 0, None)).await.unwrap();
    assert_eq!(records(REGION).await, [taken_over]);
    assert_eq!(records(WEST).await, [record(WEST, 1, 0, None)]);
    engine.stop().await;
}

#[tokio::test]
async fn a_record_or_event_that_would_burst_its_budget_is_refused() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let long = "x".repeat(2_048);
    let error = store.put_region_record(&record(REGION, 1, 0, Some(&long))).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    let event = FailoverEvent { reason: Some(long), ..event(AT, "a") };
    let error = store.record_failover_event(&event).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    engine.stop().await;
}

fn event(at: Timestamp, id: &str) -> FailoverEvent {
    FailoverEvent {
        id: id.to_owned(),
        from: REGION.into(),
        to: vec![WEST.into()],
        at,
        ended_at: None,
        duration_ms: None,
        cause: Cause::Automatic,
        strategy: Strategy::Immediate,
        reason: Some("none of 8 is healthy".to_owned()),
        operator: None,
        writer_region: WEST.into(),
    }
}

#[tokio::test]
async fn failovers_are_read_from_the_last_one_on() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ms = u64::try_from(now.as_millis()).unwrap();
    let mut events = Vec::new();
    for (days_ago, id) in [(399, "a"), (30, "b"), (0, "c"), (0, "d")] {
        events.push(event(Timestamp(now_ms - days_ago * DAY_MS), id));
        store.record_failover_event(events.last().unwrap()).await.unwrap();
    }
    // Its time was over before it was written.
    store.record_failover_event(&event(Timestamp(now_ms - 401 * DAY_MS), "over")).await.unwrap();
    events.reverse();
    let listed = async |from, to, limit| store.failover_events(from, to, limit).await.unwrap();
    let everything = Timestamp(u64::MAX);
    assert_eq!(listed(Timestamp(0), everything, 100).await, events);
    assert_eq!(listed(Timestamp(0), everything, 2).await, events[..2]);
    assert_eq!(listed(events[3].at, events[2].at, 100).await, events[2..]);
    assert_eq!(listed(everything, Timestamp(0), 100).await, []);
    engine.stop().await;
}

#[tokio::test]
async fn a_failover_is_written_as_it_goes_on_and_stays_ended() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let at = Timestamp(u64::MAX / 2);
    let began = event(at, "a");
    let moved = FailoverEvent { duration_ms: Some(150), ..began.clone() };
    let ended = FailoverEvent { ended_at: Some(Timestamp(at.0 + 90_000)), ..moved.clone() };
    let stored = async || {
        let mut events = store.failover_events(Timestamp(0), Timestamp(u64::MAX), 9).await.unwrap();
        assert_eq!(events.len(), 1);
        events.remove(0)
    };
    for (written, expected) in [
        (&began, &began),
        (&moved, &moved),
        // Of a router that has not seen it move yet.
        (&began, &moved),
        (&ended, &ended),
        (&moved, &ended),
        (&ended, &ended),
    ] {
        store.record_failover_event(written).await.unwrap();
        assert_eq!(stored().await, *expected);
    }
    let item = engine.items("control").await.remove(0);
    assert!(matches!(item["expires_at"], AttributeValue::N(_)), "{item:?}");
    engine.stop().await;
}
