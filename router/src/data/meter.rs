//! What a data thread measures of its pools: answers, and how long successful ones took. It counts in
//! memory of its own and hands the counts over about once a second, as a whole.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use http::StatusCode;
use mrgc_fleet::{
    histogram::{Histogram, Recorder},
    model::PoolId,
    snapshot::View,
};
use tokio::sync::mpsc;

const HAND_OVER_INTERVAL: Duration = Duration::from_secs(1);

/// What a thread measured of a pool since it told last.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub pool: PoolId,
    /// Answers of the pool's instances that were passed on, of any status.
    pub answered: u64,
    /// From a request's arrival to the end of its response, of those with a 2xx status that ended well.
    pub latency: Histogram,
}

/// A thread's measurements, by pool.
pub type Batch = Vec<Served>;

/// A request whose response is on its way.
#[derive(Debug)]
pub(super) struct Measurement {
    started: Instant,
    view: u32,
}

#[derive(Debug)]
pub(super) struct Meter {
    /// `None` where nobody wants to know.
    to: Option<mpsc::Sender<Batch>>,
    /// By the id of the view of the pool's instances, which is never another pool's.
    pools: RefCell<Vec<Option<Pool>>>,
    handed_over: Cell<Instant>,
}

#[derive(Debug)]
struct Pool {
    id: PoolId,
    answered: u64,
    latency: Recorder,
}

impl Meter {
    pub fn new(to: Option<mpsc::Sender<Batch>>, now: Instant) -> Self {
        Self { to, pools: RefCell::default(), handed_over: Cell::new(now) }
    }

    /// Counts an answer. One that is to be measured is told again when its response has ended.
    pub fn answered(
        &self,
        view: &View,
        started: Instant,
        status: StatusCode,
    ) -> Option<Measurement> {
        self.to.as_ref()?;
        let mut pools = self.pools.borrow_mut();
        let place = view.id as usize;
        if pools.len() <= place {
            pools.resize_with(place + 1, || None);
        }
        let new = || Pool { id: view.key.pool.clone(), answered: 0, latency: Recorder::default() };
        pools[place].get_or_insert_with(new).answered += 1;
        status.is_success().then_some(Measurement { started, view: view.id })
    }

    /// A response has ended: reads the clock.
    pub fn completed(&self, measurement: Measurement) {
        if let Some(Some(pool)) = self.pools.borrow_mut().get_mut(measurement.view as usize) {
            // Half a million years fit.
            pool.latency.record_us(measurement.started.elapsed().as_micros() as u64);
        }
    }

    /// Hands over what was counted if it is time to.
    pub fn tick(&self, now: Instant) {
        if now.saturating_duration_since(self.handed_over.get()) >= HAND_OVER_INTERVAL {
            self.handed_over.set(now);
            self.hand_over();
        }
    }

    /// Hands over what was counted. Where there is no room for it, counting goes on.
    pub fn hand_over(&self) {
        let Some(to) = &self.to else { return };
        let Ok(room) = to.try_reserve() else { return };
        let mut pools = self.pools.borrow_mut();
        let batch: Batch = pools.iter_mut().flatten().filter_map(Pool::take).collect();
        if !batch.is_empty() {
            room.send(batch);
        }
    }
}

impl Pool {
    fn take(&mut self) -> Option<Served> {
        let (answered, latency) = (std::mem::take(&mut self.answered), self.latency.take());
        let is_new = answered > 0 || !latency.is_empty();
        is_new.then(|| Served { pool: self.id.clone(), answered, latency })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mrgc_fleet::snapshot::{Level, ViewKey};

    use super::*;

    fn view(id: u32, pool: &str) -> View {
        let region = Some("us-east-1".into());
        View {
            id,
            key: ViewKey { level: Level::Instance, region, pool: pool.into() },
            candidates: Vec::new(),
        }
    }

    /// One answer each: a whole one, one that breaks off, a refusal.
    fn serve(meter: &Meter, view: &View) {
        let started = Instant::now();
        let whole = meter.answered(view, started, StatusCode::OK).unwrap();
        meter.completed(whole);
        assert!(meter.answered(view, started, StatusCode::CREATED).is_some());
        assert!(meter.answered(view, started, StatusCode::TOO_MANY_REQUESTS).is_none());
    }

    fn counts(batch: &Batch) -> Vec<(&str, u64, u64)> {
        batch.iter().map(|s| (s.pool.as_str(), s.answered, s.latency.count())).collect()
    }

    #[test]
    fn a_batch_tells_what_was_served_since_the_one_before() {
        let (to, mut batches) = mpsc::channel(4);
        let meter = Meter::new(Some(to), Instant::now());
        serve(&meter, &view(7, "large"));
        serve(&meter, &view(0, "small"));
        meter.hand_over();
        let batch = batches.try_recv().unwrap();
        assert_eq!(counts(&batch), [("small", 3, 1), ("large", 3, 1)]);

        meter.hand_over();
        assert!(batches.try_recv().is_err(), "nothing was served");
        serve(&meter, &view(7, "large"));
        meter.hand_over();
        assert_eq!(counts(&batches.try_recv().unwrap()), [("large", 3, 1)]);
    }

    #[test]
    fn what_finds_no_room_is_handed_over_later() {
        let (to, mut batches) = mpsc::channel(1);
        let meter = Meter::new(Some(to), Instant::now());
        for _ in 0..3 {
            serve(&meter, &view(0, "small"));
            meter.hand_over();
        }
        assert_eq!(counts(&batches.try_recv().unwrap()), [("small", 3, 1)]);
        meter.hand_over();
        assert_eq!(counts(&batches.try_recv().unwrap()), [("small", 6, 2)]);
        drop(batches);
        serve(&meter, &view(0, "small"));
        meter.hand_over();
    }

    #[test]
    fn a_second_passes_between_two_batches() {
        let (to, mut batches) = mpsc::channel(4);
        let start = Instant::now();
        let meter = Meter::new(Some(to), start);
        for (after_ms, is_told) in [(999, false), (1_000, true), (1_999, false), (2_000, true)] {
            serve(&meter, &view(0, "small"));
            meter.tick(start + Duration::from_millis(after_ms));
            assert_eq!(batches.try_recv().is_ok(), is_told, "after {after_ms} ms");
        }
    }

    #[test]
    fn where_nobody_wants_to_know_nothing_is_kept() {
        let meter = Meter::new(None, Instant::now());
        assert!(meter.answered(&view(0, "small"), Instant::now(), StatusCode::OK).is_none());
        assert!(meter.pools.borrow().is_empty());
    }

    #[test]
    fn a_measurement_is_small_for_every_exchange_holds_one() {
        assert!(size_of::<Option<Measurement>>() <= 24);
    }
}
