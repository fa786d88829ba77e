#![allow(clippy::unwrap_used)]

mod instances;
mod properties;
mod regions;

use super::*;
use crate::{
    model::{Lifecycle, Report},
    testing::{
        POOL, REGIONS, candidate, member, names, region, registered, reporting, snapshot, with,
    },
};

fn pool() -> PoolId {
    POOL.into()
}

fn ids(view: Option<&Arc<View>>) -> Vec<&str> {
    view.map_or_else(Vec::new, |view| view.candidates.iter().map(|c| &*c.id).collect())
}

/// The only instance that there is, as a candidate.
fn alone(member: Member) -> Candidate {
    snapshot(vec![region("us")], vec![member]).instances_at_home(&pool()).unwrap().candidates[0]
        .clone()
}

/// `us` as the sum of its instances.
fn whole(us: Region, members: Vec<Member>) -> Candidate {
    snapshot(vec![us], members).regions_with(&pool()).unwrap().candidates[0].clone()
}

fn measured(report: &mut Report) {
    report.queue_depth = Some(3);
    report.running = Some(6);
    report.avg_latency_ms = Some(120.0);
    report.time_to_first_token_ms = Some(40.0);
    report.models = names(&["llama"]);
    report.enclave = EnclaveState::Running;
    report.gpu_utilization = Some(0.5);
    report.gpu_memory_free_bytes = Some(1 << 30);
}

#[test]
fn an_instance_of_an_unregistered_region_is_left_out() {
    let members = vec![member("i-us", "us"), member("i-mars", "mars")];
    let snapshot = snapshot(vec![region("us"), region("eu")], members);
    assert_eq!(ids(snapshot.regions_with(&pool())), ["us"]);
    assert_eq!(ids(snapshot.instances_at_home(&pool())), ["i-us"]);
    assert_eq!(snapshot.views().count(), 2);
    // People see it all the same.
    let known: Vec<_> = snapshot.instances.iter().map(|it| it.registration.id.as_str()).collect();
    assert_eq!(known, ["i-mars", "i-us"]);
}

#[test]
fn pools_are_found_by_the_models_they_serve() {
    let serving = |id: &str, region: &str, pool: &str, models: &[&'static str]| {
        with(reporting(id, region, |report| report.models = names(models)), |it| {
            it.registration_mut().pool = pool.into();
        })
    };
    let members = vec![
        serving("i-1", "us", "chat", &["llama", "mixtral"]),
        serving("i-2", "eu", "chat", &["llama"]),
        serving("i-3", "us", "code", &["llama"]),
        serving("i-4", "us", "idle", &[]),
        serving("i-5", "mars", "lost", &["mixtral"]),
    ];
    let snapshot = snapshot(vec![region("us"), region("eu")], members);
    assert_eq!(snapshot.pools_serving("llama"), ["chat".into(), "code".into()]);
    assert_eq!(snapshot.pools_serving("mixtral"), ["chat".into()]);
    assert_eq!(snapshot.pools_serving("gpt"), []);
    let pools: Vec<_> = snapshot.pools().map(PoolId::as_str).collect();
    assert_eq!(pools, ["chat", "code", "idle"]);
}

#[test]
fn views_are_told_apart_by_level_region_and_pool() {
    let code = registered("i-3", "us", |it| it.pool = "code".into());
    let members = vec![member("i-2", "us"), member("i-1", "us"), code, member("i-4", "eu")];
    let snapshot = snapshot(vec![region("us"), region("eu")], members);
    assert_eq!(ids(snapshot.instances_at_home(&pool())), ["i-1", "i-2"]);
    assert_eq!(ids(snapshot.regions_with(&pool())), ["eu", "us"]);
    assert_eq!(ids(snapshot.regions_with(&"code".into())), ["us"]);
    assert_eq!(ids(snapshot.regions_with(&"none".into())), [""; 0]);
    let abroad = ViewKey { level: Level::Instance, region: Some("eu".into()), pool: pool() };
    assert_eq!(ids(snapshot.view(&abroad)), ["i-4"]);
    assert_eq!(snapshot.views().count(), 5);
}

#[test]
fn each_snapshot_has_the_next_version() {
    let mut builder = Builder::new("us".into());
    let versions = [5, 3].map(|at| {
        let snapshot = builder.build(Timestamp(at), vec![], vec![], &BTreeMap::new());
        (snapshot.version, snapshot.at)
    });
    assert_eq!(versions, [(1, Timestamp(5)), (2, Timestamp(3))]);
}

#[test]
fn a_view_that_did_not_change_is_shared_with_the_last_snapshot() {
    let mut builder = Builder::new("us".into());
    let mut build = |eu: Member| {
        let members = vec![member("i-us", "us"), eu];
        let regions = vec![region("us"), region("eu")];
        builder.build(Timestamp(1), regions, members, &BTreeMap::new())
    };
    let busy = |queue| reporting("i-eu", "eu", |report| report.queue_depth = Some(queue));
    let same = |one: &Snapshot, other: &Snapshot| -> Vec<_> {
        let pairs = one.shared_views().zip(other.shared_views());
        pairs.map(|(one, other)| Arc::ptr_eq(one, other)).collect()
    };
    let (first, second, third) = (build(busy(1)), build(busy(1)), build(busy(2)));
    assert_eq!(same(&first, &second), [true, true, true]);
    // In order: the regions, `eu`'s instances, `us`'s.
    assert_eq!(same(&second, &third), [false, false, true]);
    assert_eq!(third.views().nth(1).unwrap().candidates[0].queue_depth, Some(2.0));
    assert_eq!(second.views().nth(1).unwrap().candidates[0].queue_depth, Some(1.0));
}

#[test]
fn a_snapshot_can_be_told_in_json() {
    let snapshot = snapshot(vec![region("us")], vec![member("i-1", "us")]);
    let told = serde_json::to_value(&snapshot).unwrap();
    let views = told["views"].as_array().unwrap();
    assert_eq!(views.len(), 2);
    assert_eq!(views[1]["level"], "instance");
    assert_eq!(views[1]["pool"], POOL);
    assert_eq!(views[1]["candidates"][0]["id"], "i-1");
}
