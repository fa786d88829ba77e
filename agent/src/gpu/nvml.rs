//! The calls to NVML, in the thread that may hang.

mod device;
mod progress;

use std::{ffi::OsStr, sync::Arc};

use nvml_wrapper::{Nvml, error::NvmlError};

pub(super) use self::progress::Progress;
use self::{device::Known, progress::Asked};
use super::{status::Sample, tracker::Round};
use crate::signals::{Check, Reading};

/// NVML's own name on Linux, as the wrapper looks for it.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";

/// More than any machine has.
const MAX_GPUS: u32 = 64;

/// Loads NVML and starts it.
pub(super) fn load(library: Option<&str>) -> Result<Nvml, NvmlError> {
    let mut builder = Nvml::builder();
    if let Some(path) = library {
        builder.lib_path(OsStr::new(path));
    }
    builder.init()
}

/// Why there is no NVML.
pub(super) fn not_loaded(library: Option<&str>, error: &NvmlError) -> Check {
    match (error, library) {
        // dlopen gives no codes, only its text.
        (NvmlError::LibloadingError(inner), None) if inner.to_string().contains("No such file") => {
            Check::missing(format!(
                "NVML library {DEFAULT_LIBRARY} not found: no NVIDIA driver on this machine"
            ))
        }
        (NvmlError::LibloadingError(inner), library) => {
            let library = library.unwrap_or(DEFAULT_LIBRARY);
            Check::error(format!("NVML library {library} cannot be loaded: {inner}"))
        }
        (error, _) => Check::error(format!("NVML cannot start: {error}")),
    }
}

/// What a round asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// What changes often, and what is rare of those GPUs whose turn it is.
    Often,
    Everything,
}

/// NVML as long as it works, and the way back where it does not.
pub(super) struct Sampler {
    library: Option<String>,
    /// Rounds from one in which a GPU is asked for what is rare to its next.
    rare_every: u32,
    progress: Arc<Progress>,
    session: Option<Session>,
}

/// One life of NVML, and what need not be asked again.
struct Session {
    nvml: Nvml,
    driver_version: Option<String>,
    rounds: u32,
    known: Vec<Known>,
}

impl Sampler {
    pub(super) fn new(library: Option<String>, rare_every: u32, progress: Arc<Progress>) -> Self {
        Self { library, rare_every, progress, session: None }
    }

    /// One round through the GPUs. A driver that was not there is looked for anew each time.
    pub(super) fn sample(&mut self, scope: Scope) -> Reading<Round> {
        let (mut session, count) = match self.begin() {
            Ok(begun) => begun,
            Err(check) => return Reading { value: None, check },
        };
        let round = session.rounds;
        session.rounds = round.wrapping_add(1);
        let is_full = scope == Scope::Everything || round == 0 || self.rare_every == 1;
        session.known.resize_with(count as usize, Known::default);
        let mut samples = Vec::new();
        for (index, known) in (0..count).zip(&mut session.known) {
            let is_its_turn = round.wrapping_add(index).is_multiple_of(self.rare_every);
            let mut asked = Asked::new(&self.progress, index);
            let sample = device::sample(&session.nvml, &mut asked, known, is_full || is_its_turn);
            if let Some(error) = asked.driver_gone {
                return Reading::error(format!("the driver is gone: {error}"));
            }
            samples.push(Sample {
                is_lost: asked.is_lost,
                requires_reset: asked.requires_reset,
                failed_calls: asked.failed_calls,
                ..sample
            });
        }
        let driver_version = session.driver_version.clone();
        self.session = Some(session);
        Reading::ok(Round { driver_version, samples, is_full })
    }

    /// NVML and how many GPUs it lists. Whoever does not put the session back ends it.
    fn begin(&mut self) -> Result<(Session, u32), Check> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.start()?,
        };
        self.progress.enter("nvmlDeviceGetCount_v2", None);
        match session.nvml.device_count() {
            Ok(0) => Err(Check::missing("NVML is here, and lists no GPU")),
            Ok(count) => Ok((session, count.min(MAX_GPUS))),
            Err(error) => Err(Check::error(format!("NVML cannot count the GPUs: {error}"))),
        }
    }

    fn start(&self) -> Result<Session, Check> {
        let library = self.library.as_deref();
        self.progress.enter("nvmlInit_v2", None);
        let nvml = load(library).map_err(|error| not_loaded(library, &error))?;
        self.progress.enter("nvmlSystemGetDriverVersion", None);
        let driver_version = nvml.sys_driver_version().ok();
        Ok(Session { nvml, driver_version, rounds: 0, known: Vec::new() })
    }
}
