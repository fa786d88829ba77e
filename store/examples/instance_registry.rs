//! An instance's life through the registry, which keeps generation and sequence by itself: register, make
//! available, report what routing goes by, and ask for the best instances.
//!
//! ```text
//! cargo run -p mrgc-store --features embedded --example instance_registry [-- --endpoint URL]
//! ```

mod common;

use std::io::Write;

use mrgc_fleet::model::{Health, InstanceId, Registration};
use mrgc_store::{Registry, Store};

use common::{Result, State};

#[tokio::main]
async fn main() -> Result<()> {
    let state = State::of_arguments().await?;
    run(&state.store, &mut std::io::stdout()).await?;
    state.close().await
}

pub async fn run(store: &Store, out: &mut impl Write) -> Result<()> {
    let registry = Registry::new(store.clone(), "us-east-1");
    let id = InstanceId::from("i-1234567890abcdef0");

    // Register a new instance.
    let instance = Registration {
        health_address: "10.66.10.50:8080".to_owned(),
        zone: Some("us-east-1a".to_owned()),
        subnet_id: Some("subnet-12345".to_owned()),
        subnet_cidr: Some("10.66.10.0/23".to_owned()),
        ..Registration::new(id.clone(), "us-east-1", "model-a", "10.66.10.50:8000")
    };
    registry.register_new_instance(instance).await?;

    // Mark it ready for traffic.
    registry.mark_available(&id).await?;

    // Update what routing goes by. The score follows from it: 0.50 · (100 - 10 · 2)
    // + 0.30 · (100 - 150 / 10) + 0.20 · 100 for healthy.
    let score = registry.update_routing_metrics(&id, 2, 150.0, Health::Healthy).await?;
    writeln!(out, "score {score:.1}")?;

    // Get the best instances for routing.
    for standing in registry.best_for_routing(5).await? {
        let Some(report) = &standing.report else { continue };
        let score = report.routing_score.unwrap_or_default();
        let queue_depth = report.queue_depth.unwrap_or_default();
        writeln!(out, "{}: score={score:.2}, queue={queue_depth}", standing.registration.id)?;
    }

    registry.mark_draining(&id).await?;
    writeln!(out, "draining: {} available", registry.available(None).await?.len())?;
    registry.mark_terminated(&id).await?;
    Ok(())
}
