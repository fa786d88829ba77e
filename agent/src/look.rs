//! One look at the machine, with no agent running: each part is asked once, and the store whether it answers.
//! Nothing is registered and nothing is written.

use std::time::Duration;

use mrgc_fleet::model::Registration;
use mrgc_store::{Store, StoreConfig};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use crate::{
    config::Config,
    health::assess,
    identity::{self, Imds},
    inference::push,
    reload::Live,
    run::{EVENTS, RunError, now, start_probes},
    signals::Check,
    state::{Event, Snapshot, State},
};

/// Each part has a limit of its own, which is shorter.
const LIMIT: Duration = Duration::from_secs(120);

/// A server that reports itself: whether it serves is not for a look to say, and nothing is held against it.
const UNHEARD: &str =
    "the server reports itself to an agent that runs (POST /report), and none does: start it";

/// Asks each part once and judges what they said.
pub async fn look(config: Config) -> Result<Snapshot, RunError> {
    let told = identity::ask(&config, &mut Imds::new(&config.identity.endpoint)?).await;
    let registration = identity::registration(&config, &told, config.listen.port(), now())?;
    let mut requirements = config.requirements();
    let reports_itself = config.inference.as_ref().is_some_and(|it| it.reports_itself());
    requirements.inference &= !reports_itself;
    let mut state =
        State::new(registration.clone(), config.inference.is_some(), requirements, config.drain);
    if reports_itself {
        let unheard = Event::Inference(push::silent(UNHEARD, Duration::ZERO));
        state.apply(unheard, Duration::ZERO);
    }
    let start = Instant::now();
    let (_settings, settings) = watch::channel(Live::of(&config));
    let (events, mut inbox) = mpsc::channel(EVENTS);
    // They end with this function.
    let (_probes, _gpus) = start_probes(&config, &settings, start.into_std(), &events)?;
    let sampling = async {
        while !state.snapshot(now()).is_sampled() {
            let Some(event) = inbox.recv().await else { return };
            state.apply(event, start.elapsed());
        }
    };
    let (store, _) =
        tokio::join!(reach(&config.store, &registration), time::timeout(LIMIT, sampling));
    let mut snapshot = state.snapshot(now());
    snapshot.signals.store.check = store;
    snapshot.assessment = assess(&snapshot.signals, &requirements);
    Ok(snapshot)
}

/// Reads what an agent reads first.
async fn reach(config: &StoreConfig, registration: &Registration) -> Check {
    let read = async {
        Store::connect(config).await?.instance(&registration.region, &registration.id).await
    };
    match read.await {
        Ok(_) => Check::ok(),
        Err(error) => Check::error(error.to_string()),
    }
}
