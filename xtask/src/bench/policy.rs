//! `score` calls of the stock `score` policy, as WASM against the same code natively. The measuring is
//! in `tests/benches/policy.rs`.

use anyhow::{Context, Result, ensure};

use crate::{policies, wasm, workspace};

pub(super) fn run() -> Result<()> {
    policies::build_stock(&wasm::find_or_make()?)?;
    let status = workspace::cargo("bench")
        .args(["--profile", "dist", "--package", "mrgc-tests", "--bench", "policy"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the policy benchmark failed ({status})");
    Ok(())
}
