//! A request's way, from its first byte to the end of its response.

use std::{
    future::poll_fn,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use mrgc_fleet::{
    guard,
    model::{PoolId, RegionId},
    routing::{MAX_ATTEMPTS, NoRoute},
    snapshot::Level,
};

use super::{
    alarm,
    body::{Idle, ResponseBody},
    client::ClientBody,
    decision::DecisionId,
    exchange::Exchange,
    hop::Hop,
    receive::{self, Received},
    shard::{Choice, Fleet, InFlight, Place, Shard},
    stats::Stats,
    upstream::{self, Connection, SendError},
    wire::WireError,
};
use crate::{
    flight::label,
    problem::{Failure, NO_CAPACITY, Refusal},
};

const INSTANCE: HeaderName = HeaderName::from_static("x-mrgc-instance");
const REGION: HeaderName = HeaderName::from_static("x-mrgc-region");
const DECISION: HeaderName = HeaderName::from_static("x-mrgc-decision");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-mrgc-attempts");
const POLICIES: HeaderName = HeaderName::from_static("x-mrgc-policies");

/// Serves one request. What goes wrong is a response, too.
pub(super) async fn serve(
    shard: Rc<Shard>,
    request: Request<ClientBody>,
) -> Response<ResponseBody> {
    let started = alarm::request();
    if request.method() == Method::GET && request.uri().path() == "/health" {
        return shard.common.health.response().map(ResponseBody::from);
    }
    Stats::count(&shard.stats.requests);
    let mut client = Client { stats: &shard.stats, answered: false };
    let (answer, decision) = match receive::receive(&shard, request).await {
        Ok(received) => {
            let mut journey = Journey::new(&shard, received, started);
            let answer = journey.run().await;
            (answer, journey.decision)
        }
        Err(refusal) => (Err(refusal), shard.next_decision()),
    };
    client.answered = true;
    finish(&shard, answer, decision, started)
}

/// A client that waits for its answer's head. Dropped before that, it went away.
struct Client<'a> {
    stats: &'a Stats,
    answered: bool,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if !self.answered {
            Stats::count(&self.stats.client_gone);
        }
    }
}

/// The one place where a request's answer leaves: marked and counted.
fn finish(
    shard: &Shard,
    answer: Result<Response<ResponseBody>, Refusal>,
    decision: DecisionId,
    started: Instant,
) -> Response<ResponseBody> {
    let mut response = answer.unwrap_or_else(|refusal| {
        tracing::debug!(%decision, kind = refusal.kind(), "refused: {refusal}");
        refusal.response().map(ResponseBody::from)
    });
    if let Some(decision) = decision.header() {
        response.headers_mut().insert(DECISION, decision);
    }
    shard.stats.answered(response.status(), started.elapsed().as_micros() as u64);
    response
}

/// Where a request stands.
struct Journey<'a> {
    shard: &'a Rc<Shard>,
    received: Received,
    decision: DecisionId,
    started: Instant,
    deadline: Instant,
    deadline_ms: u64,
    attempts_left: usize,
    attempts: usize,
    /// Regions that cannot be tried any more; with a hop's, those before us.
    regions_tried: Vec<RegionId>,
    /// What the last failed attempt said.
    last: Option<(Failure, String)>,
    /// Why a decision found no candidate.
    no_route: NoRoute,
}

/// What came of an attempt, or of all in one region: an answer, or nothing that reached the client, so that
/// the next may be tried.
type Step = Option<Response<ResponseBody>>;

impl<'a> Journey<'a> {
    fn new(shard: &'a Rc<Shard>, received: Received, started: Instant) -> Self {
        let limits = &shard.config().limits;
        let route = &shard.table().routes[received.route];
        let hop = received.hop.as_deref();
        let asked_ms = hop.map(|h| h.deadline_ms).or(received.facts.deadline_ms.map(u64::from));
        let deadline_ms = asked_ms.unwrap_or(u64::MAX).min(limits.deadline_ms);
        let most = route.attempts.unwrap_or(limits.attempts);
        Self {
            shard,
            decision: hop.map_or_else(|| shard.next_decision(), |h| h.decision),
            started,
            deadline: started + Duration::from_millis(deadline_ms),
            deadline_ms,
            attempts_left: hop.map_or(most, |h| h.attempts_left.min(most)),
            attempts: 0,
            regions_tried: hop.map(|h| h.regions_tried.clone()).unwrap_or_default(),
            last: None,
            no_route: NoRoute::NoneReady,
            received,
        }
    }

    async fn run(&mut self) -> Result<Response<ResponseBody>, Refusal> {
        if self.regions_tried.contains(self.home()) {
            return Err(Refusal::Loop);
        }
        let (shard, fleet) = (self.shard, self.shard.fleet());
        let route = &shard.table().routes[self.received.route];
        let model = self.received.facts.model.as_deref();
        for pool in receive::pools(route, model, &fleet.snapshot)? {
            let step = match self.received.hop {
                // Whoever forwarded it to us chose this region, and goes on to the next one by itself.
                Some(_) => self.try_instances(pool).await,
                None => self.try_regions(pool).await,
            };
            if let Some(response) = step {
                return Ok(response);
            }
            if self.is_spent() {
                break;
            }
        }
        Err(self.refusal())
    }

