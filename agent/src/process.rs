//! What the agent itself uses of the machine.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// This process, as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    /// Since 1970.
    pub(crate) start_seconds: u64,
    pub(crate) open_files: Option<usize>,
}

impl Process {
    /// `None` where `/proc` cannot be read.
    pub(crate) fn look() -> Option<Self> {
        let pid = get_current_pid().ok()?;
        let mut system = System::new().ok()?;
        let kind = ProcessRefreshKind::nothing().with_cpu().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
        let process = system.process(pid)?;
        Some(Self {
            cpu_seconds: process.accumulated_cpu_time() as f64 / 1_000.0,
            resident_bytes: process.memory(),
            start_seconds: process.start_time(),
            open_files: process.open_files(),
        })
    }
}
