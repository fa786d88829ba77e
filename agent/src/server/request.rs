//! What requests that bring something have in common: where they may come from, and how long their bodies are.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::time;

use super::problem;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What these routes do is done for whoever is on this machine, and for nobody else. `own_ip` is where the agent
/// listens.
pub(super) fn from_here<S: Clone + Send + Sync + 'static>(
    own_ip: Option<IpAddr>,
    routes: Router<S>,
) -> Router<S> {
    routes.route_layer(middleware::from_fn_with_state(own_ip, refuse_others))
}

async fn refuse_others(
    State(own_ip): State<Option<IpAddr>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if !is_here(peer.ip(), own_ip) {
        let path = request.uri().path();
        let detail = format!("{path} is for programs on this machine, and {peer} is another");
        return problem(StatusCode::FORBIDDEN, &detail);
    }
    next.run(request).await
}

/// Who comes from the only address that the agent listens on is on this machine, too: there is no other way in.
fn is_here(peer: IpAddr, own: Option<IpAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || own.is_some_and(|own| own.to_canonical() == peer)
}

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum BodyError {
    TooLong { max_bytes: usize },
    TooSlow,
}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        match self {
            Self::TooLong { max_bytes } => {
                let detail = format!(
                    "a body of at most {max_bytes} bytes is taken: this is longer, or broke off"
                );
                problem(StatusCode::PAYLOAD_TOO_LARGE, &detail)
            }
            Self::TooSlow => {
                let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
                problem(StatusCode::REQUEST_TIMEOUT, &detail)
            }
        }
    }
}

/// All of a body.
pub(super) async fn read(body: Body, max_bytes: usize) -> Result<Bytes, BodyError> {
    match time::timeout(BODY_TIMEOUT, to_bytes(body, max_bytes)).await {
        Ok(read) => read.map_err(|_| BodyError::TooLong { max_bytes }),
        Err(_) => Err(BodyError::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_from_others() {
        for (peer, own, expected) in [
            ("127.0.0.1", None, true),
            ("127.8.8.8", None, true),
            ("::1", None, true),
            ("::ffff:127.0.0.1", None, true),
            ("10.0.0.5", None, false),
            ("::ffff:10.0.0.5", None, false),
            ("fe80::1", None, false),
            ("10.0.0.5", Some("10.0.0.5"), true),
            ("::ffff:10.0.0.5", Some("10.0.0.5"), true),
            ("10.0.0.6", Some("10.0.0.5"), false),
            ("10.0.0.5", Some("0.0.0.0"), false),
        ] {
            let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(is_here(parse(peer), own.map(parse)), expected, "{peer} at {own:?}");
        }
    }
}
