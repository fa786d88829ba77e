//! What an agent costs the machine whose model server is to have it: memory, CPU, the time until it is ready,
//! how fast `/health` answers, and the size of the program. `cargo xtask bench agent` builds and runs this.
//!
//! The agent runs at its default intervals, with 8 GPUs behind the NVML double, a mock model server and the
//! embedded state engine, each in a process of its own. The double answers at once, so that what is measured
//! is the agent; a driver's own time comes on top. It runs in the agent's threads, and is measured with them: what
//! each thread used is told, too.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use mrgc_tests::{
    cluster::{Cluster, InstanceSpec, PATIENCE, Program, binary_path},
    usage,
};

const GPUS: u32 = 8;
const STARTS: u32 = 10;
/// Long enough for twelve samples of the GPUs and six heartbeats.
const MEASURED_FOR: Duration = Duration::from_secs(60);
/// Of that, what the first samples take is not counted.
const WARM_UP: Duration = Duration::from_secs(10);

const REQUESTS_PER_SECOND: u32 = 1_000;
const REQUESTED_FOR: Duration = Duration::from_secs(20);
/// Connections that are kept open, each with a thread.
const PROBERS: u32 = 8;

const MAX_MEMORY_MB: f64 = 25.0;
/// Of one core.
const MAX_CPU_SHARE: f64 = 0.003;
const MAX_READY: Duration = Duration::from_millis(200);
const MAX_P99: Duration = Duration::from_millis(1);
const MAX_BINARY_MB: f64 = 15.0;

fn main() -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<ExitCode> {
    let cluster = Cluster::start().await?;
    let spec = InstanceSpec::new("i-1", "us-east-1");
    let server = cluster.model_server(&spec).await?;
    let machine = Machine::new(&cluster, server.address("")?)?;

    let mut ready = Vec::new();
    for _ in 0..STARTS {
        ready.push(machine.start().await?.1);
    }
    ready.sort();

    let (agent, _) = machine.start().await?;
    let pid = agent.pid().context("pid")?;
    let address = agent.address("")?;
    eprintln!("measuring for {} s", MEASURED_FOR.as_secs());
    tokio::time::sleep(WARM_UP).await;
    let (started, before, threads) = (Instant::now(), usage::cpu(pid)?, threads(pid)?);
    tokio::time::sleep(MEASURED_FOR).await;
    let elapsed = started.elapsed();
    let cpu_share = (usage::cpu(pid)? - before).as_secs_f64() / elapsed.as_secs_f64();
    let threads = by_thread(&threads, &self::threads(pid)?, elapsed);
    let idle_mb = usage::memory_bytes(pid)? as f64 / 1e6;
    let gpus = gpus_seen(&cluster, address).await?;
    ensure!(gpus == GPUS as usize, "the agent sees {gpus} GPUs of {GPUS}");

    eprintln!("asking {REQUESTS_PER_SECOND} times a second for {} s", REQUESTED_FOR.as_secs());
    let (started, before) = (Instant::now(), usage::cpu(pid)?);
    let answers = tokio::task::spawn_blocking(move || probe(address)).await??;
    let busy_share = (usage::cpu(pid)? - before).as_secs_f64() / started.elapsed().as_secs_f64();
    let memory_mb = idle_mb.max(usage::memory_bytes(pid)? as f64 / 1e6);
    let binary_mb = fs::metadata(binary_path("mrgc-agent")?)?.len() as f64 / 1e6;
    Ok(report(&Measured { ready, cpu_share, threads, memory_mb, answers, busy_share, binary_mb }))
}

/// What the agent is started on.
struct Machine<'a> {
    cluster: &'a Cluster,
    args: [String; 4],
    environment: Vec<(&'static str, String)>,
    manager: UnixDatagram,
}

