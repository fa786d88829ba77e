//! Where the workspace is, and its cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The root's `target/`: what xtask makes lies here, wherever `CARGO_TARGET_DIR` sends cargo's own output.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The cargo that runs this xtask, in the root. The caller's shell has no say in the compiler's flags.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .arg(subcommand);
    command
}

/// Where cargo puts the programs of a profile.
pub(crate) fn programs(profile: &str) -> Result<PathBuf> {
    let mut metadata = cargo("metadata");
    let output = metadata.args(["--no-deps", "--format-version", "1"]).output();
    let output = output.context("cannot start cargo")?;
    ensure!(output.status.success(), "`cargo metadata` failed ({})", output.status);
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target =
        metadata["target_directory"].as_str().context("`cargo metadata` names no target")?;
    Ok(Path::new(target).join(if profile == "dev" { "debug" } else { profile }))
}
