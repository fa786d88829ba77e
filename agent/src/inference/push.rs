//! `POST /report`: a home-grown server says itself how it is, from the same machine.
//!
//! A report holds for a time that is configured. When no other came until then, the server counts as silent, and
//! again after each such time.

use std::time::{Duration, Instant};

use serde::Deserialize;
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet, time};

use super::models;
use crate::{
    config::{self, InferenceSource},
    signals::{self, Check, Load, Reading},
    state::Event,
};

/// Names of models are most of a report.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 10;

/// Reports that wait to be taken in. More are refused: the next one says the same, and is newer.
const MAX_WAITING: usize = 8;

const MAX_MODELS: usize = 256;

/// What a report holds. What it leaves out is not known.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Report {
    /// Requests waiting.
    queue_depth: Option<u32>,
    /// Requests being served.
    running: Option<u32>,
    avg_latency_ms: Option<f64>,
    time_to_first_token_ms: Option<f64>,
    /// Between 0 and 1.
    kv_cache_usage: Option<f64>,
    /// Those that it serves now; none while it loads.
    models: Option<Vec<String>>,
    model_load_ms: Option<u64>,
}

/// Why a report is not taken.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum Refused {
    #[error("the report is not valid: {0}")]
    Invalid(String),
    #[error("more reports came than can be taken in: report less often")]
    TooMany,
}

impl Report {
    fn parse(body: &[u8]) -> Result<Self, Refused> {
        // An array would be taken as well, field by field.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Refused::Invalid("it is no JSON object".to_owned()));
        }
        let report: Self =
            serde_json::from_slice(body).map_err(|error| Refused::Invalid(error.to_string()))?;
        match report.problem() {
            Some(problem) => Err(Refused::Invalid(problem)),
            None => Ok(report),
        }
    }

    fn problem(&self) -> Option<String> {
        if *self == Self::default() {
            return Some("it says nothing: give queue_depth, running or models".to_owned());
        }
        let numbers = [
            ("avg_latency_ms", self.avg_latency_ms, f64::MAX),
            ("time_to_first_token_ms", self.time_to_first_token_ms, f64::MAX),
            ("kv_cache_usage", self.kv_cache_usage, 1.0),
        ];
        for (field, number, most) in numbers {
            if let Some(number) = number.filter(|number| !(0.0..=most).contains(number)) {
                let range = if most == 1.0 { "0 to 1" } else { "0 or more" };
                return Some(format!("{field} is {number}: give {range}"));
            }
        }
        let models = self.models.as_deref().unwrap_or_default();
        if models.len() > MAX_MODELS {
            return Some(format!("models has {} names: {MAX_MODELS} at most", models.len()));
        }
        let is_bad = |name: &&String| models::keep(vec![(*name).clone()]).is_empty();
        let bad = models.iter().find(is_bad)?;
        Some(format!("models has a name of {} bytes: give 1 to 256", bad.len()))
    }

    fn into_signal(self, at: Duration) -> signals::Inference {
        let load = Load {
            waiting: self.queue_depth,
            running: self.running,
            avg_latency_ms: self.avg_latency_ms,
            time_to_first_token_ms: self.time_to_first_token_ms,
            kv_cache_usage: self.kv_cache_usage,
        };
        let models = match self.models {
            Some(names) => Reading::ok(models::keep(names)),
            None => Reading::missing("the last report names no models"),
        };
        let said = Check { reason: Some("as the server reports".to_owned()), ..Check::ok() };
        let load = Reading::noted(load, said);
        signals::Inference {
            model_load_ms: self.model_load_ms,
            ..signals::Inference::new(load, models, at)
        }
    }
}

/// Where reports are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Inbox(mpsc::Sender<Report>);

impl Inbox {
    pub(crate) fn take(&self, body: &[u8]) -> Result<(), Refused> {
        self.0.try_send(Report::parse(body)?).map_err(|_| Refused::TooMany)
    }
}

/// Waits for reports, where the server was configured to send some.
pub(crate) fn start(
    config: Option<&config::Inference>,
    start: Instant,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
) -> Option<Inbox> {
    let InferenceSource::Push { stale_after } = config?.source else { return None };
    let (sender, reports) = mpsc::channel(MAX_WAITING);
    tasks.spawn(run(reports, stale_after, start, events.clone()));
    Some(Inbox(sender))
}

/// Hands reports on until nobody listens, and says when they stop coming.
async fn run(
    mut reports: mpsc::Receiver<Report>,
    stale_after: Duration,
    start: Instant,
    events: mpsc::Sender<Event>,
) {
    // At once, so that readiness does not wait for a report that may be long in coming.
    let mut signal = silent("the server has not reported yet (POST /report)", start.elapsed());
    while events.send(Event::Inference(signal)).await.is_ok() {
        signal = match time::timeout(stale_after, reports.recv()).await {
            Ok(Some(report)) => report.into_signal(start.elapsed()),
            // The server is gone, and with it those that could report.
            Ok(None) => return,
            Err(_) => {
                let seconds = stale_after.as_secs();
                let reason = format!("the server has not reported for {seconds} s (POST /report)");
                silent(&reason, start.elapsed())
            }
        };
    }
}

/// No report, and why.
pub(crate) fn silent(reason: &str, at: Duration) -> signals::Inference {
    signals::Inference::new(Reading::error(reason), Reading::error(reason), at)
}

#[cfg(test)]
mod tests;
