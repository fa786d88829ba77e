//! Which store a command works on: a configuration file, over it the environment, over both the arguments.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use mrgc_settings::Layers;
use mrgc_store::{Store, StoreConfig, StoreError};

use crate::Usage;

/// An operator waits longer for an answer than a heartbeat does.
const LEAST_TIMEOUT_MS: u64 = 15_000;

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// A TOML file with a [store] section, as the agent's or the router's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// DynamoDB's address, as in http://127.0.0.1:8000; without it, AWS [env: MRGC_STORE__ENDPOINT]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// As in us-east-1; without it, AWS_REGION, then the instance's [env: MRGC_STORE__AWS_REGION]
    #[arg(long, value_name = "REGION")]
    aws_region: Option<String>,
    /// Before each table's name, with a dash [env: MRGC_STORE__TABLE_PREFIX] [default: mrgc]
    #[arg(long, value_name = "PREFIX")]
    table_prefix: Option<String>,
}

impl StoreArgs {
    pub(crate) fn read(&self) -> Result<StoreConfig> {
        let mut layers = Layers::new("MRGC_STORE");
        if let Some(path) = &self.config {
            let name = path.display().to_string();
            let text = fs::read_to_string(path)
                .map_err(|error| Usage(format!("cannot read {name} (`--config`): {error}")))?;
            layers = layers.file(&name, &text).section("store");
        }
        layers = layers.environment(std::env::vars_os());
        let config: StoreConfig = layers.read();
        let mut config = layers
            .finish(Some(config))
            .map_err(|problems| Usage(format!("the configuration is not valid\n{problems}")))?;
        config.endpoint = self.endpoint.clone().or(config.endpoint);
        config.aws_region = self.aws_region.clone().or(config.aws_region);
        if let Some(prefix) = &self.table_prefix {
            config.table_prefix.clone_from(prefix);
        }
        config.timeout_ms = config.timeout_ms.max(LEAST_TIMEOUT_MS);
        Ok(config)
    }

    pub(crate) async fn connect(&self) -> Result<Store> {
        match Store::connect(&self.read()?).await {
            Ok(store) => Ok(store),
            Err(StoreError::NotConfigured { reason }) => Err(Usage(reason).into()),
            Err(error) => Err(error).context("cannot connect to the store"),
        }
    }
}
