//! Processes that stand still, end and start again; machines and regions that are gone.

use mrgc_fleet::model::{Lifecycle, Report};

use super::{Aftermath, MINUTE_MS};
use crate::{
    faults::Fault,
    machine::{BEAT_MS, Life},
    network::{Node, Role},
    plan::ROUTERS,
    router::Router,
    world::{Body, Event, Timer, World},
};

impl World {
    pub(super) fn pause(&mut self, fault: Fault) -> Option<usize> {
        let node = match fault {
            Fault::AgentPause => {
                let no = self.chaos.rng.usize(0..self.machines.len());
                self.machines[no].node
            }
            Fault::HolderPause => self.some_holder()?,
            _ => self.routers[self.chaos.rng.usize(0..self.routers.len())].node,
        };
        let until_ms = match fault {
            // A minute is a minute: where less is left, nobody is paused.
            Fault::HolderPause => self.now_ms + MINUTE_MS,
            _ => (self.now_ms + self.chaos.duration_ms()).min(self.calm_ms),
        };
        if until_ms > self.calm_ms {
            return None;
        }
        let life = match node.role {
            Role::Machine => &mut self.machines[node.no].agent,
            _ => &mut self.routers[node.no].life,
        };
        if *life != Life::Running {
            return None;
        }
        *life = Life::Paused { until_ms };
        if node.role == Role::Router {
            self.routers[node.no].left_ms = self.now_ms;
        }
        self.tally.add(fault);
        self.agenda.plan(until_ms, Event::Aftermath(Aftermath::Resume(node)));
        Some(node.no)
    }

    /// A router that holds a lease now.
    fn some_holder(&mut self) -> Option<Node> {
        let first = self.chaos.rng.usize(0..self.routers.len());
        let order = (0..self.routers.len()).map(|n| (first + n) % self.routers.len());
        let holds = |no: &usize| self.routers[*no].epochs(self.now_ms).failover.is_some();
        let holder = order.into_iter().find(holds)?;
        Some(self.routers[holder].node)
    }

    pub(super) fn resume(&mut self, node: Node) {
        let life = match node.role {
            Role::Machine => &mut self.machines[node.no].agent,
            _ => &mut self.routers[node.no].life,
        };
        // Not one that was started anew meanwhile, and paused again for longer.
        if matches!(life, Life::Paused { until_ms } if *until_ms <= self.now_ms) {
            *life = Life::Running;
            if node.role == Role::Router {
                self.routers[node.no].resumed_ms = self.now_ms;
            }
        }
    }

    pub(super) fn restart_some_router(&mut self) -> Option<usize> {
        let no = self.chaos.rng.usize(0..self.routers.len());
        if self.routers[no].life != Life::Running {
            return None;
        }
        self.tally.add(Fault::RouterRestart);
        self.end_router(no, Life::Killed);
        self.later(Aftermath::StartRouter(no));
        Some(no)
    }

    fn end_router(&mut self, no: usize, life: Life) {
        (self.routers[no].life, self.routers[no].left_ms) = (life, self.now_ms);
        self.drop_legs(no, life == Life::Killed);
    }

    /// Starts a router that is gone: it remembers nothing.
    pub(super) fn start_router(&mut self, no: usize) {
        let Router { node, boot, life, .. } = self.routers[no];
        if life == Life::Running {
            return;
        }
        let clock = self.clock();
        self.routers[no] = Router::new(node, clock, boot + 1, self.now_ms, &self.plan);
        self.watch.restarted(node);
        let timer = Timer::Tick;
        self.agenda.plan(self.now_ms + 1, Event::Timer { node, boot: boot + 1, timer });
    }

