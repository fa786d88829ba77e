//! Write a routing policy: implement one trait, export it, and it is a WASM component that a router
//! runs sandboxed and swaps while traffic flows.
//!
//! ```
//! use mrgc_policy_sdk::{Candidate, Policy, Request, Score};
//!
//! /// Prefers candidates with room.
//! struct Roomy {
//!     config: Config,
//! }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(default)]
//! struct Config {
//!     points_per_request: f32,
//! }
//!
//! impl Default for Config {
//!     fn default() -> Self {
//!         Self { points_per_request: 5.0 }
//!     }
//! }
//!
//! impl Policy for Roomy {
//!     type Config = Config;
//!
//!     fn new(config: Config) -> Result<Self, String> {
//!         if config.points_per_request <= 0.0 {
//!             return Err("points_per_request must be above 0".into());
//!         }
//!         Ok(Self { config })
//!     }
//!
//!     fn score(&self, _request: &Request, candidate: &Candidate) -> Score {
//!         Score::from(100.0 - self.config.points_per_request * candidate.in_flight as f32)
//!     }
//! }
//!
//! mrgc_policy_sdk::export!(Roomy);
//! # fn main() {}
//! ```
//!
//! A candidate is a region or an instance, and what was not measured is `None`. Test a policy with
//! [`testing`]: the cases in a `cases.json` run natively here and, unchanged, as WASM in the host.

extern crate self as mrgc_policy_sdk;

#[cfg(any(target_arch = "wasm32", test))]
mod alloc;
mod candidates;
mod glue;
pub mod log;
mod schema;
mod score;
pub mod testing;

/// What the WIT in `sdk/wit` generates. Authors use the names re-exported at the root.
#[doc(hidden)]
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "policy",
        pub_export_macro: true,
        export_macro_name: "export_component",
        default_bindings_module: "::mrgc_policy_sdk::bindings",
        runtime_path: "::mrgc_policy_sdk::__private::wit_bindgen::rt",
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

pub use bindings::exports::mrgc::policy::routing::{
    Candidate as Facts, Enclave, Health, Level, Loads, Location, Manifest, Needs, Request,
};
pub use candidates::{Candidate, Candidates};
pub use score::Score;

impl Request {
    /// Frameworks that a place must satisfy.
    pub fn frameworks(&self) -> &[String] {
        self.needs.as_ref().map_or(&[], |needs| &needs.frameworks)
    }

    /// Regions it may go to; empty for any.
    pub fn allowed_regions(&self) -> &[String] {
        self.needs.as_ref().map_or(&[], |needs| &needs.allowed_regions)
    }

    /// Whether only a place with a running enclave will do.
    pub fn needs_enclave(&self) -> bool {
        self.needs.as_ref().is_some_and(|needs| needs.enclave || needs.attested)
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter().flatten();
        attributes.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A routing policy: a pure function from a request and its candidates to one score for each.
///
/// It is made once for each configuration and data thread, and keeps nothing between calls: time and
/// randomness are in the [`Request`], live counts in the [`Candidate`].
pub trait Policy: Sized {
    /// Read from JSON. Put `#[serde(default)]` on it so that every key may be left out; a key it does
    /// not have is an error.
    type Config: serde::de::DeserializeOwned + Default;

    /// Errors: say what is wrong, with the value, and what would be right. The upload or the router's
    /// start is refused with it.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// How good a place is for this request: 0 to 100, or [`Score::RuledOut`].
    fn score(&self, request: &Request, candidate: &Candidate) -> Score;

    /// One score for each candidate, in their order, where a score depends on the others.
    fn rank(&self, request: &Request, candidates: Candidates<'_>) -> Vec<Score> {
        candidates.iter().map(|candidate| self.score(request, &candidate)).collect()
    }

    /// Why the candidate scores as it does, for the operator who asks `POST /route`.
    fn explain(&self, request: &Request, candidate: &Candidate) -> String {
        match self.score(request, candidate) {
            Score::RuledOut => format!("{} is ruled out", candidate.id),
            score => format!("{} scores {:.1}", candidate.id, score.points()),
        }
    }
}

/// Makes the type the policy of this crate's component. Its name, version and summary are the
/// package's own; its configuration's schema is read off [`Policy::Config`].
#[macro_export]
macro_rules! export {
    ($policy:ty) => {
        #[doc(hidden)]
        #[allow(dead_code)]
        pub struct MrgcPolicyComponent;

        const _: () = {
            use $crate::__private::{self as sdk, Glue};

            ::std::thread_local! {
                static GLUE: Glue<$policy> = const { Glue::new() };
            }

            impl sdk::Guest for MrgcPolicyComponent {
                fn describe() -> $crate::Manifest {
                    sdk::describe::<$policy>(
                        env!("CARGO_PKG_NAME"),
                        env!("CARGO_PKG_VERSION"),
                        env!("CARGO_PKG_DESCRIPTION"),
                    )
                }
                fn configure(config: String) -> Result<(), String> {
                    GLUE.with(|glue| glue.configure(&config))
                }
                fn observe(view: u32, fleet: Vec<$crate::Facts>) {
                    GLUE.with(|glue| glue.observe(view, fleet))
                }
                fn forget(view: u32) {
                    GLUE.with(|glue| glue.forget(view))
                }
                fn score(
                    view: u32,
                    request: $crate::Request,
                    picks: Vec<u32>,
                    loads: $crate::Loads,
                ) -> Vec<f32> {
                    GLUE.with(|glue| glue.score(view, &request, &picks, &loads))
                }
                fn explain(
                    view: u32,
                    request: $crate::Request,
                    picks: Vec<u32>,
                    loads: $crate::Loads,
                    candidate: u32,
                ) -> String {
                    GLUE.with(|glue| glue.explain(view, &request, &picks, &loads, candidate))
                }
            }
        };

        // Natively the exports would be symbols that two policies in one program share.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::export_component!(MrgcPolicyComponent);
    };
}

/// What can be a measurement: a finite number from 0. Reports come from other machines and can be anything.
pub fn measured(value: Option<f64>) -> Option<f64> {
    value.filter(|value| (0.0..f64::INFINITY).contains(value))
}

#[doc(hidden)]
pub mod __private {
    pub use wit_bindgen;

    pub use crate::bindings::exports::mrgc::policy::routing::Guest;
    pub use crate::glue::{Glue, describe};
}
