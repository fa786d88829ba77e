//! The tables: their names and their key, how to make them, and whether they are as they should be.
//!
//! Every table has the same key, the strings `pk` (partition) and `sk` (sort), no index, and is billed by
//! request. Against AWS they are created by the deployment; only the embedded engine creates its own.

use aws_sdk_dynamodb::types::{TableDescription, TableStatus};

use crate::{
    Store,
    error::{Call, StoreError},
    item::{PK, SK},
};

/// DynamoDB's limit is 255 for the whole name.
const MAX_PREFIX_BYTES: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    GpuInstances,
    RoutingState,
    AutoscalingState,
    CleanupValidation,
    Metrics,
    Regions,
    Policies,
    Control,
}

impl Table {
    pub(crate) const ALL: [Self; 8] = [
        Self::GpuInstances,
        Self::RoutingState,
        Self::AutoscalingState,
        Self::CleanupValidation,
        Self::Metrics,
        Self::Regions,
        Self::Policies,
        Self::Control,
    ];

    pub(crate) fn name(self, prefix: &str) -> String {
        let name = match self {
            Self::GpuInstances => "gpu-instances",
            Self::RoutingState => "routing-state",
            Self::AutoscalingState => "autoscaling-state",
            Self::CleanupValidation => "cleanup-validation",
            Self::Metrics => "metrics",
            Self::Regions => "regions",
            Self::Policies => "policies",
            Self::Control => "control",
        };
        format!("{prefix}-{name}")
    }
}

/// Whether table names may begin with it.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.bytes().all(allowed) {
        return Err(format!(
            "`table_prefix` is `{prefix}`; it must be 1 to {MAX_PREFIX_BYTES} letters, digits, \
             `_`, `.` or `-`"
        ));
    }
    Ok(())
}

impl Store {
    /// Whether the tables exist, can be used and have the key they need; else the first fault.
    pub async fn check(&self) -> Result<(), StoreError> {
        for table in Table::ALL {
            let name = table.name(&self.0.table_prefix);
            let call = Call { operation: "DescribeTable", table: name.clone(), key: String::new() };
            let answer = self.0.client.describe_table().table_name(name).send().await;
            let description = match answer {
                Ok(output) => output.table,
                Err(error) => return Err(self.failed(call, error)),
            };
            let Some(description) = description else {
                let reason = "the answer describes no table".to_owned();
                return Err(StoreError::Other { call, reason, retryable: true });
            };
            match &description.table_status {
                Some(TableStatus::Active | TableStatus::Updating) => {}
                status => {
                    let status = status.as_ref().map_or("unknown", TableStatus::as_str);
                    let reason = format!("the table is not ready: its status is {status}");
                    return Err(StoreError::Other { call, reason, retryable: true });
                }
            }
            let (expected, found) = (expected_key(), key_schema(&description));
            if found != expected {
                let reason = format!("the table's key is {found}, it must be {expected}");
                return Err(StoreError::WrongSchema { call, reason });
            }
        }
        Ok(())
    }
}

fn expected_key() -> String {
    format!("{PK} (HASH, S), {SK} (RANGE, S)")
}

/// A table's key, as `expected_key` writes it.
fn key_schema(description: &TableDescription) -> String {
    let type_of = |name: &str| {
        let mut attributes = description.attribute_definitions().iter();
        attributes
            .find(|a| a.attribute_name() == name)
            .map_or("no type", |a| a.attribute_type().as_str())
    };
    let elements = description.key_schema().iter().map(|element| {
        let name = element.attribute_name();
        format!("{name} ({}, {})", element.key_type().as_str(), type_of(name))
    });
    elements.collect::<Vec<_>>().join(", ")
}
