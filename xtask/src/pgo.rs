//! The router as it ships: compiled a second time, by what a first one was seen to do under load.
//!
//! ```text
//!  instrumented router ─► requests at full speed ─► profile ─► the router that ships, in the plain one's place
//! ```
//!
//! Everything is built in `target/pgo/`, for these flags would have cargo build all of `target/dist/` anew.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};

use crate::{
    steps::Steps,
    wasm::{rustc, stdout},
    workspace,
};

pub(crate) const PROGRAM: &str = "mrgc-router";
const TRAINER: &str = "mrgc-train";
const BUILD_LIMIT: Duration = Duration::from_secs(3600);
const TRAIN_LIMIT: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Build the router once, not a second time by what it does under load; slower by a tenth
    #[arg(long)]
    no_pgo: bool,
}

/// With a log of their own.
pub(crate) fn steps() -> Result<Steps> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Steps::new(folder.join("pgo.log"))
}

fn folder() -> PathBuf {
    workspace::target().join("pgo")
}

/// Builds the router that ships, to where cargo puts that of the profile `dist`. False where the plain one has
/// to do, for want of a tool, which is said, or because it was asked for.
pub(crate) fn build(options: &Options, steps: &Steps) -> Result<bool> {
    if options.no_pgo {
        return Ok(false);
    }
    let compiler = Compiler::ask()?;
    let Some(merger) = compiler.profdata() else {
        steps.say(&format!(
            "no profile-guided optimisation: there is no llvm-profdata of LLVM {0}; `rustup component add \
             llvm-tools`, or `apt-get install llvm-{0}`",
            compiler.llvm
        ));
        return Ok(false);
    };
    let folder = folder();
    let (counts, profile) = (folder.join("counts"), folder.join("router.profdata"));
    if counts.exists() {
        fs::remove_dir_all(&counts).context("cannot remove an older profile")?;
    }
    let router = |name: &str, flag: String| {
        let mut cargo = workspace::cargo("build");
        cargo
            .env("CARGO_TARGET_DIR", folder.join(name))
            .env("RUSTFLAGS", flag)
            .args(["--locked", "--profile", "dist", "--target", &compiler.host])
            .args(["--package", PROGRAM, "--bin", PROGRAM]);
        steps.run(&format!("building the {name} router"), &mut cargo, BUILD_LIMIT)?;
        anyhow::Ok(folder.join(name).join(&compiler.host).join("dist"))
    };

    let mut trainer = workspace::cargo("build");
    trainer.args(["--locked", "--profile", "dist", "--package", "mrgc-tests", "--bin", TRAINER]);
    steps.run("building what trains it", &mut trainer, BUILD_LIMIT)?;
    let counting = router("instrumented", format!("-Cprofile-generate={}", counts.display()))?;
    let programs = workspace::programs("dist")?;
    let mut train = Command::new(programs.join(TRAINER));
    train.env("MRGC_PROGRAMS", counting);
    steps.run("sending it requests", &mut train, TRAIN_LIMIT)?;
    let mut merge = Command::new(merger);
    merge.arg("merge").arg("--output").arg(&profile).arg(&counts);
    steps.run("merging the profile", &mut merge, TRAIN_LIMIT)?;
    let optimised = router("optimised", format!("-Cprofile-use={}", profile.display()))?;

    // Cargo's own is a hard link: it is replaced, not written to.
    let place = programs.join(PROGRAM);
    if place.exists() {
        fs::remove_file(&place).with_context(|| format!("cannot replace {}", place.display()))?;
    }
    fs::copy(optimised.join(PROGRAM), &place)
        .with_context(|| format!("cannot write {}", place.display()))?;
    Ok(true)
}

/// What builds the workspace.
struct Compiler {
    host: String,
    /// The major version of its LLVM: an older one's tools cannot read its profiles.
    llvm: u32,
}

impl Compiler {
    fn ask() -> Result<Self> {
        let words = rustc(&["-vV"])?;
        let word = |name: &str| words.lines().find_map(|line| line.strip_prefix(name));
        let host = word("host: ").context("`rustc -vV` names no host")?.to_owned();
        let llvm = word("LLVM version: ").and_then(major).context("`rustc -vV` names no LLVM")?;
        Ok(Self { host, llvm })
    }

    /// An `llvm-profdata` that reads this compiler's profiles: rustup's, or the system's.
    fn profdata(&self) -> Option<PathBuf> {
        let sysroot = rustc(&["--print", "sysroot"]).unwrap_or_default();
        let component = format!("{}/lib/rustlib/{}/bin/llvm-profdata", sysroot.trim(), self.host);
        let names = [component, format!("llvm-profdata-{}", self.llvm), "llvm-profdata".to_owned()];
        names.into_iter().map(PathBuf::from).find(|path| {
            let version = stdout(Command::new(path).arg("--version")).unwrap_or_default();
            version_of_tool(&version).is_some_and(|version| version >= self.llvm)
        })
    }
}

/// In what LLVM's tools answer, as in `  LLVM version 22.1.2-rust-1.95.0-stable`.
fn version_of_tool(answer: &str) -> Option<u32> {
    answer.lines().find_map(|line| major(line.split_once("LLVM version ")?.1))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::version_of_tool;

    #[test]
    fn a_tool_tells_its_version_wherever_it_is_from() {
        for (answer, version) in [
            ("LLVM (http://llvm.org/):\n  LLVM version 22.1.2-rust-1.95.0-stable\n", Some(22)),
            ("Debian LLVM version 22.1.8\n  Optimized build.\n", Some(22)),
            ("llvm-profdata: Unknown command!\nUSAGE: llvm-profdata <merge|show|overlap>", None),
        ] {
            assert_eq!(version_of_tool(answer), version, "{answer}");
        }
    }
}
