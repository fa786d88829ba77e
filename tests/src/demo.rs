//! The demo: a fleet of real processes under steady traffic, policies swapped and an instance killed while
//! one watches, and a verdict on all of it in the end.
//!
//! ```text
//! stage ── processes ──► script: swaps and the kill ──► verdict: what should have come of it
//!   │                                                     ▲
//!   └──► traffic ── answers ──► tally ────────────────────┤
//!   └──► control: how the routers see it ──► table, screen┘
//! ```

mod control;
mod screen;
mod script;
mod stage;
mod style;
mod table;
mod tally;
mod traffic;
mod verdict;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

use control::Control;
use screen::Screen;
use script::{ACTS, Script};
use stage::{ENCLAVE, ROUTE_POLICY, Stage};
use table::Scene;
use tally::Tally;
use traffic::Traffic;
use verdict::Summary;

/// Between two looks at the fleet, and two drawings of the table.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How the demo is to go.
#[derive(Clone, Debug)]
pub struct Options {
    /// End with the scenario, rather than with Ctrl-C.
    pub once: bool,
    /// How long the scenario takes at least, starting and stopping not included.
    pub length: Duration,
    /// Requests, to both routers together.
    pub per_second: f64,
    /// Write the summary as JSON to standard output, and all else to standard error.
    pub json: bool,
    pub sabotage: Option<Sabotage>,
}

/// What is broken on purpose, to show that the demo notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// One of the versions swapped in passes its trial and then traps on every call
    PolicyTraps,
    /// An instance answers 500 while its agent says that it is healthy
    LyingAgent,
}

/// How the demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Passed,
    Failed,
    /// Before there was a verdict.
    Interrupted,
}

/// Plays the demo on the caller's runtime, and takes everything down again.
///
/// # Errors
///
/// Something could not be started or asked: no verdict is possible.
pub async fn run(options: &Options) -> Result<Ending> {
    let screen = Arc::new(Screen::new(options.json));
    let mut interrupt = Interrupt::listen()?;
    screen.say(&screen.style.bold("Starting two regions, six instances and their state"));
    let mut stage = Stage::open().await?;
    let mut summary = None;
    let played = tokio::select! {
        played = play(options, &mut stage, &screen, &mut summary) => played.map(|()| false),
        () = interrupt.comes() => Ok(true),
    };
    screen.settle();
    if played.is_err() || summary.as_ref().is_some_and(|summary: &Summary| !summary.passed) {
        let logs = stage.keep_logs();
        let kept = format!("The logs and configurations are in {}", logs.display());
        screen.say(&screen.style.yellow(&kept));
        if let Some(summary) = &mut summary {
            summary.logs = Some(logs);
        }
    }
    screen.say("Stopping all processes");
    tokio::select! {
        () = stage.strike() => {}
        // Asked twice: what still runs is killed as it is dropped.
        () = interrupt.comes() => {}
    }
    played?;
    if let Some(summary) = summary.as_ref().filter(|_| options.json) {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(summary)?)?;
    }
    Ok(match summary {
        Some(Summary { passed: true, .. }) => Ending::Passed,
        Some(_) => Ending::Failed,
        None => Ending::Interrupted,
    })
}

/// Everything between the state's start and its end. Without `once` it goes on for ever, after the verdict.
async fn play(
    options: &Options,
    stage: &mut Stage,
    screen: &Arc<Screen>,
    summary: &mut Option<Summary>,
) -> Result<()> {
    stage.fill(options.sabotage, screen).await?;
    screen.say("");
    let controls = stage.controls();
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(stage.targets(), options.per_second, tally.clone())?;
    let mut watching = JoinSet::new();
    watching.spawn(watch(controls.clone(), tally.clone(), screen.clone()));
    let mut script = Script {
        stage,
        controls: controls.clone(),
        tally: tally.clone(),
        screen: screen.clone(),
        act_length: options.length / ACTS as u32,
        began: Instant::now(),
    };
    let story = script.play(options.sabotage).await?;
    // Until the end of this function.
    let _goes_on = if options.once {
        traffic.finish().await;
        watching.shutdown().await;
        screen.settle();
        None
    } else {
        Some((traffic, watching))
    };
    let testimonies = verdict::hear(stage).await?;
    let mut totals = Vec::new();
    for control in &controls {
        totals.push(control.totals().await?);
    }
    let judged = verdict::judge(&tally.counts(), &story, &totals, &testimonies);
    judged.lines(screen.style).iter().for_each(|line| screen.say(line));
    *summary = Some(judged);
    if !options.once {
        invite(stage, screen)?;
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Shows how the fleet is, for ever.
async fn watch(controls: Vec<Control>, tally: Arc<Tally>, screen: Arc<Screen>) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    let mut seen = BTreeMap::new();
    let mut last_line = Instant::now();
    loop {
        ticks.tick().await;
        // A router that does not answer for once leaves what was seen before.
        if let Ok(now) = control::everyone(&controls).await {
            seen = now;
        }
        let scene = Scene::new(&seen, &mut tally.counts());
        if screen.in_place {
            screen.show(scene.frame(screen.style));
        } else if last_line.elapsed() >= LINE_INTERVAL {
            last_line = Instant::now();
            screen.event(scene.at, &scene.line());
        }
    }
}

/// What can be tried while everything runs.
fn invite(stage: &Stage, screen: &Screen) -> Result<()> {
    let json = "-H 'content-type: application/json' -d";
    let router = stage.routers.first().context("no router")?;
    let completion = stage::completion("Hello");
    let berlin = serde_json::json!({ "request_context": {
        "model": stage::MODEL, "user_location": { "latitude": 52.5, "longitude": 13.4 },
    }});
    let health = format!("http://{}/health", stage.instance(ENCLAVE)?.agent_address);
    let (route, instances) = (router.control_url("/route"), router.control_url("/instances"));
    let policy = router.control_url(&format!("/policies/{ROUTE_POLICY}"));
    let chat = router.data_url("/v1/chat/completions");
    screen.say(&screen.style.bold("Everything goes on. Try, from another terminal:"));
    for (what, command) in [
        ("a completion, and who served it", format!("curl -i {chat} {json} '{completion}'")),
        (
            "the same, within an enclave",
            format!("curl -i {chat} -H 'x-mrgc-enclave: required' {json} '{completion}'"),
        ),
        ("where one from Berlin would go", format!("curl {route} {json} '{berlin}'")),
        ("the fleet, as a router sees it", format!("curl {instances}")),
        ("an agent's health", format!("curl {health}")),
        ("another policy, at once", format!("curl -T target/policies/capacity.wasm {policy}")),
    ] {
        screen.say(&format!("\n  {}\n  {command}", screen.style.dim(&format!("# {what}"))));
    }
    screen.say(&format!("\n{}", screen.style.bold("Ctrl-C stops everything.")));
    Ok(())
}

/// Ctrl-C, or SIGTERM.
#[derive(Debug)]
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let interrupt = listen(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: listen(SignalKind::terminate())? })
    }

    async fn comes(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
