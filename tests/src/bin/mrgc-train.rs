//! Requests at full speed through a router that counts what it runs: what `cargo xtask dist` has its compiler
//! optimise for.

#![forbid(unsafe_code)]

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use http::{HeaderMap, HeaderName, HeaderValue};
use mrgc_tests::{
    cluster::{policies_folder, router_process},
    load::{Load, LoadConfig},
    model_server::{Config, ModelServer},
};

const MODEL: &str = "llama";
const SERVERS: usize = 16;
const CONNECTIONS: usize = 16;
/// Of a chat's messages so far.
const PROMPT_BYTES: usize = 900;

/// Trains an instrumented router, found by `MRGC_PROGRAMS`, with requests of all kinds
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(train(Duration::from_secs(arguments.seconds.into())))
}

async fn train(duration: Duration) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        let config = Config {
            model: MODEL.to_owned(),
            slots: 2 * CONNECTIONS,
            latency_ms: 0,
            ..Config::default()
        };
        servers.push(ModelServer::start(config).await?);
    }
    let mut router = router_process(dir.path(), "router", &config(&servers)?).await?;
    let url = format!("http://{}", router.address("data")?);

    let mut origin = HeaderMap::new();
    let country = HeaderName::from_static("x-mrgc-country");
    origin.insert(country, HeaderValue::from_static("DE"));
    let kinds = [(0.0, HeaderMap::new()), (0.2, HeaderMap::new()), (0.0, origin)];
    let loads: Vec<Load> = kinds
        .into_iter()
        .map(|(streaming_share, headers)| {
            Load::start(LoadConfig {
                targets: vec![url.clone()],
                connections: CONNECTIONS,
                streaming_share,
                model: MODEL.to_owned(),
                prompt: "x".repeat(PROMPT_BYTES),
                headers,
                ..LoadConfig::default()
            })
        })
        .collect::<Result<_>>()?;
    tokio::time::sleep(duration).await;
    for load in loads {
        let stats = load.stop().await;
        ensure!(stats.ok > 0 && stats.failed() == 0, "requests failed: {stats}");
        eprintln!("{stats}");
    }
    // It writes what it counted when it ends, and only if it ends well.
    router.signal("TERM").await?;
    let status = router.ended().await?;
    ensure!(status.success(), "the router failed ({status}):\n{}", router.log());
    Ok(())
}

fn config(servers: &[ModelServer]) -> Result<String> {
    let mut config = format!(
        "region = \"us-east-1\"\n[listen]\ndata = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\n\
         [policies]\ndir = {:?}\n\
         [[regions]]\nregion_id = \"us-east-1\"\nendpoint = \"http://127.0.0.1:1\"\n\
         [[routes]]\nname = \"all\"\npolicies = [{{ name = \"score\" }}, {{ name = \"capacity\" }}, \
         {{ name = \"health\" }}]\n",
        policies_folder()?
    );
    for (number, server) in servers.iter().enumerate() {
        write!(
            config,
            "[[instances]]\nid = \"i-{number}\"\nregion = \"us-east-1\"\npool = \"{MODEL}\"\n\
             models = [\"{MODEL}\"]\naddress = \"{}\"\nslots = 8\n",
            server.address()
        )
        .context("cannot write to a string")?;
    }
    Ok(config)
}
