//! What goes wrong, drawn from the seed: each seed has some kinds of faults, at a pace of its own.

mod orders;
mod processes;

use fastrand::Rng;

use crate::{
    faults::Fault,
    machine::{ReportedHealth, Service},
    network::{Node, Role, Side, Trouble, TroubleId, TroubleKind},
    plan::{Instance, ROUTERS},
    trace::Note,
    world::{Event, World},
};

/// One of so many runs has no faults but clocks that differ.
const QUIET_RUNS: u64 = 16;
/// Between two faults, on average: the pace of a run is somewhere between.
const FASTEST_MS: u64 = 250;
const SLOWEST_MS: u64 = 4_000;
/// How long a fault lasts: short ones are as likely as long ones.
const SHORTEST_MS: f64 = 150.0;
const LONGEST_MS: f64 = 15_000.0;
/// How long a lease's holder stands still.
const MINUTE_MS: u64 = 60_000;

/// Faults that are not begun by a stroke of their own.
const BY_OTHERS: [Fault; 2] = [Fault::ClockSkew, Fault::ZombieAgent];

#[derive(Debug)]
pub(crate) struct Chaos {
    rng: Rng,
    kinds: Vec<Fault>,
    pace_ms: u64,
    skews: bool,
    /// Many more clients come than usually.
    pub is_peak: bool,
    /// What is left of faults from before the calm is void.
    is_over: bool,
    pub lasting: Lasting,
}

/// What stays when all faults are over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lasting {
    /// An instance that stays in quarantine.
    pub instance: Option<usize>,
    /// A region that stays failed over.
    pub region: Option<usize>,
    /// An instance that goes on failing its probes, which is no operator's will.
    pub failing: Option<usize>,
}

/// What a fault does later.
#[derive(Clone, Debug)]
pub(crate) enum Aftermath {
    End(Fault, TroubleId),
    /// A network that comes and goes.
    Flap {
        trouble: Trouble,
        left: u32,
    },
    Resume(Node),
    StartRouter(usize),
    StartAgent(usize),
    StartRegion(usize),
    Serve(usize),
    HonestHealth(usize),
    StartEnclave(usize),
    HealReplica(usize),
    PeakOver,
    Lift(usize),
    LiftOrder(usize),
    /// An agent from before a registration goes on.
    Zombie {
        machine: usize,
        generation: u64,
        sequence: u64,
    },
    /// Operators look again at whether all is as they want it.
    Settle,
}

impl Chaos {
    pub(crate) fn draw(mut rng: Rng) -> Self {
        let is_quiet = rng.u64(0..QUIET_RUNS) == 0;
        let begun = Fault::ALL.iter().copied().filter(|fault| !BY_OTHERS.contains(fault));
        let kinds = begun.filter(|_| !is_quiet && rng.bool()).collect();
        Self {
            kinds,
            pace_ms: rng.u64(FASTEST_MS..SLOWEST_MS),
            skews: rng.u8(0..4) > 0,
            is_peak: false,
            is_over: false,
            lasting: Lasting::default(),
            rng,
        }
    }

    pub(crate) fn skews(&self) -> bool {
        self.skews
    }

    fn duration_ms(&mut self) -> u64 {
        (SHORTEST_MS * (LONGEST_MS / SHORTEST_MS).powf(self.rng.f64())) as u64
    }
}

impl World {
    /// The next fault, or the end of all.
    pub(crate) fn strike(&mut self) {
        if self.now_ms >= self.calm_ms {
            return self.calm_down();
        }
        let wait_ms = self.chaos.rng.u64(1..=2 * self.chaos.pace_ms);
        self.agenda.plan((self.now_ms + wait_ms).min(self.calm_ms), Event::Chaos);
        if self.chaos.kinds.is_empty() {
            return;
        }
        let kind = self.chaos.rng.usize(0..self.chaos.kinds.len());
        let fault = self.chaos.kinds[kind];
        let subject = self.inject(fault);
        if let Some(subject) = subject {
            self.trace.note(self.now_ms, Note::Fault { fault, subject });
        }
    }

