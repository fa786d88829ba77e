//! What travels between routers, seen from the other side: a real router whose peer, or whose client, is
//! the test.

use anyhow::{Context, Result, ensure};
use mrgc_tests::model_server::Failure;
use serde_json::{Value, json};

use crate::support::{Dead, Lone, MODEL, Scripted, Setup, failing, header, model_server, problem};

const KEY: &str = "a-key-of-these-tests";
/// `printf clinic-key | sha256sum`
const CLINIC: &str = "[[tenants]]\nname = \"clinic\"\n\
    key_sha256 = \"2a3bfe295a591e54cc7811ee04f78e4791deaa5fd257d8d2000653b3cac408f9\"\n\
    needs = { frameworks = [\"gdpr\"] }\n";

/// A router of us-east-1 that knows a peer key and a route for everything.
fn with_key(more: &str) -> Setup {
    Setup::new(&format!("[[routes]]\nname = \"any\"\n[peers]\nkey = \"{KEY}\"\n{more}"))
}

const NO_CAPACITY: &str = "HTTP/1.1 503 Service Unavailable\r\nx-mrgc-no-capacity: 1\r\n\
    retry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// The hop that a peer received, as it echoed it.
fn hop(completion: &Value) -> Result<Value> {
    let hop = completion["received_headers"]["x-mrgc-hop"].as_str().context("no hop")?;
    Ok(serde_json::from_str(hop)?)
}

#[tokio::test]
async fn a_hop_carries_the_key_the_needs_the_deadline_and_the_regions_tried() -> Result<()> {
    let peer = model_server("peer").await?;
    let setup = with_key(CLINIC).region("eu-west-1", peer.address(), &["gdpr", "hipaa"]);
    let lone = setup.instance_in("eu-west-1", "i-eu", peer.address()).start().await?;
    let request = lone
        .chat(true)
        .header("x-mock-echo", "1")
        .header("authorization", "Bearer clinic-key")
        .header("x-mrgc-frameworks", "hipaa")
        .header("x-mrgc-deadline-ms", "9000")
        .header("x-mrgc-session", "s")
        .header("x-mrgc-hop", "{\"facts\":{}}")
        .header("x-mrgc-made-up", "1");
    let response = request.send().await?.error_for_status()?;
    let decision = header(response.headers(), "x-mrgc-decision")?.to_owned();
    let text = response.text().await?;
    let first = text.strip_prefix("data: ").and_then(|text| text.split("\n\n").next());
    let completion: Value = serde_json::from_str(first.context("no event")?)?;

    assert_eq!(completion["received_headers"]["x-mrgc-peer-key"], KEY);
    assert_eq!(completion["received_headers"]["x-mrgc-made-up"], Value::Null);
    let hop = hop(&completion)?;
    assert_eq!(hop["facts"]["tenant"], "clinic");
    assert_eq!(hop["facts"]["needs"]["frameworks"], json!(["hipaa", "gdpr"]));
    assert_eq!(hop["facts"]["stream"], true);
    assert_eq!(hop["route"], "any");
    assert_eq!(hop["regions_tried"], json!(["us-east-1"]));
    assert_eq!(hop["decision"], decision);
    let deadline_ms = hop["deadline_ms"].as_u64().context("no deadline")?;
    ensure!((1..=9000).contains(&deadline_ms), "{deadline_ms}");
    assert_eq!(hop["attempts_left"], 3, "{hop}");
    Ok(())
}

