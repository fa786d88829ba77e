//! Two regions that share global tables: what both write comes together, and no reader sees a fact go back.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{
    Desired, DesiredState, InstanceId, RegionId, Registration, Report, Stamp, Timestamp,
};
use mrgc_store::Store;
use tokio::{task::JoinSet, time};

use crate::{
    replicator::{Item, Replicator, scan},
    support::{Engine, Folder, region, registration, report, table},
};

const REGIONS: [&str; 2] = ["us-east-1", "eu-west-1"];
/// In each region.
const AGENTS: u64 = 3;
/// In each of an agent's two lives.
const REPORTS: u64 = 15;
/// By each region's operator, on the same instance.
const DESIRES: u64 = 12;
/// The longest that a version is on its way.
const LAG: Duration = Duration::from_millis(120);
/// The longest pause between two writes of one writer.
const PAUSE_MS: u64 = 20;

const CONTESTED: &str = "i-us-east-1-0";

/// Two engines with the replication between them.
struct World {
    engines: [Engine; 2],
    stores: [Store; 2],
    replicator: Replicator,
    random: fastrand::Rng,
    _folders: [Folder; 2],
}

impl World {
    async fn start() -> Self {
        let seed = std::env::var("MRGC_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        eprintln!("MRGC_TEST_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let folders = [Folder::new(), Folder::new()];
        let port = "127.0.0.1:0".parse().unwrap();
        let engines =
            [Engine::start_at(&folders[0], port).await, Engine::start_at(&folders[1], port).await];
        let stores = [engines[0].store().await, engines[1].store().await];
        let clients = [engines[0].client(), engines[1].client()];
        let replicator = Replicator::start(clients, replicated(), LAG, random.fork());
        Self { engines, stores, replicator, random, _folders: folders }
    }

    async fn stop(self) {
        self.replicator.stop();
        for engine in self.engines {
            engine.stop().await;
        }
    }
}

/// All tables but `control`, which is one region's own or strongly consistent.
fn replicated() -> Vec<String> {
    ["gpu-instances", "routing-state", "regions"].map(table).to_vec()
}

async fn pause(random: &mut fastrand::Rng) {
    time::sleep(Duration::from_millis(random.u64(0..=PAUSE_MS))).await;
}

/// Registers in its own region and reports, as an agent does that is restarted once.
async fn live(store: Store, region: &'static str, id: String, mut random: fastrand::Rng) {
    let own = Registration { region: region.into(), ..registration(&id) };
    for _ in 0..2 {
        let generation = store.register(&own).await.unwrap().generation;
        for sequence in 1..=REPORTS {
            pause(&mut random).await;
            let report = Report { region: region.into(), ..report(&id, generation, sequence) };
            store.report(&report).await.unwrap();
        }
    }
}

/// Reads both regions through one of them for as long as it is told to, and sees that no fact goes back;
/// the number of looks.
async fn watch(store: Store, go_on: Arc<AtomicBool>) -> u32 {
    let mut reports: HashMap<InstanceId, (u64, u64)> = HashMap::new();
    let mut desires: HashMap<InstanceId, Stamp> = HashMap::new();
    let mut looks = 0;
    while go_on.load(Ordering::SeqCst) {
        for region in REGIONS {
            for standing in store.instances(&region.into()).await.unwrap() {
                let id = standing.registration.id.clone();
                if let Some(report) = standing.report {
                    let now = (report.generation, report.sequence);
                    let before = reports.insert(id.clone(), now).unwrap_or_default();
                    assert!(
                        now >= before,
                        "the report of {id} went back from {before:?} to {now:?}"
                    );
                }
                if let Some(desired) = standing.desired {
                    let before = desires.insert(id.clone(), desired.stamp);
                    let now = desired.stamp;
                    assert!(
                        Some(now) >= before,
                        "what is wanted of {id} went back: {before:?}, {now:?}"
                    );
                }
            }
        }
        looks += 1;
    }
    assert_eq!(reports.len() as u64, 2 * AGENTS, "it saw every instance report");
    assert_eq!(desires.len(), 1, "it saw what is wanted of one");
    looks
}

/// Wants something of one instance again and again, as a region's operator does; the last that was written.
async fn operate(store: Store, region: &'static str, mut random: fastrand::Rng) -> Desired {
    let states = [DesiredState::Draining, DesiredState::Quarantined, DesiredState::Serving];
    let mut last = None;
    for n in 0..DESIRES {
        pause(&mut random).await;
        let wish = Desired {
            instance: CONTESTED.into(),
            region: REGIONS[0].into(),
            state: states[random.usize(..states.len())],
            reason: Some(format!("{region}, {n}")),
            operator: None,
            automatic: false,
            at: Timestamp(n),
            writer_region: region.into(),
            stamp: Stamp { epoch: 0, sequence: 0 },
        };
        last = Some(store.desire(&wish).await.unwrap());
    }
    last.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_regions_write_comes_together_and_never_goes_back() {
    let mut world = World::start().await;
    let go_on = Arc::new(AtomicBool::new(true));
    let watches = world.stores.clone().map(|store| tokio::spawn(watch(store, Arc::clone(&go_on))));
    let (mut agents, mut operators) = (JoinSet::new(), JoinSet::new());
    for (store, name) in world.stores.iter().zip(REGIONS) {
        for n in 0..AGENTS {
            let id = format!("i-{name}-{n}");
            agents.spawn(live(store.clone(), name, id, world.random.fork()));
        }
        operators.spawn(operate(store.clone(), name, world.random.fork()));
        // Each region's routers say how they are reached.
        store.put_region(&region(name)).await.unwrap();
    }
    while let Some(end) = agents.join_next().await {
        end.unwrap();
    }
    let mut wishes = Vec::new();
    while let Some(last) = operators.join_next().await {
        wishes.push(last.unwrap());
    }
    let wanted = wishes.into_iter().reduce(Desired::merge).unwrap();
    world.replicator.quiet().await;
    // One more look of each at what has come together.
    for store in &world.stores {
        let regions: Vec<RegionId> =
            store.regions().await.unwrap().into_iter().map(|region| region.id).collect();
        assert_eq!(regions, ["eu-west-1".into(), "us-east-1".into()]);
        assert_eq!(
            store.desired(&REGIONS[0].into(), &CONTESTED.into()).await.unwrap().as_ref(),
            Some(&wanted)
        );
        for name in REGIONS {
            let standings = store.instances(&name.into()).await.unwrap();
            let last: Vec<_> = standings
                .iter()
                .map(|s| (s.registration.generation, s.report.as_ref().unwrap().sequence))
                .collect();
            assert_eq!(last, [(2, REPORTS); AGENTS as usize], "{name}");
        }
    }
    go_on.store(false, Ordering::SeqCst);
    for watch in watches {
        let looks = watch.await.unwrap();
        assert!(looks > 1, "{looks} looks");
    }
    let [us, eu] = &world.engines;
    assert_eq!(scan(&us.client(), &replicated()).await, scan(&eu.client(), &replicated()).await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_left_is_gone_in_both_regions() {
    let mut world = World::start().await;
    let store = world.stores[0].clone();
    live(store.clone(), REGIONS[0], CONTESTED.to_owned(), world.random.fork()).await;
    store.deregister(&CONTESTED.into(), &REGIONS[0].into(), 2).await.unwrap();
    world.replicator.quiet().await;
    for store in &world.stores {
        assert_eq!(store.instances(&REGIONS[0].into()).await.unwrap(), []);
    }
    // What was under way when it left comes too late, wherever it is written.
    for store in &world.stores {
        let late = report(CONTESTED, 2, REPORTS + 1);
        store.report(&late).await.unwrap_err();
    }
    world.stop().await;
}

/// Takes what nobody holds, as by a condition; whether it did.
async fn take(engine: &Engine, table: &str, holder: &str) -> bool {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = engine.client().put_item().table_name(table).item("pk", text("LEASES"));
    let put = put.item("sk", text("leader")).item("holder", text(holder));
    let sent = put.condition_expression("attribute_not_exists(pk)").send().await;
    match sent.map_err(|error| error.into_service_error()) {
        Ok(_) => true,
        Err(error) if error.is_conditional_check_failed_exception() => false,
        Err(error) => panic!("{error}"),
    }
}

async fn holders(engine: &Engine, table: &str) -> Vec<Item> {
    let all = scan(&engine.client(), &[table.to_owned()]).await;
    all.into_iter().filter(|((_, pk, _), _)| pk == "LEASES").map(|(_, item)| item).collect()
}

/// Why leases are kept where nothing is replicated behind the writer's back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_in_a_replicated_table_would_have_two_holders() {
    let world = World::start().await;
    let [us, eu] = &world.engines;
    let replicated_table = table("regions");
    let taken = tokio::join!(take(us, &replicated_table, "us"), take(eu, &replicated_table, "eu"));
    assert_eq!(taken, (true, true), "each region judged by its own copy");
    world.replicator.quiet().await;
    let left = holders(us, &replicated_table).await;
    assert_eq!(left, holders(eu, &replicated_table).await);
    assert_eq!(left.len(), 1, "and one of them was overwritten without hearing of it");

    // The program's own: through one endpoint, in `control`, and nowhere else.
    let leases = world.stores[0].keep_lease("leader", "us", Duration::from_secs(5));
    let held = async {
        while leases.epoch().is_none() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(Duration::from_secs(30), held).await.expect("nobody else contends");
    world.replicator.quiet().await;
    assert_eq!(holders(us, &table("control")).await.len(), 1);
    assert_eq!(holders(eu, &table("control")).await.len(), 0, "it is not carried over");
    assert_eq!(holders(us, &replicated_table).await, left);
    leases.release().await.unwrap();
    world.stop().await;
}
