//! A Debian root to install into, that nobody else uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{fresh, has, output};
use crate::steps::Steps;

const SUITE: &str = "bookworm";
const DEBOOTSTRAP_LIMIT: Duration = Duration::from_secs(900);

/// A whole Debian with systemd, or an empty root that the host's dpkg installs into.
#[derive(Debug)]
pub(super) struct DebianRoot {
    pub(super) path: PathBuf,
    is_whole: bool,
}

/// Makes the Debian that roots are copied from, once. An error is why there is none.
pub(super) fn base(steps: &Steps, folder: &Path) -> Result<PathBuf> {
    let base = folder.join(SUITE);
    if base.exists() {
        return Ok(base);
    }
    ensure!(has("debootstrap"), "there is no `debootstrap`");
    let unfinished = folder.join("unfinished");
    fresh(&unfinished)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", "--include=systemd-sysv,dbus,procps", SUITE])
        .arg(&unfinished);
    steps.run(&format!("debootstrap: {SUITE}"), &mut debootstrap, DEBOOTSTRAP_LIMIT)?;
    fs::rename(&unfinished, &base)?;
    Ok(base)
}

impl DebianRoot {
    /// A copy of `base`, or without one an empty root.
    pub(super) fn make(base: Option<&Path>, path: &Path) -> Result<Self> {
        let path = path.to_owned();
        fresh(&path)?;
        if let Some(base) = base {
            let mut copy = Command::new("cp");
            output(copy.args(["--archive", "--reflink=auto"]).arg(base.join(".")).arg(&path))?;
            return Ok(Self { path, is_whole: true });
        }
        let dpkg = path.join("var/lib/dpkg");
        for folder in ["info", "updates"] {
            fs::create_dir_all(dpkg.join(folder))?;
        }
        fs::write(dpkg.join("status"), "")?;
        Ok(Self { path, is_whole: false })
    }

    pub(super) fn dpkg(&self, args: &[&str], deb: Option<&Path>) -> Result<String> {
        let mut dpkg = self.dpkg_command();
        dpkg.args(args);
        if let Some(deb) = deb {
            let copy = self.path.join("package.deb");
            fs::copy(deb, &copy).with_context(|| format!("cannot copy {}", deb.display()))?;
            dpkg.arg(if self.is_whole { Path::new("/package.deb") } else { &copy });
        }
        let said = output(dpkg.env("DEBIAN_FRONTEND", "noninteractive"));
        if deb.is_some() {
            fs::remove_file(self.path.join("package.deb"))?;
        }
        said
    }

    /// Where the root is empty the scripts run outside it, and are told where it is (DPKG_ROOT).
    fn dpkg_command(&self) -> Command {
        if self.is_whole {
            return self.inside("dpkg");
        }
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(&self.path).args(["--force-script-chrootless", "--force-depends"]);
        dpkg
    }

    /// A command within the root.
    pub(super) fn inside(&self, program: &str) -> Command {
        let mut chroot = Command::new("chroot");
        chroot.arg(&self.path).arg(program);
        chroot
    }

    pub(super) fn systemctl(&self, args: &[&str]) -> Result<String> {
        output(Command::new("systemctl").arg("--root").arg(&self.path).args(args))
    }

    /// Whether the programs in here can be run.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file.trim_start_matches('/'));
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    pub(super) fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.path.join(file.trim_start_matches('/')).symlink_metadata().is_ok()
    }

    /// All files but those that dpkg and the tools for users keep books in; and of the folders, ours.
    pub(super) fn files(&self) -> Result<BTreeSet<String>> {
        const BOOKS: [&str; 5] =
            ["/var/lib/dpkg", "/var/log", "/etc/passwd", "/etc/group", "/etc/.pwd.lock"];
        let found = output(Command::new("find").arg(&self.path).args(["-printf", "%y /%P\\n"]))?;
        let is_told = |(kind, path): &(&str, &str)| {
            let is_book = BOOKS.iter().any(|book| path.starts_with(book))
                || matches!(
                    *path,
                    "/etc/shadow" | "/etc/shadow-" | "/etc/gshadow" | "/etc/gshadow-"
                );
            path.contains("mrgc") || (*kind != "d" && !is_book)
        };
        let entries = found.lines().filter_map(|line| line.split_once(' '));
        Ok(entries.filter(is_told).map(|(_, path)| path.to_owned()).collect())
    }
}
