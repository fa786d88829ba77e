#![allow(clippy::unwrap_used)]

use nsm_double::Authority;

use crate::config::Config;

const WITH_STORE: &str = "region = \"us\"\n[store]\nendpoint = \"http://127.0.0.1:1\"\n";

fn read(text: &str) -> Result<Config, String> {
    Config::read("router.toml", text, []).map_err(|problems| problems.to_string())
}

fn problems(attestation: &str) -> String {
    read(&format!("{WITH_STORE}[attestation]\n{attestation}")).unwrap_err()
}

/// A pool with one image.
fn image(pcrs: &str) -> String {
    format!("[[attestation.images]]\npool = \"p\"\npcrs = {pcrs}\n")
}

#[test]
fn a_pool_may_have_several_images() {
    let pcr = "Ab".repeat(48);
    let (one, other) =
        (image(&format!("{{ 0 = \"{pcr}\" }}")), image(&format!("{{ PCR8 = \"{pcr}\" }}")));
    let config = read(&format!("{WITH_STORE}{one}{other}")).unwrap().attestation;
    assert_eq!(config.images_of(&"p".into()).count(), 2);
    assert_eq!(config.images_of(&"q".into()).count(), 0);
    let measured = vec![0xAB; 48];
    for (image, index) in config.images_of(&"p".into()).zip([0, 8]) {
        assert_eq!(image.differs(|_| Some(&measured)), None);
        assert_eq!(image.differs(|_| None), Some(index));
    }
}

#[test]
fn what_is_wrong_is_told() {
    let zeros = format!("{{ 0 = \"{}\" }}", "0".repeat(96));
    let sixteen = format!("{{ 16 = \"{}\" }}", "a".repeat(96));
    for (attestation, expected) in [
        ("max_age_seconds = 20000", "is not within 0.1 and 10800"),
        ("interval_seconds = 0.01", "is not within 0.1 and 10800"),
        ("max_age_seconds = 500", "less than two intervals of 300 seconds"),
        ("root = \"/nowhere/root.pem\"", "/nowhere/root.pem: No such file"),
        ("root = \"/etc/passwd\"", "no certificate in PEM"),
        ("image = 1", "there is no such key"),
        (&image("{}"), "names no PCR"),
        (&image("{ 0 = \"abc\" }"), "PCR 0 is not 96 hexadecimal digits"),
        (&image(&sixteen), "`16` is no PCR: 0 to 15"),
        (&image("{ first = \"abc\" }"), "`first` is no PCR"),
        (&image(&zeros), "an enclave in debug mode"),
    ] {
        let problems = problems(attestation);
        assert!(problems.contains(expected), "{attestation}: {problems}");
    }
}

#[test]
fn a_static_fleet_has_nobody_to_ask() {
    let pcr = format!("{{ 0 = \"{}\" }}", "a".repeat(96));
    let region = "region = \"us\"\n[[regions]]\nregion_id = \"us\"\nendpoint = \"http://a:1\"\n";
    let problems = read(&format!("{region}{}", image(&pcr))).unwrap_err();
    assert!(problems.contains("have no agent to ask"), "{problems}");
}

#[test]
fn the_root_is_a_file_with_one_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.pem");
    let config = format!("{WITH_STORE}[attestation]\nroot = {path:?}\n");
    std::fs::write(&path, Authority::new().root_pem()).unwrap();
    assert!(read(&config).is_ok());
    for (content, expected) in [
        (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec(), "be read"),
        (vec![b'x'; 70_000], "70000 bytes are no certificate"),
    ] {
        std::fs::write(&path, content).unwrap();
        let problems = read(&config).unwrap_err();
        assert!(problems.contains(expected), "{problems}");
    }
}
