//! Whether the live tables are what the programs need.
//!
//! Two questions: [`Store::check`] is a program's at its start, and asks what it cannot work without: that
//! the tables are there, ready, and have their key. [`Store::inspect`] is the operator's, and asks all. What an
//! engine has no answer to, such as the time to live on an emulator, is unknown and no difference.

use std::fmt;

use aws_sdk_dynamodb::{
    error::ProvideErrorMetadata,
    types::{
        BillingMode, MultiRegionConsistency, TableDescription, TableStatus, TimeToLiveDescription,
        TimeToLiveStatus,
    },
};

use crate::{
    Store,
    error::{Call, StoreError},
    item::{PK, SK},
    schema::{EXPIRES_AT, Table},
};

/// How a live table differs from what is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Missing,
    /// It is being created, deleted or archived.
    NotReady {
        status: String,
    },
    /// Both as in `pk (HASH, S), sk (RANGE, S)`.
    Key {
        found: String,
        expected: String,
    },
    /// `None` where no attribute says when an item ends.
    TimeToLive {
        found: Option<String>,
        expected: &'static str,
    },
    /// Provisioned capacity: it works, and throttles at its limit.
    Billing {
        found: String,
    },
}

impl Difference {
    /// Whether the programs cannot work with such a table.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Missing | Self::NotReady { .. } | Self::Key { .. })
    }

    /// What an operator does about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing => "run `mrgc state init`",
            Self::NotReady { .. } => "wait until it is active",
            Self::Key { .. } => {
                "use another `table_prefix`, or delete it and run `mrgc state init`"
            }
            Self::TimeToLive { found: None, .. } => "run `mrgc state init`",
            Self::TimeToLive { .. } => "turn its time to live off, then run `mrgc state init`",
            Self::Billing { .. } => {
                "set its billing mode to PAY_PER_REQUEST, or watch its throttling"
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it does not exist"),
            Self::NotReady { status } => write!(f, "it is not ready: its status is {status}"),
            Self::Key { found, expected } => {
                write!(f, "its key is {found}, it must be {expected}")
            }
            Self::TimeToLive { found: None, expected } => {
                write!(f, "its items do not expire; `{expected}` must be its time to live")
            }
            Self::TimeToLive { found: Some(found), expected } => {
                write!(f, "its time to live is `{found}`, it must be `{expected}`")
            }
            Self::Billing { found } => {
                write!(f, "its billing mode is {found}, it must be PAY_PER_REQUEST")
            }
        }
    }
}

/// One live table beside its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// With its prefix.
    pub table: String,
    pub differences: Vec<Difference>,
    /// What the engine could not say, as in `time to live`.
    pub unknown: Vec<&'static str>,
    /// Items, as the service counted them within the last six hours.
    pub items: Option<u64>,
}

/// The faults of several tables, each named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differences(pub Vec<(String, Difference)>);

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (table, difference)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}`{table}`: {difference}")?;
        }
        Ok(())
    }
}

impl Store {
    /// Whether the tables exist, can be used and have the key they need. An error of the tables lists
    /// all that is wrong with any of them.
    pub async fn check(&self) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for inspection in self.inspect_tables(false).await? {
            let fatal = inspection.differences.into_iter().filter(Difference::is_fatal);
            found.extend(fatal.map(|difference| (inspection.table.clone(), difference)));
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(StoreError::WrongSchema { differences: Differences(found) })
    }

    /// Every table beside its definition, in the order of [`crate::table_definitions`].
    pub async fn inspect(&self) -> Result<Vec<Inspection>, StoreError> {
        self.inspect_tables(true).await
    }

