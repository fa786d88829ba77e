//! Since when there has been trouble in a region: from there on it is counted how long its failover took.

use std::collections::BTreeMap;

use crate::model::RegionId;

/// For how long a region is well before what was seen of it is no sign of what comes next.
const FORGOTTEN_AFTER_MS: u64 = 5_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Signs(BTreeMap<RegionId, Sign>);

#[derive(Debug)]
struct Sign {
    first_ms: u64,
    last_ms: u64,
}

/// What was seen of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Well,
    /// Not as it should be, but nothing is new about it.
    Unwell,
    /// A ping that was not answered, say.
    Trouble,
}

impl Signs {
    /// Returns since when there have been signs of trouble: now, where there are none.
    pub fn see(&mut self, region: &RegionId, look: Look, now_ms: u64) -> u64 {
        if look == Look::Trouble {
            self.0.entry(region.clone()).or_insert(Sign { first_ms: now_ms, last_ms: now_ms });
        }
        let Some(sign) = self.0.get_mut(region) else { return now_ms };
        let first_ms = sign.first_ms;
        if look != Look::Well {
            sign.last_ms = now_ms;
        } else if now_ms >= sign.last_ms.saturating_add(FORGOTTEN_AFTER_MS) {
            self.0.remove(region);
            return now_ms;
        }
        first_ms
    }

    pub fn keep(&mut self, is_there: impl Fn(&RegionId) -> bool) {
        self.0.retain(|region, _| is_there(region));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_the_first_of_its_trouble_and_of_no_other() {
        let (mut signs, us) = (Signs::default(), RegionId::from("us"));
        for (now_ms, look, expected) in [
            (1_000, Look::Unwell, 1_000),
            (2_000, Look::Trouble, 2_000),
            (3_000, Look::Trouble, 2_000),
            (4_000, Look::Well, 2_000),
            (8_999, Look::Unwell, 2_000),
            (13_998, Look::Well, 2_000),
            (13_999, Look::Well, 13_999),
            (20_000, Look::Trouble, 20_000),
        ] {
            assert_eq!(signs.see(&us, look, now_ms), expected, "at {now_ms}");
        }
    }
}