#[tokio::test]
async fn a_region_without_capacity_is_passed_by_and_not_held_to_have_failed() -> Result<()> {
    let (full, peer) = (Scripted::start(NO_CAPACITY).await?, model_server("peer").await?);
    let setup = with_key("")
        .region("eu-west-1", full.address, &["gdpr"])
        .region("eu-central-1", peer.address(), &["gdpr"])
        .instance_in("eu-west-1", "i-full", full.address);
    let lone = setup.instance_in("eu-central-1", "i-eu", peer.address()).start().await?;
    // Regions of equal score come in a random order, and a full one stays among them.
    let mut asked = 0;
    while full.requests() < 4 {
        asked += 1;
        ensure!(asked < 200, "the full region is no longer asked");
        let response = lone.chat(false).header("x-mrgc-frameworks", "gdpr").send().await?;
        ensure!(response.status() == 200, "{}", response.text().await?);
        assert_eq!(header(response.headers(), "x-served-by")?, "peer");
    }
    assert_eq!(lone.metric("mrgc_router_ejections_total").await?, 0.0);
    assert_eq!(lone.metric("mrgc_router_client_gone_total").await?, 0.0);
    Ok(())
}

#[tokio::test]
async fn where_no_region_has_capacity_the_client_is_told_to_come_back() -> Result<()> {
    let full = Scripted::start(NO_CAPACITY).await?;
    let setup = with_key("").region("eu-west-1", full.address, &["gdpr"]);
    let lone = setup.instance_in("eu-west-1", "i-full", full.address).start().await?;
    let response = lone.chat(false).header("x-mrgc-frameworks", "gdpr").send().await?;
    ensure!(response.status() == 503, "{} {}", response.status(), response.text().await?);
    ensure!(response.headers().contains_key("retry-after"));
    problem(response, 503, "no-capacity").await?;
    Ok(())
}

