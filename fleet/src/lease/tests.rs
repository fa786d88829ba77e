#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const TTL_MS: u64 = 10_000;
const AT: Timestamp = Timestamp(0);

fn contender(holder: &str) -> Contender {
    Contender::new("autoscaling", holder, TTL_MS)
}

fn write_of(contender: &Contender, now_ms: u64) -> Write {
    match contender.next(now_ms, AT) {
        Action::Write(write) => write,
        other => panic!("{other:?} at {now_ms}"),
    }
}

/// One that claimed a free lease at 0 and has it since.
fn holding(holder: &str) -> (Contender, Lease) {
    let mut contender = contender(holder);
    assert_eq!(contender.next(0, AT), Action::Read);
    contender.read(None, 0);
    let write = write_of(&contender, 0);
    assert_eq!(write.expected, None);
    contender.done(&write, 0);
    (contender, write.lease)
}

#[test]
fn a_holder_believes_for_less_than_the_time_to_live_and_renews_before() {
    let (mut a, lease) = holding("a");
    assert_eq!(lease.stamp, Stamp { epoch: 1, sequence: 0 });
    assert_eq!((a.epoch(0), a.epoch(7_499), a.epoch(7_500)), (Some(1), Some(1), None));
    assert_eq!(a.next(0, AT), Action::Wait { ms: 2_000 });

    let renewal = write_of(&a, 2_000);
    assert_eq!(renewal.expected, Some(lease.stamp));
    assert_eq!(renewal.lease.stamp, Stamp { epoch: 1, sequence: 1 });
    // It counts from when it was sent, not from when the answer came.
    a.done(&renewal, 2_000);
    assert_eq!((a.epoch(9_499), a.epoch(9_500)), (Some(1), None));
}

#[test]
fn another_takes_over_after_no_change_for_the_time_to_live_and_not_before() {
    let (mut a, lease) = holding("a");
    let mut b = contender("b");
    b.read(Some(lease.clone()), 1_000);
    assert_eq!(b.other_holder(), Some("a"));
    assert_eq!(b.next(1_000, AT), Action::Wait { ms: 2_000 });
    b.read(Some(lease.clone()), 9_500);
    // The next look is at the end of the span, although the next regular one would be later.
    assert_eq!(b.next(10_999, AT), Action::Wait { ms: 1 });
    let takeover = write_of(&b, 11_000);
    assert_eq!(takeover.lease.stamp, Stamp { epoch: 2, sequence: 0 });
    assert_eq!(takeover.expected, Some(lease.stamp));
    b.done(&takeover, 11_000);
    assert_eq!(b.epoch(11_000), Some(2));

    // The one before learns of it by its next renewal.
    assert!(a.next(11_000, AT) != Action::Wait { ms: 0 });
    a.refused(Some(takeover.lease), 11_000);
    assert_eq!((a.epoch(11_000), a.other_holder()), (None, Some("b")));
}

#[test]
fn a_holder_that_renews_is_not_taken_over() {
    let (mut a, mut lease) = holding("a");
    let mut b = contender("b");
    for now_ms in (0..100_000).step_by(2_000).skip(1) {
        let renewal = write_of(&a, now_ms);
        a.done(&renewal, now_ms);
        lease = renewal.lease;
        b.read(Some(lease.clone()), now_ms);
        assert!(matches!(b.next(now_ms, AT), Action::Wait { .. }), "at {now_ms}");
        assert_eq!((a.epoch(now_ms), b.epoch(now_ms)), (Some(1), None));
    }
    assert_eq!(lease.stamp.epoch, 1);
}

#[test]
fn one_that_is_given_back_is_free_at_once_and_the_epoch_rises() {
    let (mut a, _) = holding("a");
    let release = a.release(AT).unwrap();
    assert_eq!(a.epoch(0), None, "before the write is sent");
    assert_eq!(release.lease.holder, None);
    a.done(&release, 0);
    assert_eq!(a.release(AT), None);

    let mut b = contender("b");
    b.read(Some(release.lease), 100);
    let claim = write_of(&b, 100);
    assert_eq!(claim.lease.stamp, Stamp { epoch: 2, sequence: 0 });
}

