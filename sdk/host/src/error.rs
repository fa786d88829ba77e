//! What can be wrong with a policy: before it runs, and while it runs.

use thiserror::Error;

/// Why an artifact is not a policy that can be used. Each is the author's to mend.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum LoadError {
    #[error(
        "the artifact is {bytes} bytes, over the limit of {limit}; build it in release mode and strip it"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error("not WebAssembly: it does not start with the bytes `\\0asm`")]
    NotWasm,
    #[error(
        "a core WebAssembly module, not a component; build it with `cargo xtask policies`, which makes the component"
    )]
    NotAComponent,
    #[error("it does not compile: {0}")]
    Invalid(String),
    #[error(
        "it imports `{0}`; a policy is a pure function and may import nothing but `mrgc:policy/log@1.0.0`"
    )]
    ForbiddenImport(String),
    #[error(
        "it is for `{found}`; this host serves `mrgc:policy/routing@1.0.0`: rebuild it with this release's SDK"
    )]
    OtherInterface { found: String },
    #[error("it exports no `mrgc:policy/routing@1.0.0`; is `mrgc_policy_sdk::export!` missing?")]
    NoInterface,
    #[error("it rejects its configuration: {0}")]
    Config(String),
    #[error("it fails at start: {0}")]
    Start(#[from] Fault),
    #[error("no room for another policy instance: {0}")]
    NoRoom(String),
}

/// What a policy did wrong in a call. After any of them but a bad answer the instance is dead.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Fault {
    #[error("timeout: it ran longer than {deadline_ms} ms")]
    Timeout { deadline_ms: u64 },
    #[error("memory: it asked for more than {limit_bytes} bytes")]
    Memory { limit_bytes: usize },
    #[error("trap: {0}")]
    Trap(String),
    #[error("wrong length: {got} scores for {expected} candidates")]
    WrongLength { expected: usize, got: usize },
    #[error("score {index} is {value}, not a number")]
    NotANumber { index: usize, value: f32 },
    #[error("the instance died of an earlier fault")]
    Dead,
}

impl Fault {
    /// The word that metrics and decision records use.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Memory { .. } => "memory",
            Self::Trap(_) => "trap",
            Self::WrongLength { .. } => "wrong_length",
            Self::NotANumber { .. } => "not_a_number",
            Self::Dead => "dead",
        }
    }
}
