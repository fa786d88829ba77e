#![allow(clippy::unwrap_used)]

use mrgc_fleet::model::{Registration, Report};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const PACE: Pace = Pace { interval: Duration::from_secs(60), max_age: Duration::from_secs(180) };

fn board() -> Board {
    Board::new("us".into(), vec!["p".into()], PACE)
}

/// An instance of the pool, with an enclave that runs.
fn instance(id: &str) -> Standing {
    changed(id, |_, _| {})
}

/// The same, but for something.
fn changed(id: &str, change: impl FnOnce(&mut Registration, &mut Option<Report>)) -> Standing {
    let mut registration = Registration {
        generation: 1,
        health_address: "127.0.0.1:8080".to_owned(),
        ..Registration::new(id, "us", "p", "127.0.0.1:8000")
    };
    let report = Report { enclave: EnclaveState::Running, ..Report::new(id, "us", 1, 1) };
    let mut report = Some(report);
    change(&mut registration, &mut report);
    Standing::new(registration, report)
}

fn stopped(report: &mut Option<Report>) {
    report.as_mut().unwrap().enclave = EnclaveState::Absent;
}

fn attested() -> Outcome {
    attested_until(Duration::MAX)
}

/// By a certificate that holds for so long.
fn attested_until(certificate_left: Duration) -> Outcome {
    Outcome::Attested(Attested {
        module_id: "i-1-enc1".to_owned(),
        at: Timestamp(5),
        certificate_left,
    })
}

fn refused() -> Outcome {
    Outcome::Refused("forged".to_owned())
}

fn unanswered() -> Outcome {
    Outcome::Unanswered("no answer".to_owned())
}

/// A board on which the one instance is attested at `now`.
fn board_with(standing: &Arc<Standing>, now: Instant) -> (Board, Target) {
    let mut board = board();
    let target = board.due(std::slice::from_ref(standing), 8, now).remove(0);
    assert!(!board.answered(&target, attested(), now, now, 0.0));
    assert!(board.is_attested(standing, now));
    (board, target)
}

fn reason(board: &Board, standing: &Standing, now: Instant) -> String {
    let verdict = board.verdict(standing, now);
    assert_eq!(verdict.attested, board.is_attested(standing, now));
    verdict.reason.unwrap_or_default()
}

#[test]
fn an_instance_is_asked_once_and_again_after_the_interval() {
    let (mut board, now) = (board(), Instant::now());
    let fleet: Vec<_> = ["i-1", "i-2", "i-3"].map(|id| Arc::new(instance(id))).into();
    let first = board.due(&fleet, 2, now);
    assert_eq!(first.len(), 2, "no more than there is room for");
    assert_eq!(reason(&board, &fleet[0], now), "not verified yet");
    let second = board.due(&fleet, 2, now);
    assert_eq!(second.len(), 1, "those that are asked are not asked again");
    assert!(!first.contains(&second[0]));
    assert!(board.due(&fleet, 2, now + 600 * SECOND).is_empty());

    for (target, chance) in first.iter().chain(&second).zip([0.0, 0.5, 1.0]) {
        board.answered(target, attested(), now, now, chance);
    }
    let due = |board: &mut Board, after| board.due(&fleet, 8, now + after * SECOND).len();
    assert_eq!(due(&mut board, 44), 0);
    assert_eq!(due(&mut board, 45), 1, "a quarter sooner, by chance");
    assert_eq!(due(&mut board, 60), 2);
}

#[test]
fn what_was_attested_lapses() {
    let (standing, now) = (Arc::new(instance("i-1")), Instant::now());
    let (board, _) = board_with(&standing, now);
    let verdict = board.verdict(&standing, now);
    assert_eq!(verdict.module_id.as_deref(), Some("i-1-enc1"));
    assert_eq!((verdict.documented_at, verdict.reason), (Some(Timestamp(5)), None));
    assert!(board.is_attested(&standing, now + 179 * SECOND));
    assert!(!board.is_attested(&standing, now + 180 * SECOND));
    assert_eq!(reason(&board, &standing, now + 180 * SECOND), "not verified for 180 s");
}

#[test]
fn a_document_counts_from_its_nonce_on() {
    let (standing, asked) = (Arc::new(instance("i-1")), Instant::now());
    let mut board = board();
    let target = board.due(std::slice::from_ref(&standing), 1, asked).remove(0);
    board.answered(&target, attested(), asked, asked + 10 * SECOND, 0.0);
    assert!(board.is_attested(&standing, asked + 179 * SECOND));
    assert!(!board.is_attested(&standing, asked + 180 * SECOND));
}

