//! A request's way, from its first byte to the end of its response.

mod attempt;
mod regions;

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use mrgc_fleet::{
    guard,
    model::{PoolId, RegionId},
    routing::{MAX_ATTEMPTS, NoRoute, Trail},
    snapshot::Level,
};

use super::{
    alarm,
    body::{Idle, ResponseBody},
    client::ClientBody,
    decision::DecisionId,
    exchange::Exchange,
    receive::{self, Received},
    shard::{Choice, Fleet, Place, Shard, Wanted},
    stats::Stats,
};
use crate::{
    flight::label,
    problem::{Failure, Refusal},
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
    let (answer, decision, attempts) = match receive::receive(&shard, request).await {
        Ok(received) => {
            let mut journey = Journey::new(&shard, received, started);
            let answer = journey.run().await;
            (answer, journey.decision, journey.trail.attempts())
        }
        Err(refusal) => (Err(refusal), shard.next_decision(), 0),
    };
    client.answered = true;
    let response = answer.unwrap_or_else(|refusal| refuse(&refusal, decision, attempts));
    finish(&shard, response, decision, started)
}

/// A refusal says how many attempts it took, too: another region's router counts them.
fn refuse(refusal: &Refusal, decision: DecisionId, attempts: usize) -> Response<ResponseBody> {
    tracing::debug!(%decision, kind = refusal.kind(), "refused: {refusal}");
    let mut response = refusal.response().map(ResponseBody::from);
    if attempts > 0 {
        response.headers_mut().insert(ATTEMPTS, attempts.into());
    }
    response
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
    mut response: Response<ResponseBody>,
    decision: DecisionId,
    started: Instant,
) -> Response<ResponseBody> {
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
    trail: Trail,
    /// What the last failed attempt said.
    last: Option<(Failure, String)>,
    /// Why a decision found no candidate.
    no_route: NoRoute,
    /// There are regions that could take it, and none has room.
    is_shed: bool,
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
        let attempts = hop.map_or(most, |h| h.attempts_left.min(most));
        let regions_tried = hop.map(|h| h.regions_tried.clone()).unwrap_or_default();
        Self {
            shard,
            decision: hop.map_or_else(|| shard.next_decision(), |h| h.decision),
            started,
            deadline: started + Duration::from_millis(deadline_ms),
            deadline_ms,
            trail: Trail::new(attempts, regions_tried),
            last: None,
            no_route: NoRoute::NoneReady,
            is_shed: false,
            received,
        }
    }

    async fn run(&mut self) -> Result<Response<ResponseBody>, Refusal> {
        if self.trail.regions_tried().contains(self.home()) {
            return Err(Refusal::Loop);
        }
        let (shard, fleet) = (self.shard, self.shard.fleet());
        let route = &shard.table().routes[self.received.route];
        let model = self.received.facts.model.as_deref();
        let pools = receive::pools(route, model, &fleet.snapshot).map_err(|refusal| {
            // Whoever forwarded it knows who serves the model here: this router does not know it yet.
            let reason = NoRoute::NoneServes;
            if self.received.hop.is_some() { Refusal::NoCapacity { reason } } else { refusal }
        })?;
        for pool in pools {
            let step = match &self.received.hop {
                Some(hop) if hop.moved && !self.has_room(&fleet, pool) => self.shed(),
                // Whoever forwarded it to us chose this region, and goes on to the next one by itself.
                Some(hop) => self.try_instances(pool, !hop.elsewhere).await,
                None if shard.is_settled(&fleet, self.received.route, pool) => {
                    self.try_instances(pool, true).await
                }
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

    /// Instances of the pool in this region, best first. Where none is eligible, evidence is set aside if
    /// `may_panic`.
    async fn try_instances(&mut self, pool: &PoolId, may_panic: bool) -> Step {
        loop {
            let (fleet, begun) = (self.shard.fleet(), self.trail.attempts());
            let choice = match self.decide(&fleet, Level::Instance, pool, may_panic) {
                Ok(choice) => choice,
                Err(reason) => return self.no_route(reason),
            };
            let mut cursor = 0;
            while let Some(place) = self.next(&choice, &mut cursor) {
                if let Some(response) = self.try_instance(place, &choice).await {
                    return Some(response);
                }
                // Who drains by now is tried no more, however the order was.
                if !Rc::ptr_eq(&fleet, &self.shard.fleet()) {
                    break;
                }
            }
            // Connections that failed cost no attempt: there may be more left than the order is long.
            if self.trail.attempts() == begun || self.trail.is_over_here() || self.is_spent() {
                return None;
            }
        }
    }

    async fn try_instance(&mut self, place: Place<'_>, choice: &Choice<'_>) -> Step {
        let instance = place.candidate;
        let added = HeaderMap::new();
        let (mut response, mut exchange) = self.attempt(&instance.address, place, &added).await?;
        receive::forget_ours(response.headers_mut());
        if self.is_worth_retrying(response.status(), &instance.id) {
            exchange.discard();
            return None;
        }
        self.mark(response.headers_mut(), &instance.id, &choice.label);
        let (meter, status) = (&self.shard.meter, response.status());
        exchange.measure(meter.answered(choice.view, self.started, status));
        Some(self.pass_on(response, exchange))
    }

    fn decide<'f>(
        &self,
        fleet: &'f Fleet,
        level: Level,
        pool: &PoolId,
        may_panic: bool,
    ) -> Result<Choice<'f>, NoRoute> {
        let attempts = match level {
            Level::Region => MAX_ATTEMPTS,
            Level::Instance => self.trail.attempts_left(),
        };
        let (route, facts) = (self.received.route, &self.received.facts);
        let wanted = Wanted { route, pool, facts, trail: &self.trail, may_panic };
        self.shard.decide(fleet, &wanted, level, attempts)
    }

    fn next<'f>(&self, choice: &Choice<'f>, cursor: &mut usize) -> Option<Place<'f>> {
        match self.is_spent() {
            true => None,
            false => choice.next(cursor, &self.trail, &self.received.facts, self.shard),
        }
    }

    fn home(&self) -> &RegionId {
        &self.shard.common.home
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
        headers.insert(ATTEMPTS, self.trail.attempts().into());
        headers.insert(POLICIES, policies.clone());
    }

    fn no_route(&mut self, reason: NoRoute) -> Step {
        self.no_route = reason;
        None
    }

    fn shed(&mut self) -> Step {
        self.is_shed = true;
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
        self.trail.is_spent() || self.left().is_zero()
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
        if self.is_shed {
            // Whoever forwarded it to us may know somebody else.
            if self.received.hop.is_none() {
                Stats::count(&self.shard.stats.shed);
            }
            return Refusal::Full;
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
