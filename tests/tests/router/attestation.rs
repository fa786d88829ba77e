//! Requests that need an attested enclave: real programs, and documents under a root of the test's own.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use mrgc_tests::cluster::{
    Cluster, IRELAND, Instance, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually,
};
use nsm_double::{Authority, Claims, Leaf, Nsm};
use serde_json::{Value, json};

use crate::support::{ANY_ROUTE, chat, client, metric};

const ID: &str = "i-0123456789abcdef0";

/// What the program in the enclave does when it is asked for a document.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    /// It has no security module.
    Refuses,
    Attests,
    /// By a module that AWS would not know.
    Forges,
    /// It gives a document again that was good once.
    Replays,
    /// Of an image that nobody expects.
    RunsAnotherImage,
}

/// A program in an enclave, behind a Unix socket.
struct Enclave {
    mood: Arc<Mutex<Mood>>,
    socket: PathBuf,
    root: PathBuf,
    listed: PathBuf,
    nitro_cli: PathBuf,
}

impl Enclave {
    fn start(folder: &Path, mood: Mood) -> Result<Self> {
        let [socket, root, listed, nitro_cli] =
            ["enclave.sock", "root.pem", "enclaves.json", "nitro-cli"]
                .map(|name| folder.join(name));
        let authority = Authority::new();
        std::fs::write(&root, authority.root_pem())?;
        std::fs::write(&nitro_cli, format!("#!/bin/sh\nexec cat {}\n", listed.display()))?;
        std::fs::set_permissions(&nitro_cli, std::fs::Permissions::from_mode(0o755))?;
        let listener = UnixListener::bind(&socket)?;
        let mood = Arc::new(Mutex::new(mood));
        let answers = Answers {
            nsm: authority.nsm(Leaf::default()),
            forger: Authority::new().nsm(Leaf::default()),
            mood: mood.clone(),
            good: None,
        };
        // It ends with the test.
        std::thread::spawn(move || answers.serve(&listener));
        let enclave = Self { mood, socket, root, listed, nitro_cli };
        enclave.list(&json!([{ "State": "RUNNING", "EnclaveCID": 16 }]))?;
        Ok(enclave)
    }

    fn turn(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(|e| e.into_inner()) = mood;
    }

    /// What `nitro-cli` says from now on.
    fn list(&self, enclaves: &Value) -> Result<()> {
        // At once: a half-written list is another failure.
        let whole = self.listed.with_extension("new");
        std::fs::write(&whole, enclaves.to_string())?;
        Ok(std::fs::rename(whole, &self.listed)?)
    }

    fn agent_config(&self) -> String {
        let (nitro_cli, socket) = (&self.nitro_cli, &self.socket);
        format!("[enclave]\nnitro_cli = {nitro_cli:?}\nsocket = {socket:?}\ninterval_ms = 100\n")
    }

    fn router_config(&self, max_age_seconds: f64, pool: &str) -> String {
        format!(
            "{ANY_ROUTE}[attestation]\nroot = {:?}\ninterval_seconds = 0.2\n\
             max_age_seconds = {max_age_seconds}\n\
             [[attestation.images]]\npool = {pool:?}\npcrs = {{ 0 = \"{}\", 8 = \"{}\" }}\n",
            self.root,
            "a0".repeat(48),
            "a8".repeat(48),
        )
    }
}

struct Answers {
    nsm: Nsm,
    forger: Nsm,
    mood: Arc<Mutex<Mood>>,
    good: Option<Vec<u8>>,
}

impl Answers {
    fn serve(mut self, listener: &UnixListener) {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let read = BufReader::new(&stream).read_line(&mut line);
            if let (Ok(_), Ok(question)) = (read, serde_json::from_str(&line)) {
                // Whoever asked may have gone.
                let _ = writeln!(&stream, "{}", self.answer(&question));
            }
        }
    }

    fn answer(&mut self, question: &Value) -> Value {
        let nonce = &question["nonce"];
        if question["type"] == "heartbeat" {
            return json!({ "nonce": nonce, "operations": [{ "name": "decrypt", "ms": 2.5 }] });
        }
        let mood = *self.mood.lock().unwrap_or_else(|e| e.into_inner());
        let bytes = nonce.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        let image = if mood == Mood::RunsAnotherImage { 0xB0 } else { 0xA0 };
        let claims = Claims {
            module_id: format!("{ID}-enc0123456789abcdef"),
            timestamp_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            pcrs: (0..16).map(|index| (index, vec![image + index; 48])).collect(),
            nonce: bytes,
        };
        let document = match (mood, &self.good) {
            (Mood::Refuses, _) => return json!({ "nonce": nonce, "error": "no /dev/nsm" }),
            (Mood::Forges, _) => self.forger.attest(&claims),
            (Mood::Replays, Some(good)) => good.clone(),
            _ => self.nsm.attest(&claims),
        };
        if mood == Mood::Attests {
            self.good = Some(document.clone());
        }
        json!({ "nonce": nonce, "document": BASE64_STANDARD.encode(document) })
    }
}

