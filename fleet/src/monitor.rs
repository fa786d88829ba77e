//! A router's watch over the fleet: all evidence in; one view, and the actions that follow from it, out.
//!
//! ```text
//!  store read ───► freshness ─┐                  ┌─► snapshot, with the share that stays in each region
//!  probe results ► probes ────┼─► members ─► tally
//!  pongs ────────► peers ─────┤                  └─► failover: a state for each region
//!  ejections ─────────────────┘                            │
//!  operators' orders, the lease holder's word ─────────────┤
//!                                                          ▼
//!                                   actions of a lease's holder: drain, replace, scale, record
//! ```
//!
//! The router's shell and the simulator feed the same machine, so what is simulated is what runs. Every
//! router judges for itself, at once and by what it sees; a lease decides only who writes.

mod actions;
mod issued;
mod out;
mod reading;
mod scale;
mod signs;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    failover::{Evidence, FailoverEvent, Handler, MAX_EVENTS, Output, RegionOrder, Thresholds},
    health::{Freshness, PeerConfig, Peers, ProbeConfig, ProbeResult, Probes, Verdict},
    model::{InstanceId, Lifecycle, Region, RegionId, Standing, Timestamp},
    snapshot::{Builder, Member, Seen, Snapshot},
};

pub use actions::{Action, Epochs, Gone};
use issued::Issued;
pub use issued::{SHOWN_WITHIN_MS, is_drained};
pub use reading::Reading;
use reading::{Heard, MISSING_AFTER_MS, merged};
use scale::Scaler;
pub use scale::Scaling;
use signs::{Look, Signs};
use tally::{Tallies, Tally};

/// Shells turn at least this often. Where more time passes between two turns, this process was held up, as
/// one is that is stopped or whose machine is suspended; and what nobody saw is no evidence.
pub const LONGEST_TURN_MS: u64 = 2_000;

#[derive(Clone, Debug)]
pub struct Settings {
    pub home: RegionId,
    /// Who this router is, in records and wishes.
    pub router: String,
    /// An instance whose reports stop for this long is not fresh.
    pub stale_after_ms: u64,
    /// `None` where others probe home's instances.
    pub probes: Option<ProbeConfig>,
    pub peers: PeerConfig,
    pub thresholds: Thresholds,
    /// Of a pool, the share that may be drained because its probes fail.
    pub max_drained_share: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Monitor {
    settings: Settings,
    freshness: Freshness,
    probes: Probes,
    peers: Peers,
    handler: Handler,
    builder: Builder,
    issued: Issued,
    scaler: Scaler,
    regions: Vec<Region>,
    /// By the instances' ids.
    heard: Vec<Heard>,
    /// By the cloud's word, with what is wrong.
    impaired: BTreeMap<InstanceId, String>,
    /// By the cloud's word.
    gone: BTreeMap<InstanceId, Gone>,
    /// What the cloud says is not known yet.
    holds_releases: bool,
    tallies: Tallies,
    /// Instances of home that a router drains.
    drained: Vec<Arc<Standing>>,
    /// By live requests.
    ejected: BTreeSet<InstanceId>,
    /// How many of them are ready otherwise.
    ejected_ready: u32,
    /// That has risen since the regions were judged last.
    is_ejecting: bool,
    signs: Signs,
    /// Of failovers, until they are written under a lease; at [`MAX_EVENTS`] the oldest goes.
    events: VecDeque<FailoverEvent>,
    /// The epoch whose holder, this router, knows what those before it have written.
    restored: Option<u64>,
    /// When home's instances are looked through next for some to drain or to release.
    remedies_ms: u64,
    /// When it had its last turn.
    turned_ms: Option<u64>,
    /// Something that a snapshot shows has changed since the last one.
    is_changed: bool,
}

/// A probe to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeDue {
    pub id: InstanceId,
    /// `host:port` of its agent.
    pub address: String,
}

/// A ping to send to another region's router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingDue {
    pub region: RegionId,
    /// Its routers' URL.
    pub endpoint: String,
    pub number: u64,
}

