//! What one GPU, or a slice of one, answers.

mod errors;
mod sensors;

use std::{
    ffi::{c_char, c_uint, c_ulonglong, c_void},
    ptr,
};

pub use errors::*;
pub use sensors::*;

use crate::{
    ARGUMENT_VERSION_MISMATCH, INSUFFICIENT_SIZE, INVALID_ARGUMENT, MAX_SLICES, NOT_FOUND,
    NOT_SUPPORTED, Return, SUCCESS, gpu_of, handle_of_slice, place_of, put, put_text,
    script::{Script, enter_gpu},
};

const MEMORY_TOTAL: u64 = 80 << 30;
const MEMORY_RESERVED: u64 = 512 << 20;

/// `nvmlUtilization_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Debug)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_sub_system_id: c_uint,
    bus_id: [c_char; 32],
}

/// `nvmlProcessInfo_v2_t`.
#[repr(C)]
#[derive(Debug)]
pub struct ProcessInfo {
    pid: c_uint,
    used_gpu_memory: c_ulonglong,
    gpu_instance_id: c_uint,
    compute_instance_id: c_uint,
}

/// The number of a GPU that is no slice: the script's, or a default for each of its GPUs.
fn number(
    call: &str,
    handle: *mut c_void,
    key: &str,
    default: impl FnOnce(usize) -> u64,
) -> Result<u64, Return> {
    let gpu = gpu_of(handle)?;
    Ok(enter_gpu(call, gpu)?.of(gpu, key, default(gpu)))
}

fn small(value: u64) -> c_uint {
    c_uint::try_from(value).unwrap_or(c_uint::MAX)
}

fn is_mig(script: &Script, gpu: usize) -> bool {
    script.of(gpu, "mig", 0) > 0
}

/// # Safety
///
/// As `nvml.h` has it: `name` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(
    handle: *mut c_void,
    name: *mut c_char,
    length: c_uint,
) -> Return {
    let text = place_of(handle).and_then(|(gpu, slice)| {
        enter_gpu("nvmlDeviceGetName", gpu)?;
        let profile = if slice.is_some() { " MIG 1g.10gb" } else { "" };
        Ok(format!("NVIDIA H100 80GB HBM3{profile}"))
    });
    // SAFETY: passed on.
    unsafe { put_text(name, length, text) }
}

/// # Safety
///
/// As `nvml.h` has it: `uuid` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    handle: *mut c_void,
    uuid: *mut c_char,
    length: c_uint,
) -> Return {
    let text = place_of(handle).and_then(|(gpu, slice)| {
        enter_gpu("nvmlDeviceGetUUID", gpu)?;
        let gpu = gpu + 1;
        Ok(match slice {
            None => format!("GPU-00000000-0000-0000-0000-{gpu:012}"),
            Some(slice) => format!("MIG-00000000-0000-0000-{gpu:04}-{slice:012}"),
        })
    });
    // SAFETY: passed on.
    unsafe { put_text(uuid, length, text) }
}

/// # Safety
///
/// As `nvml.h` has it: `pci` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: *mut c_void, pci: *mut PciInfo) -> Return {
    // NVML knows it without asking the GPU, also where that is lost.
    let info = gpu_of(handle).map(|gpu| {
        let bus = 0x10 + gpu;
        let mut info = PciInfo {
            bus_id_legacy: [0; 16],
            domain: 0,
            bus: bus as c_uint,
            device: 0,
            pci_device_id: 0x2330_10de,
            pci_sub_system_id: 0,
            bus_id: [0; 32],
        };
        let text = format!("00000000:{bus:02X}:00.0");
        for (place, byte) in info.bus_id.iter_mut().zip(text.bytes()) {
            *place = byte as c_char;
        }
        info
    });
    // SAFETY: passed on.
    unsafe { put(pci, info) }
}

