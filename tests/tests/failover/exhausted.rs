//! Regions die one after another: the last one serves it all, and when there is none, clients are told at
//! once to come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{PATIENCE, Router, eventually},
    regions::{Loss, MODEL, Regions},
};
use serde_json::json;

use crate::support::{alone, logs};

/// An answer that tried nobody; what a busy machine takes on top of no time.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn ask(regions: &Regions, router: &Router) -> Result<reqwest::Response> {
    let messages = [json!({ "role": "user", "content": "hello" })];
    let body = json!({ "model": MODEL, "messages": messages });
    let request = regions.cluster.client.post(router.data_url("/v1/chat/completions"));
    Ok(request.json(&body).send().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_region_serves_and_without_any_clients_come_back_later() -> Result<()> {
    let _alone = alone().await;
    let mut regions = Regions::start().await?;
    regions.lost.lose(Loss::Killed).await?;
    let [ireland, _] = &mut regions.others;
    ireland.lose(Loss::Stopped).await?;

    let last = &regions.others[1];
    let (router, ireland) = (&last.routers[0], regions.others[0].spec.id);
    for lost in [regions.lost.spec.id, ireland] {
        regions.sees(router, lost, |seen| seen.share == 0.0).await?;
    }
    for _ in 0..50 {
        let answer = ask(&regions, router).await?;
        ensure!(answer.status() == 200, "{} {}", answer.status(), answer.text().await?);
        ensure!(answer.headers()["x-mrgc-region"] == last.spec.id, "{answer:?}");
    }

    for instance in &mut regions.others[1].instances {
        instance.agent.kill().await?;
        instance.server.kill().await?;
    }
    let router = &regions.others[1].routers[0];
    // A router that is left tries the last one it knew, until it is sure.
    eventually("a 503 that says when to come back", PATIENCE, || async {
        let answer = ask(&regions, router).await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 503, "{status} {text}");
        Ok(Some(()))
    })
    .await
    .with_context(|| logs([router]))?;
    for _ in 0..20 {
        let started = Instant::now();
        let answer = ask(&regions, router).await?;
        let took = started.elapsed();
        let (status, headers) = (answer.status(), answer.headers().clone());
        ensure!(status == 503, "{status} {}", answer.text().await?);
        let retry_after = headers.get("retry-after").context("no Retry-After")?;
        ensure!(retry_after.to_str()?.parse::<u64>()? > 0, "{retry_after:?}");
        ensure!(took < AT_ONCE, "after {took:?}");
    }
    eventually("load balancers are told to look elsewhere", PATIENCE, || async {
        let health = regions.cluster.client.get(router.data_url("/health")).send().await?;
        ensure!(health.status() == 503, "{}", health.text().await?);
        Ok(Some(()))
    })
    .await
}
