#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn enclaves(states: &[&str], error: Option<&str>) -> Enclaves {
    let enclave = |state: &&str| Enclave { state: (*state).to_owned(), ..Enclave::default() };
    let list: Vec<_> = states.iter().map(enclave).collect();
    let count = |is: fn(&Enclave) -> bool| list.iter().filter(|one| is(one)).count() as u32;
    Enclaves {
        running: count(Enclave::is_running),
        listed: count(|_| true),
        list,
        device: Check::ok(),
        allocator: Check::missing("no allocator"),
        heartbeat: error.map(|error| Heartbeat {
            round_trip_ms: None,
            error: (!error.is_empty()).then(|| error.to_owned()),
            failures: 0,
        }),
        operations: BTreeMap::new(),
    }
}

#[test]
fn healthy_is_one_that_runs_and_answers() {
    for (states, heartbeat, reason) in [
        (&["RUNNING"][..], None, None),
        (&["EMPTY", "RUNNING"], Some(""), None),
        (&["RUNNING"], Some("it hangs"), Some("it hangs")),
        (
            &["TERMINATING", "EMPTY"],
            None,
            Some("none of the 2 listed is running: TERMINATING, EMPTY; no allocator"),
        ),
        (&[], None, Some("none of the 0 listed is running; no allocator")),
    ] {
        let enclaves = enclaves(states, heartbeat);
        assert_eq!(enclaves.trouble().as_deref(), reason, "{states:?}");
        assert_eq!(enclaves.is_healthy(), reason.is_none(), "{states:?}");
    }
}

#[test]
fn the_answer_leaves_attestation_to_the_routers() {
    let mut enclaves = enclaves(&["RUNNING"], Some(""));
    let mut ms = Histogram::default();
    ms.record(4.0);
    enclaves.operations.insert("decrypt".to_owned(), ms);
    let answer = serde_json::to_value(Answer::of(&enclaves)).unwrap();
    assert_eq!(answer["running"], 1);
    assert_eq!(answer["healthy"], true);
    assert_eq!(answer["attested"], json!(null));
    assert_eq!(answer["reason"], json!(null));
    assert_eq!(answer["allocator"], json!({ "status": "missing", "reason": "no allocator" }));
    assert_eq!(answer["operations"]["decrypt"]["count"], 1);
    assert_eq!(answer["operations"]["decrypt"]["mean_ms"], 4.0);
}
