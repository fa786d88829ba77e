//! A `.deb`'s life: installed, upgraded, removed, purged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::contents::configuration;
use super::root::DebianRoot;
use super::{Packed, fresh, output};

const EDITED: &str = "# Edited by an operator.\n";

pub(super) fn check(root: &DebianRoot, packed: &Packed) -> Result<()> {
    let name = packed.package.name;
    let before = root.files()?;
    root.dpkg(&["--install"], Some(&packed.deb))?;
    let state = DebState { root, name, configuration: configuration(packed.package) };
    state.is_installed()?;

    let original = root.read(&state.configuration)?;
    let edited = format!("{EDITED}{original}");
    root.write(&state.configuration, &edited)?;
    root.write(&format!("/etc/mrgc/{}.env", packed.package.folder), "# secrets\n")?;
    root.systemctl(&["enable", name])?;
    ensure!(state.is_enabled(), "`systemctl enable {name}` has no effect");

    let newer = newer(packed, &state.configuration)?;
    root.dpkg(&["--force-confold", "--install"], Some(&newer))?;
    ensure!(
        root.read(&state.configuration)? == edited,
        "the upgrade of {name} lost an edited file"
    );
    ensure!(
        root.has(&format!("{}.dpkg-dist", state.configuration)),
        "the upgrade of {name} does not show the new version of an edited file"
    );
    ensure!(state.is_enabled(), "the upgrade of {name} disabled it");
    state.has_one_user()?;

    root.write(&format!("/var/lib/{name}/state"), "state\n")?;
    root.write(&format!("/var/log/{name}/log"), "log\n")?;
    root.dpkg(&["--remove", name], None)?;
    ensure!(!state.is_enabled(), "{name} is removed, and still enabled");
    ensure!(!root.has(&format!("/usr/bin/{name}")), "{name} is removed, and its program is there");
    ensure!(root.read(&state.configuration)? == edited, "removing {name} lost its configuration");
    ensure!(root.has(&format!("/var/lib/{name}/state")), "removing {name} lost its state");

    root.dpkg(&["--purge", name], None)?;
    let after = root.files()?;
    let left: Vec<&String> = after.difference(&before).collect();
    ensure!(left.is_empty(), "purging {name} leaves {left:?}");
    let users = root.read("/etc/passwd")?;
    ensure!(!users.contains("mrgc-"), "purging {name} leaves its user");
    Ok(())
}

/// What is so in a root where a package is installed.
struct DebState<'a> {
    root: &'a DebianRoot,
    name: &'a str,
    configuration: String,
}

impl DebState<'_> {
    fn is_installed(&self) -> Result<()> {
        let Self { root, name, configuration } = self;
        ensure!(!self.is_enabled(), "{name} is enabled as soon as it is installed");
        self.has_one_user()?;
        let groups = root.read("/etc/group")?;
        let is_member = groups.lines().any(|line| line.starts_with("ne:") && line.ends_with(name));
        ensure!(*name != "mrgc-agent" || is_member, "mrgc-agent is no member of the group ne");
        if root.is_whole() {
            let said = output(root.inside(&format!("/usr/bin/{name}")).arg("--version"))?;
            ensure!(said.starts_with(name), "{name} --version says {said:?}");
            output(root.inside(&format!("/usr/bin/{name}")).args([
                "validate",
                "--config",
                configuration,
            ]))?;
        }
        Ok(())
    }

    fn is_enabled(&self) -> bool {
        self.root.has(&format!("/etc/systemd/system/multi-user.target.wants/{}.service", self.name))
    }

    fn has_one_user(&self) -> Result<()> {
        let users = self.root.read("/etc/passwd")?;
        let ours: Vec<&str> =
            users.lines().filter(|line| line.starts_with(&format!("{}:", self.name))).collect();
        let [user] = ours[..] else { anyhow::bail!("{} has the users {ours:?}", self.name) };
        ensure!(user.ends_with("/nologin"), "somebody can log in as {user}");
        Ok(())
    }
}

/// The package in a version that follows, with another text in its configuration.
fn newer(packed: &Packed, configuration: &str) -> Result<PathBuf> {
    let folder = packed.deb.with_extension("newer");
    fresh(&folder)?;
    let unpacked = folder.join("unpacked");
    output(Command::new("dpkg-deb").arg("--raw-extract").arg(&packed.deb).arg(&unpacked))?;
    edit(&unpacked.join("DEBIAN/control"), |text| text.replace("-1\n", "-2\n"))?;
    edit(&unpacked.join(configuration.trim_start_matches('/')), |text| format!("{text}# New.\n"))?;
    let deb = folder.join("newer.deb");
    output(Command::new("dpkg-deb").args(["-Zgzip", "-z1", "--build"]).arg(&unpacked).arg(&deb))?;
    Ok(deb)
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let changed = change(text.clone());
    ensure!(changed != text, "{} is not as expected", path.display());
    fs::write(path, changed).with_context(|| format!("cannot write {}", path.display()))
}
