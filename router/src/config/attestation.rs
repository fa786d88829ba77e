//! What enclaves have to prove, and how often.

use std::{path::PathBuf, time::Duration};

use mrgc_fleet::model::PoolId;
use mrgc_settings::Layers;
use serde::{Deserialize, Serialize};

use crate::attestation::{AWS_NITRO_ROOT, Measurements, Root};

/// What a module's certificate lasts: nothing is believed for longer.
const MOST_SECONDS: f64 = 3.0 * 3600.0;

/// A larger file is no certificate.
const MAX_ROOT_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attestation {
    /// The certificate that documents must lead to, PEM. Left out: the root of AWS's Nitro enclaves.
    pub root: Option<PathBuf>,
    /// How long a verified document counts.
    pub max_age_seconds: f64,
    /// Between two verifications of an enclave.
    pub interval_seconds: f64,
    pub timeout_seconds: f64,
    /// Whether instances have their EC2 ids, which the documents must name.
    pub match_instance_id: bool,
    pub images: Vec<Image>,
}

/// An enclave image that a pool's instances may run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    pub pool: PoolId,
    pub pcrs: Measurements,
}

impl Default for Attestation {
    fn default() -> Self {
        Self {
            root: None,
            max_age_seconds: 900.0,
            interval_seconds: 300.0,
            timeout_seconds: 10.0,
            match_instance_id: true,
            images: Vec::new(),
        }
    }
}

impl Attestation {
    pub fn max_age(&self) -> Duration {
        Duration::from_secs_f64(self.max_age_seconds)
    }

    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval_seconds)
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_seconds)
    }

    pub fn images_of(&self, pool: &PoolId) -> impl Iterator<Item = &Measurements> {
        self.images.iter().filter(move |image| image.pool == *pool).map(|image| &image.pcrs)
    }

    /// The pools of which it is known what their enclaves should run.
    pub fn pools(&self) -> Vec<PoolId> {
        self.images.iter().map(|image| image.pool.clone()).collect()
    }

    /// The root, read.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub fn read_root(&self) -> Result<Root, String> {
        let Some(path) = &self.root else { return Root::from_pem(AWS_NITRO_ROOT) };
        let named = |what: String| format!("{}: {what}", path.display());
        let bytes = std::fs::metadata(path).map_err(|e| named(e.to_string()))?.len();
        if bytes > MAX_ROOT_BYTES {
            return Err(named(format!("{bytes} bytes are no certificate")));
        }
        let pem = std::fs::read(path).map_err(|e| named(e.to_string()))?;
        Root::from_pem(&pem).map_err(named)
    }

    pub(super) fn check(&self, layers: &mut Layers, has_store: bool) {
        for (key, value, most) in [
            ("max_age_seconds", self.max_age_seconds, MOST_SECONDS),
            ("interval_seconds", self.interval_seconds, MOST_SECONDS),
            ("timeout_seconds", self.timeout_seconds, 60.0),
        ] {
            if !(value.is_finite() && (0.1..=most).contains(&value)) {
                let key = format!("attestation.{key}");
                layers.reject(&key, format!("{value} is not within 0.1 and {most}"));
            }
        }
        if self.max_age_seconds < 2.0 * self.interval_seconds {
            layers.reject(
                "attestation.max_age_seconds",
                format!(
                    "{} is less than two intervals of {} seconds: one slow answer would take an enclave out",
                    self.max_age_seconds, self.interval_seconds
                ),
            );
        }
        if let Err(problem) = self.read_root() {
            layers.reject("attestation.root", problem);
        }
        if !has_store && !self.images.is_empty() {
            layers.reject(
                "attestation.images",
                "are for a router with a [store]: the instances of a static fleet have no agent to ask",
            );
        }
    }
}

#[cfg(test)]
mod tests;
