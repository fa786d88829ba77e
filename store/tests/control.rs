//! Leases on a real engine: one holder at a time, and what it writes is fenced. And the audit trail.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{Capacity, Stamp, Timestamp};
use mrgc_store::{AuditEntry, LeaseKeeper, Store, StoreError};
use tokio::time::sleep;

use crate::support::{Engine, Folder, REGION, table};

const LEASE: &str = "autoscaling";
/// Long for a machine that builds beside the tests: a holder that cannot run for three quarters of it stops
/// believing, which is right and not what these tests are about.
const TTL: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(60);

/// Contenders of one lease that come and go.
struct Contenders {
    store: Store,
    keepers: Vec<LeaseKeeper>,
    highest: u64,
}

impl Contenders {
    fn new(store: &Store, n: usize) -> Self {
        let mut contenders = Self { store: store.clone(), keepers: Vec::new(), highest: 0 };
        (0..n).for_each(|_| contenders.join());
        contenders
    }

    fn join(&mut self) {
        let name = format!("router-{}", self.keepers.len());
        self.keepers.push(self.store.keep_lease(LEASE, &name, TTL));
    }

    /// Who believes to hold it, with the epoch. Nothing else runs on this thread meanwhile, so that this is
    /// one moment; by it, no two may believe, and epochs only rise.
    fn holder(&mut self) -> Option<(usize, u64)> {
        let keepers = self.keepers.iter().enumerate();
        let believers: Vec<_> =
            keepers.filter_map(|(i, keeper)| Some((i, keeper.epoch()?))).collect();
        assert!(believers.len() <= 1, "{believers:?}");
        let (_, epoch) = *believers.first()?;
        assert!(epoch >= self.highest, "epoch {epoch} after {}", self.highest);
        self.highest = epoch;
        believers.first().copied()
    }

    async fn holder_within(&mut self, deadline: Duration) -> (usize, u64) {
        let start = Instant::now();
        loop {
            if let Some(holder) = self.holder() {
                return holder;
            }
            assert!(start.elapsed() < deadline, "nobody holds the lease after {deadline:?}");
            sleep(POLL).await;
        }
    }
}

fn capacity(stamp: Stamp) -> Capacity {
    Capacity {
        region: REGION.into(),
        pool: "model-a".into(),
        written_by: REGION.into(),
        stamp,
        desired: 4,
        in_service: None,
        pending: None,
        last_decision: None,
        at: Timestamp(0),
    }
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Timestamp(u64::try_from(now).unwrap())
}

#[tokio::test]
async fn of_many_contenders_one_holds_the_lease_and_a_stopped_one_is_replaced() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut contenders = Contenders::new(&store, 6);
    let mut fence: Option<Stamp> = None;
    for round in 0..3 {
        let (holder, epoch) = contenders.holder_within(DEADLINE).await;
        let stamp = Stamp::next(fence, epoch);
        store.put_capacity(&capacity(stamp)).await.unwrap();
        // Whoever held it before and has not noticed is refused.
        if let Some(before) = fence.filter(|before| before.epoch < epoch) {
            let late = Stamp { sequence: before.sequence + 1, ..before };
            let error = store.put_capacity(&capacity(late)).await.unwrap_err();
            assert!(matches!(error, StoreError::Superseded { .. }), "{error}");
        }
        fence = Some(stamp);
        let lease = store.leases().await.unwrap().remove(0);
        assert!(lease.stamp.epoch >= epoch, "{lease:?} in round {round}");
        // The process ends without a word, and is started again.
        drop(contenders.keepers.remove(holder));
        contenders.join();
    }
    let (_, epoch) = contenders.holder_within(DEADLINE).await;
    assert!(epoch >= 4, "each stop raised it, and this is {epoch}");
    assert_eq!(contenders.keepers.iter().map(LeaseKeeper::failures).sum::<u64>(), 0);
    drop(contenders);
    engine.stop().await;
}

#[tokio::test]
async fn a_holder_that_renews_keeps_it() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let mut contenders = Contenders::new(&engine.store().await, 3);
    let first = contenders.holder_within(DEADLINE).await;
    let start = Instant::now();
    while start.elapsed() < TTL.mul_f64(2.5) {
        let holder = contenders.holder();
        assert!(holder.is_none_or(|holder| holder == first), "{holder:?} after {first:?}");
        sleep(POLL).await;
    }
    drop(contenders);
    engine.stop().await;
}