impl Monitor {
    /// Nothing is known before the first read.
    pub fn new(settings: Settings, at: Timestamp) -> Self {
        Self {
            freshness: Freshness::new(settings.stale_after_ms),
            probes: Probes::new(settings.probes.unwrap_or_default()),
            peers: Peers::new(settings.peers),
            handler: Handler::new(settings.home.clone(), settings.thresholds, at),
            builder: Builder::new(settings.home.clone()),
            issued: Issued::default(),
            scaler: Scaler::default(),
            regions: Vec::new(),
            heard: Vec::new(),
            impaired: BTreeMap::new(),
            gone: BTreeMap::new(),
            holds_releases: false,
            tallies: Tallies::default(),
            drained: Vec::new(),
            ejected: BTreeSet::new(),
            ejected_ready: 0,
            is_ejecting: false,
            signs: Signs::default(),
            events: VecDeque::new(),
            restored: None,
            remedies_ms: 0,
            turned_ms: None,
            is_changed: true,
            settings,
        }
    }

    /// The store was read, as it is every `interval_ms`.
    pub fn read(&mut self, reading: Reading, interval_ms: u64, now_ms: u64) {
        self.turn(now_ms);
        let Reading { regions, standings, orders, records } = reading;
        self.freshness.look(&standings, interval_ms, now_ms);
        let hear = |standing: Arc<Standing>| {
            let (standing, is_fresh) = self.freshness.hear(standing, now_ms);
            let silent_ms = self.freshness.silent_ms(&standing.registration.id, now_ms);
            let is_silent = !is_fresh && silent_ms.is_some_and(|ms| ms >= MISSING_AFTER_MS);
            Heard { standing, is_fresh, is_silent }
        };
        self.heard = standings.into_iter().map(hear).collect();
        self.heard.sort_by(|a, b| a.id().cmp(b.id()));
        let home = &self.settings.home;
        let here = self.heard.iter().map(|heard| &heard.standing);
        let here = here.filter(|standing| standing.registration.region == *home);
        self.drained = here.filter(|standing| is_drained(standing)).cloned().collect();
        let is_probing = self.settings.probes.is_some();
        let probed = self.heard.iter().filter(|h| is_probing && is_probed(&h.standing, home));
        self.probes.keep(probed.map(Heard::id), now_ms);
        let elsewhere = regions.iter().map(|r| &r.id).filter(|id| **id != self.settings.home);
        self.peers.keep(elsewhere, now_ms);
        self.handler.keep(regions.iter().map(|region| &region.id));
        self.regions = regions;
        let is_registered = |id: &RegionId| self.regions.iter().any(|region| region.id == *id);
        self.signs.keep(is_registered);
        for order in merged(orders).filter(|order| is_registered(&order.region)) {
            self.handler.order(order, now_ms);
        }
        for record in records.into_iter().filter(|record| is_registered(&record.region)) {
            self.handler.record(record, now_ms);
        }
        self.recount();
    }

    /// An operator wants something of a region.
    pub fn order(&mut self, order: RegionOrder, now_ms: u64) {
        self.turn(now_ms);
        self.handler.order(order, now_ms);
    }

    /// Whom to probe now. The end of each is told to [`Self::probed`].
    pub fn probes_due(&mut self, now_ms: u64) -> Vec<ProbeDue> {
        let due = self.probes.due(now_ms);
        let address = |id: InstanceId| {
            let address = self.standing(&id)?.registration.health_address.clone();
            Some(ProbeDue { id, address })
        };
        due.into_iter().filter_map(address).collect()
    }

    /// A probe ended. `answered_since`: the instance answered requests since the probe before.
    pub fn probed(
        &mut self,
        id: &InstanceId,
        result: ProbeResult,
        answered_since: bool,
        now_ms: u64,
    ) -> Option<Verdict> {
        let was_unhealthy = self.probes.verdict(id).is_unhealthy();
        let verdict = self.probes.handle(id, result, answered_since, now_ms)?;
        // That one is healthy of which nothing was known changes nothing.
        if was_unhealthy || verdict.is_unhealthy() {
            self.recount();
        }
        Some(verdict)
    }

