//! Running the agent: its runtime, its log and its signals.

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use mrgc_agent::{
    config::{Config, Log, LogFormat},
    notify::Notifier,
    supervisor::{Reload, Supervisor},
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task,
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{ConfigFile, Run, say};

/// Changes what is logged.
type LogFilter = reload::Handle<EnvFilter, Registry>;

/// One thread is enough: the agent waits most of the time. NVML has a thread of its own.
pub(crate) fn run(options: &Run) -> anyhow::Result<()> {
    let config = options.config.load()?;
    let log_filter = start_logging(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let ran = runtime.block_on(serve(config, options, log_filter));
    // A thread of the pool may wait for a system call, as for a name to resolve: the process does not.
    runtime.shutdown_background();
    ran
}

async fn serve(config: Config, options: &Run, log_filter: LogFilter) -> anyhow::Result<()> {
    // Before anything else, so that a signal that comes early is heard, too.
    let mut signals = Signals::listen()?;
    let hangups = listen(SignalKind::hangup())?;
    let notifier = Notifier::from_environment()
        .context("NOTIFY_SOCKET names no socket: unset it where no service manager listens")?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {} (`listen`)", config.listen))?;
    if options.print_address {
        say(&format!("listening {}", listener.local_addr()?))?;
    }
    let (ask, reloads) = mpsc::channel(1);
    let reloading =
        reload_on_hangup(hangups, options.config.clone(), log_filter, notifier.clone(), ask);
    task::spawn(reloading);

    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        // Sent by the first signal; never dropped before.
        let _ = drained.await;
    };
    let twice = async {
        let first = signals.next().await;
        tracing::info!(signal = first, "a second signal ends the agent at once");
        let _ = drain.send(());
        signals.next().await
    };
    let supervisor = Supervisor::new(notifier, reloads);
    tokio::select! {
        ran = mrgc_agent::run(listener, config, supervisor, shutdown) => Ok(ran?),
        signal = twice => bail!("{signal} while draining: ended at once, and not deregistered"),
    }
}

/// Reads the configuration again at each SIGHUP, for as long as anybody wants it.
async fn reload_on_hangup(
    mut hangups: Signal,
    file: ConfigFile,
    log_filter: LogFilter,
    notifier: Notifier,
    reloads: mpsc::Sender<Reload>,
) {
    while hangups.recv().await.is_some() {
        notifier.reloading();
        let file = file.clone();
        // A disk may be slow, and the control loop does not wait for it.
        let Ok(reload) = task::spawn_blocking(move || file.read()).await else { return };
        if let Ok(config) = &reload
            && let Ok(filter) = filter(&config.log.level)
        {
            // It fails only where nothing is logged any more.
            let _ = log_filter.reload(filter);
        }
        if reloads.send(reload.map(Box::new)).await.is_err() {
            return;
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let (terminate, interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}

fn start_logging(log: &Log) -> anyhow::Result<LogFilter> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(handle)
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(level)
        .with_context(|| format!("log.level is \"{level}\": use a level, as in info"))
}
