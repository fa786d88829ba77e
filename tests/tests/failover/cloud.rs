//! What EC2 says of the machines, and what Auto Scaling is told: the router beside doubles of both services.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result, ensure};
use axum::{
    Router as Service,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use mrgc_fleet::model::Timestamp;
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::cluster::{
    Cluster, Instance, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually,
};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::alone;

const WELL: &str = "i-0123456789abcdef0";
const ILL: &str = "i-0123456789abcdef1";
/// Its id is another cloud's.
const ELSEWHERE: &str = "gpu-1";

const ANSWERED: &str = "mrgc_router_ec2_looks_total{outcome=\"answered\"}";
const FAILED: &str = "mrgc_router_ec2_looks_total{outcome=\"failed\"}";
const AGE: &str = "mrgc_router_ec2_look_age_seconds";

const ACCOUNT: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    AllWell,
    Impaired,
    Terminated,
    Throttles,
    Garbage,
}

/// EC2 and Auto Scaling, which differ by what they are asked.
#[derive(Debug)]
struct Cloud {
    word: Mutex<Word>,
    looks: Mutex<Vec<String>>,
    told: Mutex<Vec<String>>,
    /// Whether what Auto Scaling is told is refused.
    refuses: AtomicBool,
}

impl Cloud {
    async fn start(word: Word) -> Result<(Arc<Self>, SocketAddr)> {
        let word = Mutex::new(word);
        let (looks, told, refuses) = Default::default();
        let cloud = Arc::new(Self { word, looks, told, refuses });
        let service = Service::new().route("/", post(answer)).with_state(cloud.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, service).await });
        Ok((cloud, address))
    }

    fn say(&self, word: Word) {
        *self.word.lock().unwrap() = word;
    }

    /// Waits until it was asked so many times more.
    async fn looks(&self, further: usize) -> Result<()> {
        let before = self.looks.lock().unwrap().len();
        eventually("EC2 is asked again", PATIENCE, || async {
            Ok((self.looks.lock().unwrap().len() >= before + further).then_some(()))
        })
        .await
    }
}

async fn answer(
    State(cloud): State<Arc<Cloud>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let signed_for = |service: &str| {
        let header = headers["authorization"].to_str().unwrap();
        header.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
            && header.contains(&format!("/us-east-1/{service}/aws4_request"))
    };
    if body.starts_with("Action=SetInstanceHealth&") && signed_for("autoscaling") {
        cloud.told.lock().unwrap().push(body);
        if cloud.refuses.load(Relaxed) {
            return (StatusCode::FORBIDDEN, String::new());
        }
        return (StatusCode::OK, "<SetInstanceHealthResponse/>".to_owned());
    }
    if !(body.starts_with("Action=DescribeInstanceStatus&") && signed_for("ec2")) {
        return (StatusCode::FORBIDDEN, body);
    }
    cloud.looks.lock().unwrap().push(body);
    let word = *cloud.word.lock().unwrap();
    match word {
        Word::Throttles => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        Word::Garbage => (StatusCode::OK, "<html>".to_owned()),
        Word::AllWell | Word::Impaired | Word::Terminated => {
            let item = |id: &str, is_ill: bool, state: &str| {
                let (status, detail) =
                    if is_ill { ("impaired", "failed") } else { ("ok", "passed") };
                format!(
                    "<item><instanceId>{id}</instanceId>\
                     <instanceState><name>{state}</name></instanceState>\
                     <systemStatus><status>{status}</status><details><item><name>reachability</name>\
                     <status>{detail}</status></item></details></systemStatus></item>"
                )
            };
            let state = if word == Word::Terminated { "terminated" } else { "running" };
            let ill = item(ILL, word == Word::Impaired, state);
            let items = [item(WELL, false, "running"), ill].concat();
            (StatusCode::OK, format!("<R><instanceStatusSet>{items}</instanceStatusSet></R>"))
        }
    }
}

struct Pool {
    cluster: Cluster,
    router: Router,
    store: Store,
    cloud: Arc<Cloud>,
    instances: Vec<Instance>,
    config: String,
}

impl Pool {
    /// EC2 is asked every half second.
    async fn start(word: Word) -> Result<Self> {
        Self::start_with(word, 0.5).await
    }

