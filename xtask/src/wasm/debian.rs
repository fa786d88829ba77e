//! A wasm32 toolchain from Debian's packages, for machines that rustup's server is out of reach of.
//!
//! Debian's rustc and its sources are unpacked into a folder, nothing is installed. The standard
//! library for wasm32 is built once and put into that rustc's sysroot; from then on guests build
//! as with rustup's target, with no unstable flag. All this happens in `<folder>/new`; only a
//! finished toolchain is renamed to `<folder>/root`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::{TARGET, WasmToolchain, apt, is_std, remapped, remove_dir, rustc, stdout};
use crate::steps::Steps;
use crate::workspace;

/// Raised when the way of making changes: older toolchains are then made anew.
const FORMAT: &str = "format 1";
const STAMP: &str = "mrgc-stamp";
const SEED: &str = "mrgc_seed";

const UNPACK_LIMIT: Duration = Duration::from_secs(180);
const STD_LIMIT: Duration = Duration::from_secs(900);

/// The toolchain that an earlier run finished in `folder`.
pub(super) fn ready(folder: &Path) -> Result<Option<WasmToolchain>> {
    let root = folder.join("root");
    match fs::read_to_string(root.join(STAMP)) {
        Ok(stamp) if stamp.starts_with(FORMAT) => Ok(Some(toolchain(&root, stamp)?)),
        _ => Ok(None),
    }
}

/// Makes the toolchain. The caller holds the folder's lock.
pub(super) fn make(folder: &Path, steps: &Steps) -> Result<WasmToolchain> {
    let new = folder.join("new");
    remove_dir(&new)?;
    fs::create_dir_all(&new)?;
    let root = new.join("root");

    let debs = apt::download(&new, steps)?;
    unpack(&debs, &root, steps)?;
    let version = check_compiler(&root)?;
    build_std(&new, &root, steps)?;
    // Only building std read the sources, and they are most of the bytes.
    remove_dir(&root.join("usr/src"))?;

    let made_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    fs::write(root.join(STAMP), format!("{FORMAT}\n{version}made at {made_ms} ms\n"))?;
    let finished = folder.join("root");
    remove_dir(&finished)?;
    fs::rename(&root, &finished).with_context(|| format!("cannot rename {}", root.display()))?;
    remove_dir(&new)?;
    steps.say("the wasm32 toolchain is ready");
    ready(folder)?.context("the toolchain just made is not there")
}

fn toolchain(root: &Path, id: String) -> Result<WasmToolchain> {
    Ok(WasmToolchain {
        origin: root.display().to_string(),
        id,
        env: vec![
            ("RUSTC", root.join("usr/bin/rustc").into()),
            ("LD_LIBRARY_PATH", libraries(root).into()),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker()?.into()),
        ],
    })
}

fn libraries(root: &Path) -> PathBuf {
    root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH))
}

/// The ordinary toolchain's `rust-lld`; Debian's packages have none.
fn linker() -> Result<PathBuf> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let version = rustc(&["-vV"])?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`rustc -vV` names no host")?;
    let linker = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/rust-lld");
    ensure!(
        linker.exists(),
        "no linker for wasm32: {} is missing; use a toolchain from rustup",
        linker.display()
    );
    Ok(linker)
}

fn unpack(debs: &Path, root: &Path, steps: &Steps) -> Result<()> {
    fs::create_dir_all(root)?;
    steps.say("unpacking");
    for deb in fs::read_dir(debs)? {
        let deb = deb?.path();
        let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
        steps.run(
            &format!("  {name}"),
            Command::new("dpkg").arg("-x").arg(&deb).arg(root),
            UNPACK_LIMIT,
        )?;
        fs::remove_file(&deb)?;
    }
    link_sources(root)
}

/// Puts the sources where cargo looks for a rustc's own: `usr/lib/rustlib/src/rust`.
fn link_sources(root: &Path) -> Result<()> {
    let sources = fs::read_dir(root.join("usr/src"))?
        .flatten()
        .map(|entry| entry.file_name())
        .find(|name| name.to_string_lossy().starts_with("rustc-"))
        .context("the package of Rust's sources has no usr/src/rustc-*")?;
    let link = root.join("usr/lib/rustlib/src/rust");
    if link.symlink_metadata().is_ok() {
        return Ok(());
    }
    fs::create_dir_all(root.join("usr/lib/rustlib/src"))?;
    symlink(Path::new("../../../src").join(sources), &link)
        .with_context(|| format!("cannot link {}", link.display()))
}

/// The unpacked compiler's version, which proves that it runs here.
fn check_compiler(root: &Path) -> Result<String> {
    let mut rustc = Command::new(root.join("usr/bin/rustc"));
    rustc.arg("-vV").env("LD_LIBRARY_PATH", libraries(root));
    stdout(&mut rustc).context(
        "the unpacked rustc does not run; where it misses a shared library, install that \
         (LLVM's are libedit2, libffi8, libxml2, libz3-4, libzstd1 and zlib1g)",
    )
}

/// Builds std through a crate of nothing, and puts its libraries into the sysroot of `root`.
fn build_std(new: &Path, root: &Path, steps: &Steps) -> Result<()> {
    let seed = new.join("seed");
    fs::create_dir_all(seed.join("src"))?;
    // A workspace of its own: the cache may lie inside ours.
    let manifest = format!(
        "[package]\nname = \"{SEED}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n"
    );
    fs::write(seed.join("Cargo.toml"), manifest)?;
    fs::write(seed.join("src/lib.rs"), "#![no_std]\n")?;

    // Without its bitcode, a guest's link-time optimization fails.
    let mut flags = remapped(&[(root, "/debian")]);
    flags.push("\u{1f}-Cembed-bitcode=yes");
    let mut cargo = workspace::cargo("build");
    cargo
        .args(["--release", "-Zbuild-std=std,panic_abort", "--target", TARGET])
        .arg("--target-dir")
        .arg(seed.join("target"))
        .current_dir(&seed)
        .envs(toolchain(root, String::new())?.env)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    steps.run("building std for wasm32 (about a minute)", &mut cargo, STD_LIMIT)?;
    copy_libraries(&seed.join("target").join(TARGET).join("release/deps"), root)
}

fn copy_libraries(from: &Path, root: &Path) -> Result<()> {
    let to = root.join("usr/lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&to)?;
    let mut has_std = false;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with(&format!("lib{SEED}-")) {
            has_std |= is_std(&name);
            fs::copy(entry.path(), to.join(&name))?;
        }
    }
    ensure!(has_std, "building std left no libstd-*.rlib in {}", from.display());
    Ok(())
}
