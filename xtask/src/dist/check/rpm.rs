//! An `.rpm`'s life. This is no system of rpm's: files come and go in a root without dependencies, and the
//! scripts, which are plain sh, run in a Debian one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::contents::configuration;
use super::root::DebianRoot;
use super::{Packed, fresh, output};
use crate::workspace;

/// Installs, upgrades and erases, without scripts.
pub(super) fn check(folder: &Path, packed: &Packed) -> Result<()> {
    let name = packed.package.name;
    fresh(folder)?;
    let root = folder.join("root");
    fs::create_dir(&root)?;
    let rpm = |args: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(&root);
        // Debian's rpm asks whether one really means it.
        if Path::new("/etc/debian_version").exists() {
            rpm.arg("--force-debian");
        }
        output(rpm.args(args))
    };
    rpm(&["--install", "--nodeps", "--noscripts", path(&packed.rpm)?])?;
    let configuration = root.join(configuration(packed.package).trim_start_matches('/'));
    let edited = format!("# Edited.\n{}", fs::read_to_string(&configuration)?);
    fs::write(&configuration, &edited)?;
    rpm(&["--upgrade", "--nodeps", "--noscripts", path(&newer(folder, packed)?)?])?;
    ensure!(
        fs::read_to_string(&configuration)? == edited,
        "the upgrade of {name} lost an edited file"
    );
    let queried = rpm(&["--query", name])?;
    ensure!(queried.contains("-2."), "{name} is not upgraded: {queried}");
    rpm(&["--erase", "--nodeps", "--noscripts", name])?;
    ensure!(
        !root.join("usr/bin").join(name).exists(),
        "{name} is erased, and its program is there"
    );
    let saved = configuration.with_extension("toml.rpmsave");
    ensure!(fs::read_to_string(saved)? == edited, "erasing {name} lost an edited file");
    Ok(())
}

/// Runs the scripts in a Debian where the `.deb`'s files lie.
pub(super) fn check_scripts(root: &DebianRoot, packed: &Packed) -> Result<()> {
    let name = packed.package.name;
    output(Command::new("dpkg-deb").arg("--extract").arg(&packed.deb).arg(&root.path))?;
    let wanted = format!("/etc/systemd/system/multi-user.target.wants/{name}.service");
    let is_user = || root.read("/etc/passwd").map(|users| users.contains(&format!("\n{name}:")));

    // The number is how many versions of the package will be there.
    script(root, packed, "POSTIN", "1")?;
    ensure!(is_user()?, "installing {name}.rpm creates no user");
    ensure!(!root.has(&wanted), "{name}.rpm enables the service");
    root.systemctl(&["enable", name])?;
    script(root, packed, "POSTIN", "2")?;
    script(root, packed, "PREUN", "1")?;
    script(root, packed, "POSTUN", "1")?;
    ensure!(root.has(&wanted), "upgrading {name}.rpm disables the service");
    script(root, packed, "PREUN", "0")?;
    script(root, packed, "POSTUN", "0")?;
    ensure!(!root.has(&wanted), "erasing {name}.rpm leaves the service enabled");
    ensure!(is_user()?, "erasing {name}.rpm removes the user: its number may be given to another");
    Ok(())
}

fn script(root: &DebianRoot, packed: &Packed, tag: &str, argument: &str) -> Result<()> {
    let format = format!("%{{{tag}}}");
    let mut query = Command::new("rpm");
    let text =
        output(query.args(["--query", "--package", "--queryformat", &format]).arg(&packed.rpm))?;
    ensure!(text.trim() != "(none)", "{} has no {tag}", packed.rpm.display());
    root.write("/script", &text)?;
    output(root.inside("/bin/sh").args(["-e", "/script", argument]))
        .with_context(|| format!("{} of {}", tag, packed.rpm.display()))?;
    Ok(())
}

fn newer(folder: &Path, packed: &Packed) -> Result<PathBuf> {
    let mut generate = Command::new(workspace::target().join("tools/bin/cargo-generate-rpm"));
    let newer = folder.join("newer.rpm");
    generate
        .current_dir(workspace::root())
        .args(["generate-rpm", "--package", packed.package.folder])
        .args(["--auto-req", "no", "--payload-compress", "none"])
        .args(["--set-metadata", "release = \"2\"", "--output"])
        .arg(&newer);
    output(&mut generate)?;
    Ok(newer)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
