//! Who this instance is: what the configuration says and, for the rest, what EC2 says of it (IMDSv2).
//!
//! | `identity.source` | EC2 is asked | at the start, that takes at most |
//! |---|---|---|
//! | `auto` | where `id`, `region` or `address` is not configured | 2 s where nothing answers, 30 s where it throttles |
//! | `imds` | always: zone, type, image and subnet are filled in, too | 30 s |
//! | `config` | never | nothing |
//!
//! So a machine whose configuration names all three starts without a look at the network. What is configured
//! wins in any case.

mod imds;

use std::time::Duration;

use mrgc_fleet::model::{Registration, Timestamp, Writer};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::{self, Instant};

pub(crate) use self::imds::{Imds, ImdsError, Page};
use crate::{
    backoff::Backoff,
    config::{self, IdentitySource},
};

/// How long IMDS is asked again, where it throttles or where it is said to be there.
const PATIENCE: Duration = Duration::from_secs(30);

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(4) };

const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
const LIFE_CYCLE: &str = "/latest/meta-data/instance-life-cycle";
const MAC: &str = "/latest/meta-data/mac";

/// Nobody says who this instance is.
#[derive(Debug, Error)]
#[error(
    "who is this instance? {missing} unknown: set {keys} in the configuration (in the environment: {variables}), \
     or let EC2 tell ({imds})"
)]
pub struct IdentityError {
    missing: String,
    keys: String,
    variables: String,
    /// Why EC2 did not.
    imds: String,
}

/// What EC2 says of this instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) document: Document,
    /// `spot`, `on-demand` or `scheduled`.
    pub(crate) life_cycle: Option<String>,
    pub(crate) subnet_id: Option<String>,
    pub(crate) subnet_cidr: Option<String>,
}

/// The instance identity document, as far as it is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Document {
    pub(crate) instance_id: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) availability_zone: Option<String>,
    pub(crate) private_ip: Option<String>,
    pub(crate) instance_type: Option<String>,
    pub(crate) image_id: Option<String>,
}

/// What EC2 says, or why nothing was asked or answered.
pub(crate) type Told = Result<Facts, String>;

/// Asks EC2 where that is needed, and as long as that makes sense.
pub(crate) async fn ask(config: &config::Config, imds: &mut Imds) -> Told {
    let is_known = config.instance.is_known();
    match config.identity.source {
        IdentitySource::Config => return Err("identity.source is \"config\"".to_owned()),
        IdentitySource::Auto if is_known => return Err("it was not needed".to_owned()),
        IdentitySource::Auto | IdentitySource::Imds => {}
    }
    let insists = config.identity.source == IdentitySource::Imds;
    let end = Instant::now() + PATIENCE;
    let mut failures = 0;
    loop {
        let error = match time::timeout_at(end, read(imds)).await {
            Ok(Ok(facts)) => return Ok(facts),
            Ok(Err(error)) => error,
            Err(_) => return Err(format!("IMDS took longer than {} s", PATIENCE.as_secs())),
        };
        failures += 1;
        let wait = BACKOFF.wait(failures, fastrand::f64());
        if !(insists || error.is_passing()) || Instant::now() + wait >= end {
            return Err(error.to_string());
        }
        tracing::debug!(%error, failures, "IMDS is asked again");
        time::sleep(wait).await;
    }
}

async fn read(imds: &mut Imds) -> Result<Facts, ImdsError> {
    let text = page(imds, DOCUMENT).await?.unwrap_or_default();
    let document = serde_json::from_str(&text).map_err(|error| ImdsError::Garbled {
        path: DOCUMENT.to_owned(),
        reason: format!("no identity document: {error}"),
    })?;
    let life_cycle = page(imds, LIFE_CYCLE).await?;
    let (mut subnet_id, mut subnet_cidr) = (None, None);
    if let Some(mac) = page(imds, MAC).await? {
        let interface = format!("/latest/meta-data/network/interfaces/macs/{mac}");
        subnet_id = page(imds, &format!("{interface}/subnet-id")).await?;
        subnet_cidr = page(imds, &format!("{interface}/subnet-ipv4-cidr-block")).await?;
    }
    Ok(Facts { document, life_cycle, subnet_id, subnet_cidr })
}