/// # Safety
///
/// As `nvml.h` has it: `utilization` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    handle: *mut c_void,
    utilization: *mut Utilization,
) -> Return {
    let rates = gpu_of(handle).and_then(|gpu| {
        let script = enter_gpu("nvmlDeviceGetUtilizationRates", gpu)?;
        if is_mig(&script, gpu) {
            return Err(NOT_SUPPORTED);
        }
        let percent = script.of(gpu, "utilization", [35, 65][gpu % 2]);
        Ok(Utilization { gpu: small(percent), memory: 10 })
    });
    // SAFETY: passed on.
    unsafe { put(utilization, rates) }
}

/// # Safety
///
/// As `nvml.h` has it: `memory` is valid, and its `version` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    handle: *mut c_void,
    memory: *mut MemoryV2,
) -> Return {
    if memory.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and valid, as the caller promised. The caller set no other field.
    let version = unsafe { ptr::addr_of!((*memory).version).read() };
    if version != (size_of::<MemoryV2>() as c_uint | 2 << 24) {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let answer = place_of(handle).and_then(|(gpu, slice)| {
        let script = enter_gpu("nvmlDeviceGetMemoryInfo_v2", gpu)?;
        let used = script.of(gpu, "memory", [20 << 30, 40 << 30][gpu % 2]);
        let (total, used) = match slice {
            None => (MEMORY_TOTAL, used),
            Some(_) => (MEMORY_TOTAL / 8, used / MAX_SLICES as u64),
        };
        let free = total.saturating_sub(MEMORY_RESERVED + used);
        Ok(MemoryV2 { version, total, reserved: MEMORY_RESERVED, free, used })
    });
    // SAFETY: passed on.
    unsafe { put(memory, answer) }
}

/// # Safety
///
/// As `nvml.h` has it: `count` is valid, and `infos` for that many processes, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: *mut c_void,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    let found = place_of(handle).and_then(|(gpu, slice)| {
        let script = enter_gpu("nvmlDeviceGetComputeRunningProcesses_v3", gpu)?;
        let processes = script.values(&["gpu", &gpu.to_string(), "process"]);
        // They run in the first slice, where there are slices.
        Ok(if slice.unwrap_or(0) == 0 { processes } else { Vec::new() })
    });
    let processes = match found {
        Ok(processes) => processes,
        Err(code) => return code,
    };
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, so valid, as the caller promised.
    let room = unsafe { count.replace(processes.len() as c_uint) } as usize;
    if processes.len() > room || (infos.is_null() && !processes.is_empty()) {
        return INSUFFICIENT_SIZE;
    }
    for (index, process) in processes.iter().enumerate() {
        let [pid, bytes] = process[..] else { return INVALID_ARGUMENT };
        let info = ProcessInfo {
            pid: small(pid),
            used_gpu_memory: bytes,
            gpu_instance_id: c_uint::MAX,
            compute_instance_id: c_uint::MAX,
        };
        // SAFETY: there is room for as many, by the check above.
        unsafe { infos.add(index).write(info) };
    }
    SUCCESS
}

/// # Safety
///
/// As `nvml.h` has it: `current` and `pending` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    handle: *mut c_void,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    let slices = number("nvmlDeviceGetMigMode", handle, "mig", |_| 0);
    let is_on = slices.map(|slices| c_uint::from(slices > 0));
    // SAFETY: passed on.
    unsafe {
        put(pending, is_on);
        put(current, is_on)
    }
}

/// # Safety
///
/// As `nvml.h` has it: `count` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    handle: *mut c_void,
    count: *mut c_uint,
) -> Return {
    // SAFETY: passed on.
    unsafe { put(count, gpu_of(handle).map(|_| MAX_SLICES as c_uint)) }
}

/// # Safety
///
/// As `nvml.h` has it: `slice` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: *mut c_void,
    index: c_uint,
    slice: *mut *mut c_void,
) -> Return {
    let found = gpu_of(handle).and_then(|gpu| {
        let script = enter_gpu("nvmlDeviceGetMigDeviceHandleByIndex", gpu)?;
        let slices = script.of(gpu, "mig", 0).min(MAX_SLICES as u64);
        let has_it = u64::from(index) < slices;
        if has_it { Ok(handle_of_slice(gpu, index as usize)) } else { Err(NOT_FOUND) }
    });
    // SAFETY: passed on.
    unsafe { put(slice, found) }
}
