//! What the demo asks of the routers' control APIs.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, bail};
use mrgc_fleet::model::{Registration, Report};
use serde::{Deserialize, de::DeserializeOwned};

/// One router's control API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    pub region: String,
    pub address: SocketAddr,
    pub client: reqwest::Client,
}

/// An instance, as a router knows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub registration: Registration,
    pub report: Option<Report>,
    pub ready: bool,
    /// `None` for one of another region.
    pub ejected: Option<bool>,
}

impl Seen {
    pub fn id(&self) -> &str {
        self.registration.id.as_str()
    }

    /// As its agent measured it.
    pub fn latency_ms(&self) -> Option<f64> {
        self.report.as_ref()?.avg_latency_ms
    }
}

/// What an upload came to.
#[derive(Clone, Debug, Deserialize)]
pub struct Uploaded {
    pub generation: u64,
    pub version: String,
    /// Compiling, validating and trying it.
    pub prepared_ms: f64,
    /// Until every data thread had it.
    pub swapped_ms: f64,
}

/// How a policy's active version does.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Status {
    pub generation: u64,
    pub decisions: u64,
    pub faults: u64,
}

/// A router's counts of its requests, as far as they are needed here.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Totals {
    pub retries: u64,
    /// Score calls that a policy did not answer, and the native score did.
    pub native_decisions: u64,
}

#[derive(Deserialize)]
struct Stats {
    requests: Totals,
}

impl Control {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = self.url(path);
        let answer = self.client.get(&url).send().await?.error_for_status()?;
        answer.json().await.with_context(|| format!("{url} is not understood"))
    }

    /// All of the fleet.
    pub async fn instances(&self) -> Result<Vec<Seen>> {
        self.get("/instances").await
    }

    /// One instance of any region.
    pub async fn instance(&self, id: &str) -> Result<Option<Seen>> {
        Ok(self.instances().await?.into_iter().find(|seen| seen.id() == id))
    }

    pub async fn totals(&self) -> Result<Totals> {
        Ok(self.get::<Stats>("/stats").await?.requests)
    }

    pub async fn policy(&self, name: &str) -> Result<Status> {
        self.get(&format!("/policies/{name}")).await
    }

    /// Uploads a component under a policy's name.
    ///
    /// # Errors
    ///
    /// It was refused; the router's words say why.
    pub async fn upload(&self, name: &str, component: Vec<u8>) -> Result<Uploaded> {
        let url = self.url(&format!("/policies/{name}"));
        let answer = self.client.put(url).body(component).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{} refused the upload ({status}): {}", self.region, answer.text().await?);
        }
        Ok(answer.json().await?)
    }
}

/// Every instance, each as the router of its own region knows it.
pub async fn everyone(controls: &[Control]) -> Result<BTreeMap<String, Seen>> {
    let mut all = BTreeMap::new();
    for control in controls {
        let seen = control.instances().await?;
        let here = seen.into_iter().filter(|s| s.registration.region.as_str() == control.region);
        all.extend(here.map(|seen| (seen.id().to_owned(), seen)));
    }
    Ok(all)
}
