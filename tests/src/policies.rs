//! What tests and benchmarks of policies share: the built components, the same policies compiled
//! natively, and one sample fleet in the host's form and in the SDK's.

mod sample;
pub mod stock;

use std::path::{Path, PathBuf};

use anyhow::Context;

pub use sample::{Fleet, facts, full_request, owned, request};

/// The component of the stock policy in this folder of `policies/`.
///
/// # Errors
///
/// It is not built.
pub fn stock_component(name: &str) -> anyhow::Result<Vec<u8>> {
    component("policies", name)
}

/// The component of the test policy in this folder of `tests/policies/`.
///
/// # Errors
///
/// It is not built.
pub fn test_component(name: &str) -> anyhow::Result<Vec<u8>> {
    component("test-policies", name)
}

fn component(folder: &str, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = root().join("target").join(folder).join(format!("{name}.wasm"));
    std::fs::read(&path).with_context(|| {
        format!("{} is not built; run `cargo xtask policies --all` first", path.display())
    })
}

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}
