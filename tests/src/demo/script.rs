//! What happens when: policies are swapped under the traffic, and an instance is killed.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    Sabotage,
    control::{Control, Uploaded},
    screen::Screen,
    stage::{self, ROUTE_POLICY, Stage},
    style::duration_ms,
    tally::Tally,
};
use crate::{
    cluster::eventually,
    policies::{stock_component, test_component},
};

/// How long a new version may take to decide in every region, and a killed instance to be out.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One act; each takes an even share of the time, or longer where what it waits for does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Traffic,
    /// Uploads the stock policy of this name as [`ROUTE_POLICY`].
    Swap(&'static str),
    /// Uploads the test policy of this name.
    SwapTest(&'static str),
    Kill,
}

pub const ACTS: usize = 7;

fn acts(sabotage: Option<Sabotage>) -> [Act; ACTS] {
    let second = match sabotage {
        Some(Sabotage::PolicyTraps) => Act::SwapTest("traps-live"),
        _ => Act::Swap("capacity"),
    };
    [
        Act::Traffic,
        Act::Swap("latency"),
        second,
        // In turn, so that the instance that is killed next is certainly tried.
        Act::Swap("round-robin"),
        Act::Kill,
        Act::Swap("capacity"),
        Act::Swap("score"),
    ]
}

/// A version that was uploaded, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Swap {
    /// The component that was uploaded.
    pub policy: String,
    pub generation: u64,
    /// Compiling, validating and trying it.
    pub prepared_ms: f64,
    /// Until every data thread of that router had it.
    pub swapped_ms: f64,
    /// Where it was uploaded; other regions learn of it from the store.
    pub uploaded_to: String,
    /// From the swap there to the first answer that the new version decided, by region; `None` where
    /// none came.
    pub first_decision_ms: BTreeMap<String, Option<f64>>,
    /// Score calls that the version answered, over all routers.
    pub decisions: u64,
    /// Score calls that it did not.
    pub faults: u64,
}

impl Swap {
    /// Where it was uploaded.
    pub fn first_decision_here_ms(&self) -> Option<f64> {
        self.first_decision_ms.get(&self.uploaded_to).copied().flatten()
    }

    /// Where it was not: the last of those regions.
    pub fn elsewhere_ms(&self) -> Option<f64> {
        let others =
            self.first_decision_ms.iter().filter(|(region, _)| **region != self.uploaded_to);
        let all: Option<Vec<f64>> = others.map(|(_, ms)| *ms).collect();
        all?.into_iter().max_by(f64::total_cmp)
    }
}

/// What came of the kill.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Kill {
    /// From the kill until its router sent it no more requests; `None`: never.
    pub avoided_after_ms: Option<f64>,
    /// From the kill until the fleet's state had it out; `None`: never.
    pub out_after_ms: Option<f64>,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Story {
    pub swaps: Vec<Swap>,
    pub kill: Kill,
}

/// Who makes it happen.
#[derive(Debug)]
pub struct Script<'a> {
    pub stage: &'a mut Stage,
    pub controls: Vec<Control>,
    pub tally: Arc<Tally>,
    pub screen: Arc<Screen>,
    pub act_length: Duration,
    pub began: Instant,
}

