//! `cargo xtask dist`: the programs as `.deb` and `.rpm`, and whether they install, run and go as they should.
//!
//! ```text
//!  build ─► stage: program, completions, scripts ─► cargo-deb, cargo-generate-rpm ─► target/dist-packages/
//!                                                                    --check ─► dist/check
//! ```

mod check;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::steps::Steps;
use crate::{pgo, policies, wasm, workspace};

/// The packagers, as crates with their versions.
const PACKAGERS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];
const INSTALL_LIMIT: Duration = Duration::from_secs(1800);
const BUILD_LIMIT: Duration = Duration::from_secs(3600);
const PACK_LIMIT: Duration = Duration::from_secs(600);

/// What the packages have to run on: Amazon Linux 2023 has this glibc, Debian 12 has 2.36.
const OLDEST_GLIBC: (u32, u32) = (2, 34);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Package the programs that are there, of the same profile
    #[arg(long)]
    no_build: bool,
    /// What to build with; `dev` is quick, and not for use
    #[arg(long, value_name = "NAME", default_value = "dist")]
    profile: String,
    /// Then install, upgrade and remove the packages in a Debian root, and run what is in them; as root,
    /// and with debootstrap, rpm and systemd-container all of it
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pgo: pgo::Options,
}

/// A program that is packaged. Its name is the package's, the service's and the user's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// Its folder in the workspace, and the name of its configuration.
    pub(crate) folder: &'static str,
}

pub(crate) const PACKAGES: [Package; 2] = [
    Package { name: "mrgc-agent", folder: "agent" },
    Package { name: "mrgc-router", folder: "router" },
];

/// A package's two files.
#[derive(Debug)]
struct Packed {
    package: Package,
    deb: PathBuf,
    rpm: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let out = workspace::target().join("dist-packages");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let steps = Steps::new(out.join("dist.log"))?;
    let packagers = packagers(&steps)?;
    if !args.no_build {
        build(&steps, &args)?;
    }
    let programs = workspace::programs(&args.profile)?;
    let mut packed = Vec::new();
    for package in PACKAGES {
        let staged = out.join("staged").join(package.name);
        let program = programs.join(package.name);
        stage::fill(&steps, package, &program, &staged, args.profile == "dist")?;
        packed.push(pack(&steps, &packagers, package, &out, args.profile == "dist")?);
    }
    write_sums(&steps, &out, &packed)?;
    print_table(&packed)?;
    if args.check {
        check::run(&steps, &out.join("check"), &packed)?;
    }
    Ok(())
}

/// The folder of the packagers' programs; what is missing there is installed.
fn packagers(steps: &Steps) -> Result<PathBuf> {
    let root = workspace::target().join("tools");
    let listed = workspace::cargo("install").arg("--list").arg("--root").arg(&root).output();
    let listed = String::from_utf8(listed.context("cannot start cargo")?.stdout)?;
    for (name, version) in PACKAGERS {
        if listed.lines().any(|line| line == format!("{name} v{version}:")) {
            continue;
        }
        let mut install = workspace::cargo("install");
        install.args(["--locked", "--version", version, name, "--root"]).arg(&root);
        steps.run(&format!("installing {name} {version}"), &mut install, INSTALL_LIMIT)?;
    }
    Ok(root.join("bin"))
}

/// Each program alone, so that none has features in it that another one wants.
fn build(steps: &Steps, args: &Args) -> Result<()> {
    let profile = &args.profile;
    steps.say("building the policies");
    policies::build_stock(&wasm::find_or_make()?)?;
    for Package { name, .. } in PACKAGES {
        if name == pgo::PROGRAM && profile == "dist" && pgo::build(&args.pgo, steps)? {
            continue;
        }
        let mut cargo = workspace::cargo("build");
        cargo.args(["--locked", "--bins", "--profile", profile, "--package", name]);
        steps.run(&format!("building {name}, profile {profile}"), &mut cargo, BUILD_LIMIT)?;
    }
    Ok(())
}

/// Packages that are not `for_use` are compressed less, and that quickly.
fn pack(
    steps: &Steps,
    packagers: &Path,
    package: Package,
    out: &Path,
    for_use: bool,
) -> Result<Packed> {
    let Package { name, folder } = package;
    let mut deb = Command::new(packagers.join("cargo-deb"));
    deb.current_dir(workspace::root())
        .args(["deb", "--no-build", "--no-strip", "--locked", "--package", name, "--output"])
        .arg(out);
    let mut rpm = Command::new(packagers.join("cargo-generate-rpm"));
    rpm.current_dir(workspace::root())
        .args(["generate-rpm", "--package", folder, "--auto-req", "builtin", "--output"])
        .arg(out);
    if !for_use {
        deb.arg("--fast");
        rpm.args(["--payload-compress", "gzip"]);
    }
    for kind in ["deb", "rpm"] {
        remove_older(out, name, kind)?;
    }
    steps.run(&format!("packaging {name}: deb"), &mut deb, PACK_LIMIT)?;
    steps.run(&format!("packaging {name}: rpm"), &mut rpm, PACK_LIMIT)?;
    Ok(Packed { package, deb: packed(out, name, "deb")?, rpm: packed(out, name, "rpm")? })
}

/// The packages of `name` in `out`: as in `mrgc-agent_0.1.0-1_amd64.deb`, `mrgc-agent-0.1.0-1.x86_64.rpm`.
fn packages_in(out: &Path, name: &str, kind: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file.starts_with(name) && file.ends_with(&format!(".{kind}")) {
            found.push(path);
        }
    }
    Ok(found)
}

fn remove_older(out: &Path, name: &str, kind: &str) -> Result<()> {
    for path in packages_in(out, name, kind)? {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn packed(out: &Path, name: &str, kind: &str) -> Result<PathBuf> {
    let mut found = packages_in(out, name, kind)?;
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => bail!("{} should hold one .{kind} of {name}", out.display()),
    }
}

/// For `sha256sum --check`, beside the packages.
fn write_sums(steps: &Steps, out: &Path, packed: &[Packed]) -> Result<()> {
    steps.say("checksums");
    let mut sha256sum = Command::new("sha256sum");
    sha256sum.current_dir(out);
    for path in packed.iter().flat_map(|one| [&one.deb, &one.rpm]) {
        sha256sum.arg(path.file_name().unwrap_or_default());
    }
    let sums = sha256sum.output().context("cannot start sha256sum")?;
    ensure!(sums.status.success(), "sha256sum failed ({})", sums.status);
    fs::write(out.join("SHA256SUMS"), sums.stdout).context("cannot write SHA256SUMS")
}

fn print_table(packed: &[Packed]) -> Result<()> {
    for path in packed.iter().flat_map(|one| [&one.deb, &one.rpm]) {
        let mib = fs::metadata(path)?.len() as f64 / (1024.0 * 1024.0);
        let shown = path.strip_prefix(workspace::root()).unwrap_or(path);
        println!("{mib:>7.1} MiB  {}", shown.display());
    }
    Ok(())
}