    /// Home's instances, as they were read last.
    pub fn home_instances(&self) -> impl Iterator<Item = &InstanceId> + Clone {
        let registrations = self.heard.iter().map(|heard| &heard.standing.registration);
        registrations.filter(|r| r.region == self.settings.home).map(|r| &r.id)
    }

    /// An instance as it was read last.
    pub fn standing(&self, id: &InstanceId) -> Option<&Arc<Standing>> {
        Some(&self.heard(id)?.standing)
    }

    /// Whether there is evidence against an instance of home, beside what live requests show.
    pub fn is_condemned(&self, id: &InstanceId) -> bool {
        self.heard(id).is_some_and(|heard| heard.is_condemned(self.failure(id).is_some()))
    }

    /// The instances whose machines the cloud calls impaired, in place of those that it did before.
    pub fn impaired(&mut self, impaired: BTreeMap<InstanceId, String>) {
        if self.impaired != impaired {
            self.impaired = impaired;
            self.recount();
        }
    }

    /// The instances of home that live requests have ejected, in place of those that they had before.
    pub fn ejected(&mut self, ejected: BTreeSet<InstanceId>) {
        if self.ejected != ejected {
            self.ejected = ejected;
            self.count_ejected();
        }
    }

    /// The pings to send now. The end of each is told to [`Self::pinged`].
    pub fn pings_due(&mut self, now_ms: u64) -> Vec<PingDue> {
        let due = self.peers.due(now_ms);
        let ping = |(region, number)| {
            let endpoint = self.regions.iter().find(|r| r.id == region)?.endpoint.clone();
            Some(PingDue { region, endpoint, number })
        };
        due.into_iter().filter_map(ping).collect()
    }

    /// A ping ended: its round trip, or `None` where it failed.
    pub fn pinged(&mut self, region: &RegionId, number: u64, rtt_ms: Option<f64>) {
        let change = match rtt_ms {
            Some(rtt_ms) => self.peers.pong(region, number, rtt_ms),
            None => self.peers.miss(region, number),
        };
        self.is_changed |= change.is_some();
    }

    /// Whether a region's routers do not answer.
    pub fn is_unreachable(&self, region: &RegionId) -> bool {
        self.peers.is_ejected(region)
    }

    /// Judges the regions by all that is known. Returns what has happened, for the log.
    pub fn evaluate(&mut self, now_ms: u64, at: Timestamp) -> Vec<Output> {
        self.turn(now_ms);
        self.is_changed |= !self.peers.tick(now_ms).is_empty();
        let is_ejecting = std::mem::take(&mut self.is_ejecting);
        for region in &self.regions {
            let Tally { ready, all } = self.tallies.of(&region.id);
            let is_home = region.id == self.settings.home;
            let evidence = Evidence {
                healthy: ready.saturating_sub(if is_home { self.ejected_ready } else { 0 }),
                all,
                reachable: !self.peers.is_ejected(&region.id),
            };
            let look = match self.settings.thresholds.finds_normal(&evidence) {
                _ if self.peers.misses(&region.id) > 0 || is_home && is_ejecting => Look::Trouble,
                true => Look::Well,
                false => Look::Unwell,
            };
            let first_ms = self.signs.see(&region.id, look, now_ms);
            self.handler.evidence(&region.id, evidence, first_ms, now_ms);
        }
        let outputs = self.handler.tick(now_ms, at);
        for output in &outputs {
            match output {
                Output::Changed { .. } => self.is_changed = true,
                Output::Event { event, .. } => {
                    if self.events.len() >= MAX_EVENTS {
                        self.events.pop_front();
                    }
                    self.events.push_back(event.clone());
                }
            }
        }
        outputs
    }

