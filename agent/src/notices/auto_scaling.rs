//! Completes the lifecycle action of an Auto Scaling group's hook once the instance is drained, so that the
//! group need not wait for the hook's timeout.

use std::time::Duration;

use anyhow::{Context, anyhow};
use mrgc_aws::{AutoScaling, LifecycleAction, Session, Told};
use mrgc_fleet::model::Registration;
use tokio::time;

use crate::{
    config,
    identity::{self, Imds},
};

/// All attempts together. The hook's own timeout ends the wait after that.
const LIMIT: Duration = Duration::from_secs(60);

/// Where instances can read their own tags, their group's name is among them.
const GROUP_TAG: &str = "/latest/meta-data/tags/instance/aws:autoscaling:groupName";

/// What an instance needs to take its leave of its group.
#[derive(Debug)]
pub(crate) struct Farewell {
    id: String,
    aws_region: String,
    config: config::Notices,
    imds: Imds,
}

impl Farewell {
    /// The AWS region is the one that EC2 says or, failing that, that of the store or of the registration.
    pub(crate) fn new(
        config: &config::Config,
        told: &identity::Told,
        registration: &Registration,
    ) -> reqwest::Result<Self> {
        let of_ec2 = told.as_ref().ok().and_then(|facts| facts.document.region.clone());
        let aws_region = of_ec2.or_else(|| config.store.aws_region.clone());
        Ok(Self {
            id: registration.id.to_string(),
            aws_region: aws_region.unwrap_or_else(|| registration.region.to_string()),
            config: config.notices.clone(),
            imds: Imds::new(&config.identity.endpoint)?,
        })
    }

    /// Completes the action, as often as it takes within a limit, and says in the log what came of it.
    pub(crate) async fn complete(mut self) {
        let Some(hook) = self.config.lifecycle_hook.clone() else {
            return tracing::info!("no notices.lifecycle_hook is configured: nothing to complete");
        };
        match time::timeout(LIMIT, self.tell(&hook)).await {
            Ok(Ok((group, Told::Heard))) => {
                tracing::info!(hook, group, "lifecycle action completed");
            }
            Ok(Ok((group, Told::Nobody))) => {
                tracing::info!(hook, group, "the lifecycle action is over already");
            }
            Ok(Err(error)) => tracing::error!(hook, "lifecycle action not completed: {error:#}"),
            Err(_) => tracing::error!(hook, "lifecycle action not completed within {LIMIT:?}"),
        }
    }

    async fn tell(&mut self, hook: &str) -> anyhow::Result<(String, Told)> {
        let group = self.group().await?;
        let session = Session::new(&self.aws_region).await?;
        let endpoint = self.config.auto_scaling_endpoint.as_deref();
        let service = AutoScaling::new(&session, endpoint, LIMIT);
        let action = LifecycleAction { group: &group, hook, instance: &self.id };
        let told = service.complete(action).await?;
        Ok((group, told))
    }

    async fn group(&mut self) -> anyhow::Result<String> {
        if let Some(group) = &self.config.auto_scaling_group {
            return Ok(group.clone());
        }
        let page = self.imds.get(GROUP_TAG).await.context("the group's name is not known")?;
        page.map(|page| page.text.trim().to_owned()).ok_or_else(|| {
            anyhow!(
                "the group's name is not known: set notices.auto_scaling_group, or the instance's \
                 InstanceMetadataTags to enabled"
            )
        })
    }
}
