//! Three regions of real processes under steady traffic, one of which is lost and comes back.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    cluster::{
        Cluster, FRANKFURT, IRELAND, Instance, InstanceSpec, PATIENCE, Program, RegionSpec, Router,
        VIRGINIA, eventually, signal,
    },
    load::{Journal, Load, LoadConfig, Pace, Record},
    policies::stock_component,
};

pub const MODEL: &str = "llama";
pub const REQUESTS_PER_SECOND: f64 = 200.0;
const CONNECTIONS: usize = 160;

const INSTANCES: usize = 2;
/// Two of the lost one's instances, and as many for what they take over.
const SLOTS: u32 = 32;

/// Every router spreads its requests over all regions, in turn. What takes half a minute and more by default
/// is short, so that a region's return can be watched. What makes a failover fast is as it is by default.
const ROUTER: &str = r#"
[health_check]
interval_seconds = 0.5
timeout_seconds = 0.4
stale_after_seconds = 6.0

[ejection]
base_seconds = 0.5
slow_start_seconds = 1.0

[failover]
hold_seconds = 1.0
step_seconds = 1.0
evaluation_seconds = 1.0

[[routes]]
name = "any"
policies = [{ name = "round-robin", level = "region" }]
"#;
/// A busy machine takes a thread away for longer than a policy's usual deadlines.
const PATIENT_POLICIES: [(&str, &str); 2] = [
    ("MRGC_ROUTER__POLICIES__SCORE_DEADLINE_MS", "100"),
    ("MRGC_ROUTER__POLICIES__OBSERVE_DEADLINE_MS", "1000"),
];

/// How a region is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// SIGKILL: connections are reset, new ones refused.
    Killed,
    /// SIGSTOP: connections are made, and nothing ever comes.
    Stopped,
}

/// The fleet. Virginia is the region to be lost: it has one router, Ireland two, Frankfurt one.
#[derive(Debug)]
pub struct Regions {
    pub cluster: Cluster,
    pub lost: Site,
    pub others: [Site; 2],
}

/// All processes of a region.
#[derive(Debug)]
pub struct Site {
    pub spec: RegionSpec,
    pub routers: Vec<Router>,
    pub instances: Vec<Instance>,
}

/// What a router says of a region's failover.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Seen {
    pub region: String,
    pub state: String,
    /// Of the region's own traffic, what stays.
    pub share: f64,
}

/// A load on all routers, and what came of it.
#[derive(Debug)]
pub struct Traffic {
    pub load: Load,
    pub journal: Journal,
}

