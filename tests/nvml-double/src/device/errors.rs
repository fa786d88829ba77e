//! What went wrong on a GPU: its memory's errors, its remapped rows and its links.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use super::{number, small};
use crate::{INVALID_ARGUMENT, NOT_SUPPORTED, Return, SUCCESS, gpu_of, put, script::enter_gpu};

const LINKS: u64 = 18;
const VALUE_TYPE_UNSIGNED_INT: c_uint = 1;
const UNCORRECTED: c_uint = 1;
const AGGREGATE: c_uint = 1;

/// `nvmlFieldValue_t`; the value is a union of 8 bytes.
#[repr(C)]
#[derive(Debug)]
pub struct FieldValue {
    field_id: c_uint,
    scope_id: c_uint,
    timestamp: i64,
    latency_usec: i64,
    value_type: c_uint,
    nvml_return: Return,
    value: u64,
}

/// # Safety
///
/// As `nvml.h` has it: `current` and `pending` are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEccMode(
    handle: *mut c_void,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    let is_on = number("nvmlDeviceGetEccMode", handle, "ecc", |_| 1).map(small);
    // SAFETY: passed on.
    unsafe {
        put(pending, is_on);
        put(current, is_on)
    }
}

/// # Safety
///
/// As `nvml.h` has it: `errors` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: *mut c_void,
    kind: c_uint,
    counter: c_uint,
    errors: *mut c_ulonglong,
) -> Return {
    let key = match (kind, counter) {
        (UNCORRECTED, AGGREGATE) => "ecc_aggregate",
        (UNCORRECTED, _) => "ecc_volatile",
        _ => "ecc_corrected",
    };
    // SAFETY: passed on.
    unsafe { put(errors, number("nvmlDeviceGetTotalEccErrors", handle, key, |_| 0)) }
}

/// # Safety
///
/// As `nvml.h` has it: `values` is valid for `count` fields.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: *mut c_void,
    count: c_int,
    values: *mut FieldValue,
) -> Return {
    let found =
        gpu_of(handle).and_then(|gpu| Ok((gpu, enter_gpu("nvmlDeviceGetFieldValues", gpu)?)));
    let (gpu, script) = match found {
        Ok(found) => found,
        Err(code) => return code,
    };
    if values.is_null() {
        return INVALID_ARGUMENT;
    }
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: not null, and valid for `count` fields, as the caller promised.
        let field = unsafe { &mut *values.add(index) };
        let (gpu, id) = (gpu.to_string(), field.field_id.to_string());
        let value = script.value(&["gpu", &gpu, "field", &id]);
        let known = matches!(field.field_id, 142..=145 | 230);
        field.value_type = VALUE_TYPE_UNSIGNED_INT;
        field.value = value.unwrap_or(0);
        field.nvml_return = if known { SUCCESS } else { NOT_SUPPORTED };
    }
    SUCCESS
}

/// # Safety
///
/// As `nvml.h` has it: `state` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    handle: *mut c_void,
    link: c_uint,
    state: *mut c_uint,
) -> Return {
    let active = number("nvmlDeviceGetNvLinkState", handle, "links", |_| LINKS);
    let is_active = active.map(|active| c_uint::from(u64::from(link) < active));
    // SAFETY: passed on.
    unsafe { put(state, is_active) }
}

/// # Safety
///
/// As `nvml.h` has it: `errors` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    handle: *mut c_void,
    _link: c_uint,
    _counter: c_uint,
    errors: *mut c_ulonglong,
) -> Return {
    let count = number("nvmlDeviceGetNvLinkErrorCounter", handle, "link_errors", |_| 0);
    // SAFETY: passed on.
    unsafe { put(errors, count) }
}
