//! The router's configuration, as an operator meets it.

use std::process::Output;

use anyhow::{Result, ensure};
use mrgc_tests::cluster::{Cluster, InstanceSpec, PATIENCE, VIRGINIA, binary_path, eventually};
use tokio::process::Command;

use crate::support::{chat, fresh_client, problem};

async fn validate(config: &str, environment: &[(&str, &str)]) -> Result<Output> {
    let file = tempfile::NamedTempFile::with_suffix(".toml")?;
    std::fs::write(file.path(), config)?;
    let mut command = Command::new(binary_path("mrgc-router")?);
    command.args(["validate", "--config"]).arg(file.path()).envs(environment.iter().copied());
    Ok(command.output().await?)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Each mistake ends its line with `# text`, of which a message on that line has to speak; one that is told of a
/// whole section is at its head.
const MISTAKES: &str = r#"
region = "us-east-1"
colour = "red"                       # colour
[listen]
data = "nowhere"                     # listen.data
[limits]
attempts = 99                        # limits.attempts
head_bytes = -1                      # limits.head_bytes
[health_check]                       # 3 retries may take 8000 ms, longer than the interval
timeout_seconds = 2.0
retries = 3
interval_seconds = 0                 # health_check.interval_seconds
[ejection]                           # trial_requests # (9000 ms) must be above 0 and at most
trial_requests = 0
base_seconds = 9.0
max_seconds = 3.0
[failover]                           # unhealthy_threshold 0.6 is above degraded_threshold 0.5 # normal_threshold 0.9 is above recovery_threshold 0.7 # degraded_share_moved 0.99
unhealthy_threshold = 0.6
normal_threshold = 0.9
recovery_threshold = 0.7
degraded_share_moved = 0.99
[peers]
key = "short"                        # peers.key
[[regions]]                          # ftp://x
region_id = "us-east-1"
endpoint = "ftp://x"
[[regions]]                          # longitude
region_id = "eu-west-1"
endpoint = "http://x:1"
framework = ["gdpr"]                 # framework
latitude = 53.3
[[instances]]
id = "i-1"
region = "eu-west-9"                 # eu-west-9
pool = "p"
address = "nothing"                  # host:port
[[routes]]
name = "a"
policies = [{ name = "Bad Name" }]   # Bad Name
[[routes]]
name = "a"                           # twice
[[tenants]]
name = "t"
key_sha256 = "abc"                   # key_sha256
"#;

#[tokio::test]
async fn every_mistake_is_told_at_once_with_its_line() -> Result<()> {
    let output = validate(MISTAKES, &[]).await?;
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for (number, line) in (1..).zip(MISTAKES.lines()) {
        let place = format!(".toml:{number}:");
        for text in line.split("# ").skip(1).map(str::trim) {
            let is_told = told.lines().any(|told| told.contains(&place) && told.contains(text));
            ensure!(is_told, "line {number} is not told of {text}:\n{told}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_right_is_said_to_be() -> Result<()> {
    let example =
        std::fs::read_to_string(mrgc_tests::policies::root().join("router/router.example.toml"))?;
    let output = validate(&example, &[]).await?;
    ensure!(output.status.success(), "{}", told(&output));
    ensure!(told(&output).contains(": ok"), "{}", told(&output));
    Ok(())
}

#[tokio::test]
async fn what_is_no_toml_or_not_there_is_told() -> Result<()> {
    let output = validate("region = \"us-east-1\"\n[limits\n", &[]).await?;
    ensure!(
        output.status.code() == Some(1) && told(&output).contains(".toml:2"),
        "{}",
        told(&output)
    );
    let mut command = Command::new(binary_path("mrgc-router")?);
    let output = command.args(["validate", "--config", "/nowhere/router.toml"]).output().await?;
    ensure!(output.status.code() == Some(1), "{}", told(&output));
    ensure!(told(&output).contains("/nowhere/router.toml"), "{}", told(&output));
    Ok(())
}

#[tokio::test]
async fn the_environment_wins_over_the_file_and_its_mistakes_name_the_variable() -> Result<()> {
    let name = "MRGC_ROUTER__HEALTH_CHECK__INTERVAL_SECONDS";
    let good = "region = \"us-east-1\"\n[[regions]]\nregion_id = \"us-east-1\"\nendpoint = \"http://x:1\"\n";
    let bad = format!("{good}[health_check]\ninterval_seconds = 0\n");
    ensure!(!validate(&bad, &[]).await?.status.success());
    ensure!(validate(&bad, &[(name, "30")]).await?.status.success());
    for wrong in ["0", "soon", "-1", ""] {
        let output = validate(good, &[(name, wrong)]).await?;
        ensure!(
            output.status.code() == Some(1) && told(&output).contains(name),
            "{wrong:?}: {}",
            told(&output)
        );
    }
    let output = validate(good, &[("MRGC_ROUTER__HEALTH_CHECK__INTERVAL", "30")]).await?;
    ensure!(output.status.code() == Some(1), "an unknown variable: {}", told(&output));
    Ok(())
}

/// An agent that is gone is noticed by probes long before its reports are stale, if those come often.
#[tokio::test]
async fn probes_come_as_often_as_the_environment_says() -> Result<()> {
    let (cluster, client) = (Cluster::start().await?, fresh_client()?);
    let route = "[[routes]]\nname = \"any\"\n\
                 [health_check]\ninterval_seconds = 3600\nstale_after_seconds = 3600\n";
    let environment = [("MRGC_ROUTER__HEALTH_CHECK__INTERVAL_SECONDS", "0.1")];
    let router = cluster.router_with(VIRGINIA, route, &environment).await?;
    let mut instance = cluster.instance(&InstanceSpec::new("i-us", VIRGINIA.id)).await?;
    router.sees_ready(&client, 1).await?;
    instance.agent.kill().await?;
    router.sees_ready(&client, 0).await?;
    let refused = eventually("it gets no requests", PATIENCE, || async {
        let response = chat(&client, &router, "llama", false).send().await?;
        Ok((response.status() != 200).then_some(response))
    })
    .await?;
    problem(refused, 503, "no-capacity").await?;
    Ok(())
}
