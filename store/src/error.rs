//! What can go wrong with the store, told with the table, the key and the operation.

use std::{error::Error, fmt};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use mrgc_fleet::model::{Lifecycle, Registration, Stamp, Timestamp, Writer};

use crate::{
    check::Differences,
    clock,
    item::{self, Item},
};

/// One call: what was asked, of which table, about which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// As DynamoDB names it, as in `PutItem`.
    pub operation: &'static str,
    /// With its prefix, as in `mrgc-routing-state`.
    pub table: String,
    /// Partition and sort key, as in `us-east-1#2 / i-1`; empty where the call is about a whole table.
    pub key: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on table `{}`", self.operation, self.table)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, ", key `{}`", self.key) }
    }
}

/// Who may write: the higher pair wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    pub generation: u64,
    /// `None` for a registration, which has no sequence.
    pub sequence: Option<u64>,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.generation)?;
        self.sequence.map_or(Ok(()), |sequence| write!(f, ", sequence {sequence}"))
    }
}

/// Who registered an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub generation: u64,
    /// Where its inference server is, as it registered.
    pub address: String,
    pub writer: Option<Writer>,
    /// By its own clock.
    pub registered_at: Timestamp,
}

impl Holder {
    /// From its registration's item; `None` where that cannot be read.
    pub(crate) fn of(registered: &Item) -> Option<Self> {
        let registration: Registration = item::decode(registered.clone()).ok()?;
        let Registration { generation, address, writer, registered_at, .. } = registration;
        Some(Self { generation, address, writer, registered_at })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.address)?;
        if let Some(Writer { id, host }) = &self.writer {
            let host = host.as_deref().unwrap_or("unknown");
            write!(f, " (host {host}, process {id})")?;
        }
        write!(f, " at {} as generation {}", clock::instant(self.registered_at), self.generation)
    }
}

fn rival(by: Option<&Holder>) -> String {
    match by {
        Some(holder) => format!("another agent registered this id {holder}"),
        None => "another writer is ahead of this one".to_owned(),
    }
}

fn choices(allowed: &[Lifecycle]) -> String {
    if allowed.is_empty() {
        return "nothing; register the instance again".to_owned();
    }
    allowed.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ")
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store is not configured: {reason}")]
    NotConfigured { reason: String },

    #[error("{call}: {endpoint} cannot be reached: {reason}. Check that it runs and `endpoint`")]
    Unreachable { call: Call, endpoint: String, reason: String },

    #[error("{call}: no answer from {endpoint} within {timeout_ms} ms (`timeout_ms`)")]
    Timeout { call: Call, endpoint: String, timeout_ms: u64 },

    #[error(
        "{call}: throttled, retries included: {reason}. Try again later, or raise its capacity"
    )]
    Throttled { call: Call, reason: String },

    /// Another writer is ahead: a newer generation registered, or the sequence was written before. Tells who
    /// registered, where that is another and could be found out.
    #[error("{call}: {offered} lost against the stored {stored}: {}", rival(by.as_deref()))]
    Fenced { call: Call, offered: Fence, stored: Fence, by: Option<Box<Holder>> },

    /// The instance may not go from the stored lifecycle to the reported one; nothing was written.
    #[error(
        "{call}: the lifecycle cannot go from {from} to {to}: from {from} it may become {}",
        choices(allowed)
    )]
    IllegalTransition { call: Call, from: Lifecycle, to: Lifecycle, allowed: &'static [Lifecycle] },

    /// Another holder of the lease wrote, or this one did already.
    #[error(
        "{call}: {offered} lost against the stored {stored}: check that the lease is still held, and read \
         again before writing"
    )]
    Superseded { call: Call, offered: Stamp, stored: Stamp },

    #[error(
        "{call}: the table does not exist. Create the tables with `mrgc state init` or the deployment's \
         template, and check `table_prefix` and the AWS region"
    )]
    MissingTable { call: Call },

    /// The tables are not what the programs need; lists every fault of each.
    #[error(
        "the tables do not fit: {differences}. `mrgc state init` creates what is missing, and \
         `mrgc state check` tells what to do about the rest; check `table_prefix` and the AWS region, too"
    )]
    WrongSchema { differences: Differences },

    #[error("{call}: what is stored cannot be read: {reason}. Write it again, or delete it")]
    Corrupt { call: Call, reason: String },

    #[error("{call}: denied: {reason}. Check the credentials and the policy of their role")]
    Denied { call: Call, reason: String },

    #[error("{call}: {what} is not there")]
    NotFound { call: Call, what: String },

    /// Refused before it was sent, or because of what is stored.
    #[error("{call}: {reason}")]
    Invalid { call: Call, reason: String },

    #[error("{call}: others wrote it at the same time, {attempts} times in a row")]
    Contended { call: Call, attempts: u32 },

    #[error("{call}: {reason}")]
    Other { call: Call, reason: String, retryable: bool },
}

