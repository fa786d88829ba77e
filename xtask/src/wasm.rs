//! A toolchain that builds for `wasm32-unknown-unknown`: found, added by rustup, or made.
//!
//! ```text
//! MRGC_WASM_TOOLCHAIN=<folder> ─ the toolchain in that folder, made there if it is missing
//! otherwise, the first of
//!   1. rustup's target, installed
//!   2. target/wasm-toolchain/, made by an earlier run
//!   3. `rustup target add`
//!   4. target/wasm-toolchain/, made now from Debian's packages (see `debian`)
//! ```

mod apt;
mod debian;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::steps::Steps;
use crate::workspace;

const TARGET: &str = "wasm32-unknown-unknown";
const OVERRIDE: &str = "MRGC_WASM_TOOLCHAIN";
/// rustup retries a dead network for long; what it cannot fetch by then is made from packages.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// What a cargo command needs to build for `wasm32-unknown-unknown`.
#[derive(Debug)]
pub(crate) struct WasmToolchain {
    /// For people: where it comes from.
    pub(crate) origin: String,
    /// Changes whenever the standard library does.
    id: String,
    env: Vec<(&'static str, OsString)>,
}

impl WasmToolchain {
    /// `cargo <subcommand>` in the workspace's root, for wasm32, into `target/wasm`. The toolchain's
    /// environment is this one command's. Paths of this machine are kept out of what it builds, so
    /// that the same sources give the same bytes, and the same digest, everywhere.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = workspace::cargo(subcommand);
        command
            .args(["--target", TARGET, "--target-dir"])
            .arg(target_dir())
            .env("CARGO_ENCODED_RUSTFLAGS", remapped(&[(workspace::root(), "/mrgc")]))
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Finds a toolchain or makes one. The first time may take minutes and a few hundred MB of network.
pub(crate) fn find_or_make() -> Result<WasmToolchain> {
    let forced = env::var_os(OVERRIDE).filter(|folder| !folder.is_empty());
    let folder = match &forced {
        Some(folder) => std::path::absolute(folder)?,
        None => workspace::target().join("wasm-toolchain"),
    };
    let _lock = lock(&folder)?;
    let toolchain = if forced.is_some() {
        match debian::ready(&folder)? {
            Some(toolchain) => toolchain,
            None => debian::make(&folder, &Steps::new(folder.join("log"))?)?,
        }
    } else {
        first_of_four(&folder)?
    };
    empty_if_stale(&toolchain)?;
    Ok(toolchain)
}

fn first_of_four(folder: &Path) -> Result<WasmToolchain> {
    if let Some(toolchain) = rustup_target()? {
        return Ok(toolchain);
    }
    if let Some(toolchain) = debian::ready(folder)? {
        return Ok(toolchain);
    }
    let steps = Steps::new(folder.join("log"))?;
    let no_rustup = match add_rustup_target(&steps) {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => error,
    };
    steps.say("rustup could not add it; making it from Debian's packages");
    debian::make(folder, &steps).map_err(|no_debian| {
        anyhow!(
            "found no way to build for {TARGET}\n\
             - rustup: {no_rustup:#}\n\
             - Debian's packages: {no_debian:#}\n\
             Next: run `rustup target add {TARGET}` where the network allows it, or run this again on \
             Debian or Ubuntu with its package archive in reach, or set {OVERRIDE} to a folder made elsewhere"
        )
    })
}

/// rustup's own target (or any rustc that has one), if its standard library is there.
fn rustup_target() -> Result<Option<WasmToolchain>> {
    let libdir = rustc(&["--print", "target-libdir", "--target", TARGET])?;
    let Ok(entries) = fs::read_dir(libdir.trim()) else { return Ok(None) };
    let has_std = entries.flatten().any(|entry| is_std(&entry.file_name().to_string_lossy()));
    if !has_std {
        return Ok(None);
    }
    let version = rustc(&["-vV"])?;
    let name = version.lines().next().unwrap_or("rustc").to_owned();
    Ok(Some(WasmToolchain {
        origin: format!("installed target of {name}"),
        id: version,
        env: Vec::new(),
    }))
}

fn is_std(file: &str) -> bool {
    file.starts_with("libstd-") && file.ends_with(".rlib")
}

fn add_rustup_target(steps: &Steps) -> Result<WasmToolchain> {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(workspace::root());
    steps.run(&format!("rustup target add {TARGET}"), &mut rustup, RUSTUP_LIMIT)?;
    rustup_target()?
        .context("rustup says that it added the target, but its standard library is not there")
}

/// What the workspace's ordinary rustc answers.
pub(crate) fn rustc(args: &[&str]) -> Result<String> {
    let program = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(program);
    command.args(args).current_dir(workspace::root());
    stdout(&mut command)
}

/// Runs a short command and gives its stdout.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} answered no UTF-8"))
}

fn target_dir() -> PathBuf {
    workspace::target().join("wasm")
}

/// `RUSTFLAGS` in cargo's encoded form that put names in the place of this machine's folders.
fn remapped(folders: &[(&Path, &str)]) -> OsString {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let all = folders.iter().copied().chain(cargo_home.as_deref().map(|home| (home, "/cargo")));
    let mut flags = OsString::new();
    for (folder, name) in all {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(folder);
        flags.push("=");
        flags.push(name);
    }
    flags
}

/// One xtask at a time makes a toolchain or empties a target folder. Released when dropped.
fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another xtask, which holds {}", path.display())
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).context("cannot lock the toolchain's folder");
        }
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Crates built against another standard library do not link: such a target folder is emptied.
fn empty_if_stale(toolchain: &WasmToolchain) -> Result<()> {
    let folder = target_dir();
    let stamp = folder.join("mrgc-toolchain");
    if fs::read_to_string(&stamp).is_ok_and(|id| id == toolchain.id) {
        return Ok(());
    }
    remove_dir(&folder)?;
    fs::create_dir_all(&folder)?;
    fs::write(&stamp, &toolchain.id).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Removes a folder that may not be there.
fn remove_dir(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