    /// Injects a fault; returns whom it strikes, where there is somebody.
    fn inject(&mut self, fault: Fault) -> Option<usize> {
        match fault {
            Fault::MessageLoss
            | Fault::MessageDelay
            | Fault::MessageReordering
            | Fault::MessageDuplication
            | Fault::Partition
            | Fault::OneWayPartition
            | Fault::FlappingNetwork => self.disturb(fault),
            Fault::StoreThrottling
            | Fault::StoreOutage
            | Fault::StaleRead
            | Fault::ReplicationLag => Some(self.strain_store(fault)),
            Fault::SlowInstance
            | Fault::FailingInstance
            | Fault::BusyInstance
            | Fault::RefusingInstance
            | Fault::HungInstance
            | Fault::LyingHealthy
            | Fault::LyingUnhealthy
            | Fault::SlowHealth
            | Fault::GarbageHealth => Some(self.spoil_one(fault)),
            Fault::FlappingHealth => Some(self.flap_health()),
            Fault::PoolOutage => Some(self.spoil_pool()),
            Fault::EnclaveLost => Some(self.end_enclaves()),
            Fault::RouterPause | Fault::HolderPause | Fault::AgentPause => self.pause(fault),
            Fault::RouterRestart => self.restart_some_router(),
            Fault::AgentRestart => self.restart_some_agent(),
            Fault::BlackHoleInstance => self.silence_one(),
            Fault::RegionKilled | Fault::RegionBlackHole => self.lose_region(fault),
            Fault::ClockSet => Some(self.set_a_clock()),
            Fault::Drain | Fault::Quarantine => Some(self.order_out(fault)),
            Fault::FailoverOrder | Fault::PinOrder | Fault::OppositeOrders => {
                Some(self.order_region(fault))
            }
            Fault::LoadPeak => {
                self.tally.add(fault);
                self.chaos.is_peak = true;
                self.later(Aftermath::PeakOver);
                Some(0)
            }
            Fault::ClockSkew | Fault::ZombieAgent => None,
        }
    }

    /// Plans the end of what has just begun: never after the calm.
    fn later(&mut self, aftermath: Aftermath) {
        let duration_ms = self.chaos.duration_ms();
        self.after(duration_ms, aftermath);
    }

    fn after(&mut self, duration_ms: u64, aftermath: Aftermath) {
        let at_ms = (self.now_ms + duration_ms).min(self.calm_ms.max(self.now_ms + 1));
        self.agenda.plan(at_ms, Event::Aftermath(aftermath));
    }

    pub(crate) fn follow(&mut self, aftermath: Aftermath) {
        if self.chaos.is_over && !matches!(aftermath, Aftermath::Settle) {
            return;
        }
        match aftermath {
            Aftermath::End(fault, id) => {
                self.network.end(id);
                self.trace.note(self.now_ms, Note::Over { fault, subject: 0 });
            }
            Aftermath::Flap { trouble, left } => self.flap(trouble, left),
            Aftermath::Resume(node) => self.resume(node),
            Aftermath::StartRouter(no) => self.start_router(no),
            Aftermath::StartAgent(no) => self.start_agent(no),
            Aftermath::StartRegion(region) => self.start_region(region),
            Aftermath::Serve(no) => self.machines[no].service = Service::Well,
            Aftermath::HonestHealth(no) => self.machines[no].reported = ReportedHealth::Honest,
            Aftermath::StartEnclave(no) => {
                self.machines[no].has_enclave = self.machines[no].plan.enclave;
            }
            Aftermath::HealReplica(region) => self.store.replicas[region] = Default::default(),
            Aftermath::PeakOver => self.chaos.is_peak = false,
            Aftermath::Lift(no) => self.lift(no),
            Aftermath::LiftOrder(region) => self.lift_order(region),
            Aftermath::Zombie { machine, generation, sequence } => {
                self.zombie(machine, generation, sequence);
            }
            Aftermath::Settle => self.settle_orders(),
        }
    }

