//! The processes of the demo: who plays in it, and how they are started, killed and stopped.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Sabotage, control::Control, screen::Screen, traffic::Target};
use crate::cluster::{
    Cluster, IRELAND, Instance, InstanceSpec, PATIENCE, Program, Router, VIRGINIA, eventually,
};

pub const MODEL: &str = "llama";
/// The policy that chooses among a region's instances, and the name under which others are uploaded.
pub const ROUTE_POLICY: &str = "score";
pub const SLOW: &str = "us-3";
pub const ENCLAVE: &str = "eu-3";
pub const VICTIM: &str = "eu-2";
/// Whose model server fails under `--sabotage lying-agent`.
pub const LIAR: &str = "us-2";

/// Completions sent to each model server before the traffic, so that its latency is known.
const WARM_UP: usize = 3;
/// How long a program may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// An instance's part in the demo.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub id: &'static str,
    pub region: &'static str,
    /// Of one completion.
    pub latency_ms: u64,
    /// What is special about it.
    pub note: &'static str,
}

pub const CAST: [Part; 6] = [
    Part { id: "us-1", region: VIRGINIA.id, latency_ms: 40, note: "" },
    Part { id: LIAR, region: VIRGINIA.id, latency_ms: 45, note: "" },
    Part { id: SLOW, region: VIRGINIA.id, latency_ms: 400, note: "slow" },
    Part { id: "eu-1", region: IRELAND.id, latency_ms: 40, note: "" },
    Part { id: VICTIM, region: IRELAND.id, latency_ms: 45, note: "" },
    Part { id: ENCLAVE, region: IRELAND.id, latency_ms: 50, note: "enclave" },
];

/// The nearest region by `latency`, then one of its best instances by `score`. The fleet is watched
/// closely, so that a kill shows within seconds.
const ROUTES: &str = r#"
[health_check]
interval_seconds = 1.0
timeout_seconds = 1.0
failure_threshold = 2
stale_after_seconds = 6.0

[[routes]]
name = "chat"
picker = "near_best"

[[routes.policies]]
name = "latency"
level = "region"

[[routes.policies]]
name = "score"
level = "instance"
"#;

/// What stands in for AWS's `nitro-cli` on a machine that has none.
const NITRO_CLI: &str = r#"#!/bin/sh
# Stands in for AWS's nitro-cli in the demo: one enclave runs here.
echo '[{"EnclaveName": "demo", "EnclaveID": "i-demo-enc1", "EnclaveCID": 16, "State": "RUNNING"}]'
"#;

/// All processes.
#[derive(Debug)]
pub struct Stage {
    pub cluster: Cluster,
    pub routers: Vec<Router>,
    pub instances: Vec<Instance>,
}

impl Stage {
    /// Starts the shared state.
    pub async fn open() -> Result<Self> {
        let cluster = Cluster::start().await.context("starting the state")?;
        Ok(Self { cluster, routers: Vec::new(), instances: Vec::new() })
    }

    /// Starts all others, and waits until each router sees every instance ready and measured.
    pub async fn fill(&mut self, sabotage: Option<Sabotage>, screen: &Screen) -> Result<()> {
        let dir = self.cluster.dir.path();
        // Written before there is a child that could hold it open while another executes it.
        let nitro_cli = dir.join("nitro-cli");
        fs::write(&nitro_cli, NITRO_CLI)?;
        fs::set_permissions(&nitro_cli, fs::Permissions::from_mode(0o755))?;
        screen.step("state", &self.cluster.store_endpoint()?);
        let start = |region| self.cluster.router(region, ROUTES);
        let (virginia, ireland) = tokio::try_join!(start(VIRGINIA), start(IRELAND))?;
        self.routers = vec![virginia, ireland];
        for Router { region, data, control, .. } in &self.routers {
            screen.step(
                &format!("router {region}"),
                &format!("data http://{data}  control http://{control}"),
            );
        }
        for part in &CAST {
            let instance = self.cluster.instance(&spec(part, &nitro_cli)).await?;
            let note =
                if part.note.is_empty() { String::new() } else { format!(" ({})", part.note) };
            screen.step(
                &format!("instance {}{note}", part.id),
                &format!(
                    "agent http://{}  model http://{}",
                    instance.agent_address, instance.server_address
                ),
            );
            self.instances.push(instance);
        }
        self.warm_up().await?;
        for control in self.controls() {
            sees_all(&control).await?;
        }
        if sabotage == Some(Sabotage::LyingAgent) {
            self.fail_completions(LIAR).await?;
        }
        Ok(())
    }