    async fn inspect_tables(&self, all: bool) -> Result<Vec<Inspection>, StoreError> {
        let mut inspections = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let mut inspection = Inspection {
                table: table.name(&self.0.table_prefix),
                differences: Vec::new(),
                unknown: Vec::new(),
                items: None,
            };
            match self.describe(table).await? {
                None => inspection.differences.push(Difference::Missing),
                Some(description) => {
                    compare(&description, &mut inspection);
                    if all && table.expires() && !is_strong(&description) {
                        match self.time_to_live(table).await? {
                            None => inspection.unknown.push("time to live"),
                            Some(found) => inspection.differences.extend(time_to_live(&found)),
                        }
                    }
                }
            }
            inspections.push(inspection);
        }
        Ok(inspections)
    }

    /// A table as the service describes it; `None` where it does not exist.
    pub(crate) async fn describe(
        &self,
        table: Table,
    ) -> Result<Option<TableDescription>, StoreError> {
        let name = table.name(&self.0.table_prefix);
        let call = Call { operation: "DescribeTable", table: name.clone(), key: String::new() };
        match self.0.client.describe_table().table_name(name).send().await {
            Ok(output) => match output.table {
                Some(description) => Ok(Some(description)),
                None => {
                    let reason = "the answer describes no table".to_owned();
                    Err(StoreError::Other { call, reason, retryable: true })
                }
            },
            Err(error) => match self.failed(call, error) {
                StoreError::MissingTable { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// What is said of a table's time to live; `None` where the engine does not know it, or the caller may
    /// not ask.
    pub(crate) async fn time_to_live(
        &self,
        table: Table,
    ) -> Result<Option<TimeToLiveDescription>, StoreError> {
        let name = table.name(&self.0.table_prefix);
        let call =
            Call { operation: "DescribeTimeToLive", table: name.clone(), key: String::new() };
        match self.0.client.describe_time_to_live().table_name(name).send().await {
            Ok(output) => Ok(output.time_to_live_description),
            Err(error) if error.code().is_some_and(is_unsupported) => Ok(None),
            Err(error) => match self.failed(call, error) {
                StoreError::Denied { .. } => Ok(None),
                error => Err(error),
            },
        }
    }
}

/// Codes by which engines say that they do not have an operation.
pub(crate) fn is_unsupported(code: &str) -> bool {
    matches!(
        code,
        "UnknownOperationException"
            | "UnknownOperation"
            | "UnsupportedOperationException"
            | "InvalidAction"
            | "NotImplemented"
            | "NotImplementedException"
            | "501"
    )
}

fn compare(description: &TableDescription, inspection: &mut Inspection) {
    inspection.items = description.item_count().and_then(|count| u64::try_from(count).ok());
    let differences = &mut inspection.differences;
    match &description.table_status {
        Some(TableStatus::Active | TableStatus::Updating) => {}
        status => {
            let status = status.as_ref().map_or("unknown", TableStatus::as_str).to_owned();
            differences.push(Difference::NotReady { status });
        }
    }
    let (found, expected) = (key_schema(description), expected_key());
    if found != expected {
        differences.push(Difference::Key { found, expected });
    }
    match billing_mode(description) {
        Some(BillingMode::PayPerRequest) => {}
        Some(mode) => differences.push(Difference::Billing { found: mode.as_str().to_owned() }),
        None => inspection.unknown.push("billing mode"),
    }
}

/// The service removes no expired items from tables that are strongly consistent across regions.
fn is_strong(description: &TableDescription) -> bool {
    description.multi_region_consistency() == Some(&MultiRegionConsistency::Strong)
}

/// Tables that were never billed by request have no summary, but a provisioned capacity.
fn billing_mode(description: &TableDescription) -> Option<BillingMode> {
    if let Some(mode) = description.billing_mode_summary().and_then(|s| s.billing_mode()) {
        return Some(mode.clone());
    }
    let throughput = description.provisioned_throughput()?;
    throughput.read_capacity_units().filter(|units| *units > 0).map(|_| BillingMode::Provisioned)
}

fn time_to_live(found: &TimeToLiveDescription) -> Option<Difference> {
    let on = matches!(
        found.time_to_live_status(),
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
    );
    let attribute = found.attribute_name().filter(|_| on);
    (attribute != Some(EXPIRES_AT)).then(|| Difference::TimeToLive {
        found: attribute.map(str::to_owned),
        expected: EXPIRES_AT,
    })
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
