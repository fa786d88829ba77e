//! One exchange over one kept connection, judged strictly: an answer counts only when it is whole.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::IgnoredAny;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Reason;

/// The longest answer that is read, and the longest line of a stream.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How much of an error's body a failure quotes.
const QUOTE_BYTES: usize = 300;

/// What came of one request.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The response's headers, if there was a response.
    pub(super) headers: Option<HeaderMap>,
    /// When they came.
    pub(super) head: Option<Instant>,
    pub(super) verdict: Verdict,
    /// When the first event of a stream arrived.
    pub(super) first_event: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Ok,
    /// 503 with `retry-after`: the server said that it is full, as it should.
    Shed,
    Failed(Reason, String),
}

impl Outcome {
    pub(super) fn is_unconnected(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(Reason::Connect, _))
    }

    /// The connection could not be made, or was dropped before anything of an answer came.
    pub(super) fn is_dropped(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(Reason::Connect | Reason::Send, _))
    }
}

type Failed = (Reason, String);

/// A connection to one target, opened when first needed and again after it broke.
#[derive(Debug)]
pub(super) struct Client {
    authority: String,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// Kept here while an exchange runs, so that a timeout does not lose what it had got.
    headers: Option<HeaderMap>,
    head: Option<Instant>,
    first_event: Option<Instant>,
}

impl Client {
    pub(super) fn new(authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            sender: None,
            headers: None,
            head: None,
            first_event: None,
        }
    }

    /// Sends one request and reads its whole answer.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        streams: bool,
    ) -> Outcome {
        (self.headers, self.head, self.first_event) = (None, None, None);
        let verdict = match self.try_exchange(request, streams).await {
            Ok(verdict) => verdict,
            Err((reason, text)) => {
                self.sender = None;
                Verdict::Failed(reason, text)
            }
        };
        self.outcome(verdict)
    }

    /// The outcome of an exchange that was dropped after `limit`.
    pub(super) fn timed_out(&mut self, limit: Duration) -> Outcome {
        self.sender = None;
        let got = if self.headers.is_some() { "the answer's head came" } else { "nothing came" };
        let text = format!("not answered within {} ms; {got}", limit.as_millis());
        self.outcome(Verdict::Failed(Reason::Timeout, text))
    }

    fn outcome(&mut self, verdict: Verdict) -> Outcome {
        let (headers, head, first_event) =
            (self.headers.take(), self.head.take(), self.first_event.take());
        Outcome { headers, head, verdict, first_event }
    }

    async fn try_exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        streams: bool,
    ) -> Result<Verdict, Failed> {
        let response = self.send(request).await?;
        let status = response.status();
        self.headers = Some(response.headers().clone());
        self.head = Some(Instant::now());
        if !status.is_success() {
            let is_shed = status == StatusCode::SERVICE_UNAVAILABLE
                && response.headers().contains_key(RETRY_AFTER);
            let body = read(response).await?;
            if is_shed {
                return Ok(Verdict::Shed);
            }
            let quote = String::from_utf8_lossy(&body[..body.len().min(QUOTE_BYTES)]).into_owned();
            // The answer is whole, so the connection goes on.
            return Ok(Verdict::Failed(Reason::Status(status.as_u16()), quote));
        }
        if streams {
            self.read_events(response).await?;
        } else {
            let body = read(response).await?;
            serde_json::from_slice::<IgnoredAny>(&body).map_err(|error| {
                (Reason::Json, format!("{} bytes are no JSON: {error}", body.len()))
            })?;
        }
        Ok(Verdict::Ok)
    }

    /// Sends over the kept connection, or a new one where that has been closed meanwhile and none
    /// of the request has left.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        let mut unsent = request;
        if let Some(sender) = self.sender.as_mut().filter(|sender| !sender.is_closed())
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(unsent).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(request) => unsent = request,
                    None => return Err((Reason::Send, describe(&error.into_error()))),
                },
            }
        }
        let sender = self.sender.insert(connect(&self.authority).await?);
        sender.send_request(unsent).await.map_err(|error| (Reason::Send, describe(&error)))
    }

    /// Reads a stream to its end; it has to have said `[DONE]` by then.
    async fn read_events(&mut self, response: Response<Incoming>) -> Result<(), Failed> {
        let mut body = response.into_body();
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let events = lines.events;
                (Reason::Body, format!("broke off after {events} events: {}", describe(&error)))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            lines.take(&data)?;
            if lines.events > 0 && self.first_event.is_none() {
                self.first_event = Some(Instant::now());
            }
        }
        if lines.done {
            return Ok(());
        }
        Err((Reason::NoDone, format!("the stream ended after {} events", lines.events)))
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, Failed> {
    let failed = |error: io::Error| (Reason::Connect, error.to_string());
    let stream = TcpStream::connect(authority).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| (Reason::Connect, describe(&error)))?;
    // It ends with the sender, and its errors are told by the exchange that meets them.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>, Failed> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            (Reason::Body, format!("broke off after {} bytes: {}", bytes.len(), describe(&error)))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err((Reason::TooLong, format!("more than {ANSWER_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// An error with its causes, which hyper keeps apart.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Finds the events of a stream, however its bytes are cut.
#[derive(Debug, Default)]
struct Lines {
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    /// `data:` lines so far.
    events: u64,
    done: bool,
}

impl Lines {
    fn take(&mut self, mut data: &[u8]) -> Result<(), Failed> {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.line(&data[..end]);
            } else {
                self.partial.extend_from_slice(&data[..end]);
                let line = std::mem::take(&mut self.partial);
                self.line(&line);
            }
            data = &data[end + 1..];
        }
        if self.partial.len() + data.len() > ANSWER_BYTES_MAX {
            return Err((Reason::TooLong, format!("a line of over {ANSWER_BYTES_MAX} bytes")));
        }
        self.partial.extend_from_slice(data);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) {
        if let Some(data) = line.strip_prefix(b"data:") {
            self.events += 1;
            self.done |= data.trim_ascii() == b"[DONE]";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let stream = b"data: {\"a\":1}\n\n: a comment\r\ndata: [DONE]\r\n\r\n";
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            for part in [&stream[..cut], &stream[cut..]] {
                lines.take(part).expect("short lines");
            }
            assert_eq!((lines.events, lines.done), (2, true), "cut at {cut}");
        }
    }

    #[test]
    fn done_counts_only_as_an_event_of_its_own() {
        for stream in ["data: {\"text\":\"[DONE]\"}\n\n", "[DONE]\n\n", "data: [DONE]"] {
            let mut lines = Lines::default();
            lines.take(stream.as_bytes()).expect("short lines");
            assert!(!lines.done, "{stream:?}");
        }
    }
}
