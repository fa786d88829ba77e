//! The time of day, and how long something takes or is ago, for people.

use std::time::{SystemTime, UNIX_EPOCH};

use mrgc_fleet::model::Timestamp;
use time::{OffsetDateTime, PrimitiveDateTime};

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// In whole units of the largest that there is one of, as in `3 s` or `12 d`.
pub(crate) fn age(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let (unit_ms, unit) = UNITS.into_iter().find(|(unit_ms, _)| ms >= *unit_ms).unwrap_or(UNITS[3]);
    format!("{} {unit}", ms / unit_ms)
}

/// As in `2026-11-21 05:17:15Z`; what is beyond the year 9999 is its end.
pub(crate) fn instant(at: Timestamp) -> String {
    let utc = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000);
    let utc = utc.unwrap_or(PrimitiveDateTime::MAX.assume_utc());
    let (hour, minute, second) = utc.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02}Z", utc.date())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_the_largest_unit_that_fits() {
        for (ms, expected) in [
            (0, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (7_199_999, "1 h"),
            (86_400_000, "1 d"),
            (u64::MAX, "213503982334 d"),
        ] {
            assert_eq!(age(ms), expected);
        }
    }

    #[test]
    fn an_instant_is_in_utc() {
        for (ms, expected) in [
            (1_795_238_235_123, "2026-11-21 05:17:15Z"),
            (0, "1970-01-01 00:00:00Z"),
            (u64::MAX, "9999-12-31 23:59:59Z"),
        ] {
            assert_eq!(instant(Timestamp(ms)), expected);
        }
    }
}
