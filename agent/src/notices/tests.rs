#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-05-04 08:00:00 UTC);

fn config() -> config::Notices {
    config::Notices {
        enabled: None,
        interval: Duration::from_secs(5),
        rebalance: OnRebalance::Drain,
        maintenance_lead: Duration::from_secs(600),
        lifecycle_hook: None,
        auto_scaling_group: None,
        auto_scaling_endpoint: None,
    }
}

fn read(source: Source, text: &str) -> Vec<(String, Option<Cause>)> {
    let notices = source.read(text, NOW, &config()).unwrap();
    notices.into_iter().map(|notice| (notice.text, notice.cause)).collect()
}

#[test]
fn each_page_is_read() {
    let spot = r#"{"action": "terminate", "time": "2026-05-04T08:22:00Z"}"#;
    let rebalance = r#"{"noticeTime": "2026-05-04T07:59:00Z"}"#;
    for (source, text, expected) in [
        (
            Source::Spot,
            spot,
            Some(("spot interruption: terminate at 2026-05-04T08:22:00Z", Cause::SpotInterruption)),
        ),
        (
            Source::Rebalance,
            rebalance,
            Some(("rebalance recommended at 2026-05-04T07:59:00Z", Cause::Rebalance)),
        ),
        (
            Source::AutoScaling,
            "Terminated",
            Some(("Auto Scaling wants it Terminated", Cause::AutoScaling)),
        ),
        (
            Source::AutoScaling,
            "Warmed:Terminated",
            Some(("Auto Scaling wants it Warmed:Terminated", Cause::AutoScaling)),
        ),
        (Source::AutoScaling, "InService\n", None),
        (Source::AutoScaling, "Standby", None),
        (Source::AutoScaling, "", None),
        (Source::Maintenance, "[]", None),
    ] {
        let expected = expected.map(|(text, cause)| (text.to_owned(), Some(cause)));
        assert_eq!(read(source, text), Vec::from_iter(expected), "{source:?} {text}");
    }
    let ignored = config::Notices { rebalance: OnRebalance::Ignore, ..config() };
    assert_eq!(Source::Rebalance.read(rebalance, NOW, &ignored).unwrap()[0].cause, None);
}

#[test]
fn maintenance_drains_when_it_is_near() {
    let event = |state: &str, not_before: &str| {
        format!(
            r#"[{{"NotBefore": "{not_before}", "Code": "system-reboot", "Description": "scheduled reboot",
                "EventId": "instance-event-0d59937288b749b32", "NotAfter": "{not_before}", "State": "{state}"}}]"#
        )
    };
    let near = Some(Some(Cause::Maintenance));
    for (state, not_before, expected) in [
        ("active", "4 May 2026 08:10:00 GMT", near),
        ("active", "04 May 2026 08:10:01 GMT", Some(None)),
        ("active", "18 May 2026 08:00:00 GMT", Some(None)),
        ("active", "4 May 2026 07:00:00 GMT", near),
        ("active", "soon", near),
        ("completed", "4 May 2026 08:00:00 GMT", None),
        ("canceled", "4 May 2026 08:00:00 GMT", None),
    ] {
        let causes = read(Source::Maintenance, &event(state, not_before));
        let causes: Vec<_> = causes.into_iter().map(|(_, cause)| cause).collect();
        assert_eq!(causes, Vec::from_iter(expected), "{state} {not_before}");
    }
}

#[test]
fn dates_are_those_of_events_and_of_headers() {
    for (text, expected) in [
        ("21 Jan 2019 09:00:43 GMT", Some(datetime!(2019-01-21 09:00:43 UTC))),
        ("1 Jan 2019 09:00:43 GMT", Some(datetime!(2019-01-01 09:00:43 UTC))),
        ("Sat, 21 Nov 2026 08:00:00 GMT", Some(datetime!(2026-11-21 08:00:00 UTC))),
        ("2019-01-21T09:00:43Z", None),
        ("", None),
    ] {
        assert_eq!(parse_date(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn no_page_is_too_odd(text in ".{0,200}") {
        for source in Source::ALL {
            let _ = source.read(&text, NOW, &config());
        }
    }
}
