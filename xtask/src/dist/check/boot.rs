//! Boots a Debian in a container, with systemd as its first process, and plays [`SCENARIO`] in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Packed;
use super::root::DebianRoot;
use crate::steps::Steps;

const SCENARIO: &str = include_str!("scenario.sh");
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const UNIT: &str = "\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash -c '/scenario.sh >/scenario.log 2>&1; echo $? >/scenario.rc; systemctl --no-block poweroff'
";

pub(super) fn check(steps: &Steps, base: &Path, folder: &Path, packed: &[Packed]) -> Result<()> {
    let root = DebianRoot::make(Some(base), &folder.join("root"))?;
    for one in packed {
        let deb = root.path.join("packages").join(one.package.name).with_extension("deb");
        fs::create_dir_all(root.path.join("packages"))?;
        fs::copy(&one.deb, deb).with_context(|| format!("cannot copy {}", one.deb.display()))?;
    }
    root.write("/scenario.sh", SCENARIO)?;
    super::output(root.inside("chmod").args(["755", "/scenario.sh"]))?;
    root.write("/etc/systemd/system/scenario.service", UNIT)?;
    let wants = root.path.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    symlink("/etc/systemd/system/scenario.service", wants.join("scenario.service"))?;

    let mut nspawn = Command::new("systemd-nspawn");
    nspawn.arg("--directory").arg(&root.path);
    // The agent's capability, and a network of its own: the services keep their ports.
    nspawn.args(["--boot", "--capability=CAP_SYSLOG", "--private-network", "--register=no"]);
    if !Path::new("/run/systemd/system").exists() {
        nspawn.arg("--keep-unit");
    }
    steps.run("both packages under systemd", &mut nspawn, BOOT_LIMIT)?;
    let log = root.read("/scenario.log").unwrap_or_default();
    let code = root.read("/scenario.rc").context("the container ended before the scenario did")?;
    ensure!(code.trim() == "0", "under systemd:\n{log}");
    Ok(())
}
