//! A fleet of real processes on loopback: state, routers, agents and model servers, each on a port of its
//! own choosing. Dropping one kills it; dropping the cluster kills all and removes its folder.

mod program;

use std::{iter, net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use mrgc_fleet::model::Region;
use serde_json::{Value, json};

pub use program::{Program, binary_path, eventually, signal};

/// Where a region is, and what it satisfies.
#[derive(Clone, Copy, Debug)]
pub struct RegionSpec {
    pub id: &'static str,
    pub latitude: f64,
    pub longitude: f64,
    pub frameworks: &'static [&'static str],
    pub cost_multiplier: f64,
    /// Partitions over which its instances are spread.
    pub shards: u32,
}

/// The demo's regions, and most tests', are the first two.
pub const VIRGINIA: RegionSpec = RegionSpec {
    id: "us-east-1",
    latitude: 37.4,
    longitude: -77.5,
    frameworks: &["soc2"],
    cost_multiplier: 1.0,
    shards: Region::DEFAULT_SHARDS,
};
pub const IRELAND: RegionSpec = RegionSpec {
    id: "eu-west-1",
    latitude: 53.3,
    longitude: -6.2,
    frameworks: &["gdpr"],
    cost_multiplier: 1.1,
    shards: Region::DEFAULT_SHARDS,
};

pub const FRANKFURT: RegionSpec = RegionSpec {
    id: "eu-central-1",
    latitude: 50.1,
    longitude: 8.7,
    frameworks: &["gdpr"],
    cost_multiplier: 1.1,
    shards: Region::DEFAULT_SHARDS,
};

/// The secret that the cluster's routers share.
pub const PEER_KEY: &str = "a-key-for-one-machine-only";

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running fleet.
#[derive(Debug)]
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub state: Program,
    pub client: reqwest::Client,
}

/// A router of the cluster.
#[derive(Debug)]
pub struct Router {
    pub region: String,
    pub program: Program,
    pub data: SocketAddr,
    pub control: SocketAddr,
}

/// An instance: a model server with its agent.
#[derive(Debug)]
pub struct Instance {
    pub id: String,
    pub agent: Program,
    pub agent_address: SocketAddr,
    pub server: Program,
    pub server_address: SocketAddr,
}

/// What an instance is like.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    pub id: String,
    pub region: String,
    pub pool: String,
    pub model: String,
    pub slots: u32,
    pub latency_ms: u64,
    pub tokens: u32,
    /// TOML lines to end the agent's configuration with, as in `[enclave]…`.
    pub agent_config: String,
}

impl InstanceSpec {
    pub fn new(id: &str, region: &str) -> Self {
        Self {
            id: id.to_owned(),
            region: region.to_owned(),
            pool: "llama".to_owned(),
            model: "llama".to_owned(),
            slots: 8,
            latency_ms: 20,
            tokens: 5,
            agent_config: String::new(),
        }
    }
}

impl Cluster {
    /// Starts the embedded state in a process of its own.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let state = state_process(dir.path(), "127.0.0.1:0").await?;
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { dir, state, client })
    }

    /// Starts the state again, where it was, after it was killed.
    pub async fn restart_state(&mut self) -> Result<()> {
        let address = self.state.address("state")?.to_string();
        self.state = state_process(self.dir.path(), &address).await?;
        Ok(())
    }

    pub fn store_endpoint(&self) -> Result<String> {
        Ok(format!("http://{}", self.state.address("state")?))
    }

    /// Starts a router and registers its region. `routes` is TOML, `[[routes]]` and what else is wanted.
    pub async fn router(&self, region: RegionSpec, routes: &str) -> Result<Router> {
        self.router_with(region, routes, &[]).await
    }

    /// The same, with variables of the environment over the configuration.
    pub async fn router_with(
        &self,
        region: RegionSpec,
        routes: &str,
        environment: &[(&str, &str)],
    ) -> Result<Router> {
        let router = self.further_router(region, routes, environment).await?;
        self.register(region, &router).await?;
        Ok(router)
    }

    /// A router of a region that is registered: its peers do not know it, clients may.
    pub async fn further_router(
        &self,
        region: RegionSpec,
        routes: &str,
        environment: &[(&str, &str)],
    ) -> Result<Router> {
        let config = format!(
            "region = {id:?}\n\
             [listen]\ndata = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\nthreads = 2\n\
             [store]\nendpoint = {store:?}\n\
             [policies]\ndir = {policies:?}\n\
             [peers]\nkey = {PEER_KEY:?}\n\
             {routes}",
            id = region.id,
            store = self.store_endpoint()?,
            policies = policies_folder()?,
        );
        let name = self.unused_name(&format!("router-{}", region.id));
        let program = router_process_with(self.dir.path(), &name, &config, environment).await?;
        let (data, control) = (program.address("data")?, program.address("control")?);
        Ok(Router { region: region.id.to_owned(), program, data, control })
    }

    /// For files of a process: `name`, or `name-2` and so on where there was one before.
    fn unused_name(&self, name: &str) -> String {
        let is_unused = |name: &String| !self.dir.path().join(format!("{name}.toml")).exists();
        let mut names = iter::once(name.to_owned()).chain((2..).map(|n| format!("{name}-{n}")));
        names.find(is_unused).unwrap_or_else(|| name.to_owned())
    }

    async fn register(&self, region: RegionSpec, router: &Router) -> Result<()> {
        let body = json!({
            "region_id": region.id,
            "name": region.id,
            "provider": "aws",
            "latitude": region.latitude,
            "longitude": region.longitude,
            "endpoint": format!("http://{}", router.data),
            "frameworks": region.frameworks,
            "cost_multiplier": region.cost_multiplier,
            "shards": region.shards,
        });
        let url = router.control_url("/regions");
        // A store on a busy machine may need a second try.
        eventually("the region is registered", PATIENCE, || async {
            let answer = self.client.post(&url).json(&body).send().await?;
            answer.error_for_status()?;
            Ok(Some(()))
        })
        .await
    }

    /// Starts a model server and its agent.
    pub async fn instance(&self, spec: &InstanceSpec) -> Result<Instance> {
        let server = self.model_server(spec).await?;
        let server_address = server.address("")?;
        let config = format!(
            "listen = \"127.0.0.1:0\"\n\
             [instance]\nid = {:?}\nregion = {:?}\npool = {:?}\naddress = \"{server_address}\"\nslots = {}\n\
             [inference]\nurl = \"http://{server_address}\"\npoll_interval_ms = 200\n\
             [heartbeat]\ninterval_seconds = 1\n\
             [store]\nendpoint = {:?}\n\
             {}",
            spec.id,
            spec.region,
            spec.pool,
            spec.slots,
            self.store_endpoint()?,
            spec.agent_config,
        );
        let agent = agent_process(self.dir.path(), &spec.id, &config).await?;
        let agent_address = agent.address("")?;
        Ok(Instance { id: spec.id.clone(), agent, agent_address, server, server_address })
    }

    /// Starts a model server alone.
    pub async fn model_server(&self, spec: &InstanceSpec) -> Result<Program> {
        let args = [
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--name", spec.id.clone()),
            ("--model", spec.model.clone()),
            ("--slots", spec.slots.to_string()),
            ("--latency-ms", spec.latency_ms.to_string()),
            ("--tokens", spec.tokens.to_string()),
        ];
        let mut line: Vec<String> = vec!["--print-address".to_owned()];
        line.extend(args.into_iter().flat_map(|(key, value)| [key.to_owned(), value]));
        let name = format!("server-{}", spec.id);
        Program::start(self.dir.path(), &name, "mock-model-server", &line).await
    }
}

