//! Asking the region's enclaves for documents, through their agents, and verifying what comes back.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mrgc_fleet::model::Standing;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::MissedTickBehavior,
};

use super::{
    Expectation, Root,
    board::{Board, Outcome, Target, Verdict},
    verify,
};
use crate::{collect::Collection, config, policies::Handle, sync::wall_clock};

/// Instances that are asked at the same time.
const PARALLEL: usize = 8;

/// The longest pause between two looks at who is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Documents that are verified at the same time: each takes a core for milliseconds, and the cores are the
/// requests'.
const PARALLEL_VERIFICATIONS: usize = 1;

const NONCE_BYTES: usize = 32;

/// A document in base64 and JSON, and the longest problem worth reading.
const MAX_ANSWER_BYTES: usize = 32 << 10;

/// Enough of an agent's own words to recognise the trouble.
const MAX_QUOTED_BYTES: usize = 300;

/// What is known of the fleet's enclaves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attestations(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    revoked: Notify,
    counts: [AtomicU64; 3],
}

/// How often enclaves were asked since the router started, by what came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counts {
    pub attested: u64,
    pub refused: u64,
    pub unanswered: u64,
}

impl Attestations {
    pub fn new(board: Board) -> Self {
        let (revoked, counts) = (Notify::new(), Default::default());
        Self(Arc::new(Shared { board: Mutex::new(board), revoked, counts }))
    }

    pub fn verdict(&self, standing: &Standing) -> Verdict {
        self.board().verdict(standing, Instant::now())
    }

    pub fn counts(&self) -> Counts {
        let [attested, refused, unanswered] = self.0.counts.each_ref().map(|n| n.load(Relaxed));
        Counts { attested, refused, unanswered }
    }

    /// Waits until an instance is not attested any more.
    pub async fn revoked(&self) {
        self.0.revoked.notified().await;
    }

    /// Plain data: a panic elsewhere cannot leave it half-written.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, asked: &Asked) {
        let Asked { target, outcome, at, .. } = asked;
        let count = match outcome {
            Outcome::Attested(_) => 0,
            Outcome::Refused(_) => 1,
            Outcome::Unanswered(_) => 2,
        };
        self.0.counts[count].fetch_add(1, Relaxed);
        let (now, chance) = (Instant::now(), fastrand::f64());
        let is_revoked = self.board().answered(target, outcome.clone(), *at, now, chance);
        match outcome {
            Outcome::Attested(_) => tracing::debug!(id = %target.id, "enclave attested"),
            Outcome::Refused(reason) => {
                tracing::warn!(id = %target.id, "enclave refused: {reason}")
            }
            Outcome::Unanswered(reason) => {
                tracing::debug!(id = %target.id, "enclave not verified: {reason}");
            }
        }
        if is_revoked {
            self.0.revoked.notify_one();
        }
    }
}

/// An instance that was asked.
struct Asked {
    target: Target,
    outcome: Outcome,
    /// When its nonce was drawn.
    at: Instant,
    took: Duration,
}

/// What every question has in common.
#[derive(Debug)]
pub struct Asker {
    config: config::Attestation,
    root: Root,
    client: reqwest::Client,
    verifications: Semaphore,
}

impl Asker {
    pub fn new(config: config::Attestation, root: Root, client: reqwest::Client) -> Self {
        let verifications = Semaphore::new(PARALLEL_VERIFICATIONS);
        Self { config, root, client, verifications }
    }
}

/// Keeps the region's enclaves verified, for ever.
pub async fn run(
    asker: Asker,
    attestations: Attestations,
    conductor: Handle,
    collection: Option<Arc<Collection>>,
) {
    let asker = Arc::new(asker);
    let mut looks = tokio::time::interval(asker.config.interval().min(LOOK_INTERVAL));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            Some(asked) = asking.join_next() => {
                // A panic in a question would have ended the process.
                let Ok(asked) = asked else { continue };
                attestations.take(&asked);
                if let Some(collection) = &collection {
                    collection.record_enclave_operation(&asked.target.pool, "attest", asked.took);
                }
            }
        }
        let fleet = conductor.fleet();
        let room = PARALLEL - asking.len();
        let due = attestations.board().due(&fleet.snapshot.instances, room, Instant::now());
        for target in due {
            asking.spawn(ask(asker.clone(), target));
        }
    }
}

async fn ask(asker: Arc<Asker>, target: Target) -> Asked {
    let at = Instant::now();
    let outcome = match question(&asker, &target).await {
        Ok((nonce, document)) => {
            // Never closed.
            let _permit = asker.verifications.acquire().await;
            let (asker, target) = (asker.clone(), target.clone());
            let judged =
                tokio::task::spawn_blocking(move || judge(&asker, &target, &nonce, &document));
            judged.await.unwrap_or_else(|e| Outcome::Unanswered(e.to_string()))
        }
        Err(reason) => Outcome::Unanswered(reason),
    };
    Asked { target, outcome, at, took: at.elapsed() }
}

/// Relays a new nonce to the instance's enclave, and gives it with the document that came back.
async fn question(asker: &Asker, target: &Target) -> Result<([u8; NONCE_BYTES], Vec<u8>), String> {
    #[derive(Deserialize)]
    struct Answer {
        document: String,
    }
    let mut nonce = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| "the system has no randomness".to_owned())?;
    let url = format!("http://{}/attestation", target.address);
    let body = json!({ "nonce": BASE64_STANDARD.encode(nonce) });
    let request = asker.client.post(&url).json(&body).timeout(asker.config.timeout());
    let mut response = request.send().await.map_err(|e| format!("{url}: {}", innermost(&e)))?;
    let mut text = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|e| format!("{url}: {}", innermost(&e)))?
    {
        if text.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("{url} answered more than {MAX_ANSWER_BYTES} bytes"));
        }
        text.extend_from_slice(&chunk);
    }
    if !response.status().is_success() {
        return Err(format!("{url} answered {}: {}", response.status().as_u16(), quote(&text)));
    }
    let answer: Answer =
        serde_json::from_slice(&text).map_err(|e| format!("{url} answered no document: {e}"))?;
    let document = BASE64_STANDARD.decode(&answer.document);
    document.map(|document| (nonce, document)).map_err(|e| format!("{url}: no base64: {e}"))
}

fn judge(asker: &Asker, target: &Target, nonce: &[u8], document: &[u8]) -> Outcome {
    let images: Vec<_> = asker.config.images_of(&target.pool).cloned().collect();
    let expected = Expectation {
        nonce,
        now: wall_clock(),
        root: &asker.root,
        images: &images,
        max_age: asker.config.max_age(),
        instance: asker.config.match_instance_id.then_some(target.id.as_str()),
    };
    match verify(document, &expected) {
        Ok(attested) => Outcome::Attested(attested),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// The cause that says what happened, as in "Connection refused".
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time (attestation.timeout_seconds)".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The detail of problem JSON, or the beginning of what else it is.
fn quote(text: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    let text = detail.map_or_else(|| String::from_utf8_lossy(text), Into::into);
    text[..text.floor_char_boundary(MAX_QUOTED_BYTES)].to_owned()
}
