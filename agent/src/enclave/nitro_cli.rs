//! `nitro-cli describe-enclaves`: run within a time, read within a bound.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time,
};

use super::{Enclave, Logs};
use crate::{config, signals::Check};

/// A machine has four enclaves at most, described in less than a kilobyte each.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// Enough of the command's own words to recognise the trouble.
const MAX_QUOTED_BYTES: usize = 200;

const MAX_ENCLAVES: usize = 64;

/// What it wrote, and how it ended.
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// The enclaves it lists; else how it failed.
pub(super) async fn describe(config: &config::Enclave, logs: &Logs) -> Result<Vec<Enclave>, Check> {
    let program = config.nitro_cli.as_str();
    match time::timeout(config.timeout, output(program, logs)).await {
        Err(_) => Err(Check::error(too_slow(program, config.timeout))),
        Ok(Err(error)) => Err(not_run(program, &error)),
        Ok(Ok(output)) => read(program, &output),
    }
}

/// Ended with the future, too: one that hangs does not outlive its time.
async fn output(program: &str, logs: &Logs) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.arg("describe-enclaves").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some((variable, folder)) = logs.variable() {
        command.env(variable, folder);
    }
    let mut child = command.spawn()?;
    let (stdout, stderr) = tokio::try_join!(
        within_bound(child.stdout.take(), MAX_OUTPUT_BYTES),
        beginning(child.stderr.take(), MAX_QUOTED_BYTES)
    )?;
    Ok(Output { status: child.wait().await?, stdout, stderr })
}

async fn within_bound(from: Option<impl AsyncRead + Unpin>, bound: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(from) = from {
        from.take(bound as u64 + 1).read_to_end(&mut text).await?;
    }
    if text.len() > bound {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too much"));
    }
    Ok(text)
}

/// The rest is read, too: who writes must not wait for us.
async fn beginning(from: Option<impl AsyncRead + Unpin>, bound: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(bound as u64).read_to_end(&mut text).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(text)
}

fn too_slow(program: &str, timeout: Duration) -> String {
    format!("{program} describe-enclaves took longer than {} ms", timeout.as_millis())
}

/// An absent `nitro-cli` means no enclaves; one that was configured by its path should be there.
fn not_run(program: &str, error: &io::Error) -> Check {
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            Check::error(format!("{program} does not exist: correct enclave.nitro_cli"))
        }
        io::ErrorKind::NotFound => Check::missing(format!(
            "{program} is not in PATH: no support for Nitro enclaves on this machine"
        )),
        io::ErrorKind::FileTooLarge => Check::error(format!(
            "{program} describe-enclaves wrote more than {MAX_OUTPUT_BYTES} bytes"
        )),
        _ => Check::error(format!("{program} cannot be started: {error}")),
    }
}

pub(super) fn read(program: &str, output: &Output) -> Result<Vec<Enclave>, Check> {
    if !output.status.success() {
        let told = quote(&output.stderr);
        return Err(Check::error(format!(
            "{program} describe-enclaves: {}: {told}",
            output.status
        )));
    }
    let not_a_list = |why: &str| {
        Check::error(format!(
            "{program} describe-enclaves did not answer with a list of enclaves ({why}): {}",
            quote(&output.stdout)
        ))
    };
    let list: Vec<Map<String, Value>> =
        serde_json::from_slice(&output.stdout).map_err(|error| not_a_list(&error.to_string()))?;
    if list.len() > MAX_ENCLAVES {
        return Err(not_a_list(&format!("{} entries", list.len())));
    }
    let enclaves = list.iter().map(enclave);
    enclaves.collect::<Option<_>>().ok_or_else(|| not_a_list("an enclave has no state"))
}

/// `None` where it has no state. Releases differ in how they write the names.
fn enclave(described: &Map<String, Value>) -> Option<Enclave> {
    let field = |name: &str| {
        let is_it = |key: &String| key.replace('_', "").eq_ignore_ascii_case(name);
        described.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value)
    };
    let text = |name: &str| field(name)?.as_str().map(|text| cut(text).to_owned());
    let number = |name: &str| field(name)?.as_u64();
    Some(Enclave {
        id: text("EnclaveID"),
        name: text("EnclaveName"),
        cid: number("EnclaveCID").and_then(|cid| u32::try_from(cid).ok()),
        state: text("State")?.to_ascii_uppercase(),
        debug_mode: text("Flags").map(|flags| flags.to_ascii_uppercase().contains("DEBUG")),
        memory_mib: number("MemoryMiB"),
        cpus: number("NumberOfCPUs"),
    })
}

fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() { "(it said nothing)".to_owned() } else { cut(text).to_owned() }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_QUOTED_BYTES)]
}

#[cfg(test)]
mod tests;
