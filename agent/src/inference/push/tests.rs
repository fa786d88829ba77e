#![allow(clippy::unwrap_used)]

use super::*;
use crate::signals::Status;

fn inbox() -> (Inbox, mpsc::Receiver<Report>) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (Inbox(sender), receiver)
}

#[test]
fn a_report_says_what_it_says() {
    let body = br#"{"queue_depth":3,"running":2,"avg_latency_ms":81.5,"time_to_first_token_ms":9,
        "kv_cache_usage":0.25,"models":["m","m","n"],"model_load_ms":41000}"#;
    let signal = Report::parse(body).unwrap().into_signal(Duration::from_secs(7));
    let expected = Load {
        waiting: Some(3),
        running: Some(2),
        avg_latency_ms: Some(81.5),
        time_to_first_token_ms: Some(9.0),
        kv_cache_usage: Some(0.25),
    };
    assert_eq!(signal.load.value, Some(expected));
    assert_eq!(signal.models.value.unwrap(), ["m", "n"]);
    assert_eq!((signal.model_load_ms, signal.asked), (Some(41_000), Duration::from_secs(7)));

    let signal = Report::parse(br#"{"running":0}"#).unwrap().into_signal(Duration::ZERO);
    assert_eq!(signal.load.value, Some(Load { running: Some(0), ..Load::default() }));
    assert_eq!((signal.models.value, signal.models.check.status), (None, Status::Missing));
}

#[test]
fn what_is_not_valid_is_told() {
    let many = format!("{{\"models\":[{}]}}", vec!["\"m\""; MAX_MODELS + 1].join(","));
    let long = format!("{{\"models\":[\"{}\"]}}", "m".repeat(257));
    for (body, told) in [
        ("", "it is no JSON object"),
        ("queue=1", "it is no JSON object"),
        ("[1]", "it is no JSON object"),
        ("{\"running\":", "EOF"),
        ("{}", "it says nothing"),
        (r#"{"queue":1}"#, "unknown field `queue`, expected one of `queue_depth`"),
        (r#"{"queue_depth":-1}"#, "invalid value"),
        (r#"{"queue_depth":1.5}"#, "invalid type"),
        (r#"{"queue_depth":5000000000}"#, "invalid value"),
        (r#"{"avg_latency_ms":-2}"#, "avg_latency_ms is -2: give 0 or more"),
        (r#"{"avg_latency_ms":NaN}"#, "expected"),
        (r#"{"avg_latency_ms":1e999}"#, "number out of range"),
        (r#"{"kv_cache_usage":1.5}"#, "kv_cache_usage is 1.5: give 0 to 1"),
        (r#"{"models":"m"}"#, "invalid type"),
        (r#"{"models":[""]}"#, "a name of 0 bytes: give 1 to 256"),
        (&long, "a name of 257 bytes"),
        (&many, "models has 257 names: 256 at most"),
    ] {
        let refused = Report::parse(body.as_bytes()).unwrap_err().to_string();
        assert!(refused.starts_with("the report is not valid: "), "{refused}");
        assert!(refused.contains(told), "{body}: {refused}");
    }
}

#[test]
fn more_reports_than_can_be_taken_in_are_refused() {
    let (inbox, _reports) = inbox();
    let body = br#"{"running":1}"#;
    for _ in 0..MAX_WAITING {
        assert_eq!(inbox.take(body), Ok(()));
    }
    assert_eq!(inbox.take(body), Err(Refused::TooMany));
}

#[tokio::test]
async fn a_report_that_is_not_followed_goes_stale() {
    let (inbox, reports) = inbox();
    let (events, mut inbox_of_events) = mpsc::channel(8);
    tokio::spawn(run(reports, Duration::from_millis(50), Instant::now(), events));
    inbox.take(br#"{"running":1}"#).unwrap();
    // Nothing was reported at first.
    for (expected, told) in [(None, "yet"), (Some(1), ""), (None, "for 0 s"), (None, "for 0 s")] {
        let Some(Event::Inference(signal)) = inbox_of_events.recv().await else {
            panic!("another event");
        };
        assert_eq!(signal.load.value.as_ref().and_then(|load| load.running), expected);
        assert_eq!(signal.is_silent(), expected.is_none());
        if expected.is_none() {
            let reason = signal.load.check.reason.unwrap();
            assert!(reason.starts_with(&format!("the server has not reported {told}")), "{reason}");
        }
    }
}
