//! What stands before an engine and speaks for it when told to: answers some requests with an error of the
//! service, and hands the others on.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A status line's end and an error's code, as in `("400 Bad Request", "ThrottlingException")`.
pub(crate) type Refusal = (&'static str, &'static str);

pub(crate) const THROTTLED: Refusal = ("400 Bad Request", "ThrottlingException");
pub(crate) const EXPIRED: Refusal = ("400 Bad Request", "ExpiredTokenException");
pub(crate) const DENIED: Refusal = ("400 Bad Request", "AccessDeniedException");

type Judge = dyn Fn(&str) -> Option<Refusal> + Send + Sync;

/// Speaks HTTP on a free port until the test ends.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// `judge` is given the access key of each request and says whether it is refused.
    pub(crate) async fn before(
        engine: SocketAddr,
        judge: impl Fn(&str) -> Option<Refusal> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keys = Arc::new(Mutex::new(Vec::new()));
        let (judge, seen): (Arc<Judge>, _) = (Arc::new(judge), Arc::clone(&keys));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, engine, Arc::clone(&judge), Arc::clone(&seen)));
            }
        });
        Self { address, keys }
    }

    /// The access keys of the requests so far.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }
}

/// Until the client goes or the engine does.
async fn serve(
    mut client: TcpStream,
    engine: SocketAddr,
    judge: Arc<Judge>,
    keys: Arc<Mutex<Vec<String>>>,
) {
    let Ok(mut upstream) = TcpStream::connect(engine).await else { return };
    while let Some(request) = read_message(&mut client).await {
        let key = access_key(&request);
        keys.lock().unwrap().push(key.clone());
        let answer = if let Some((status, code)) = judge(&key) {
            let body = format!(r#"{{"__type":"x#{code}","message":"as the test says"}}"#);
            let length = body.len();
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.0\r\n\
                 content-length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        } else {
            upstream.write_all(&request).await.unwrap();
            let Some(answer) = read_message(&mut upstream).await else { return };
            answer
        };
        if client.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// A head and as much body as it says; `None` where the other side is done.
async fn read_message(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        if from.read_buf(&mut message).await.ok()? == 0 {
            return None;
        }
        let Some(end) = message.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
        if message.len() >= end + 4 + length {
            return Some(message);
        }
    }
}

/// Of the signature, `Credential=KEY/date/…`.
fn access_key(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let credential = text.split_once("Credential=").expect("a signed request").1;
    credential.split('/').next().unwrap_or_default().to_owned()
}
