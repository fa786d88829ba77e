//! The GPUs: the real wrapper over the NVML double, and a kernel log that is a file.

mod signals;
mod stuck;
mod wash;
mod xids;

use std::{fs, io::Write, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Agent, ModelServer, Setup};

/// A machine's GPUs and its kernel's log.
struct Machine {
    script: PathBuf,
    log: PathBuf,
    acknowledgement: PathBuf,
    _folder: TempDir,
}

impl Machine {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let machine = Self {
            script: path("script"),
            log: path("kmsg"),
            acknowledgement: path("acknowledged"),
            _folder: folder,
        };
        machine.say(script);
        fs::write(&machine.log, "").unwrap();
        machine
    }

    /// What the double is told; it reads it at each call.
    fn say(&self, script: &str) {
        // At once, so that no call sees half of it.
        let next = self.script.with_extension("next");
        fs::write(&next, script).unwrap();
        fs::rename(&next, &self.script).unwrap();
    }

    /// The kernel says something, now.
    fn log(&self, sequence: u64, message: &str) {
        self.log_at(u64::MAX / 2_000, sequence, message);
    }

    /// The kernel said something, so long after it had booted.
    fn log_at(&self, micros: u64, sequence: u64, message: &str) {
        let mut log = fs::File::options().append(true).open(&self.log).unwrap();
        writeln!(log, "3,{sequence},{micros},-;{message}").unwrap();
    }

    /// Everything is asked in each round.
    fn setup(&self) -> Setup {
        self.rarely(1)
    }

    fn rarely(&self, rare_every: u32) -> Setup {
        Setup::new().gpus(&self.script).with(&[
            // Longer than a round takes on a busy machine.
            ("MRGC_AGENT__GPU__DEADLINE_MS", "20000"),
            ("MRGC_AGENT__GPU__RARE_EVERY", &rare_every.to_string()),
            ("MRGC_AGENT__GPU__KERNEL_LOG", self.log.to_str().unwrap()),
            ("MRGC_AGENT__GPU__ACKNOWLEDGEMENT_FILE", self.acknowledgement.to_str().unwrap()),
        ])
    }

    /// With an inference server that is well, so that the GPUs decide.
    async fn start(&self, server: &ModelServer) -> Agent {
        let agent = self.setup().inference(server).start().await;
        self.is_heard(&agent).await;
        agent
    }

    /// Waits until the GPUs were sampled and both sources of XIDs are listened to.
    async fn is_heard(&self, agent: &Agent) {
        agent
            .health_when("sampled and heard", |_, body| {
                let sources = &body["gpus"]["xid_sources"];
                body["checks"]["gpu"]["reason"] != "not sampled yet"
                    && body["model_loaded"] == true
                    && sources["nvml_events"]["reason"] != "not sampled yet"
                    && sources["kernel_log"]["reason"] != "not sampled yet"
            })
            .await;
    }
}

/// Waits until the GPUs are as fit as this, and gives why.
async fn fitness_becomes(agent: &Agent, fitness: &str) -> Value {
    agent.health_when(fitness, |_, body| body["gpus"]["fitness"] == fitness).await
}
