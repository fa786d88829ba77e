//! Lints the CloudFormation templates with `cfn-lint`, as far as a machine can: it is a Python program.
//!
//! The one on the PATH is used, else one in a virtual environment under `target/`, made when it is missing.
//! Without Python or a package index the step says that it was skipped, for nothing else depends on it; a
//! template that cfn-lint finds fault with fails the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::steps::Steps;
use crate::workspace;

/// The regions that the templates are deployed to.
const REGIONS: [&str; 3] = ["us-east-1", "us-east-2", "us-west-2"];
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
const VENV_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn lint() -> Result<()> {
    let templates = templates()?;
    let program = match find_or_install() {
        Ok(program) => program,
        Err(reason) => {
            println!("skipped: the CloudFormation templates are not linted: {reason:#}");
            return Ok(());
        }
    };
    println!("$ cfn-lint {} templates", templates.len());
    let mut command = Command::new(&program);
    command.current_dir(workspace::root()).args(["--regions"]).args(REGIONS);
    let status = command.arg("--template").args(&templates).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("cfn-lint finds fault with a template ({status})");
    }
    Ok(())
}

fn templates() -> Result<Vec<PathBuf>> {
    let folder = workspace::root().join("deploy/cloudformation");
    let mut templates = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            templates.push(path);
        }
    }
    templates.sort();
    if templates.is_empty() {
        bail!("there are no templates in {}", folder.display());
    }
    Ok(templates)
}

/// An error is why there is none.
fn find_or_install() -> Result<PathBuf> {
    let on_path = PathBuf::from("cfn-lint");
    if answers(&on_path) {
        return Ok(on_path);
    }
    let folder = workspace::target().join("cfn-lint");
    let program = folder.join("bin/cfn-lint");
    if answers(&program) {
        return Ok(program);
    }
    install(&folder)?;
    if !answers(&program) {
        bail!("{} does not run after it was installed", program.display());
    }
    Ok(program)
}

fn install(folder: &Path) -> Result<()> {
    if !answers(Path::new("python3")) {
        bail!("there is neither cfn-lint nor python3");
    }
    fs::create_dir_all(workspace::target())?;
    let steps = Steps::new(workspace::target().join("cfn-lint.log"))?;
    let mut venv = Command::new("python3");
    steps.run("an environment for cfn-lint", venv.args(["-m", "venv"]).arg(folder), VENV_LIMIT)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--retries", "1", "cfn-lint"]);
    steps.run("installing cfn-lint", &mut pip, INSTALL_LIMIT)
}

fn answers(program: &Path) -> bool {
    let mut command = Command::new(program);
    let command = command.arg("--version").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}
