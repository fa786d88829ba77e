//! The bounds a policy runs within, and what happens at each.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// Bounds of one policy instance.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A larger artifact is refused before it is compiled.
    pub artifact_bytes: usize,
    /// Growing beyond it fails in the guest, which then traps.
    pub memory_bytes: usize,
    /// `score` and `explain` end with a fault when they have run for so long.
    pub score_deadline: Duration,
    /// `observe`, `configure`, `describe` and starting up: all that is off the data path.
    pub observe_deadline: Duration,
    /// What the host copies out of one call: its scores or its text, or one log line before it is cut. A
    /// call that hands over more ends with a fault.
    pub answer_bytes: usize,
    /// Log lines kept per call; more are dropped and counted.
    pub log_lines: u32,
    /// A longer line is cut.
    pub log_line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            artifact_bytes: 8 << 20,
            memory_bytes: 64 << 20,
            score_deadline: Duration::from_millis(2),
            observe_deadline: Duration::from_millis(50),
            answer_bytes: 1 << 20,
            log_lines: 16,
            log_line_bytes: 1024,
        }
    }
}

/// Tables a component may have, and elements in each: enough for any compiled policy.
const TABLES: usize = 8;
const TABLE_ELEMENTS: usize = 10_000;

/// Holds an instance to its memory limit and remembers that it was reached.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit_bytes: usize,
    pub(crate) reached: bool,
}

impl MemoryLimiter {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, reached: false }
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.limit_bytes;
        self.reached |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn tables(&self) -> usize {
        TABLES
    }
}