    async fn warm_up(&self) -> Result<()> {
        let mut requests = JoinSet::new();
        for instance in &self.instances {
            let (id, client, address) =
                (instance.id.clone(), self.cluster.client.clone(), instance.server_address);
            requests.spawn(async move {
                for _ in 0..WARM_UP {
                    let status = complete_directly(&client, address).await?;
                    ensure!(status.is_success(), "{id} answered {status} to its first request");
                }
                Ok(())
            });
        }
        while let Some(done) = requests.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Makes a model server answer 500 to every completion. Its agent cannot see that: it goes by
    /// metrics and models, which are as before.
    async fn fail_completions(&self, id: &str) -> Result<()> {
        let url = format!("http://{}/control", self.instance(id)?.server_address);
        let change = self.cluster.client.post(url).json(&json!({ "failure": "500" }));
        change.send().await?.error_for_status()?;
        Ok(())
    }

    pub fn instance(&self, id: &str) -> Result<&Instance> {
        self.instances.iter().find(|i| i.id == id).with_context(|| format!("no instance {id}"))
    }

    /// The routers' control APIs.
    pub fn controls(&self) -> Vec<Control> {
        let control = |router: &Router| Control {
            region: router.region.clone(),
            address: router.control,
            client: self.cluster.client.clone(),
        };
        self.routers.iter().map(control).collect()
    }

    /// Where clients send completions.
    pub fn targets(&self) -> Vec<Target> {
        let target = |router: &Router| Target {
            region: router.region.clone(),
            url: router.data_url("/v1/chat/completions"),
        };
        self.routers.iter().map(target).collect()
    }

    /// SIGKILL to the model server and its agent at once.
    pub async fn kill(&mut self, id: &str) -> Result<()> {
        let found = self.instances.iter_mut().find(|i| i.id == id);
        let instance = found.with_context(|| format!("no instance {id}"))?;
        let (server, agent) = tokio::join!(instance.server.kill(), instance.agent.kill());
        server.and(agent)
    }

    /// Stops all in order: agents leave the fleet while there is one, the state goes last.
    pub async fn strike(mut self) {
        let (mut agents, mut servers) = (Vec::new(), Vec::new());
        for instance in &mut self.instances {
            agents.push(&mut instance.agent);
            servers.push(&mut instance.server);
        }
        stop(agents).await;
        stop(self.routers.iter_mut().map(|router| &mut router.program).collect()).await;
        stop(servers).await;
        stop(vec![&mut self.cluster.state]).await;
    }

    /// Leaves the folder with configurations and logs behind, and tells where.
    pub fn keep_logs(&mut self) -> PathBuf {
        self.cluster.dir.disable_cleanup(true);
        self.cluster.dir.path().to_owned()
    }
}

/// Waits until a router sees the whole fleet ready and measured.
async fn sees_all(control: &Control) -> Result<()> {
    let what = format!("{} sees all {} instances ready and measured", control.region, CAST.len());
    eventually(&what, PATIENCE, || async {
        let seen = control.instances().await?;
        let ready = seen.iter().filter(|seen| seen.ready && seen.latency_ms().is_some());
        Ok((ready.count() == CAST.len()).then_some(()))
    })
    .await
}

/// A completion that no router sees.
pub async fn complete_directly(client: &reqwest::Client, server: SocketAddr) -> Result<StatusCode> {
    let url = format!("http://{server}/v1/chat/completions");
    Ok(client.post(url).json(&completion("Hello")).send().await?.status())
}

/// A chat completion's body.
pub fn completion(prompt: &str) -> serde_json::Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": prompt }] })
}

fn spec(part: &Part, nitro_cli: &Path) -> InstanceSpec {
    let mut agent_config = "[drain]\nsettle_seconds = 1\n".to_owned();
    if part.id == ENCLAVE {
        agent_config +=
            &format!("[enclave]\nnitro_cli = {nitro_cli:?}\nrequired = true\ninterval_ms = 1000\n");
    }
    InstanceSpec {
        pool: MODEL.to_owned(),
        model: MODEL.to_owned(),
        latency_ms: part.latency_ms,
        agent_config,
        ..InstanceSpec::new(part.id, part.region)
    }
}

/// SIGTERM to each, then waits for all; what takes too long is killed.
async fn stop(programs: Vec<&mut Program>) {
    for program in &programs {
        // One that has ended already needs no signal.
        let _ = program.signal("TERM").await;
    }
    for program in programs {
        let ended = tokio::time::timeout(STOP_LIMIT, program.ended()).await;
        if !matches!(ended, Ok(Ok(_))) {
            let _ = program.kill().await;
        }
    }
}
