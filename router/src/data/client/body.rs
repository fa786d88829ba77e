//! A request's body as its client sends it, over HTTP/1.1 or HTTP/2.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1::Wire;
use crate::data::body::BoxError;

#[derive(Debug)]
pub(in crate::data) enum ClientBody {
    Http1(Rc<RefCell<Wire>>),
    Http2(Incoming),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.get_mut() {
            Self::Http1(wire) => {
                ready!(wire.borrow_mut().poll_frame(cx)).map(|f| f.map_err(Into::into))
            }
            Self::Http2(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|f| f.map_err(Into::into))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(wire) => wire.borrow().reader.has_ended(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(wire) => wire.borrow().reader.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
