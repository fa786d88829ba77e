//! A policy that loops in `describe`, the first call that a host makes.

use mrgc_policy_sdk::{__private::Guest, Facts, Loads, Manifest, Request};

#[derive(Debug)]
struct Looping;

mrgc_policy_sdk::bindings::export_component!(Looping);

impl Guest for Looping {
    fn describe() -> Manifest {
        loop {
            std::hint::black_box(());
        }
    }

    fn configure(_: String) -> Result<(), String> {
        Ok(())
    }

    fn observe(_: u32, _: Vec<Facts>) {}

    fn forget(_: u32) {}

    fn score(_: u32, _: Request, _: Vec<u32>, loads: Loads) -> Vec<f32> {
        vec![50.0; loads.in_flight.len()]
    }

    fn explain(_: u32, _: Request, _: Vec<u32>, _: Loads, _: u32) -> String {
        String::new()
    }
}
