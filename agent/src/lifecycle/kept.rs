//! What outlives the agent's process: one record in a file, so that neither a crash nor an upgrade lets an
//! instance serve that should not.
//!
//! The record has a fixed length and is written over itself, so a disk that fills up later cannot stop it.
//! Where it cannot be written, the agent goes on, tries again, and says so: what holds still holds while it
//! runs. A record of another instance, as in a disk image, says nothing; nor does one about a GPU after a
//! reboot.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task, time,
};

use super::{Quarantine, QuarantineCause};
use crate::{
    signals::Check,
    state::{Event, Snapshot},
};

const FILE_NAME: &str = "life.json";

/// A block of every file system there is.
const RECORD_BYTES: usize = 4_096;

/// Whatever is longer was not written by this program, and is no record.
const MAX_READ_BYTES: u64 = 2 * RECORD_BYTES as u64;

/// Between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_secs(10);

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What must not be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Somebody on this machine wants it drained.
    pub drained: bool,
    /// It must not serve before a cleanup has passed.
    pub owes_cleanup: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Record {
    instance: String,
    boot: Option<String>,
    #[serde(flatten)]
    kept: Kept,
}

/// Where the record is, and of whom.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    file: PathBuf,
    instance: String,
    /// Of the running kernel; `None` where it does not say.
    boot: Option<String>,
}

impl Keeper {
    pub(crate) fn new(directory: &Path, instance: &str) -> Self {
        let boot = fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned());
        Self { file: directory.join(FILE_NAME), instance: instance.to_owned(), boot }
    }

    /// What an earlier process left. A record that cannot be read may have been a quarantine, and counts as
    /// one; no record is none.
    pub(crate) fn load(&self) -> Kept {
        let mut text = Vec::new();
        let opened = fs::File::open(&self.file);
        let read = opened.and_then(|file| file.take(MAX_READ_BYTES).read_to_end(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Kept::default(),
            Err(error) => return self.unreadable(&error.to_string()),
        }
        // A file whose first write never happened.
        if text.iter().all(|byte| *byte == 0) {
            return Kept::default();
        }
        let Record { instance, boot, mut kept } = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(error) => return self.unreadable(&error.to_string()),
        };
        if instance != self.instance {
            return Kept::default();
        }
        if boot != self.boot {
            kept.quarantine.take_if(|quarantine| quarantine.cause == QuarantineCause::UnfitGpu);
        }
        kept
    }

    fn unreadable(&self, reason: &str) -> Kept {
        let reason = format!("{} cannot be read: {reason}", self.file.display());
        tracing::error!(reason, "what the agent left at its last end is unknown: quarantined");
        let quarantine = Quarantine { cause: QuarantineCause::LostRecord, reason, stamp: None };
        Kept { quarantine: Some(quarantine), ..Kept::default() }
    }

    fn save(&self, kept: Kept) -> io::Result<()> {
        let record = Record { instance: self.instance.clone(), boot: self.boot.clone(), kept };
        let mut text = serde_json::to_vec(&record)?;
        if text.len() > RECORD_BYTES {
            return Err(io::Error::other("the record is too long"));
        }
        text.resize(RECORD_BYTES, b' ');
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&self.file)?;
        file.write_all(&text)?;
        file.sync_data()
    }
}

/// Writes what must not be forgotten whenever it changes, and at once to begin with: a disk that is full is
/// better known before it matters.
pub(crate) async fn keep(
    keeper: Keeper,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    events: mpsc::Sender<Event>,
) {
    let mut written: Option<Kept> = None;
    loop {
        let kept = snapshots.borrow_and_update().course.life.kept();
        let mut retry = Duration::MAX;
        if written.as_ref() != Some(&kept) {
            let (saver, next) = (keeper.clone(), kept.clone());
            let saved = task::spawn_blocking(move || saver.save(next)).await;
            let check = match saved.map_err(io::Error::other).and_then(|saved| saved) {
                Ok(()) => {
                    written = Some(kept);
                    Check::ok()
                }
                Err(error) => {
                    retry = RETRY;
                    let reason = format!("{} cannot be written: {error}", keeper.file.display());
                    tracing::warn!(reason, "a restart would forget quarantine and drain");
                    Check::error(reason)
                }
            };
            if events.send(Event::Kept(check)).await.is_err() {
                return;
            }
        }
        match time::timeout(retry, snapshots.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}

#[cfg(test)]
mod tests;
