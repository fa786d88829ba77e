//! The tables: their names, their key, and which of them expire items.
//!
//! Every table has the same key, the strings `pk` (partition) and `sk` (sort), no index, and is billed by
//! request. The service removes items of some tables after the time in their attribute `expires_at`,
//! seconds since 1970; it takes up to days, so readers look at that time, too.
//!
//! This is the one definition: `provision` creates the tables by it, `check` compares live ones with it, the
//! embedded engine makes its own by it, and a test holds the deployment's template to it.

use std::fmt;

use crate::item::{PK, SK};

/// DynamoDB's limit is 255 for the whole name.
const MAX_PREFIX_BYTES: usize = 128;

/// When the service may remove an item, in seconds since 1970.
pub(crate) const EXPIRES_AT: &str = "expires_at";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

    /// Its name in the service.
    pub(crate) fn name(self, prefix: &str) -> String {
        format!("{prefix}-{}", self.short_name())
    }

    /// Its name without the prefix.
    pub(crate) fn short_name(self) -> &'static str {
        match self {
            Self::GpuInstances => "gpu-instances",
            Self::RoutingState => "routing-state",
            Self::AutoscalingState => "autoscaling-state",
            Self::CleanupValidation => "cleanup-validation",
            Self::Metrics => "metrics",
            Self::Regions => "regions",
            Self::Policies => "policies",
            Self::Control => "control",
        }
    }

    pub(crate) fn from_short_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.short_name() == name)
    }

    /// Whether its items may have an end, [`EXPIRES_AT`].
    pub(crate) fn expires(self) -> bool {
        match self {
            Self::GpuInstances
            | Self::RoutingState
            | Self::AutoscalingState
            | Self::CleanupValidation
            | Self::Metrics
            | Self::Control => true,
            Self::Regions | Self::Policies => false,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short_name())
    }
}

/// What one table must be, for whoever creates it by other means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDefinition {
    /// Without the prefix and its dash, as in `gpu-instances`.
    pub name: &'static str,
    /// A string.
    pub partition_key: &'static str,
    /// A string.
    pub sort_key: &'static str,
    /// Holds when the service may remove an item, in seconds since 1970.
    pub ttl_attribute: Option<&'static str>,
}

/// All tables.
pub fn table_definitions() -> impl Iterator<Item = TableDefinition> {
    Table::ALL.into_iter().map(|table| TableDefinition {
        name: table.short_name(),
        partition_key: PK,
        sort_key: SK,
        ttl_attribute: table.expires().then_some(EXPIRES_AT),
    })
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
