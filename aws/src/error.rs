//! What comes of a call that did not succeed.

use std::time::Duration;

/// Enough of an answer to recognise the trouble.
const MAX_QUOTED_BYTES: usize = 300;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no AWS credentials: {0}")]
    Credentials(String),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection could not be made, or broke.
    #[error("no answer: {0}")]
    Broken(String),
    /// It throttles, or fails, or calls the credentials expired.
    #[error("not now: {status} {code} {message}")]
    Later { status: u16, code: String, message: String },
    #[error("refused: {status} {code} {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("an answer that cannot be read: {0}")]
    Garbled(String),
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl CallError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Credentials(_) | Self::TimedOut(_) | Self::Broken(_) | Self::Later { .. } => true,
            Self::Refused { .. } | Self::Garbled(_) | Self::Request(_) => false,
        }
    }

    /// Whether the service called the credentials expired.
    pub(crate) fn is_expiry(&self) -> bool {
        matches!(self, Self::Later { code, .. } if is_expiry(code))
    }

    /// From an answer that is no success.
    pub(crate) fn from_answer(status: u16, body: &str) -> Self {
        let (code, message) = crate::answer::error(body).unwrap_or_else(|| {
            (String::new(), body[..body.floor_char_boundary(MAX_QUOTED_BYTES)].to_owned())
        });
        let later = matches!(status, 429 | 500..=599) || is_throttling(&code) || is_expiry(&code);
        match later {
            true => Self::Later { status, code, message },
            false => Self::Refused { status, code, message },
        }
    }
}

/// As the SDKs tell it: each service has its own word.
fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "PriorRequestNotComplete"
            | "ResourceContention"
    )
}

fn is_expiry(code: &str) -> bool {
    matches!(code, "ExpiredToken" | "ExpiredTokenException" | "RequestExpired")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_succeed_later_is_told_from_what_will_not() {
        let error =
            |code: &str| format!("<R><Error><Code>{code}</Code><Message>m</Message></Error></R>");
        for (status, body, retryable, expiry) in [
            (400, error("Throttling"), true, false),
            (400, error("ExpiredToken"), true, true),
            (503, error("RequestLimitExceeded"), true, false),
            (500, error("ResourceContention"), true, false),
            (429, String::new(), true, false),
            (502, "<html>".to_owned(), true, false),
            (400, error("ValidationError"), false, false),
            (403, error("AccessDenied"), false, false),
            (301, String::new(), false, false),
        ] {
            let told = CallError::from_answer(status, &body);
            assert_eq!((told.is_retryable(), told.is_expiry()), (retryable, expiry), "{told}");
        }
    }

    #[test]
    fn a_page_that_is_no_answer_is_quoted_in_part() {
        let page = "é".repeat(100_000);
        let told = CallError::from_answer(403, &page).to_string();
        assert!(told.contains("éé") && told.len() < 400, "{told}");
    }
}
