//! The live table, and the one line that stands for it where there is no terminal. Pure.

use std::{collections::BTreeMap, time::Duration};

use mrgc_fleet::model::Health;

use super::{
    control::Seen,
    stage::{CAST, ROUTE_POLICY},
    style::{Style, duration_ms, percent, thousands},
    tally::Counts,
};

/// Cells of a share's bar; one stands for 4 %.
const BAR_WIDTH: usize = 12;
const BAR_FULL: f64 = 0.48;

/// Everything that is shown.
#[derive(Clone, Debug)]
pub struct Scene {
    pub at: Duration,
    per_second: f64,
    sent: u64,
    failed: u64,
    retried: u64,
    p50_ms: f64,
    p99_ms: f64,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    id: &'static str,
    note: &'static str,
    region: &'static str,
    state: State,
    queue: Option<u32>,
    running: Option<u32>,
    latency_ms: Option<f64>,
    /// Of all traffic, 0 to 1.
    share: f64,
    /// What decided on it last, as `score@3 capacity`.
    policy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Degraded,
    /// The router's own evidence keeps it out.
    Ejected,
    /// The fleet's state says that it takes nothing.
    Out,
    Unknown,
}

impl State {
    fn of(seen: Option<&Seen>) -> Self {
        let Some(seen) = seen else { return Self::Unknown };
        match (&seen.report, seen.ready, seen.ejected) {
            (_, false, _) => Self::Out,
            (_, true, Some(true)) => Self::Ejected,
            (Some(report), true, _) if report.health == Health::Degraded => Self::Degraded,
            (_, true, _) => Self::Ready,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Ejected => "ejected",
            Self::Out => "out",
            Self::Unknown => "?",
        }
    }

    fn paint(self, style: Style, text: &str) -> String {
        match self {
            Self::Ready => style.green(text),
            Self::Degraded | Self::Ejected | Self::Unknown => style.yellow(text),
            Self::Out => style.red(text),
        }
    }
}

impl Scene {
    pub fn new(seen: &BTreeMap<String, Seen>, counts: &mut Counts) -> Self {
        let shares = counts.shares();
        let rows = CAST.iter().map(|part| {
            let seen = seen.get(part.id);
            let state = State::of(seen);
            // What a silent instance said last is no measurement.
            let report = seen.and_then(|s| s.report.as_ref()).filter(|_| state != State::Out);
            let generation = counts.last_generation(part.id);
            Row {
                id: part.id,
                note: part.note,
                region: part.region,
                state,
                queue: report.and_then(|r| r.queue_depth),
                running: report.and_then(|r| r.running),
                latency_ms: report.and_then(|r| r.avg_latency_ms),
                share: shares.get(part.id).copied().unwrap_or(0.0),
                policy: generation.map(|g| format!("{ROUTE_POLICY}@{g} {}", counts.version(g))),
            }
        });
        Self {
            rows: rows.collect(),
            at: counts.started.elapsed(),
            per_second: counts.per_second(),
            sent: counts.sent,
            failed: counts.failed,
            retried: counts.retried,
            p50_ms: counts.latency_ms(0.50),
            p99_ms: counts.latency_ms(0.99),
        }
    }

    /// The table, line by line.
    pub fn frame(&self, style: Style) -> Vec<String> {
        let failed = format!("{} failed", thousands(self.failed));
        let failed = if self.failed > 0 { style.red(&failed) } else { failed };
        let mut lines = vec![
            String::new(),
            format!(
                "  {}  {:.0} requests/s · {} sent · {failed} · {} retried · p50 {} · p99 {}",
                style.bold(&format!("{:.0} s", self.at.as_secs_f64())),
                self.per_second,
                thousands(self.sent),
                thousands(self.retried),
                duration_ms(self.p50_ms),
                duration_ms(self.p99_ms),
            ),
            String::new(),
            style.dim(&format!(
                "  {:<15}  {:<9}  {:<8}  {:>5}  {:>7}  {:>7}  {:<20}  {}",
                "INSTANCE",
                "REGION",
                "STATE",
                "QUEUE",
                "RUNNING",
                "LATENCY",
                "SHARE OF TRAFFIC",
                "DECIDED BY"
            )),
        ];
        lines.extend(self.rows.iter().map(|row| row.line(style)));
        lines
    }