#[test]
fn a_claim_whose_answer_was_lost_is_renewed_before_it_is_believed() {
    let mut a = contender("a");
    a.read(None, 0);
    let claim = write_of(&a, 0);
    // It was written, but nobody heard of it.
    a.failed(2_000);
    assert_eq!(a.next(2_000, AT), Action::Wait { ms: 500 });
    let again = write_of(&a, 2_500);
    a.refused(Some(claim.lease), 2_500);
    assert_eq!(again.expected, None);
    assert_eq!(a.epoch(2_500), None);
    let renewal = write_of(&a, 2_500);
    assert_eq!(renewal.lease.stamp, Stamp { epoch: 1, sequence: 1 });
    a.done(&renewal, 2_500);
    assert_eq!(a.epoch(2_500), Some(1));
}

#[test]
fn a_restarted_process_waits_like_any_other() {
    let (_, lease) = holding("router-1 run 1");
    let mut again = contender("router-1 run 2");
    again.read(Some(lease), 0);
    assert!(matches!(again.next(0, AT), Action::Wait { .. }));
}

#[test]
fn a_refusal_that_explains_nothing_does_not_make_it_spin() {
    let (_, lease) = holding("a");
    let mut b = contender("b");
    b.read(Some(lease.clone()), 0);
    b.refused(Some(lease), 10_000);
    assert_eq!(b.next(10_000, AT), Action::Wait { ms: 500 });
}

/// What becomes of a call: when it reaches the store, when its answer comes, each maybe never.
struct Call {
    reaches_at: Option<u64>,
    answers_at: u64,
    /// The answer is lost, or the caller waited for it no longer.
    is_lost: bool,
    write: Option<Write>,
    sent_local_ms: u64,
    answer: Option<(bool, Option<Lease>)>,
}

struct Process {
    contender: Contender,
    /// Its clock is `offset + now · rate`.
    offset: f64,
    rate: f64,
    paused_until: u64,
    call: Option<Call>,
}

impl Process {
    fn clock(&self, now_ms: u64) -> u64 {
        (self.offset + now_ms as f64 * self.rate) as u64
    }
}

struct Simulation {
    random: u64,
    stored: Option<Lease>,
    processes: Vec<Process>,
    /// Writes of callers that gave up or died, still on their way.
    stray: Vec<(u64, Write)>,
    runs: u32,
}

impl Simulation {
    const STEP_MS: u64 = 50;
    const CALL_TIMEOUT_MS: u64 = 2_000;

    fn new(seed: u64) -> Self {
        let mut simulation =
            Self { random: seed, stored: None, processes: Vec::new(), stray: Vec::new(), runs: 0 };
        for _ in 0..4 {
            let process = simulation.process();
            simulation.processes.push(process);
        }
        simulation
    }

    /// SplitMix64.
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    fn process(&mut self) -> Process {
        self.runs += 1;
        Process {
            contender: contender(&format!("run {}", self.runs)),
            offset: self.below(1_000_000) as f64,
            // The fastest runs at 1.22 times the slowest.
            rate: 0.9 + self.below(200) as f64 / 1_000.0,
            paused_until: 0,
            call: None,
        }
    }

    fn apply(&mut self, write: &Write) -> (bool, Option<Lease>) {
        let holds = self.stored.as_ref().map(|lease| lease.stamp) == write.expected;
        if holds {
            self.stored = Some(write.lease.clone());
        }
        (holds, self.stored.clone())
    }

    fn step(&mut self, now: u64, faults: bool) {
        let (arrived, waiting) =
            std::mem::take(&mut self.stray).into_iter().partition(|s| s.0 <= now);
        self.stray = waiting;
        let arrived: Vec<(u64, Write)> = arrived;
        for (_, write) in &arrived {
            self.apply(write);
        }
        for i in 0..self.processes.len() {
            self.deliver(i, now);
            if faults && self.below(400) == 0 {
                self.disturb(i, now);
            }
            if self.processes[i].paused_until <= now {
                self.answer(i, now);
                self.act(i, now, faults);
            }
        }
    }

