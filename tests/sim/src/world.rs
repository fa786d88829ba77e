//! Everything that is simulated, and the loop that moves it.
//!
//! ```text
//!            ┌────────── agenda: what happens when ◄─────────┐
//!            ▼                                               │ plans
//!   messages, timers, faults ─► router │ machine │ store ────┤
//!                                  │                         │
//!                                  └─► network: lost? late? ─┘
//! ```
//!
//! A run is one thread, one seed and no real clock: the same seed and length give the same run, event by
//! event.

use fastrand::Rng;
use mrgc_fleet::{
    health::{Outcome, ProbeResult},
    model::{Registration, Report},
};

use crate::{
    calls::{Call, Returned},
    chaos::{Aftermath, Chaos},
    clock::{Agenda, Clock},
    faults::{Fault, Tally},
    journey::{Answer, Leg, LegId, Limit},
    machine::{BEAT_MS, Life, Machine},
    network::{Network, Node, Role},
    plan::{Plan, ROUTERS},
    router::Router,
    slab::Slab,
    store::Store,
    trace::{Note, Trace},
    traffic::Ticket,
    watch::Watch,
};

/// A slice of virtual time, after which the invariants are looked at.
pub const STEP_MS: u64 = 100;
/// Until when everything has started, and met.
const WARM_UP_MS: u64 = 5_000;
/// Of a run's steps, those with faults; the rest is to settle.
const FAULTY_SHARE: f64 = 0.45;
/// How long a run goes on once everything must have settled.
const SETTLED_MS: u64 = 10_000;
const SETTLED_EVERY_MS: u64 = 1_000;
/// Things that may be about to happen. A paused process's messages wait here, too.
const MAX_PLANNED: usize = 50_000;

pub(crate) struct World {
    pub now_ms: u64,
    /// From when on there are no faults.
    pub calm_ms: u64,
    /// From when on nothing of them is to be seen.
    settled_ms: u64,
    pub plan: Plan,
    pub rng: Rng,
    pub agenda: Agenda<Event>,
    pub network: Network,
    pub store: Store,
    pub routers: Vec<Router>,
    pub machines: Vec<Machine>,
    pub legs: Slab<Leg>,
    pub tickets: Slab<Ticket>,
    pub chaos: Chaos,
    pub tally: Tally,
    pub watch: Watch,
    pub trace: Trace,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Message(Message),
    /// A process's own timer; void once it has started anew.
    Timer {
        node: Node,
        boot: u32,
        timer: Timer,
    },
    /// A server is done with a request.
    Served {
        machine: usize,
        leg: LegId,
        attempt: u32,
        outcome: Outcome,
    },
    /// A client comes.
    Arrival,
    Chaos,
    /// What a fault does later.
    Aftermath(Aftermath),
}

