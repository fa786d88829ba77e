//! Policies that must not be let in, policies that go wrong once they are, and where a version lives.

use anyhow::{Context, Result, ensure};
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::{
    cluster::{Cluster, IRELAND, PATIENCE, Router, VIRGINIA, eventually},
    policies::{stock_component, test_component},
};
use serde_json::Value;

use crate::support::{Lone, PolicyFolder, Setup, client, header, model_server, problem};

const DEADLINES: [(&str, &str); 2] = [
    ("MRGC_ROUTER__POLICIES__SCORE_DEADLINE_MS", "50"),
    ("MRGC_ROUTER__POLICIES__OBSERVE_DEADLINE_MS", "500"),
];

/// What the hostile policy is told to do, and what the refusal of its upload has to say.
const MISDEEDS: &[(&str, &str, &str)] = &[
    ("configure", "loop", "timeout"),
    ("configure", "trap", "trap"),
    ("configure", "allocate", "memory"),
    ("observe", "loop", "timeout"),
    ("observe", "trap", "trap"),
    ("observe", "allocate", "memory"),
    ("forget", "loop", "timeout"),
    ("forget", "trap", "trap"),
    ("score", "loop", "timeout"),
    ("score", "trap", "trap"),
    ("score", "allocate", "memory"),
    ("score", "wrong_length", "wrong length"),
    ("score", "nan", "not a number"),
    ("score", "infinity", "not a number"),
    // Whichever bound it meets first.
    ("score", "huge_answer", "in a trial run"),
    ("score", "huge_log", "too much data"),
    ("explain", "loop", "timeout"),
    ("explain", "trap", "trap"),
    ("explain", "allocate", "memory"),
];

/// What it may do: it is bounded, and counted.
const BOUNDED: &[(&str, &str)] = &[("score", "above_100"), ("score", "log_flood")];

async fn put(lone: &Lone, name: &str, artifact: Vec<u8>) -> Result<reqwest::Response> {
    let url = lone.router.control_url(&format!("/policies/{name}"));
    Ok(lone.client.put(url).body(artifact).send().await?)
}

/// A router that serves by the policy `steady`, and on whose other routes the hostile ones are wanted. In
/// their place runs one that accepts their configs.
async fn router_with_misdeeds(address: std::net::SocketAddr) -> Result<(Lone, PolicyFolder)> {
    let (steady, meek) = (stock_component("score")?, test_component("prefers-the-forbidden")?);
    let all: Vec<_> = MISDEEDS
        .iter()
        .map(|(export, what, _)| (*export, *what))
        .chain(BOUNDED.iter().copied())
        .collect();
    let names: Vec<_> = all.iter().map(|(export, what)| policy_name(export, what)).collect();
    let mut components: Vec<(&str, &[u8])> = vec![("steady", &steady)];
    components.extend(names.iter().map(|name| (name.as_str(), meek.as_slice())));
    let folder = PolicyFolder::new(&components)?;

    let mut toml = "[[routes]]\nname = \"any\"\nmatch = { path = \"/v1/*\" }\n\
                    policies = [{ name = \"steady\" }]\n[[routes]]\nname = \"never\"\npolicies = [\n"
        .to_owned();
    for ((export, what), name) in all.iter().zip(&names) {
        let config = format!("{{ export = \"{export}\", what = \"{what}\" }}");
        toml += &format!("{{ name = \"{name}\", config = {config} }},\n");
    }
    let mut setup = Setup::new(&format!("{toml}]\n")).policies(folder.path());
    for (name, value) in DEADLINES {
        setup = setup.environment(name, value);
    }
    Ok((setup.instance("i-one", address).start().await?, folder))
}

fn policy_name(export: &str, what: &str) -> String {
    format!("{export}-{}", what.replace('_', "-"))
}