    /// A pause, longer than the lease at worst, or a restart.
    fn disturb(&mut self, i: usize, now: u64) {
        if self.below(2) == 0 {
            self.processes[i].paused_until = now + self.below(2 * TTL_MS);
            return;
        }
        let next = self.process();
        let before = std::mem::replace(&mut self.processes[i], next);
        if let Some(Call { reaches_at: Some(at), write: Some(write), answer: None, .. }) =
            before.call
        {
            self.stray.push((at, write));
        }
    }

    fn deliver(&mut self, i: usize, now: u64) {
        let Some(mut call) = self.processes[i].call.take() else { return };
        if call.answer.is_none() && call.reaches_at.is_some_and(|at| at <= now) {
            call.answer = Some(match &call.write {
                Some(write) => self.apply(write),
                None => (true, self.stored.clone()),
            });
        }
        self.processes[i].call = Some(call);
    }

    fn answer(&mut self, i: usize, now: u64) {
        let process = &mut self.processes[i];
        let Some(call) = process.call.take_if(|call| call.answers_at <= now) else { return };
        let clock_ms = process.clock(now);
        match (call.answer, call.write) {
            (Some((true, stored)), None) if !call.is_lost => {
                process.contender.read(stored, clock_ms)
            }
            (Some((true, _)), Some(write)) if !call.is_lost => {
                process.contender.done(&write, call.sent_local_ms);
            }
            (Some((false, stored)), _) if !call.is_lost => {
                process.contender.refused(stored, clock_ms)
            }
            (answer, write) => {
                process.contender.failed(clock_ms);
                if let (None, Some(write), Some(at)) = (answer, write, call.reaches_at) {
                    self.stray.push((at, write));
                }
            }
        }
    }

    fn act(&mut self, i: usize, now: u64, faults: bool) {
        if self.processes[i].call.is_some() {
            return;
        }
        let clock_ms = self.processes[i].clock(now);
        let write = match self.processes[i].contender.next(clock_ms, AT) {
            Action::Wait { .. } => return,
            Action::Read => None,
            Action::Write(write) => Some(write),
        };
        let fate = if faults { self.below(10) } else { 9 };
        let (there, back) = (self.below(200), self.below(200));
        let (reaches_at, answers_at, is_lost) = match fate {
            0 => (None, now + Self::CALL_TIMEOUT_MS, true),
            1 => (Some(now + there), now + Self::CALL_TIMEOUT_MS, true),
            2 => (Some(now + self.below(TTL_MS)), now + Self::CALL_TIMEOUT_MS, true),
            _ => (Some(now + there), now + there + back + Self::STEP_MS, false),
        };
        let call =
            Call { reaches_at, answers_at, is_lost, write, sent_local_ms: clock_ms, answer: None };
        self.processes[i].call = Some(call);
    }

    fn believers(&self, now: u64) -> Vec<u64> {
        self.processes.iter().filter_map(|p| p.contender.epoch(p.clock(now))).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Lost and late calls, pauses, restarts, clocks that are off and run unevenly: at most one believes,
    /// epochs only rise, and when the faults end somebody holds it.
    #[test]
    fn never_two_believe_and_at_last_one_does(seed in any::<u64>()) {
        let mut simulation = Simulation::new(seed);
        let (mut highest, mut believed_ms) = (0, 0);
        let faulty_ms = 300_000;
        let mut now = 0;
        while now < faulty_ms + 10 * TTL_MS {
            simulation.step(now, now < faulty_ms);
            let believers = simulation.believers(now);
            prop_assert!(believers.len() <= 1, "{believers:?} at {now}");
            for epoch in believers {
                prop_assert!(epoch >= highest, "{epoch} after {highest} at {now}");
                highest = epoch;
                believed_ms += Simulation::STEP_MS;
            }
            now += Simulation::STEP_MS;
        }
        prop_assert_eq!(simulation.believers(now).len(), 1);
        prop_assert!(believed_ms > faulty_ms / 4, "held for {believed_ms} ms only");
    }
}