impl Script<'_> {
    /// Plays all acts.
    pub async fn play(&mut self, sabotage: Option<Sabotage>) -> Result<Story> {
        let mut story = Story::default();
        for act in acts(sabotage) {
            let end = Instant::now() + self.act_length;
            match act {
                Act::Traffic => self.event("traffic flows to both routers, half of it streaming"),
                Act::Swap(name) => {
                    let component = stock_component(name)?;
                    story.swaps.push(self.swap(name, component, story.swaps.len()).await?);
                }
                Act::SwapTest(name) => {
                    let component = test_component(name)?;
                    story.swaps.push(self.swap(name, component, story.swaps.len()).await?);
                }
                Act::Kill => story.kill = self.kill(stage::VICTIM).await?,
            }
            sleep(end.saturating_duration_since(Instant::now())).await;
            if let (Act::Swap(_) | Act::SwapTest(_), Some(swap)) = (act, story.swaps.last_mut()) {
                self.count(swap).await?;
            }
        }
        Ok(story)
    }

    fn event(&self, what: &str) {
        self.screen.event(self.began.elapsed(), what);
    }

    /// Uploads to one router, the next time to the other; the rest of the fleet learns of it by itself.
    async fn swap(&self, policy: &str, component: Vec<u8>, number: usize) -> Result<Swap> {
        let control = &self.controls[number % self.controls.len()];
        let style = self.screen.style;
        let uploaded = control.upload(ROUTE_POLICY, component).await?;
        let Uploaded { generation, version, prepared_ms, swapped_ms } = uploaded;
        let swapped_at = Instant::now() - Duration::from_secs_f64(swapped_ms / 1000.0);
        self.tally.counts().name_version(generation, policy);
        let label = format!("{ROUTE_POLICY}@{generation}");
        self.event(&format!(
            "{} is {} {version}: uploaded to {}, tried in {}, swapped in {}",
            style.bold(&label),
            style.bold(policy),
            control.region,
            duration_ms(prepared_ms),
            duration_ms(swapped_ms),
        ));
        let swap = Swap {
            policy: policy.to_owned(),
            generation,
            uploaded_to: control.region.clone(),
            prepared_ms,
            swapped_ms,
            first_decision_ms: self.first_decisions(generation, swapped_at).await,
            decisions: 0,
            faults: 0,
        };
        let told = |ms: Option<f64>| {
            ms.map_or_else(|| style.red("never"), |ms| format!("after {}", duration_ms(ms)))
        };
        let (here, elsewhere) = (told(swap.first_decision_here_ms()), told(swap.elsewhere_ms()));
        self.event(&format!("{label} decides: here {here}, in the other region {elsewhere}"));
        Ok(swap)
    }

    /// Waits until every region has answered by a decision of this generation.
    async fn first_decisions(
        &self,
        generation: u64,
        since: Instant,
    ) -> BTreeMap<String, Option<f64>> {
        let look = || -> BTreeMap<String, Option<f64>> {
            let counts = self.tally.counts();
            let first = |region: &str| {
                let at = counts.first_decision(region, generation)?;
                Some(millis(at.saturating_duration_since(since)))
            };
            self.controls.iter().map(|c| (c.region.clone(), first(&c.region))).collect()
        };
        loop {
            let seen = look();
            if seen.values().all(Option::is_some) || since.elapsed() > PATIENCE {
                return seen;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Adds up what all routers counted of the version, as long as it is the active one.
    async fn count(&self, swap: &mut Swap) -> Result<()> {
        for control in &self.controls {
            let status = control.policy(ROUTE_POLICY).await?;
            if status.generation == swap.generation {
                swap.decisions += status.decisions;
                swap.faults += status.faults;
            }
        }
        if swap.faults > 0 {
            let label = format!("{ROUTE_POLICY}@{} {}", swap.generation, swap.policy);
            let faults = self.screen.style.red(&format!("{} faults", swap.faults));
            self.event(&format!("{label}: {faults}, the native score answered in its place"));
        }
        Ok(())
    }

    /// Kills the instance, and waits until its router takes it for gone.
    async fn kill(&mut self, id: &str) -> Result<Kill> {
        let region = stage::CAST.iter().find(|part| part.id == id).map(|part| part.region);
        let home = self.controls.iter().find(|control| Some(control.region.as_str()) == region);
        let home = home.with_context(|| format!("no router of {id}"))?.clone();
        self.tally.counts().kills(id);
        let killed = Instant::now();
        self.stage.kill(id).await?;
        self.event(&format!("killed {} and its agent, with SIGKILL", self.screen.style.bold(id)));
        let home = &home;
        let since = |wanted: fn(bool, Option<bool>) -> bool| async move {
            let seen = eventually("the killed instance is out", PATIENCE, || async {
                let seen = home.instance(id).await?;
                Ok(seen.is_none_or(|seen| wanted(seen.ready, seen.ejected)).then_some(()))
            });
            seen.await.ok().map(|()| millis(killed.elapsed()))
        };
        let (avoided_after_ms, out_after_ms) = tokio::join!(
            since(|ready, ejected| !ready || ejected == Some(true)),
            since(|ready, _| !ready)
        );
        let told = |ms: Option<f64>| {
            ms.map_or("never".to_owned(), |ms| format!("after {}", duration_ms(ms)))
        };
        let (avoided, out) = (told(avoided_after_ms), told(out_after_ms));
        self.event(&format!("{id}: no more requests {avoided}, out of the fleet's state {out}"));
        Ok(Kill { avoided_after_ms, out_after_ms })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
