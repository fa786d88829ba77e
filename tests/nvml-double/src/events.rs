//! The event set: each `xid` line of the script is told once.

use std::{
    ffi::{c_uint, c_ulonglong, c_void},
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    INVALID_ARGUMENT, Return, SUCCESS, TIMEOUT, UNINITIALIZED, gpu_of, handle_of, put,
    script::{self, Script, enter, enter_gpu},
};

const XID_CRITICAL_ERROR: c_ulonglong = 8;

/// Between two looks at a script that cannot be watched.
const LOOK: Duration = Duration::from_millis(100);

/// `nvmlEventData_t`.
#[repr(C)]
#[derive(Debug)]
pub struct EventData {
    device: *mut c_void,
    event_type: c_ulonglong,
    event_data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

struct Set {
    gpus: Vec<usize>,
    /// Lines that were told, or were there before.
    told: usize,
}

/// A handle is a set's place here, from 1.
static SETS: Mutex<Vec<Option<Set>>> = Mutex::new(Vec::new());

fn sets() -> MutexGuard<'static, Vec<Option<Set>>> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(handle: *mut c_void, act: impl FnOnce(&mut Option<Set>) -> T) -> Result<T, Return> {
    let mut sets = sets();
    let set = (handle as usize).checked_sub(1).and_then(|index| sets.get_mut(index));
    set.filter(|set| set.is_some()).map(act).ok_or(INVALID_ARGUMENT)
}

/// # Safety
///
/// As `nvml.h` has it: `set` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut *mut c_void) -> Return {
    let created = enter("nvmlEventSetCreate").map(|script| {
        let told = script.values(&["xid"]).len();
        let mut sets = sets();
        sets.push(Some(Set { gpus: Vec::new(), told }));
        sets.len() as *mut c_void
    });
    // SAFETY: passed on.
    unsafe { put(set, created) }
}

/// # Safety
///
/// As `nvml.h` has it: `set` is one that was created.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: *mut c_void) -> Return {
    with(set, |set| *set = None).err().unwrap_or(SUCCESS)
}

/// # Safety
///
/// As `nvml.h` has it: `set` is one that was created.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: *mut c_void,
    types: c_ulonglong,
    set: *mut c_void,
) -> Return {
    let registered = gpu_of(device).and_then(|gpu| {
        enter_gpu("nvmlDeviceRegisterEvents", gpu)?;
        if types != XID_CRITICAL_ERROR {
            return Err(INVALID_ARGUMENT);
        }
        with(set, |set| set.iter_mut().for_each(|set| set.gpus.push(gpu)))
    });
    registered.err().unwrap_or(SUCCESS)
}

/// # Safety
///
/// As `nvml.h` has it: `data` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: *mut c_void,
    data: *mut EventData,
    timeout_ms: c_uint,
) -> Return {
    // SAFETY: passed on.
    unsafe { put(data, wait(set, Duration::from_millis(timeout_ms.into()))) }
}

fn wait(set: *mut c_void, timeout: Duration) -> Result<EventData, Return> {
    let until = Instant::now() + timeout;
    loop {
        // Before it is read, so that no change is missed.
        let watch = script::watch();
        let script = enter("nvmlEventSetWait_v2")?;
        if script.says(&["no-driver"]) {
            return Err(UNINITIALIZED);
        }
        if let Some(event) = with(set, |set| next(set.as_mut()?, &script))? {
            return Ok(event);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TIMEOUT);
        }
        match watch {
            Ok(watch) => wait_for_change(&watch, left),
            Err(_) => thread::sleep(LOOK.min(left)),
        }
    }
}

/// As a driver waits: in the kernel, so that whoever measures the agent does not measure looks at the script.
fn wait_for_change(watch: &OwnedFd, left: Duration) {
    let left = Timespec::try_from(left).ok();
    // Interrupted or not: the script is read again.
    let _ = poll(&mut [PollFd::new(watch, PollFlags::IN)], left.as_ref());
}

fn next(set: &mut Set, script: &Script) -> Option<EventData> {
    let lines = script.values(&["xid"]);
    set.told = set.told.min(lines.len());
    while let Some(line) = lines.get(set.told) {
        set.told += 1;
        let [gpu, code] = line[..] else { continue };
        let gpu = usize::try_from(gpu).ok()?;
        if set.gpus.contains(&gpu) {
            return Some(EventData {
                device: handle_of(gpu),
                event_type: XID_CRITICAL_ERROR,
                event_data: code,
                gpu_instance: c_uint::MAX,
                compute_instance: c_uint::MAX,
            });
        }
    }
    None
}
