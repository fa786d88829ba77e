//! Doing in the store what the monitor found, while this router holds the lease for it: one action at a time,
//! each of a call or two, as the real router's executor does.

use std::collections::VecDeque;

use mrgc_fleet::{
    model::{Desired, DesiredState, Stamp, Standing},
    monitor::{Action, Epochs, SHOWN_WITHIN_MS, Scaling, is_drained},
};

use crate::{
    calls::{Asked, Call, Returned},
    plan::number,
    router::{FAILOVER, Router},
    world::World,
};

/// Actions that wait, at most: fewer than in the real router, so that there is no room at times.
pub(crate) const WAITING: usize = 8;
/// Failovers to be written that wait for another try; the oldest goes first.
const UNWRITTEN: usize = 256;
const TRY_AGAIN_MS: u64 = 5_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    waiting: VecDeque<Job>,
    unwritten: VecDeque<Job>,
    /// When the first of these is tried again.
    retry_ms: u64,
    going: Option<Job>,
}

#[derive(Debug)]
struct Job {
    action: Action,
    /// Of the leases under which it was found.
    epochs: Epochs,
    found_ms: u64,
    /// What is left of it to be called.
    calls: VecDeque<Call>,
}

impl Executor {
    pub(crate) fn room(&self) -> usize {
        WAITING - self.waiting.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next action whose time has come, and that is still this router's to do.
    fn next(&mut self, held: Epochs, is_anothers: bool, now_ms: u64) -> Option<Job> {
        if now_ms >= self.retry_ms {
            self.unwritten.retain(|job| job.may_be_due(held, is_anothers, now_ms));
            match self.unwritten.iter().position(|job| job.is_due(held, now_ms)) {
                Some(due) => return self.unwritten.remove(due),
                None => self.retry_ms = now_ms + TRY_AGAIN_MS,
            }
        }
        while let Some(job) = self.waiting.pop_front() {
            if job.is_due(held, now_ms) {
                return Some(job);
            }
            if job.may_be_due(held, is_anothers, now_ms) {
                self.keep(job);
            }
        }
        None
    }

    /// The store did not do it.
    fn failed(&mut self, job: Job, now_ms: u64) {
        if matches!(job.action, Action::Event(_)) {
            self.retry_ms = now_ms + TRY_AGAIN_MS;
            self.keep(job);
        }
    }

    fn keep(&mut self, job: Job) {
        if self.unwritten.len() == UNWRITTEN {
            self.unwritten.pop_front();
        }
        self.unwritten.push_back(job);
    }
}

impl Job {
    fn is_due(&self, held: Epochs, now_ms: u64) -> bool {
        let is_held = self.lease(held) == self.lease(self.epochs);
        match &self.action {
            // Of one that is under way, who holds the lease by now writes.
            Action::Event(event) => is_held || event.ended_at.is_some(),
            Action::Scale(_) => is_held,
            _ => is_held && !self.is_old(now_ms),
        }
    }

    /// An event, and nobody is known to hold its lease: this router may again, in the same epoch.
    fn may_be_due(&self, held: Epochs, is_anothers: bool, now_ms: u64) -> bool {
        let is_event = matches!(self.action, Action::Event(_));
        self.is_due(held, now_ms) || is_event && self.lease(held).is_none() && !is_anothers
    }

    /// The epoch of its lease.
    fn lease(&self, epochs: Epochs) -> Option<u64> {
        match self.action {
            Action::Replace { .. } | Action::Release { .. } | Action::Forget { .. } => {
                epochs.health
            }
            Action::Scale(_) | Action::Record(_) | Action::Event(_) => epochs.failover,
        }
    }

    /// The monitor has found again by now what is left to do.
    fn is_old(&self, now_ms: u64) -> bool {
        now_ms >= self.found_ms + SHOWN_WITHIN_MS
    }
}

impl World {
    /// What a lease's holder has to do.
    pub(crate) fn find_actions(&mut self, no: usize) {
        let at_ms = self.now_ms;
        let router = &mut self.routers[no];
        let epochs = router.epochs(at_ms);
        let (now_ms, at) = (router.clock.now_ms(at_ms), router.clock.wall(at_ms));
        self.watch.leads(router, at_ms);
        let room = router.executor.room();
        for action in router.monitor.actions(epochs, room, now_ms, at) {
            let job = Job { action, epochs, found_ms: now_ms, calls: VecDeque::new() };
            router.executor.waiting.push_back(job);
        }
        self.watch.handed_over(router, epochs.failover);
        self.execute(no);
    }

