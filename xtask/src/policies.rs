//! `cargo xtask policies`: the policy crates, built for wasm32 and made components.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use wit_component::ComponentEncoder;

use crate::wasm::{self, WasmToolchain};
use crate::workspace;

/// The root `Cargo.toml`'s profile for what runs inside the router.
const PROFILE: &str = "policy";
/// The stock policies' folder, in the workspace and in `target/`.
const STOCK: &str = "policies";
/// The custom section in which wit-bindgen tells the world that a module implements.
const WORLD_SECTION: &[u8] = b"component-type";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build only these stock policies, such as `round-robin` [default: all]
    names: Vec<String>,
    /// Build the test policies, too, into target/test-policies/
    #[arg(long)]
    tests: bool,
    /// Build mrgc-fleet for wasm32, too: no crate that needs an operating system compiles there
    #[arg(long)]
    fleet: bool,
    /// All of the above
    #[arg(long)]
    all: bool,
}

/// One component on disk.
#[derive(Debug)]
pub(crate) struct Built {
    /// The crate's folder, such as `round-robin`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size_bytes: usize,
    /// False when the file already held these bytes.
    pub(crate) changed: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let toolchain = wasm::find_or_make()?;
    eprintln!("wasm32 toolchain: {}", toolchain.origin);
    let stock = if args.names.is_empty() {
        build_stock(&toolchain)?
    } else {
        let packages: Vec<String> =
            args.names.iter().map(|name| format!("mrgc-policy-{name}")).collect();
        build_packages(&toolchain, &packages, &workspace::target().join(STOCK))?
    };
    print_table(&stock);
    if args.tests || args.all {
        print_table(&build_tests(&toolchain)?);
    }
    if args.fleet || args.all {
        build_fleet(&toolchain)?;
        println!("mrgc-fleet builds for wasm32");
    }
    Ok(())
}

/// Builds every crate under `policies/` into `target/policies/<name>.wasm`.
pub(crate) fn build_stock(toolchain: &WasmToolchain) -> Result<Vec<Built>> {
    build_folder(toolchain, STOCK, STOCK)
}

/// Builds every crate under `tests/policies/` into `target/test-policies/<name>.wasm`.
pub(crate) fn build_tests(toolchain: &WasmToolchain) -> Result<Vec<Built>> {
    build_folder(toolchain, "tests/policies", "test-policies")
}

/// Builds `mrgc-fleet` for wasm32, where no crate that needs an operating system compiles. It does not
/// see std's own clock, files and threads: those compile there, and fail when called.
pub(crate) fn build_fleet(toolchain: &WasmToolchain) -> Result<()> {
    let mut cargo = toolchain.cargo("build");
    cargo.args(["--profile", PROFILE, "--package", "mrgc-fleet"]);
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(
        status.success(),
        "mrgc-fleet does not build for wasm32: it, and all that it uses, must need no operating system"
    );
    Ok(())
}

/// Builds these packages of the workspace, in one cargo command, into `out_dir/<folder's name>.wasm`.
/// All that are no policies are told at once; the others are written all the same.
pub(crate) fn build_packages(
    toolchain: &WasmToolchain,
    packages: &[impl AsRef<str>],
    out_dir: &Path,
) -> Result<Vec<Built>> {
    let known = workspace_packages()?;
    let mut wanted = Vec::new();
    for name in packages.iter().map(AsRef::as_ref) {
        let package = known.iter().find(|package| package.name == name);
        wanted.push(package.with_context(|| format!("the workspace has no package `{name}`"))?);
    }
    build(toolchain, &wanted, out_dir)
}

fn build_folder(toolchain: &WasmToolchain, folder: &str, out: &str) -> Result<Vec<Built>> {
    let folder = workspace::root().join(folder);
    let out_dir = workspace::target().join(out);
    let known = workspace_packages()?;
    let wanted: Vec<&Package> = known.iter().filter(|package| package.lies_in(&folder)).collect();
    ensure!(!wanted.is_empty(), "the workspace has no package under {}", folder.display());
    let built = build(toolchain, &wanted, &out_dir)?;
    remove_others(&out_dir, &built)?;
    Ok(built)
}

fn build(toolchain: &WasmToolchain, packages: &[&Package], out_dir: &Path) -> Result<Vec<Built>> {
    let modules = build_modules(toolchain, packages)?;
    fs::create_dir_all(out_dir).with_context(|| format!("cannot make {}", out_dir.display()))?;
    let mut built = Vec::new();
    let mut errors = Vec::new();
    for package in packages {
        match modules.get(&package.manifest_path) {
            None => errors.push(format!(
                "{}: no WASM module; it needs crate-type = [\"cdylib\"]",
                package.name
            )),
            Some(module) => match component(module) {
                Ok(bytes) => built.push(write(out_dir, package.folder(), &bytes)?),
                Err(error) => errors.push(format!("{}: {error:#}", package.name)),
            },
        }
    }
    if !errors.is_empty() {
        bail!(
            "{} of {} policies did not build:\n  {}",
            errors.len(),
            packages.len(),
            errors.join("\n  ")
        );
    }
    Ok(built)
}