#[tokio::test]
async fn a_peer_that_is_dead_or_refuses_the_key_is_no_answer_to_the_client() -> Result<()> {
    let (dead, peer) = (Dead::new()?, model_server("peer").await?);
    let wrong_key = Scripted::start(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\ncontent-length: 47\r\n\r\n\
         {\"type\":\"urn:mrgc:problem:wrong-key\",\"status\":403}",
    )
    .await?;
    for bad in [dead.address, wrong_key.address] {
        let setup = with_key("")
            .region("eu-west-1", bad, &["gdpr"])
            .region("eu-central-1", peer.address(), &["gdpr"])
            .instance_in("eu-west-1", "i-bad", bad);
        let lone = setup.instance_in("eu-central-1", "i-eu", peer.address()).start().await?;
        for _ in 0..16 {
            let response = lone.chat(false).header("x-mrgc-frameworks", "gdpr").send().await?;
            ensure!(response.status() == 200, "{} {}", response.status(), response.text().await?);
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_a_key_no_request_crosses_regions() -> Result<()> {
    let peer = model_server("peer").await?;
    let setup =
        Setup::new("[[routes]]\nname = \"any\"").region("eu-west-1", peer.address(), &["gdpr"]);
    let lone = setup.instance_in("eu-west-1", "i-eu", peer.address()).start().await?;
    let response = lone.chat(false).header("x-mrgc-frameworks", "gdpr").send().await?;
    ensure!(response.status().is_server_error(), "{response:?}");
    assert_eq!(peer.counters().received, 0);
    Ok(())
}

/// A request as a peer would send it.
fn as_peer(lone: &Lone, hop: &Value) -> reqwest::RequestBuilder {
    lone.chat(false).header("x-mrgc-peer-key", KEY).header("x-mrgc-hop", hop.to_string())
}

fn any_hop() -> Value {
    json!({
        "facts": { "model": MODEL },
        "route": "any",
        "attempts_left": 2,
        "deadline_ms": 20_000,
        "regions_tried": ["eu-west-1"],
        "decision": "made-elsewhere",
    })
}

#[tokio::test]
async fn a_hop_is_served_here_or_nowhere() -> Result<()> {
    let (here, there) = (model_server("here").await?, model_server("there").await?);
    let setup = with_key("")
        .region("eu-central-1", there.address(), &["gdpr"])
        .instance("i-here", here.address());
    let lone = setup.instance_in("eu-central-1", "i-there", there.address()).start().await?;

    let served = as_peer(&lone, &any_hop()).send().await?;
    assert_eq!(served.status(), 200);
    assert_eq!(header(served.headers(), "x-mrgc-instance")?, "i-here");
    assert_eq!(header(served.headers(), "x-mrgc-decision")?, "made-elsewhere");

    // What it needs is not here: another region may have it, but a hop hops no further.
    let mut needy = any_hop();
    needy["facts"]["needs"] = json!({ "frameworks": ["gdpr"] });
    let refused = as_peer(&lone, &needy).send().await?;
    assert_eq!(header(refused.headers(), "x-mrgc-no-capacity")?, "1");
    problem(refused, 503, "no-capacity").await?;
    // A client's header cannot take the place of what the hop says.
    let refused = as_peer(&lone, &needy).header("x-mrgc-frameworks", "soc2").send().await?;
    problem(refused, 503, "no-capacity").await?;

    let mut been_here = any_hop();
    been_here["regions_tried"] = json!(["eu-west-1", "us-east-1"]);
    problem(as_peer(&lone, &been_here).send().await?, 508, "loop").await?;

    let wrong = lone
        .chat(false)
        .header("x-mrgc-peer-key", "another")
        .header("x-mrgc-hop", any_hop().to_string());
    problem(wrong.send().await?, 403, "wrong-key").await?;
    for garbled in ["", "{", "[]", "{\"facts\":{\"needs\":{\"framework\":[]}}}"] {
        let sent = lone.chat(false).header("x-mrgc-peer-key", KEY).header("x-mrgc-hop", garbled);
        let detail = problem(sent.send().await?, 400, "bad-request").await?;
        ensure!(detail.contains("x-mrgc-hop"), "{detail}");
    }
    let keyed = lone.chat(false).header("x-mrgc-peer-key", KEY);
    problem(keyed.send().await?, 400, "bad-request").await?;
    assert_eq!((here.counters().received, there.counters().received), (1, 0));
    Ok(())
}

#[tokio::test]
async fn a_hops_deadline_and_attempts_bound_what_is_done_here() -> Result<()> {
    let hung = failing("hung", Failure::Hang).await?;
    let lone = with_key("").instance("i-hung", hung.address()).start().await?;
    let mut hop = any_hop();
    hop["deadline_ms"] = 200.into();
    problem(as_peer(&lone, &hop).send().await?, 504, "deadline").await?;

    let odd = Scripted::start("HTTP/1.1 2").await?;
    let mut setup = with_key("");
    for i in 0..5 {
        setup = setup.instance(&format!("i-{i}"), odd.address);
    }
    let lone = setup.start().await?;
    let mut hop = any_hop();
    hop["attempts_left"] = 1.into();
    problem(as_peer(&lone, &hop).send().await?, 502, "all-attempts-failed").await?;
    assert_eq!(odd.requests(), 1);
    hop["attempts_left"] = 1_000_000.into();
    problem(as_peer(&lone, &hop).send().await?, 502, "all-attempts-failed").await?;
    assert_eq!(odd.requests(), 1 + 3, "the limit here holds, too");
    hop["attempts_left"] = 0.into();
    ensure!(as_peer(&lone, &hop).send().await?.status().is_server_error());
    assert_eq!(odd.requests(), 4);
    Ok(())
}

#[tokio::test]
async fn a_request_that_was_moved_here_is_taken_only_where_there_is_room() -> Result<()> {
    let server = model_server("here").await?;
    let setup = with_key("").instance("i-here", server.address()).and("slots = 1\n");
    let lone = setup.start().await?;
    let mut moved = any_hop();
    moved["moved"] = true.into();
    assert_eq!(as_peer(&lone, &moved).send().await?.status(), 200);

    let held = lone.chat(true).header("x-mock-hold", "1").send().await?;
    for priority in [-1, 0, 10] {
        moved["facts"]["priority"] = priority.into();
        let refused = as_peer(&lone, &moved).send().await?;
        assert_eq!(header(refused.headers(), "x-mrgc-no-capacity")?, "1");
        ensure!(refused.headers().contains_key("retry-after"));
        problem(refused, 503, "no-capacity").await?;
    }
    assert_eq!(lone.metric("mrgc_router_shed_total").await?, 0.0, "another may have room");
    // Whoever chose this region, or enters here, is never refused for want of room.
    assert_eq!(as_peer(&lone, &any_hop()).send().await?.status(), 200);
    assert_eq!(lone.chat(false).send().await?.status(), 200);
    server.release();
    ensure!(held.text().await?.ends_with("data: [DONE]\n\n"));
    assert_eq!(as_peer(&lone, &moved).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn where_yet_another_region_can_be_tried_evidence_against_this_one_stands() -> Result<()> {
    let dead = Dead::new()?;
    let ejection = "[ejection]\nbase_seconds = 60\n";
    let lone = with_key(ejection).instance("i-dead", dead.address).start().await?;
    let mut hop = any_hop();
    hop["elsewhere"] = true.into();
    problem(as_peer(&lone, &hop).send().await?, 503, "all-attempts-failed").await?;
    assert_eq!(lone.metric("mrgc_instance_ejected").await?, 1.0);
    problem(as_peer(&lone, &hop).send().await?, 503, "no-capacity").await?;
    assert_eq!(lone.metric("mrgc_router_connect_failures_total").await?, 1.0);
    // Where nobody else is left, trying it beats refusing.
    problem(as_peer(&lone, &any_hop()).send().await?, 503, "all-attempts-failed").await?;
    assert_eq!(lone.metric("mrgc_router_connect_failures_total").await?, 2.0);
    Ok(())
}

#[tokio::test]
async fn what_a_tenant_or_a_route_needs_no_header_takes_away() -> Result<()> {
    let (here, peer) = (model_server("here").await?, model_server("peer").await?);
    let setup = |toml: &str| {
        let route = "[[routes]]\nname = \"any\"";
        Setup::new(&format!("{route}\n{toml}\n[peers]\nkey = \"{KEY}\""))
            .region("eu-west-1", peer.address(), &["gdpr"])
            .instance("i-here", here.address())
            .instance_in("eu-west-1", "i-eu", peer.address())
    };
    let tenant = setup(CLINIC).start().await?;
    let route = setup("needs = { frameworks = [\"gdpr\"], allowed_regions = [\"eu-west-1\"] }")
        .start()
        .await?;
    for lone in [&tenant, &route] {
        let as_clinic = || lone.chat(false).header("authorization", "Bearer clinic-key");
        for (name, value) in [
            ("x-none", "1"),
            // Another key beside the clinic's does not hide it.
            ("authorization", "Bearer another"),
            ("x-mrgc-frameworks", "GDPR"),
            ("x-mrgc-allowed-regions", "eu-west-1"),
            ("x-mrgc-hop", "{\"facts\":{\"needs\":{}}}"),
            ("x-mrgc-session", "s"),
        ] {
            for _ in 0..4 {
                let response = as_clinic().header(name, value).send().await?;
                ensure!(response.status() == 200, "{name}: {}", response.text().await?);
                assert_eq!(header(response.headers(), "x-served-by")?, "peer", "{name}");
            }
        }
        for (name, value) in
            [("x-mrgc-frameworks", "soc2"), ("x-mrgc-allowed-regions", "us-east-1")]
        {
            problem(as_clinic().header(name, value).send().await?, 451, "cannot-comply").await?;
        }
    }
    assert_eq!(here.counters().received, 0);

    // Whoever is not the clinic is served here, too.
    let mut served_here = 0;
    let shouted = || tenant.chat(false).header("authorization", "BEARER  clinic-key ");
    for _ in 0..16 {
        assert_eq!(header(shouted().send().await?.headers(), "x-served-by")?, "peer");
    }
    for key in ["Bearer clinic-key2", "Bearer ", "Basic clinic-key", "bearer nobody"] {
        for _ in 0..16 {
            let response = tenant.chat(false).header("authorization", key).send().await?;
            served_here += u64::from(header(response.headers(), "x-served-by")? == "here");
        }
    }
    ensure!(served_here > 0);
    assert_eq!(here.counters().received, served_here);
    Ok(())
}
