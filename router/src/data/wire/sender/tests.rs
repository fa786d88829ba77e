use std::{collections::VecDeque, future::poll_fn};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::*;

/// A body of these parts, `None` for one that breaks off there. It never knows that it is at its end.
struct Parts(VecDeque<Option<Bytes>>);

impl Parts {
    fn of(lengths: &[usize]) -> Self {
        Self(lengths.iter().map(|length| Some(vec![b'x'; *length].into())).collect())
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let part = self.0.pop_front();
        Poll::Ready(part.map(|part| part.map(Frame::data).ok_or_else(|| "broken off".into())))
    }
}

async fn pair() -> (Sender<Parts>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (_reader, writer) = near.unwrap().into_split();
    (Sender::new(writer), far.unwrap().0)
}

/// What arrives of a message with this body, and whether the sender is fit for another one.
async fn sent(body: Parts, is_chunked: bool) -> (Vec<u8>, bool) {
    let (mut sender, mut far) = pair().await;
    sender.begin(|out| out.extend_from_slice(b"head\r\n\r\n"), body, is_chunked);
    let write = async {
        let _ = poll_fn(|cx| sender.poll(cx)).await;
        let is_idle = sender.is_idle();
        drop(sender);
        is_idle
    };
    let mut arrived = Vec::new();
    let (is_idle, read) = tokio::join!(write, far.read_to_end(&mut arrived));
    read.unwrap();
    (arrived, is_idle)
}

fn chunks(lengths: &[usize]) -> String {
    let chunk = |length: &usize| format!("{length:x}\r\n{}\r\n", "x".repeat(*length));
    lengths.iter().map(chunk).collect()
}

#[tokio::test]
async fn parts_arrive_in_their_order_whether_they_are_copied_or_not() {
    let long = COPIED_BYTES + 1;
    for lengths in [&[][..], &[1], &[3, 5], &[long], &[2, long], &[long, 2], &[long, 8 * long, 1]] {
        let (plain, is_idle) = sent(Parts::of(lengths), false).await;
        assert_eq!(plain.len(), 8 + lengths.iter().sum::<usize>(), "{lengths:?}");
        assert!(is_idle && plain.starts_with(b"head\r\n\r\n"));
        let (chunked, is_idle) = sent(Parts::of(lengths), true).await;
        let expected = format!("head\r\n\r\n{}0\r\n\r\n", chunks(lengths));
        assert!(is_idle && chunked == expected.into_bytes(), "{lengths:?}");
    }
}

#[tokio::test]
async fn what_came_before_a_body_broke_off_is_not_ended() {
    let mut body = Parts::of(&[3]);
    body.0.push_back(None);
    let (arrived, is_idle) = sent(body, true).await;
    assert!(!is_idle);
    assert!(!arrived.ends_with(b"0\r\n\r\n"), "{arrived:?}");
}

#[tokio::test]
async fn a_reader_that_lags_holds_the_body_back() {
    let (mut sender, far) = pair().await;
    let part = COPIED_BYTES / 2;
    sender.begin(|_| {}, Parts::of(&[part; 4096]), false);
    // The socket is full soon, and whoever polls on adds no more to what waits.
    for _ in 0..64 {
        let polled = poll_fn(|cx| Poll::Ready(sender.poll(cx))).await;
        assert!(polled.is_pending());
    }
    assert!(sender.out.len() - sender.written <= COPIED_BYTES + part);
    drop(far);
}
