#![allow(clippy::unwrap_used)]

use mrgc_fleet::{
    failover::{Cause, FailoverEvent, Strategy},
    model::{DesiredState, InstanceId, RegionId, Registration, Standing, Timestamp},
    monitor::{Epochs, Gone},
};
use mrgc_store::{Store, StoreConfig, embedded};
use tokio::net::TcpListener;

use super::{
    super::{Executor, past_failovers},
    *,
};
use crate::{cloud::Groups, sync::wall_clock};

const HOME: &str = "us";
const HELD: Duration = Duration::from_secs(60);

/// A store, and a router that holds the lease of health.
struct Rig {
    store: Store,
    leases: Arc<Leases>,
    epochs: Epochs,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let file = folder.path().join("state.db");
        tokio::spawn(async move {
            embedded::serve(&file, listener, "mrgc", std::future::pending()).await
        });
        let config = StoreConfig { endpoint, timeout_ms: 30_000, ..StoreConfig::default() };
        let store = Store::connect(&config).await.unwrap();
        let health = Some(store.keep_lease("health/us", "us-1", HELD));
        let leases = Arc::new(Leases { health, failover: None });
        eventually(|| leases.epochs().health.is_some()).await;
        let epochs = leases.epochs();
        Self { store, leases, epochs, _folder: folder }
    }

    fn writer(&self, groups: Option<Groups>) -> Writer {
        Writer::new(self.store.clone(), HOME.into(), "us-1", groups)
    }

    async fn registered(&self, id: &str) -> Arc<Standing> {
        let registration = Registration::new(id, HOME, "p", "127.0.0.1:1");
        Standing::new(self.store.register(&registration).await.unwrap(), None).into()
    }

    /// What comes of them, one after the other.
    async fn work(&self, jobs: Vec<Job>) {
        let writer = self.writer(None);
        let (waiting, inbox) = mpsc::channel(jobs.len());
        for job in jobs {
            waiting.try_send(job).unwrap();
        }
        drop(waiting);
        Worker::new(writer, self.leases.clone()).run(inbox).await;
    }

    async fn wanted(&self, id: &str) -> Option<DesiredState> {
        let desired = self.store.desired(&HOME.into(), &id.into()).await.unwrap();
        desired.map(|desired| desired.state)
    }

    async fn open(&self) -> Vec<InstanceId> {
        let open = self.store.open_replacements(&RegionId::from(HOME)).await.unwrap();
        open.into_iter().map(|replacement| replacement.instance).collect()
    }

    /// The standing as it is read by now.
    async fn seen(&self, id: &str) -> Arc<Standing> {
        self.store.instance(&HOME.into(), &id.into()).await.unwrap().unwrap().into()
    }
}

async fn eventually(holds: impl Fn() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), polled).await.unwrap();
}

fn replace(instance: &Arc<Standing>) -> Action {
    Action::Replace { instance: instance.clone(), reason: "answered 503".to_owned() }
}

fn release(instance: &Arc<Standing>) -> Action {
    Action::Release { instance: instance.clone() }
}

/// It waited in a process that was stopped while another router took the lease.
#[tokio::test]
async fn what_was_issued_under_a_lease_that_is_lost_is_left_undone() {
    let rig = Rig::start().await;
    let instance = rig.registered("i-1").await;
    let lost = Epochs { health: rig.epochs.health.map(|epoch| epoch + 1), failover: None };
    let forget = Action::Forget { instance: instance.clone(), gone: Gone::Terminated };
    let jobs = [replace(&instance), release(&instance), forget];
    rig.work(jobs.map(|action| Job::new(action, lost)).into()).await;
    assert_eq!((rig.wanted("i-1").await, rig.open().await), (None, vec![]));
    let audited = rig.store.audit_trail(Timestamp(0), Timestamp(u64::MAX), 9).await.unwrap();
    assert_eq!(audited, []);
    assert_eq!(rig.seen("i-1").await.registration, instance.registration);

    rig.work(vec![Job::new(replace(&instance), rig.epochs)]).await;
    assert_eq!(rig.wanted("i-1").await, Some(DesiredState::Draining));
    assert_eq!(rig.open().await, ["i-1".into()]);
}

