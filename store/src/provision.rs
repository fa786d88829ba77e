//! Making the tables: what `mrgc state init` does.
//!
//! ```text
//!  each table:  Exists | Created ──► all: Active ──► TimeToLive ──► PointInTimeRecovery, when asked for
//! ```
//!
//! Doing it twice does nothing the second time, and it goes on where an earlier run was cut off. A table that
//! exists keeps its key, its billing and its items, whatever they are; [`Store::inspect`] tells what is wrong
//! with it.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::{
    error::{BuildError, ProvideErrorMetadata},
    operation::create_table::CreateTableError,
    types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType,
        PointInTimeRecoverySpecification, ScalarAttributeType, TableStatus,
        TimeToLiveSpecification, TimeToLiveStatus,
    },
};
use tokio::time::sleep;

use crate::{
    Store,
    check::is_unsupported,
    error::{Call, StoreError},
    item::{PK, SK},
    schema::{EXPIRES_AT, Table},
};

/// Between two looks at a table that is being created.
const POLL: Duration = Duration::from_millis(500);

/// How tables are made.
#[derive(Clone, Copy, Debug)]
pub struct ProvisionOptions {
    /// Backs each table up continuously, to restore it as of any second of the last 35 days.
    pub point_in_time_recovery: bool,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl Default for ProvisionOptions {
    fn default() -> Self {
        Self { point_in_time_recovery: false, timeout: Duration::from_secs(300) }
    }
}

/// What has just been done or seen of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionStep {
    Exists,
    Created,
    Active,
    TimeToLive,
    PointInTimeRecovery,
    /// The engine has no such feature, and the tables serve without it.
    Unsupported(&'static str),
}

impl Store {
    /// Creates the tables that are missing, billed by request, and waits until all are active; then turns
    /// on what they lack. `told` hears of each step, with the table's full name.
    pub async fn create_tables(
        &self,
        options: &ProvisionOptions,
        mut told: impl FnMut(&str, ProvisionStep),
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + options.timeout;
        let prefix = &self.0.table_prefix;
        for table in Table::ALL {
            let exists = self.describe(table).await?.is_some();
            let created = !exists && self.create(table).await?;
            let step = if created { ProvisionStep::Created } else { ProvisionStep::Exists };
            told(&table.name(prefix), step);
        }
        for table in Table::ALL {
            self.wait_until_active(table, deadline).await?;
            told(&table.name(prefix), ProvisionStep::Active);
        }
        for table in Table::ALL.into_iter().filter(|table| table.expires()) {
            if let Some(step) = self.turn_on_time_to_live(table).await? {
                told(&table.name(prefix), step);
            }
        }
        if options.point_in_time_recovery {
            for table in Table::ALL {
                let step = self.turn_on_recovery(table, deadline).await?;
                told(&table.name(prefix), step);
            }
        }
        Ok(())
    }

    /// Creates one table; false where somebody else did so in the meantime.
    async fn create(&self, table: Table) -> Result<bool, StoreError> {
        let call = self.table_call("CreateTable", table);
        let invalid = |error: BuildError| StoreError::Invalid {
            call: self.table_call("CreateTable", table),
            reason: error.to_string(),
        };
        let request = self.0.client.create_table();
        let mut request = request
            .table_name(table.name(&self.0.table_prefix))
            .billing_mode(BillingMode::PayPerRequest);
        for (name, key_type) in [(PK, KeyType::Hash), (SK, KeyType::Range)] {
            let key = KeySchemaElement::builder().attribute_name(name).key_type(key_type);
            let attribute = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S);
            request = request
                .key_schema(key.build().map_err(invalid)?)
                .attribute_definitions(attribute.build().map_err(invalid)?);
        }
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(CreateTableError::ResourceInUseException(_)) => Ok(false),
                _ => Err(self.failed(call, error)),
            },
        }
    }

    async fn wait_until_active(&self, table: Table, deadline: Instant) -> Result<(), StoreError> {
        loop {
            let status =
                self.describe(table).await?.and_then(|description| description.table_status);
            if matches!(status, Some(TableStatus::Active | TableStatus::Updating)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let status = status.as_ref().map_or("unknown", TableStatus::as_str);
                let reason = format!(
                    "the table is not active in time: its status is {status}. Run it again to go on"
                );
                let call = self.table_call("CreateTable", table);
                return Err(StoreError::Other { call, reason, retryable: true });
            }
            sleep(POLL).await;
        }
    }

    /// `None` where it is on already, or on with another attribute, which is left alone.
    async fn turn_on_time_to_live(
        &self,
        table: Table,
    ) -> Result<Option<ProvisionStep>, StoreError> {
        const UNSUPPORTED: Option<ProvisionStep> = Some(ProvisionStep::Unsupported("time to live"));
        let call = self.table_call("UpdateTimeToLive", table);
        let Some(found) = self.time_to_live(table).await? else { return Ok(UNSUPPORTED) };
        let off = found.time_to_live_status().is_none_or(|s| *s == TimeToLiveStatus::Disabled);
        if !off {
            return Ok(None);
        }
        let specification =
            TimeToLiveSpecification::builder().attribute_name(EXPIRES_AT).enabled(true).build();
        let specification = specification.map_err(|error| StoreError::Invalid {
            call: call.clone(),
            reason: error.to_string(),
        })?;
        let request = self.0.client.update_time_to_live();
        let answer = request
            .table_name(table.name(&self.0.table_prefix))
            .time_to_live_specification(specification)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Some(ProvisionStep::TimeToLive)),
            Err(error) if error.code().is_some_and(is_unsupported) => Ok(UNSUPPORTED),
            Err(error) => {
                // Where somebody else did it in the meantime, the service calls it invalid.
                let now = self.time_to_live(table).await?;
                let on = now.is_some_and(|now| {
                    now.time_to_live_status().is_some_and(|s| *s != TimeToLiveStatus::Disabled)
                });
                if on { Ok(None) } else { Err(self.failed(call, error)) }
            }
        }
    }

    /// The service refuses it for a while after a table has become active.
    async fn turn_on_recovery(
        &self,
        table: Table,
        deadline: Instant,
    ) -> Result<ProvisionStep, StoreError> {
        let call = self.table_call("UpdateContinuousBackups", table);
        let specification = PointInTimeRecoverySpecification::builder()
            .point_in_time_recovery_enabled(true)
            .build();
        let specification = specification.map_err(|error| StoreError::Invalid {
            call: call.clone(),
            reason: error.to_string(),
        })?;
        loop {
            let request = self.0.client.update_continuous_backups();
            let answer = request
                .table_name(table.name(&self.0.table_prefix))
                .point_in_time_recovery_specification(specification.clone())
                .send()
                .await;
            let Err(error) = answer else { return Ok(ProvisionStep::PointInTimeRecovery) };
            match error.code() {
                Some(code) if is_unsupported(code) => {
                    return Ok(ProvisionStep::Unsupported("point-in-time recovery"));
                }
                Some("ContinuousBackupsUnavailableException") if Instant::now() < deadline => {
                    sleep(POLL).await;
                }
                _ => return Err(self.failed(call, error)),
            }
        }
    }

    /// A call about a whole table.
    pub(crate) fn table_call(&self, operation: &'static str, table: Table) -> Call {
        Call { operation, table: table.name(&self.0.table_prefix), key: String::new() }
    }
}