/// A page's only line; `None` where there is none.
async fn page(imds: &mut Imds, path: &str) -> Result<Option<String>, ImdsError> {
    let page = imds.get(path).await?;
    Ok(page.map(|page| page.text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// What the instance registers as, when the agent listens on `port`.
pub(crate) fn registration(
    config: &config::Config,
    told: &Told,
    port: u16,
    at: Timestamp,
) -> Result<Registration, IdentityError> {
    let instance = &config.instance;
    let facts = told.as_ref().ok();
    let document = facts.map(|facts| &facts.document);
    let name = |text: &Option<String>| text.clone().filter(|text| config::is_name(text));
    let id = instance.id.clone().or_else(|| name(&document?.instance_id).map(Into::into));
    let region = instance.region.clone().or_else(|| name(&document?.region).map(Into::into));
    let address = instance.address.clone().or_else(|| {
        let server_port = instance.port.or(config.inference.as_ref().and_then(|i| i.port()))?;
        Some(format!("{}:{server_port}", document?.private_ip.as_ref()?))
    });
    let (Some(id), Some(region), Some(address)) = (&id, &region, &address) else {
        let missing =
            [("id", id.is_some()), ("region", region.is_some()), ("address", address.is_some())];
        return Err(unknown(missing, told));
    };
    let health_address = instance.health_address.clone().unwrap_or_else(|| {
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        format!("{host}:{port}")
    });
    let fact = |configured: &Option<String>, told: Option<&Option<String>>| {
        configured.clone().or_else(|| told?.clone())
    };
    let mut metadata = instance.metadata.clone();
    if let Some(life_cycle) = facts.and_then(|facts| facts.life_cycle.clone()) {
        metadata.entry("instance_life_cycle".to_owned()).or_insert(life_cycle);
    }
    Ok(Registration {
        health_address,
        zone: fact(&instance.zone, document.map(|d| &d.availability_zone)),
        subnet_id: fact(&instance.subnet_id, facts.map(|f| &f.subnet_id)),
        subnet_cidr: fact(&instance.subnet_cidr, facts.map(|f| &f.subnet_cidr)),
        ami_id: fact(&instance.ami_id, document.map(|d| &d.image_id)),
        provider: instance.provider.clone().or_else(|| facts.map(|_| "aws".to_owned())),
        instance_type: fact(&instance.instance_type, document.map(|d| &d.instance_type)),
        slots: instance.slots,
        cost_per_hour: instance.cost_per_hour,
        frameworks: instance.frameworks.clone(),
        metadata,
        registered_at: at,
        writer: Some(this_process()),
        ..Registration::new(id.clone(), region.clone(), instance.pool.clone(), address.clone())
    })
}

fn unknown(keys: [(&str, bool); 3], told: &Told) -> IdentityError {
    let missing: Vec<&str> = keys.iter().filter(|(_, known)| !known).map(|(key, _)| *key).collect();
    let list = |name: &dyn Fn(&str) -> String| {
        missing.iter().map(|key| name(key)).collect::<Vec<_>>().join(", ")
    };
    let imds = match told {
        // Its address is known, but not where the inference server listens on it.
        Ok(facts) if facts.document.private_ip.is_some() && missing == ["address"] => {
            "it told the host: set instance.port or inference.url for the port".to_owned()
        }
        Ok(_) => "it answered without them".to_owned(),
        Err(reason) => reason.clone(),
    };
    IdentityError {
        missing: format!(
            "Its {} {}",
            missing.join(", "),
            if missing.len() == 1 { "is" } else { "are" }
        ),
        keys: list(&|key| format!("instance.{key}")),
        variables: list(&|key| {
            format!("{}__INSTANCE__{}", config::ENVIRONMENT_PREFIX, key.to_ascii_uppercase())
        }),
        imds,
    }
}

/// What tells this agent from another that was given the same id.
fn this_process() -> Writer {
    Writer { id: format!("{:016x}", fastrand::u64(..)), host: sysinfo::System::host_name().ok() }
}

#[cfg(test)]
mod tests;
