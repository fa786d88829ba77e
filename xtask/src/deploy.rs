//! What lies in `deploy/` for others' programs to read: units, the packages' scripts, image templates. Each is
//! looked at by the program that knows it best, where this machine has it; a missing one is told, and no
//! failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::dist::PACKAGES;
use crate::workspace;

/// What `systemd-analyze security` may say of a unit at most; 10 is a service without any sandbox.
const MAX_EXPOSURE: f64 = 4.0;
/// The first that takes a root and a file to both `verify` and `security`.
const MIN_SYSTEMD: u32 = 250;
/// What the template asks for.
const MIN_PACKER: (u32, u32) = (1, 9);

pub(crate) fn lint() -> Result<()> {
    match systemd_version() {
        Some(version) if version >= MIN_SYSTEMD => units()?,
        Some(version) => {
            skip(&format!(
                "the units are not verified: systemd {version} is older than {MIN_SYSTEMD}"
            ));
        }
        None => skip("the units are not verified: there is no systemd-analyze"),
    }
    let scripts = scripts()?;
    if answers("shellcheck", "--version") {
        println!("$ shellcheck {} scripts", scripts.len());
        let mut shellcheck = Command::new("shellcheck");
        shellcheck.args(["--shell", "sh", "--severity", "warning"]).args(&scripts);
        finds_no_fault(&mut shellcheck)?;
    } else {
        skip("the packages' scripts are not checked: there is no shellcheck");
    }
    packer()
}

fn packer() -> Result<()> {
    if packer_version().is_none_or(|version| version < MIN_PACKER) {
        let (major, minor) = MIN_PACKER;
        skip(&format!("the Packer template is not validated: there is no packer {major}.{minor}"));
        return Ok(());
    }
    println!("$ packer validate -syntax-only");
    let mut packer = Command::new("packer");
    // It calls home otherwise.
    packer.env("CHECKPOINT_DISABLE", "1").args(["validate", "-syntax-only"]);
    let status = packer.arg(workspace::root().join("deploy/images")).status();
    let status = status.context("cannot start packer")?;
    ensure!(status.success(), "packer finds fault with its template ({status})");
    Ok(())
}

fn packer_version() -> Option<(u32, u32)> {
    let output =
        Command::new("packer").arg("version").env("CHECKPOINT_DISABLE", "1").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    // As in: Packer v1.11.2
    let (major, rest) = said.split_once(" v")?.1.split_once('.')?;
    Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
}

fn skip(what: &str) {
    println!("skipped: {what}");
}

/// `verify` in a root with the units, the targets they name, and programs where theirs will be.
fn units() -> Result<()> {
    let root = workspace::target().join("units");
    let units = root.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).with_context(|| format!("cannot make {}", units.display()))?;
    for entry in
        fs::read_dir("/usr/lib/systemd/system").context("where are systemd's own units?")?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "target") && path.exists() {
            fs::copy(&path, units.join(path.file_name().unwrap_or_default()))?;
        }
    }
    for program in ["/bin/kill", "/usr/bin/mrgc-agent", "/usr/bin/mrgc-router"] {
        executable(&root.join(&program[1..]))?;
    }
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["--man=no", "verify", "--root"]).arg(&root);
    for package in PACKAGES {
        let name = format!("{}.service", package.name);
        let unit = workspace::root().join("deploy/systemd").join(&name);
        fs::copy(&unit, units.join(&name)).with_context(|| format!("{}", unit.display()))?;
        exposure(&unit)?;
        analyze.arg(&name);
    }
    println!("$ systemd-analyze verify");
    finds_no_fault(&mut analyze)
}

/// A program that nobody runs.
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn exposure(unit: &Path) -> Result<()> {
    let shown = unit.strip_prefix(workspace::root()).unwrap_or(unit);
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager"]).arg(unit);
    let output = security.output().context("cannot start systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    // As in: Overall exposure level for mrgc-agent.service: 2.7 OK
    let level = last.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let level = level.and_then(|level| level.parse::<f64>().ok());
    let level =
        level.with_context(|| format!("systemd-analyze security is not understood: {last}"))?;
    println!("$ systemd-analyze security {}: {level}", shown.display());
    ensure!(
        level < MAX_EXPOSURE,
        "{} is exposed by {level}, and {MAX_EXPOSURE} is too much",
        unit.display()
    );
    Ok(())
}

fn systemd_version() -> Option<u32> {
    let output = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    // As in: systemd 252 (252.39-1~deb12u2)
    said.split_whitespace().nth(1)?.parse().ok()
}

/// All that is sh. Those of rpm name no interpreter: it takes sh.
fn scripts() -> Result<Vec<PathBuf>> {
    let mut scripts = vec![workspace::root().join("deploy/images/install.sh")];
    for folder in ["deb", "rpm"] {
        let folder = workspace::root().join("deploy/packages").join(folder);
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            scripts.push(entry?.path());
        }
    }
    scripts.sort();
    Ok(scripts)
}

fn answers(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    let command = command.arg(argument).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Runs a program that may complain and yet succeed: a line about something of ours is a fault, too.
fn finds_no_fault(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let complains = said.lines().any(|line| line.contains("mrgc-"));
    ensure!(
        output.status.success() && !complains,
        "{program} finds fault ({}):\n{said}",
        output.status
    );
    Ok(())
}

/// A unit's settings, in their order. Comments and empty lines are left out.
#[derive(Debug)]
pub(crate) struct Unit(Vec<(String, String, String)>);

impl Unit {
    pub(crate) fn parse(text: &str) -> Self {
        let mut section = String::new();
        let mut settings = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                settings.push((section.clone(), key.to_owned(), value.to_owned()));
            }
        }
        Self(settings)
    }

    /// Its first value.
    pub(crate) fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.values(section, key).next()
    }

    pub(crate) fn values(&self, section: &str, key: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().filter(move |(within, name, _)| within == section && name == key);
        found.map(|(_, _, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests;
