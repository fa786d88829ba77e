//! What is asked of AWS about this region's instances, and what it is told.

use std::time::Duration;

use mrgc_settings::Layers;
use serde::{Deserialize, Serialize};

use super::{Config, Role, check::check_seconds};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aws {
    /// Whether EC2's status of the instances' machines is evidence.
    pub instance_status: bool,
    /// Between two looks at that status. What was seen counts for three times as long.
    pub interval_seconds: f64,
    /// Whether the Auto Scaling group of an instance that is replaced is told that it is unhealthy.
    pub set_instance_health: bool,
    /// As in `us-east-1`; default: the store's `aws_region`, or the id of this router's region.
    pub region: Option<String>,
    /// In place of the services' own. For tests.
    pub ec2_endpoint: Option<String>,
    pub auto_scaling_endpoint: Option<String>,
}

impl Default for Aws {
    fn default() -> Self {
        Self {
            instance_status: false,
            interval_seconds: 60.0,
            set_instance_health: false,
            region: None,
            ec2_endpoint: None,
            auto_scaling_endpoint: None,
        }
    }
}

impl Aws {
    pub fn is_used(&self) -> bool {
        self.instance_status || self.set_instance_health
    }

    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval_seconds)
    }
}

pub(super) fn check(layers: &mut Layers, config: &Config) {
    let aws = &config.aws;
    check_seconds(layers, "aws.interval_seconds", aws.interval_seconds);
    if aws.region.as_deref() == Some("") {
        layers.reject("aws.region", "is empty: name an AWS region, or leave it out");
    }
    for (key, endpoint) in
        [("ec2_endpoint", &aws.ec2_endpoint), ("auto_scaling_endpoint", &aws.auto_scaling_endpoint)]
    {
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(endpoint) = endpoint
            && !is_url(endpoint)
        {
            let message = format!("`{endpoint}` is no http:// or https:// URL");
            layers.reject(&format!("aws.{key}"), message);
        }
    }
    if aws.is_used() && config.store.is_none() && !config.roles.has(Role::State) {
        layers.reject(
            "aws",
            "instance_status and set_instance_health need a [store]: one router of a region acts, by a lease",
        );
    }
}
