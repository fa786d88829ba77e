//! Stands in for NVIDIA's `libnvidia-ml.so.1`: GPUs behind NVML's own C interface.
//!
//! It is loaded as the real library is, so that the real wrapper and the real ABI are exercised. The file
//! that the environment variable `NVML_DOUBLE_SCRIPT` names says how it behaves, and may change at any time.
//! Without it there are two healthy GPUs. It has one instruction to a line; numbers are decimal or `0x…`:
//!
//! | line | then |
//! |---|---|
//! | `no-driver` | `nvmlInit` answers that no driver is loaded, and what was begun before is over |
//! | `gpus 8` | there are so many GPUs, 16 at most |
//! | `hang CALL` | whoever makes this call waits until the line is gone |
//! | `hang` | the same for `nvmlDeviceGetUtilizationRates` |
//! | `fail CALL 999` | this call answers with this code |
//! | `xid 1 79` | GPU 1 has this XID, told once to whoever listens by then |
//! | `gpu 1 lost` | GPU 1 has fallen off the bus |
//! | `gpu 1 reset-required` | NVML refuses it |
//! | `gpu 1 utilization 93` | percent; likewise `memory` (bytes used), `temperature`, `threshold`, `power` and `power_limit` (mW), `sm_clock` and `memory_clock` (MHz), `throttle` (bits), `persistence`, `ecc` (0: off), `ecc_corrected`, and of uncorrected errors `ecc_volatile` and `ecc_aggregate` |
//! | `gpu 1 links 17` | so many of its 18 NVLinks are active; `link_errors`: each counter of each |
//! | `gpu 1 field 144 1` | this field value |
//! | `gpu 1 process 4242 1024` | this process computes on it, with so many bytes |
//! | `gpu 1 mig 3` | it is in MIG mode, cut into so many slices, 7 at most |
//!
//! Layouts and numbers are those of NVIDIA's `nvml.h`, version 12.
#![allow(non_snake_case, reason = "the names are NVML's")]
// The one reason for unsafe code: a C interface, called by pointer.

mod device;
mod events;
mod script;

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    ptr,
};

pub use device::*;
pub use events::*;
use script::{Script, enter};

pub(crate) type Return = c_int;

pub(crate) const SUCCESS: Return = 0;
pub(crate) const UNINITIALIZED: Return = 1;
pub(crate) const INVALID_ARGUMENT: Return = 2;
pub(crate) const NOT_SUPPORTED: Return = 3;
pub(crate) const NOT_FOUND: Return = 6;
pub(crate) const INSUFFICIENT_SIZE: Return = 7;
pub(crate) const DRIVER_NOT_LOADED: Return = 9;
pub(crate) const TIMEOUT: Return = 10;
pub(crate) const GPU_IS_LOST: Return = 15;
pub(crate) const RESET_REQUIRED: Return = 16;
pub(crate) const ARGUMENT_VERSION_MISMATCH: Return = 25;

const MAX_GPUS: usize = 16;
const MAX_SLICES: usize = 7;
const DEFAULT_GPUS: u64 = 2;

/// A handle points into this: a GPU, or after the GPUs, a slice of one. Nobody reads or writes through it.
static HANDLES: [u8; MAX_GPUS * (1 + MAX_SLICES)] = [0; MAX_GPUS * (1 + MAX_SLICES)];

pub(crate) fn handle_of(gpu: usize) -> *mut c_void {
    ptr::from_ref(&HANDLES[gpu]).cast_mut().cast()
}

pub(crate) fn handle_of_slice(gpu: usize, slice: usize) -> *mut c_void {
    // The slices' handles follow the GPUs'.
    handle_of(MAX_GPUS + gpu * MAX_SLICES + slice)
}

/// The GPU behind a handle, and the slice where it is one.
pub(crate) fn place_of(handle: *mut c_void) -> Result<(usize, Option<usize>), Return> {
    let index = (handle as usize).checked_sub(HANDLES.as_ptr() as usize);
    match index.filter(|index| *index < HANDLES.len()) {
        Some(index) if index < MAX_GPUS => Ok((index, None)),
        Some(index) => {
            let index = index - MAX_GPUS;
            Ok((index / MAX_SLICES, Some(index % MAX_SLICES)))
        }
        None => Err(INVALID_ARGUMENT),
    }
}

/// The GPU behind a handle that is not a slice's.
pub(crate) fn gpu_of(handle: *mut c_void) -> Result<usize, Return> {
    match place_of(handle)? {
        (gpu, None) => Ok(gpu),
        (_, Some(_)) => Err(NOT_SUPPORTED),
    }
}

/// Writes an answer where the caller wants it.
///
/// # Safety
///
/// `out` is null or valid for writes of a `T`.
pub(crate) unsafe fn put<T>(out: *mut T, value: Result<T, Return>) -> Return {
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
pub(crate) unsafe fn put_text(
    out: *mut c_char,
    length: c_uint,
    text: Result<String, Return>,
) -> Return {
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
    match enter("nvmlInit_v2") {
        Ok(script) if script.says(&["no-driver"]) => DRIVER_NOT_LOADED,
        Ok(_) => SUCCESS,
        Err(code) => code,
    }
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
    let text = enter("nvmlSystemGetDriverVersion").map(|_| "580.95.05".to_owned());
    // SAFETY: passed on.
    unsafe { put_text(version, length, text) }
}

fn count(script: &Script) -> Result<usize, Return> {
    if script.says(&["no-driver"]) {
        return Err(UNINITIALIZED);
    }
    let gpus = script.value(&["gpus"]).unwrap_or(DEFAULT_GPUS);
    Ok(usize::try_from(gpus).unwrap_or(MAX_GPUS).min(MAX_GPUS))
}

/// # Safety
///
/// As `nvml.h` has it: `out` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> Return {
    let gpus = enter("nvmlDeviceGetCount_v2").and_then(|script| count(&script));
    // SAFETY: passed on.
    unsafe { put(out, gpus.map(|gpus| gpus as c_uint)) }
}

/// # Safety
///
/// As `nvml.h` has it: `handle` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    handle: *mut *mut c_void,
) -> Return {
    let found = enter("nvmlDeviceGetHandleByIndex_v2").and_then(|script| {
        let index = index as usize;
        if index < count(&script)? { Ok(handle_of(index)) } else { Err(INVALID_ARGUMENT) }
    });
    // SAFETY: passed on.
    unsafe { put(handle, found) }
}