impl Regions {
    /// Starts it, and waits until every router would send requests to every instance.
    pub async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let (lost, ireland, frankfurt) = tokio::try_join!(
            Site::start(&cluster, VIRGINIA, 1),
            Site::start(&cluster, IRELAND, 2),
            Site::start(&cluster, FRANKFURT, 1),
        )?;
        let regions = Self { cluster, lost, others: [ireland, frankfurt] };
        regions.are_well().await?;
        Ok(regions)
    }

    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        std::iter::once(&self.lost).chain(&self.others)
    }

    /// Those that are left when the region is lost.
    pub fn survivors(&self) -> impl Iterator<Item = &Router> {
        self.others.iter().flat_map(|site| &site.routers)
    }

    /// Waits until every router takes every instance for ready, and every region for NORMAL.
    pub async fn are_well(&self) -> Result<()> {
        for router in self.sites().flat_map(|site| &site.routers) {
            for site in self.sites() {
                router.sees_ready_in(&self.cluster.client, site.spec.id, INSTANCES).await?;
                self.sees(router, site.spec.id, |seen| seen.share == 1.0 && seen.state == "normal")
                    .await?;
            }
        }
        Ok(())
    }

    /// What a router says of a region.
    pub async fn seen(&self, router: &Router, region: &str) -> Result<Seen> {
        #[derive(Deserialize)]
        struct Failover {
            regions: Vec<Seen>,
        }
        let url = router.control_url("/failover");
        let answer = self.cluster.client.get(url).send().await?.error_for_status()?;
        let all: Failover = answer.json().await?;
        let seen = all.regions.into_iter().find(|seen| seen.region == region);
        seen.with_context(|| format!("{} knows nothing of {region}", router.region))
    }

    /// Waits until a router says what is wanted of a region.
    pub async fn sees(
        &self,
        router: &Router,
        region: &str,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        let what = format!("what {} says of {region}", router.region);
        eventually(&what, PATIENCE, || async {
            let seen = self.seen(router, region).await?;
            ensure!(wanted(&seen), "{seen:?}");
            Ok(Some(seen))
        })
        .await
    }

    /// Waits until every survivor has moved all of the lost region's traffic.
    pub async fn failed_over(&self) -> Result<()> {
        for router in self.survivors() {
            self.sees(router, self.lost.spec.id, |seen| seen.share == 0.0).await?;
        }
        Ok(())
    }

    /// Starts a steady load, half of it streams, that enters by all routers in turn. The lost region's is the
    /// first target.
    pub fn traffic(&self) -> Result<Traffic> {
        let journal = Journal::default();
        let routers = self.sites().flat_map(|site| &site.routers);
        let load = Load::start(LoadConfig {
            targets: routers.map(|router| router.data_url("/v1/chat/completions")).collect(),
            pace: Pace::PerSecond(REQUESTS_PER_SECOND),
            connections: CONNECTIONS,
            streaming_share: 0.5,
            model: MODEL.to_owned(),
            retries: true,
            journal: Some(journal.clone()),
            ..LoadConfig::default()
        })?;
        Ok(Traffic { load, journal })
    }

    /// Whether a client's exchange entered by a router that the loss leaves.
    pub fn entered_by_survivor(&self, record: &Record) -> bool {
        record.target >= self.lost.routers.len()
    }

    /// Exchanges that failed though they must not have, of a region that went meanwhile and was well again
    /// after it. One that entered by a survivor may have only where its response had begun before: its head,
    /// whenever the client got it, came from there.
    pub fn failed<'a>(
        &self,
        records: &'a [Record],
        lost: &Range<Instant>,
        well_at: Instant,
    ) -> Vec<&'a Record> {
        let may_fail = |r: &Record| {
            let began_there = r.region.as_deref() == Some(self.lost.spec.id);
            match self.entered_by_survivor(r) {
                true => began_there && r.sent <= lost.end,
                false => r.ended > lost.start && r.sent <= well_at,
            }
        };
        records.iter().filter(|r| !r.is_ok() && !may_fail(r)).collect()
    }

    /// Loses a region: from before the first signal to after the last. Clients turn to other routers: at once
    /// where theirs is silent, and otherwise when it drops them.
    pub async fn lose(&mut self, loss: Loss, traffic: &Traffic) -> Result<Range<Instant>> {
        if loss == Loss::Stopped {
            (0..self.lost.routers.len()).for_each(|router| traffic.load.close(router));
        }
        self.lost.lose(loss).await
    }

    /// Brings back what was lost.
    pub async fn bring_back(&mut self, loss: Loss, traffic: &Traffic) -> Result<()> {
        let Self { cluster, lost, .. } = self;
        if loss == Loss::Stopped {
            signal("CONT", lost.programs()).await?;
            (0..lost.routers.len()).for_each(|router| traffic.load.open(router));
            return Ok(());
        }
        for router in &mut lost.routers {
            router.restart().await?;
        }
        lost.instances = start_instances(cluster, lost.spec).await?;
        Ok(())
    }
}

impl Site {
    async fn start(cluster: &Cluster, spec: RegionSpec, routers: usize) -> Result<Self> {
        // Alone, for a router compiles all that it finds when it starts.
        let folder = cluster.dir.path().join("policies");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("round-robin.wasm"), stock_component("round-robin")?)?;
        let folder = folder.display().to_string();
        let [score, observe] = PATIENT_POLICIES;
        let environment = [score, observe, ("MRGC_ROUTER__POLICIES__DIR", &folder)];
        let mut started = vec![cluster.router_with(spec, ROUTER, &environment).await?];
        while started.len() < routers {
            started.push(cluster.further_router(spec, ROUTER, &environment).await?);
        }
        let instances = start_instances(cluster, spec).await?;
        Ok(Self { spec, routers: started, instances })
    }

    /// Instances first, and then what knows of them.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        let of_instances = self.instances.iter().flat_map(|i| [&i.agent, &i.server]);
        of_instances.chain(self.routers.iter().map(|router| &router.program))
    }

    /// Loses all of its processes: from before the first signal to after the last.
    pub async fn lose(&mut self, loss: Loss) -> Result<Range<Instant>> {
        let began = Instant::now();
        signal(if loss == Loss::Killed { "KILL" } else { "STOP" }, self.programs()).await?;
        let ended = Instant::now();
        if loss == Loss::Killed {
            for instance in &mut self.instances {
                instance.agent.ended().await?;
                instance.server.ended().await?;
            }
            for router in &mut self.routers {
                router.program.ended().await?;
            }
        }
        Ok(began..ended)
    }
}

async fn start_instances(cluster: &Cluster, region: RegionSpec) -> Result<Vec<Instance>> {
    let mut instances = Vec::new();
    for n in 1..=INSTANCES {
        let spec = InstanceSpec {
            model: MODEL.to_owned(),
            slots: SLOTS,
            ..InstanceSpec::new(&format!("{}-{n}", region.id), region.id)
        };
        instances.push(cluster.instance(&spec).await?);
    }
    Ok(instances)
}
