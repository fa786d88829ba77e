//! The instance's Nitro enclaves, by `nitro-cli describe-enclaves`.

use std::{
    io,
    process::{Output, Stdio},
    time::Duration,
};

use serde::Deserialize;
use tokio::{process::Command, sync::mpsc, time};

use crate::{
    config,
    signals::{Enclaves, Reading},
    state::Event,
};

/// Enough of the command's own words to recognise the trouble.
const MAX_QUOTED_BYTES: usize = 200;

/// Asks `nitro-cli` until nobody listens.
pub(crate) async fn run(config: config::Enclave, events: mpsc::Sender<Event>) {
    let mut ticks = time::interval(config.interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = describe(&config).await;
        if events.send(Event::Enclave(reading)).await.is_err() {
            return;
        }
    }
}

async fn describe(config: &config::Enclave) -> Reading<Enclaves> {
    let program = config.nitro_cli.as_str();
    let mut command = Command::new(program);
    command.arg("describe-enclaves").stdin(Stdio::null()).kill_on_drop(true);
    match time::timeout(config.timeout, command.output()).await {
        Err(_) => Reading::error(too_slow(program, config.timeout)),
        Ok(Err(error)) => not_started(program, &error),
        Ok(Ok(output)) => read(program, &output),
    }
}

fn too_slow(program: &str, timeout: Duration) -> String {
    format!("{program} describe-enclaves took longer than {} ms", timeout.as_millis())
}

/// An absent `nitro-cli` means no enclaves; one that was configured by its path should be there.
fn not_started(program: &str, error: &io::Error) -> Reading<Enclaves> {
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            Reading::error(format!("{program} does not exist: correct enclave.nitro_cli"))
        }
        io::ErrorKind::NotFound => Reading::missing(format!(
            "{program} is not in PATH: no support for Nitro enclaves on this machine"
        )),
        _ => Reading::error(format!("{program} cannot be started: {error}")),
    }
}

/// One enclave as `nitro-cli` describes it, as far as it is needed.
#[derive(Deserialize)]
struct Description {
    #[serde(rename = "State")]
    state: String,
}

fn read(program: &str, output: &Output) -> Reading<Enclaves> {
    if !output.status.success() {
        let told = quote(&output.stderr);
        return Reading::error(format!("{program} describe-enclaves: {}: {told}", output.status));
    }
    match serde_json::from_slice::<Vec<Description>>(&output.stdout) {
        Ok(list) => {
            let running = list.iter().filter(|one| one.state.eq_ignore_ascii_case("RUNNING"));
            Reading::ok(Enclaves { running: count(running.count()), listed: count(list.len()) })
        }
        Err(error) => Reading::error(format!(
            "{program} describe-enclaves did not answer with a list of enclaves ({error}): {}",
            quote(&output.stdout)
        )),
    }
}

fn count(enclaves: usize) -> u32 {
    u32::try_from(enclaves).unwrap_or(u32::MAX)
}

fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() {
        return "(it said nothing)".to_owned();
    }
    text[..text.floor_char_boundary(MAX_QUOTED_BYTES)].to_owned()
}

#[cfg(test)]
mod tests;
