//! An instance metadata service that speaks version 2, on a free port.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::support::Setup;

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const MAC: &str = "0e:49:61:0f:c3:11";

pub(crate) const SPOT: &str = "/latest/meta-data/spot/instance-action";
pub(crate) const TARGET: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
pub(crate) const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
pub(crate) const MAINTENANCE: &str = "/latest/meta-data/events/maintenance/scheduled";
pub(crate) const GROUP: &str = "/latest/meta-data/tags/instance/aws:autoscaling:groupName";

#[derive(Default)]
struct Inner {
    pages: BTreeMap<String, String>,
    /// Requests that are throttled before one is answered.
    throttled: u32,
    /// Tokens that were given, and how many of them have ended: as EC2's, one does not end another.
    tokens: u32,
    ended: u32,
    asked: Vec<String>,
}

pub(crate) struct Imds {
    pub(crate) address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    serving: JoinHandle<()>,
}

impl Imds {
    /// That of a spot instance, of which nothing is announced.
    pub(crate) async fn start() -> Self {
        let document = json!({
            "instanceId": "i-0abc", "region": "us-east-1", "availabilityZone": "us-east-1b",
            "privateIp": "127.0.0.1", "instanceType": "p5.48xlarge", "imageId": "ami-0abc",
            "accountId": "123456789012",
        });
        let interface = format!("/latest/meta-data/network/interfaces/macs/{MAC}");
        let pages = [
            ("/latest/dynamic/instance-identity/document".to_owned(), document.to_string()),
            ("/latest/meta-data/instance-life-cycle".to_owned(), "spot".to_owned()),
            ("/latest/meta-data/mac".to_owned(), MAC.to_owned()),
            (format!("{interface}/subnet-id"), "subnet-0abc".to_owned()),
            (format!("{interface}/subnet-ipv4-cidr-block"), "127.0.0.0/23".to_owned()),
        ];
        let inner = Arc::new(Mutex::new(Inner { pages: pages.into(), ..Inner::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let serving = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, inner, serving }
    }

    pub(crate) fn set(&self, path: &str, page: &str) {
        self.inner.lock().unwrap().pages.insert(path.to_owned(), page.to_owned());
    }

    pub(crate) fn remove(&self, path: &str) {
        self.inner.lock().unwrap().pages.remove(path);
    }

    /// The tokens that were given end now.
    pub(crate) fn end_token(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.ended = inner.tokens;
    }

    pub(crate) fn throttle(&self, requests: u32) {
        self.inner.lock().unwrap().throttled = requests;
    }

    /// How often a page was asked for, with whatever answer.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.inner.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }

    pub(crate) fn asked_at_all(&self) -> usize {
        self.inner.lock().unwrap().asked.len()
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Setup {
    /// On EC2: who this instance is comes from there, and notices are asked for often.
    pub(crate) fn ec2(self, imds: &Imds) -> Self {
        self.without_identity().with(&[
            ("MRGC_AGENT__IDENTITY__ENDPOINT", &format!("http://{}/", imds.address)),
            ("MRGC_AGENT__INSTANCE__PORT", "8000"),
            ("MRGC_AGENT__NOTICES__INTERVAL_MS", "100"),
        ])
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let mut inner = inner.lock().unwrap();
    let path = uri.path().to_owned();
    inner.asked.push(path.clone());
    if inner.throttled > 0 {
        inner.throttled -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let ttl = headers.get(TTL).and_then(|ttl| ttl.to_str().ok()?.parse::<u32>().ok());
    match (method, path.as_str()) {
        (Method::PUT, TOKEN_PATH) => match ttl {
            Some(ttl @ 1..=21_600) => {
                inner.tokens += 1;
                ([(TTL, ttl.to_string())], format!("token-{}", inner.tokens)).into_response()
            }
            _ => StatusCode::BAD_REQUEST.into_response(),
        },
        (Method::GET, path) => {
            let token = headers.get(TOKEN).and_then(|token| token.to_str().ok());
            let number = token.and_then(|token| token.strip_prefix("token-")?.parse::<u32>().ok());
            if !number.is_some_and(|n| n > inner.ended && n <= inner.tokens) {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            let page = inner.pages.get(path).cloned();
            page.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}