    /// Regions that have the pool, best first.
    async fn try_regions(&mut self, pool: &PoolId) -> Step {
        let fleet = self.shard.fleet();
        let choice = match self.decide(&fleet, Level::Region, pool) {
            Ok(choice) => choice,
            Err(reason) => return self.no_route(reason),
        };
        for place in choice.places() {
            let region = &place.candidate.region;
            let step = if region == self.home() {
                self.try_instances(pool).await
            } else {
                // Boxed, for it is rare: its room is then not every request's.
                Box::pin(self.try_peer(place)).await
            };
            if step.is_some() || self.is_spent() {
                return step;
            }
            self.regions_tried.push(region.clone());
        }
        None
    }

    /// Instances of the pool in this region, best first.
    async fn try_instances(&mut self, pool: &PoolId) -> Step {
        let fleet = self.shard.fleet();
        let choice = match self.decide(&fleet, Level::Instance, pool) {
            Ok(choice) => choice,
            Err(reason) => return self.no_route(reason),
        };
        for place in choice.places() {
            let instance = place.candidate;
            match self.attempt(&instance.address, place, &HeaderMap::new()).await {
                Some((mut response, mut exchange)) => {
                    receive::forget_ours(response.headers_mut());
                    if self.is_worth_retrying(response.status(), &instance.id) {
                        exchange.discard();
                        continue;
                    }
                    self.mark(response.headers_mut(), &instance.id, &choice.label);
                    let (meter, status) = (&self.shard.meter, response.status());
                    exchange.measure(meter.answered(choice.view, self.started, status));
                    return Some(self.pass_on(response, exchange));
                }
                None if self.is_spent() => return None,
                None => {}
            }
        }
        None
    }

