//! Which other regions' routers answer.
//!
//! Each is pinged every interval, whether or not the last ping was answered. A ping without an answer for
//! an interval and the round trip is a miss; so many in a row eject the region, and any answer brings it
//! back. With 200 ms and three misses a region that vanishes is out within 600 ms and a round trip, plus what
//! was left until the next ping.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::model::RegionId;

/// Pings to one region that may be out at once.
pub const MAX_OUTSTANDING: usize = 16;
/// Weight of a new round trip in the running mean.
const RTT_WEIGHT: f64 = 0.2;

/// Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    pub interval_ms: u64,
    /// Misses in a row that eject.
    pub misses: u32,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self { interval_ms: 200, misses: 3 }
    }
}

impl PeerConfig {
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.interval_ms == 0 {
            problems.push("interval_ms is 0: it must be at least 1".to_owned());
        }
        if self.misses == 0 {
            problems.push("misses is 0: it must be at least 1".to_owned());
        }
        problems
    }
}

/// A region that went or came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerChange {
    Ejected,
    Rejoined,
}

/// The other regions, as their routers answer pings.
#[derive(Debug)]
pub struct Peers {
    config: PeerConfig,
    peers: BTreeMap<RegionId, Peer>,
    ticked_ms: Option<u64>,
}

#[derive(Debug)]
struct Peer {
    due_ms: u64,
    /// Of the next ping.
    number: u64,
    /// Pings neither answered nor missed, oldest first.
    outstanding: VecDeque<Ping>,
    /// In a row.
    misses: u32,
    rtt_ms: Option<f64>,
    is_ejected: bool,
}

#[derive(Debug)]
struct Ping {
    number: u64,
    sent_ms: u64,
}

impl Peers {
    pub fn new(config: PeerConfig) -> Self {
        Self { config, peers: BTreeMap::new(), ticked_ms: None }
    }

    /// The regions to ping from now on; those that are gone are forgotten.
    pub fn keep<'a>(&mut self, regions: impl IntoIterator<Item = &'a RegionId>, now_ms: u64) {
        let mut before = std::mem::take(&mut self.peers);
        for region in regions {
            let peer = before.remove(region).unwrap_or_else(|| Peer::new(now_ms));
            self.peers.entry(region.clone()).or_insert(peer);
        }
    }

    /// The pings to send now.
    pub fn due(&mut self, now_ms: u64) -> Vec<(RegionId, u64)> {
        let mut due = Vec::new();
        for (region, peer) in &mut self.peers {
            if now_ms >= peer.due_ms {
                due.push((region.clone(), peer.send(now_ms, &self.config)));
            }
        }
        due
    }

    /// A ping was answered. An answer that comes late is one all the same.
    pub fn pong(&mut self, region: &RegionId, number: u64, rtt_ms: f64) -> Option<PeerChange> {
        let peer = self.peers.get_mut(region).filter(|peer| number < peer.number)?;
        // What was sent before it and is not answered is no miss in a row any more.
        peer.outstanding.retain(|ping| ping.number > number);
        peer.misses = 0;
        match &mut peer.rtt_ms {
            Some(mean) => *mean += RTT_WEIGHT * (rtt_ms - *mean),
            unknown => *unknown = Some(rtt_ms),
        }
        std::mem::take(&mut peer.is_ejected).then_some(PeerChange::Rejoined)
    }

    /// A ping failed, as one does that is refused.
    pub fn miss(&mut self, region: &RegionId, number: u64) -> Option<PeerChange> {
        let peer = self.peers.get_mut(region)?;
        let at = peer.outstanding.iter().position(|ping| ping.number == number)?;
        peer.outstanding.remove(at);
        peer.missed(&self.config)
    }

    /// Takes pings that were not answered in time for misses, and returns the regions that are ejected for
    /// it. Time in which nobody looked, for this process was held up, is no region's fault.
    pub fn tick(&mut self, now_ms: u64) -> Vec<RegionId> {
        let looked_ms = self.ticked_ms.replace(now_ms).unwrap_or(now_ms);
        let blind_ms = now_ms.saturating_sub(looked_ms).saturating_sub(self.config.interval_ms);
        let mut ejected = Vec::new();
        for (region, peer) in &mut self.peers {
            let before = peer.outstanding.iter_mut().filter(|ping| ping.sent_ms <= looked_ms);
            before.for_each(|ping| ping.sent_ms += blind_ms);
            if peer.time_out(now_ms, &self.config) == Some(PeerChange::Ejected) {
                ejected.push(region.clone());
            }
        }
        ejected
    }

    /// When there is next a ping to send or to miss.
    pub fn next_ms(&self) -> Option<u64> {
        let times = self.peers.values().map(|peer| {
            let limit_ms = peer.limit_ms(&self.config);
            let missed = peer.outstanding.front().map(|ping| ping.sent_ms.saturating_add(limit_ms));
            missed.map_or(peer.due_ms, |missed_ms| missed_ms.min(peer.due_ms))
        });
        times.min()
    }

    /// Pings to one region that are neither answered nor missed, where there are most of them.
    pub fn outstanding(&self) -> usize {
        self.peers.values().map(|peer| peer.outstanding.len()).max().unwrap_or(0)
    }

    /// The mean round trip, where the region's router answers.
    pub fn rtt_ms(&self, region: &RegionId) -> Option<f64> {
        self.peers.get(region).filter(|peer| !peer.is_ejected)?.rtt_ms
    }

    /// Pings in a row that it has not answered.
    pub fn misses(&self, region: &RegionId) -> u32 {
        self.peers.get(region).map_or(0, |peer| peer.misses)
    }

    /// One that was never heard is not ejected before it misses as many as any other.
    pub fn is_ejected(&self, region: &RegionId) -> bool {
        self.peers.get(region).is_some_and(|peer| peer.is_ejected)
    }
}

impl Peer {
    fn new(due_ms: u64) -> Self {
        Self {
            due_ms,
            number: 0,
            outstanding: VecDeque::new(),
            misses: 0,
            rtt_ms: None,
            is_ejected: false,
        }
    }

    fn send(&mut self, now_ms: u64, config: &PeerConfig) -> u64 {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        let number = self.number;
        self.number += 1;
        self.outstanding.push_back(Ping { number, sent_ms: now_ms });
        self.due_ms = now_ms.saturating_add(config.interval_ms);
        number
    }

    fn time_out(&mut self, now_ms: u64, config: &PeerConfig) -> Option<PeerChange> {
        let limit_ms = self.limit_ms(config);
        let mut change = None;
        while let Some(ping) = self.outstanding.front()
            && now_ms >= ping.sent_ms.saturating_add(limit_ms)
        {
            self.outstanding.pop_front();
            change = change.or(self.missed(config));
        }
        change
    }

    fn missed(&mut self, config: &PeerConfig) -> Option<PeerChange> {
        self.misses = self.misses.saturating_add(1);
        let ejects = !self.is_ejected && self.misses >= config.misses;
        self.is_ejected |= ejects;
        ejects.then_some(PeerChange::Ejected)
    }

    /// For how long an answer is waited for: not longer than until as many pings are out as may be.
    fn limit_ms(&self, config: &PeerConfig) -> u64 {
        let longest_ms = config.interval_ms.saturating_mul(MAX_OUTSTANDING as u64 - 1);
        let usual_ms = self.rtt_ms.map_or(config.interval_ms, |rtt_ms| rtt_ms.ceil() as u64);
        config.interval_ms.saturating_add(usual_ms).min(longest_ms)
    }
}

#[cfg(test)]
mod tests;
