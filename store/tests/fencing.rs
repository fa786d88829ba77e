//! Writers that get in each other's way: who wins, and what the others are told.

use mrgc_fleet::model::{Lifecycle, Registration, Report, Writer};
use mrgc_store::{Fence, StoreError};
use tokio::task::JoinSet;

use crate::support::{Engine, Folder, Lossy, REGION, registration, report, store_at, without};

fn agent(process: &str, host: &str, address: &str) -> Registration {
    Registration {
        address: address.to_owned(),
        writer: Some(Writer { id: process.to_owned(), host: Some(host.to_owned()) }),
        ..registration("i-1")
    }
}

#[tokio::test]
async fn of_fifty_writers_exactly_one_wins_each_sequence() {
    if without("atomic-writes") {
        return;
    }
    const WRITERS: u32 = 50;
    const SEQUENCES: u64 = 6;
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    for sequence in 1..=SEQUENCES {
        let mut writing = JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writing.spawn(async move {
                let running = Some(writer);
                let report = Report { running, ..report("i-1", 1, sequence) };
                (writer, store.report(&report).await)
            });
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            writing.join_all().await.into_iter().partition(|(_, written)| written.is_ok());
        let [(winner, _)] = won[..] else { panic!("{} winners of {sequence}", won.len()) };
        for (_, written) in lost {
            let error = written.unwrap_err();
            let StoreError::Fenced { offered, stored, .. } = &error else { panic!("{error}") };
            let fence = Fence { generation: 1, sequence: Some(sequence) };
            assert_eq!((*offered, *stored), (fence, fence));
        }
        let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
        assert_eq!(standing.report.unwrap().running, Some(winner), "the winner's is stored");
    }
    assert_eq!(store.counts().repeated_writes, 0, "nobody took another's write for its own");
    engine.stop().await;
}

#[tokio::test]
async fn late_and_replayed_writes_lose_and_learn_it() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    let replayed = Report { queue_depth: Some(9), ..report("i-1", 1, 3) };
    store.report(&replayed).await.unwrap();
    store.report(&report("i-1", 1, 7)).await.unwrap();
    for late in [replayed, report("i-1", 1, 6)] {
        let error = store.report(&late).await.unwrap_err();
        let StoreError::Fenced { stored, by: None, .. } = &error else { panic!("{error}") };
        assert_eq!(*stored, Fence { generation: 1, sequence: Some(7) });
    }
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(standing.report, Some(report("i-1", 1, 7)));
    engine.stop().await;
}

#[tokio::test]
async fn a_clone_is_named_to_the_one_that_it_replaced() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let original = store.register(&agent("aaaa", "gpu-a", "10.0.0.5:8000")).await.unwrap();
    store.report(&report("i-1", original.generation, 1)).await.unwrap();
    let clone = store.register(&agent("bbbb", "gpu-b", "10.0.0.7:8000")).await.unwrap();
    store.report(&report("i-1", clone.generation, 1)).await.unwrap();

    let told = [
        store.report(&report("i-1", original.generation, 2)).await.unwrap_err(),
        store.deregister(&"i-1".into(), &REGION.into(), original.generation).await.unwrap_err(),
    ];
    for error in told {
        let StoreError::Fenced { by: Some(by), .. } = &error else { panic!("{error}") };
        assert_eq!((by.generation, by.address.as_str()), (2, "10.0.0.7:8000"));
        assert_eq!(by.writer, clone.writer);
        let text = error.to_string();
        let named = "another agent registered this id from 10.0.0.7:8000 (host gpu-b, process bbbb) \
                     at 2025-10-09T08:53:20.000Z as generation 2";
        assert!(text.contains(named), "{text}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_registration_that_the_sdk_repeats_is_one() {
    if without("atomic-writes") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    let mine = agent("aaaa", "gpu-a", "10.0.0.5:8000");
    // Each answer once: to the question for the shard count, to the two reads, to the write.
    for nth in 1..=4 {
        lossy.lose_answer(nth);
        let registered = store.register(&mine).await.unwrap();
        assert!(lossy.has_lost_it());
        assert_eq!(registered.generation, u64::from(nth));
    }
    assert_eq!(store.counts().repeated_writes, 1);
    engine.stop().await;
}

#[tokio::test]
async fn an_illegal_transition_is_told_and_not_written() {
    use Lifecycle::{Available, Cleaning, Draining, Quarantined, Registering, Terminated};
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let at = |lifecycle, sequence| Report { lifecycle, ..report("i-1", 1, sequence) };
    store.register(&registration("i-1")).await.unwrap();
    // What was never reported counts as registering.
    let error = store.report(&at(Cleaning, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::IllegalTransition { from: Registering, .. }), "{error}");

    let mut sequence = 0;
    for (step, refused) in [
        (Registering, &[Cleaning][..]),
        (Available, &[Registering, Cleaning]),
        (Draining, &[Registering]),
        (Cleaning, &[Registering, Draining]),
        (Quarantined, &[Registering, Draining]),
        (Available, &[Cleaning]),
        (Terminated, &[Registering, Available, Draining, Cleaning, Quarantined]),
    ] {
        sequence += 1;
        store.report(&at(step, sequence)).await.unwrap();
        for wanted in refused {
            let error = store.report(&at(*wanted, sequence + 1)).await.unwrap_err();
            let StoreError::IllegalTransition { from, to, allowed, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!((*from, to, *allowed), (step, wanted, step.successors()));
            assert!(!error.is_retryable());
            let text = error.to_string();
            assert!(text.contains(&format!("cannot go from {step} to {wanted}")), "{text}");
        }
        // Staying is allowed, and shows that the sequence was not used up.
        sequence += 1;
        store.report(&at(step, sequence)).await.unwrap();
    }

    // The next registration begins anew, over anything.
    store.register(&registration("i-1")).await.unwrap();
    let error = store.report(&Report { lifecycle: Cleaning, ..report("i-1", 2, 1) }).await;
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::IllegalTransition { from: Registering, .. }), "{error}");
    store.report(&report("i-1", 2, 1)).await.unwrap();
    engine.stop().await;
}

#[tokio::test]
async fn a_replay_of_another_lifecycle_is_fenced_and_not_illegal() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 5)).await.unwrap();
    let replay = Report { lifecycle: Lifecycle::Registering, ..report("i-1", 1, 4) };
    let error = store.report(&replay).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    engine.stop().await;
}
