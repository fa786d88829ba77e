//! `--watch`: the same again and again, until Ctrl-C.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Result;
use tokio::time::sleep;

use crate::{Verdict, table};

const DEFAULT_SECONDS: &str = "2";
const SECONDS: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;
/// To the upper left corner, and nothing of what was there before.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// Show it again and again until Ctrl-C, every 2 seconds or as many as are given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = DEFAULT_SECONDS,
        value_parser = interval)]
    watch: Option<Duration>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number of seconds".to_owned())?;
    if !SECONDS.contains(&seconds) {
        return Err(format!("it is not within {} and {}", SECONDS.start(), SECONDS.end()));
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl WatchArgs {
    /// Shows what `draw` makes, once or again and again. That it fails ends only what is shown once: a
    /// router that restarts is worth waiting for.
    pub(crate) async fn show(
        self,
        draw: impl AsyncFn() -> Result<(String, Verdict)>,
    ) -> Result<Verdict> {
        let (mut text, verdict) = draw().await?;
        let Some(every) = self.watch else {
            table::say(&text)?;
            return Ok(verdict);
        };
        let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
        loop {
            table::say(&format!("{clear}{text}"))?;
            text = loop {
                sleep(every).await;
                match draw().await {
                    Ok((text, _)) => break text,
                    // Below the last picture, which stays for what it is worth.
                    Err(error) => drop(writeln!(io::stderr(), "mrgc: {error:#}")),
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_bounded_number_of_seconds() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(interval(DEFAULT_SECONDS), Ok(Duration::from_secs(2)));
        for text in ["", "0", "-1", "NaN", "inf", "86401", "soon"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