    async fn start_with(word: Word, interval_seconds: f64) -> Result<Self> {
        let (cluster, (cloud, address)) = (Cluster::start().await?, Cloud::start(word).await?);
        let config = format!(
            "[health_check]\ninterval_seconds = 0.5\ntimeout_seconds = 0.5\nfailure_threshold = 60\n\
             stale_after_seconds = 2.0\n\
             [failover]\nlease_seconds = 2.0\n\
             [aws]\ninstance_status = true\ninterval_seconds = {interval_seconds:?}\n\
             set_instance_health = true\n\
             ec2_endpoint = \"http://{address}\"\nauto_scaling_endpoint = \"http://{address}\"\n\
             [[routes]]\nname = \"any\"\n"
        );
        let router = cluster.router_with(VIRGINIA, &config, &ACCOUNT).await?;
        let mut instances = Vec::new();
        for id in [WELL, ILL, ELSEWHERE] {
            instances.push(cluster.instance(&InstanceSpec::new(id, VIRGINIA.id)).await?);
        }
        let endpoint = Some(cluster.store_endpoint()?);
        let store = Store::connect(&StoreConfig { endpoint, ..StoreConfig::default() }).await?;
        Ok(Self { cluster, router, store, cloud, instances, config })
    }

    async fn drained(&self) -> Result<()> {
        eventually("it is drained by EC2's word", PATIENCE, || async {
            let path = format!("/instances/{ILL}");
            let desired = &self.router.get(&self.cluster.client, &path).await?["desired"];
            Ok((desired["state"] == "draining" && desired["automatic"] == true).then_some(()))
        })
        .await
    }

