//! What one GPU is asked: a handful of calls in each round, and more in one round of many.

use nvml_wrapper::{
    Device, Nvml,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::{
        device::{Clock, EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold},
        nv_link::ErrorCounter,
    },
    enums::device::{SampleValue, UsedGpuMemory},
    error::NvmlError,
    struct_wrappers::device::{FieldValueSample, ProcessInfo},
    structs::device::FieldId,
    sys_exports::field_id,
};

use super::progress::Asked;
use crate::gpu::status::{
    Ecc, MigSlice, NvLink, PciAddress, Process, Rare, Recovery, RemappedRows, Sample, Throttle,
};

/// `NVML_NVLINK_MAX_LINKS`.
const MAX_LINKS: u32 = 18;

/// No GPU can be cut into more.
const MAX_SLICES: u32 = 16;

const FIELDS: [FieldId; 5] = [
    FieldId(field_id::NVML_FI_DEV_REMAPPED_COR),
    FieldId(field_id::NVML_FI_DEV_REMAPPED_UNC),
    FieldId(field_id::NVML_FI_DEV_REMAPPED_PENDING),
    FieldId(field_id::NVML_FI_DEV_REMAPPED_FAILURE),
    FieldId(field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
];

/// What is not asked in each round.
#[derive(Default)]
pub(super) struct Known {
    uuid: Option<String>,
    name: Option<String>,
    pci: Option<PciAddress>,
    rare: Rare,
}

/// Asks one GPU: what changes always, and where `is_rare`, the rest.
pub(super) fn sample(
    nvml: &Nvml,
    asked: &mut Asked<'_>,
    known: &mut Known,
    is_rare: bool,
) -> Sample {
    let handle = handle(nvml, asked);
    let mut sample = Sample { index: asked.index, ..Sample::default() };
    if let Some(device) = handle {
        often(&device, asked, &mut sample);
        if is_rare {
            identify(&device, asked, known);
            known.rare = rare(&device, asked);
        }
    }
    let Known { uuid, name, pci, rare } = known;
    sample.uuid.clone_from(uuid);
    sample.name.clone_from(name);
    sample.pci = *pci;
    // Of a GPU that is gone, nothing is known any more but which one it was.
    if !asked.is_lost {
        sample.rare.clone_from(rare);
    }
    sample
}

fn handle<'nvml>(nvml: &'nvml Nvml, asked: &mut Asked<'_>) -> Option<Device<'nvml>> {
    let index = asked.index;
    asked.ask("nvmlDeviceGetHandleByIndex_v2", || nvml.device_by_index(index))
}

fn often(device: &Device<'_>, asked: &mut Asked<'_>, sample: &mut Sample) {
    let utilization = asked.ask("nvmlDeviceGetUtilizationRates", || device.utilization_rates());
    sample.utilization = utilization.map(|percent| f64::from(percent.gpu) / 100.0);
    let memory = asked.ask("nvmlDeviceGetMemoryInfo_v2", || device.memory_info());
    sample.memory_total_bytes = memory.as_ref().map(|memory| memory.total);
    sample.memory_used_bytes = memory.as_ref().map(|memory| memory.used);
    sample.temperature_celsius =
        asked.ask("nvmlDeviceGetTemperature", || device.temperature(TemperatureSensor::Gpu));
    sample.power_watts = asked.ask("nvmlDeviceGetPowerUsage", || device.power_usage()).map(watts);
    sample.sm_clock_mhz = asked.ask("nvmlDeviceGetClockInfo", || device.clock_info(Clock::SM));
    sample.memory_clock_mhz =
        asked.ask("nvmlDeviceGetClockInfo", || device.clock_info(Clock::Memory));
    sample.throttle_reasons = asked
        .ask("nvmlDeviceGetCurrentClocksThrottleReasons", || device.current_throttle_reasons())
        .map(throttles);
    if let Some(values) = asked.ask("nvmlDeviceGetFieldValues", || device.field_values_for(&FIELDS))
    {
        let mut values = values.into_iter().map(number);
        let mut next = || values.next().flatten();
        let count = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok());
        let rows = RemappedRows {
            corrected: count(next()),
            uncorrected: count(next()),
            pending: next().map(|value| value != 0),
            failure: next().map(|value| value != 0),
        };
        sample.remapped_rows = (rows != RemappedRows::default()).then_some(rows);
        sample.recovery_action = next().map(Recovery::from);
    }
}

fn identify(device: &Device<'_>, asked: &mut Asked<'_>, known: &mut Known) {
    if known.uuid.is_none() {
        known.uuid = asked.ask("nvmlDeviceGetUUID", || device.uuid());
    }
    if known.name.is_none() {
        known.name = asked.ask("nvmlDeviceGetName", || device.name());
    }
    if known.pci.is_none() {
        let pci = asked.ask("nvmlDeviceGetPciInfo_v3", || device.pci_info());
        known.pci = pci.and_then(|pci| PciAddress::parse(&pci.bus_id));
    }
}

