//! An operator fails a region over: what is under way there finishes, and what comes next goes elsewhere.

use anyhow::{Result, ensure};
use mrgc_tests::cluster::{IRELAND, PATIENCE, VIRGINIA, eventually};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    orders::{Pair, away},
    support::{chat, header, in_time},
};

/// A token each, the finish, and `[DONE]`.
const EVENTS: usize = 7;

/// Requests that Virginia's instance holds until it is told to let them go on.
struct Held {
    /// Each entered by another region's router, and has the first of its events.
    streams: Vec<(Response, Vec<u8>)>,
    /// Nothing of its response has come.
    plain: JoinHandle<reqwest::Result<Response>>,
}

impl Held {
    async fn start(pair: &Pair) -> Result<Self> {
        let hold = |router, stream| {
            let request = chat(&pair.client, router, "llama", stream).header("x-mock-hold", "1");
            request.header("x-mrgc-allowed-regions", VIRGINIA.id).send()
        };
        let mut streams = Vec::new();
        for router in [&pair.virginia, &pair.ireland] {
            let mut response = hold(router, true).await?;
            ensure!(response.status() == 200, "{response:?}");
            let first = in_time("the first event", response.chunk()).await??.unwrap_or_default();
            streams.push((response, first.to_vec()));
        }
        let held = Self { streams, plain: tokio::spawn(hold(&pair.virginia, false)) };
        held.are_under_way(pair).await?;
        Ok(held)
    }

    async fn are_under_way(&self, pair: &Pair) -> Result<()> {
        let held = self.streams.len() + 1;
        eventually("the instance serves all that is held", PATIENCE, || async {
            let told: Value = pair.client.get(control(pair)).send().await?.json().await?;
            ensure!(told["counters"]["running"] == held, "{told}");
            Ok(Some(()))
        })
        .await
    }

    /// Lets them go on. Each comes whole, from where it began, and without another attempt.
    async fn finish(self, pair: &Pair) -> Result<()> {
        pair.client.post(control(pair)).json(&json!({ "release": true })).send().await?;
        for (mut response, mut body) in self.streams {
            is_virginias(&response)?;
            while let Some(piece) = in_time("the rest", response.chunk()).await?? {
                body.extend_from_slice(&piece);
            }
            is_whole(&String::from_utf8(body)?)?;
        }
        let plain = in_time("the plain answer", self.plain).await???;
        is_virginias(&plain)?;
        let completion: Value = plain.json().await?;
        ensure!(completion["usage"]["completion_tokens"] == EVENTS - 2, "{completion}");
        Ok(())
    }
}

fn control(pair: &Pair) -> String {
    format!("http://{}/control", pair.instances[0].server_address)
}

fn is_virginias(response: &Response) -> Result<()> {
    ensure!(response.status() == 200, "{response:?}");
    ensure!(header(response.headers(), "x-mrgc-region")? == VIRGINIA.id, "{response:?}");
    ensure!(header(response.headers(), "x-mrgc-attempts")? == "1", "{response:?}");
    Ok(())
}

fn is_whole(stream: &str) -> Result<()> {
    let events = stream.lines().filter(|line| line.starts_with("data: ")).count();
    ensure!(events == EVENTS && stream.ends_with("data: [DONE]\n\n"), "{events} events: {stream}");
    Ok(())
}

async fn outlives_a_failover(strategy: &str) -> Result<()> {
    let pair = Pair::start().await?;
    let held = Held::start(&pair).await?;
    pair.order(&pair.virginia, "/failover", &away(strategy)).await?;
    for router in [&pair.virginia, &pair.ireland] {
        pair.sees(router, "nothing left", |status| status["share"] == 0.0).await?;
    }
    eventually("requests go to the other region", PATIENCE, || async {
        Ok(pair.served_by().await?.iter().all(|region| region == IRELAND.id).then_some(()))
    })
    .await?;
    let stream = chat(&pair.client, &pair.virginia, "llama", true).send().await?;
    assert_eq!(header(stream.headers(), "x-mrgc-region")?, IRELAND.id);
    is_whole(&stream.text().await?)?;

    held.are_under_way(&pair).await?;
    held.finish(&pair).await
}

#[tokio::test]
async fn what_is_under_way_outlives_an_immediate_failover() -> Result<()> {
    outlives_a_failover("immediate").await
}

#[tokio::test]
async fn what_is_under_way_outlives_a_graceful_failover() -> Result<()> {
    outlives_a_failover("graceful").await
}
