//! Debian's package archive, asked as any user: no root, and nothing on the system changes.
//!
//! Downloading from the system's package lists needs no rights. Where those lists are missing or
//! too old, a private copy is fetched instead of the `apt-get update` that only root may run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::stdout;
use crate::steps::Steps;

/// The compiler package whose version follows upstream's in stable releases, too.
const COMPILER: &str = "rustc-web";
const SOURCES: &str = "rust-web-src";
/// The oldest Rust that builds this workspace.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

const UPDATE_LIMIT: Duration = Duration::from_secs(180);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

struct Apt {
    /// A folder for package lists of our own; `None`: the system's.
    state: Option<PathBuf>,
}

/// Downloads the compiler, its host libraries and its sources into `folder`/debs.
pub(super) fn download(folder: &Path, steps: &Steps) -> Result<PathBuf> {
    let debs = folder.join("debs");
    fs::create_dir_all(&debs)?;
    let system = Apt { state: None };
    // A list that is days old may name packages that the archive no longer has: then, too, a fresh one.
    if system.is_new_enough()? && system.download(&debs, steps).is_ok() {
        return Ok(debs);
    }
    let state = folder.join("apt");
    fs::create_dir_all(state.join("lists/partial"))?;
    fs::create_dir_all(state.join("cache/archives/partial"))?;
    let private = Apt { state: Some(state) };
    let update = &mut private.command("apt-get");
    steps.run("fetching fresh package lists", update.arg("update"), UPDATE_LIMIT)?;
    ensure!(
        private.is_new_enough()?,
        "this system's package archive offers no {COMPILER} of at least {OLDEST}: is its security archive \
         among the sources of apt?"
    );
    private.download(&debs, steps)?;
    Ok(debs)
}

impl Apt {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").args(["-o", "Acquire::Languages=none"]);
        if let Some(state) = &self.state {
            command.arg("-o").arg(format!("Dir::State::lists={}", state.join("lists").display()));
            command.arg("-o").arg(format!("Dir::Cache={}", state.join("cache").display()));
        }
        command
    }

    /// Whether the lists offer a compiler that builds this workspace.
    fn is_new_enough(&self) -> Result<bool> {
        let policy = stdout(self.command("apt-cache").args(["policy", COMPILER]))
            .context("this is no Debian or Ubuntu system, or has no apt")?;
        let Some(version) = candidate(&policy) else { return Ok(false) };
        let compared = Command::new("dpkg")
            .args(["--compare-versions", version, "ge", OLDEST])
            .status()
            .context("cannot start dpkg")?;
        Ok(compared.success())
    }

    fn download(&self, debs: &Path, steps: &Steps) -> Result<()> {
        let closure = stdout(self.command("apt-cache").args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            COMPILER,
            SOURCES,
        ]))?;
        let packages = wanted(&closure);
        let download = &mut self.command("apt-get");
        download.arg("download").args(&packages).current_dir(debs);
        steps.run(&format!("downloading {}", packages.join(", ")), download, DOWNLOAD_LIMIT)
    }
}

/// The candidate's version in `apt-cache policy`'s answer.
fn candidate(policy: &str) -> Option<&str> {
    let line = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?;
    Some(line.trim()).filter(|version| *version != "(none)")
}

/// Of all that the compiler depends on, what is not part of any ordinary system. The names carry
/// versions (`libstd-rust-web-1.96`, `libllvm22`), so they are found and not written down.
fn wanted(closure: &str) -> Vec<&str> {
    let mut packages: Vec<&str> = closure
        .lines()
        .filter(|line| {
            [COMPILER, SOURCES].contains(line)
                || line.starts_with("libstd-rust-web-")
                || line
                    .strip_prefix("libllvm")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_and_none_is_none() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate(policy), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn only_the_compiler_s_own_packages_are_fetched() {
        let closure = "rustc-web\n  Depends: libc6\n  Depends: libstd-rust-web-dev\nlibc6\nlibstd-rust-web-dev\n\
                       libstd-rust-web-1.96\nlibllvm22\n  Depends: libz3-4\nlibz3-4\nrust-web-src\nlibllvm22\ngcc\n";
        assert_eq!(
            wanted(closure),
            [
                "libllvm22",
                "libstd-rust-web-1.96",
                "libstd-rust-web-dev",
                "rust-web-src",
                "rustc-web"
            ]
        );
    }
}
