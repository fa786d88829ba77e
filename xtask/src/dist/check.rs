//! `cargo xtask dist --check`: what the packages hold, how they come and go, and whether what they install
//! runs under systemd. What this machine cannot do is left out, and said at the end.

mod boot;
mod contents;
mod deb;
mod harness;
mod root;
mod rpm;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Packed;
use crate::deploy;
use crate::steps::Steps;
use root::DebianRoot;

pub(super) fn run(steps: &Steps, folder: &Path, packed: &[Packed]) -> Result<()> {
    let mut left_out = Vec::new();
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    deploy::lint()?;
    for one in packed {
        steps.say(&format!("{}: what the packages hold", one.package.name));
        contents::check_deb(one)?;
        harness::run(steps, &folder.join("unpacked"), one)?;
    }
    if has("rpm") {
        for one in packed {
            steps.say(&format!("{}: rpm installs, upgrades and goes", one.package.name));
            contents::check_rpm(one)?;
            rpm::check(&folder.join("rpm"), one)?;
        }
    } else {
        left_out.push("the .rpm: there is no `rpm`".to_owned());
    }
    if !is_root() {
        left_out.push("installing the .deb, and starting the services: only root can".to_owned());
        return conclude(&left_out);
    }
    let base = root::base(steps, &folder.join("debian"));
    if let Err(reason) = &base {
        left_out.push(format!(
            "the .deb in a whole Debian (dpkg --root stands in), and starting the services: {reason:#}"
        ));
    }
    let base = base.ok();
    for one in packed {
        steps.say(&format!("{}: deb installs, upgrades and goes", one.package.name));
        let root = DebianRoot::make(base.as_deref(), &folder.join("root"))?;
        deb::check(&root, one)?;
        if base.is_some() && has("rpm") {
            rpm::check_scripts(&DebianRoot::make(base.as_deref(), &folder.join("root"))?, one)?;
        }
    }
    match &base {
        Some(base) if has("systemd-nspawn") => boot::check(steps, base, folder, packed)?,
        Some(_) => left_out.push("starting the services: there is no `systemd-nspawn`".to_owned()),
        None => {}
    }
    conclude(&left_out)
}

fn conclude(left_out: &[String]) -> Result<()> {
    for what in left_out {
        println!("left out: {what}");
    }
    println!(
        "the packages are in order{}",
        if left_out.is_empty() { "" } else { ", as far as was looked at" }
    );
    Ok(())
}

fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).exists())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|it| it.stdout.trim_ascii() == b"0")
}

/// A command's output; its failure is told with all that it said.
fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let done = command.output().with_context(|| format!("cannot start {shown}"))?;
    ensure!(
        done.status.success(),
        "{shown} failed ({}):\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// An empty folder, whatever lay there.
fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
