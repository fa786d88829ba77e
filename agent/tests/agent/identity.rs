//! Who the instance is, by EC2's metadata and by the configuration.

use std::time::{Duration, Instant};

use mrgc_fleet::model::{InstanceId, RegionId};
use tokio::net::TcpListener;

use crate::{
    imds::Imds,
    support::{Engine, Setup, command, until},
};

#[tokio::test]
async fn ec2_says_who_it_is() {
    let (imds, store) = (Imds::start().await, Engine::start().await);
    imds.throttle(3);
    let agent = Setup::new().ec2(&imds).store(&store).start().await;
    let body = agent.health().await.1;
    let instance = &body["instance"];
    assert_eq!((&instance["id"], &instance["zone"]), (&"i-0abc".into(), &"us-east-1b".into()));
    assert_eq!(instance["address"], "127.0.0.1:8000");
    assert_eq!(instance["instance_type"], "p5.48xlarge");
    let (region, id) = (RegionId::from("us-east-1"), InstanceId::from("i-0abc"));
    let registered = until("it is registered", async || {
        store.store.instance(&region, &id).await.unwrap().ok_or("not yet".to_owned())
    })
    .await
    .registration;
    assert_eq!(registered.subnet_id.as_deref(), Some("subnet-0abc"));
    assert_eq!(registered.subnet_cidr.as_deref(), Some("127.0.0.0/23"));
    assert_eq!(registered.ami_id.as_deref(), Some("ami-0abc"));
    assert_eq!(registered.provider.as_deref(), Some("aws"));
    assert_eq!(registered.metadata["instance_life_cycle"], "spot");
}

#[tokio::test]
async fn a_configuration_that_says_all_never_asks() {
    let imds = Imds::start().await;
    let endpoint = format!("http://{}", imds.address);
    let agent = Setup::new().with(&[("MRGC_AGENT__IDENTITY__ENDPOINT", &endpoint)]).start().await;
    assert_eq!(agent.health().await.1["instance"]["id"], "i-1");
    assert_eq!(imds.asked_at_all(), 0);
}

#[tokio::test]
async fn without_ec2_all_that_is_missing_is_told() {
    // One end refuses, the other takes the connection and never answers.
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", hole.local_addr().unwrap());
    for (endpoint, reason) in
        [("http://127.0.0.1:1", "Connection refused"), (&silent, "nothing within 2 s")]
    {
        let start = Instant::now();
        let output = command()
            .env("MRGC_AGENT__LISTEN", "127.0.0.1:0")
            .env("MRGC_AGENT__INSTANCE__REGION", "us-east-1")
            .env("MRGC_AGENT__IDENTITY__ENDPOINT", endpoint)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        for expected in [
            "Its id, address are unknown: set instance.id, instance.address",
            "MRGC_AGENT__INSTANCE__ID, MRGC_AGENT__INSTANCE__ADDRESS",
            reason,
        ] {
            assert!(told.contains(expected), "{expected} is not in:\n{told}");
        }
        // Two seconds, and what a busy machine adds.
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    }
}
