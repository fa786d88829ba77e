//! Asks IMDS for notices, at a pace that costs nothing and misses none: a spot interruption comes two minutes
//! ahead.
//!
//! Where a page cannot be read, what it said before stands. Where IMDS throttles or is silent, the waits
//! double up to a minute.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::{sync::mpsc, time as clock};

use super::{Notice, Source, parse_date};
use crate::{
    backoff::Backoff,
    config,
    identity::{Imds, ImdsError, Page},
    signals::Check,
    state::Event,
};

/// Maintenance is announced days ahead.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(60);

const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// Watches until nobody listens.
pub(crate) async fn watch(mut imds: Imds, config: config::Notices, events: mpsc::Sender<Event>) {
    let mut said = Said::default();
    let mut failures = 0;
    loop {
        let check = said.ask(&mut imds, &config).await;
        let wait = match &check {
            Ok(()) => {
                failures = 0;
                config.interval
            }
            Err(error) => {
                failures += 1;
                if u32::is_power_of_two(failures) {
                    tracing::warn!(%error, failures, "notices of the cloud cannot be read");
                }
                let backoff = Backoff { base: config.interval, cap: BACKOFF_CAP };
                config.interval + backoff.wait(failures, fastrand::f64())
            }
        };
        let check = check.map_or_else(|error| Check::error(error.to_string()), |()| Check::ok());
        let notices = said.notices();
        if events.send(Event::Notices { notices, check }).await.is_err() {
            return;
        }
        clock::sleep(wait).await;
    }
}

/// What each page said last.
#[derive(Debug, Default)]
struct Said {
    pages: [Vec<Notice>; Source::ALL.len()],
    maintenance_asked: Option<clock::Instant>,
}

impl Said {
    /// Asks all pages that are due. One that is odd by itself does not hide the others; where IMDS does not
    /// answer, or not now, the rest waits.
    async fn ask(&mut self, imds: &mut Imds, config: &config::Notices) -> Result<(), ImdsError> {
        let mut odd = None;
        for (source, said) in Source::ALL.into_iter().zip(&mut self.pages) {
            if source == Source::Maintenance {
                let pause = MAINTENANCE_EVERY.max(config.interval);
                if self.maintenance_asked.is_some_and(|asked| asked.elapsed() < pause) {
                    continue;
                }
            }
            let page = imds.get(source.path()).await;
            match page
                .and_then(|page| page.map_or(Ok(Vec::new()), |page| read(source, &page, config)))
            {
                Ok(notices) => *said = notices,
                Err(error) if error.is_of_one_page() => odd = odd.or(Some(error)),
                Err(error) => return Err(error),
            }
            if source == Source::Maintenance {
                self.maintenance_asked = Some(clock::Instant::now());
            }
        }
        odd.map_or(Ok(()), Err)
    }

    fn notices(&self) -> Vec<Notice> {
        self.pages.concat()
    }
}

fn read(source: Source, page: &Page, config: &config::Notices) -> Result<Vec<Notice>, ImdsError> {
    let date = page.date.as_deref().and_then(parse_date);
    let now = date.unwrap_or_else(OffsetDateTime::now_utc);
    source.read(&page.text, now, config).map_err(|error| ImdsError::Garbled {
        path: source.path().to_owned(),
        reason: error.to_string(),
    })
}
