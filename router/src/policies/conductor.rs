//! The thread that owns versions and spare seats, and deals decks to the data threads.
//!
//! It takes one event at a time and applies it synchronously. Observing a fleet and instantiating
//! policies cost milliseconds, which is why they happen here.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mrgc_fleet::snapshot::Snapshot;
use tokio::sync::{mpsc as async_mpsc, oneshot};

use super::{Deck, RouteTable, Seat, Version};
use crate::flight::{FleetView, SlotTable};

/// A snapshot is dealt at most this often; a swap of a policy is dealt at once.
pub const DEAL_INTERVAL: Duration = Duration::from_millis(250);

/// Events waiting for the conductor. At the bound, senders off the data path wait and data threads drop
/// what they had to say: a dead seat is seen again by the next deal.
const EVENTS: usize = 1024;

enum Event {
    Fleet(Snapshot),
    Swap {
        version: Arc<Version>,
        done: oneshot::Sender<()>,
    },
    /// A data thread has swapped this deck out.
    Returned {
        thread: usize,
        deck: Deck,
    },
    /// A seat of this thread lost its instance.
    SeatDied {
        thread: usize,
    },
}

/// How the rest of the router speaks with the conductor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    events: mpsc::SyncSender<Event>,
    shared: Arc<Shared>,
}

/// What everyone may read.
#[derive(Debug)]
struct Shared {
    fleet: ArcSwap<FleetView>,
    versions: ArcSwap<BTreeMap<String, Arc<Version>>>,
    table: Arc<RouteTable>,
}

/// An active policy, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    pub name: String,
    pub generation: u64,
    pub version: String,
    pub summary: String,
    pub digest: String,
    pub size_bytes: usize,
    pub decisions: u64,
    pub faults: u64,
    pub clamped: u64,
}

impl Handle {
    pub fn fleet(&self) -> Arc<FleetView> {
        self.shared.fleet.load_full()
    }

    pub fn table(&self) -> &Arc<RouteTable> {
        &self.shared.table
    }

    pub fn version(&self, name: &str) -> Option<Arc<Version>> {
        self.shared.versions.load().get(name).cloned()
    }

    pub fn versions(&self) -> Vec<Arc<Version>> {
        self.shared.versions.load().values().cloned().collect()
    }

    /// Publishes a snapshot. Blocks only where the conductor is far behind.
    pub fn publish(&self, snapshot: Snapshot) {
        // It ends only with the process.
        let _ = self.events.send(Event::Fleet(snapshot));
    }

    /// Makes a version the active one of its name, on every data thread. Answers once all decks are dealt.
    pub async fn swap(&self, version: Arc<Version>) {
        let (done, dealt) = oneshot::channel();
        let events = self.events.clone();
        let sent =
            tokio::task::spawn_blocking(move || events.send(Event::Swap { version, done }).is_ok())
                .await;
        if sent.unwrap_or(false) {
            let _ = dealt.await;
        }
    }

    /// From a data thread: never waits.
    pub fn give_back(&self, thread: usize, deck: Deck) {
        let _ = self.events.try_send(Event::Returned { thread, deck });
    }

    /// From a data thread: never waits.
    pub fn seat_died(&self, thread: usize) {
        let _ = self.events.try_send(Event::SeatDied { thread });
    }
}

impl Status {
    pub fn of(version: &Version) -> Self {
        let manifest = version.policy.manifest();
        Self {
            name: version.name.clone(),
            generation: version.generation,
            version: manifest.version.clone(),
            summary: manifest.summary.clone(),
            digest: version.policy.digest().to_owned(),
            size_bytes: version.policy.size_bytes(),
            decisions: version.sum(|c| &c.decisions),
            faults: version.sum(|c| &c.faults),
            clamped: version.sum(|c| &c.clamped),
        }
    }
}

