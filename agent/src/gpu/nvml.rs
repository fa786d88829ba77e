//! The calls to NVML, in the thread that may hang.

use std::{
    ffi::OsStr,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use mrgc_fleet::model::Gpu;
use nvml_wrapper::{Device, Nvml, enum_wrappers::device::TemperatureSensor, error::NvmlError};

use crate::signals::{Check, Reading};

/// NVML's own name on Linux, as the wrapper looks for it.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";

/// More than any machine has.
const MAX_GPUS: u32 = 64;

/// Which call the thread is in, for those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Option<(&'static str, Option<u32>)>>);

impl Progress {
    fn enter(&self, call: &'static str, gpu: Option<u32>) {
        // A pair of plain values is whole, whoever panicked while holding it.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((call, gpu));
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((call, Some(gpu))) => write!(f, "{call} of GPU {gpu}"),
            Some((call, None)) => f.write_str(call),
            None => f.write_str("its start"),
        }
    }
}

/// NVML as long as it works, and the way back where it does not.
pub(super) struct Sampler {
    library: Option<String>,
    progress: Arc<Progress>,
    nvml: Option<Nvml>,
}

impl Sampler {
    pub(super) fn new(library: Option<String>, progress: Arc<Progress>) -> Self {
        Self { library, progress, nvml: None }
    }

    /// Asks every GPU for everything. A driver that was not there is looked for anew each time.
    pub(super) fn sample(&mut self) -> Reading<Vec<Gpu>> {
        let nvml = match self.nvml.take() {
            Some(nvml) => nvml,
            None => match self.load() {
                Ok(nvml) => nvml,
                Err(error) => return self.not_loaded(&error),
            },
        };
        self.progress.enter("nvmlDeviceGetCount_v2", None);
        match nvml.device_count() {
            Ok(0) => Reading::missing("NVML is here, and lists no GPU"),
            Ok(count) => {
                let reading = self.sample_all(&nvml, count.min(MAX_GPUS));
                self.nvml = Some(nvml);
                reading
            }
            // Dropped here, so that the next sample begins with a new NVML.
            Err(error) => Reading::error(format!("NVML cannot count the GPUs: {error}")),
        }
    }

    fn load(&self) -> Result<Nvml, NvmlError> {
        self.progress.enter("nvmlInit_v2", None);
        let mut builder = Nvml::builder();
        if let Some(path) = &self.library {
            builder.lib_path(OsStr::new(path));
        }
        builder.init()
    }

    fn not_loaded(&self, error: &NvmlError) -> Reading<Vec<Gpu>> {
        match (error, &self.library) {
            // dlopen gives no codes, only its text.
            (NvmlError::LibloadingError(inner), None)
                if inner.to_string().contains("No such file") =>
            {
                Reading::missing(format!(
                    "NVML library {DEFAULT_LIBRARY} not found: no NVIDIA driver on this machine"
                ))
            }
            (NvmlError::LibloadingError(inner), library) => {
                let library = library.as_deref().unwrap_or(DEFAULT_LIBRARY);
                Reading::error(format!("NVML library {library} cannot be loaded: {inner}"))
            }
            (error, _) => Reading::error(format!("NVML cannot start: {error}")),
        }
    }

    fn sample_all(&self, nvml: &Nvml, count: u32) -> Reading<Vec<Gpu>> {
        let mut gpus = Vec::new();
        let mut troubles = Vec::new();
        let mut lost = 0;
        for index in 0..count {
            let mut asked =
                Asked { progress: &self.progress, index, troubles: vec![], lost: false };
            gpus.push(sample_one(nvml, &mut asked));
            lost += u32::from(asked.lost);
            if !asked.troubles.is_empty() {
                troubles.push(format!("GPU {index}: {}", asked.troubles.join(", ")));
            }
        }
        let reason = troubles.join("; ");
        let check = if lost == count {
            Check::error(reason)
        } else if !troubles.is_empty() {
            Check::degraded(reason)
        } else {
            Check::ok()
        };
        Reading::noted(gpus, check)
    }
}

/// One GPU being asked.
struct Asked<'a> {
    progress: &'a Progress,
    index: u32,
    /// What it did not answer, but for what it never can.
    troubles: Vec<String>,
    /// It is not to be had any more, or not before a reset.
    lost: bool,
}

impl Asked<'_> {
    fn ask<T>(
        &mut self,
        call: &'static str,
        query: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        self.progress.enter(call, Some(self.index));
        match query() {
            Ok(value) => Some(value),
            Err(NvmlError::NotSupported) => None,
            Err(error) => {
                self.lost |= matches!(error, NvmlError::GpuLost | NvmlError::ResetRequired);
                self.troubles.push(format!("{call}: {error}"));
                None
            }
        }
    }
}

fn sample_one(nvml: &Nvml, asked: &mut Asked<'_>) -> Gpu {
    let index = asked.index;
    match asked.ask("nvmlDeviceGetHandleByIndex_v2", || nvml.device_by_index(index)) {
        Some(device) => sample_device(&device, asked),
        None => {
            asked.lost = true;
            Gpu {
                index,
                uuid: None,
                name: None,
                utilization: None,
                memory_total_bytes: None,
                memory_used_bytes: None,
                temperature_celsius: None,
                power_watts: None,
            }
        }
    }
}

fn sample_device(device: &Device<'_>, asked: &mut Asked<'_>) -> Gpu {
    let uuid = asked.ask("nvmlDeviceGetUUID", || device.uuid());
    let name = asked.ask("nvmlDeviceGetName", || device.name());
    let utilization = asked.ask("nvmlDeviceGetUtilizationRates", || device.utilization_rates());
    let memory = asked.ask("nvmlDeviceGetMemoryInfo_v2", || device.memory_info());
    let temperature =
        asked.ask("nvmlDeviceGetTemperature", || device.temperature(TemperatureSensor::Gpu));
    let power_milliwatts = asked.ask("nvmlDeviceGetPowerUsage", || device.power_usage());
    Gpu {
        index: asked.index,
        uuid,
        name,
        utilization: utilization.map(|percent| f64::from(percent.gpu) / 100.0),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
        temperature_celsius: temperature,
        power_watts: power_milliwatts.map(|milliwatts| f64::from(milliwatts) / 1000.0),
    }
}
