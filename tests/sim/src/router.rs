//! A router: the fleet's own machines, and what the shell around them does.

mod history;
mod known;

use std::sync::Arc;

use mrgc_fleet::{
    failover::Output,
    health::{ProbeResult, Verdict},
    lease::{Action, Contender},
    model::Standing,
    monitor::{Epochs, Monitor, Reading},
    routing::Scratch,
    snapshot::Snapshot,
};

use crate::{
    calls::{Asked, Call, Pending, Returned},
    clock::Clock,
    executor::Executor,
    flight::Flight,
    machine::Life,
    network::Node,
    plan::{Plan, ROUTERS},
    store::{LEASES, Look},
    trace::Note,
    world::{Body, Event, Timer, World},
};

use history::History;
pub(crate) use known::Known;

/// Between two looks at what is due.
const TICK_MS: u64 = 100;
/// Between two reads of the store.
pub(crate) const READ_EVERY_MS: u64 = 2_000;
/// Between two snapshots, at least.
const SNAPSHOT_EVERY_MS: u64 = 250;
/// Between two looks at what a lease's holder has to do.
const ACTIONS_EVERY_MS: u64 = 1_000;
const LEASE_TTL_MS: u64 = 5_000;
/// Until a region's balancer notices that a router is gone.
const NOTICED_MS: u64 = 1_500;
const LEASE_NAMES: [&str; LEASES] = ["health", "failover"];
/// Its place among the leases.
pub(crate) const FAILOVER: usize = 1;

pub(crate) struct Router {
    pub node: Node,
    pub life: Life,
    pub clock: Clock,
    /// Raised by each start.
    pub boot: u32,
    /// When it last ceased to run, in virtual time.
    pub left_ms: u64,
    /// When it was last resumed after a pause, in virtual time.
    pub resumed_ms: u64,
    pub monitor: Monitor,
    pub snapshot: Arc<Snapshot>,
    pub flight: Flight,
    pub scratch: Scratch,
    pub leases: [Contender; LEASES],
    pub pending: Vec<Pending>,
    pub calls: u64,
    pub executor: Executor,
    pub history: History,
    /// By the instances' numbers.
    pub known: Vec<Option<Known>>,
    /// Probes under way, with their numbers.
    pub probes: Vec<(usize, u64)>,
    probes_sent: u64,
    read_ms: Option<u64>,
    snapshot_ms: u64,
    actions_ms: u64,
    is_outdated: bool,
}

impl Router {
    /// One that remembers nothing.
    pub(crate) fn new(node: Node, clock: Clock, boot: u32, started_ms: u64, plan: &Plan) -> Self {
        let at = clock.wall(started_ms);
        let mut monitor = Monitor::new(plan.settings(node), at);
        let snapshot = monitor.compose(at, Arc::clone);
        let holder = format!("router-{}#{boot}", node.no);
        // No answer to a former life's call is taken for one's own: connections end with a process.
        let numbers = u64::from(boot) << 32;
        Self {
            node,
            life: Life::Running,
            clock,
            boot,
            left_ms: 0,
            resumed_ms: 0,
            monitor,
            snapshot: snapshot.into(),
            flight: Flight::new(plan),
            scratch: Scratch::default(),
            leases: LEASE_NAMES.map(|name| Contender::new(name, &holder, LEASE_TTL_MS)),
            pending: Vec::new(),
            calls: numbers,
            executor: Executor::default(),
            history: History::default(),
            known: Vec::new(),
            probes: Vec::new(),
            probes_sent: numbers,
            read_ms: None,
            snapshot_ms: 0,
            actions_ms: 0,
            is_outdated: true,
        }
    }

    /// By its own clock.
    pub(crate) fn now_ms(&self, at_ms: u64) -> u64 {
        self.clock.now_ms(at_ms)
    }

    /// Takes over what was read, and says what it comes to. An answer that is older than what is known is
    /// ignored.
    fn learn(&mut self, look: &Look, now_ms: u64) -> Vec<Arc<Standing>> {
        self.known.resize_with(self.known.len().max(look.instances.len()), || None);
        for (known, seen) in self.known.iter_mut().zip(&look.instances) {
            let Some((source, desired)) = seen else { continue };
            match known {
                Some(known) => known.learn(source, desired.as_ref(), now_ms),
                None => *known = Some(Known::new(source, desired.as_ref(), now_ms)),
            }
        }
        self.known.iter().flatten().map(|known| known.standing.clone()).collect()
    }

    /// The epochs of the leases that it holds.
    pub(crate) fn epochs(&self, at_ms: u64) -> Epochs {
        let now_ms = self.now_ms(at_ms);
        let [health, failover] = self.leases.each_ref().map(|lease| lease.epoch(now_ms));
        Epochs { health, failover }
    }
}

