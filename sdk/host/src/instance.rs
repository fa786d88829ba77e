//! A policy at work: one sandbox, with the views it was shown.

use std::{fmt, sync::Arc, time::Duration};

use wasmtime::{Store, Trap};

use crate::{
    Candidate, Engine, Fault, LoadError, Manifest, Policy, Request,
    bindings::{
        self, PolicyPre,
        exports::mrgc::policy::routing,
        mrgc::policy::log::{self, Level},
    },
    deadline::Watch,
    limits::MemoryLimiter,
    ticker::Running,
};

pub use routing::Loads;

/// What the host keeps of a sandbox: its bounds and its log.
pub(crate) struct Guest {
    name: String,
    memory: MemoryLimiter,
    watch: Watch,
    log_line_bytes: usize,
    log_lines_left: u32,
    log_lines_dropped: u64,
    /// The last error it logged in this call: a panic's message, if it traps next.
    last_error: Option<String>,
}

/// One sandboxed instance of a policy with one configuration. It serves all views, on one thread at a
/// time.
pub struct Instance {
    store: Store<Guest>,
    policy: bindings::Policy,
    engine: Engine,
    running: Arc<Running>,
    alive: bool,
}

/// A decision's scores, checked: each is a number, at most 100.
#[derive(Debug, PartialEq)]
pub struct Scores {
    pub points: Vec<f32>,
    /// How many were above 100.
    pub clamped: u32,
}

impl Instance {
    /// Instantiates and configures. `config` is a JSON object.
    ///
    /// # Errors
    ///
    /// The policy rejects the configuration, faults, or there is no room for another instance.
    pub fn new(policy: &Policy, config: &str) -> Result<Self, LoadError> {
        let name = &policy.manifest().name;
        let mut instance = Self::start(policy.engine(), policy.pre(), name)?;
        let deadline = instance.engine.limits.observe_deadline;
        instance
            .call(deadline, |policy, store| {
                policy.mrgc_policy_routing().call_configure(store, config)
            })?
            .map_err(LoadError::Config)?;
        Ok(instance)
    }

    pub(crate) fn describe(engine: &Engine, pre: &PolicyPre<Guest>) -> Result<Manifest, LoadError> {
        let mut instance = Self::start(engine, pre, "")?;
        let manifest = instance.call(engine.limits.observe_deadline, |policy, store| {
            policy.mrgc_policy_routing().call_describe(store)
        })?;
        let routing::Manifest { name, version, summary, config_schema } = manifest;
        Ok(Manifest { name, version, summary, config_schema })
    }