impl StoreError {
    /// Tells of the one that a fenced writer lost to.
    pub(crate) fn lost_to(mut self, holder: Option<Holder>) -> Self {
        if let Self::Fenced { by, .. } = &mut self {
            *by = holder.map(Box::new);
        }
        self
    }

    /// Whether the same call may succeed later with nothing changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Throttled { .. }
            | Self::Contended { .. } => true,
            Self::Other { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// Whether it speaks against the endpoint as a whole: nobody answers there, or the service fails.
    pub(crate) fn is_endpoint_down(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Other { retryable: true, .. }
        )
    }

    /// What an SDK's error means. The SDK has retried by now what it may retry.
    pub(crate) fn from_sdk<E>(
        call: Call,
        endpoint: &str,
        timeout_ms: u64,
        error: SdkError<E>,
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let endpoint = endpoint.to_owned();
        match &error {
            SdkError::TimeoutError(_) => Self::Timeout { call, endpoint, timeout_ms },
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                Self::Timeout { call, endpoint, timeout_ms }
            }
            SdkError::DispatchFailure(failure) if failure.is_io() => {
                Self::Unreachable { call, endpoint, reason: causes(&error) }
            }
            SdkError::ResponseError(_) => {
                Self::Unreachable { call, endpoint, reason: causes(&error) }
            }
            SdkError::ServiceError(answer) => {
                let code = answer.err().code().unwrap_or_default();
                let message = answer.err().message().unwrap_or("no message");
                Self::from_code(call, code, message, answer.raw().status().is_server_error())
            }
            _ => Self::from_local(call, causes(&error)),
        }
    }

    fn from_code(call: Call, code: &str, message: &str, server_error: bool) -> Self {
        let reason = format!("{code}: {message}");
        match code {
            "ResourceNotFoundException" => Self::MissingTable { call },
            // Of tables that are strongly consistent across regions: another region writes the item.
            "ReplicatedWriteConflictException" => Self::Contended { call, attempts: 1 },
            code if is_throttling(code) => Self::Throttled { call, reason },
            "AccessDeniedException"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "UnrecognizedClientException" => Self::Denied { call, reason },
            _ => Self::Other { call, reason, retryable: server_error },
        }
    }

    /// The call never left: most often because no credentials were found.
    fn from_local(call: Call, reason: String) -> Self {
        if reason.contains("credential") {
            Self::Denied { call, reason }
        } else {
            Self::Other { call, reason, retryable: false }
        }
    }
}

/// The codes by which the service asks for fewer calls.
pub(crate) fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "Throttling"
            | "ThrottlingException"
    )
}

/// An error and its causes on one line, without those that only repeat it.
fn causes(error: &(dyn Error + 'static)) -> String {
    /// No chain of causes is deeper in practice.
    const MAX_CAUSES: usize = 8;
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    for _ in 0..MAX_CAUSES {
        let Some(error) = next else { break };
        let text = error.to_string().trim_end_matches('.').to_owned();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call { operation: "PutItem", table: "mrgc-regions".to_owned(), key: "r / x".to_owned() }
    }

    #[test]
    fn each_code_is_told_apart() {
        for (code, server_error, expected, retryable) in [
            ("ResourceNotFoundException", false, "MissingTable", false),
            ("ProvisionedThroughputExceededException", false, "Throttled", true),
            ("ThrottlingException", false, "Throttled", true),
            ("AccessDeniedException", false, "Denied", false),
            ("UnrecognizedClientException", false, "Denied", false),
            ("ValidationException", false, "Other", false),
            ("InternalServerError", true, "Other", true),
            ("ReplicatedWriteConflictException", false, "Contended", true),
        ] {
            let error = StoreError::from_code(call(), code, "m", server_error);
            let variant = format!("{error:?}");
            assert!(variant.starts_with(expected), "{code} became {variant}");
            assert_eq!(error.is_retryable(), retryable, "{code}");
        }
    }

    #[test]
    fn a_message_names_the_operation_the_table_and_the_key() {
        let text = StoreError::Contended { call: call(), attempts: 3 }.to_string();
        assert!(text.starts_with("PutItem on table `mrgc-regions`, key `r / x`: "), "{text}");
    }
}
