//! Three regions of real processes under steady traffic, one of which is lost and comes back.

use std::{ops::Range, time::Duration};

use anyhow::{Context, Result, ensure};
use mrgc_fleet::failover::{RegionState, RegionStatus};
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
/// Enough for all that waits at a region that hangs until its router has noticed.
const CONNECTIONS: usize = 400;

const INSTANCES: usize = 2;
/// The instances that are left can serve all connections at once, so that nothing is shed.
const SLOTS: u32 = 128;

/// For how long evidence has to be good before a region's traffic begins to come back.
pub const HOLD: Duration = Duration::from_secs(1);
/// For how long each step of its return lasts.
pub const STEP: Duration = Duration::from_secs(1);

/// Every router spreads its requests over all regions, in turn. What takes half a minute and more by default
/// is short, so that a region's return can be watched. What makes a failover fast is as it is by default.
fn router_config() -> String {
    format!(
        r#"
[health_check]
interval_seconds = 0.5
timeout_seconds = 0.4
stale_after_seconds = 15.0

[ejection]
base_seconds = 0.5
slow_start_seconds = 1.0

[failover]
hold_seconds = {hold:?}
step_seconds = {step:?}
evaluation_seconds = 1.0

[[routes]]
name = "any"
policies = [{{ name = "round-robin", level = "region" }}]
"#,
        hold = HOLD.as_secs_f64(),
        step = STEP.as_secs_f64(),
    )
}
/// A busy machine takes a thread away for longer than a policy's usual deadlines.
const PATIENT_POLICIES: [(&str, &str); 2] = [
    ("MRGC_ROUTER__POLICIES__SCORE_DEADLINE_MS", "100"),
    ("MRGC_ROUTER__POLICIES__OBSERVE_DEADLINE_MS", "1000"),
];

/// How processes are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// SIGKILL: connections are reset, new ones refused.
    Killed,
    /// SIGSTOP: connections are made, and nothing ever comes.
    Stopped,
}

impl Loss {
    fn signal(self) -> &'static str {
        match self {
            Self::Killed => "KILL",
            Self::Stopped => "STOP",
        }
    }
}

/// When a region was lost, each from before the first signal to after the last.
#[derive(Clone, Debug)]
pub struct Lost {
    pub instances: Range<Instant>,
    pub routers: Range<Instant>,
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
                let is_normal =
                    |seen: &RegionStatus| seen.share == 1.0 && seen.state == RegionState::Normal;
                self.sees(router, site.spec.id, is_normal).await?;
            }
        }
        Ok(())
    }

    /// What a router says of a region.
    pub async fn seen(&self, router: &Router, region: &str) -> Result<RegionStatus> {
        #[derive(Deserialize)]
        struct Failover {
            regions: Vec<RegionStatus>,
        }
        let url = router.control_url("/failover");
        let answer = self.cluster.client.get(url).send().await?.error_for_status()?;
        let all: Failover = answer.json().await?;
        let seen = all.regions.into_iter().find(|seen| seen.region.as_str() == region);
        seen.with_context(|| format!("{} knows nothing of {region}", router.region))
    }

    /// Waits until a router says what is wanted of a region.
    pub async fn sees(
        &self,
        router: &Router,
        region: &str,
        wanted: impl Fn(&RegionStatus) -> bool,
    ) -> Result<RegionStatus> {
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
    /// after it. One may have whose response had begun when its instance went: its head, whenever the client
    /// got it, came from there. And so may one that entered by a router which went.
    pub fn failed<'a>(
        &self,
        records: &'a [Record],
        lost: &Lost,
        well_at: Instant,
    ) -> Vec<&'a Record> {
        let may_fail = |r: &Record| {
            let began_there = r.region.as_deref() == Some(self.lost.spec.id);
            let entered_there = !self.entered_by_survivor(r);
            (began_there && r.sent <= lost.instances.end)
                || (entered_there && r.ended > lost.routers.start && r.sent <= well_at)
        };
        records.iter().filter(|r| !r.is_ok() && !may_fail(r)).collect()
    }

    /// Loses a region, all of it at once.
    pub async fn lose(&mut self, loss: Loss, traffic: &Traffic) -> Result<Lost> {
        self.leave(loss, traffic);
        let at = self.lost.lose(loss).await?;
        Ok(Lost { instances: at.clone(), routers: at })
    }

    /// Loses the routers of a region that has lost its instances.
    pub async fn lose_routers(&mut self, loss: Loss, traffic: &Traffic) -> Result<Range<Instant>> {
        self.leave(loss, traffic);
        take_down(loss, of_routers(&mut self.lost.routers)).await
    }

    /// Clients turn to other routers: at once where theirs is silent, and otherwise when it drops them.
    fn leave(&self, loss: Loss, traffic: &Traffic) {
        if loss == Loss::Stopped {
            (0..self.lost.routers.len()).for_each(|router| traffic.load.close(router));
        }
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
        let config = router_config();
        let mut started = vec![cluster.router_with(spec, &config, &environment).await?];
        while started.len() < routers {
            started.push(cluster.further_router(spec, &config, &environment).await?);
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
        let Self { instances, routers, .. } = self;
        take_down(loss, of_instances(instances).chain(of_routers(routers))).await
    }

    /// Loses its agents and model servers.
    pub async fn lose_instances(&mut self, loss: Loss) -> Result<Range<Instant>> {
        take_down(loss, of_instances(&mut self.instances)).await
    }
}

fn of_instances(instances: &mut [Instance]) -> impl Iterator<Item = &mut Program> {
    instances.iter_mut().flat_map(|i| [&mut i.agent, &mut i.server])
}

fn of_routers(routers: &mut [Router]) -> impl Iterator<Item = &mut Program> {
    routers.iter_mut().map(|router| &mut router.program)
}

/// From before the first signal to after the last.
async fn take_down<'a>(
    loss: Loss,
    programs: impl Iterator<Item = &'a mut Program>,
) -> Result<Range<Instant>> {
    let programs: Vec<_> = programs.collect();
    let began = Instant::now();
    signal(loss.signal(), programs.iter().map(|program| &**program)).await?;
    let ended = Instant::now();
    if loss == Loss::Killed {
        for program in programs {
            program.ended().await?;
        }
    }
    Ok(began..ended)
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
