//! Which call the thread is in, and what came of the calls to one GPU.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nvml_wrapper::error::NvmlError;

/// Which call the thread is in, for those who wait for it, and how many there were.
#[derive(Debug, Default)]
pub(in crate::gpu) struct Progress {
    current: Mutex<Option<(&'static str, Option<u32>)>>,
    calls: AtomicU64,
}

impl Progress {
    pub(super) fn enter(&self, call: &'static str, gpu: Option<u32>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // A pair of plain values is whole, whoever panicked while holding it.
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((call, gpu));
    }

    /// Since the agent's start.
    pub(in crate::gpu) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.current.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((call, Some(gpu))) => write!(f, "{call} of GPU {gpu}"),
            Some((call, None)) => f.write_str(call),
            None => f.write_str("its start"),
        }
    }
}

/// One GPU being asked.
pub(super) struct Asked<'a> {
    progress: &'a Progress,
    pub(super) index: u32,
    pub(super) is_lost: bool,
    pub(super) requires_reset: bool,
    /// NVML has no driver any more.
    pub(super) driver_gone: Option<NvmlError>,
    /// But for what the GPU, or an older driver, does not have.
    pub(super) failed_calls: Vec<String>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(progress: &'a Progress, index: u32) -> Self {
        Self {
            progress,
            index,
            is_lost: false,
            requires_reset: false,
            driver_gone: None,
            failed_calls: Vec::new(),
        }
    }

    /// Asks, unless it is known already that nobody would answer.
    pub(super) fn ask<T>(
        &mut self,
        call: &'static str,
        query: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.is_lost || self.driver_gone.is_some() {
            return None;
        }
        self.progress.enter(call, Some(self.index));
        match query() {
            Ok(value) => return Some(value),
            Err(
                NvmlError::NotSupported
                | NvmlError::FailedToLoadSymbol(_)
                | NvmlError::FunctionNotFound,
            ) => {}
            Err(NvmlError::GpuLost) => self.is_lost = true,
            Err(NvmlError::ResetRequired) => self.requires_reset = true,
            Err(
                error @ (NvmlError::Uninitialized
                | NvmlError::DriverNotLoaded
                | NvmlError::LibRmVersionMismatch),
            ) => self.driver_gone = Some(error),
            Err(error) => self.failed_calls.push(format!("{call}: {error}")),
        }
        None
    }
}