    /// All in one line.
    pub fn line(&self) -> String {
        let shares: Vec<String> = self
            .rows
            .iter()
            .map(|row| match row.state {
                State::Ready => format!("{} {:.0}%", row.id, 100.0 * row.share),
                state => format!("{} {}", row.id, state.word()),
            })
            .collect();
        format!(
            "{} sent, {} failed, p50 {}  {}",
            thousands(self.sent),
            thousands(self.failed),
            duration_ms(self.p50_ms),
            shares.join("  ")
        )
    }
}

impl Row {
    fn line(&self, style: Style) -> String {
        let name = match self.note {
            "" => self.id.to_owned(),
            note => format!("{} ({note})", self.id),
        };
        let number = |value: Option<u32>| value.map_or("–".to_owned(), |n| n.to_string());
        let latency = self.latency_ms.map_or("–".to_owned(), duration_ms);
        let policy = self.policy.as_deref().unwrap_or("–");
        let state = self.state.paint(style, &format!("{:<8}", self.state.word()));
        let (bar, rest) = bar(self.share);
        format!(
            "  {name:<15}  {:<9}  {state}  {:>5}  {:>7}  {latency:>7}  {}{} {:>7}  {policy}",
            self.region,
            number(self.queue),
            number(self.running),
            style.cyan(&bar),
            style.dim(&rest),
            percent(self.share),
        )
    }
}

/// A share's bar, and what is left of its cells.
fn bar(share: f64) -> (String, String) {
    let cells = (share / BAR_FULL * BAR_WIDTH as f64).round().clamp(0.0, BAR_WIDTH as f64) as usize;
    ("█".repeat(cells), "░".repeat(BAR_WIDTH - cells))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::tally::Tally;

    fn scene() -> Scene {
        let tally = Tally::default();
        let mut scene = Scene::new(&BTreeMap::new(), &mut tally.counts());
        scene.rows[0] = Row {
            state: State::Ready,
            queue: Some(12),
            running: Some(8),
            latency_ms: Some(1234.0),
            share: 0.24,
            policy: Some("score@3 capacity".into()),
            ..scene.rows[0].clone()
        };
        scene
    }

    #[test]
    fn columns_are_aligned() {
        let frame = scene().frame(Style::PLAIN);
        let header = &frame[3];
        let column = |line: &str, word: &str| {
            line.find(word).map(|byte| line[..byte].chars().count()).expect("a column")
        };
        assert_eq!(column(&frame[4], "score@3"), column(header, "DECIDED"), "{frame:#?}");
        assert_eq!(column(&frame[4], "us-east-1"), column(header, "REGION"));
        assert_eq!(column(&frame[4], "███"), column(header, "SHARE"));
        assert_eq!(frame.len(), 4 + CAST.len());
    }

    /// Without what sets colours: from each escape to its `m`.
    fn without_colours(line: &str) -> String {
        let mut parts = line.split('\x1b');
        let start = parts.next().unwrap_or_default().to_owned();
        let rest = parts.map(|part| part.split_once('m').expect("the end of a colour").1);
        start + &rest.collect::<String>()
    }

    #[test]
    fn colours_do_not_move_columns() {
        let plain = scene().frame(Style::PLAIN);
        let coloured = scene().frame(Style { colour: true });
        assert!(coloured.iter().any(|line| line.contains('\x1b')));
        let stripped: Vec<_> = coloured.iter().map(|line| without_colours(line)).collect();
        assert_eq!(plain, stripped);
    }

    #[test]
    fn a_bar_stays_within_its_cells() {
        for share in [0.0, 0.01, 0.24, 0.5, 1.0, 7.0] {
            let (full, rest) = bar(share);
            assert_eq!((full + &rest).chars().count(), BAR_WIDTH, "{share}");
        }
    }
}
