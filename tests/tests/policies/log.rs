//! A policy that floods its log.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Event, Subscriber, field::Visit, subscriber::with_default};
use tracing_subscriber::{Layer, Registry, layer::Context, layer::SubscriberExt};

use crate::support::{LIMITS, Shown, hostile};

const FLOOD: &str = r#"{"export": "score", "what": "log_flood"}"#;
/// What the hostile policy writes in each call.
const LINES: u64 = 100;

/// Keeps each line's message.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl Kept {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Layer<S> for Kept {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message<'a>(&'a Kept);
        impl Visit for Message<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    let mut lines = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut Message(self));
    }
}

#[test]
fn a_flood_is_cut_and_counted_in_each_call() -> anyhow::Result<()> {
    let kept = Kept::default();
    let mut shown = Shown::new(hostile()?, FLOOD)?;
    with_default(Registry::default().with(kept.clone()), || -> anyhow::Result<()> {
        for call in 1..=3 {
            shown.score(0)?;
            let lines = kept.take();
            assert_eq!(lines.len(), LIMITS.log_lines as usize);
            assert!(lines.iter().all(|line| line.len() <= LIMITS.log_line_bytes));
            let dropped = call * (LINES - u64::from(LIMITS.log_lines));
            assert_eq!(shown.instance.log_lines_dropped(), dropped);
        }
        Ok(())
    })
}
