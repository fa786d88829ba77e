//! Long work as named steps: a progress line each on stderr, a time limit, and their output in a log.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const POLL: Duration = Duration::from_millis(50);
/// How many of a failed step's last lines its error shows.
const SHOWN_LINES: usize = 20;

#[derive(Debug)]
pub(crate) struct Steps {
    log: PathBuf,
    started: Instant,
}

impl Steps {
    /// Starts the clock and an empty log.
    pub(crate) fn new(log: PathBuf) -> Result<Self> {
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Self { log, started: Instant::now() })
    }

    /// Prints one progress line.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:>7.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Runs `command` for at most `limit`; a failure shows the end of its output.
    pub(crate) fn run(&self, what: &str, command: &mut Command, limit: Duration) -> Result<()> {
        self.say(what);
        let program = command.get_program().to_string_lossy().into_owned();
        let log = File::options()
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let before = log.metadata()?.len();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{what}: cannot start `{program}`"))?;
        match wait_within(&mut child, limit)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{what}: `{program}` failed ({status}){}", self.tail(before)),
            None => bail!("{what}: `{program}` took longer than {limit:?}{}", self.tail(before)),
        }
    }

    /// The log's last lines after byte `from`, and where to read the rest.
    fn tail(&self, from: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(from))?;
            log.read_to_end(&mut bytes)
        });
        if read.is_err() {
            return String::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n    ");
        format!("\n    {shown}\n    (all of it: {})", self.log.display())
    }
}

/// The child's exit, or `None` when it was killed at the limit.
fn wait_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(name: &str) -> Result<Steps> {
        let file = format!("xtask-steps-{}-{name}.log", std::process::id());
        Steps::new(std::env::temp_dir().join(file))
    }

    #[test]
    fn a_failure_shows_its_own_output_and_no_earlier_step_s() -> Result<()> {
        let steps = steps("failure")?;
        let limit = Duration::from_secs(10);
        steps.run("first", Command::new("echo").arg("earlier"), limit)?;
        let failed =
            steps.run("second", Command::new("sh").args(["-c", "echo broken; exit 3"]), limit);
        let error = format!("{:#}", failed.err().context("exit 3 must fail")?);
        assert!(error.contains("broken") && error.contains("exit status: 3"), "{error}");
        assert!(!error.contains("earlier"), "{error}");
        fs::remove_file(&steps.log)?;
        Ok(())
    }

    #[test]
    fn a_step_that_hangs_is_ended_at_its_limit() -> Result<()> {
        let steps = steps("hang")?;
        let hung =
            steps.run("sleeping", Command::new("sleep").arg("60"), Duration::from_millis(100));
        let error = format!("{:#}", hung.err().context("the limit must be held")?);
        assert!(error.contains("took longer than 100ms"), "{error}");
        fs::remove_file(&steps.log)?;
        Ok(())
    }
}