    fn start(engine: &Engine, pre: &PolicyPre<Guest>, name: &str) -> Result<Self, LoadError> {
        let limits = engine.limits;
        let guest = Guest {
            name: name.to_owned(),
            memory: MemoryLimiter::new(limits.memory_bytes),
            watch: Watch::default(),
            log_line_bytes: limits.log_line_bytes,
            log_lines_left: limits.log_lines,
            log_lines_dropped: 0,
            last_error: None,
        };
        let mut store = Store::new(&engine.wasmtime, guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(limits.answer_bytes);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().watch.look()));
        let ticks = store.data_mut().watch.start(limits.observe_deadline);
        store.set_epoch_deadline(ticks);
        let running = engine.ticker.mark();
        running.set(true);
        let started = pre.instantiate(&mut store);
        running.set(false);
        match started {
            Ok(policy) => Ok(Self { store, policy, engine: engine.clone(), running, alive: true }),
            Err(e) if e.is::<wasmtime::PoolConcurrencyLimitError>() => {
                Err(LoadError::NoRoom(e.to_string()))
            }
            Err(e) => {
                Err(LoadError::Start(fault(&e, store.data(), engine, limits.observe_deadline)))
            }
        }
    }

    /// Shows the policy a view's candidates, in place of those it knew.
    ///
    /// # Errors
    ///
    /// The policy faulted; it is dead.
    pub fn observe(&mut self, view: u32, fleet: &[Candidate<'_>]) -> Result<(), Fault> {
        self.call(self.engine.limits.observe_deadline, |policy, store| {
            policy.mrgc_policy_routing().call_observe(store, view, fleet)
        })
    }

    /// # Errors
    ///
    /// The policy faulted; it is dead.
    pub fn forget(&mut self, view: u32) -> Result<(), Fault> {
        self.call(self.engine.limits.observe_deadline, |policy, store| {
            policy.mrgc_policy_routing().call_forget(store, view)
        })
    }

    /// One score for each of `loads`' candidates.
    ///
    /// # Errors
    ///
    /// The policy faulted. It is dead, but after a wrong answer, which it may not give again.
    pub fn score(
        &mut self,
        view: u32,
        request: &Request<'_>,
        picks: &[u32],
        loads: Loads<'_>,
    ) -> Result<Scores, Fault> {
        let expected = loads.in_flight.len();
        let points = self.call(self.engine.limits.score_deadline, |policy, store| {
            policy.mrgc_policy_routing().call_score(store, view, request.clone(), picks, loads)
        })?;
        checked(points, expected)
    }

    /// Why a candidate, by its index in the view, scores as it does.
    ///
    /// # Errors
    ///
    /// The policy faulted; it is dead.
    pub fn explain(
        &mut self,
        view: u32,
        request: &Request<'_>,
        picks: &[u32],
        loads: Loads<'_>,
        candidate: u32,
    ) -> Result<String, Fault> {
        self.call(self.engine.limits.score_deadline, |policy, store| {
            policy.mrgc_policy_routing().call_explain(
                store,
                view,
                request.clone(),
                picks,
                loads,
                candidate,
            )
        })
    }

    /// Log lines over the bound, in all calls.
    pub fn log_lines_dropped(&self) -> u64 {
        self.store.data().log_lines_dropped
    }

    /// Whether a fault has ended it.
    pub fn is_dead(&self) -> bool {
        !self.alive
    }

    fn call<T>(
        &mut self,
        deadline: Duration,
        call: impl FnOnce(&bindings::Policy, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        if !self.alive {
            return Err(Fault::Dead);
        }
        let guest = self.store.data_mut();
        guest.log_lines_left = self.engine.limits.log_lines;
        guest.last_error = None;
        guest.memory.reached = false;
        let ticks = guest.watch.start(deadline);
        self.store.set_epoch_deadline(ticks);
        self.running.set(true);
        let answer = call(&self.policy, &mut self.store);
        self.running.set(false);
        answer.map_err(|error| {
            self.alive = false;
            fault(&error, self.store.data(), &self.engine, deadline)
        })
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("policy", &self.store.data().name)
            .field("alive", &self.alive)
            .finish_non_exhaustive()
    }
}

/// Each loop is one that the compiler makes vector instructions of.
fn checked(mut points: Vec<f32>, expected: usize) -> Result<Scores, Fault> {
    if points.len() != expected {
        return Err(Fault::WrongLength { expected, got: points.len() });
    }
    if !points.iter().fold(true, |all, value| all & value.is_finite()) {
        let broken = points.iter().copied().enumerate().find(|(_, value)| !value.is_finite());
        let (index, value) = broken.unwrap_or_default();
        return Err(Fault::NotANumber { index, value });
    }
    let mut clamped = 0;
    for value in &mut points {
        clamped += u32::from(*value > 100.0);
        *value = value.min(100.0);
    }
    Ok(Scores { points, clamped })
}

fn fault(error: &wasmtime::Error, guest: &Guest, engine: &Engine, deadline: Duration) -> Fault {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Fault::Timeout { deadline_ms: deadline.as_millis() as u64 },
        _ if guest.memory.reached => Fault::Memory { limit_bytes: engine.limits.memory_bytes },
        trap => Fault::Trap(match (&guest.last_error, trap) {
            (Some(message), _) => message.clone(),
            (None, Some(trap)) => trap.to_string(),
            (None, None) => format!("{:#}", error.root_cause()),
        }),
    }
}

impl log::Host for Guest {
    fn write(&mut self, level: Level, mut message: String) {
        if self.log_lines_left == 0 {
            self.log_lines_dropped += 1;
            return;
        }
        self.log_lines_left -= 1;
        message.truncate(message.floor_char_boundary(self.log_line_bytes));
        let policy = self.name.as_str();
        match level {
            Level::Debug => tracing::debug!(policy, "{message}"),
            Level::Info => tracing::info!(policy, "{message}"),
            Level::Warn => tracing::warn!(policy, "{message}"),
            Level::Error => {
                tracing::warn!(policy, "{message}");
                self.last_error = Some(message);
            }
        }
    }
}
