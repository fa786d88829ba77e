#![allow(clippy::unwrap_used)]

use super::*;

const READY: Option<bool> = Some(true);
const NOT_READY: Option<bool> = Some(false);
const UNKNOWN: Option<bool> = None;

#[test]
fn a_load_is_from_no_model_to_one() {
    // (second, ready, age of the process in seconds), and what is known at the end.
    for (case, polls, expected_s) in [
        ("ready all along", &[(0, READY, None), (1, READY, Some(90))][..], None),
        ("nothing listened, then it served", &[(0, NOT_READY, None), (3, READY, None)], Some(3)),
        ("silence tells nothing", &[(0, UNKNOWN, None), (3, READY, None)], None),
        (
            "nor does it end a wait",
            &[(0, NOT_READY, None), (3, UNKNOWN, None), (5, READY, None)],
            Some(5),
        ),
        ("still loading", &[(0, NOT_READY, None), (3, NOT_READY, None)], None),
        (
            "the process is older than the agent",
            &[(0, NOT_READY, None), (3, READY, Some(40))],
            Some(40),
        ),
        ("it was started late", &[(0, NOT_READY, None), (600, READY, Some(45))], Some(45)),
        ("nobody started it for hours", &[(0, NOT_READY, None), (7_200, READY, None)], None),
        (
            "the last load counts",
            &[(0, NOT_READY, None), (9, READY, None), (20, NOT_READY, None), (22, READY, None)],
            Some(2),
        ),
        (
            "while it loads again nothing is known",
            &[(0, NOT_READY, None), (9, READY, None), (20, NOT_READY, None)],
            None,
        ),
        (
            "a pause is no load",
            &[
                (0, NOT_READY, None),
                (9, READY, Some(9)),
                (20, NOT_READY, None),
                (21, READY, Some(21)),
            ],
            Some(9),
        ),
    ] {
        let mut loading = Loading::default();
        for (at, is_ready, age) in polls {
            loading.observe(*is_ready, Duration::from_secs(*at), age.map(Duration::from_secs));
        }
        assert_eq!(loading.took_ms(), expected_s.map(|s: u64| s * 1_000), "{case}");
    }
}