    pub(super) fn restart_some_agent(&mut self) -> Option<usize> {
        let no = self.chaos.rng.usize(0..self.machines.len());
        if self.machines[no].agent() != Life::Running {
            return None;
        }
        self.tally.add(Fault::AgentRestart);
        self.machines[no].agent = Life::Killed;
        let (generation, sequence) =
            (self.machines[no].registration.generation, self.machines[no].sequence);
        self.later(Aftermath::StartAgent(no));
        // Its former self is not quite dead.
        for n in 1..=self.chaos.rng.u64(0..3) {
            let zombie = Aftermath::Zombie { machine: no, generation, sequence: sequence + n };
            self.after(n * BEAT_MS, zombie);
        }
        Some(no)
    }

    /// Starts an agent that is gone: it registers, under a new generation.
    pub(super) fn start_agent(&mut self, no: usize) {
        let machine = &self.machines[no];
        if machine.agent() == Life::Running || matches!(machine.agent(), Life::Paused { .. }) {
            return;
        }
        let region = machine.node.region;
        if self.store.admits(region, &mut self.tally).is_err() {
            return self.after(1_000, Aftermath::StartAgent(no));
        }
        self.watch.interrupted(no);
        let clock = self.clock();
        let machine = &mut self.machines[no];
        machine.registration = self.store.register(no, region, &machine.registration, self.now_ms);
        (machine.host, machine.agent, machine.clock) = (Life::Running, Life::Running, clock);
        machine.boot += 1;
        machine.sequence = 0;
        let (node, boot) = (machine.node, machine.boot);
        self.agenda.plan(self.now_ms + 10, Event::Timer { node, boot, timer: Timer::Beat });
    }

    /// An agent reports.
    pub(crate) fn beat(&mut self, no: usize) {
        let machine = &mut self.machines[no];
        let report = machine.report(self.now_ms);
        let (node, boot) = (machine.node, machine.boot);
        let next_ms = machine.clock.after(self.now_ms, BEAT_MS);
        self.agenda.plan(next_ms, Event::Timer { node, boot, timer: Timer::Beat });
        self.report(node, report);
    }

    pub(super) fn zombie(&mut self, no: usize, generation: u64, sequence: u64) {
        let machine = &self.machines[no];
        let registration = &machine.registration;
        let report = Report {
            lifecycle: Lifecycle::Available,
            ..Report::new(
                registration.id.clone(),
                registration.region.clone(),
                generation,
                sequence,
            )
        };
        self.report(machine.node, report);
    }

    fn report(&mut self, from: Node, report: Report) {
        let to = Node { role: Role::Store, region: from.region, no: from.region };
        self.send(from, to, Body::Report(Box::new(report)));
    }

    /// A machine falls silent: its server and its agent.
    pub(super) fn silence_one(&mut self) -> Option<usize> {
        let no = self.chaos.rng.usize(0..self.machines.len());
        if self.machines[no].host != Life::Running {
            return None;
        }
        self.tally.add(Fault::BlackHoleInstance);
        self.end_machine(no, Life::Silent);
        self.later(Aftermath::StartAgent(no));
        Some(no)
    }

    fn end_machine(&mut self, no: usize, life: Life) {
        self.machines[no].host = life;
        match life {
            Life::Killed => self.reset_all(no),
            _ => drop(self.machines[no].drop_all()),
        }
    }

    /// All that is in a region ends, or is cut off from everything.
    pub(super) fn lose_region(&mut self, fault: Fault) -> Option<usize> {
        let region = self.chaos.rng.usize(0..self.plan.regions.len());
        let life = if fault == Fault::RegionKilled { Life::Killed } else { Life::Silent };
        self.tally.add(fault);
        for no in 0..self.machines.len() {
            if self.machines[no].node.region == region && self.machines[no].host == Life::Running {
                self.end_machine(no, life);
            }
        }
        for no in region * ROUTERS..(region + 1) * ROUTERS {
            self.end_router(no, life);
        }
        self.later(Aftermath::StartRegion(region));
        Some(region)
    }

    pub(super) fn start_region(&mut self, region: usize) {
        for no in region * ROUTERS..(region + 1) * ROUTERS {
            self.start_router(no);
        }
        for no in 0..self.machines.len() {
            if self.machines[no].node.region == region {
                self.start_agent(no);
            }
        }
    }
}