    /// The fleet as it is seen now. `mask` may replace what is said of an instance by what is known of it.
    pub fn compose(
        &mut self,
        at: Timestamp,
        mut mask: impl FnMut(&Arc<Standing>) -> Arc<Standing>,
    ) -> Snapshot {
        let members = self.members().map(|m| Member { standing: mask(&m.standing), ..m }).collect();
        let rtt_ms = |id: &RegionId| Some((id.clone(), self.peers.rtt_ms(id)?));
        let rtt_ms = self.regions.iter().filter_map(|region| rtt_ms(&region.id)).collect();
        let mut snapshot = self.builder.build(at, self.regions.clone(), members, &rtt_ms);
        snapshot.steering = Arc::new(self.handler.steering(&snapshot));
        snapshot
    }

    /// When something changes by itself.
    pub fn next_ms(&self, now_ms: u64) -> u64 {
        let others = [self.probes.next_ms(), self.peers.next_ms()].into_iter().flatten();
        others.fold(self.handler.next_ms(now_ms), u64::min)
    }

    /// Whether a snapshot would show something new; asked once.
    pub fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    pub fn handler(&self) -> &Handler {
        &self.handler
    }

    pub fn verdict(&self, id: &InstanceId) -> &Verdict {
        self.probes.verdict(id)
    }

    /// Of an instance's probes, in a row.
    pub fn probe_failures(&self, id: &InstanceId) -> u32 {
        self.probes.failures(id)
    }

    /// Pings to one region that are neither answered nor missed, where there are most of them.
    pub fn pings_outstanding(&self) -> usize {
        self.peers.outstanding()
    }

    /// Who this router is, in records and wishes.
    pub fn router(&self) -> &str {
        &self.settings.router
    }

    fn heard(&self, id: &InstanceId) -> Option<&Heard> {
        let at = self.heard.binary_search_by(|heard| heard.id().cmp(id)).ok()?;
        self.heard.get(at)
    }

    /// What is wrong with an instance of home, by the cloud's word or its probes.
    fn failure(&self, id: &InstanceId) -> Option<&str> {
        self.impaired.get(id).map(String::as_str).or_else(|| self.probes.failure(id))
    }

    fn members(&self) -> impl Iterator<Item = Member> {
        self.heard.iter().map(|heard| self.member(heard))
    }

    /// Those that should take requests.
    fn counted(&self) -> impl Iterator<Item = Member> {
        self.heard.iter().filter(|heard| heard.counts()).map(|heard| self.member(heard))
    }

    fn member(&self, Heard { standing, is_fresh, .. }: &Heard) -> Member {
        let seen = match *is_fresh {
            _ if self.failure(&standing.registration.id).is_some() => Seen::Failing,
            true => Seen::Well,
            false => Seen::Stale,
        };
        Member { standing: standing.clone(), seen }
    }

    /// Time in which this process was held up is no region's good evidence: no hold, step or word runs out by
    /// it.
    fn turn(&mut self, now_ms: u64) {
        let turned_ms = self.turned_ms.replace(now_ms).unwrap_or(now_ms);
        let blind_ms = now_ms.saturating_sub(turned_ms).saturating_sub(LONGEST_TURN_MS);
        if blind_ms > 0 {
            self.handler.postpone(blind_ms);
        }
    }

    fn recount(&mut self) {
        self.tallies = Tallies::count(self.counted(), &self.settings.home);
        self.count_ejected();
        self.is_changed = true;
    }

    fn count_ejected(&mut self) {
        let ready = self.ejected.iter().filter_map(|id| self.heard(id));
        let ready = ready.filter(|heard| self.member(heard).is_ready()).count() as u32;
        self.is_ejecting |= ready > self.ejected_ready;
        self.ejected_ready = ready;
    }
}

/// Instances of home that have an agent to ask. One that drains or is quarantined has said what there is to
/// say; one that a router drained is asked for when it is well again.
fn is_probed(standing: &Standing, home: &RegionId) -> bool {
    let registration = &standing.registration;
    let serves = standing.lifecycle() == Lifecycle::Available || is_drained(standing);
    registration.region == *home && !registration.health_address.is_empty() && serves
}

#[cfg(test)]
mod tests;
