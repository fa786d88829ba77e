//! Artifacts that are no policies: each is refused with what is wrong with it.

use std::time::{Duration, Instant};

use mrgc_policy_host::{Fault, Instance, LoadError, Policy};
use mrgc_tests::policies::{stock_component, test_component};

use crate::support::{LIMITS, engine, hostile, load_test};

/// The smallest core module and the smallest component: magic number, version and layer.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// Compiling, with a debug build's compiler on a busy machine, and a deadline.
const LOADING: Duration = Duration::from_secs(10);

fn refusal(artifact: &[u8]) -> anyhow::Result<LoadError> {
    match Policy::load(engine()?, artifact) {
        Err(error) => Ok(error),
        Ok(policy) => anyhow::bail!("loaded as {policy:?}"),
    }
}

#[test]
fn what_is_not_a_component_is_refused() -> anyhow::Result<()> {
    for garbage in [&b""[..], b"\0", b"#!/bin/sh\nexit 0\n", &[0xff; 4096]] {
        assert_eq!(refusal(garbage)?, LoadError::NotWasm, "{:?}", garbage.get(..8));
    }
    assert_eq!(refusal(MODULE)?, LoadError::NotAComponent);
    assert_eq!(refusal(COMPONENT)?, LoadError::NoInterface);
    for broken in [&MODULE[..4], &COMPONENT[..6], &[COMPONENT, &[0xff; 64]].concat()] {
        assert!(matches!(refusal(broken)?, LoadError::Invalid(_)), "{broken:?}");
    }
    Ok(())
}

#[test]
fn a_truncated_component_is_refused() -> anyhow::Result<()> {
    let whole = stock_component("score")?;
    for part in 1..24 {
        let cut = whole.len() * part / 24;
        let error = refusal(&whole[..cut])?;
        assert!(matches!(error, LoadError::Invalid(_)), "cut at {cut}: {error:?}");
    }
    Ok(())
}

/// Whatever a broken byte makes of it, loading ends.
#[test]
fn a_component_with_a_broken_byte_does_no_harm() -> anyhow::Result<()> {
    let whole = test_component("loops-in-describe")?;
    for part in 1..32 {
        let mut broken = whole.clone();
        broken[whole.len() * part / 32] ^= 0x55;
        let started = Instant::now();
        // A byte that does not matter leaves a policy that loops.
        let _ = Policy::load(engine()?, &broken);
        assert!(started.elapsed() < LOADING, "part {part}: took {:?}", started.elapsed());
    }
    Ok(())
}

#[test]
fn what_is_too_large_is_refused_before_it_is_compiled() -> anyhow::Result<()> {
    let limit = LIMITS.artifact_bytes;
    let error = refusal(&vec![0; limit + 1])?;
    assert_eq!(error, LoadError::TooLarge { bytes: limit + 1, limit });
    Ok(())
}

#[test]
fn another_import_or_interface_is_refused_by_its_name() -> anyhow::Result<()> {
    assert_eq!(
        refusal(&test_component("imports-a-clock")?)?,
        LoadError::ForbiddenImport("elsewhere:clock/wall@1.0.0".into())
    );
    assert_eq!(
        refusal(&test_component("other-version")?)?,
        LoadError::OtherInterface { found: "mrgc:policy/routing@2.0.0".into() }
    );
    Ok(())
}

/// The interface's name on an instance without functions.
#[test]
fn an_empty_interface_is_refused() -> anyhow::Result<()> {
    let name = "mrgc:policy/routing@1.0.0";
    let mut artifact = COMPONENT.to_vec();
    // Instance section: one instance, of no exports.
    artifact.extend([5, 3, 1, 1, 0]);
    // Export section: the instance, under the name, with no type of its own.
    let size = name.len() as u8;
    artifact.extend([11, size + 6, 1, 0, size]);
    artifact.extend(name.as_bytes());
    artifact.extend([5, 0, 0]);
    let error = refusal(&artifact)?;
    assert!(matches!(&error, LoadError::Invalid(why) if why.contains("describe")), "{error:?}");
    Ok(())
}

#[test]
fn a_loop_at_start_or_in_describe_is_a_timeout() -> anyhow::Result<()> {
    let deadline_ms = LIMITS.observe_deadline.as_millis() as u64;
    for name in ["loops-at-start", "loops-in-describe"] {
        let error = refusal(&test_component(name)?)?;
        assert_eq!(error, LoadError::Start(Fault::Timeout { deadline_ms }), "{name}");
    }
    Ok(())
}

#[test]
fn a_config_is_refused_with_the_policys_own_words() -> anyhow::Result<()> {
    let rejecting = load_test("rejects-config")?;
    let cases = [
        (&rejecting, "{}", "no config is good enough"),
        (hostile()?, r#"{"exprot": "score"}"#, "unknown key `exprot`; known keys: export, what"),
        (hostile()?, r#"{"what": "nothing"}"#, "what: unknown variant `nothing`"),
        (
            hostile()?,
            r#"{"what": 1, "from_number": -1}"#,
            "from_number: invalid value: integer `-1`",
        ),
        (
            hostile()?,
            r#"{"what": "nothing", "from_number": -1}"#,
            "what: unknown variant `nothing`",
        ),
        (hostile()?, "[1]", "must be a JSON object, not [1]"),
        (hostile()?, "{", "not JSON"),
    ];
    for (policy, config, expected) in cases {
        match Instance::new(policy, config) {
            Err(LoadError::Config(why)) => assert!(why.contains(expected), "{config}: {why}"),
            other => anyhow::bail!("{config}: {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_component_that_is_not_built_is_told() {
    let error = stock_component("no-such-policy").map(drop).map_err(|error| error.to_string());
    assert!(error.is_err_and(|why| why.contains("run `cargo xtask policies --all`")));
}
