//! A connection to an upstream: HTTP/1.1, one request at a time.
//!
//! It has no task of its own: whoever waits for its response, or for the response's body, reads and writes.
//! That saves each request the channels and wake-ups between two tasks. Only a request that is still being
//! sent when its response begins gets a task, since the client may read nothing before it has sent all.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tokio::{net::TcpStream, task::JoinHandle};

use super::head::{self, BodyLength, Head};
use crate::data::{
    body::RequestBody,
    wire::{Reader, Sender, WireError},
};

/// A longer head is refused.
const MAX_HEAD_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(in crate::data) struct Connection {
    address: Rc<str>,
    reader: Reader,
    /// `None` where the task has it.
    sender: Option<Sender<RequestBody>>,
    task: Option<Task>,
    /// Of the request.
    method: Method,
    /// Whether an informational response came.
    was_announced: bool,
    /// Whether the upstream leaves it open after this response.
    is_kept: bool,
}

/// What sends the rest of a request. It ends with the connection, and holds the sender until then: dropped
/// earlier, that would close the connection.
#[derive(Debug)]
struct Task(JoinHandle<Sender<RequestBody>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    pub fn new(address: Rc<str>, stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            address,
            reader: Reader::new(reader),
            sender: Some(Sender::new(writer)),
            task: None,
            method: Method::GET,
            was_announced: false,
            is_kept: true,
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &Rc<str> {
        &self.address
    }

    /// Whether one request was sent and its response read, and another can follow.
    pub fn is_free(&self) -> bool {
        let is_sent = self.sender.as_ref().is_some_and(Sender::is_idle);
        is_sent && self.is_kept && self.has_ended()
    }

    /// Whether nothing has come since, not even its end.
    pub fn is_quiet(&self) -> bool {
        self.reader.is_quiet()
    }

    /// Takes a request, with headers added, for [`Connection::poll_head`] to send.
    pub fn begin(&mut self, head: &Parts, added: &HeaderMap, body: RequestBody) {
        let length = body.size_hint().exact().map_or(BodyLength::Unknown, BodyLength::Known);
        if let Some(sender) = &mut self.sender {
            let is_chunked = length == BodyLength::Unknown;
            sender.begin(|out| head::write(out, head, added, length), body, is_chunked);
        }
        self.method.clone_from(&head.method);
        self.was_announced = false;
    }

    /// Sends the request, and waits for the head of its response.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, WireError>> {
        if let Some(sender) = &mut self.sender
            && let Poll::Ready(Err(error)) = sender.poll(cx)
        {
            return Poll::Ready(Err(WireError::Body(error)));
        }
        let head = ready!(self.poll_read_head(cx));
        let Some(sender) = self.sender.as_mut().filter(|sender| !sender.is_idle()) else {
            return Poll::Ready(head);
        };
        match (&head, sender.failure()) {
            // It took not even the request.
            (Err(WireError::Closed), Some(error)) => return Poll::Ready(Err(error.into())),
            (Ok(_), None) => self.send_in_a_task(),
            (_, failure) => self.is_kept &= failure.is_none(),
        }
        Poll::Ready(head)
    }

    fn send_in_a_task(&mut self) {
        let Some(mut sender) = self.sender.take() else { return };
        self.task = Some(Task(tokio::task::spawn_local(async move {
            // The client's doing shows on its own connection.
            let _ = poll_fn(|cx| sender.poll(cx)).await;
            sender
        })));
    }

    fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, WireError>> {
        loop {
            let mut bytes = match ready!(self.reader.poll_head(cx, MAX_HEAD_BYTES)) {
                // It did answer.
                Err(WireError::Closed | WireError::Io(_)) if self.was_announced => {
                    return Poll::Ready(Err(WireError::CutOff));
                }
                bytes => bytes?,
            };
            let Head { response, framing, is_kept, len } = head::read(&bytes, &self.method)?;
            self.reader.begin_body(bytes.split_off(len), framing);
            // An informational one announces another, which is the answer (RFC 9110, section 15.2).
            if !response.status().is_informational() {
                self.is_kept = is_kept;
                return Poll::Ready(Ok(response));
            }
            self.was_announced = true;
        }
    }

    /// The next part of the response's body.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        self.reader.poll_frame(cx)
    }

    /// The rest of the response's body, where all of it was read already.
    pub fn take_rest(&mut self) -> Option<Bytes> {
        self.reader.take_rest()
    }

    /// Whether the whole response was passed on. What is left of the request is of no use then.
    pub fn has_ended(&self) -> bool {
        self.reader.has_ended()
    }

    /// How much of the response's body is still to come.
    pub fn size_hint(&self) -> SizeHint {
        self.reader.size_hint()
    }
}
