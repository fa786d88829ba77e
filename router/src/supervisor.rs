//! systemd, as the router deals with it, by sd_notify(3). Where nobody listens, nothing is said.
//!
//! | when | it hears |
//! |---|---|
//! | everything listens | `READY=1` |
//! | twice in the watchdog's time | `WATCHDOG=1`, if every data thread has turned since the last time |
//! | the router is told to stop | `STOPPING=1`, and how long that may take |

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

/// Beyond the drain: the last measurements are stored, and the control API ends.
const AFTER_DRAIN: Duration = Duration::from_secs(15);

/// Says that the router is ready, then speaks for it until it ends. `turns` counts each data thread's.
pub(crate) async fn run(
    mut shutdown: watch::Receiver<bool>,
    drain: Duration,
    turns: impl Fn() -> Vec<u64>,
) {
    tell(NotifyState::Ready);
    let mut feeding = sd_notify::watchdog_enabled().map(|watchdog| ticks(watchdog / 2));
    let mut before = Vec::new();
    let mut stopping = false;
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                let limit = drain.saturating_add(AFTER_DRAIN).as_micros();
                tell(NotifyState::Stopping);
                tell(NotifyState::ExtendTimeoutUsec(limit.try_into().unwrap_or(u32::MAX)));
            }
            () = next(&mut feeding) => {
                let now = turns();
                // A thread that has drained turns no more.
                match stuck(&before, &now).filter(|_| !stopping) {
                    None => tell(NotifyState::Watchdog),
                    Some(thread) => tracing::error!(thread, "a data thread hangs: the watchdog starves"),
                }
                before = now;
            }
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Never, where there is no watchdog.
async fn next(feeding: &mut Option<Interval>) {
    match feeding {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// A thread that has not turned between two looks.
fn stuck(before: &[u64], now: &[u64]) -> Option<usize> {
    before.iter().zip(now).position(|(before, now)| before == now)
}

/// The router runs on without a service manager that listens.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_not_turned_is_stuck() {
        assert_eq!(stuck(&[], &[0, 0]), None, "at the first look");
        assert_eq!(stuck(&[1, 5], &[2, 6]), None);
        assert_eq!(stuck(&[2, 6], &[3, 6]), Some(1));
        assert_eq!(stuck(&[], &[]), None, "a router without a data plane");
    }
}
