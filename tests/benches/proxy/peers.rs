//! The proxies and their upstreams, as processes, with what the system says of each.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{Program, policies_folder, router_process},
    usage,
};

use super::Sample;

pub const MODEL: &str = "llama";
pub const PATH: &str = "/v1/chat/completions";
const UPSTREAMS: usize = 16;
const THREADS: usize = 2;
const CONNECTIONS: usize = 32;

/// Ends the process when dropped.
#[derive(Debug)]
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Asked, not killed: the workers of a master that is killed go on. It may have ended by itself.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// 16 ports of one nginx that answers at once: cheap, and the same for all proxies.
#[derive(Debug)]
pub struct Upstreams {
    _process: Owned,
    ports: Vec<u16>,
}

impl Upstreams {
    pub async fn start(dir: &Path) -> Result<Self> {
        let ports = free_ports(UPSTREAMS)?;
        let listen: String = ports.iter().map(|port| format!("listen 127.0.0.1:{port};")).collect();
        let answer = r#"{"id":"x","object":"chat.completion","model":"llama","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#;
        let config = format!(
            "{}http {{ access_log off; keepalive_requests 1000000; server {{ {listen} \
             location / {{ default_type application/json; return 200 '{answer}'; }} }} }}",
            nginx_head(dir, "upstreams", 1)
        );
        let process = nginx(dir, "upstreams", &config)?;
        wait_for(ports[0]).await?;
        Ok(Self { _process: process, ports })
    }

    pub fn any(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.ports[0])
    }
}

/// A proxy under test.
#[derive(Debug)]
pub struct Proxy {
    pub name: &'static str,
    pub samples: Vec<Sample>,
    port: u16,
    pid: u32,
    _process: Held,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held so that it lives")]
enum Held {
    Peer(Owned),
    Router(Box<Program>),
}

impl Proxy {
    pub async fn haproxy(dir: &Path, upstreams: &Upstreams) -> Result<Self> {
        let port = free_ports(1)?[0];
        let servers: String = (0..)
            .zip(&upstreams.ports)
            .map(|(i, port)| format!("  server s{i} 127.0.0.1:{port}\n"))
            .collect();
        let config = format!(
            "global\n  nbthread {THREADS}\n  maxconn 4096\ndefaults\n  mode http\n  timeout client 60s\n  \
             timeout server 60s\n  timeout connect 1s\n  http-reuse always\n\
             frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n\
             backend b\n  balance leastconn\n{servers}"
        );
        let file = dir.join("haproxy.cfg");
        fs::write(&file, config)?;
        let child =
            Command::new("haproxy").args(["-db", "-f"]).arg(file).stdout(Stdio::null()).spawn();
        let child = child.context("haproxy: `apt-get install haproxy`")?;
        Self::peer("HAProxy", port, Owned(child)).await
    }

    pub async fn nginx(dir: &Path, upstreams: &Upstreams) -> Result<Self> {
        let port = free_ports(1)?[0];
        let servers: String =
            upstreams.ports.iter().map(|port| format!("server 127.0.0.1:{port};")).collect();
        let config = format!(
            "{}http {{ access_log off; keepalive_requests 1000000; \
             upstream u {{ least_conn; {servers} keepalive 64; keepalive_requests 1000000; }} \
             server {{ listen 127.0.0.1:{port} reuseport; client_body_buffer_size 16k; location / {{ \
             proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ''; }} }} }}",
            nginx_head(dir, "proxy", THREADS)
        );
        Self::peer("nginx", port, nginx(dir, "proxy", &config)?).await
    }

    async fn peer(name: &'static str, port: u16, process: Owned) -> Result<Self> {
        wait_for(port).await?;
        let pid = process.0.id();
        Ok(Self { name, samples: Vec::new(), port, pid, _process: Held::Peer(process) })
    }

    /// The router over a static fleet, with three policies on its route.
    pub async fn router(dir: &Path, upstreams: &Upstreams) -> Result<Self> {
        let instances: String = (0..)
            .zip(&upstreams.ports)
            .map(|(i, port)| {
                format!(
                    "[[instances]]\nid = \"i-{i}\"\nregion = \"us-east-1\"\npool = \"{MODEL}\"\n\
                     models = [\"{MODEL}\"]\naddress = \"127.0.0.1:{port}\"\nslots = 8\n"
                )
            })
            .collect();
        let config = format!(
            "region = \"us-east-1\"\n[listen]\ndata = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\n\
             threads = {THREADS}\n[policies]\ndir = {:?}\n\
             [[regions]]\nregion_id = \"us-east-1\"\nendpoint = \"http://127.0.0.1:1\"\n{instances}\
             [[routes]]\nname = \"all\"\npolicies = [{{ name = \"score\" }}, {{ name = \"capacity\" }}, \
             {{ name = \"health\" }}]\n",
            policies_folder()?
        );
        let program = router_process(dir, "router", &config).await?;
        let (port, pid) = (program.address("data")?.port(), program.pid().context("ended")?);
        Ok(Self {
            name: "router",
            samples: Vec::new(),
            port,
            pid,
            _process: Held::Router(Box::new(program)),
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Time on a CPU so far, of the process, its threads and its children.
    pub fn cpu(&self) -> Result<Duration> {
        self.family()?.into_iter().map(usage::cpu).sum()
    }

    pub fn memory_mb(&self) -> Result<f64> {
        let bytes: u64 = self.family()?.into_iter().map(usage::memory_bytes).sum::<Result<_>>()?;
        Ok(bytes as f64 / f64::from(1 << 20))
    }

    fn family(&self) -> Result<Vec<u32>> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid))?;
        let mut family = vec![self.pid];
        for child in children.split_whitespace() {
            family.push(child.parse()?);
        }
        Ok(family)
    }
}

/// Requests that `wrk` got answered by POSTs of about 1 KB.
pub async fn wrk(url: &str, duration: Duration) -> Result<u64> {
    let script = std::env::temp_dir().join(format!("mrgc-bench-{}.lua", std::process::id()));
    let body = format!(
        "{{\"model\":\"{MODEL}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}",
        "x".repeat(940)
    );
    fs::write(
        &script,
        format!(
            "wrk.method = \"POST\"\nwrk.body = '{body}'\n\
             wrk.headers[\"Content-Type\"] = \"application/json\"\n"
        ),
    )?;
    let output = tokio::process::Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", duration.as_secs()), "-s"])
        .arg(&script)
        .arg(url)
        .output()
        .await
        .context("wrk: `apt-get install wrk`")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !text.contains("Non-2xx"), "wrk: {text}");
    let line = text.lines().find(|line| line.contains(" requests in ")).context("wrk's answer")?;
    Ok(line.split_whitespace().next().context("wrk's count")?.parse()?)
}

fn nginx_head(dir: &Path, name: &str, workers: usize) -> String {
    format!(
        "daemon off; pid {0}/{name}.pid; error_log {0}/{name}.log; worker_processes {workers};\
         events {{ worker_connections 4096; }}\n",
        dir.display()
    )
}

fn nginx(dir: &Path, name: &str, config: &str) -> Result<Owned> {
    let file = dir.join(format!("{name}.conf"));
    fs::write(&file, config)?;
    let child = Command::new("nginx").arg("-c").arg(file).stderr(Stdio::null()).spawn();
    Ok(Owned(child.context("nginx: `apt-get install nginx`")?))
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

async fn wait_for(port: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        ensure!(Instant::now() < end, "nothing listens on port {port}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
