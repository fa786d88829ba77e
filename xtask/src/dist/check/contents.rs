//! What lies in a package: every file with its mode and owner, and which are configuration.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Packed, output};
use crate::dist::Package;
use crate::workspace;

/// Files by path, with mode and owner as `ls` writes them.
type Files = BTreeMap<String, String>;

const PROGRAM: &str = "-rwxr-xr-x root/root";
const DATA: &str = "-rw-r--r-- root/root";

pub(super) fn check_deb(packed: &Packed) -> Result<()> {
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(&packed.deb))?;
    let mut files = Files::new();
    for line in listed.lines() {
        // Mode, owner, size, date, time, path.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, _, _, _, path] = fields[..] else { continue };
        if !mode.starts_with('d') {
            let owner = if owner == "0/0" { "root/root" } else { owner };
            files.insert(path.trim_start_matches('.').to_owned(), format!("{mode} {owner}"));
        }
    }
    let name = packed.package.name;
    let mut expected = expected(packed.package, "/usr/share/zsh/vendor-completions")?;
    expected.insert(format!("/usr/share/doc/{name}/copyright"), DATA.to_owned());
    compare(&files, &expected).with_context(|| format!("{}", packed.deb.display()))?;

    let field =
        |name: &str| output(Command::new("dpkg-deb").arg("--field").arg(&packed.deb).arg(name));
    let depends = field("Depends")?;
    ensure!(
        depends.contains("systemd") && depends.contains("libc6"),
        "{name}.deb depends on {depends:?}: systemd or libc6 is missing"
    );
    let conffiles =
        output(Command::new("dpkg-deb").args(["--info"]).arg(&packed.deb).arg("conffiles"))?;
    ensure!(
        conffiles.trim() == configuration(packed.package),
        "{name}.deb has the conffiles {conffiles:?}"
    );
    Ok(())
}

pub(super) fn check_rpm(packed: &Packed) -> Result<()> {
    let format =
        "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\\n]";
    let listed = output(
        Command::new("rpm")
            .args(["--query", "--package", "--queryformat", format])
            .arg(&packed.rpm),
    )?;
    let (mut files, mut flags) = (Files::new(), BTreeMap::new());
    for line in listed.lines() {
        let mut fields = line.split(' ');
        let (Some(mode), Some(owner), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        files.insert(path.to_owned(), format!("{mode} {owner}"));
        flags.insert(path.to_owned(), fields.next().unwrap_or_default().to_owned());
    }
    let name = packed.package.name;
    let mut expected = expected(packed.package, "/usr/share/zsh/site-functions")?;
    expected.insert(format!("/usr/share/licenses/{name}/LICENSE"), DATA.to_owned());
    compare(&files, &expected).with_context(|| format!("{}", packed.rpm.display()))?;
    let configuration = configuration(packed.package);
    // c: configuration, n: noreplace.
    ensure!(
        flags.get(&configuration).is_some_and(|flags| flags == "cn"),
        "{name}.rpm: {configuration} is not %config(noreplace)"
    );
    let query =
        |what| output(Command::new("rpm").args(["--query", "--package", what]).arg(&packed.rpm));
    let (requires, provides) = (query("--requires")?, query("--provides")?);
    ensure!(
        requires.contains("libc.so.6") && requires.contains("systemd"),
        "{name}.rpm requires {requires}"
    );
    // What is read out of sysusers.d: where nobody else provides it the package has to.
    let is_provided = |user: &str| provides.lines().any(|line| line.starts_with(user));
    for user in
        requires.lines().filter(|line| line.starts_with("user(") || line.starts_with("group("))
    {
        ensure!(is_provided(user), "{name}.rpm requires {user}, which nothing provides");
    }
    Ok(())
}

pub(super) fn configuration(package: Package) -> String {
    format!("/etc/mrgc/{}.toml", package.folder)
}

fn expected(package: Package, zsh: &str) -> Result<Files> {
    let name = package.name;
    let mut files = Files::from([(format!("/usr/bin/{name}"), PROGRAM.to_owned())]);
    let mut add = |path: String| files.insert(path, DATA.to_owned());
    add(configuration(package));
    add(format!("/usr/lib/systemd/system/{name}.service"));
    add(format!("/usr/lib/sysusers.d/{name}.conf"));
    add(format!("/usr/share/bash-completion/completions/{name}"));
    add(format!("/usr/share/fish/vendor_completions.d/{name}.fish"));
    add(format!("{zsh}/_{name}"));
    add(format!("/usr/share/doc/{name}/CHANGELOG.md"));
    add(format!("/usr/share/doc/{name}/install.md"));
    if package.folder == "router" {
        for entry in fs::read_dir(workspace::root().join("policies"))? {
            add(format!("/usr/lib/mrgc/policies/{}.wasm", entry?.file_name().to_string_lossy()));
        }
    }
    Ok(files)
}

fn compare(files: &Files, expected: &Files) -> Result<()> {
    let differs = |(path, mode): (&String, &String), other: &Files| {
        (other.get(path) != Some(mode)).then(|| format!("{mode} {path}"))
    };
    let extra: Vec<_> = files.iter().filter_map(|file| differs(file, expected)).collect();
    let missing: Vec<_> = expected.iter().filter_map(|file| differs(file, files)).collect();
    ensure!(extra.is_empty() && missing.is_empty(), "has {extra:#?}, and should have {missing:#?}");
    Ok(())
}
