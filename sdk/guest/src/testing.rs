//! Runs a policy's `cases.json` natively. The host runs the same file against the built component.
//!
//! ```ignore
//! #[test]
//! fn cases() {
//!     mrgc_policy_sdk::testing::run::<Mine>(include_str!("../cases.json"));
//! }
//! ```

#[path = "../../wit/cases.rs"]
#[allow(unreachable_pub, reason = "also compiled into the host, where it is public")]
mod cases;

use crate::{__private::Glue, Loads, Policy};

/// Runs every case and panics with all that failed.
///
/// # Panics
///
/// Where the file is not readable or a case does not hold: it is for tests.
#[allow(clippy::panic, reason = "how a test fails")]
pub fn run<P: Policy>(cases: &str) {
    let cases = cases::read(cases).unwrap_or_else(|e| panic!("{e}"));
    assert!(!cases.is_empty(), "no cases");
    let failures: Vec<_> = cases.into_iter().filter_map(|case| check::<P>(case).err()).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn check<P: Policy>(mut case: cases::Case<crate::Request, crate::Facts>) -> Result<(), String> {
    let glue = Glue::<P>::new();
    glue.configure(&case.config).map_err(|e| format!("case `{}`: {e}", case.name))?;
    glue.observe(0, std::mem::take(&mut case.candidates));
    let loads = Loads {
        in_flight: case.in_flight.clone(),
        in_flight_tokens: case.in_flight_tokens.clone(),
    };
    let scores = glue.score(0, &case.request, &case.picks, &loads);
    case.check(&scores, |index| Ok(glue.explain(0, &case.request, &case.picks, &loads, index)))
}