#[tokio::test]
async fn what_broke_off_half_way_is_finished_by_the_next_of_its_kind() {
    let rig = Rig::start().await;
    let instance = rig.registered("i-1").await;
    let job = |action| Job::new(action, rig.epochs);
    rig.work(vec![job(replace(&instance))]).await;
    let drained = rig.seen("i-1").await;
    // Called off, and no more; then it fails again.
    rig.store.call_off_replacement(&HOME.into(), &"i-1".into(), "it serves").await.unwrap();
    rig.work(vec![job(replace(&drained))]).await;
    assert_eq!(rig.open().await, ["i-1".into()]);

    rig.work(vec![job(release(&drained)), job(release(&drained))]).await;
    assert_eq!((rig.wanted("i-1").await, rig.open().await), (Some(DesiredState::Serving), vec![]));
    rig.work(vec![job(replace(&rig.seen("i-1").await))]).await;
    assert_eq!(rig.open().await, ["i-1".into()], "a second failure of one generation");

    let forget = Action::Forget { instance: drained, gone: Gone::Unknown };
    rig.work(vec![job(forget.clone()), job(forget)]).await;
    assert_eq!(rig.store.instances(&HOME.into()).await.unwrap(), []);
    assert_eq!(rig.wanted("i-1").await, None);
}

#[tokio::test]
async fn one_that_registered_anew_is_not_forgotten() {
    let rig = Rig::start().await;
    let (before, after) = (rig.registered("i-1").await, rig.registered("i-1").await);
    let forget = Action::Forget { instance: before, gone: Gone::Terminated };
    rig.work(vec![Job::new(forget, rig.epochs)]).await;
    assert_eq!(rig.seen("i-1").await.registration, after.registration);
}

#[tokio::test]
async fn what_the_monitor_issues_again_is_not_done_late() {
    let held = Epochs { health: Some(3), failover: Some(5) };
    let instance: Arc<Standing> =
        Standing::new(Registration::new("i-1", HOME, "p", "127.0.0.1:1"), None).into();
    let job = Job::new(replace(&instance), held);
    let (at_once, late) = (job.issued, job.issued + OUTDATED_AFTER);
    assert!(job.is_due(held, at_once));
    assert!(!job.is_due(held, late));
    for other in [None, Some(4)] {
        assert!(!job.is_due(Epochs { health: other, ..held }, at_once), "{other:?}");
    }
}

/// The lease's next holder has read what is under way, and would not hear of more.
#[tokio::test]
async fn a_failover_under_way_is_its_lease_holders_to_write() {
    let held = Epochs { health: None, failover: Some(5) };
    let (under_way, ended) = (failover("1"), ended(failover("1")));
    for (event, expected) in [(under_way, false), (ended, true)] {
        let job = Job::new(Action::Event(event), held);
        let late = job.issued + HELD;
        assert!(job.is_due(held, late));
        for failover in [None, Some(6)] {
            let is_due = job.is_due(Epochs { failover, ..held }, late);
            assert_eq!(is_due, expected, "{failover:?}");
        }
    }
}

fn failover(id: &str) -> FailoverEvent {
    FailoverEvent {
        id: id.to_owned(),
        from: "eu".into(),
        to: vec![HOME.into()],
        at: Timestamp(1),
        ended_at: None,
        duration_ms: None,
        cause: Cause::Automatic,
        strategy: Strategy::Immediate,
        reason: None,
        operator: None,
        writer_region: HOME.into(),
    }
}

fn ended(event: FailoverEvent) -> FailoverEvent {
    FailoverEvent { ended_at: Some(Timestamp(2)), ..event }
}

#[tokio::test]
async fn what_was_not_written_has_its_turn_however_much_comes_in() {
    let endpoint = Some("http://127.0.0.1:1".to_owned());
    let nowhere = StoreConfig { endpoint, ..StoreConfig::default() };
    let store = Store::connect(&nowhere).await.unwrap();
    let mut worker = Worker::new(Writer::new(store, HOME.into(), "us-1", None), Arc::default());
    let job = |id: &str| {
        Job::new(Action::Event(ended(failover(id))), Epochs { health: None, failover: Some(5) })
    };
    let retry_at = worker.retry_at;
    worker.take(job("1")).await;
    assert!(worker.retry_at > retry_at, "after a pause");
    let retry_at = worker.retry_at;
    worker.take(job("2")).await;
    assert_eq!(worker.retry_at, retry_at, "what else fails meanwhile puts off nothing");

    worker.retry_at = Instant::now() - TRY_AGAIN;
    let (waiting, mut inbox) = mpsc::channel(2);
    waiting.try_send(job("3")).unwrap();
    let mut next = async |worker: &mut Worker| {
        let job = worker.next(&mut inbox).await.unwrap();
        let Action::Event(event) = &job.action else { unreachable!("{job:?}") };
        (event.id.clone(), job)
    };
    let (id, first) = next(&mut worker).await;
    assert_eq!(id, "1");
    worker.take(first).await;
    assert!(worker.retry_at > Instant::now(), "it failed again");
    assert_eq!(next(&mut worker).await.0, "3");
    worker.retry_at = Instant::now() - TRY_AGAIN;
    assert_eq!(next(&mut worker).await.0, "2");
    assert_eq!(next(&mut worker).await.0, "1");
}

