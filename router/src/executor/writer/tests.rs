use mrgc_fleet::model::{Registration, Timestamp};

use super::*;

#[test]
fn a_release_says_what_is_over() {
    let registration = Registration::new("i-1", "us", "p", "a:1");
    let drained_for = |reason: Option<&str>| {
        let drain = Desired {
            instance: "i-1".into(),
            region: "us".into(),
            state: DesiredState::Draining,
            reason: reason.map(str::to_owned),
            operator: None,
            automatic: true,
            at: Timestamp(0),
            writer_region: "us".into(),
            stamp: Stamp::default(),
        };
        let standing = Standing::new(registration.clone(), None);
        why_released(&Standing { desired: Some(drain), ..standing })
    };
    for reason in ["answered 503", "EC2: system status impaired"] {
        let told = drained_for(Some(reason));
        assert_eq!(told, format!("its probes pass, and this is over: {reason}"));
    }
    assert_eq!(drained_for(None), "its probes pass again");
}
