//! A decision allocates nothing on the host but the buffer that its scores come back in.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use mrgc_policy_host::{Engine, Instance, Limits, Loads, Policy};
use mrgc_tests::policies::{Fleet, full_request, stock_component};

/// Counts this thread's allocations.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is System's, with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

const VIEW: u32 = 1;
/// Calls before the steady state.
const FIRST_CALLS: u64 = 3;
const CALLS: u64 = 50;

#[test]
fn a_score_call_allocates_its_result_alone() -> anyhow::Result<()> {
    let engine = Engine::new(Limits::default())?;
    let policy = Policy::load(&engine, &stock_component("score")?)?;
    for size in [10, 1000] {
        let fleet = Fleet::new(size, 5);
        let picks: Vec<u32> = (0..size as u32).rev().collect();
        for picks in [&[][..], &picks] {
            let mut instance = Instance::new(&policy, "{}")?;
            instance.observe(VIEW, &fleet.candidates())?;
            let mut before = 0;
            for number in 0..FIRST_CALLS + CALLS {
                if number == FIRST_CALLS {
                    before = COUNT.get();
                }
                let loads = Loads {
                    in_flight: &fleet.in_flight,
                    in_flight_tokens: &fleet.in_flight_tokens,
                };
                let scores = instance.score(VIEW, &full_request(number), picks, loads)?;
                assert_eq!(scores.points.len(), size);
            }
            let count = COUNT.get() - before;
            assert_eq!(count as u64, CALLS, "{CALLS} calls over {size} candidates");
        }
    }
    Ok(())
}
