//! Taking a request in: its body within bounds, its facts, its route, and what it needs.

use std::{slice, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header, request::Parts};
use http_body::Body;
use http_body_util::BodyExt;
use mrgc_fleet::{
    model::{self, PoolId},
    routing::NoRoute,
    snapshot::Snapshot,
};
use sha2::{Digest, Sha256};

use super::{
    alarm,
    body::{BodyFault, Limited, RequestBody},
    client::ClientBody,
    facts,
    hop::Hop,
    shard::Shard,
};
use crate::{config::Route, problem::Refusal};

/// A request, understood.
#[derive(Debug)]
pub(super) struct Received {
    pub head: Parts,
    pub body: Kept,
    pub facts: model::Request,
    pub route: usize,
    pub hop: Option<Box<Hop>>,
}

/// A request's body: kept, so that it can be sent again, or too long for that.
#[derive(Debug)]
pub(super) enum Kept {
    Whole(Bytes),
    /// Gone once it was sent.
    Streamed {
        body: Option<RequestBody>,
        fault: BodyFault,
    },
}

impl Kept {
    /// The body to send; nothing where it is gone.
    pub fn send(&mut self) -> RequestBody {
        match self {
            Self::Whole(bytes) => RequestBody::whole(bytes.clone()),
            Self::Streamed { body, .. } => body.take().unwrap_or(RequestBody::Whole(None)),
        }
    }

    /// Whether it was sent and cannot be sent again.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Streamed { body: None, .. })
    }

    /// Whether it can be sent more than once.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// What the client did wrong while its body was on its way.
    pub fn fault(&self) -> Option<Refusal> {
        match self {
            Self::Whole(_) => None,
            Self::Streamed { fault, .. } => fault.take(),
        }
    }
}

pub(super) async fn receive(
    shard: &Shard,
    request: Request<ClientBody>,
) -> Result<Received, Refusal> {
    let (mut head, body) = request.into_parts();
    let says_more = has_ours(&head.headers);
    let hop = match says_more {
        true => Hop::read(&head.headers, shard.config().peers.key.as_deref())?.map(Box::new),
        false => None,
    };
    let body = keep(shard, body).await?;
    let (start, whole) = match &body {
        Kept::Whole(bytes) => (bytes.as_ref(), true),
        Kept::Streamed { body: Some(RequestBody::Streamed { start: Some(start), .. }), .. } => {
            (start.as_ref(), false)
        }
        Kept::Streamed { .. } => (&[][..], false),
    };
    let mut facts = match &hop {
        Some(hop) => hop.facts.clone(),
        None => {
            let mut facts = match says_more {
                true => facts::from_headers(&head.headers)?,
                false => model::Request::default(),
            };
            facts::from_body(&mut facts, &head.headers, start, whole)?;
            add_tenant(shard, &head.headers, &mut facts);
            facts
        }
    };
    let route = find_route(shard, head.uri.path(), &facts, hop.as_deref())?;
    facts.needs.add(&shard.table().routes[route].needs);
    forget_private_headers(&mut head.headers);
    Ok(Received { head, body, facts, route, hop })
}

/// Reads the body up to the bound within which it can be kept.
async fn keep(shard: &Shard, mut body: ClientBody) -> Result<Kept, Refusal> {
    let limits = &shard.config().limits;
    let too_large = || Refusal::BodyTooLarge { limit: limits.body_bytes };
    if body.is_end_stream() {
        return Ok(Kept::Whole(Bytes::new()));
    }
    if body.size_hint().lower() > limits.body_bytes {
        return Err(too_large());
    }
    let idle = Duration::from_millis(limits.idle_timeout_ms);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    loop {
        let frame = alarm::within(idle, body.frame())
            .await
            .ok_or(Refusal::BodyTimeout { idle_ms: limits.idle_timeout_ms })?;
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(e)) => return Err(Refusal::BadRequest(format!("the body broke off: {e}"))),
        };
        // The one frame of a short body is kept as it came, without a copy.
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            more.extend_from_slice(&std::mem::take(&mut first));
            more.extend_from_slice(&data);
        }
        let len = first.len() + more.len();
        if len > limits.buffered_body_bytes {
            let left = limits.body_bytes.checked_sub(len as u64).ok_or_else(too_large)?;
            let start = Some(join(first, more));
            let fault = BodyFault::default();
            let rest = Box::new(Limited::new(body, left, limits, fault.clone()));
            let body = Some(RequestBody::Streamed { start, rest });
            return Ok(Kept::Streamed { body, fault });
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(Kept::Whole(join(first, more)))
}

