//! What the car wash looks at outside of the agent's own readings: a command, and paths.

use std::{io, path::Path, process::Stdio, sync::Arc, time::Duration};

use mrgc_fleet::model::{CleanupCheck, CleanupCheckKind};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::{mpsc, watch},
    task, time,
};

use super::verdict;
use crate::{
    config, gpu,
    state::{Event, Snapshot},
};

/// Of each of a command's outputs: its end, where the trouble is told.
const MAX_QUOTED_BYTES: usize = 160;

/// A directory on a file system that hangs.
const PATHS_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at the GPUs.
const GPU_PAUSE: Duration = Duration::from_millis(500);

/// For what the command's own children still say when it has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks, whenever the control loop begins a cleanup, until nobody listens. A cleanup that is given up ends
/// its command, too.
pub(crate) async fn run(
    config: config::Cleanup,
    gpus: gpu::Asker,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    events: mpsc::Sender<Event>,
) {
    let mut looked_at = 0;
    loop {
        let run = snapshots.borrow_and_update().course.cleaning().filter(|run| *run > looked_at);
        let Some(run) = run else {
            match snapshots.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        looked_at = run;
        let checks = tokio::select! {
            checks = look(&config) => checks,
            _ = snapshots.wait_for(|s| s.course.cleaning() != Some(run)) => continue,
        };
        if events.send(Event::Cleaned { run, checks }).await.is_err() {
            return;
        }
        if config.compute_processes || config.gpu_memory_bytes.is_some() {
            tokio::select! {
                () = watch_gpus(&gpus) => {}
                _ = snapshots.wait_for(|s| s.course.cleaning() != Some(run)) => {}
            }
        }
    }
}

/// What computes on the GPUs is asked rarely: not while a cleanup waits for it. What is found reaches the control
/// loop as any reading does.
async fn watch_gpus(gpus: &gpu::Asker) {
    loop {
        gpus.look().await;
        time::sleep(GPU_PAUSE).await;
    }
}

/// The command comes first: it may be what cleans.
async fn look(config: &config::Cleanup) -> Vec<CleanupCheck> {
    let mut checks = Vec::new();
    if !config.command.is_empty() {
        let outcome = run_command(&config.command, config.command_timeout).await;
        checks.push(verdict(CleanupCheckKind::Command, outcome));
    }
    if !config.paths.is_empty() {
        let paths = config.paths.clone();
        let looking =
            task::spawn_blocking(move || paths.iter().try_for_each(|path| is_empty(path)));
        let outcome = match time::timeout(PATHS_TIMEOUT, looking).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {PATHS_TIMEOUT:?}")),
        };
        checks.push(verdict(CleanupCheckKind::Paths, outcome));
    }
    checks
}

/// Whether there is nothing, or an empty directory.
fn is_empty(path: &Path) -> Result<(), String> {
    let cannot = |error: io::Error| Err(format!("{} cannot be read: {error}", path.display()));
    let mut entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return cannot(error),
    };
    match entries.next() {
        None => Ok(()),
        Some(Ok(entry)) => {
            let name = entry.file_name();
            Err(format!("{} is left in {}", Path::new(&name).display(), path.display()))
        }
        Some(Err(error)) => cannot(error),
    }
}

/// A process and all that it started: they end with it, or when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Whoever is gone already needs no signal.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn run_command(command: &[String], timeout: Duration) -> Result<(), String> {
    let [program, arguments @ ..] = command else { return Ok(()) };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = started.map_err(|error| format!("{program} cannot be started: {error}"))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let output = output(&mut child);
    let ended = time::timeout(timeout, child.wait()).await;
    drop(group);
    let status = match ended {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("not done within {} s", timeout.as_secs()),
    };
    let told = match time::timeout(OUTPUT_TIMEOUT, output).await {
        Ok(Ok(told)) if !told.is_empty() => format!(": {told}"),
        _ => String::new(),
    };
    Err(format!("{program}: {status}{told}"))
}

/// Reads both outputs to their ends, so that the command never waits for a reader, and keeps the last of each.
fn output(child: &mut Child) -> task::JoinHandle<String> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    tokio::spawn(async move {
        let (told, complaint) = tokio::join!(tail(stdout), tail(stderr));
        [complaint, told]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(" | ")
    })
}

async fn tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut chunk = [0; 4_096];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        let excess = kept.len().saturating_sub(MAX_QUOTED_BYTES);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn a_command_passes_by_its_exit_code() {
        let second = Duration::from_secs(20);
        assert_eq!(run_command(&shell("true"), second).await, Ok(()));
        let failed = run_command(&shell("echo half; echo why >&2; exit 3"), second).await;
        assert_eq!(failed, Err("/bin/sh: exit status: 3: why | half".to_owned()));
        let absent = run_command(&["/nowhere/wash".to_owned()], second).await.unwrap_err();
        assert!(absent.starts_with("/nowhere/wash cannot be started: No such file"), "{absent}");
        let loud = run_command(&shell("yes loud | head -c 3000000; exit 1"), second).await;
        assert!(loud.unwrap_err().len() < 2 * MAX_QUOTED_BYTES + 100);
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let sign = folder.path().join("sign");
        let script = format!("(sleep 1; touch {}) & echo started; sleep 60", sign.display());
        let outcome = run_command(&shell(&script), Duration::from_millis(300)).await;
        assert_eq!(outcome, Err("/bin/sh: not done within 0 s: started".to_owned()));
        time::sleep(Duration::from_millis(1_200)).await;
        assert!(!sign.exists(), "its child lived on");
    }

    #[test]
    fn a_path_is_clean_where_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("empty")).unwrap();
        fs::create_dir(path("full")).unwrap();
        fs::write(path("full/weights.bin"), "x").unwrap();
        for (name, expected) in [
            ("absent", None),
            ("empty", None),
            ("full", Some("weights.bin is left in ")),
            ("full/weights.bin", Some(" cannot be read: Not a directory")),
        ] {
            let outcome = is_empty(&path(name)).err();
            let told = outcome.as_deref().unwrap_or_default();
            assert_eq!(outcome.is_some(), expected.is_some(), "{name}: {told}");
            assert!(told.contains(expected.unwrap_or_default()), "{name}: {told}");
        }
    }
}