    /// All faults end at once, and what they left is repaired.
    fn calm_down(&mut self) {
        self.chaos.is_over = true;
        self.chaos.is_peak = false;
        self.network.heal();
        self.store.replicas.fill(Default::default());
        for no in 0..self.machines.len() {
            self.machines[no].service = Service::Well;
            self.machines[no].reported = ReportedHealth::Honest;
            self.machines[no].has_enclave = self.machines[no].plan.enclave;
            self.resume(self.machines[no].node);
            self.start_agent(no);
        }
        for no in 0..self.routers.len() {
            self.resume(self.routers[no].node);
            self.start_router(no);
        }
        self.leave_some();
        self.settle_orders();
        self.agenda.plan(self.now_ms + 3_000, Event::Aftermath(Aftermath::Settle));
    }

    /// Something is wrong between two sides.
    fn disturb(&mut self, fault: Fault) -> Option<usize> {
        let (from, to) = self.sides();
        let both_ways = fault == Fault::Partition || self.chaos.rng.bool();
        let kind = match fault {
            Fault::MessageLoss => TroubleKind::Loss(self.chaos.rng.u32(20..400)),
            Fault::MessageDelay => TroubleKind::Delay { ms: self.chaos.rng.u64(20..2_000) },
            Fault::MessageReordering => TroubleKind::Reorder { ms: self.chaos.rng.u64(50..3_000) },
            Fault::MessageDuplication => TroubleKind::Duplicate,
            _ => TroubleKind::Cut(fault),
        };
        let both_ways = both_ways && fault != Fault::OneWayPartition;
        let trouble = Trouble { from, to, both_ways, kind };
        if fault == Fault::FlappingNetwork {
            let left = self.chaos.rng.u32(3..20);
            self.flap(trouble, left);
            return Some(from.region.unwrap_or_default());
        }
        let id = self.network.begin(trouble)?;
        self.later(Aftermath::End(fault, id));
        Some(from.region.unwrap_or_default())
    }

    /// Cuts for a moment, and again a moment later.
    fn flap(&mut self, trouble: Trouble, left: u32) {
        let Some(id) = self.network.begin(trouble) else { return };
        let (down_ms, up_ms) = (self.chaos.rng.u64(50..1_500), self.chaos.rng.u64(50..1_500));
        self.after(down_ms, Aftermath::End(Fault::FlappingNetwork, id));
        if left > 0 {
            self.after(down_ms + up_ms, Aftermath::Flap { trouble, left: left - 1 });
        }
    }

    /// Who is cut off from whom.
    fn sides(&mut self) -> (Side, Side) {
        let regions = self.plan.regions.len();
        let rng = &mut self.chaos.rng;
        let a = rng.usize(0..regions);
        let b = (a + rng.usize(1..regions)) % regions;
        let region = |region| Side { region: Some(region), ..Side::default() };
        let role = |region, role| Side { region: Some(region), role: Some(role), no: None };
        let router = self.routers[a * ROUTERS + rng.usize(0..ROUTERS)].node;
        match rng.u8(0..8) {
            0 => (region(a), region(b)),
            1 => (role(a, Role::Router), role(b, Role::Router)),
            2 => (role(a, Role::Router), role(a, Role::Store)),
            3 => (role(a, Role::Machine), role(a, Role::Store)),
            4 => (role(a, Role::Router), role(a, Role::Machine)),
            5 => (Side::of(router), Side::default()),
            6 => (Side::of(router), region(b)),
            _ => {
                let machine = rng.usize(0..self.machines.len());
                (Side::default(), Side::of(self.machines[machine].node))
            }
        }
    }

    fn strain_store(&mut self, fault: Fault) -> usize {
        let region = self.chaos.rng.usize(0..self.plan.regions.len());
        let replica = &mut self.store.replicas[region];
        match fault {
            Fault::StoreThrottling => replica.throttled = self.chaos.rng.u32(200..1_000),
            Fault::StoreOutage => replica.is_out = true,
            Fault::StaleRead => replica.stale = self.chaos.rng.u32(50..500),
            _ => replica.behind_ms = self.chaos.rng.u64(500..10_000),
        }
        self.later(Aftermath::HealReplica(region));
        region
    }