#[tokio::test]
async fn each_kind_of_bad_policy_is_refused_and_the_running_version_goes_on() -> Result<()> {
    let server = model_server("one").await?;
    let (lone, _folder) = router_with_misdeeds(server.address()).await?;
    let steady = stock_component("score")?;
    let mut cases: Vec<(String, Vec<u8>, &str)> = vec![
        ("steady".into(), Vec::new(), "not WebAssembly"),
        ("steady".into(), b"#!/bin/sh\n".to_vec(), "not WebAssembly"),
        ("steady".into(), b"\0asm\x01\0\0\0".to_vec(), "not a component"),
        ("steady".into(), b"\0asm\x0d\0\x01\0".to_vec(), "exports no"),
        ("steady".into(), steady[..steady.len() / 2].to_vec(), "does not compile"),
        ("steady".into(), test_component("imports-a-clock")?, "imports"),
        ("steady".into(), test_component("other-version")?, "mrgc:policy/routing@2.0.0"),
        ("steady".into(), test_component("loops-at-start")?, "timeout"),
        ("steady".into(), test_component("loops-in-describe")?, "timeout"),
        ("steady".into(), test_component("rejects-config")?, "no config is good enough"),
        ("steady".into(), [b"\0asm".as_slice(), &vec![0; 9 << 20]].concat(), "over the limit"),
    ];
    let hostile = test_component("hostile")?;
    for (export, what, told) in MISDEEDS {
        cases.push((policy_name(export, what), hostile.clone(), told));
    }
    for (name, artifact, told) in cases {
        let before = lone.get(&format!("/policies/{name}")).await?;
        let len = artifact.len();
        let detail = problem(put(&lone, &name, artifact).await?, 422, "policy-refused").await;
        let detail = detail.with_context(|| format!("{name}, {len} bytes, for {told}"))?;
        ensure!(detail.contains(told), "{name}: expected {told}: {detail}");
        let after = lone.get(&format!("/policies/{name}")).await?;
        for key in ["generation", "digest", "faults"] {
            assert_eq!(before[key], after[key], "{name}: {key}");
        }
        let response = lone.chat(false).send().await?;
        assert_eq!(response.status(), 200);
        assert_eq!(header(response.headers(), "x-mrgc-policies")?, "steady@0", "{name}");
    }
    let steady = lone.get("/policies/steady").await?;
    ensure!(steady["decisions"].as_u64() > Some(MISDEEDS.len() as u64), "{steady}");
    assert_eq!(lone.metric("mrgc_router_native_scores_total").await?, 0.0);

    for (export, what) in BOUNDED {
        let name = policy_name(export, what);
        let uploaded = put(&lone, &name, hostile.clone()).await?;
        ensure!(uploaded.status() == 200, "{name}: {}", uploaded.text().await?);
        assert_eq!(lone.get(&format!("/policies/{name}")).await?["generation"], 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_needs_a_name_and_bounds() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new("[[routes]]\nname = \"any\"")
        .instance("i-one", server.address())
        .start()
        .await?;
    let good = stock_component("round-robin")?;
    for name in ["Upper", "under_score", "dot.dot", "..%2Fpasswd", "a%20b", "%00", &"x".repeat(65)]
    {
        let detail = problem(put(&lone, name, good.clone()).await?, 400, "bad-request").await?;
        ensure!(detail.contains("lower-case"), "{detail}");
    }
    // Over what the API reads at all, it is not read.
    let huge = put(&lone, "huge", vec![0; 40 << 20]).await;
    if let Ok(answer) = huge {
        problem(answer, 413, "body-too-large").await?;
    }
    let unknown = lone.client.get(lone.router.control_url("/policies/nobody")).send().await?;
    problem(unknown, 404, "not-found").await?;

    // One that no route uses is taken all the same: a dry run can ask it.
    let uploaded = put(&lone, "mine", good).await?;
    assert_eq!(uploaded.status(), 200);
    let uploaded: Value = uploaded.json().await?;
    assert_eq!(uploaded["generation"], 1);
    assert_eq!(uploaded["persisted"], false, "there is no store");
    ensure!(uploaded["prepared_ms"].as_f64() > Some(0.0) && uploaded["swapped_ms"].is_number());
    Ok(())
}

/// A router whose only policy goes wrong from the fourth request of a thread on.
async fn router_with_a_late_misdeed(
    address: std::net::SocketAddr,
    what: &str,
    required: bool,
) -> Result<(Lone, PolicyFolder)> {
    let folder = PolicyFolder::new(&[("hostile", &test_component("hostile")?)])?;
    let toml = format!(
        "[[routes]]\nname = \"any\"\npolicies = [{{ name = \"hostile\", required = {required}, \
         config = {{ export = \"score\", what = \"{what}\", from_number = 3 }} }}]\n"
    );
    let mut setup = Setup::new(&toml).policies(folder.path());
    for (name, value) in DEADLINES {
        setup = setup.environment(name, value);
    }
    Ok((setup.instance("i-one", address).start().await?, folder))
}

#[tokio::test]
async fn a_fault_at_run_time_is_answered_by_the_native_score() -> Result<()> {
    let server = model_server("one").await?;
    for what in ["trap", "loop", "allocate", "wrong_length", "nan"] {
        let (lone, _folder) = router_with_a_late_misdeed(server.address(), what, false).await?;
        assert_eq!(lone.metric("mrgc_policy_faults_total").await?, 0.0);
        for i in 0..16 {
            let response = lone.chat(false).send().await?;
            ensure!(response.status() == 200, "{what} {i}: {}", response.text().await?);
            assert_eq!(header(response.headers(), "x-mrgc-instance")?, "i-one");
        }
        ensure!(lone.metric("mrgc_policy_faults_total").await? > 0.0, "{what}");
        ensure!(lone.metric("mrgc_router_native_scores_total").await? > 0.0, "{what}");
        let decisions = lone.get("/policies/hostile").await?["decisions"].as_u64();
        ensure!(decisions >= Some(3), "{what}: it decided well before: {decisions:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_required_policy_that_faults_refuses_until_it_is_mended() -> Result<()> {
    let server = model_server("one").await?;
    for what in ["trap", "nan"] {
        let (lone, _folder) = router_with_a_late_misdeed(server.address(), what, true).await?;
        let refused = eventually("a refusal", PATIENCE, || async {
            let response = lone.chat(false).send().await?;
            Ok((response.status() != 200).then_some(response))
        })
        .await?;
        ensure!(refused.headers().contains_key("retry-after"));
        let detail = problem(refused, 503, "no-capacity").await?;
        ensure!(detail.contains("required policy"), "{detail}");
        let served = server.counters().received;
        for _ in 0..8 {
            problem(lone.chat(false).send().await?, 503, "no-capacity").await?;
        }
        assert_eq!(server.counters().received, served, "{what}: nothing went out");

        let mended = put(&lone, "hostile", test_component("prefers-the-forbidden")?).await?;
        ensure!(mended.status() == 200, "{}", mended.text().await?);
        eventually("the mended version decides", PATIENCE, || async {
            let response = lone.chat(false).send().await?;
            ensure!(response.status() == 200);
            Ok((header(response.headers(), "x-mrgc-policies")? == "hostile@1").then_some(()))
        })
        .await?;
    }
    Ok(())
}

const SCORED: &str = "[[routes]]\nname = \"any\"\npolicies = [{ name = \"score\" }]\n";

/// What a router runs under the name `score`.
async fn runs(client: &reqwest::Client, router: &Router) -> Result<(u64, String)> {
    let policy = router.get(client, "/policies/score").await?;
    let generation = policy["generation"].as_u64().context("no generation")?;
    Ok((generation, policy["digest"].as_str().context("no digest")?.to_owned()))
}

async fn upload(client: &reqwest::Client, router: &Router, artifact: Vec<u8>) -> Result<u64> {
    let answer = client.put(router.control_url("/policies/score")).body(artifact).send().await?;
    let uploaded: Value = answer.error_for_status()?.json().await?;
    assert_eq!(uploaded["persisted"], true);
    uploaded["generation"].as_u64().context("no generation")
}

#[tokio::test]
async fn an_upload_reaches_the_other_region_and_survives_a_restart() -> Result<()> {
    let (cluster, client, folder) = (Cluster::start().await?, client()?, PolicyFolder::score()?);
    let mut virginia = cluster.router_with(VIRGINIA, SCORED, &folder.environment()).await?;
    let ireland = cluster.router_with(IRELAND, SCORED, &folder.environment()).await?;
    let (_, from_folder) = runs(&client, &virginia).await?;
    let same = |a: &Router, b: &Router| {
        let (a, b) = (a.control_url(""), b.control_url(""));
        let client = client.clone();
        async move {
            let get = |base: String| client.get(format!("{base}/policies/score")).send();
            let (a, b): (Value, Value) = (get(a).await?.json().await?, get(b).await?.json().await?);
            let are = a["generation"] == b["generation"] && a["digest"] == b["digest"];
            ensure!(are, "{a} {b}");
            Ok(Some(()))
        }
    };

    let generation = upload(&client, &virginia, stock_component("round-robin")?).await?;
    let (now, uploaded) = runs(&client, &virginia).await?;
    ensure!(now == generation && uploaded != from_folder);
    eventually("Ireland follows", PATIENCE, || same(&virginia, &ireland)).await?;

    let refused =
        client.put(virginia.control_url("/policies/score")).body("no policy").send().await?;
    problem(refused, 422, "policy-refused").await?;
    virginia.program.kill().await?;
    virginia = cluster.router_with(VIRGINIA, SCORED, &folder.environment()).await?;
    assert_eq!(runs(&client, &virginia).await?, (generation, uploaded), "from its first moment on");

    // Uploads on both sides at once: each is a version of its own, and the later one stands everywhere.
    let (a, b) = tokio::try_join!(
        upload(&client, &virginia, stock_component("cost")?),
        upload(&client, &ireland, stock_component("capacity")?),
    )?;
    ensure!(a != b && a.min(b) > generation, "{a}, {b} after {generation}");
    eventually("both run the later one", PATIENCE, || same(&virginia, &ireland)).await?;
    assert_eq!(runs(&client, &virginia).await?.0, a.max(b));
    Ok(())
}

#[tokio::test]
async fn a_bad_artifact_in_the_store_changes_nothing_and_stops_no_router() -> Result<()> {
    let (cluster, client, folder) = (Cluster::start().await?, client()?, PolicyFolder::score()?);
    let mut router = cluster.router_with(VIRGINIA, SCORED, &folder.environment()).await?;
    let good = runs(&client, &router).await?;
    let settings =
        StoreConfig { endpoint: Some(cluster.store_endpoint()?), ..StoreConfig::default() };
    let store = Store::connect(&settings).await?;
    store.put_policy("score", &test_component("rejects-config")?).await?;
    eventually("the router looks at it", PATIENCE, || async {
        Ok(router.program.log().contains("no config is good enough").then_some(()))
    })
    .await?;
    assert_eq!(runs(&client, &router).await?, good);

    router.program.kill().await?;
    router = cluster.router_with(VIRGINIA, SCORED, &folder.environment()).await?;
    assert_eq!(runs(&client, &router).await?, good, "what the folder has is still there");
    let mended = upload(&client, &router, stock_component("round-robin")?).await?;
    assert_eq!(runs(&client, &router).await?.0, mended);
    Ok(())
}