/// A data thread, as the conductor sees it.
#[derive(Debug)]
struct Hand {
    decks: async_mpsc::UnboundedSender<Deck>,
    /// Seats that came back from it, by seat.
    spare: Vec<Option<Seat>>,
    /// It waits for a deck: its fleet is old, or a seat of it died.
    stale: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Conductor {
    table: Arc<RouteTable>,
    shared: Arc<Shared>,
    slots: SlotTable,
    versions: BTreeMap<String, Arc<Version>>,
    hands: Vec<Hand>,
    last_deal: Instant,
}

impl Conductor {
    /// Starts the thread, with the first fleet, its slots and the versions that were found. Each of `hands` gets
    /// its first deck before this returns.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(
        table: RouteTable,
        fleet: FleetView,
        slots: SlotTable,
        versions: Vec<Arc<Version>>,
        hands: Vec<async_mpsc::UnboundedSender<Deck>>,
    ) -> std::io::Result<Handle> {
        let table = Arc::new(table);
        let versions: BTreeMap<_, _> = versions.into_iter().map(|v| (v.name.clone(), v)).collect();
        let shared = Arc::new(Shared {
            fleet: ArcSwap::from_pointee(fleet),
            versions: ArcSwap::from_pointee(versions.clone()),
            table: table.clone(),
        });
        let spare = || table.specs.iter().map(|_| None).collect();
        let hands =
            hands.into_iter().map(|decks| Hand { decks, spare: spare(), stale: true }).collect();
        let mut conductor = Self {
            table,
            shared: shared.clone(),
            slots,
            versions,
            hands,
            last_deal: Instant::now(),
        };
        conductor.deal();
        let (events, inbox) = mpsc::sync_channel(EVENTS);
        thread::Builder::new().name("conductor".into()).spawn(move || conductor.run(&inbox))?;
        Ok(Handle { events, shared })
    }

    fn run(mut self, inbox: &mpsc::Receiver<Event>) {
        loop {
            let stale = self.hands.iter().any(|hand| hand.stale);
            let wait = if stale {
                DEAL_INTERVAL.saturating_sub(self.last_deal.elapsed())
            } else {
                Duration::from_secs(3600)
            };
            match inbox.recv_timeout(wait) {
                Ok(event) => self.apply(event),
                Err(mpsc::RecvTimeoutError::Timeout) => self.deal(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Fleet(snapshot) => {
                self.shared.fleet.store(Arc::new(self.slots.join(snapshot)));
                self.hands.iter_mut().for_each(|hand| hand.stale = true);
            }
            Event::Swap { version, done } => {
                self.versions.insert(version.name.clone(), version);
                self.shared.versions.store(Arc::new(self.versions.clone()));
                self.hands.iter_mut().for_each(|hand| hand.stale = true);
                self.deal();
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            Event::Returned { thread, deck } => self.hands[thread].keep(deck),
            Event::SeatDied { thread } => self.hands[thread].stale = true,
        }
    }

    /// Gives every thread that waits for one a new deck.
    fn deal(&mut self) {
        self.last_deal = Instant::now();
        let fleet = self.shared.fleet.load_full();
        for hand in self.hands.iter_mut().filter(|hand| hand.stale) {
            let seats = (0..self.table.specs.len())
                .map(|seat| {
                    let spec = &self.table.specs[seat];
                    let version = self.versions.get(&spec.name);
                    ready_seat(hand.spare[seat].take(), version, &spec.name, &spec.config, &fleet)
                })
                .collect();
            // A thread that ended takes no more decks.
            let _ = hand.decks.send(Deck::new(fleet.clone(), seats, &self.table));
            hand.stale = false;
        }
    }
}

impl Hand {
    /// Keeps the seats of a deck that came back, for the next.
    fn keep(&mut self, deck: Deck) {
        for (spare, seat) in self.spare.iter_mut().zip(deck.seats) {
            if !seat.is_empty() {
                *spare = Some(seat);
            }
        }
    }
}

/// A seat that has observed the fleet: the spare one if it will do, else a new one.
fn ready_seat(
    spare: Option<Seat>,
    version: Option<&Arc<Version>>,
    name: &str,
    config: &str,
    fleet: &FleetView,
) -> Seat {
    let Some(version) = version else { return Seat::vacant(name) };
    let seat = match spare.filter(|seat| seat.serves(version)) {
        Some(seat) => Ok(seat),
        None => Seat::new(version.clone(), config),
    };
    let ready = seat.map_err(|e| e.to_string()).and_then(|mut seat| {
        seat.observe(fleet).map_err(|e| e.to_string())?;
        Ok(seat)
    });
    ready.unwrap_or_else(|e| {
        version.counters(usize::MAX).faults.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(
            policy = name,
            generation = version.generation,
            "policy cannot be seated: {e}"
        );
        Seat::failed(version.clone())
    })
}
