//! Stands in for NVIDIA's `libnvidia-ml.so.1`: two GPUs behind NVML's own C interface.
//!
//! It is loaded as the real library is, so that the real wrapper and the real ABI are exercised. The file
//! that the environment variable `NVML_DOUBLE_SCRIPT` names says how it behaves, and may change at any time:
//!
//! | content | then |
//! |---|---|
//! | none, or no such file | all is well |
//! | `hang` | whoever asks for a GPU's utilization waits until the file says something else |
//! | `no-driver` | `nvmlInit` answers that no driver is loaded |
//! | `no-gpus` | there are 0 GPUs |
//! | `lost` | GPU 1 has fallen off the bus |
//! | `all-lost` | so have both |
//!
//! Layouts and numbers are those of NVIDIA's `nvml.h`, version 12.
#![allow(non_snake_case, reason = "the names are NVML's")]
// The one reason for unsafe code: a C interface, called by pointer.

use std::{
    ffi::{c_char, c_int, c_uint, c_ulonglong, c_void},
    fs, ptr, thread,
    time::Duration,
};

type Return = c_int;

const SUCCESS: Return = 0;
const INVALID_ARGUMENT: Return = 2;
const INSUFFICIENT_SIZE: Return = 7;
const DRIVER_NOT_LOADED: Return = 9;
const GPU_IS_LOST: Return = 15;
const ARGUMENT_VERSION_MISMATCH: Return = 25;

const TEMPERATURE_GPU: c_uint = 0;

struct Gpu {
    name: &'static str,
    uuid: &'static str,
    utilization_percent: c_uint,
    memory_used: c_ulonglong,
    temperature: c_uint,
    power_milliwatts: c_uint,
}

const MEMORY_TOTAL: c_ulonglong = 80 << 30;
const MEMORY_RESERVED: c_ulonglong = 512 << 20;

static GPUS: [Gpu; 2] = [
    Gpu {
        name: "NVIDIA H100 80GB HBM3",
        uuid: "GPU-00000000-0000-0000-0000-000000000001",
        utilization_percent: 35,
        memory_used: 20 << 30,
        temperature: 41,
        power_milliwatts: 310_500,
    },
    Gpu {
        name: "NVIDIA H100 80GB HBM3",
        uuid: "GPU-00000000-0000-0000-0000-000000000002",
        utilization_percent: 65,
        memory_used: 40 << 30,
        temperature: 47,
        power_milliwatts: 420_250,
    },
];

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

fn script() -> String {
    let text =
        std::env::var_os("NVML_DOUBLE_SCRIPT").and_then(|file| fs::read_to_string(file).ok());
    text.unwrap_or_default().trim().to_owned()
}

/// The GPU behind a handle: a handle is a pointer into [`GPUS`].
fn gpu(handle: *mut c_void) -> Result<&'static Gpu, Return> {
    let found = GPUS.iter().enumerate().find(|(_, gpu)| ptr::eq(*gpu, handle.cast()));
    let (index, gpu) = found.ok_or(INVALID_ARGUMENT)?;
    match (script().as_str(), index) {
        ("lost", 1) | ("all-lost", _) => Err(GPU_IS_LOST),
        _ => Ok(gpu),
    }
}

/// Writes an answer where the caller wants it.
///
/// # Safety
///
/// `out` is null or valid for writes of a `T`.
unsafe fn put<T>(out: *mut T, value: Result<T, Return>) -> Return {
    match value {
        Err(code) => code,
        Ok(_) if out.is_null() => INVALID_ARGUMENT,
        Ok(value) => {
            // SAFETY: not null, so valid, as the caller promised.
            unsafe { out.write(value) };
            SUCCESS
        }
    }
}

/// Writes a text and its closing NUL.
///
/// # Safety
///
/// `out` is null or valid for writes of `length` bytes.
unsafe fn put_text(out: *mut c_char, length: c_uint, text: Result<&str, Return>) -> Return {
    let text = match text {
        Ok(text) => text,
        Err(code) => return code,
    };
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    if text.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the text and its NUL fit, by the check above.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Return {
    if script() == "no-driver" { DRIVER_NOT_LOADED } else { SUCCESS }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Return {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Return {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: Return) -> *const c_char {
    let text = match code {
        SUCCESS => c"Success",
        DRIVER_NOT_LOADED => c"Driver Not Loaded",
        GPU_IS_LOST => c"GPU is lost",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// # Safety
///
/// As `nvml.h` has it: `version` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(
    version: *mut c_char,
    length: c_uint,
) -> Return {
    // SAFETY: passed on.
    unsafe { put_text(version, length, Ok("580.95.05")) }
}

/// # Safety
///
/// As `nvml.h` has it: `count` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    let gpus = if script() == "no-gpus" { 0 } else { GPUS.len() as c_uint };
    // SAFETY: passed on.
    unsafe { put(count, Ok(gpus)) }
}

/// # Safety
///
/// As `nvml.h` has it: `handle` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    handle: *mut *mut c_void,
) -> Return {
    let gpu = GPUS.get(index as usize).ok_or(INVALID_ARGUMENT);
    // SAFETY: passed on. Nobody writes through a handle.
    unsafe { put(handle, gpu.map(|gpu| ptr::from_ref(gpu).cast_mut().cast())) }
}

/// # Safety
///
/// As `nvml.h` has it: `index` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(handle: *mut c_void, index: *mut c_uint) -> Return {
    let found = GPUS.iter().position(|gpu| ptr::eq(gpu, handle.cast())).ok_or(INVALID_ARGUMENT);
    // SAFETY: passed on.
    unsafe { put(index, found.map(|index| index as c_uint)) }
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
    // SAFETY: passed on.
    unsafe { put_text(name, length, gpu(handle).map(|gpu| gpu.name)) }
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
    // SAFETY: passed on.
    unsafe { put_text(uuid, length, gpu(handle).map(|gpu| gpu.uuid)) }
}

/// # Safety
///
/// As `nvml.h` has it: `utilization` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    handle: *mut c_void,
    utilization: *mut Utilization,
) -> Return {
    while script() == "hang" {
        thread::sleep(Duration::from_millis(5));
    }
    let rates = gpu(handle).map(|gpu| Utilization { gpu: gpu.utilization_percent, memory: 10 });
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
    let answer = gpu(handle).map(|gpu| MemoryV2 {
        version,
        total: MEMORY_TOTAL,
        reserved: MEMORY_RESERVED,
        free: MEMORY_TOTAL - MEMORY_RESERVED - gpu.memory_used,
        used: gpu.memory_used,
    });
    // SAFETY: passed on.
    unsafe { put(memory, answer) }
}

/// # Safety
///
/// As `nvml.h` has it: `temperature` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    handle: *mut c_void,
    sensor: c_uint,
    temperature: *mut c_uint,
) -> Return {
    let degrees = gpu(handle).and_then(|gpu| match sensor {
        TEMPERATURE_GPU => Ok(gpu.temperature),
        _ => Err(INVALID_ARGUMENT),
    });
    // SAFETY: passed on.
    unsafe { put(temperature, degrees) }
}

/// # Safety
///
/// As `nvml.h` has it: `milliwatts` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(
    handle: *mut c_void,
    milliwatts: *mut c_uint,
) -> Return {
    // SAFETY: passed on.
    unsafe { put(milliwatts, gpu(handle).map(|gpu| gpu.power_milliwatts)) }
}
