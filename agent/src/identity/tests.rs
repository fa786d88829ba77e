#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Config;

fn config(variables: &[(&str, &str)]) -> Config {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    Config::load(None, variables).unwrap()
}

fn facts() -> Facts {
    let document = r#"{
        "accountId": "123456789012", "architecture": "x86_64", "availabilityZone": "us-east-2b",
        "imageId": "ami-0abc", "instanceId": "i-0abc", "instanceType": "p5.48xlarge",
        "pendingTime": "2026-05-04T08:00:00Z", "privateIp": "10.66.10.50", "region": "us-east-2",
        "devpayProductCodes": null, "version": "2017-09-30"
    }"#;
    Facts {
        document: serde_json::from_str(document).unwrap(),
        life_cycle: Some("spot".to_owned()),
        subnet_id: Some("subnet-1".to_owned()),
        subnet_cidr: Some("10.66.10.0/23".to_owned()),
    }
}

fn registered(variables: &[(&str, &str)], told: Told) -> Result<Registration, String> {
    registration(&config(variables), &told, 8080, Timestamp(1)).map_err(|error| error.to_string())
}

const URL: (&str, &str) = ("MRGC_AGENT__INFERENCE__URL", "http://127.0.0.1:8000");

#[test]
fn ec2_fills_in_what_is_not_configured() {
    let own = registered(&[URL], Ok(facts())).unwrap();
    assert_eq!((own.id.as_str(), own.region.as_str()), ("i-0abc", "us-east-2"));
    assert_eq!(own.address, "10.66.10.50:8000");
    assert_eq!(own.health_address, "10.66.10.50:8080");
    assert_eq!(own.zone.as_deref(), Some("us-east-2b"));
    assert_eq!(own.ami_id.as_deref(), Some("ami-0abc"));
    assert_eq!(own.instance_type.as_deref(), Some("p5.48xlarge"));
    assert_eq!(own.subnet_id.as_deref(), Some("subnet-1"));
    assert_eq!(own.subnet_cidr.as_deref(), Some("10.66.10.0/23"));
    assert_eq!(own.provider.as_deref(), Some("aws"));
    assert_eq!(own.metadata["instance_life_cycle"], "spot");
}

#[test]
fn what_is_configured_wins() {
    let variables = [
        ("MRGC_AGENT__INSTANCE__ID", "gpu-1"),
        ("MRGC_AGENT__INSTANCE__REGION", "us"),
        ("MRGC_AGENT__INSTANCE__PORT", "9000"),
        ("MRGC_AGENT__INSTANCE__ZONE", "rack-3"),
        ("MRGC_AGENT__INSTANCE__PROVIDER", "own"),
        URL,
    ];
    let own = registered(&variables, Ok(facts())).unwrap();
    assert_eq!((own.id.as_str(), own.region.as_str()), ("gpu-1", "us"));
    assert_eq!(own.address, "10.66.10.50:9000");
    assert_eq!(own.zone.as_deref(), Some("rack-3"));
    assert_eq!(own.provider.as_deref(), Some("own"));
    assert_eq!(own.instance_type.as_deref(), Some("p5.48xlarge"));
}

#[test]
fn all_that_is_missing_is_told_at_once_with_both_ways_to_give_it() {
    let silent =
        || Err("IMDS at http://169.254.169.254 does not answer: nothing within 2 s".to_owned());
    assert_eq!(
        registered(&[], silent()).unwrap_err(),
        "who is this instance? Its id, region, address are unknown: set instance.id, instance.region, \
         instance.address in the configuration (in the environment: MRGC_AGENT__INSTANCE__ID, \
         MRGC_AGENT__INSTANCE__REGION, MRGC_AGENT__INSTANCE__ADDRESS), or let EC2 tell (IMDS at \
         http://169.254.169.254 does not answer: nothing within 2 s)"
    );
    let told = registered(&[], Ok(facts())).unwrap_err();
    assert!(told.contains("Its address is unknown"), "{told}");
    assert!(told.contains("set instance.port or inference.url for the port"), "{told}");
    let mut odd = facts();
    odd.document.instance_id = Some("i 1".to_owned());
    let told = registered(&[URL], Ok(odd)).unwrap_err();
    assert!(told.contains("Its id is unknown"), "{told}");
}
