//! Coarse timers of a data thread. Every request sets some and nearly none of them ever rings, so setting
//! one costs a place in a list, and the clock is read once per request and tick, not at each use.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pin_project_lite::pin_project;

/// How late an alarm may be while requests come.
const TICK: Duration = Duration::from_millis(10);
/// How late the first may be after none came: an idle router should sleep.
const IDLE_TICK: Duration = Duration::from_millis(50);

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    static UNIX_MS: Cell<u64> = const { Cell::new(0) };
    /// Whether a request came since the last tick.
    static BUSY: Cell<bool> = const { Cell::new(false) };
    static ALARMS: RefCell<Alarms> = const { RefCell::new(Alarms { set: Vec::new(), free: Vec::new() }) };
}

#[derive(Debug)]
struct Alarms {
    set: Vec<Option<(Instant, Waker)>>,
    free: Vec<usize>,
}

/// The time at the last tick or request.
pub(super) fn now() -> Instant {
    NOW.get().unwrap_or_else(Instant::now)
}

/// Milliseconds since the Unix epoch at the last tick.
pub(super) fn unix_ms() -> u64 {
    UNIX_MS.get()
}

/// A request comes: reads the clock.
pub(super) fn request() -> Instant {
    let now = Instant::now();
    NOW.set(Some(now));
    BUSY.set(true);
    now
}

/// Moves the clock of this thread, rings what is due, and says when to be called again.
pub(super) fn tick() -> Duration {
    let now = Instant::now();
    NOW.set(Some(now));
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_MS.set(unix.as_millis() as u64);
    let due = |alarm: &mut Option<(Instant, Waker)>| alarm.take_if(|(at, _)| *at <= now);
    let rung: Vec<Waker> = ALARMS
        .with_borrow_mut(|alarms| alarms.set.iter_mut().filter_map(due).map(|(_, w)| w).collect());
    // Outside the borrow: waking may set another alarm.
    rung.into_iter().for_each(Waker::wake);
    if BUSY.replace(false) { TICK } else { IDLE_TICK }
}

/// Rings every alarm of this thread, due or not: whoever waits looks again at what has changed.
pub(super) fn ring_all() {
    let all: Vec<Waker> = ALARMS.with_borrow_mut(|alarms| {
        alarms.set.iter_mut().filter_map(Option::take).map(|(_, waker)| waker).collect()
    });
    all.into_iter().for_each(Waker::wake);
}

/// Waits until a time of this thread's clock.
#[derive(Debug)]
pub(super) struct Alarm {
    at: Instant,
    place: Option<usize>,
}

impl Alarm {
    pub fn at(at: Instant) -> Self {
        Self { at, place: None }
    }

    /// Moves it; one that rang can ring again.
    pub fn reset(&mut self, at: Instant) {
        self.clear();
        self.at = at;
    }

    fn clear(&mut self) {
        if let Some(place) = self.place.take() {
            ALARMS.with_borrow_mut(|alarms| {
                alarms.set[place] = None;
                alarms.free.push(place);
            });
        }
    }

    /// Has it wake `waker` when it rings.
    pub fn arm(&mut self, waker: &Waker) {
        ALARMS.with_borrow_mut(|alarms| {
            let place = *self.place.get_or_insert_with(|| {
                alarms.free.pop().unwrap_or_else(|| {
                    alarms.set.push(None);
                    alarms.set.len() - 1
                })
            });
            match &mut alarms.set[place] {
                Some((_, old)) if old.will_wake(waker) => {}
                alarm => *alarm = Some((self.at, waker.clone())),
            }
        });
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if now() >= self.at {
            return Poll::Ready(());
        }
        self.arm(cx.waker());
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The outcome of `work` if it comes within `limit`.
pub(super) fn within<F: Future>(limit: Duration, work: F) -> Within<F> {
    Within { work, limit, alarm: None }
}

pin_project! {
    /// See [`within`]. Written out: as an `async fn` it would take its work's room twice.
    pub(super) struct Within<F> {
        #[pin]
        work: F,
        limit: Duration,
        alarm: Option<Alarm>,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.work.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let alarm = this.alarm.get_or_insert_with(|| Alarm::at(now() + *this.limit));
        Pin::new(alarm).poll(cx).map(|()| None)
    }
}

/// The same timers for hyper, which keeps one for each client's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyperTimer;

impl hyper::rt::Timer for HyperTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Alarm::at(deadline))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Alarm>() {
            Some(mut alarm) => alarm.reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }

    fn now(&self) -> Instant {
        now()
    }
}

impl hyper::rt::Sleep for Alarm {}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn an_alarm_rings_once_when_it_is_due_and_leaves_no_place() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        tick();
        let mut soon = Alarm::at(now());
        assert!(Pin::new(&mut soon).poll(&mut cx).is_ready());

        let mut later = Alarm::at(now() + Duration::from_secs(3600));
        let mut due = Alarm::at(now() + Duration::from_nanos(1));
        assert!(Pin::new(&mut later).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut due).poll(&mut cx).is_pending());
        tick();
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(Pin::new(&mut due).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut later).poll(&mut cx).is_pending());
        drop((later, due));
        ALARMS.with_borrow(|alarms| assert_eq!(alarms.free.len(), alarms.set.len()));
    }

    #[test]
    fn an_alarm_that_is_moved_rings_at_its_new_time() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        tick();
        let mut alarm = Alarm::at(now() + Duration::from_nanos(1));
        assert!(Pin::new(&mut alarm).poll(&mut cx).is_pending());
        alarm.reset(now() + Duration::from_secs(3600));
        assert!(Pin::new(&mut alarm).poll(&mut cx).is_pending());
        tick();
        assert_eq!(count.0.load(Relaxed), 0);
    }
}