impl<'a> Machine<'a> {
    fn new(cluster: &'a Cluster, server: SocketAddr) -> Result<Self> {
        let dir = cluster.dir.path();
        let library = binary_path("libnvidia_ml_double.so")?;
        let config = format!(
            "listen = \"127.0.0.1:0\"\n\
             [instance]\nid = \"i-1\"\nregion = \"us-east-1\"\naddress = \"{server}\"\n\
             [inference]\nurl = \"http://{server}\"\n\
             [gpu]\nlibrary = {library:?}\nrequired = true\n\
             [store]\nendpoint = {store:?}\n",
            store = cluster.store_endpoint()?,
        );
        let (file, script) = (dir.join("agent.toml"), dir.join("nvml-script"));
        fs::write(&file, config)?;
        fs::write(&script, format!("gpus {GPUS}\n"))?;
        let socket = dir.join("notify");
        let manager = UnixDatagram::bind(&socket)?;
        manager.set_read_timeout(Some(PATIENCE))?;
        let text = |path: &Path| path.display().to_string();
        Ok(Self {
            cluster,
            args: ["run", "--print-address", "--config", &text(&file)].map(str::to_owned),
            environment: vec![
                ("NOTIFY_SOCKET", text(&socket)),
                ("NVML_DOUBLE_SCRIPT", text(&script)),
            ],
            manager,
        })
    }

    /// The agent, and how long it took from its start to `READY=1`: listening, and every part sampled.
    async fn start(&self) -> Result<(Program, Duration)> {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (dir, started) = (self.cluster.dir.path(), Instant::now());
        let manager = self.manager.try_clone()?;
        let ready = tokio::task::spawn_blocking(move || -> Result<Instant> {
            let mut message = [0; 4_096];
            loop {
                let length = manager.recv(&mut message).context("no READY=1")?;
                if message[..length].starts_with(b"READY=1") {
                    return Ok(Instant::now());
                }
            }
        });
        let agent =
            Program::start_with(dir, "agent", "mrgc-agent", &self.args, &environment).await?;
        Ok((agent, ready.await?? - started))
    }
}

/// What each of the agent's threads has used so far: time on a CPU, and how often it was woken.
fn threads(pid: u32) -> Result<BTreeMap<String, (Duration, u64)>> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let file = |name| fs::read_to_string(task.join(name));
        let (name, schedstat, status) = (file("comm")?, file("schedstat")?, file("status")?);
        let ns = schedstat.split_whitespace().next().context("schedstat")?.parse()?;
        let mut waits = status.lines().filter_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        let waits = waits.next().context("voluntary_ctxt_switches")?.trim().parse()?;
        threads.insert(name.trim_end().to_owned(), (Duration::from_nanos(ns), waits));
    }
    Ok(threads)
}

/// For each thread its share of a core and its wake-ups, of which each costs, however little it is for.
fn by_thread(
    before: &BTreeMap<String, (Duration, u64)>,
    after: &BTreeMap<String, (Duration, u64)>,
    elapsed: Duration,
) -> String {
    let used = after.iter().filter_map(|(name, (cpu, wakes))| {
        let (cpu_before, wakes_before) = before.get(name)?;
        let share = cpu.saturating_sub(*cpu_before).as_secs_f64() / elapsed.as_secs_f64();
        let wakes = wakes.saturating_sub(*wakes_before) as f64 / elapsed.as_secs_f64();
        Some(format!("{name} {:.3} % ({wakes:.1}/s)", 100.0 * share))
    });
    used.collect::<Vec<_>>().join(", ")
}

async fn gpus_seen(cluster: &Cluster, address: SocketAddr) -> Result<usize> {
    let url = format!("http://{address}/health?detail");
    let detail: serde_json::Value = cluster.client.get(url).send().await?.json().await?;
    Ok(detail["gpu"].as_array().map_or(0, Vec::len))
}