/// The store was away, and with it the lease: in the same epoch it would not be issued again.
#[tokio::test]
async fn a_failover_waits_for_its_lease_and_holds_up_nothing() {
    let rig = Rig::start().await;
    let mut worker = Worker::new(rig.writer(None), rig.leases.clone());
    // Only health's is held.
    let epochs = Epochs { failover: Some(5), ..rig.epochs };
    let job = |event| Job::new(Action::Event(event), epochs);
    worker.take(job(failover("1"))).await;
    worker.keep(job(ended(failover("2"))));
    let next = worker.next_unwritten().unwrap();
    assert!(matches!(next.action, Action::Event(event) if event.id == "2"));
    assert!(worker.next_unwritten().is_none());
    assert_eq!(worker.unwritten.len(), 1, "it waits");
    assert!(worker.retry_at > Instant::now(), "after a pause");
}

#[tokio::test]
async fn a_failover_under_way_is_dropped_once_another_holds_its_lease() {
    let rig = Rig::start().await;
    let other = rig.store.keep_lease("failover/us", "us-2", HELD);
    eventually(|| other.epoch().is_some()).await;
    let failover_lease = Some(rig.store.keep_lease("failover/us", "us-1", HELD));
    let leases = Arc::new(Leases { health: None, failover: failover_lease });
    eventually(|| leases.failover_is_anothers()).await;
    let mut worker = Worker::new(rig.writer(None), leases);
    let job = || Job::new(Action::Event(failover("1")), Epochs { health: None, failover: Some(5) });
    worker.take(job()).await;
    assert_eq!(worker.unwritten.len(), 0);
    worker.keep(job());
    assert!(worker.next_unwritten().is_none());
    assert_eq!(worker.unwritten.len(), 0);
}

/// Its release may be another router's, or a person's.
#[tokio::test]
async fn a_group_is_told_of_the_failure_that_an_instance_is_drained_for() {
    let rig = Rig::start().await;
    let (groups, mut failures) = Groups::channel();
    let writer = rig.writer(Some(groups));
    let fails = async |instance: &Arc<Standing>| writer.act(&replace(instance)).await.unwrap();
    let instance = rig.registered("i-01234567").await;
    fails(&instance).await;
    let drained = rig.seen("i-01234567").await;
    fails(&drained).await;
    let mut told = async || failures.recv().await.unwrap();
    let first = told().await;
    assert_eq!(told().await, first, "it fails still");

    writer.act(&release(&drained)).await.unwrap();
    // Drains are told apart by the millisecond.
    tokio::time::sleep(Duration::from_millis(2)).await;
    fails(&rig.seen("i-01234567").await).await;
    assert_ne!(told().await, first, "it fails again");
}

/// What the monitor knows is older than the release.
#[tokio::test]
async fn one_that_is_released_already_is_not_asked_for() {
    let rig = Rig::start().await;
    let instance = rig.registered("i-1").await;
    let job = |action| Job::new(action, rig.epochs);
    rig.work(vec![job(replace(&instance))]).await;
    let drained = rig.seen("i-1").await;
    rig.work(vec![job(release(&drained)), job(replace(&drained))]).await;
    assert_eq!((rig.wanted("i-1").await, rig.open().await), (Some(DesiredState::Serving), vec![]));
}

#[tokio::test]
async fn the_next_holder_reads_of_failovers_that_a_clock_ahead_put_into_the_future() {
    let rig = Rig::start().await;
    let day = Duration::from_hours(24).as_millis() as u64;
    let ahead = FailoverEvent { at: Timestamp(wall_clock().0 + day), ..failover("1") };
    rig.store.record_failover_event(&ahead).await.unwrap();
    assert_eq!(past_failovers(&rig.store, &HOME.into()).await.unwrap(), [ahead]);
}

#[tokio::test]
async fn the_history_is_read_for_the_epoch_that_is_held_alone() {
    let rig = Rig::start().await;
    let failover = Some(rig.store.keep_lease("failover/us", "us-1", HELD));
    let leases = Arc::new(Leases { health: None, failover });
    eventually(|| leases.epochs().failover.is_some()).await;
    let history = Some((rig.store.clone(), HOME.into()));
    let executor = Executor { leases, waiting: None, history };
    let epoch = executor.epochs().failover.unwrap();
    for (asked, expected) in [(epoch, true), (epoch + 1, false)] {
        let (events, mut inbox) = mpsc::channel(1);
        executor.read_history(asked, events);
        assert_eq!(inbox.recv().await.is_some(), expected, "{asked}, {epoch} is held");
    }
}
