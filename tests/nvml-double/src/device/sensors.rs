//! How warm and how fast a GPU is, and what it draws.

use std::ffi::{c_uint, c_ulonglong, c_void};

use super::{number, small};
use crate::{INVALID_ARGUMENT, NOT_SUPPORTED, Return, put};

const CLOCK_SM: c_uint = 1;
const CLOCK_MEMORY: c_uint = 2;
const THRESHOLD_SHUTDOWN: c_uint = 0;
const THRESHOLD_SLOWDOWN: c_uint = 1;

/// # Safety
///
/// As `nvml.h` has it: `temperature` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    handle: *mut c_void,
    sensor: c_uint,
    temperature: *mut c_uint,
) -> Return {
    let degrees = match sensor {
        0 => number("nvmlDeviceGetTemperature", handle, "temperature", |gpu| [41, 47][gpu % 2]),
        _ => Err(INVALID_ARGUMENT),
    };
    // SAFETY: passed on.
    unsafe { put(temperature, degrees.map(small)) }
}

/// # Safety
///
/// As `nvml.h` has it: `temperature` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    handle: *mut c_void,
    threshold: c_uint,
    temperature: *mut c_uint,
) -> Return {
    let default = match threshold {
        THRESHOLD_SHUTDOWN => Ok(95),
        THRESHOLD_SLOWDOWN => Ok(87),
        _ => Err(NOT_SUPPORTED),
    };
    let degrees = default.and_then(|default| {
        number("nvmlDeviceGetTemperatureThreshold", handle, "threshold", |_| default)
    });
    // SAFETY: passed on.
    unsafe { put(temperature, degrees.map(small)) }
}

/// # Safety
///
/// As `nvml.h` has it: `milliwatts` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(
    handle: *mut c_void,
    milliwatts: *mut c_uint,
) -> Return {
    let power =
        number("nvmlDeviceGetPowerUsage", handle, "power", |gpu| [310_500, 420_250][gpu % 2]);
    // SAFETY: passed on.
    unsafe { put(milliwatts, power.map(small)) }
}

/// # Safety
///
/// As `nvml.h` has it: `milliwatts` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(
    handle: *mut c_void,
    milliwatts: *mut c_uint,
) -> Return {
    let limit = number("nvmlDeviceGetEnforcedPowerLimit", handle, "power_limit", |_| 700_000);
    // SAFETY: passed on.
    unsafe { put(milliwatts, limit.map(small)) }
}

/// # Safety
///
/// As `nvml.h` has it: `mhz` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    handle: *mut c_void,
    kind: c_uint,
    mhz: *mut c_uint,
) -> Return {
    let call = "nvmlDeviceGetClockInfo";
    let clock = match kind {
        CLOCK_SM => number(call, handle, "sm_clock", |_| 1_980),
        CLOCK_MEMORY => number(call, handle, "memory_clock", |_| 2_619),
        _ => Err(NOT_SUPPORTED),
    };
    // SAFETY: passed on.
    unsafe { put(mhz, clock.map(small)) }
}

/// # Safety
///
/// As `nvml.h` has it: `reasons` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    handle: *mut c_void,
    reasons: *mut c_ulonglong,
) -> Return {
    let bits = number("nvmlDeviceGetCurrentClocksThrottleReasons", handle, "throttle", |_| 0);
    // SAFETY: passed on.
    unsafe { put(reasons, bits) }
}

/// # Safety
///
/// As `nvml.h` has it: `mode` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPersistenceMode(
    handle: *mut c_void,
    mode: *mut c_uint,
) -> Return {
    let is_on = number("nvmlDeviceGetPersistenceMode", handle, "persistence", |_| 1);
    // SAFETY: passed on.
    unsafe { put(mode, is_on.map(small)) }
}
