#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const PCI: PciAddress = PciAddress { domain: 0, bus: 0x10, device: 0 };
const OTHER: PciAddress = PciAddress { domain: 0, bus: 0x11, device: 0 };

fn at(seconds: u64) -> Moment {
    let wall = Timestamp(1_000_000 + seconds * 1_000);
    Moment { since_boot: Duration::from_secs(seconds), wall }
}

fn sighting(source: Source, pci: PciAddress, code: u32, seconds: u64) -> Sighting {
    Sighting { source, pci, code, action: xid::action(code, None), at: at(seconds) }
}

fn event(code: u32, seconds: u64) -> Sighting {
    sighting(Source::NvmlEvents, PCI, code, seconds)
}

fn line(code: u32, seconds: u64) -> Sighting {
    sighting(Source::KernelLog, PCI, code, seconds)
}

fn ledger(sightings: impl IntoIterator<Item = Sighting>) -> Ledger {
    let mut ledger = Ledger::default();
    sightings.into_iter().for_each(|sighting| ledger.see(sighting));
    ledger
}

fn held(ledger: &Ledger, seconds: u64) -> Vec<u32> {
    let list = ledger.list(Duration::from_secs(seconds));
    list.iter().filter(|xid| xid.is_held).map(|xid| xid.code).collect()
}

#[test]
fn what_both_sources_tell_is_counted_once() {
    for (sightings, expected) in [
        (vec![event(95, 1), line(95, 1)], 1),
        (vec![line(95, 1), event(95, 2)], 1),
        (vec![line(95, 1), line(95, 1), event(95, 2), event(95, 2)], 2),
        (vec![line(95, 1), event(95, 2), line(95, 3), event(95, 4)], 2),
        (vec![event(95, 1), event(95, 1), line(95, 2)], 2),
        // The log tells of every one, and NVML of the last.
        (vec![line(95, 1), line(95, 1), line(95, 1), event(95, 1)], 3),
        // Too far apart to be the same, as with an agent that reads what there was before it started.
        (vec![line(95, 1), event(95, 100)], 2),
        (vec![line(95, 1), line(95, 2), line(95, 3)], 3),
    ] {
        let list = ledger(sightings.clone()).list(Duration::from_secs(100));
        assert_eq!(list.iter().map(|xid| xid.count).sum::<u64>(), expected, "{sightings:?}");
    }
}

#[test]
fn an_application_s_xid_is_held_for_a_while() {
    let ledger = ledger([line(13, 10)]);
    assert_eq!(held(&ledger, 10), [13]);
    assert_eq!(held(&ledger, 309), [13]);
    assert_eq!(held(&ledger, 310), [0; 0]);
    assert_eq!(ledger.list(Duration::from_secs(310))[0].count, 1, "it still counts as seen");
}

#[test]
fn what_is_ignored_is_counted_and_not_held() {
    let ledger = ledger([line(43, 1)]);
    assert_eq!(held(&ledger, 1), [0; 0]);
    assert_eq!(ledger.list(Duration::ZERO)[0].name, "GPU stopped processing for an application");
}

#[test]
fn only_what_resolves_an_xid_ends_it() {
    let year = 365 * 24 * 3_600;
    let all = || ledger([line(79, 1), line(95, 1), line(500, 1)]);
    assert_eq!(held(&all(), year), [79, 95, 500], "time does not");

    let mut reloaded = all();
    reloaded.driver_loaded(Duration::from_secs(2));
    assert_eq!(held(&reloaded, 3), [79], "the driver's load, but for a GPU that needs a reboot");

    let mut earlier = all();
    earlier.driver_loaded(Duration::ZERO);
    assert_eq!(held(&earlier, 3), [79, 95, 500], "not a load before it");

    let mut recovered = all();
    recovered.see(sighting(Source::KernelLog, OTHER, 95, 1));
    recovered.recovered(PCI, Duration::from_secs(2));
    let left = recovered.list(Duration::from_secs(3));
    let left: Vec<_> = left.iter().filter(|x| x.is_held).map(|x| (x.pci, x.code)).collect();
    assert_eq!(left, [(PCI, 79), (OTHER, 95)], "the driver's word for this GPU");

    let mut acknowledged = all();
    acknowledged.acknowledge(at(1).wall);
    assert_eq!(held(&acknowledged, 3), [0; 0], "an operator's word");
    acknowledged.see(line(13, 1));
    assert_eq!(held(&acknowledged, 3), [0; 0], "also for what is read later");
    acknowledged.see(line(79, 4));
    assert_eq!(held(&acknowledged, 5), [79], "and then it came again");
}

#[test]
fn the_log_tells_that_the_driver_asks_for_nothing_any_more() {
    let changed = |action, seconds| Sighting { action, ..line(154, seconds) };
    let mut ledger = ledger([line(95, 1), changed(Action::ResetGpu, 2)]);
    assert_eq!(held(&ledger, 3), [95, 154]);
    ledger.see(changed(Action::None, 4));
    assert_eq!(held(&ledger, 5), [0; 0]);
    // NVML's event has no text, and so says nothing of the kind.
    ledger.see(line(95, 6));
    ledger.see(Sighting { action: Action::None, ..event(154, 60) });
    assert_eq!(held(&ledger, 61), [95]);
}

#[test]
fn the_oldest_make_room() {
    let mut ledger = Ledger::default();
    for code in 0..2 * MAX_ENTRIES as u32 {
        ledger.see(line(1_000 + code, u64::from(code)));
    }
    let list = ledger.list(Duration::ZERO);
    assert_eq!(list.len(), MAX_ENTRIES);
    assert_eq!(list[0].code, 1_000 + MAX_ENTRIES as u32);
}

proptest! {
    #[test]
    fn neither_source_s_count_is_exceeded_by_much_nor_missed(
        steps in prop::collection::vec((any::<bool>(), 0..30_u64), 1..60),
    ) {
        let mut seconds = 0;
        let mut counts = [0_u64; 2];
        let mut ledger = Ledger::default();
        for (is_event, pause) in steps {
            seconds += pause;
            counts[usize::from(is_event)] += 1;
            ledger.see(if is_event { event(95, seconds) } else { line(95, seconds) });
        }
        let count = ledger.list(Duration::ZERO)[0].count;
        prop_assert!(count >= *counts.iter().max().unwrap());
        prop_assert!(count <= counts.iter().sum());
    }
}
