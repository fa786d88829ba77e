//! Who gets no requests, and why: what `mrgc` shows to whoever was paged.

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{Cluster, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually},
    model_server::Failure,
};
use serde_json::Value;

use crate::{
    command::{Said, mrgc, words},
    support::{Setup, failing, model_server},
};

/// The table of `mrgc instances list`, asked of a router.
async fn table(router: &Router) -> Result<String> {
    let url = router.control_url("");
    let Said { code, out, err } = mrgc(router, &["instances", "list", "--router", &url]).await?;
    ensure!(code == Some(0), "{out}{err}");
    Ok(out)
}

fn row(table: &str, id: &str) -> Result<String> {
    let row = table.lines().find(|line| line.starts_with(id));
    Ok(words(row.with_context(|| format!("no {id} in {table}"))?))
}

/// Their probes fail, in a pool of which too much fails to be drained: their own words are those of the last
/// report, and good.
#[tokio::test]
async fn whose_probes_fail_is_shown_with_what_is_wrong() -> Result<()> {
    const CONFIG: &str = "[health_check]\ninterval_seconds = 0.4\ntimeout_seconds = 0.3\n\
        stale_after_seconds = 600.0\nmax_drained_share = 0.0\n[[routes]]\nname = \"any\"\n";
    let cluster = Cluster::start().await?;
    let router = cluster.router(VIRGINIA, CONFIG).await?;
    let mut instances = Vec::new();
    for id in ["i-1", "i-2", "i-3"] {
        instances.push(cluster.instance(&InstanceSpec::new(id, VIRGINIA.id)).await?);
    }
    router.sees_ready(&cluster.client, 3).await?;
    let before = table(&router).await?;
    for instance in &instances {
        ensure!(row(&before, &instance.id)?.ends_with(" yes"), "{before}");
    }
    let check = mrgc(&router, &["instances", "check", "i-3"]).await?;
    let checked = words(check.out.lines().nth(1).context("no row")?);
    ensure!(check.code == Some(0) && checked.starts_with("i-3 yes "), "{}", check.out);
    ensure!(checked.contains(" passed 200 ") && checked.contains(" ms 0 0"), "{checked}");

    for instance in &mut instances[..2] {
        instance.agent.kill().await?;
    }
    let after = eventually("both are shown as out", PATIENCE, || async {
        let table = table(&router).await?;
        for id in ["i-1", "i-2"] {
            ensure!(row(&table, id)?.contains(" no "), "{table}");
        }
        Ok(Some(table))
    })
    .await?;
    for id in ["i-1", "i-2"] {
        ensure!(row(&after, id)?.contains("probes: cannot connect"), "{after}");
    }
    ensure!(row(&after, "i-3")?.ends_with(" yes"), "{after}");
    // One alone might have been drained before the other failed.
    let is_serving = |id| row(&after, id).is_ok_and(|row| row.contains(" available healthy - "));
    ensure!(is_serving("i-1") || is_serving("i-2"), "{after}");

    let json = ["instances", "list", "--json", "--router", &router.control_url("")];
    let lines = mrgc(&router, &json).await?.out;
    let first: Value = serde_json::from_str(lines.lines().next().context("no line")?)?;
    ensure!(first["out_because"].as_str().is_some_and(|why| why.contains("probes: ")), "{first}");
    assert_eq!((&first["ready"], &first["registration"]["id"]), (&false.into(), &"i-1".into()));
    let check = mrgc(&router, &["instances", "check", "i-1"]).await?;
    let checked = words(check.out.lines().nth(1).context("no row")?);
    ensure!(check.code == Some(1) && checked.starts_with("i-1 no unhealthy failed -"), "{checked}");
    Ok(())
}

/// It answers 500 and says nothing of it.
#[tokio::test]
async fn who_is_ejected_is_shown_as_out() -> Result<()> {
    let (ill, well) = (failing("ill", Failure::InternalError).await?, model_server("well").await?);
    let config =
        "[ejection]\nbase_seconds = 60.0\n[[routes]]\nname = \"any\"\npicker = \"near_best\"";
    let lone = Setup::new(config)
        .instance("i-ill", ill.address())
        .instance("i-well", well.address())
        .start()
        .await?;
    let shown = eventually("it is shown as ejected", PATIENCE, || async {
        lone.chat(false).send().await?;
        let table = table(&lone.router).await?;
        ensure!(row(&table, "i-ill")?.contains(" no ejected for "), "{table}");
        Ok(Some(table))
    })
    .await?;
    ensure!(row(&shown, "i-ill")?.contains(" available healthy "), "{shown}");
    ensure!(row(&shown, "i-ill")?.ends_with(" s: requests to it fail"), "{shown}");
    ensure!(row(&shown, "i-well")?.ends_with(" yes"), "{shown}");
    let ill = lone.get("/instances/i-ill").await?;
    assert_eq!((&ill["ready"], &ill["ejected"]), (&false.into(), &true.into()), "{ill}");
    Ok(())
}
