//! Instances in the shared state, call by call: register, heartbeat, change state, read, list, remove.
//!
//! ```text
//! cargo run -p mrgc-store --features embedded --example state_manager [-- --endpoint URL]
//! ```

mod common;

use std::io::Write;

use mrgc_fleet::model::{Health, InstanceId, Lifecycle, RegionId, Registration, Report};
use mrgc_store::Store;

use common::{Result, State};

#[tokio::main]
async fn main() -> Result<()> {
    let state = State::of_arguments().await?;
    run(&state.store, &mut std::io::stdout()).await?;
    state.close().await
}

pub async fn run(store: &Store, out: &mut impl Write) -> Result<()> {
    let id = InstanceId::from("i-1234567890abcdef0");
    let region = RegionId::from("us-east-1");

    // Register a new instance. It is given a generation, under which it writes from now on.
    let registration = Registration {
        health_address: "10.66.10.50:8080".to_owned(),
        zone: Some("us-east-1a".to_owned()),
        subnet_id: Some("subnet-12345".to_owned()),
        ami_id: Some("ami-12345".to_owned()),
        ..Registration::new(id.clone(), region.clone(), "model-a", "10.66.10.50:8000")
    };
    let generation = store.register(&registration).await?.generation;
    writeln!(out, "registered {id} under generation {generation}")?;

    // Send a heartbeat. Each has the next sequence, so that a late or repeated one loses.
    let heartbeat = Report {
        lifecycle: Lifecycle::Registering,
        queue_depth: Some(3),
        ..Report::new(id.clone(), region.clone(), generation, 1)
    };
    store.report(&heartbeat).await?;

    // Update the instance's state: a heartbeat that says so.
    let available = Report {
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        queue_depth: Some(0),
        sequence: 2,
        ..heartbeat.clone()
    };
    store.report(&available).await?;

    // The one before, delivered again, is refused.
    if let Err(error) = store.report(&heartbeat).await {
        writeln!(out, "refused: {error}")?;
    }

    if let Some(standing) = store.instance(&region, &id).await? {
        let report = standing.report.as_ref();
        let lifecycle = report.map_or("unknown", |report| report.lifecycle.as_str());
        let queue_depth = report.and_then(|report| report.queue_depth);
        writeln!(out, "{id}: {lifecycle}, queue {queue_depth:?}")?;
    }
    let in_pool = store.instances(&region).await?;
    let in_pool = in_pool.iter().filter(|i| i.registration.pool.as_str() == "model-a").count();
    writeln!(out, "{in_pool} in {region}, model-a")?;

    store.deregister(&id, &region, generation).await?;
    writeln!(out, "deregistered; {} left in {region}", store.instances(&region).await?.len())?;
    Ok(())
}