#[test]
fn nothing_is_attested_for_longer_than_its_certificate_holds() {
    let (standing, now) = (Arc::new(instance("i-1")), Instant::now());
    let (mut board, target) = board_with(&standing, now);
    board.answered(&target, attested_until(10 * SECOND), now, now, 0.0);
    assert!(board.is_attested(&standing, now + 9 * SECOND));
    assert!(!board.is_attested(&standing, now + 10 * SECOND));
}

#[test]
fn a_forged_document_ends_it_at_once() {
    let (standing, now) = (Arc::new(instance("i-1")), Instant::now());
    let (mut board, target) = board_with(&standing, now);
    assert!(board.answered(&target, refused(), now, now, 0.0), "told");
    assert_eq!(reason(&board, &standing, now), "forged");
    assert!(!board.answered(&target, refused(), now, now, 0.0), "told once");
    assert_eq!(board.verdict(&standing, now).module_id, None);
    assert!(!board.answered(&target, attested(), now, now, 0.0));
    assert!(board.is_attested(&standing, now));
}

#[test]
fn silence_is_no_forgery() {
    let (standing, now) = (Arc::new(instance("i-1")), Instant::now());
    let (mut board, target) = board_with(&standing, now);
    assert!(!board.answered(&target, unanswered(), now, now + SECOND, 0.0));
    assert_eq!(reason(&board, &standing, now + SECOND), "no answer");
    assert!(board.is_attested(&standing, now + SECOND));
    let later = now + 180 * SECOND;
    assert_eq!(reason(&board, &standing, later), "not verified for 180 s: no answer");
}

#[test]
fn failures_are_tried_again_ever_more_slowly() {
    let (standing, mut now) = (Arc::new(instance("i-1")), Instant::now());
    let mut board = board();
    for (failed, pause) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let fleet = std::slice::from_ref(&standing);
        let target = board.due(fleet, 1, now).pop().unwrap();
        let outcome = if failed % 2 == 0 { unanswered() } else { refused() };
        board.answered(&target, outcome, now, now, 0.0);
        assert!(board.due(fleet, 1, now + pause * SECOND - SECOND / 1_000).is_empty(), "{failed}");
        now += pause * SECOND;
    }
}

#[test]
fn another_generation_starts_anew() {
    let (standing, now) = (Arc::new(instance("i-1")), Instant::now());
    let (mut board, target) = board_with(&standing, now);
    let silent = changed("i-1", |registration, _| registration.generation = 2);
    assert_eq!(reason(&board, &silent, now), "it has not reported yet");
    let next = changed("i-1", |registration, report| {
        registration.generation = 2;
        report.as_mut().unwrap().generation = 2;
    });
    assert_eq!(reason(&board, &next, now), "not verified yet");

    let fleet = [Arc::new(next)];
    let again = board.due(&fleet, 1, now).pop().unwrap();
    assert_eq!(again.generation, 2);
    board.answered(&target, attested(), now, now, 0.0);
    assert!(!board.is_attested(&fleet[0], now), "an answer to an earlier one says nothing of it");
}

#[test]
fn an_enclave_that_stops_is_attested_no_more() {
    let (standing, now) = (Arc::new(instance("i-1")), Instant::now());
    let (mut board, _) = board_with(&standing, now);
    let stopped = changed("i-1", |_, report| stopped(report));
    assert_eq!(reason(&board, &stopped, now), "no enclave runs");
    assert!(board.due(&[Arc::new(stopped)], 1, now).is_empty());
    // The one that runs later may be another.
    assert_eq!(reason(&board, &standing, now), "not verified yet");
    assert_eq!(board.due(&[standing], 1, now).len(), 1);
}

#[test]
fn some_are_not_judged_here() {
    let (mut board, now) = (board(), Instant::now());
    type Change = fn(&mut Registration, &mut Option<Report>);
    let cases: [(Change, &str); 5] = [
        (|r, _| r.region = "eu".into(), "the routers of eu judge it"),
        (|r, _| r.pool = "q".into(), "attestation.images has none of pool q"),
        (|_, report| *report = None, "it has not reported yet"),
        (|_, report| stopped(report), "no enclave runs"),
        (|r, _| r.health_address.clear(), "it has no agent to ask"),
    ];
    for (change, expected) in cases {
        let standing = changed("i-1", change);
        assert_eq!(reason(&board, &standing, now), expected);
        assert!(board.due(&[Arc::new(standing)], 1, now).is_empty(), "{expected}");
    }
}

#[test]
fn the_gone_are_forgotten() {
    let (mut board, now) = (board(), Instant::now());
    for n in 0..100 {
        board.due(&[Arc::new(instance(&format!("i-{n}")))], 8, now);
    }
    assert_eq!(board.records.len(), 1);
}