    fn decide<'f>(
        &self,
        fleet: &'f Fleet,
        level: Level,
        pool: &PoolId,
    ) -> Result<Choice<'f>, NoRoute> {
        let attempts = match level {
            Level::Region => MAX_ATTEMPTS,
            Level::Instance => self.attempts_left,
        };
        let (route, facts) = (self.received.route, &self.received.facts);
        let decided = self.shard.decide(fleet, route, level, pool, facts, attempts);
        decided.unwrap_or(Err(NoRoute::NoneReady))
    }

    fn home(&self) -> &RegionId {
        &self.shard.common.home
    }

    /// Another region, through its router.
    async fn try_peer(&mut self, place: Place<'_>) -> Step {
        let (region, endpoint) = (&place.candidate.region, &place.candidate.address);
        let Some(key) = self.shard.config().peers.key.clone() else {
            return self.failed(format!("{region} cannot be reached: no [peers] key is set"));
        };
        let Some(address) = upstream::address_of(endpoint) else {
            return self.failed(format!("{region}: `{endpoint}` is not an http:// URL"));
        };
        let mut regions_tried = self.regions_tried.clone();
        regions_tried.push(self.home().clone());
        let hop = Hop {
            facts: self.received.facts.clone(),
            route: self.shard.table().routes[self.received.route].name.clone(),
            attempts_left: self.attempts_left,
            deadline_ms: self.deadline_ms.min(self.left().as_millis() as u64),
            regions_tried,
            decision: self.decision,
        };
        let mut headers = HeaderMap::new();
        if !hop.write(&mut headers, &key) {
            return self.failed(format!("{region}: the request's facts do not fit in a header"));
        }
        Stats::count(&self.shard.stats.forwarded_to_peers);
        let (mut response, mut exchange) = self.attempt(&address, place, &headers).await?;
        let status = response.status();
        let headers = response.headers_mut();
        if headers.contains_key(NO_CAPACITY) {
            exchange.discard();
            // It was asked, and nothing was attempted.
            self.attempts -= 1;
            self.attempts_left += 1;
            return self.no_route(NoRoute::NoneReady);
        }
        let is_refused = matches!(status, StatusCode::FORBIDDEN | StatusCode::LOOP_DETECTED);
        if is_refused && !headers.contains_key(INSTANCE) {
            // The router there, not an instance behind it: it is between the two of us.
            exchange.discard();
            return self.failed(format!("the router of {region} refused: {status}"));
        }
        let theirs = headers.get(ATTEMPTS).and_then(|v| v.to_str().ok()?.parse().ok());
        self.attempts += theirs.unwrap_or(1usize).saturating_sub(1);
        headers.insert(ATTEMPTS, self.attempts.into());
        Some(self.pass_on(response, exchange))
    }

    /// One attempt, with headers added: counted in flight from here to the end of its response's body.
    async fn attempt(
        &mut self,
        address: &str,
        place: Place<'_>,
        added: &HeaderMap,
    ) -> Option<(Response<()>, Exchange)> {
        if self.received.body.is_gone() {
            self.attempts_left = 0;
            return None;
        }
        if self.attempts > 0 {
            Stats::count(&self.shard.stats.retries);
        }
        self.attempts += 1;
        self.attempts_left -= 1;
        let facts = &self.received.facts;
        let tokens =
            u64::from(facts.prompt_tokens.unwrap_or(0)) + u64::from(facts.max_tokens.unwrap_or(0));
        let in_flight = InFlight::new(place, tokens);
        match self.send(address, added).await {
            Ok((response, connection)) => {
                place.slot.forgive();
                Some((response, Exchange::new(self.shard.clone(), connection, in_flight)))
            }
            Err(error) => {
                let how = match error {
                    SendError::Timeout { .. } => Failure::TimedOut,
                    _ => Failure::Broken,
                };
                self.last = Some((how, error.to_string()));
                tracing::info!(decision = %self.decision, "attempt failed: {error}");
                if let SendError::Connect { .. } = error {
                    Stats::count(&self.shard.stats.connect_failures);
                    Stats::count(&self.shard.stats.ejections);
                    place.slot.eject(self.shard.common.clock.now_ms());
                }
                None
            }
        }
    }

    /// Sends the request over a kept connection or a new one, and waits for the head of its response. A
    /// server may close a kept one in the moment it is used, which says nothing of the server: the request
    /// is then sent again over a new one. One that cannot be sent again is not risked on a kept one.
    async fn send(
        &mut self,
        address: &str,
        added: &HeaderMap,
    ) -> Result<(Response<()>, Box<Connection>), SendError> {
        let (idle, limits) = (&self.shard.idle, &self.shard.config().limits);
        let first_byte = Duration::from_millis(limits.first_byte_timeout_ms);
        let mut kept = self.received.body.is_kept();
        loop {
            let timeout = limits.connect_timeout();
            let (mut connection, was_kept) =
                upstream::connection(idle, address, timeout, kept).await?;
            connection.begin(&self.received.head, added, self.received.body.send());
            let limit = first_byte.min(self.left());
            let head = poll_fn(|cx| connection.poll_head(cx));
            let address = || address.to_owned();
            match alarm::within(limit, head).await {
                Some(Ok(response)) => return Ok((response, connection)),
                Some(Err(WireError::Closed | WireError::Io(_))) if was_kept => kept = false,
                Some(Err(error)) => return Err(SendError::Broken { address: address(), error }),
                None => {
                    let ms = limit.as_millis() as u64;
                    return Err(SendError::Timeout { address: address(), ms });
                }
            }
        }
    }

    /// An instance that is itself behind a failing gateway, or sheds load, is not the last word while
    /// attempts are left.
    fn is_worth_retrying(&mut self, status: StatusCode, instance: &str) -> bool {
        let how = match status {
            StatusCode::BAD_GATEWAY => Failure::Broken,
            StatusCode::SERVICE_UNAVAILABLE => Failure::Full,
            StatusCode::GATEWAY_TIMEOUT => Failure::TimedOut,
            _ => return false,
        };
        self.last = Some((how, format!("{instance} answered {status}")));
        !self.is_spent()
    }

    fn pass_on(
        &self,
        mut response: Response<()>,
        mut exchange: Exchange,
    ) -> Response<ResponseBody> {
        receive::forget_hop_headers(response.headers_mut());
        if let Some(whole) = exchange.take_rest() {
            return response.map(|()| ResponseBody::from(whole));
        }
        let idle = Duration::from_millis(self.shard.config().limits.idle_timeout_ms);
        response.map(|()| ResponseBody::upstream(exchange, Idle::new(idle)))
    }

    fn mark(&self, headers: &mut HeaderMap, instance: &str, policies: &HeaderValue) {
        headers.insert(INSTANCE, label(instance));
        headers.insert(REGION, self.shard.common.home_label.clone());
        headers.insert(ATTEMPTS, self.attempts.into());
        headers.insert(POLICIES, policies.clone());
    }

    fn no_route(&mut self, reason: NoRoute) -> Step {
        self.no_route = reason;
        None
    }

    fn failed(&mut self, why: String) -> Step {
        self.last = Some((Failure::Broken, why));
        None
    }

    /// By the clock that rings: an attempt that ran into the deadline leaves nothing.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(alarm::now())
    }

    fn is_spent(&self) -> bool {
        self.attempts_left == 0 || self.left().is_zero()
    }

    /// Why the request ends here unserved.
    fn refusal(&mut self) -> Refusal {
        let facts = &self.received.facts;
        if let Some(fault) = self.received.body.fault() {
            return fault;
        }
        if self.left().is_zero() {
            let last = self.last.take().map_or_else(|| "none was made".into(), |(_, last)| last);
            return Refusal::Deadline { ms: self.deadline_ms, last };
        }
        if let Some((how, last)) = self.last.take() {
            return Refusal::AllFailed { last, how };
        }
        let fleet = self.shard.fleet();
        let rules = &self.shard.config().placement;
        if !facts.needs.is_empty() && !guard::could_comply(&facts.needs, rules, &fleet.snapshot) {
            return Refusal::CannotComply { needs: describe(&facts.needs) };
        }
        Refusal::NoCapacity { reason: self.no_route.clone() }
    }
}

fn describe(needs: &mrgc_fleet::model::Needs) -> String {
    serde_json::to_string(needs).unwrap_or_default()
}