#[tokio::test]
async fn one_that_is_given_back_is_taken_before_its_time_to_live_is_over() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    // Nobody takes over by waiting within this test.
    let ttl = Duration::from_secs(300);
    let mut first = Contenders::new(&store, 0);
    first.keepers.push(store.keep_lease(LEASE, "router-1", ttl));
    let (_, epoch) = first.holder_within(DEADLINE).await;
    first.keepers.remove(0).release().await.unwrap();
    assert_eq!(store.leases().await.unwrap()[0].holder, None);

    first.keepers.push(store.keep_lease(LEASE, "router-2", ttl));
    let (_, next) = first.holder_within(DEADLINE).await;
    assert_eq!((epoch, next), (1, 2));
    drop(first);
    engine.stop().await;
}

#[tokio::test]
async fn a_holder_cut_off_from_the_store_stops_believing_and_comes_back() {
    let folder = Folder::new();
    let engine = Engine::start_at(&folder, "127.0.0.1:0".parse().unwrap()).await;
    let (store, address) = (engine.store().await, engine.address);
    let mut contenders = Contenders::new(&store, 2);
    let (holder, epoch) = contenders.holder_within(DEADLINE).await;
    engine.stop().await;
    let start = Instant::now();
    while contenders.holder().is_some() {
        assert!(start.elapsed() < TTL, "still believed without a store");
        sleep(POLL).await;
    }

    let engine = Engine::start_at(&folder, address).await;
    let (_, after) = contenders.holder_within(DEADLINE).await;
    assert!(after >= epoch, "{after} after {epoch}");
    assert!(contenders.keepers[holder].failures() > 0);
    drop(contenders);
    engine.stop().await;
}

#[tokio::test]
async fn a_holder_learns_that_another_took_it() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut contenders = Contenders::new(&store, 1);
    let (_, epoch) = contenders.holder_within(DEADLINE).await;
    // What another region's writer or a paused process's successor would have done.
    let update = engine.client().update_item().table_name(table("control"));
    update
        .key("pk", AttributeValue::S("LEASES".to_owned()))
        .key("sk", AttributeValue::S(LEASE.to_owned()))
        .update_expression("SET epoch = :epoch, holder = :holder")
        .expression_attribute_values(":epoch", AttributeValue::N((epoch + 1).to_string()))
        .expression_attribute_values(":holder", AttributeValue::S("another".to_owned()))
        .send()
        .await
        .unwrap();
    let start = Instant::now();
    while contenders.keepers[0].other_holder().as_deref() != Some("another") {
        assert!(start.elapsed() < DEADLINE, "it did not notice");
        sleep(POLL).await;
    }
    assert_eq!(contenders.holder(), None);
    // The other one is never heard of again.
    let (_, after) = contenders.holder_within(DEADLINE).await;
    assert_eq!(after, epoch + 2);
    drop(contenders);
    engine.stop().await;
}

fn entry(at: Timestamp, action: &str) -> AuditEntry<'_> {
    let (operator, subject) = ("alice@example.com", "instance i-1234567890abcdef0");
    AuditEntry { at, operator, action, subject, reason: Some("ECC errors") }
}

#[tokio::test]
async fn the_audit_trail_is_read_from_its_end_over_the_days() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let now = now();
    let mut recorded = Vec::new();
    for (days_ago, action) in [(399, "a"), (3, "b"), (1, "c"), (0, "d"), (0, "e")] {
        let at = Timestamp(now.0 - days_ago * DAY_MS + recorded.len() as u64);
        recorded.push(store.record_audit(entry(at, action)).await.unwrap());
    }
    // Its time was over before it was written.
    let over = Timestamp(now.0 - 401 * DAY_MS);
    store.record_audit(entry(over, "over")).await.unwrap();
    recorded.reverse();

    let everything = Timestamp(u64::MAX);
    let trail = async |from, to, limit| store.audit_trail(from, to, limit).await.unwrap();
    assert_eq!(trail(Timestamp(0), everything, 100).await, recorded);
    assert_eq!(trail(Timestamp(0), everything, 3).await, recorded[..3]);
    assert_eq!(trail(recorded[2].at, recorded[1].at, 100).await, recorded[1..3]);
    assert_eq!(trail(over, Timestamp(over.0 + DAY_MS), 100).await, []);
    assert_eq!(trail(everything, Timestamp(0), 100).await, []);
    assert_eq!(trail(now, Timestamp(now.0 - 1), 100).await, []);
    engine.stop().await;
}

#[tokio::test]
async fn an_audit_record_that_would_burst_its_budget_is_refused() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let reason = "x".repeat(2_048);
    let entry = AuditEntry { reason: Some(&reason), ..entry(now(), "quarantine") };
    let error = store.record_audit(entry).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    engine.stop().await;
}
