//! A router that has just started does not know the fleet yet, or not all of it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mrgc_tests::cluster::{Router, router_process_with};
use tokio::net::TcpListener;

use crate::support::{ANY_ROUTE, Dead, Lone, Setup, client, header, metric, model_server, problem};

const KEY: &str = "a-key-of-these-tests";
const REQUESTS: usize = 20;

/// Of a call to the store: long against everything else that a start does.
const STORE_TIMEOUT: Duration = Duration::from_secs(4);

/// A router of eu-west-1 that starts, with what it knows as TOML. It is killed when it is dropped.
async fn starting(dir: &tempfile::TempDir, knows: &str) -> Result<Router> {
    let config = format!(
        "region = \"eu-west-1\"\n\
         [listen]\ndata = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\nthreads = 1\n\
         [policies]\ndir = {:?}\n\
         [peers]\nkey = {KEY:?}\n\
         {ANY_ROUTE}{knows}",
        dir.path().join("policies"),
    );
    let account = [
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let program = router_process_with(dir.path(), "starting", &config, &account).await?;
    let (data, control) = (program.address("data")?, program.address("control")?);
    Ok(Router { region: "eu-west-1".to_owned(), program, data, control })
}

/// A store whose address is `address`.
fn store(address: SocketAddr) -> String {
    let timeout_ms = STORE_TIMEOUT.as_millis();
    format!("[store]\nendpoint = \"http://{address}\"\ntimeout_ms = {timeout_ms}\n")
}

/// A router of us-east-1 that has no instance, and knows of one in each of `regions`.
async fn with_peers(regions: &[(&str, SocketAddr)]) -> Result<Lone> {
    let mut setup = Setup::new(&format!("{ANY_ROUTE}[peers]\nkey = {KEY:?}\n"));
    for (region, address) in regions {
        let instance = format!("i-{region}");
        setup = setup.region(region, *address, &["gdpr"]).instance_in(region, &instance, *address);
    }
    setup.start().await
}

#[tokio::test]
async fn a_model_that_a_peer_does_not_know_yet_is_no_capacity_and_never_a_404() -> Result<()> {
    let (gone, served) = (Dead::new()?, model_server("served").await?);
    let another_model = format!(
        "[[regions]]\nregion_id = \"eu-west-1\"\nendpoint = \"http://192.0.2.1:8000\"\n\
         [[instances]]\nid = \"i-1\"\nregion = \"eu-west-1\"\npool = \"p\"\naddress = \"{}\"\n\
         models = [\"another\"]\n",
        gone.address
    );
    for knows in [store(gone.address), another_model] {
        let dir = tempfile::tempdir()?;
        let starting = starting(&dir, &knows).await?;
        let alone = with_peers(&[("eu-west-1", starting.data)]).await?;
        let refused = alone.chat(false).send().await?;
        ensure!(refused.headers().contains_key("retry-after"), "{refused:?}");
        problem(refused, 503, "no-capacity").await?;

        let peers = [("eu-west-1", starting.data), ("eu-central-1", served.address())];
        let lone = with_peers(&peers).await?;
        for _ in 0..REQUESTS {
            let answer = lone.chat(false).send().await?;
            ensure!(answer.status() == 200, "{} {}", answer.status(), answer.text().await?);
            assert_eq!(header(answer.headers(), "x-served-by")?, "served");
        }
        // It has refused; it was not passed by.
        let asked = metric(&client()?, &starting, "mrgc_router_requests_total").await?;
        ensure!(asked > 1.0, "it was asked {asked} times");
    }
    Ok(())
}

#[tokio::test]
async fn a_start_waits_once_for_a_store_that_is_silent() -> Result<()> {
    let (dir, silent) = (tempfile::tempdir()?, TcpListener::bind("127.0.0.1:0").await?);
    let began = Instant::now();
    let router = starting(&dir, &store(silent.local_addr()?)).await?;
    let took = began.elapsed();
    ensure!(STORE_TIMEOUT <= took && took < 2 * STORE_TIMEOUT, "it listens after {took:?}");
    let health = client()?.get(router.data_url("/health")).send().await?.text().await?;
    ensure!(health.contains("no answer from"), "{health}");
    Ok(())
}