/// Builds the core modules and gives each one's path by its package's manifest.
fn build_modules(
    toolchain: &WasmToolchain,
    packages: &[&Package],
) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut cargo = toolchain.cargo("build");
    cargo.args(["--lib", "--profile", PROFILE, "--message-format", "json-render-diagnostics"]);
    for package in packages {
        cargo.args(["--package", &package.name]);
    }
    let without_lto: Vec<&str> =
        packages.iter().filter(|it| it.is_also_a_library()).map(|it| it.name.as_str()).collect();
    if !without_lto.is_empty() {
        eprintln!(
            "note: cargo builds these without LTO, for their crate-type is not cdylib alone: {}",
            without_lto.join(", ")
        );
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo could not build the policies ({})", output.status);
    let mut modules = BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")) {
        let message: Message =
            serde_json::from_slice(line).context("cargo wrote a message that is not understood")?;
        let module = message
            .filenames
            .into_iter()
            .find(|file| file.extension().is_some_and(|it| it == "wasm"));
        if let (Some(manifest), Some(module)) = (message.manifest_path, module) {
            modules.insert(manifest, module);
        }
    }
    Ok(modules)
}

/// The component of a core module that wit-bindgen wrote the exports of.
fn component(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    encode(&bytes)
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    let has_world = module.windows(WORLD_SECTION.len()).any(|window| window == WORLD_SECTION);
    ensure!(has_world, "it exports no policy; the SDK's export macro does that");
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .context("its module does not become a component")
}

/// Writes through a temporary file, and only what changed: an open router may be watching.
fn write(out_dir: &Path, name: String, bytes: &[u8]) -> Result<Built> {
    let path = out_dir.join(format!("{name}.wasm"));
    let changed = !fs::read(&path).is_ok_and(|old| old == bytes);
    if changed {
        let temporary = out_dir.join(format!(".{name}.{}", std::process::id()));
        fs::write(&temporary, bytes)
            .with_context(|| format!("cannot write {}", temporary.display()))?;
        fs::rename(&temporary, &path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Built { name, path, size_bytes: bytes.len(), changed })
}

/// Removes the components of crates that are gone, so that the folder holds what the sources say.
fn remove_others(out_dir: &Path, built: &[Built]) -> Result<()> {
    for entry in fs::read_dir(out_dir)? {
        let path = entry?.path();
        let is_component = path.extension().is_some_and(|extension| extension == "wasm");
        if is_component && !built.iter().any(|one| one.path == path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn print_table(built: &[Built]) {
    let width = built.iter().map(|one| one.name.len()).max().unwrap_or(0);
    for one in built {
        let kib = one.size_bytes as f64 / 1024.0;
        let state = if one.changed { "written" } else { "unchanged" };
        println!("{:width$}  {kib:>8.1} KiB  {state}", one.name);
    }
}

/// A line of cargo's JSON, as far as we read it.
#[derive(Deserialize)]
struct Message {
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// `cargo metadata`, as far as we read it.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Package {
    fn lies_in(&self, folder: &Path) -> bool {
        self.manifest_path.parent().and_then(Path::parent) == Some(folder)
    }

    fn folder(&self) -> String {
        let folder = self.manifest_path.parent().and_then(Path::file_name).unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }

    fn is_also_a_library(&self) -> bool {
        let lists = |types: &[String], name: &str| types.iter().any(|it| it == name);
        self.targets.iter().any(|target| {
            lists(&target.crate_types, "cdylib") && lists(&target.crate_types, "rlib")
        })
    }
}

fn workspace_packages() -> Result<Vec<Package>> {
    let output = workspace::cargo("metadata")
        .args(["--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "`cargo metadata` failed ({})", output.status);
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("`cargo metadata` is not understood")?;
    Ok(metadata.packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest core module: magic number and version.
    const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

    #[test]
    fn a_module_that_exports_no_policy_is_told() {
        let error = encode(EMPTY_MODULE).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(error, Err("it exports no policy; the SDK's export macro does that".to_owned()));
    }

    #[test]
    fn a_component_is_written_only_when_it_changed() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("xtask-policies-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        assert!(write(&folder, "one".into(), b"first")?.changed);
        assert!(!write(&folder, "one".into(), b"first")?.changed);
        let last = write(&folder, "one".into(), b"second")?;
        assert!(last.changed && fs::read(&last.path)? == b"second");
        write(&folder, "gone".into(), b"old")?;
        remove_others(&folder, std::slice::from_ref(&last))?;
        let left: Vec<PathBuf> =
            fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
        assert_eq!(left, [last.path]);
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
