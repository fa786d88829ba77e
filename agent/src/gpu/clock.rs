//! The clock that the kernel's log is stamped with.

use std::time::{Duration, SystemTime};

use mrgc_fleet::model::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::ledger::Moment;

/// Since boot; it never jumps, and does not count while the machine sleeps.
pub(super) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// A moment of this boot by both clocks.
pub(super) fn moment(since_boot: Duration) -> Moment {
    let ago = self::since_boot().saturating_sub(since_boot);
    let at = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
    Moment { since_boot, wall: timestamp(at) }
}

pub(super) fn timestamp(at: SystemTime) -> Timestamp {
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