impl World {
    /// A router looks at what is due.
    pub(crate) fn tick(&mut self, no: usize) {
        let router = &self.routers[no];
        let (node, boot) = (router.node, router.boot);
        let next_ms = router.clock.after(self.now_ms, TICK_MS);
        self.agenda.plan(next_ms, Event::Timer { node, boot, timer: Timer::Tick });
        self.ping(no);
        self.probe(no);
        self.evaluate(no);
        self.contend(no);
        self.read_history(no);
        let now_ms = self.routers[no].now_ms(self.now_ms);
        let router = &mut self.routers[no];
        if router.read_ms.is_none_or(|read_ms| now_ms >= read_ms + READ_EVERY_MS) {
            router.read_ms = Some(now_ms);
            self.call(no, Call::Look, Asked::Look);
        }
        let router = &mut self.routers[no];
        if now_ms >= router.actions_ms + ACTIONS_EVERY_MS {
            router.actions_ms = now_ms;
            self.find_actions(no);
        }
        self.publish(no);
    }

    fn ping(&mut self, no: usize) {
        let router = &mut self.routers[no];
        let (node, now_ms) = (router.node, router.clock.now_ms(self.now_ms));
        for due in router.monitor.pings_due(now_ms) {
            let Some(region) = self.plan.region(&due.region) else { continue };
            let to = self.balance(region);
            self.send(node, to, Body::Ping { number: due.number, sent_ms: now_ms });
        }
    }

    /// A region's endpoint: one of its routers, of those that run if the balancer has noticed.
    pub(crate) fn balance(&mut self, region: usize) -> Node {
        let first = region * ROUTERS;
        let now_ms = self.now_ms;
        let routers = &self.routers;
        let runs = |no: &usize| routers[*no].is_balanced_to(now_ms);
        let start = self.rng.usize(0..ROUTERS);
        let order = (0..ROUTERS).map(|n| first + (start + n) % ROUTERS);
        let chosen = order.clone().find(runs).unwrap_or(first + start);
        self.routers[chosen].node
    }

    pub(crate) fn pinged(
        &mut self,
        no: usize,
        region: usize,
        number: u64,
        sent_ms: u64,
        answered: bool,
    ) {
        let router = &mut self.routers[no];
        let now_ms = router.clock.now_ms(self.now_ms);
        let rtt_ms = answered.then(|| now_ms.saturating_sub(sent_ms) as f64);
        router.monitor.pinged(&self.plan.regions[region].id, number, rtt_ms);
        if !answered {
            self.evaluate(no);
        }
    }

    fn probe(&mut self, no: usize) {
        let router = &mut self.routers[no];
        let (node, boot, now_ms) = (router.node, router.boot, router.clock.now_ms(self.now_ms));
        for due in router.monitor.probes_due(now_ms) {
            let machine = crate::plan::number(due.id.as_str());
            let router = &mut self.routers[no];
            router.probes_sent += 1;
            let number = router.probes_sent;
            router.probes.push((machine, number));
            let timeout_ms = router.clock.after(self.now_ms, self.plan.probes().timeout_ms);
            let to = self.machines[machine].node;
            self.send(node, to, Body::Probe { number });
            let timer = Timer::Probe { machine, number };
            self.agenda.plan(timeout_ms, Event::Timer { node, boot, timer });
        }
    }

    /// A probe ended, in time or not.
    pub(crate) fn probed(&mut self, no: usize, machine: usize, number: u64, result: ProbeResult) {
        let router = &mut self.routers[no];
        let Some(at) = router.probes.iter().position(|probe| *probe == (machine, number)) else {
            return;
        };
        router.probes.swap_remove(at);
        let now_ms = router.clock.now_ms(self.now_ms);
        let answered = router.flight.take_answered(machine);
        let probed = &self.machines[machine];
        self.watch.probed(router, probed, &result, answered, &self.plan);
        let change = router.monitor.probed(&probed.registration.id, result, answered, now_ms);
        self.watch.judged(router, probed);
        let Some(verdict) = change else { return };
        let is_unhealthy = verdict.is_unhealthy();
        self.trace.note(self.now_ms, Note::Verdict { router: router.node, machine, is_unhealthy });
        if verdict == Verdict::Healthy {
            router.flight.rejoin(machine, now_ms, &self.plan.ejection);
        }
        self.evaluate(no);
    }

