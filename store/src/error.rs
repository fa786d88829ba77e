//! What can go wrong with the store, told with the table, the key and the operation.

use std::{error::Error, fmt};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

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

    /// Another writer is ahead: a newer generation registered, or the sequence was written before.
    #[error(
        "{call}: {offered} lost against the stored {stored}: another writer is ahead of this one"
    )]
    Fenced { call: Call, offered: Fence, stored: Fence },

    #[error(
        "{call}: the table does not exist. Create the tables with the deployment's template and check \
         `table_prefix` and the AWS region, or run the embedded engine, which creates its own"
    )]
    MissingTable { call: Call },

    #[error("{call}: {reason}. Use another `table_prefix`, or create the table anew")]
    WrongSchema { call: Call, reason: String },

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
            "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "Throttling"
            | "ThrottlingException" => Self::Throttled { call, reason },
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
