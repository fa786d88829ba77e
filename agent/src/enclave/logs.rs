//! Where `nitro-cli` writes its log. It fails where it cannot, and its own folder, `/var/log/nitro_enclaves`, is
//! another user's or not writable in the agent's sandbox; so the agent gives it one of its own.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// What `nitro-cli` reads.
const VARIABLE: &str = "NITRO_CLI_LOGS_PATH";

const LOG_FILE: &str = "nitro_enclaves.log";

/// It is only ever appended to, and who wants to know reads the agent's log.
const MAX_LOG_BYTES: u64 = 1 << 20;

/// The folder.
#[derive(Debug)]
pub(super) enum Logs {
    /// Somebody else has set it, and keeps it.
    Theirs,
    Own(PathBuf),
    /// Made for this process, and gone with it.
    Temporary(PathBuf),
}

impl Logs {
    /// As configured, else as systemd or whoever started the agent says, else a new one.
    pub(super) fn new(
        configured: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        if let Some(folder) = configured {
            return Self::own(folder.to_owned());
        }
        if let Some(folders) = variable("LOGS_DIRECTORY") {
            // More than one are joined by colons; the first is the agent's.
            if let Some(first) = std::env::split_paths(&folders).next() {
                return Self::own(first);
            }
        }
        if variable(VARIABLE).is_some() {
            return Self::Theirs;
        }
        let name = format!("mrgc-agent-{:016x}", fastrand::u64(..));
        let folder = std::env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => Self::Temporary(folder),
            Err(error) => {
                tracing::warn!("no folder for nitro-cli's log, {}: {error}", folder.display());
                Self::Theirs
            }
        }
    }

    fn own(folder: PathBuf) -> Self {
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            tracing::warn!("no folder for nitro-cli's log, {}: {error}", folder.display());
        }
        Self::Own(folder)
    }

    /// The variable to run it with.
    pub(super) fn variable(&self) -> Option<(&'static str, &Path)> {
        self.folder().map(|folder| (VARIABLE, folder))
    }

    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Theirs => None,
            Self::Own(folder) | Self::Temporary(folder) => Some(folder),
        }
    }

    /// Empties a log that has grown too long.
    pub(super) fn trim(&self) {
        let Some(log) = self.folder().map(|folder| folder.join(LOG_FILE)) else { return };
        let is_long = fs::metadata(&log).is_ok_and(|log| log.len() > MAX_LOG_BYTES);
        if is_long && let Err(error) = OpenOptions::new().write(true).truncate(true).open(&log) {
            tracing::debug!("cannot empty {}: {error}", log.display());
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if let Self::Temporary(folder) = self {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests;
