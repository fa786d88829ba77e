//! The kinds of faults, and how often each struck.

use std::fmt;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $words:literal,)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

faults! {
    MessageLoss = "message lost",
    MessageDelay = "message delayed",
    MessageReordering = "message overtaken",
    MessageDuplication = "message doubled",
    /// Counted by the message that does not get through.
    Partition = "partition, both ways",
    OneWayPartition = "partition, one way",
    FlappingNetwork = "flapping network",
    RouterPause = "router paused",
    HolderPause = "lease holder paused",
    AgentPause = "agent paused",
    ClockSkew = "clock fast or slow",
    ClockSet = "wall clock set",
    RouterRestart = "router restarted",
    AgentRestart = "agent restarted",
    /// An agent from before a registration goes on reporting.
    ZombieAgent = "zombie agent's report",
    StoreThrottling = "store call throttled",
    StoreOutage = "store call in an outage",
    StaleRead = "stale read",
    ReplicationLag = "replica behind",
    SlowInstance = "instance slow",
    FailingInstance = "instance answers 5xx",
    BusyInstance = "instance answers 429",
    RefusingInstance = "instance refuses",
    BlackHoleInstance = "instance silent",
    HungInstance = "instance hangs",
    /// Healthy, by its word, and failing requests.
    LyingHealthy = "lie: healthy",
    /// Unhealthy, by its word, and serving.
    LyingUnhealthy = "lie: unhealthy",
    /// Healthy and unhealthy by turns, by its word: one instance, or much of a pool in a region.
    FlappingHealth = "health flaps",
    SlowHealth = "health answer slow",
    GarbageHealth = "health answer garbage",
    RegionKilled = "region killed",
    RegionBlackHole = "region silent",
    PoolOutage = "pool of a region down",
    Drain = "drain ordered",
    Quarantine = "quarantine ordered",
    FailoverOrder = "failover ordered",
    PinOrder = "region pinned",
    OppositeOrders = "opposite orders",
    EnclaveLost = "enclave lost",
    LoadPeak = "load peak",
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How often each fault struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Tally {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    pub fn count(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Faults that never struck: what they would have shown was not tried.
    pub fn missing(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.count(*fault) == 0)
    }
}