/// How long `/health` took to answer, in microseconds, asked at a steady rate over kept connections.
fn probe(address: SocketAddr) -> Result<Histogram<u64>> {
    let probers: Vec<_> =
        (0..PROBERS).map(|n| thread::spawn(move || probe_one(address, n))).collect();
    let mut all = histogram()?;
    for prober in probers {
        let times = prober.join().map_err(|_| anyhow::anyhow!("a prober panicked"))??;
        all.add(times)?;
    }
    Ok(all)
}

/// One connection's share. What was due while an answer was awaited counts from when it was due.
fn probe_one(address: SocketAddr, prober: u32) -> Result<Histogram<u64>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let interval = Duration::from_secs(1) * PROBERS / REQUESTS_PER_SECOND;
    let count = REQUESTED_FOR.as_micros() / interval.as_micros();
    let mut times = histogram()?;
    let mut due = Instant::now() + interval * prober / PROBERS;
    for _ in 0..count {
        let mut asked = due;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
            asked = Instant::now();
        }
        ask(&mut stream)?;
        times.saturating_record(u64::try_from(asked.elapsed().as_micros())?);
        due += interval;
    }
    Ok(times)
}

/// One request, and its whole answer, which must be a 200.
fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: agent\r\n\r\n")?;
    let mut answer = Vec::with_capacity(4_096);
    let mut piece = [0; 4_096];
    loop {
        let length = stream.read(&mut piece)?;
        ensure!(length > 0, "the agent closed the connection");
        answer.extend_from_slice(&piece[..length]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = str::from_utf8(&answer[..end])?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let body = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if answer.len() == end + 4 + body.context("no content-length")?.parse::<usize>()? {
            return Ok(());
        }
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

struct Measured {
    /// Shortest first.
    ready: Vec<Duration>,
    cpu_share: f64,
    /// Each one's share of it, in words.
    threads: String,
    memory_mb: f64,
    answers: Histogram<u64>,
    /// While `/health` was asked for.
    busy_share: f64,
    binary_mb: f64,
}

fn report(measured: &Measured) -> ExitCode {
    let Measured { ready, cpu_share, threads, memory_mb, answers, busy_share, binary_mb } =
        measured;
    let median = ready[ready.len() / 2];
    let p99 = Duration::from_micros(answers.value_at_quantile(0.99));
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!("an agent with {GPUS} GPUs at its default intervals");
    let mut is_met = true;
    let mut line = |what: &str, value: String, goal: String, met: bool| {
        println!(
            "  {what:<22} {value:>24}   goal: {goal:<14} {}",
            if met { "met" } else { "MISSED" }
        );
        is_met &= met;
    };
    line(
        "resident memory",
        format!("{memory_mb:.1} MB"),
        format!("{MAX_MEMORY_MB} MB"),
        *memory_mb < MAX_MEMORY_MB,
    );
    line(
        "CPU",
        format!("{:.2} % of a core", 100.0 * cpu_share),
        format!("{:.1} %", 100.0 * MAX_CPU_SHARE),
        *cpu_share < MAX_CPU_SHARE,
    );
    line(
        "start to ready",
        format!("{:.0} ms (worst {:.0} ms)", ms(median), ms(ready[ready.len() - 1])),
        format!("{} ms", MAX_READY.as_millis()),
        median < MAX_READY,
    );
    let us = |q| answers.value_at_quantile(q);
    line(
        "/health, p99",
        format!("{} µs (p50 {} µs)", p99.as_micros(), us(0.5)),
        format!("{} ms", MAX_P99.as_millis()),
        p99 < MAX_P99,
    );
    line(
        "program",
        format!("{binary_mb:.1} MB"),
        format!("{MAX_BINARY_MB} MB"),
        *binary_mb < MAX_BINARY_MB,
    );
    println!("  CPU and wake-ups by thread: {threads}");
    println!(
        "  while it answered {REQUESTS_PER_SECOND} requests/s it used {:.1} % of a core",
        100.0 * busy_share
    );
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