fn rare(device: &Device<'_>, asked: &mut Asked<'_>) -> Rare {
    let power_limit =
        asked.ask("nvmlDeviceGetEnforcedPowerLimit", || device.enforced_power_limit());
    let mut threshold = |kind| {
        asked.ask("nvmlDeviceGetTemperatureThreshold", || device.temperature_threshold(kind))
    };
    Rare {
        power_limit_watts: power_limit.map(watts),
        slowdown_celsius: threshold(TemperatureThreshold::Slowdown),
        shutdown_celsius: threshold(TemperatureThreshold::Shutdown),
        persistence_mode: asked
            .ask("nvmlDeviceGetPersistenceMode", || device.is_in_persistent_mode()),
        ecc: ecc(device, asked),
        nvlink: nvlink(device, asked),
        compute_processes: compute_processes(device, asked),
        mig_slices: mig_slices(device, asked),
    }
}

fn ecc(device: &Device<'_>, asked: &mut Asked<'_>) -> Option<Ecc> {
    let mode = asked.ask("nvmlDeviceGetEccMode", || device.is_ecc_enabled())?;
    if !mode.currently_enabled {
        return None;
    }
    let mut total = |error: MemoryError, counter: EccCounter| {
        asked.ask("nvmlDeviceGetTotalEccErrors", || device.total_ecc_errors(error, counter))
    };
    Some(Ecc {
        volatile_corrected: total(MemoryError::Corrected, EccCounter::Volatile),
        volatile_uncorrected: total(MemoryError::Uncorrected, EccCounter::Volatile),
        aggregate_corrected: total(MemoryError::Corrected, EccCounter::Aggregate),
        aggregate_uncorrected: total(MemoryError::Uncorrected, EccCounter::Aggregate),
    })
}

fn nvlink(device: &Device<'_>, asked: &mut Asked<'_>) -> Option<NvLink> {
    let mut links = NvLink::default();
    for index in 0..MAX_LINKS {
        let link = device.link_wrapper_for(index);
        // Where there are fewer links, NVML calls the index an invalid argument.
        let state = asked.ask("nvmlDeviceGetNvLinkState", || match link.is_active() {
            Err(NvmlError::InvalidArg) => Err(NvmlError::NotSupported),
            state => state,
        });
        match state {
            None => break,
            Some(false) => links.inactive += 1,
            Some(true) => {
                links.active += 1;
                let mut add = |sum: &mut Option<u64>, counter| {
                    let count = asked
                        .ask("nvmlDeviceGetNvLinkErrorCounter", || link.error_counter(counter));
                    if let Some(count) = count {
                        *sum = Some(sum.unwrap_or(0).saturating_add(count));
                    }
                };
                add(&mut links.replay_errors, ErrorCounter::DlReplay);
                add(&mut links.recovery_errors, ErrorCounter::DlRecovery);
                add(&mut links.crc_errors, ErrorCounter::DlCrcFlit);
            }
        }
    }
    (links != NvLink::default()).then_some(links)
}

fn mig_slices(device: &Device<'_>, asked: &mut Asked<'_>) -> Option<Vec<MigSlice>> {
    let mode = asked.ask("nvmlDeviceGetMigMode", || device.mig_mode())?;
    if mode.current == 0 {
        return None;
    }
    let count = asked.ask("nvmlDeviceGetMaxMigDeviceCount", || device.mig_device_count())?;
    let mut slices = Vec::new();
    for index in 0..count.min(MAX_SLICES) {
        // A GPU has room for more slices than there are.
        let slice = asked.ask("nvmlDeviceGetMigDeviceHandleByIndex", || {
            match device.mig_device_by_index(index) {
                Err(NvmlError::NotFound) => Err(NvmlError::NotSupported),
                slice => slice,
            }
        });
        let Some(slice) = slice else { continue };
        let memory = asked.ask("nvmlDeviceGetMemoryInfo_v2", || slice.memory_info());
        slices.push(MigSlice {
            index,
            uuid: asked.ask("nvmlDeviceGetUUID", || slice.uuid()),
            name: asked.ask("nvmlDeviceGetName", || slice.name()),
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            compute_processes: compute_processes(&slice, asked),
        });
    }
    Some(slices)
}

fn compute_processes(device: &Device<'_>, asked: &mut Asked<'_>) -> Option<Vec<Process>> {
    let call = "nvmlDeviceGetComputeRunningProcesses_v3";
    let processes = asked.ask(call, || device.running_compute_processes())?;
    let process = |info: ProcessInfo| Process {
        pid: info.pid,
        memory_used_bytes: match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        },
    };
    Some(processes.into_iter().map(process).collect())
}

/// `None` where the GPU or the driver does not have the field.
fn number(field: Result<FieldValueSample, NvmlError>) -> Option<u64> {
    match field.ok()?.value.ok()? {
        SampleValue::U32(value) => Some(u64::from(value)),
        SampleValue::U64(value) => Some(value),
        SampleValue::I64(value) => u64::try_from(value).ok(),
        SampleValue::F64(_) => None,
    }
}

fn throttles(reasons: ThrottleReasons) -> Vec<Throttle> {
    [
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Throttle::SwThermalSlowdown),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Throttle::HwThermalSlowdown),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Throttle::HwPowerBrake),
        (ThrottleReasons::HW_SLOWDOWN, Throttle::HwSlowdown),
        (ThrottleReasons::SW_POWER_CAP, Throttle::SwPowerCap),
        (ThrottleReasons::SYNC_BOOST, Throttle::SyncBoost),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, Throttle::ApplicationClocks),
    ]
    .into_iter()
    .filter_map(|(bit, throttle)| reasons.contains(bit).then_some(throttle))
    .collect()
}

fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts) / 1000.0
}
