#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::testing::{
    FRAMEWORKS, REGIONS, candidate, names, region, registered, reporting, snapshot, some,
    some_candidates, some_needs, some_rules, with,
};

fn frameworks(needed: &[&'static str]) -> Needs {
    Needs { frameworks: names(needed), ..Needs::default() }
}

fn allowed(regions: &[&'static str]) -> Needs {
    Needs { allowed_regions: names(regions), ..Needs::default() }
}

fn rule(name: &str, frameworks: &[&'static str], regions: &[&'static str]) -> PlacementRule {
    PlacementRule {
        name: name.to_owned(),
        frameworks: names(frameworks),
        allowed_regions: names(regions),
    }
}

/// In `us`, satisfying these.
fn place(has: &[&'static str]) -> Candidate {
    Candidate { frameworks: names(has), ..candidate("i-1") }
}

fn enclave(enclave: EnclaveState) -> Candidate {
    Candidate { enclave, ..candidate("i-1") }
}

fn lacks(framework: &str) -> Result<(), Forbidden> {
    Err(Forbidden::Framework { place: "i-1".to_owned(), framework: framework.into() })
}

#[test]
fn a_place_satisfies_every_framework_that_is_needed() {
    for (needed, has, expected) in [
        (&[][..], &[][..], Ok(())),
        (&["gdpr"], &["gdpr"], Ok(())),
        (&["GDPR"], &[" gdpr "], Ok(())),
        (&["gdpr"], &["hipaa", "gdpr"], Ok(())),
        (&["gdpr", "hipaa"], &["hipaa", "gdpr"], Ok(())),
        (&["gdpr"], &[], lacks("gdpr")),
        (&["gdpr", "hipaa"], &["gdpr"], lacks("hipaa")),
        (&["gdpr", "hipaa"], &["soc2"], lacks("gdpr")),
        (&["gdpr"], &["gdpr2"], lacks("gdpr")),
    ] {
        let got = check(&frameworks(needed), &[], &place(has));
        assert_eq!(got, expected, "{needed:?} at a place with {has:?}");
    }
}

#[test]
fn only_allowed_regions_are_taken() {
    let out = || Err(Forbidden::Region { region: "us".into() });
    for (regions, expected) in [
        (&[][..], Ok(())),
        (&["us"], Ok(())),
        (&["eu", "us"], Ok(())),
        (&["eu"], out()),
        (&["us-east-1"], out()),
        (&["eu", "ap"], out()),
    ] {
        assert_eq!(check(&allowed(regions), &[], &place(&[])), expected, "{regions:?}");
    }
}

#[test]
fn placement_rules_hold_for_the_frameworks_they_name() {
    let by = |name: &str| Err(Forbidden::Rule { rule: name.to_owned(), region: "us".into() });
    let gdpr_in_eu = || rule("gdpr in eu", &["gdpr"], &["eu"]);
    for (needed, rules, expected) in [
        (&["gdpr"][..], vec![gdpr_in_eu()], by("gdpr in eu")),
        (&["soc2", "gdpr"], vec![gdpr_in_eu()], by("gdpr in eu")),
        (&["soc2"], vec![gdpr_in_eu()], Ok(())),
        (&[], vec![gdpr_in_eu()], Ok(())),
        (&["gdpr"], vec![rule("both", &["gdpr"], &["eu", "us"])], Ok(())),
        (&["gdpr"], vec![rule("any of them", &["soc2", "gdpr"], &["eu"])], by("any of them")),
        (&["gdpr"], vec![rule("nowhere", &["gdpr"], &[])], by("nowhere")),
        (&["gdpr"], vec![rule("for nothing", &[], &["eu"])], Ok(())),
        // Each rule must allow the region: none makes up for another.
        (&["gdpr"], vec![rule("us, too", &["gdpr"], &["us"]), gdpr_in_eu()], by("gdpr in eu")),
        (&["gdpr"], vec![gdpr_in_eu(), rule("us, too", &["gdpr"], &["us"])], by("gdpr in eu")),
    ] {
        let got = check(&frameworks(needed), &rules, &place(&["gdpr", "soc2"]));
        assert_eq!(got, expected, "{needed:?} under {rules:?}");
    }
}

#[test]
fn an_enclave_runs_or_is_attested_as_needed() {
    use EnclaveState::{Absent, Attested, Running};
    let without = |needed| Err(Forbidden::Enclave { place: "i-1".to_owned(), needed });
    for (running, attested, state, expected) in [
        (false, false, Absent, Ok(())),
        (true, false, Absent, without("running")),
        (true, false, Running, Ok(())),
        (true, false, Attested, Ok(())),
        (true, true, Absent, without("attested")),
        (true, true, Running, without("attested")),
        (true, true, Attested, Ok(())),
        // Alone, it asks for no less.
        (false, true, Absent, without("attested")),
        (false, true, Running, without("attested")),
        (false, true, Attested, Ok(())),
    ] {
        let needs = Needs { enclave: running, attested, ..Needs::default() };
        let got = check(&needs, &[], &enclave(state));
        assert_eq!(got, expected, "enclave {running}, attested {attested}: {state:?}");
    }
}

#[test]
fn an_enclave_makes_up_for_nothing_else() {
    let needs = Needs { enclave: true, ..allowed(&["eu"]) };
    let got = check(&needs, &[], &enclave(EnclaveState::Attested));
    assert_eq!(got, Err(Forbidden::Region { region: "us".into() }));
}

#[test]
fn regions_without_one_in_common_are_a_contradiction() {
    for (first, then, regions, contradictory) in [
        (&[][..], &[][..], &[][..], false),
        (&[], &["us"], &["us"], false),
        (&["us"], &[], &["us"], false),
        (&["us", "eu"], &["eu", "ap"], &["eu"], false),
        (&["us"], &["us"], &["us"], false),
        (&["us"], &["eu"], &[], true),
    ] {
        let needs = with(allowed(first), |needs| needs.add(&allowed(then)));
        let expected = Needs { contradictory, ..allowed(regions) };
        assert_eq!(needs, expected, "{first:?}, then {then:?}");
    }
}

#[test]
fn a_contradiction_lasts_and_forbids_every_place() {
    let contradiction = with(allowed(&["us"]), |needs| needs.add(&allowed(&["eu"])));
    let twice = with(contradiction.clone(), |needs| needs.add(&allowed(&["us"])));
    let added = with(allowed(&["us"]), |needs| needs.add(&contradiction));
    // A hop tells the next router in JSON.
    let told = serde_json::from_str(&serde_json::to_string(&contradiction).unwrap()).unwrap();
    for needs in [contradiction, twice, added, told] {
        let got = check(&needs, &[], &place(&["gdpr"]));
        assert_eq!(got, Err(Forbidden::Contradiction), "{needs:?}");
    }
}

#[test]
fn adding_keeps_what_was_there() {
    let mut needs = Needs { enclave: true, ..frameworks(&["gdpr"]) };
    needs.add(&Needs::default());
    assert_eq!(needs, Needs { enclave: true, ..frameworks(&["gdpr"]) });
    needs.add(&Needs { attested: true, ..frameworks(&["hipaa", "GDPR"]) });
    let all = Needs { enclave: true, attested: true, ..frameworks(&["gdpr", "hipaa"]) };
    assert_eq!(needs, all);
}

/// `eu` satisfies GDPR but has no instance ready; `us` satisfies nothing, and two of its instances one
/// framework each; `ap` has none.
fn fleet() -> Snapshot {
    let eu = with(region("eu"), |region| region.frameworks = names(&["gdpr"]));
    snapshot(
        vec![eu, region("us"), region("ap")],
        vec![
            reporting("i-eu", "eu", |report| report.lifecycle = crate::model::Lifecycle::Draining),
            registered("i-hipaa", "us", |it| it.frameworks = names(&["hipaa"])),
            registered("i-soc2", "us", |it| it.frameworks = names(&["soc2"])),
        ],
    )
}

/// The difference between 451 (none could) and 503 (one could, none can now).
#[test]
fn could_comply_tells_never_from_not_now() {
    let gdpr_in_us = || rule("gdpr in us", &["gdpr"], &["us"]);
    let contradictory = Needs { contradictory: true, ..Needs::default() };
    let enclave = Needs { enclave: true, attested: true, ..Needs::default() };
    for (why, needs, rules, expected) in [
        ("the region does, though none is ready", frameworks(&["gdpr"]), vec![], true),
        ("an instance does, though its region does not", frameworks(&["hipaa"]), vec![], true),
        ("the region needs no instances", allowed(&["ap"]), vec![], true),
        ("enclaves come and go", enclave, vec![], true),
        ("nobody is in that region", allowed(&["sa"]), vec![], false),
        ("one of them is enough", allowed(&["sa", "us"]), vec![], true),
        ("nobody has it", frameworks(&["fedramp"]), vec![], false),
        ("nowhere will do", contradictory, vec![], false),
        ("the rule wants it elsewhere", frameworks(&["gdpr"]), vec![gdpr_in_us()], false),
        ("the rule is about others", frameworks(&["hipaa"]), vec![gdpr_in_us()], true),
        (
            "the allowed one lacks it",
            Needs { allowed_regions: names(&["us"]), ..frameworks(&["gdpr"]) },
            vec![],
            false,
        ),
        ("no one instance has both", frameworks(&["hipaa", "soc2"]), vec![], false),
    ] {
        assert_eq!(could_comply(&needs, &rules, &fleet()), expected, "{why}");
    }
}

proptest! {
    /// Whatever adds to needs, a place is allowed by the sum where each part allows it, and nowhere else.
    #[test]
    fn needs_only_ever_grow(
        parts in prop::collection::vec(some_needs(), 1..5),
        rules in some_rules(),
        places in some_candidates(8),
    ) {
        let sum = with(Needs::default(), |sum| parts.iter().for_each(|part| sum.add(part)));
        for place in &places {
            let each = parts.iter().all(|part| check(part, &rules, place).is_ok());
            prop_assert_eq!(check(&sum, &rules, place).is_ok(), each, "{:?} at {:?}", sum, place);
        }
    }

    /// A 451 is never given where an instance would do, nor a 503 where neither instance nor region would.
    #[test]
    fn could_comply_is_what_some_place_would_say(
        needs in some_needs(),
        rules in some_rules(),
        regions in prop::collection::vec(some::<Framework>(&FRAMEWORKS), REGIONS.len()),
        instances in prop::collection::vec(
            (prop::sample::select(REGIONS.to_vec()), some::<Framework>(&FRAMEWORKS)), 0..6),
    ) {
        let regions = REGIONS.iter().zip(regions);
        let fleet = snapshot(
            regions.map(|(id, has)| with(region(id), |it| it.frameworks = has)).collect(),
            instances.into_iter().enumerate().map(|(i, (region, has))| {
                registered(&format!("i-{i}"), region, |it| it.frameworks = has)
            }).collect(),
        );
        let bare = fleet.regions.iter().map(|region| Candidate {
            region: region.id.clone(),
            frameworks: region.frameworks.as_slice().into(),
            ..candidate("region")
        });
        let instances = fleet.views().filter(|view| view.key.level == Level::Instance);
        let places = bare.chain(instances.flat_map(|view| view.candidates.iter().cloned()));
        let mut attested = places.map(|place| Candidate { enclave: EnclaveState::Attested, ..place });
        let some_would = attested.any(|place| check(&needs, &rules, &place).is_ok());
        prop_assert_eq!(could_comply(&needs, &rules, &fleet), some_would);
    }
}
