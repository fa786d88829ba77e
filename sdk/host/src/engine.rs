//! One wasmtime engine for a process, with the ticker that ends calls which run too long.

use std::fmt;

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::{Limits, ticker::Ticker};

/// Instances alive at once: data threads × policies × configurations, twice (one in use, one to come).
const MAX_INSTANCES: u32 = 2048;

/// Compiles policies and runs them within [`Limits`]. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) limits: Limits,
    pub(crate) ticker: Ticker,
}

impl Engine {
    /// # Errors
    ///
    /// Where the process may not reserve the address space for its instances, or start a thread.
    pub fn new(limits: Limits) -> Result<Self, EngineError> {
        let wasmtime =
            wasmtime::Engine::new(&config(limits)).map_err(|e| EngineError(format!("{e:#}")))?;
        let ticker = Ticker::start(wasmtime.weak())
            .map_err(|e| EngineError(format!("cannot start the deadline thread: {e}")))?;
        Ok(Self { wasmtime, limits, ticker })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The engine could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the WASM engine cannot start: {0}")]
pub struct EngineError(String);

fn config(limits: Limits) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MAX_INSTANCES)
        .total_core_instances(MAX_INSTANCES * 4)
        .total_memories(MAX_INSTANCES)
        .total_tables(MAX_INSTANCES * 2)
        .max_memories_per_component(1)
        .max_memory_size(limits.memory_bytes);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
