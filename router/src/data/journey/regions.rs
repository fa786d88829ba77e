//! Between regions: which is asked, in which order, and what another one's answer means.

use http::{HeaderMap, StatusCode};
use mrgc_fleet::{
    failover::{Steered, steer},
    model::PoolId,
    routing::NoRoute,
    snapshot::Level,
};

use super::{ATTEMPTS, INSTANCE, Journey, Step};
use crate::{
    data::{
        hop::Hop,
        shard::{Choice, Fleet, Place},
        stats::Stats,
        upstream,
    },
    problem::NO_CAPACITY,
};

/// How a request goes to another region.
#[derive(Clone, Copy, Debug)]
struct Forward {
    /// It may have been another's to serve.
    moved: bool,
    /// There is a further one to try.
    elsewhere: bool,
}

impl Journey<'_> {
    /// Regions that have the pool, best first. What one of them cannot serve, the next may.
    pub(super) async fn try_regions(&mut self, pool: &PoolId) -> Step {
        let fleet = self.shard.fleet();
        let mut choice = match self.decide(&fleet, Level::Region, pool, true) {
            Ok(choice) => choice,
            Err(reason) => return self.no_route(reason),
        };
        let Some(moved) = self.steer(&fleet, pool, &mut choice) else { return self.shed() };
        let (mut cursor, mut held_back) = (0, false);
        while let Some(place) = self.next(&choice, &mut cursor) {
            let region = &place.candidate.region;
            let can_hop = self.shard.config().peers.key.is_some();
            let elsewhere = can_hop && self.next(&choice, &mut cursor.clone()).is_some();
            self.trail.reserve(elsewhere);
            let step = if region == self.home() {
                held_back = elsewhere;
                self.try_instances(pool, !elsewhere).await
            } else {
                // Boxed, for it is rare: its room is then not every request's.
                Box::pin(self.try_peer(place, Forward { moved, elsewhere })).await
            };
            if step.is_some() || self.is_spent() {
                return step;
            }
            self.trail.region_tried(region.clone());
        }
        if !held_back {
            return None;
        }
        // Nobody else would: what was kept for others is spent here, and evidence is set aside.
        self.trail.reserve(false);
        Box::pin(self.try_instances(pool, true)).await
    }

    /// Has regions that fail give away what is not theirs to serve any more. Whether others are to take the request
    /// only where they have room; `None` where nobody has.
    fn steer(&self, fleet: &Fleet, pool: &PoolId, choice: &mut Choice<'_>) -> Option<bool> {
        let steering = &fleet.snapshot.steering;
        if steering.is_normal() {
            return Some(false);
        }
        let (lanes, seed) = (steering.lanes(pool), self.shard.next_seed());
        let limit = steering.limit(self.received.facts.priority);
        let in_flight = |region| self.shard.in_flight_in(fleet, choice.view, region);
        let (order, moved) = match steer(&choice.order, lanes, in_flight, limit, seed) {
            Steered::Stay(order) => (order, false),
            Steered::Moved(order) => (order, true),
            Steered::Shed => return None,
        };
        if order.as_slice().first() != choice.order.as_slice().first() {
            Stats::count(&self.shard.stats.moved);
        }
        choice.order = order;
        // What stays, but fails here, adds to what the others have to carry.
        Some(moved || lanes.iter().any(|lane| lane.share < 1.0))
    }

    /// Whether this region takes a request that was another's to serve.
    pub(super) fn has_room(&self, fleet: &Fleet, pool: &PoolId) -> bool {
        let in_flight = self.shard.in_flight_at_home(fleet, pool);
        fleet.snapshot.steering.admits(pool, in_flight, self.received.facts.priority)
    }

    /// Another region, through its router.
    async fn try_peer(&mut self, place: Place<'_>, how: Forward) -> Step {
        let (region, endpoint) = (&place.candidate.region, &place.candidate.address);
        let Some(key) = self.shard.config().peers.key.clone() else {
            return self.failed(format!("{region} cannot be reached: no [peers] key is set"));
        };
        let Some(address) = upstream::address_of(endpoint) else {
            return self.failed(format!("{region}: `{endpoint}` is not an http:// URL"));
        };
        let hop = self.hop(how);
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
            self.trail.give_back();
            return match how.moved {
                true => self.shed(),
                false => self.no_route(NoRoute::NoneReady),
            };
        }
        let is_refused = matches!(status, StatusCode::FORBIDDEN | StatusCode::LOOP_DETECTED);
        if is_refused && !headers.contains_key(INSTANCE) {
            // The router there, not an instance behind it: it is between the two of us.
            exchange.discard();
            return self.failed(format!("the router of {region} refused: {status}"));
        }
        let theirs = headers.get(ATTEMPTS).and_then(|v| v.to_str().ok()?.parse().ok());
        // Connections that failed there cost it nothing, and are counted all the same.
        self.trail.count_elsewhere(theirs.unwrap_or(1usize).min(hop.attempts_left));
        headers.insert(ATTEMPTS, self.trail.attempts().into());
        if how.elsewhere && self.is_worth_retrying(status, region.as_str()) {
            exchange.discard();
            return None;
        }
        Some(self.pass_on(response, exchange))
    }

    fn hop(&self, how: Forward) -> Hop {
        let Forward { moved, elsewhere } = how;
        let mut regions_tried = self.trail.regions_tried().to_vec();
        regions_tried.push(self.home().clone());
        let left = self.trail.attempts_left();
        Hop {
            facts: self.received.facts.clone(),
            route: self.shard.table().routes[self.received.route].name.clone(),
            attempts_left: left.saturating_sub(usize::from(elsewhere)).max(1),
            deadline_ms: self.deadline_ms.min(self.left().as_millis() as u64),
            regions_tried,
            decision: self.decision,
            moved,
            elsewhere,
        }
    }
}
