//! The time of day, and how keys spell it: in UTC, so that they sort by time and people can read them.

use std::time::{SystemTime, UNIX_EPOCH};

use mrgc_fleet::model::Timestamp;
use time::{OffsetDateTime, PrimitiveDateTime};

pub(crate) const MINUTE_MS: u64 = 60_000;
pub(crate) const HOUR_SECONDS: u64 = 60 * 60;
pub(crate) const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;
pub(crate) const DAY_MS: u64 = DAY_SECONDS * 1_000;

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// As items count their end.
pub(crate) fn seconds(at: Timestamp) -> u64 {
    at.0 / 1_000
}

/// As in `2026-11-21`.
pub(crate) fn day(at: Timestamp) -> String {
    utc(at).date().to_string()
}

/// As in `2026-11-21T05:17Z`.
pub(crate) fn minute(at: Timestamp) -> String {
    let utc = utc(at);
    format!("{}T{:02}:{:02}Z", utc.date(), utc.hour(), utc.minute())
}

/// As in `2026-11-21T05:17:15.123Z`.
pub(crate) fn instant(at: Timestamp) -> String {
    let utc = utc(at);
    let (hour, minute, second) = utc.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{:03}Z", utc.date(), utc.millisecond())
}

/// What is beyond the year 9999 is its end.
fn utc(at: Timestamp) -> OffsetDateTime {
    let utc = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000);
    utc.unwrap_or(PrimitiveDateTime::MAX.assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time() {
        for (ms, expected_day, expected_minute, expected_instant) in [
            (0, "1970-01-01", "1970-01-01T00:00Z", "1970-01-01T00:00:00.000Z"),
            (951_827_696_007, "2000-02-29", "2000-02-29T12:34Z", "2000-02-29T12:34:56.007Z"),
            (1_795_238_235_123, "2026-11-21", "2026-11-21T05:17Z", "2026-11-21T05:17:15.123Z"),
            (u64::MAX, "9999-12-31", "9999-12-31T23:59Z", "9999-12-31T23:59:59.999Z"),
        ] {
            let at = Timestamp(ms);
            assert_eq!(day(at), expected_day);
            assert_eq!(minute(at), expected_minute);
            assert_eq!(instant(at), expected_instant);
        }
    }
}
