//! Whatever comes in, in whatever order.

use proptest::{prelude::*, strategy::Strategy as _};

use super::{Strategy, *};

const REGIONS: [&str; 3] = ["us", "eu", "ap"];

#[derive(Clone, Debug)]
enum Input {
    See(Evidence),
    Order(Wish),
    Word(RegionState, f64, Stamp),
    Lead(Option<u64>),
    Pass(u64),
}

fn some_inputs() -> impl proptest::strategy::Strategy<Value = Vec<(&'static str, Input)>> {
    let evidence = prop_oneof![(0..=10u32).prop_map(healthy), Just(CUT_OFF)];
    let state = || prop::sample::select(vec![Normal, Degraded, FailoverActive, Recovering]);
    let wish = prop_oneof![
        Just(Wish::Automatic),
        state().prop_map(pinned),
        Just(fail_over(None, Strategy::Immediate)),
        Just(fail_over(Some("ap"), Strategy::Graceful)),
    ];
    let stamp = (1..4u64, 0..9u64).prop_map(|(epoch, sequence)| stamp(epoch, sequence));
    let wait_ms = prop_oneof![0..1_500u64, Just(15_000), Just(30_000)];
    let input = prop_oneof![
        4 => evidence.prop_map(Input::See),
        1 => wish.prop_map(Input::Order),
        1 => (state(), 0.0..=1.0, stamp).prop_map(|(state, share, at)| Input::Word(state, share, at)),
        1 => prop::option::of(1..4u64).prop_map(Input::Lead),
        6 => wait_ms.prop_map(Input::Pass),
    ];
    prop::collection::vec((prop::sample::select(REGIONS.to_vec()), input), 1..60)
}

fn take(world: &mut World, region: &'static str, input: Input) {
    match input {
        Input::See(evidence) => world.see(region, evidence),
        Input::Order(wish) => {
            world.order(region, wish);
        }
        Input::Word(state, share, stamp) => {
            let record = RegionRecord { region: region.into(), ..word(state, share, stamp) };
            world.handler.record(record, world.now_ms);
        }
        Input::Lead(epoch) => world.handler.lead(epoch, world.now_ms),
        Input::Pass(ms) => world.now_ms += ms,
    }
    world.look();
}

fn is_pinned(world: &World, region: &str) -> bool {
    let order = world.handler.ordered(&region.into());
    order.is_some_and(|order| matches!(order.wish, Wish::Pinned { .. }))
}

proptest! {
    #[test]
    fn shares_are_shares_and_rise_by_steps_unless_pinned(inputs in some_inputs()) {
        let mut world = World::new(&REGIONS);
        let mut risen_ms: [Option<u64>; 3] = [None; 3];
        for (region, input) in inputs {
            let before = REGIONS.map(|region| world.now(region).1);
            take(&mut world, region, input);
            for (place, region) in REGIONS.iter().enumerate() {
                let (state, share) = world.now(region);
                prop_assert!((0.0..=1.0).contains(&share), "{share}");
                prop_assert!(state != Normal || share == 1.0, "normal, and {share}");
                if share > before[place] && !is_pinned(&world, region) {
                    prop_assert!(share - before[place] <= 0.25 + 1e-9);
                    let waited_ms = risen_ms[place].map(|risen_ms| world.now_ms - risen_ms);
                    prop_assert!(waited_ms.is_none_or(|ms| ms >= 30_000), "{waited_ms:?} ms");
                }
                if share > before[place] {
                    risen_ms[place] = Some(world.now_ms);
                }
            }
            prop_assert!(world.handler.next_ms(world.now_ms) > world.now_ms, "it spins");
        }
    }

    #[test]
    fn once_it_is_quiet_all_regions_come_back(inputs in some_inputs()) {
        let mut world = World::new(&REGIONS);
        for (region, input) in inputs {
            take(&mut world, region, input);
        }
        for region in REGIONS {
            world.see(region, healthy(10));
            world.order(region, Wish::Automatic);
        }
        // The last word's time to live, a hold, and the steps from nothing.
        world.pass(RECORD_TTL_MS + 30 * SECOND_MS + 4 * 30 * SECOND_MS);
        for region in REGIONS {
            prop_assert_eq!(world.now(region), (Normal, 1.0));
        }
        prop_assert!(world.events().iter().all(|event| event.ended_at.is_some()));
    }
}
