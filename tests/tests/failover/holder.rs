//! One of a region's two routers holds its leases. It is killed, or held up for longer than a lease lasts:
//! the other takes over, and nobody notices.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use mrgc_fleet::{
    failover::RegionRecord,
    model::{Lease, Stamp, Timestamp},
};
use mrgc_store::{Store, StoreConfig, StoreError};
use mrgc_tests::{
    cluster::{
        Cluster, FRANKFURT, IRELAND, Instance, InstanceSpec, PATIENCE, RegionSpec, Router,
        eventually,
    },
    load::{Load, LoadConfig, Pace},
    regions::MODEL,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::{alone, logs};

const LEASE: Duration = Duration::from_secs(3);
const INSTANCES: usize = 2;
/// After the paused one goes on: longer than it takes to write every record again.
const AFTERWARDS: Duration = Duration::from_secs(7);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const AUDITED: usize = 100;

/// Evidence is patient, for no region fails here: a busy machine takes a thread away for seconds.
fn config() -> String {
    format!(
        "[health_check]\n\
         stale_after_seconds = 20.0\nping_interval_seconds = 0.5\nping_misses = 8\n\
         [failover]\n\
         hold_seconds = 1.0\nstep_seconds = 1.0\nevaluation_seconds = 1.0\nlease_seconds = {}\n\
         failover_timeout_seconds = 5.0\n\
         [[routes]]\nname = \"any\"\n",
        LEASE.as_secs_f64()
    )
}

/// Ireland has two routers, of which one holds both leases; Frankfurt watches it.
struct Fleet {
    cluster: Cluster,
    store: Store,
    holder: Router,
    holder_name: String,
    /// The one that Frankfurt's router pings, as a load balancer would have it do.
    survivor: Router,
    survivor_name: String,
    frankfurt: Router,
    _instances: Vec<Instance>,
}

/// Ireland's leases, by name.
type Leases = BTreeMap<String, Lease>;

impl Fleet {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let endpoint = Some(cluster.store_endpoint()?);
        let store = Store::connect(&StoreConfig { endpoint, ..StoreConfig::default() }).await?;
        // A folder without any, which a router would compile when it starts.
        let policies = cluster.dir.path().display().to_string();
        let environment = [("MRGC_ROUTER__POLICIES__DIR", policies.as_str())];

        let holder = cluster.further_router(IRELAND, &config(), &environment).await?;
        let holder_name = name(&cluster, &holder).await?;
        held_by(&store, &holder_name).await?;
        let survivor = cluster.router_with(IRELAND, &config(), &environment).await?;
        let survivor_name = name(&cluster, &survivor).await?;
        let frankfurt = cluster.router_with(FRANKFURT, &config(), &environment).await?;
        let mut instances = Vec::new();
        for region in [IRELAND, FRANKFURT] {
            for n in 1..=INSTANCES {
                let id = format!("{}-{n}", region.id);
                let spec = InstanceSpec { slots: 32, ..InstanceSpec::new(&id, region.id) };
                instances.push(cluster.instance(&spec).await?);
            }
        }
        let fleet = Self {
            cluster,
            store,
            holder,
            holder_name,
            survivor,
            survivor_name,
            frankfurt,
            _instances: instances,
        };
        for router in [&fleet.holder, &fleet.survivor, &fleet.frankfurt] {
            for RegionSpec { id, .. } in [IRELAND, FRANKFURT] {
                router.sees_ready_in(&fleet.cluster.client, id, INSTANCES).await?;
            }
            eventually("all is normal", PATIENCE, || async {
                fleet.is_normal(router).await.map(Some)
            })
            .await?;
        }
        Ok(fleet)
    }

    /// What clients send that know the survivor alone, and never try again.
    fn load(&self) -> Result<Load> {
        Load::start(LoadConfig {
            targets: vec![self.survivor.data_url("/v1/chat/completions")],
            pace: Pace::PerSecond(100.0),
            connections: 32,
            streaming_share: 0.5,
            model: MODEL.to_owned(),
            ..LoadConfig::default()
        })
    }

    /// Whether a router has both regions keep all their traffic.
    async fn is_normal(&self, router: &Router) -> Result<()> {
        let told = router.get(&self.cluster.client, "/failover").await?;
        let regions = told["regions"].as_array().context("no list")?;
        ensure!(regions.len() == 2, "{told}");
        for region in regions {
            ensure!(region["state"] == "normal" && region["share"] == 1.0, "{told}");
        }
        Ok(())
    }

    async fn records(&self) -> Result<Vec<RegionRecord>> {
        Ok(self.store.region_records(&IRELAND.id.into()).await?)
    }

    /// Waits until the survivor has done all that a holder does first, while all stays normal.
    async fn taken_over(&self, before: &Leases) -> Result<Leases> {
        let limit = Instant::now() + PATIENCE;
        let after = loop {
            self.is_normal(&self.survivor).await?;
            self.is_normal(&self.frankfurt).await?;
            let leases = leases(&self.store).await?;
            if leases.values().all(|lease| is_held_by(lease, &self.survivor_name)) {
                break leases;
            }
            ensure!(Instant::now() < limit, "nobody takes over: {leases:?}");
            sleep(LOOK_INTERVAL).await;
        };
        for (name, lease) in &after {
            let (from, to) = (before[name].stamp.epoch, lease.stamp.epoch);
            ensure!(to == from + 1, "{name}: from epoch {from} to {to}");
        }
        eventually("the records are the survivor's", PATIENCE, || async {
            let records = self.records().await?;
            ensure!(records.len() == 2, "{records:?}");
            ensure!(records.iter().all(|r| self.is_of(r, &after)), "{records:?}");
            Ok(Some(()))
        })
        .await?;
        let told = self.survivor.get(&self.cluster.client, "/failover").await?;
        ensure!(told["lease_holder"] == *self.survivor_name, "{told}");
        Ok(after)
    }

    /// Whether the survivor wrote it under its lease.
    fn is_of(&self, record: &RegionRecord, leases: &Leases) -> bool {
        record.by == self.survivor_name
            && record.stamp.epoch == leases[&lease_name("failover")].stamp.epoch
    }

    /// No router has ever moved a region's traffic, or done anything to an instance.
    async fn nothing_happened(&self, routers: &[&Router]) -> Result<()> {
        for router in routers {
            let history = router.get(&self.cluster.client, "/failover/history").await?;
            ensure!(history["events"].as_array().is_some_and(Vec::is_empty), "{history}");
        }
        let all = self.store.audit_trail(Timestamp(0), Timestamp(u64::MAX), AUDITED).await?;
        let by_routers: Vec<_> =
            all.iter().filter(|record| record.operator.starts_with("router ")).collect();
        ensure!(by_routers.is_empty(), "{by_routers:?}");
        Ok(())
    }
}

