//! SIGHUP: what is taken over, what waits for a restart, and what a mistake does.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Agent, Setup, until};

impl Agent {
    pub(crate) async fn reload(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
        self.signal("HUP").await;
    }
}

#[tokio::test]
async fn what_can_be_is_taken_over_at_once() {
    let agent = Setup::new().file("[gpu]\nlibrary = \"/nowhere/nvml.so\"\n").start().await;
    let sampled = |_, body: &Value| body["checks"]["gpu"]["status"] == "error";
    agent.health_when("sampled", sampled).await;
    assert_eq!(agent.health().await.0, 200);

    agent
        .reload(
            "[gpu]\nlibrary = \"/nowhere/nvml.so\"\nrequired = true\n\
             [log]\nlevel = \"debug\"\n[inference]\ntimeout_ms = 500\n",
        )
        .await;
    let body = agent.health_when("unfit", |code, _| code == 503).await;
    assert_eq!(body["config"]["restart_needed"], json!(["inference.timeout_ms"]));
    assert_eq!((&body["config"]["error"], &body["config"]["reloads"]), (&Value::Null, &json!(1)));
    until("debug lines", async || {
        let log = agent.log();
        if log.contains("DEBUG") { Ok(()) } else { Err(log) }
    })
    .await;
    let log = agent.log();
    assert!(log.contains(r#"applied=["gpu.required", "log.level"]"#), "{log}");

    // As it was at the start: nothing waits any more.
    agent.reload("[gpu]\nlibrary = \"/nowhere/nvml.so\"\n").await;
    let body = agent.health_when("fit again", |code, _| code == 200).await;
    assert_eq!(body["config"]["restart_needed"], json!([]));
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_is_shown() {
    let agent = Setup::new().start().await;
    agent.metrics_say("mrgc_agent_config_last_reload_successful 1").await;
    agent.reload("[gpu]\nrequired = true\ninterval = 1\n").await;
    let refused = |_, body: &Value| body["config"]["error"].is_string();
    let body = agent.health_when("refused", refused).await;
    let error = body["config"]["error"].as_str().unwrap();
    assert!(error.contains("agent.toml:3: gpu.interval: there is no such key"), "{error}");
    assert_eq!(agent.health().await.0, 200, "the GPU is still not required");
    assert!(agent.log().contains("reload refused"), "{}", agent.log());
    agent.metrics_say("mrgc_agent_config_last_reload_successful 0").await;
    agent.metrics_say("mrgc_agent_config_reloads_total{outcome=\"refused\"} 1").await;

    fs::remove_file(&agent.config).unwrap();
    agent.signal("HUP").await;
    agent
        .health_when("a file that is gone", |code, body| {
            let error = body["config"]["error"].as_str().unwrap_or_default();
            code == 200 && error.starts_with("cannot read ")
        })
        .await;

    agent.reload("").await;
    let body = agent.health_when("valid", |_, body| body["config"]["error"].is_null()).await;
    let changes = body["changes"].as_array().unwrap();
    let config: Vec<&Value> =
        changes.iter().filter(|c| c["what"] == "config").map(|c| &c["to"]).collect();
    assert_eq!(config, ["refused", "valid"]);
    agent.metrics_say("mrgc_agent_config_last_reload_successful 1").await;
}
