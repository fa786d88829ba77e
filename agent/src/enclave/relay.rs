//! `POST /attestation`: a router's nonce goes to the enclave, and the enclave's document comes back. Nothing of
//! either is understood here; what cannot be a nonce or a document is not passed on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use super::{Channel, Enclave, channel::ChannelError};
use crate::reload::Live;

/// A nonce in base64, in JSON.
pub(crate) const MAX_BODY_BYTES: usize = 2 << 10;

/// What a security module takes, in base64.
const MAX_NONCE_CHARS: usize = 684;

/// At the same time: each router of a region asks by itself, and rarely.
const MAX_QUESTIONS: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    nonce: String,
}

#[derive(Debug, Deserialize)]
struct FromEnclave {
    #[serde(default)]
    document: Option<String>,
}

/// The enclave's document.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    /// COSE_Sign1, in base64.
    pub(crate) document: String,
}

/// Why there is no document.
#[derive(Debug, Error)]
pub(crate) enum RelayError {
    #[error("the question is not valid: {0}")]
    Invalid(String),
    #[error("no way to the enclave is configured: set enclave.port or enclave.socket")]
    NoChannel,
    #[error("no enclave is known to run")]
    NoEnclave,
    #[error("{MAX_QUESTIONS} others are being answered: ask again later")]
    Busy,
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the enclave answered without a document")]
    NoDocument,
}

/// Relays questions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    channel: Option<Channel>,
    settings: watch::Receiver<Live>,
    room: Arc<Semaphore>,
}

impl Relay {
    pub(crate) fn new(channel: Option<Channel>, settings: watch::Receiver<Live>) -> Self {
        Self { channel, settings, room: Arc::new(Semaphore::new(MAX_QUESTIONS)) }
    }

    /// Asks the first of the enclaves that runs.
    pub(crate) async fn ask(
        &self,
        body: &[u8],
        enclaves: &[Enclave],
    ) -> Result<Answer, RelayError> {
        let Question { nonce } =
            serde_json::from_slice(body).map_err(|e| RelayError::Invalid(e.to_string()))?;
        if !is_base64(&nonce) || nonce.is_empty() || nonce.len() > MAX_NONCE_CHARS {
            let why = format!("give a nonce of 1 to {MAX_NONCE_CHARS} characters of base64");
            return Err(RelayError::Invalid(why));
        }
        let channel = self.channel.as_ref().ok_or(RelayError::NoChannel)?;
        let enclave = Enclave::first_running(enclaves).ok_or(RelayError::NoEnclave)?;
        let _permit = self.room.try_acquire().map_err(|_| RelayError::Busy)?;
        let timeout = self.settings.borrow().enclave_timeout;
        let FromEnclave { document } = channel.ask(enclave.cid, "attest", &nonce, timeout).await?;
        let document = document.filter(|document| is_base64(document));
        Ok(Answer { document: document.ok_or(RelayError::NoDocument)? })
    }
}

/// Of its alphabet; whoever reads it decodes it.
fn is_base64(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
}
