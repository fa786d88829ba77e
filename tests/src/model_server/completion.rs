//! The JSON of completions, whole and as events.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::state::State;

/// The text of every completion, one word a token.
const WORDS: [&str; 8] = ["All ", "that ", "is ", "gold ", "does ", "not ", "glitter", ". "];

/// What the mock reads of a request; it ignores the rest.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) stream: bool,
    #[serde(default)]
    pub(super) mock: Option<Mock>,
}

/// How a request steers the mock from within its body.
#[derive(Debug, Deserialize)]
pub(super) struct Mock {
    pub(super) bytes: Option<NonZeroU64>,
}

/// The request's headers, as `received_headers` tells them; repeated ones are joined by `", "`.
pub(super) type Echo = BTreeMap<String, String>;

pub(super) fn echo(headers: &HeaderMap) -> Echo {
    let mut echo = Echo::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        echo.entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    echo
}

fn word(token: u32) -> &'static str {
    WORDS[token as usize % WORDS.len()]
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

#[derive(Serialize)]
struct Completion<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice; 1],
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_headers: Option<Echo>,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    message: Message,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

/// A whole completion.
pub(super) fn whole(state: &State, echo: Option<Echo>) -> Bytes {
    let completion = Completion {
        id: format!("chatcmpl-{}", next_id()),
        object: "chat.completion",
        created: unix_seconds(),
        model: &state.model,
        choices: [Choice {
            index: 0,
            message: Message {
                role: "assistant",
                content: (0..state.tokens).map(word).collect::<String>(),
            },
            finish_reason: "stop",
        }],
        usage: Usage {
            prompt_tokens: 1,
            completion_tokens: state.tokens,
            total_tokens: state.tokens.saturating_add(1),
        },
        received_headers: echo,
    };
    to_bytes(&completion)
}

/// Strings and numbers always serialize.
fn to_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [ChunkChoice; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    received_headers: Option<Echo>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'static str>,
}

/// The events of a streamed completion: a token each, then the finish, then `[DONE]`.
pub(super) struct Events {
    state: Arc<State>,
    id: String,
    created: u64,
    next: u32,
    echo: Option<Echo>,
}

impl Events {
    /// `echo` travels in the first event.
    pub(super) fn new(state: Arc<State>, echo: Option<Echo>) -> Self {
        let id = format!("chatcmpl-{}", next_id());
        Self { state, id, created: unix_seconds(), next: 0, echo }
    }

    pub(super) fn next(&mut self) -> Bytes {
        let at = self.next;
        self.next = self.next.saturating_add(1);
        let tokens = self.state.tokens;
        if at > tokens {
            return Bytes::from_static(b"data: [DONE]\n\n");
        }
        let is_token = at < tokens;
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.state.model,
            choices: [ChunkChoice {
                index: 0,
                delta: Delta {
                    role: (at == 0).then_some("assistant"),
                    content: is_token.then(|| word(at)),
                },
                finish_reason: (!is_token).then_some("stop"),
            }],
            received_headers: self.echo.take(),
        };
        let mut event = b"data: ".to_vec();
        // Strings and numbers always serialize, and a `Vec` takes all that is written.
        let _ = serde_json::to_writer(&mut event, &chunk);
        event.extend_from_slice(b"\n\n");
        event.into()
    }

    /// Whether `[DONE]` was handed out.
    pub(super) fn is_done(&self) -> bool {
        self.next > self.state.tokens.saturating_add(1)
    }

    /// The share of the whole latency by which the next token is due; `None` for what follows the
    /// last token at once.
    pub(super) fn share_done_after_next(&self) -> Option<f64> {
        let tokens = self.state.tokens;
        (self.next < tokens).then(|| f64::from(self.next + 1) / f64::from(tokens))
    }
}

/// An error as OpenAI's API words it.
pub(super) fn error(message: &str, kind: &str, code: u16) -> Bytes {
    to_bytes(&json!({ "error": { "message": message, "type": kind, "code": code } }))
}

/// The answer of `GET /v1/models`.
pub(super) fn models(state: &State) -> Bytes {
    to_bytes(&json!({
        "object": "list",
        "data": [{
            "id": state.model,
            "object": "model",
            "created": unix_seconds(),
            "owned_by": "mock-model-server",
        }],
    }))
}