fn join(first: Bytes, more: BytesMut) -> Bytes {
    if more.is_empty() { first } else { more.freeze() }
}

/// A tenant's needs are its requests', whatever they say.
fn add_tenant(shard: &Shard, headers: &HeaderMap, facts: &mut model::Request) {
    if shard.common.tenants.is_empty() {
        return;
    }
    // Whatever an upstream might take for the key counts, or its needs could be shed.
    for key in headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer) {
        let digest = <[u8; 32]>::from(Sha256::digest(key));
        let Some(index) = shard.common.tenants.get(&digest) else { continue };
        let tenant = &shard.config().tenants[*index];
        facts.tenant = Some(tenant.name.clone());
        facts.needs.add(&tenant.needs);
        facts.priority = facts.priority.saturating_add(tenant.priority);
    }
}

/// The key of `Bearer KEY`; a scheme's case means nothing (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, key) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

fn find_route(
    shard: &Shard,
    path: &str,
    facts: &model::Request,
    hop: Option<&Hop>,
) -> Result<usize, Refusal> {
    let routes = &shard.table().routes;
    let named = hop.and_then(|hop| routes.iter().position(|route| route.name == hop.route));
    let model = facts.model.as_deref();
    named
        .or_else(|| routes.iter().position(|r| r.matches.path(path) && r.matches.model(model)))
        .ok_or_else(|| Refusal::NoSuchRoute { path: path.to_owned() })
}

/// The pools to try, in order: the route's own or those that serve the model, then the fallback.
pub(super) fn pools<'a>(
    route: &'a Route,
    model: Option<&str>,
    snapshot: &'a Snapshot,
) -> Result<impl Iterator<Item = &'a PoolId> + use<'a>, Refusal> {
    let pools = match (&route.pool, model) {
        (Some(pool), _) => slice::from_ref(pool),
        (None, Some(model)) => {
            let serving = snapshot.pools_serving(model);
            // Before anything was read of the fleet, no model is known.
            if snapshot.instances.is_empty() {
                return Err(Refusal::NoCapacity { reason: NoRoute::NoneReady });
            }
            if serving.is_empty() && route.fallback.is_none() {
                return Err(Refusal::UnknownModel { model: model.to_owned() });
            }
            serving
        }
        (None, None) => {
            let mut all = snapshot.pools();
            let only = all.next().map_or(&[][..], slice::from_ref);
            if all.next().is_some() {
                let names: Vec<_> = snapshot.pools().map(PoolId::as_str).collect();
                return Err(Refusal::NoModel { pools: names.join(", ") });
            }
            only
        }
    };
    let fallback = route.fallback.iter().filter(|pool| !pools.contains(pool));
    Ok(pools.iter().chain(fallback))
}

/// Removes what is between this hop and the last one, or between client and router.
fn forget_private_headers(headers: &mut HeaderMap) {
    forget(headers, |name| is_of_one_hop(name) || *name == header::EXPECT || is_ours(name));
}

/// Removes every header of our own.
pub(super) fn forget_ours(headers: &mut HeaderMap) {
    forget(headers, is_ours);
}

/// Removes what concerns one connection only (RFC 9110, section 7.6.1).
pub(super) fn forget_hop_headers(headers: &mut HeaderMap) {
    forget(headers, is_of_one_hop);
}

/// Whether a client or a peer says more in its headers than HTTP asks for.
fn has_ours(headers: &HeaderMap) -> bool {
    headers.keys().any(is_ours)
}

fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-mrgc-")
}

fn is_of_one_hop(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 5] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
    ];
    NAMES.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// One pass where there is nothing to remove, which is nearly always.
fn forget(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| unwanted(name)).cloned() {
        // What the header Connection names concerns this connection, too.
        if name == header::CONNECTION {
            let named: Vec<_> = headers.get_all(&name).iter().cloned().collect();
            let named = named.iter().filter_map(|value| value.to_str().ok());
            for name in named.flat_map(|names| names.split(',')) {
                headers.remove(name.trim());
            }
        }
        headers.remove(name);
    }
}