/// A router and an instance with an enclave.
struct Stage {
    cluster: Cluster,
    router: Router,
    instance: Instance,
    enclave: Enclave,
    client: reqwest::Client,
    model: String,
}

impl Stage {
    async fn set(mood: Mood, max_age_seconds: f64) -> Result<Self> {
        let (cluster, client) = (Cluster::start().await?, client()?);
        let enclave = Enclave::start(cluster.dir.path(), mood)?;
        let mut spec = InstanceSpec::new(ID, VIRGINIA.id);
        spec.agent_config = enclave.agent_config();
        let config = enclave.router_config(max_age_seconds, &spec.pool);
        let router = cluster.router(VIRGINIA, &config).await?;
        let instance = cluster.instance(&spec).await?;
        router.sees_ready(&client, 1).await?;
        Ok(Self { cluster, router, instance, enclave, client, model: spec.model })
    }

    /// The status of a request that needs an enclave so.
    async fn asks(&self, enclave: &str) -> Result<u16> {
        let request = chat(&self.client, &self.router, &self.model, false);
        let response = request.header("x-mrgc-enclave", enclave).send().await?;
        Ok(response.status().as_u16())
    }

    /// Waits until requests that need an enclave so are answered with a status.
    async fn answers(&self, enclave: &str, status: u16) -> Result<()> {
        let what = format!("{enclave} is answered {status}");
        eventually(&what, PATIENCE, || async {
            let got = self.asks(enclave).await?;
            ensure!(got == status, "it is {got}: {}", self.attestation().await?);
            Ok(Some(()))
        })
        .await
    }

    async fn attestation(&self) -> Result<Value> {
        let path = format!("/instances/{ID}");
        let one = self.router.get(&self.client, &path).await?["attestation"].clone();
        ensure!(one.is_object(), "{path} says nothing of its attestation");
        Ok(one)
    }

