//! Runs what asks the network, until it is done or interrupted.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Interrupted, Verdict};

pub(crate) fn run(work: impl Future<Output = Result<Verdict>>) -> Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        // Work that is dropped takes its temporary file along.
        tokio::select! {
            // First, so that it listens before anything is asked.
            biased;
            _ = tokio::signal::ctrl_c() => Err(Interrupted.into()),
            done = work => done,
            _ = terminate.recv() => Err(Interrupted.into()),
        }
    })
}