    /// A sample of the router's metrics, by its name and labels; `None` where there is none.
    async fn metric(&self, sample: &str) -> Result<Option<f64>> {
        let url = self.router.control_url("/metrics");
        let page = self.cluster.client.get(url).send().await?.text().await?;
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?)
    }

    /// What the router's health says of EC2.
    async fn ec2(&self) -> Result<Value> {
        let url = self.router.data_url("/health");
        let health: Value = self.cluster.client.get(url).send().await?.json().await?;
        Ok(health["checks"]["ec2"].clone())
    }

    async fn all_serve(&self) -> Result<()> {
        let seen = self.router.sees_ready(&self.cluster.client, 3).await;
        seen.with_context(|| self.router.program.log())
    }

    /// What was done to the instance, the last action first.
    async fn actions(&self) -> Result<Vec<String>> {
        let all = self.store.audit_trail(Timestamp(0), Timestamp(u64::MAX), 100).await?;
        let subject = format!("instance {ILL}");
        Ok(all.into_iter().filter(|r| r.subject == subject).map(|r| r.action).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_ec2_calls_impaired_is_drained_and_its_group_replaces_it() -> Result<()> {
    let _alone = alone().await;
    let pool = Pool::start(Word::AllWell).await?;
    pool.all_serve().await?;
    pool.cloud.looks(2).await?;
    {
        let looks = pool.cloud.looks.lock().unwrap();
        let last = looks.last().unwrap();
        assert!(last.contains("IncludeAllInstances=true"), "{last}");
        assert!(last.contains(WELL) && last.contains(ILL) && !last.contains(ELSEWHERE), "{last}");
    }

    pool.cloud.say(Word::Impaired);
    pool.drained().await?;
    let replacement = eventually("a replacement is on record", PATIENCE, || async {
        pool.store.replacement(&VIRGINIA.id.into(), &ILL.into()).await.map_err(Into::into)
    })
    .await?;
    assert_eq!(replacement.reason, "EC2: system status impaired (reachability failed)");
    let actions = eventually("what the group was told is on record", PATIENCE, || async {
        let actions = pool.actions().await?;
        Ok(actions.contains(&"set-instance-health".to_owned()).then_some(actions))
    })
    .await?;
    assert_eq!(actions, ["set-instance-health", "drain"]);
    assert_eq!(
        *pool.cloud.told.lock().unwrap(),
        [format!(
            "Action=SetInstanceHealth&Version=2011-01-01&InstanceId={ILL}&HealthStatus=Unhealthy\
             &ShouldRespectGracePeriod=false"
        )]
    );

    pool.cloud.say(Word::AllWell);
    pool.all_serve().await?;
    let open = pool.store.open_replacements(&VIRGINIA.id.into()).await?;
    ensure!(open.is_empty(), "{open:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ec2_that_garbles_changes_nothing_and_what_it_said_expires() -> Result<()> {
    let _alone = alone().await;
    let pool = Pool::start(Word::Garbage).await?;
    pool.all_serve().await?;
    pool.cloud.looks(3).await?;
    pool.all_serve().await?;
    assert!(pool.actions().await?.is_empty());
    ensure!(pool.metric(FAILED).await? > Some(0.0));
    assert_eq!(pool.metric(ANSWERED).await?, Some(0.0));
    assert_eq!(pool.metric(AGE).await?, None, "it has never answered");
    let said = pool.ec2().await?;
    ensure!(said["status"] == "degraded" && said["reason"].is_string(), "{said}");

    pool.cloud.say(Word::Impaired);
    pool.drained().await?;
    assert_eq!(pool.ec2().await?["status"], "ok");
    ensure!(pool.metric(ANSWERED).await? >= Some(1.0));
    ensure!(pool.metric(AGE).await?.is_some_and(|seconds| seconds < 30.0));
    // Its probes pass all the while: they alone are left.
    pool.cloud.say(Word::Throttles);
    pool.all_serve().await?;
    let log = pool.router.program.log();
    ensure!(log.contains("EC2's last word on the instances has expired"), "{log}");
    Ok(())
}

/// Nobody has to say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_ec2_has_terminated_is_forgotten_once_it_is_silent() -> Result<()> {
    let _alone = alone().await;
    let mut pool = Pool::start(Word::AllWell).await?;
    // Its reports come at a pace of their own, so that it is soon clear that one is missing.
    let agent = &mut pool.instances[1].agent;
    agent.kill().await?;
    agent.restart(&[("MRGC_AGENT__HEARTBEAT__MODE", "fixed")]).await?;
    pool.all_serve().await?;
    pool.cloud.say(Word::Terminated);
    pool.drained().await?;
    pool.cloud.looks(4).await?;
    let registered = pool.store.instances(&VIRGINIA.id.into()).await?;
    ensure!(registered.len() == 3, "it still reports: {registered:?}");

    pool.instances[1].agent.kill().await?;
    eventually("it is forgotten", PATIENCE, || async {
        let registered = pool.store.instances(&VIRGINIA.id.into()).await?;
        Ok((registered.len() == 2).then_some(()))
    })
    .await
    .with_context(|| pool.router.program.log())?;
    let actions = pool.actions().await?;
    assert_eq!(actions, ["forget", "set-instance-health", "drain"]);
    assert_eq!(pool.store.desired(&VIRGINIA.id.into(), &ILL.into()).await?, None);
    Ok(())
}

/// What EC2 said of an instance, the next holder of the lease has not heard. Its probes pass all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_holder_releases_nobody_before_ec2_has_answered_it() -> Result<()> {
    let _alone = alone().await;
    let mut pool = Pool::start_with(Word::Impaired, 8.0).await?;
    pool.cloud.refuses.store(true, Relaxed);
    pool.drained().await?;
    eventually("its group is told", PATIENCE, || async {
        Ok((!pool.cloud.told.lock().unwrap().is_empty()).then_some(()))
    })
    .await?;
    pool.cloud.say(Word::Garbage);
    let next = pool.cluster.further_router(VIRGINIA, &pool.config, &ACCOUNT).await?;
    pool.router.program.kill().await?;
    pool.router = next;
    eventually("it asks EC2, and probes", PATIENCE, || async {
        let passed = pool.metric("mrgc_router_probes_total{outcome=\"passed\"}").await?;
        let is_asked = pool.metric(FAILED).await? >= Some(1.0);
        Ok((is_asked && passed >= Some(18.0)).then_some(()))
    })
    .await
    .with_context(|| pool.router.program.log())?;
    let actions = pool.actions().await?;
    ensure!(!actions.contains(&"release".to_owned()), "{actions:?}");

    pool.cloud.refuses.store(false, Relaxed);
    pool.cloud.say(Word::Impaired);
    eventually("its group is told again, and hears it", PATIENCE, || async {
        let all = pool.store.audit_trail(Timestamp(0), Timestamp(u64::MAX), 100).await?;
        let heard = |reason: &str| reason.contains("its Auto Scaling group replaces it");
        let is_heard = all.iter().any(|record| record.reason.as_deref().is_some_and(heard));
        Ok(is_heard.then_some(()))
    })
    .await
    .with_context(|| pool.router.program.log())?;
    let actions = pool.actions().await?;
    ensure!(!actions.contains(&"release".to_owned()), "{actions:?}");
    pool.cloud.say(Word::AllWell);
    pool.all_serve().await
}