    /// Waits until the router says why the instance is not attested.
    async fn says(&self, reason: &str) -> Result<()> {
        eventually(reason, PATIENCE, || async {
            let attestation = self.attestation().await?;
            let said = attestation["reason"].as_str().unwrap_or_default();
            ensure!(attestation["attested"] == false && said.contains(reason), "{attestation}");
            Ok(Some(()))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_verified_enclave_gets_what_needs_one() -> Result<()> {
    let stage = Stage::set(Mood::Refuses, 60.0).await?;
    stage.answers("required", 200).await?;
    stage.says("the enclave refused: no /dev/nsm").await?;
    assert_eq!(stage.asks("attested").await?, 503);

    stage.enclave.turn(Mood::Attests);
    stage.answers("attested", 200).await?;
    let attestation = stage.attestation().await?;
    assert_eq!(attestation["attested"], true);
    assert_eq!(attestation["module_id"], format!("{ID}-enc0123456789abcdef"));
    assert!(attestation["documented_at"].as_u64().context("no time")? > 1_700_000_000_000);
    let listed = stage.router.get(&stage.client, "/instances").await?;
    assert_eq!(listed[0]["attestation"]["attested"], true);
    assert_eq!(listed[0]["report"]["enclave"], "attested");
    let sample = format!("mrgc_instance_attested{{instance=\"{ID}\"");
    assert_eq!(metric(&stage.client, &stage.router, &sample).await?, 1.0);

    for (mood, reason) in [
        (Mood::Forges, "do not lead to the configured root"),
        (Mood::Replays, "answers another nonce"),
        (Mood::RunsAnotherImage, "PCR 0 is none that the pool's images have"),
    ] {
        stage.enclave.turn(mood);
        stage.answers("attested", 503).await.with_context(|| format!("{mood:?}"))?;
        stage.says(reason).await?;
        assert_eq!(stage.asks("required").await?, 200, "{mood:?}: it runs all the same");
        stage.enclave.turn(Mood::Attests);
        stage.answers("attested", 200).await.with_context(|| format!("after {mood:?}"))?;
    }
    let counted = "mrgc_router_attestations_total{outcome=\"refused\"";
    assert!(metric(&stage.client, &stage.router, counted).await? >= 3.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_verified_does_not_last() -> Result<()> {
    let stage = Stage::set(Mood::Attests, 1.5).await?;
    stage.answers("attested", 200).await?;
    // An enclave that does not answer keeps what it had, and no longer.
    stage.enclave.turn(Mood::Refuses);
    stage.answers("attested", 503).await?;
    stage.says("not verified for 1.5 s: ").await?;

    stage.enclave.turn(Mood::Attests);
    stage.answers("attested", 200).await?;
    stage.enclave.list(&json!([{ "State": "TERMINATING" }]))?;
    stage.answers("attested", 503).await?;
    stage.says("no enclave runs").await?;
    stage.answers("required", 503).await?;

    // The one that runs then is verified anew.
    stage.enclave.list(&json!([{ "state": "running", "enclave_cid": 17 }]))?;
    stage.answers("attested", 200).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_keeps_no_forger_in() -> Result<()> {
    let mut stage = Stage::set(Mood::Attests, 60.0).await?;
    stage.answers("attested", 200).await?;
    stage.cluster.state.kill().await?;
    stage.enclave.turn(Mood::Forges);
    stage.answers("attested", 503).await?;
    assert_eq!(stage.asks("required").await?, 200);
    stage.enclave.turn(Mood::Attests);
    stage.answers("attested", 200).await
}

/// The router where a request enters has verified nothing; the one where the enclave is has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_an_enclave_goes_to_the_region_that_has_one() -> Result<()> {
    let stage = Stage::set(Mood::Refuses, 60.0).await?;
    let ireland = stage.cluster.router(IRELAND, ANY_ROUTE).await?;
    ireland.sees_ready_in(&stage.client, VIRGINIA.id, 1).await?;
    let answers = async |enclave: &str, status: u16| {
        eventually(&format!("{enclave} is answered {status}"), PATIENCE, || async {
            let request = chat(&stage.client, &ireland, &stage.model, false);
            let response = request.header("x-mrgc-enclave", enclave).send().await?;
            ensure!(response.status() == status, "it is {}", response.status());
            Ok(Some(()))
        })
        .await
    };
    answers("required", 200).await?;
    answers("attested", 503).await?;
    stage.enclave.turn(Mood::Attests);
    answers("attested", 200).await?;
    let health = stage.client.get(stage.router.data_url("/health")).send().await?;
    let health: Value = health.json().await?;
    assert_eq!(health["attested_pools"], json!(["llama"]), "{health}");
    let path = format!("/instances/{ID}");
    let there = ireland.get(&stage.client, &path).await?["attestation"].clone();
    assert_eq!(there["reason"], "the routers of us-east-1 judge it");

    stage.enclave.turn(Mood::Forges);
    answers("attested", 503).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_shows_its_enclave_and_relays() -> Result<()> {
    let stage = Stage::set(Mood::Attests, 60.0).await?;
    let agent = format!("http://{}", stage.instance.agent_address);
    let enclave = eventually("the agent shows its enclave", PATIENCE, || async {
        let health = stage.client.get(format!("{agent}/health?detail")).send().await?;
        let enclave = health.json::<Value>().await?["enclave"].clone();
        Ok(enclave["operations"]["decrypt"]["count"].is_u64().then_some(enclave))
    })
    .await?;
    assert_eq!((&enclave["running"], &enclave["healthy"]), (&json!(1), &json!(true)));
    assert_eq!((&enclave["attested"], &enclave["reason"]), (&Value::Null, &Value::Null));
    assert_eq!(enclave["operations"]["decrypt"]["mean_ms"], 2.5);
    assert!(enclave["heartbeat"]["round_trip_ms"].is_f64(), "{enclave}");

    let ask = async |body: &str| {
        let request = stage.client.post(format!("{agent}/attestation")).body(body.to_owned());
        let response = request.send().await?;
        anyhow::Ok((response.status().as_u16(), response.text().await?))
    };
    let (status, answer) = ask(r#"{"nonce":"bm9uY2U="}"#).await?;
    assert_eq!(status, 200, "{answer}");
    let document: Value = serde_json::from_str(&answer)?;
    let document = document["document"].as_str().context("no document")?;
    assert!(BASE64_STANDARD.decode(document)?.len() > 1_000);
    for (body, expected) in [
        ("", 400),
        ("{}", 400),
        (r#"{"nonce":"-"}"#, 400),
        (r#"{"nonce":"eA==","more":true}"#, 400),
        (&"x".repeat(3_000), 413),
    ] {
        let (status, answer) = ask(body).await?;
        assert_eq!(status, expected, "{answer}");
    }
    let got = stage.client.get(format!("{agent}/attestation")).send().await?;
    assert_eq!((got.status().as_u16(), got.headers()["allow"].to_str()?), (405, "POST"));
    stage.enclave.turn(Mood::Refuses);
    let (status, answer) = ask(r#"{"nonce":"bm9uY2U="}"#).await?;
    assert_eq!(status, 502);
    assert!(answer.contains("no /dev/nsm"), "{answer}");
    Ok(())
}