    /// Goes on with the next action, where none is under way.
    pub(crate) fn execute(&mut self, no: usize) {
        let router = &mut self.routers[no];
        let (epochs, now_ms) = (router.epochs(self.now_ms), router.now_ms(self.now_ms));
        if router.executor.going.is_some() {
            return;
        }
        let is_anothers = router.leases[FAILOVER].other_holder().is_some();
        if let Some(mut job) = router.executor.next(epochs, is_anothers, now_ms) {
            job.calls = self.calls_for(no, &job.action);
            self.routers[no].executor.going = Some(job);
            self.step_on(no);
        }
    }

    /// Makes the next call of the action under way.
    fn step_on(&mut self, no: usize) {
        let Some(job) = &mut self.routers[no].executor.going else { return };
        let Some(call) = job.calls.pop_front() else {
            self.routers[no].executor.going = None;
            return self.execute(no);
        };
        if !self.call(no, call, Asked::Step) {
            let router = &mut self.routers[no];
            let now_ms = router.clock.now_ms(self.now_ms);
            let job = router.executor.going.take();
            job.into_iter().for_each(|job| router.executor.failed(job, now_ms));
        }
    }

    /// What came of a call of the action under way.
    pub(crate) fn step_returned(&mut self, no: usize, returned: Returned) {
        let home = &self.plan.regions[self.routers[no].node.region].id;
        let router = &mut self.routers[no];
        let now_ms = router.clock.now_ms(self.now_ms);
        let Some(mut job) = router.executor.going.take() else { return };
        match (returned, &job.action) {
            (Returned::Capacity(stored), Action::Scale(scaling)) => {
                let capacity = scaling.over(stored.as_ref(), home);
                job.calls.extend(capacity.map(Call::WriteCapacity));
            }
            // It was released since its monitor read of it.
            (Returned::Wanted(wanted), _) if !wanted.as_ref().is_some_and(is_drain) => {
                job.calls.clear();
            }
            (Returned::Wanted(_), _) => {}
            (Returned::Yielded, _) => job.calls.clear(),
            (Returned::Done, _) => {}
            _ => {
                router.executor.failed(job, now_ms);
                return self.execute(no);
            }
        }
        router.executor.going = Some(job);
        self.step_on(no);
    }

    /// One that breaks off half-way is found again by the state that it leaves.
    fn calls_for(&self, no: usize, action: &Action) -> VecDeque<Call> {
        let router = &self.routers[no];
        let replacement = |instance: &Standing, is_open| Call::Replacement {
            machine: number(instance.registration.id.as_str()),
            is_open,
        };
        match action {
            Action::Replace { instance, .. } => {
                let machine = number(instance.registration.id.as_str());
                let drain = match is_drained(instance) {
                    true => Call::ReadWish { machine },
                    false => self.wish(router, instance, DesiredState::Draining),
                };
                [drain, replacement(instance, true)].into()
            }
            Action::Release { instance } => {
                [replacement(instance, false), self.wish(router, instance, DesiredState::Serving)]
                    .into()
            }
            Action::Scale(Scaling { pool, .. }) => {
                [Call::ReadCapacity { pool: pool.clone() }].into()
            }
            Action::Record(record) => [Call::Record(record.clone())].into(),
            Action::Event(event) => [Call::Failover(event.clone())].into(),
            // No cloud tells of the machines here.
            Action::Forget { .. } => VecDeque::new(),
        }
    }

    fn wish(&self, router: &Router, instance: &Standing, state: DesiredState) -> Call {
        let id = instance.registration.id.clone();
        let wish = Desired {
            region: instance.registration.region.clone(),
            state,
            reason: None,
            operator: Some(router.monitor.router().to_owned()),
            automatic: true,
            at: router.clock.wall(self.now_ms),
            writer_region: self.plan.regions[router.node.region].id.clone(),
            stamp: Stamp::default(),
            instance: id.clone(),
        };
        Call::Wish { machine: number(id.as_str()), wish }
    }
}

fn is_drain(wish: &Desired) -> bool {
    wish.automatic && wish.state == DesiredState::Draining
}