impl Router {
    /// Starts it again where it was, after it was killed.
    pub async fn restart(&mut self) -> Result<()> {
        let (data, control) = (self.data.to_string(), self.control.to_string());
        let listen = [
            ("MRGC_ROUTER__LISTEN__DATA", data.as_str()),
            ("MRGC_ROUTER__LISTEN__CONTROL", control.as_str()),
        ];
        self.program.restart(&listen).await
    }

    pub fn data_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.data)
    }

    pub fn control_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.control)
    }

    /// A control endpoint's JSON.
    pub async fn get(&self, client: &reqwest::Client, path: &str) -> Result<Value> {
        Ok(client.get(self.control_url(path)).send().await?.json().await?)
    }

    /// Waits until the router takes so many instances of its own region for ready.
    pub async fn sees_ready(&self, client: &reqwest::Client, count: usize) -> Result<()> {
        self.sees_ready_in(client, &self.region, count).await
    }

    /// Waits until the router takes so many instances of a region for ready.
    pub async fn sees_ready_in(
        &self,
        client: &reqwest::Client,
        region: &str,
        count: usize,
    ) -> Result<()> {
        let what = format!("{} sees {count} ready instances of {region}", self.region);
        eventually(&what, PATIENCE, || async {
            let path = format!("/instances?region={region}");
            let instances = self.get(client, &path).await?;
            let ready = instances.as_array().into_iter().flatten().filter(|i| is_ready(i));
            Ok((ready.count() == count).then_some(()))
        })
        .await
    }
}

/// Whether nothing stands against an instance, but that live requests have ejected it: where a region gets
/// none, nobody tries it out.
fn is_ready(instance: &Value) -> bool {
    let is_only_ejected = |why: &str| why.starts_with("ejected");
    instance["ready"] == true || instance["out_because"].as_str().is_some_and(is_only_ejected)
}

/// Starts the embedded state on a file in `dir`.
async fn state_process(dir: &Path, listen: &str) -> Result<Program> {
    let file = dir.join("state.sqlite");
    let config = format!("roles = [\"state\"]\n[state]\nlisten = {listen:?}\nfile = {file:?}\n");
    router_process(dir, "state", &config).await
}

/// Starts `mrgc-router` on a configuration of its own.
pub async fn router_process(dir: &Path, name: &str, config: &str) -> Result<Program> {
    router_process_with(dir, name, config, &[]).await
}

/// The same, with variables of the environment over the configuration.
pub async fn router_process_with(
    dir: &Path,
    name: &str,
    config: &str,
    environment: &[(&str, &str)],
) -> Result<Program> {
    let file = write_config(dir, name, config)?;
    let args = ["run", "--print-address", "--config", &file].map(str::to_owned);
    Program::start_with(dir, name, "mrgc-router", &args, environment).await
}

async fn agent_process(dir: &Path, id: &str, config: &str) -> Result<Program> {
    let name = format!("agent-{id}");
    let file = write_config(dir, &name, config)?;
    let args = ["run", "--print-address", "--config", &file].map(str::to_owned);
    Program::start(dir, &name, "mrgc-agent", &args).await
}

fn write_config(dir: &Path, name: &str, config: &str) -> Result<String> {
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, config)?;
    Ok(file.display().to_string())
}

/// The built stock policies.
pub fn policies_folder() -> Result<String> {
    let folder = program::target_folder()?.join("policies");
    anyhow::ensure!(
        folder.join("score.wasm").exists(),
        "no policies in {}: build them with `cargo xtask policies`",
        folder.display()
    );
    Ok(folder.display().to_string())
}