    /// Judges the regions by all that the router knows now.
    pub(crate) fn evaluate(&mut self, no: usize) {
        let router = &mut self.routers[no];
        let now_ms = router.clock.now_ms(self.now_ms);
        let ejected = router.flight.ejected(&router.snapshot, now_ms, &self.plan);
        router.monitor.ejected(ejected);
        let at = router.clock.wall(self.now_ms);
        let mut lost = Vec::new();
        self.watch.looks(router, self.now_ms);
        for output in router.monitor.evaluate(now_ms, at) {
            let (region, transition) = match output {
                Output::Changed { region, transition } => (region, transition),
                Output::Event { event, .. } => {
                    self.watch.failover_seen(router.node, &event, self.now_ms);
                    continue;
                }
            };
            let Some(about) = self.plan.region(&region) else { continue };
            let (state, share) = (transition.to, transition.share);
            self.trace.note(self.now_ms, Note::Region { router: router.node, about, state, share });
            self.watch.region_changed(router, about, &transition, self.now_ms, &self.plan);
            if router.monitor.is_unreachable(&region) {
                lost.push(about);
            }
        }
        self.watch.told(router, self.now_ms, &self.plan);
        router.is_outdated |= router.monitor.take_changes();
        for region in lost {
            self.give_up_region(no, region);
        }
    }

    /// Publishes what has changed, not too often.
    fn publish(&mut self, no: usize) {
        let router = &mut self.routers[no];
        let now_ms = router.clock.now_ms(self.now_ms);
        if !router.is_outdated || now_ms < router.snapshot_ms + SNAPSHOT_EVERY_MS {
            return;
        }
        router.is_outdated = false;
        router.snapshot_ms = now_ms;
        router.snapshot = router.monitor.compose(router.clock.wall(self.now_ms), Arc::clone).into();
        self.watch.published(router);
    }

    fn contend(&mut self, no: usize) {
        for which in 0..LEASES {
            let router = &mut self.routers[no];
            let is_asked = router.pending.iter().any(|pending| pending.asked.is_of(which));
            if is_asked {
                continue;
            }
            let now_ms = router.clock.now_ms(self.now_ms);
            match router.leases[which].next(now_ms, router.clock.wall(self.now_ms)) {
                Action::Wait { .. } => {}
                Action::Read => {
                    self.call(no, Call::ReadLease { which }, Asked::ReadLease { which });
                }
                Action::Write(write) => {
                    let asked = Asked::WriteLease { which, write: write.clone() };
                    self.call(no, Call::WriteLease { which, write }, asked);
                }
            }
        }
    }

    /// A call came back, or was waited for too long.
    pub(crate) fn returned(&mut self, no: usize, number: u64, returned: Returned) {
        let router = &mut self.routers[no];
        let Some(at) = router.pending.iter().position(|pending| pending.number == number) else {
            return;
        };
        let Pending { sent_ms, asked, .. } = router.pending.swap_remove(at);
        let now_ms = router.clock.now_ms(self.now_ms);
        match (asked, returned) {
            (Asked::Look, Returned::Look(look)) => {
                let standings = router.learn(&look, self.now_ms);
                self.watch.learned(router, &look, self.now_ms);
                let reading = Reading {
                    regions: self.plan.regions.clone(),
                    standings,
                    orders: look.orders.clone(),
                    records: look.records.clone(),
                };
                router.monitor.read(reading, READ_EVERY_MS, now_ms);
                self.watch.heard(router, &look.records, &self.plan);
                self.evaluate(no);
            }
            (Asked::ReadLease { which }, Returned::Lease(stored)) => {
                router.leases[which].read(stored, now_ms);
            }
            (Asked::WriteLease { which, write }, Returned::LeaseWritten(Ok(()))) => {
                router.leases[which].done(&write, sent_ms);
                self.watch.leased(&self.routers, no, which, self.now_ms);
            }
            (Asked::WriteLease { which, .. }, Returned::LeaseWritten(Err(stored))) => {
                router.leases[which].refused(stored, now_ms);
            }
            (Asked::ReadLease { which } | Asked::WriteLease { which, .. }, _) => {
                router.leases[which].failed(now_ms);
            }
            (Asked::ReadHistory { epoch }, Returned::History(events)) => {
                // A start's comes too late where a lease's is known.
                if epoch >= router.history.known_in {
                    router.history.known_in = epoch;
                    self.watch.history_read(router.node, &events);
                    router.monitor.restore(events, epoch);
                }
            }
            (Asked::Step, returned) => self.step_returned(no, returned),
            (Asked::Look | Asked::ReadHistory { .. }, _) => {}
        }
    }
}

impl Router {
    /// Whether the region's balancer sends to it: it takes a while to notice one that is gone.
    fn is_balanced_to(&self, at_ms: u64) -> bool {
        self.life == Life::Running || at_ms < self.left_ms + NOTICED_MS
    }

    /// Whether clients reach it, and it knows somebody to send them to.
    pub(crate) fn takes_clients(&self) -> bool {
        self.life == Life::Running && !self.snapshot.instances.is_empty()
    }

    /// Whether its process is not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.life, Life::Killed | Life::Silent)
    }
}

impl Asked {
    fn is_of(&self, lease: usize) -> bool {
        match self {
            Self::ReadLease { which } | Self::WriteLease { which, .. } => *which == lease,
            _ => false,
        }
    }
}
