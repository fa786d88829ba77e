//! The instance's Nitro enclaves: what `nitro-cli` lists, what they need of the machine, and whether they
//! answer.
//!
//! ```text
//!  nitro-cli describe-enclaves ─┐
//!  device, allocator ───────────┼─► reading ─► control loop
//!  heartbeat over vsock ────────┘
//!  POST /attestation ─ nonce ─► vsock ─► enclave's document ─► whoever asked: a router, which verifies it
//! ```
//!
//! Whether an enclave is attested is not for the agent to say: it relays.

mod channel;
mod heartbeat;
mod logs;
pub(crate) mod metrics;
mod nitro_cli;
pub(crate) mod relay;
pub mod status;
mod support;

use tokio::sync::{mpsc, watch};

use crate::{
    config,
    reload::{Cadence, Live},
    signals::{Enclaves, Reading},
    state::Event,
};
pub(crate) use channel::Channel;
use heartbeat::Heart;
use logs::Logs;
use status::Enclave;

/// Asks `nitro-cli` until nobody listens.
pub(crate) async fn run(
    mut config: config::Enclave,
    settings: watch::Receiver<Live>,
    events: mpsc::Sender<Event>,
) {
    let mut ticks = Cadence::new(settings.clone(), |settings| settings.enclave_interval);
    let mut prober = Prober::new(&config);
    loop {
        ticks.tick().await;
        config.timeout = settings.borrow().enclave_timeout;
        let reading = prober.look(&config).await;
        if events.send(Event::Enclave(reading)).await.is_err() {
            return;
        }
    }
}

/// What lasts from one look to the next.
struct Prober {
    logs: Logs,
    heart: Heart,
}

impl Prober {
    fn new(config: &config::Enclave) -> Self {
        let logs = Logs::new(config.logs_directory.as_deref(), |name| std::env::var_os(name));
        Self { logs, heart: Heart::default() }
    }

    async fn look(&mut self, config: &config::Enclave) -> Reading<Enclaves> {
        self.logs.trim();
        let listed = nitro_cli::describe(config, &self.logs).await;
        let support = support::look(config);
        let list = match listed {
            Ok(list) => list,
            // What the machine lacks is often the reason.
            Err(check) => return Reading { value: None, check: support.explain(check) },
        };
        let heartbeat = match &config.channel {
            Some(channel) => self.heart.beat(channel, &list, config.timeout).await,
            None => None,
        };
        Reading::ok(Enclaves {
            running: count(list.iter().filter(|enclave| enclave.is_running()).count()),
            listed: count(list.len()),
            list,
            device: support.device,
            allocator: support.allocator,
            heartbeat,
            operations: self.heart.operations(),
        })
    }
}

fn count(enclaves: usize) -> u32 {
    u32::try_from(enclaves).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
#[cfg(test)]
mod tests;