    fn spoil_one(&mut self, fault: Fault) -> usize {
        let no = self.chaos.rng.usize(0..self.machines.len());
        self.spoil(no, fault);
        self.later(Aftermath::Serve(no));
        self.later(Aftermath::HonestHealth(no));
        no
    }

    /// Much of a pool in a region fails in one way.
    fn spoil_pool(&mut self) -> usize {
        let region = self.chaos.rng.usize(0..self.plan.regions.len());
        let pool = self.chaos.rng.usize(0..self.plan.pools.len());
        let kinds = [
            Fault::SlowInstance,
            Fault::FailingInstance,
            Fault::BusyInstance,
            Fault::RefusingInstance,
            Fault::HungInstance,
        ];
        let fault = kinds[self.chaos.rng.usize(0..kinds.len())];
        let share = self.chaos.rng.f64();
        self.tally.add(Fault::PoolOutage);
        let duration_ms = self.chaos.duration_ms();
        for no in 0..self.machines.len() {
            let plan = self.machines[no].plan;
            if plan.region == region && plan.pool == pool && self.chaos.rng.f64() < share {
                self.spoil(no, fault);
                self.after(duration_ms, Aftermath::Serve(no));
            }
        }
        region
    }

    /// What one instance, or much of a pool in a region, says of itself comes and goes.
    fn flap_health(&mut self) -> usize {
        let rng = &mut self.chaos.rng;
        let (one, share) = (rng.usize(0..self.machines.len()), rng.f64());
        let Instance { region, pool, .. } = self.machines[one].plan;
        let (is_one, turn_ms) = (rng.bool(), rng.u64(500..10_000));
        let duration_ms = turn_ms * rng.u64(2..12);
        self.tally.add(Fault::FlappingHealth);
        for no in 0..self.machines.len() {
            let plan = self.machines[no].plan;
            let is_near = plan.region == region && plan.pool == pool && !is_one;
            if no == one || (is_near && self.chaos.rng.f64() < share) {
                self.machines[no].reported = ReportedHealth::Flapping { turn_ms };
                self.after(duration_ms, Aftermath::HonestHealth(no));
            }
        }
        region
    }

    /// Many of a region's enclaves end, and their agents say so with their next report.
    fn end_enclaves(&mut self) -> usize {
        let region = self.chaos.rng.usize(0..self.plan.regions.len());
        self.tally.add(Fault::EnclaveLost);
        for no in 0..self.machines.len() {
            if self.machines[no].node.region == region && self.chaos.rng.bool() {
                self.machines[no].has_enclave = false;
                self.later(Aftermath::StartEnclave(no));
            }
        }
        region
    }

    fn spoil(&mut self, no: usize, fault: Fault) {
        self.tally.add(fault);
        let machine = &mut self.machines[no];
        let (service, reported) = match fault {
            Fault::SlowInstance => (Service::Slow, machine.reported),
            Fault::FailingInstance => (Service::Failing, machine.reported),
            Fault::BusyInstance => (Service::Busy, machine.reported),
            Fault::RefusingInstance => (Service::Refusing, machine.reported),
            Fault::HungInstance => (Service::Hung, machine.reported),
            Fault::LyingHealthy => (Service::Failing, ReportedHealth::Healthy),
            Fault::LyingUnhealthy => (machine.service, ReportedHealth::Unhealthy),
            Fault::SlowHealth => (machine.service, ReportedHealth::Slow),
            _ => (machine.service, ReportedHealth::Garbage),
        };
        (machine.service, machine.reported) = (service, reported);
        if service == Service::Refusing {
            self.reset_all(no);
        }
    }

    fn set_a_clock(&mut self) -> usize {
        self.tally.add(Fault::ClockSet);
        let no = self.chaos.rng.usize(0..self.routers.len() + self.machines.len());
        let clock = match no.checked_sub(self.routers.len()) {
            Some(machine) => &mut self.machines[machine].clock,
            None => &mut self.routers[no].clock,
        };
        clock.set_wall(&mut self.chaos.rng);
        no
    }
}