#[derive(Clone, Debug)]
pub(crate) enum Timer {
    /// A router looks at what is due.
    Tick,
    /// An agent reports.
    Beat,
    /// An attempt has taken so long.
    Attempt {
        leg: LegId,
        number: u32,
        limit: Limit,
    },
    Probe {
        machine: usize,
        number: u64,
    },
    Call {
        number: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub from: Node,
    pub to: Node,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Ping {
        number: u64,
        sent_ms: u64,
    },
    /// `answered`: `false` where the connection was refused.
    Pong {
        region: usize,
        number: u64,
        sent_ms: u64,
        answered: bool,
    },
    Probe {
        number: u64,
    },
    Probed {
        number: u64,
        result: ProbeResult,
    },
    Report(Box<Report>),
    /// A request on its way to an instance or to another region's router.
    Request {
        leg: LegId,
        attempt: u32,
    },
    /// What came of it; a router says how many attempts it made.
    Response {
        leg: LegId,
        attempt: u32,
        outcome: Outcome,
        attempts: usize,
        no_capacity: bool,
    },
    Call {
        number: u64,
        call: Box<Call>,
    },
    Returned {
        number: u64,
        returned: Box<Returned>,
    },
}

impl World {
    /// Draws a fleet and starts it.
    pub(crate) fn new(seed: u64, steps: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let calm_ms = WARM_UP_MS + (steps as f64 * STEP_MS as f64 * FAULTY_SHARE) as u64;
        let length_ms = steps * STEP_MS;
        let plan = Plan::draw(&mut rng, length_ms.saturating_sub(calm_ms + SETTLED_MS));
        let regions = plan.regions.len();
        let settled_ms = calm_ms + plan.settle_ms();
        let mut world = Self {
            now_ms: 0,
            calm_ms,
            settled_ms,
            network: Network::new(regions, rng.fork()),
            store: Store::new(regions, rng.fork()),
            agenda: Agenda::default(),
            routers: Vec::new(),
            machines: Vec::new(),
            legs: Slab::default(),
            tickets: Slab::default(),
            chaos: Chaos::draw(rng.fork()),
            tally: Tally::default(),
            watch: Watch::new(&plan, settled_ms),
            trace: Trace::default(),
            plan,
            rng,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        for no in 0..self.plan.instances.len() {
            let instance = self.plan.instances[no];
            let node = Node { role: Role::Machine, region: instance.region, no };
            let clock = self.clock();
            let name = format!("i-{no}");
            let region = self.plan.regions[instance.region].id.clone();
            let pool = self.plan.pools[instance.pool].clone();
            let registration = Registration {
                health_address: format!("{name}.test:8080"),
                slots: instance.slots,
                ..Registration::new(name.as_str(), region, pool, format!("{name}.test:8000"))
            };
            let registration = self.store.register(no, instance.region, &registration, 0);
            self.machines.push(Machine::new(node, instance, registration, clock));
            let at_ms = self.rng.u64(0..BEAT_MS);
            self.agenda.plan(at_ms, Event::Timer { node, boot: 0, timer: Timer::Beat });
        }
        for no in 0..self.plan.regions.len() * ROUTERS {
            let node = Node { role: Role::Router, region: no / ROUTERS, no };
            let clock = self.clock();
            self.routers.push(Router::new(node, clock, 0, 0, &self.plan));
            let at_ms = self.rng.u64(500..500 + STEP_MS);
            self.agenda.plan(at_ms, Event::Timer { node, boot: 0, timer: Timer::Tick });
        }
        self.agenda.plan(WARM_UP_MS, Event::Arrival);
        self.agenda.plan(WARM_UP_MS, Event::Chaos);
    }

    /// A process's clock: some run fast or slow.
    pub(crate) fn clock(&mut self) -> Clock {
        if !self.chaos.skews() {
            return Clock::exact(self.now_ms);
        }
        self.tally.add(Fault::ClockSkew);
        Clock::skewed(self.now_ms, &mut self.rng)
    }

    /// Lets a slice of time pass.
    pub(crate) fn step(&mut self) {
        let end_ms = (self.now_ms / STEP_MS + 1) * STEP_MS;
        while let Some((at_ms, event)) = self.agenda.next_before(end_ms) {
            self.now_ms = at_ms;
            self.happen(event);
        }
        self.now_ms = end_ms;
        self.watch.bounds(self.agenda.len() <= MAX_PLANNED, "the agenda", self.agenda.len());
        for router in self.routers.iter().filter(|router| router.life == Life::Running) {
            self.watch.stepped(router, self.now_ms, &self.plan);
        }
        if self.now_ms >= self.settled_ms && self.now_ms.is_multiple_of(SETTLED_EVERY_MS) {
            let lasting = &self.chaos.lasting;
            let (routers, store) = (&self.routers, &self.store);
            self.watch.settled(routers, store, lasting, self.now_ms, &self.plan);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.deliver(message),
            Event::Timer { node, boot, timer } => self.ring(node, boot, timer),
            Event::Served { machine, leg, attempt, outcome } => {
                self.served(machine, leg, attempt, outcome);
            }
            Event::Arrival => self.arrive(),
            Event::Chaos => self.strike(),
            Event::Aftermath(aftermath) => self.follow(aftermath),
        }
    }

    /// Sends a message, once, twice or never.
    pub(crate) fn send(&mut self, from: Node, to: Node, body: Body) {
        let delivery = self.network.send(from, to, &mut self.tally);
        if let Some(again_ms) = delivery.again_after_ms
            && body.may_come_twice()
        {
            let again = Message { from, to, body: body.clone() };
            self.agenda.plan(self.now_ms + again_ms, Event::Message(again));
        }
        match delivery.after_ms {
            Some(after_ms) => {
                self.agenda
                    .plan(self.now_ms + after_ms, Event::Message(Message { from, to, body }));
            }
            None => self.trace.note(self.now_ms, Note::Lost { from, to }),
        }
    }

    /// How the process is that a node stands for.
    fn life(&self, node: Node) -> Life {
        match node.role {
            Role::Router => self.routers[node.no].life,
            // A server serves on while its agent is away; each judges for itself.
            Role::Machine => self.machines[node.no].host,
            Role::Store => Life::Running,
        }
    }

    fn deliver(&mut self, message: Message) {
        match self.life(message.to) {
            Life::Running => self.receive(message),
            Life::Paused { until_ms } => {
                // The kernel takes its connections.
                if let Body::Request { leg, attempt } = message.body {
                    self.connected(leg, attempt);
                }
                self.agenda.plan(until_ms, Event::Message(message));
            }
            Life::Killed => self.refuse(message),
            Life::Silent => {}
        }
    }

    fn receive(&mut self, message: Message) {
        let Message { from, to, body } = message;
        match body {
            Body::Ping { number, sent_ms } => {
                let pong = Body::Pong { region: to.region, number, sent_ms, answered: true };
                self.send(to, from, pong);
            }
            Body::Pong { region, number, sent_ms, answered } => {
                self.pinged(to.no, region, number, sent_ms, answered);
            }
            Body::Probe { number } => {
                if let Some(result) = self.machines[to.no].probed(self.now_ms) {
                    self.send(to, from, Body::Probed { number, result });
                }
            }
            Body::Probed { number, result } => self.probed(to.no, from.no, number, result),
            Body::Report(report) => self.reported(from, to, *report),
            Body::Request { leg, attempt } if to.role == Role::Router => {
                self.forwarded(from, to, leg, attempt);
            }
            Body::Request { leg, attempt } => self.take(to.no, leg, attempt),
            Body::Response { leg, attempt, outcome, attempts, no_capacity } => {
                let answer = Answer { outcome, attempts, no_capacity };
                self.answered(leg, attempt, answer);
            }
            Body::Call { number, call } => self.called(from, to, number, *call),
            Body::Returned { number, returned } => self.returned(to.no, number, *returned),
        }
    }

    /// Nobody is there: whoever connects hears so at once.
    fn refuse(&mut self, message: Message) {
        let Message { from, to, body } = message;
        let answer = match body {
            Body::Ping { number, sent_ms } => {
                Body::Pong { region: to.region, number, sent_ms, answered: false }
            }
            Body::Probe { number } => {
                let result = ProbeResult::Failed("connection refused".to_owned());
                Body::Probed { number, result }
            }
            Body::Request { leg, attempt } => {
                let outcome = Outcome::Unreachable;
                Body::Response { leg, attempt, outcome, attempts: 0, no_capacity: false }
            }
            _ => return,
        };
        self.send(to, from, answer);
    }

    fn ring(&mut self, node: Node, boot: u32, timer: Timer) {
        let (life, current) = match node.role {
            Role::Router => (self.routers[node.no].life, self.routers[node.no].boot),
            Role::Machine => (self.machines[node.no].agent(), self.machines[node.no].boot),
            Role::Store => return,
        };
        if boot != current {
            return;
        }
        match life {
            Life::Running => {}
            Life::Paused { until_ms } => {
                return self.agenda.plan(until_ms, Event::Timer { node, boot, timer });
            }
            Life::Killed | Life::Silent => return,
        }
        match timer {
            Timer::Tick => self.tick(node.no),
            Timer::Beat => self.beat(node.no),
            Timer::Attempt { leg, number, limit } => self.attempt_took(leg, number, limit),
            Timer::Probe { machine, number } => {
                self.probed(node.no, machine, number, ProbeResult::TimedOut);
            }
            Timer::Call { number } => self.returned(node.no, number, Returned::TimedOut),
        }
    }
}

impl Body {
    /// Requests and their answers go over connections that drop what comes twice.
    fn may_come_twice(&self) -> bool {
        matches!(self, Self::Ping { .. } | Self::Pong { .. } | Self::Report(_))
    }
}
