use super::*;

const LIMITS: DrainLimits = DrainLimits {
    deadline: Duration::from_secs(60),
    settle: Duration::from_secs(3),
    unknown_grace: Duration::from_secs(30),
};
const IDLE: InFlight = InFlight::Known { running: 0, waiting: 0 };
const BUSY: InFlight = InFlight::Known { running: 2, waiting: 1 };
const WAITING: InFlight = InFlight::Known { running: 0, waiting: 1 };

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Drains from second 100 on, and gives when it ended and why. Each sample is taken at its second and seen
/// until the next one.
fn drain(limits: &DrainLimits, samples: &[(u64, InFlight)]) -> Option<(u64, Drained)> {
    let mut drain = Drain::new(seconds(100));
    (100..=200).find_map(|now| {
        let (sampled, in_flight) = samples.iter().rev().find(|(at, _)| *at <= now)?;
        drain.observe(*in_flight, seconds(*sampled), seconds(now), limits);
        Some((now, drain.over()?))
    })
}

#[test]
fn a_drain_ends_when_it_should() {
    use Drained::{DeadlineOver, GraceOver, Idle};
    for (case, samples, expected) in [
        ("idle from the start", &[(100, IDLE)][..], (103, Idle)),
        ("nothing to serve", &[(100, InFlight::Nothing)], (103, Idle)),
        ("sampled before the drain", &[(99, IDLE), (110, IDLE)], (113, Idle)),
        ("busy for a while", &[(100, BUSY), (120, IDLE)], (123, Idle)),
        ("waiting is in flight, too", &[(100, WAITING), (120, IDLE)], (123, Idle)),
        ("busy again within the settling", &[(100, IDLE), (102, BUSY), (105, IDLE)], (108, Idle)),
        ("busy to the end", &[(100, BUSY)], (160, DeadlineOver)),
        ("unknown", &[(100, InFlight::Unknown)], (130, GraceOver)),
        ("busy, then unknown", &[(100, BUSY), (140, InFlight::Unknown)], (140, GraceOver)),
        ("unknown, then busy", &[(100, InFlight::Unknown), (129, BUSY), (150, IDLE)], (153, Idle)),
        ("the server ended", &[(100, BUSY), (104, InFlight::Nothing)], (107, Idle)),
    ] {
        assert_eq!(drain(&LIMITS, samples), Some(expected), "{case}");
    }
}

#[test]
fn the_deadline_bounds_the_grace() {
    let limits = DrainLimits { deadline: seconds(5), ..LIMITS };
    assert_eq!(drain(&limits, &[(100, InFlight::Unknown)]), Some((105, Drained::GraceOver)));
}

#[test]
fn what_has_ended_stays_ended() {
    let mut drain = Drain::new(seconds(0));
    drain.observe(IDLE, seconds(1), seconds(4), &LIMITS);
    drain.observe(BUSY, seconds(5), seconds(99), &LIMITS);
    assert_eq!(drain.over(), Some(Drained::Idle));
}