async fn name(cluster: &Cluster, router: &Router) -> Result<String> {
    let told = router.get(&cluster.client, "/failover").await?;
    let name = told["router"].as_str().map(str::to_owned);
    name.with_context(|| format!("no name: {told}"))
}

fn lease_name(service: &str) -> String {
    format!("{service}/{}", IRELAND.id)
}

async fn leases(store: &Store) -> Result<Leases> {
    let ours = ["health", "failover"].map(lease_name);
    let all = store.leases().await?.into_iter().filter(|lease| ours.contains(&lease.name));
    Ok(all.map(|lease| (lease.name.clone(), lease)).collect())
}

/// What a lease says of its holder is the router's name and one run of it.
fn is_held_by(lease: &Lease, router: &str) -> bool {
    lease.holder.as_deref().and_then(|holder| holder.split('#').next()) == Some(router)
}

async fn held_by(store: &Store, router: &str) -> Result<()> {
    eventually("the first router holds both leases", PATIENCE, || async {
        let leases = leases(store).await?;
        let is_held = leases.len() == 2 && leases.values().all(|lease| is_held_by(lease, router));
        Ok(is_held.then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_killed_is_succeeded_and_nobody_notices() -> Result<()> {
    let _alone = alone().await;
    let mut fleet = Fleet::start().await?;
    held_by(&fleet.store, &fleet.holder_name).await?;
    let (before, load) = (leases(&fleet.store).await?, fleet.load()?);
    fleet.holder.program.kill().await?;
    let killed_at = Instant::now();
    let taken_over = fleet.taken_over(&before).await;
    taken_over.with_context(|| logs([&fleet.survivor, &fleet.frankfurt]))?;
    ensure!(killed_at.elapsed() >= LEASE / 2, "before its lease was over");

    let stats = load.stop().await;
    ensure!(stats.failed() + stats.shed == 0 && stats.ok > 0, "{stats}");
    fleet.nothing_happened(&[&fleet.survivor, &fleet.frankfurt]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_held_up_writes_nothing_more_and_nothing_flaps() -> Result<()> {
    let _alone = alone().await;
    let fleet = Fleet::start().await?;
    let routers = [&fleet.holder, &fleet.survivor, &fleet.frankfurt];
    held_by(&fleet.store, &fleet.holder_name).await?;
    let (before, load) = (leases(&fleet.store).await?, fleet.load()?);
    let last_words = eventually("it has written its records", PATIENCE, || async {
        let records = fleet.records().await?;
        Ok((records.len() == 2).then_some(records))
    })
    .await?;
    fleet.holder.program.signal("STOP").await?;
    let taken_over = fleet.taken_over(&before).await;
    let after = taken_over.with_context(|| logs([&fleet.survivor, &fleet.frankfurt]))?;
    fleet.holder.program.signal("CONT").await?;
    stays_as_it_is(&fleet, &after).await.with_context(|| logs(routers))?;

    // What it may have had to say when it was stopped, and says again.
    for record in last_words {
        ensure!(record.by == fleet.holder_name, "{record:?}");
        let stamp = Stamp { sequence: u64::MAX, ..record.stamp };
        let late = RegionRecord { share: 0.0, stamp, ..record };
        let written = fleet.store.put_region_record(&late).await;
        ensure!(matches!(written, Err(StoreError::Superseded { .. })), "{written:?}");
    }
    let stats = load.stop().await;
    ensure!(stats.failed() + stats.shed == 0 && stats.ok > 0, "{stats}");
    fleet.nothing_happened(&routers).await
}

/// The paused one goes on: it sees the same fleet as the others, and who holds the lease by now.
async fn stays_as_it_is(fleet: &Fleet, after: &Leases) -> Result<()> {
    let end = Instant::now() + AFTERWARDS;
    let mut last: Option<Value> = None;
    while Instant::now() < end {
        for router in [&fleet.holder, &fleet.survivor, &fleet.frankfurt] {
            fleet.is_normal(router).await?;
        }
        for (name, lease) in leases(&fleet.store).await? {
            let is_same = lease.stamp.epoch == after[&name].stamp.epoch;
            ensure!(is_same && is_held_by(&lease, &fleet.survivor_name), "{lease:?}");
        }
        let records = fleet.records().await?;
        ensure!(records.iter().all(|record| fleet.is_of(record, after)), "{records:?}");
        last = Some(fleet.holder.get(&fleet.cluster.client, "/failover").await?);
        sleep(LOOK_INTERVAL).await;
    }
    let last = last.context("it was never asked")?;
    let holder = last["lease_holder"].as_str().unwrap_or_default();
    ensure!(holder.starts_with(&fleet.survivor_name), "{last}");
    Ok(())
}
