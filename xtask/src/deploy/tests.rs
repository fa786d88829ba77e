use std::collections::BTreeSet;
use std::fs;

use saphyr::{LoadableYamlNode, Yaml};

use super::*;

const COMPONENT: &str = include_str!("../../../deploy/images/mrgc-agent.imagebuilder.yaml");
const PACKER: &str = include_str!("../../../deploy/images/mrgc-agent.pkr.hcl");

/// What a drain may take beyond its deadline: the instance is deregistered, the last figures are stored.
const AFTER_DRAIN_SECONDS: u64 = 15;

fn read(path: &str) -> String {
    fs::read_to_string(workspace::root().join(path)).unwrap()
}

fn unit(name: &str) -> Unit {
    Unit::parse(&read(&format!("deploy/systemd/{name}.service")))
}

fn seconds(unit: &Unit, key: &str) -> u64 {
    let value = unit.value("Service", key).unwrap();
    value.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap()
}

/// A default, as an example of a configuration shows it.
fn shown_default(example: &str, key: &str) -> u64 {
    let prefix = format!("# {key} = ");
    let line = example.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
    line.parse().unwrap()
}

#[test]
fn systemd_waits_for_a_drain_at_its_default_deadline() {
    for (name, example, key) in [
        ("mrgc-agent", "agent/agent.example.toml", "deadline_seconds"),
        ("mrgc-router", "router/router.example.toml", "drain_seconds"),
    ] {
        let drain = shown_default(&read(example), key);
        let stop = seconds(&unit(name), "TimeoutStopSec");
        assert!(stop >= drain + AFTER_DRAIN_SECONDS, "{name}: {stop} s for a drain of {drain} s");
    }
}

#[test]
fn a_unit_names_what_its_package_installs() {
    for package in PACKAGES {
        let (name, unit) = (package.name, unit(package.name));
        let manifest = read(&format!("{}/Cargo.toml", package.folder));
        let configuration = format!("etc/mrgc/{}.toml", package.folder);
        let start = unit.value("Service", "ExecStart").unwrap();
        assert!(start.starts_with(&format!("/usr/bin/{name} ")) && start.ends_with(&configuration));
        assert_eq!(manifest.matches(&configuration).count(), 2, "in the .deb and in the .rpm");
        let user = unit.value("Service", "User").unwrap();
        assert!(read(&format!("deploy/systemd/{name}.sysusers")).contains(&format!("u {user} - ")));
        assert_eq!(user, name, "the packages' scripts remove the user by the package's name");
    }
}

/// Each would let the agent start, and see less than there is.
#[test]
fn the_agent_is_left_what_it_looks_at() {
    let unit = unit("mrgc-agent");
    for key in ["PrivateDevices", "PrivateTmp", "PrivateUsers", "ProtectKernelLogs", "ProcSubset"] {
        assert_eq!(unit.value("Service", key), None, "{key}");
    }
    assert_eq!(unit.value("Service", "ProtectHome"), Some("read-only"));
    let families = unit.value("Service", "RestrictAddressFamilies").unwrap();
    assert!(families.split(' ').any(|family| family == "AF_VSOCK"), "{families}");
    let allowed: BTreeSet<&str> = unit.values("Service", "DeviceAllow").collect();
    for device in ["char-195 rw", "char-nvidia* rw", "/dev/nitro_enclaves rw", "/dev/kmsg r"] {
        assert!(allowed.contains(device), "{device} is not in {allowed:?}");
    }
}

#[test]
fn a_unit_is_read_by_section_and_in_order() {
    let unit = Unit::parse("# [No]\n[A]\nKey=first = one\nKey=second\n\n[B]\nKey=other\n");
    assert_eq!(unit.value("A", "Key"), Some("first = one"));
    assert_eq!(unit.values("A", "Key").collect::<Vec<_>>(), ["first = one", "second"]);
    assert_eq!(unit.value("B", "Key"), Some("other"));
    assert_eq!(unit.value("No", "Key"), None);
}

/// EC2 Image Builder's schema of a component's document, as far as ours uses it.
#[test]
fn the_image_builder_component_keeps_to_the_schema() {
    const PHASES: [&str; 3] = ["build", "validate", "test"];
    const STEP: [&str; 8] =
        ["name", "action", "if", "loop", "maxAttempts", "onFailure", "timeoutSeconds", "inputs"];
    // Each action with what each of its inputs must have.
    const ACTIONS: [(&str, &[&str]); 4] = [
        ("CreateFolder", &["path"]),
        ("DeleteFolder", &["path"]),
        ("ExecuteBash", &["commands"]),
        ("S3Download", &["source", "destination"]),
    ];
    let documents = Yaml::load_from_str(COMPONENT).unwrap();
    let [document] = &documents[..] else { panic!("{} documents", documents.len()) };
    keys_are_of(document, &["name", "description", "schemaVersion", "parameters", "phases"]);
    assert_eq!(document["schemaVersion"].as_floating_point(), Some(1.0));

    let mut names = BTreeSet::new();
    for phase in document["phases"].as_vec().unwrap() {
        keys_are_of(phase, &["name", "steps"]);
        assert!(PHASES.contains(&phase["name"].as_str().unwrap()));
        for step in phase["steps"].as_vec().unwrap() {
            keys_are_of(step, &STEP);
            let name = step["name"].as_str().unwrap();
            assert!(names.insert(name), "two steps are named {name}");
            let action = step["action"].as_str().unwrap();
            let (_, needed) = ACTIONS.iter().find(|(known, _)| *known == action).unwrap();
            let inputs = match &step["inputs"] {
                Yaml::Sequence(inputs) => inputs.iter().collect(),
                input => vec![input],
            };
            for input in inputs {
                for key in *needed {
                    assert!(!input[*key].is_badvalue(), "{name}: an input has no {key}");
                }
            }
        }
    }
}

#[test]
fn the_image_builder_component_declares_the_parameters_that_it_uses() {
    let documents = Yaml::load_from_str(COMPONENT).unwrap();
    let declared: BTreeSet<&str> = documents[0]["parameters"]
        .as_vec()
        .unwrap()
        .iter()
        .flat_map(|parameter| parameter.as_mapping().unwrap().iter())
        .map(|(name, definition)| {
            keys_are_of(definition, &["type", "default", "description", "allowedValues"]);
            assert_eq!(definition["type"].as_str(), Some("string"));
            name.as_str().unwrap()
        })
        .collect();
    let used: BTreeSet<&str> =
        COMPONENT.split("{{ ").skip(1).map(|rest| rest.split_once(" }}").unwrap().0).collect();
    assert_eq!(declared, used);
}

#[test]
fn the_packer_template_declares_the_variables_that_it_uses() {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let name = |rest: &'static str| rest.split(|c| !is_name(c)).next().unwrap();
    let declared: BTreeSet<&str> = PACKER.split("\nvariable \"").skip(1).map(name).collect();
    let used: BTreeSet<&str> = PACKER.split("var.").skip(1).map(name).collect();
    assert_eq!(declared, used);
    assert_eq!(PACKER.matches('{').count(), PACKER.matches('}').count());
}

fn keys_are_of(yaml: &Yaml<'_>, known: &[&str]) {
    for (key, _) in yaml.as_mapping().unwrap().iter() {
        let key = key.as_str().unwrap();
        assert!(known.contains(&key), "{key} is none of {known:?}");
    }
}
