#![allow(clippy::unwrap_used)]

use std::{io::Write, path::Path};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::{
    config::Config,
    enclave::{
        Enclave, Heart,
        relay::{Relay, RelayError},
        testing::enclave,
    },
    reload::Live,
};

const TIMEOUT: Duration = Duration::from_secs(10);

async fn ask(channel: &Channel, timeout: Duration) -> Result<Value, ChannelError> {
    channel.ask(None, "test", "1", timeout).await
}

#[tokio::test]
async fn a_line_is_answered_by_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let channel = enclave(folder.path(), |question, to| {
        // In pieces, and with something behind the line.
        let answer = json!({ "nonce": "1", "asked": question, "long": "x".repeat(20_000) });
        let answer = answer.to_string();
        for piece in answer.as_bytes().chunks(5_000) {
            to.write_all(piece)?;
        }
        to.write_all(b"\nand more")
    });
    let answer = ask(&channel, TIMEOUT).await.unwrap();
    assert_eq!(answer["asked"], json!({ "type": "test", "nonce": "1" }));
}

#[tokio::test]
async fn an_enclave_may_answer_anything() {
    type Answer = fn(&mut dyn Write) -> io::Result<()>;
    let cases: [(&str, Answer, &str); 6] = [
        ("nothing", |_| Ok(()), "a line that does not end"),
        ("half a line", |to| to.write_all(b"{\"nonce\":"), "a line that does not end"),
        ("no JSON", |to| to.write_all(b"hello\n"), "what is no answer"),
        ("no text", |to| to.write_all(b"\xFF\xFE\n"), "what is no answer"),
        ("an endless line", |to| to.write_all(&vec![b'x'; 1 << 20]), "more than 32768 bytes"),
        (
            "a drop now and then",
            |to| {
                for _ in 0..50 {
                    to.write_all(b" ")?;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            },
            "did not answer within 500 ms",
        ),
    ];
    for (case, answer, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let channel = enclave(folder.path(), move |_, to| answer(to));
        let error = ask(&channel, Duration::from_millis(500)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{case}: {error}");
    }
}

#[tokio::test]
async fn an_enclave_may_not_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let absent = Channel::Unix { path: folder.path().join("absent") };
    let error = ask(&absent, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, ChannelError::Unreachable { .. }), "{error}");
    let long = Channel::Unix { path: "/x".repeat(200).into() };
    let error = ask(&long, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, ChannelError::Unreachable { .. }), "{error}");

    let vsock = Channel::Vsock { port: 5005 };
    let error = ask(&vsock, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, ChannelError::NoCid), "{error}");
    // Nobody has this address; where there is no vsock at all, that is told as well.
    let started = Instant::now();
    let nobody: Result<Value, _> =
        vsock.ask(Some(0x7FFF_FFF0), "test", "1", Duration::from_secs(2)).await;
    let error = nobody.unwrap_err();
    let is_told = matches!(error, ChannelError::Unreachable { .. } | ChannelError::TooSlow(_));
    assert!(is_told, "{error}");
    assert!(started.elapsed() < TIMEOUT);
}

fn running() -> Vec<Enclave> {
    let stopped = Enclave { state: "TERMINATING".to_owned(), ..Enclave::default() };
    vec![stopped, Enclave { state: "RUNNING".to_owned(), ..Enclave::default() }]
}

fn answering(folder: &Path, answer: impl Fn(&Value) -> Value + Send + 'static) -> Channel {
    enclave(folder, move |question, to| writeln!(to, "{}", answer(question)))
}

#[tokio::test]
async fn a_heartbeat_tells_what_the_enclave_did() {
    let folder = tempfile::tempdir().unwrap();
    let channel = answering(folder.path(), |question| {
        assert_eq!(question["type"], "heartbeat");
        let operations = json!([
            { "name": "decrypt", "ms": 2.0 }, { "name": "decrypt", "ms": 4.0 },
            { "name": "sign", "ms": 1.0 }, { "name": "sign", "ms": -1.0 },
        ]);
        json!({ "nonce": question["nonce"], "operations": operations })
    });
    let mut heart = Heart::default();
    for beats in 1..=2 {
        let beat = heart.beat(&channel, &running(), TIMEOUT).await.unwrap();
        assert!(beat.round_trip_ms.is_some_and(|ms| ms > 0.0) && beat.error.is_none());
        let operations = heart.operations();
        assert_eq!(operations["decrypt"].count(), 2 * beats);
        assert_eq!(operations["decrypt"].mean_ms(), Some(3.0));
        assert_eq!(operations["sign"].count(), beats, "a negative time is none");
    }
    assert!(heart.beat(&channel, &running()[..1], TIMEOUT).await.is_none(), "none runs");
}

#[tokio::test]
async fn an_enclave_that_invents_names_takes_no_more_memory() {
    let folder = tempfile::tempdir().unwrap();
    let channel = answering(folder.path(), |question| {
        let operation = |n: usize| json!({ "name": n.to_string(), "ms": 1 });
        let operations: Vec<_> = (0..500).map(operation).collect();
        json!({ "nonce": question["nonce"], "operations": operations })
    });
    let mut heart = Heart::default();
    heart.beat(&channel, &running(), TIMEOUT).await.unwrap();
    let operations = heart.operations();
    assert!(operations.len() <= 16, "{}", operations.len());
    assert_eq!(operations.values().map(|ms| ms.count()).sum::<u64>(), 500);
}

#[tokio::test]
async fn a_heartbeat_must_be_of_its_nonce() {
    let mut heart = Heart::default();
    for (n, (answer, expected)) in [
        (json!({ "nonce": "of another" }), "another question"),
        (json!({}), "missing field `nonce`"),
        (json!({ "error": "locked" }), "refused: locked"),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let channel = answering(folder.path(), move |question| {
            let mut answer = answer.clone();
            if answer.get("error").is_some() {
                answer["nonce"] = question["nonce"].clone();
            }
            answer
        });
        let beat = heart.beat(&channel, &running(), TIMEOUT).await.unwrap();
        let error = beat.error.unwrap();
        assert!(error.contains(expected), "{error}");
        assert_eq!((beat.failures as usize, beat.round_trip_ms), (n + 1, None));
    }
}

fn relay(channel: Option<Channel>) -> Relay {
    let variables = [
        ("MRGC_AGENT__INSTANCE__ID", "i-1"),
        ("MRGC_AGENT__INSTANCE__REGION", "us"),
        ("MRGC_AGENT__INSTANCE__ADDRESS", "127.0.0.1:8000"),
        ("MRGC_AGENT__ENCLAVE__TIMEOUT_MS", "10000"),
    ];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let config = Config::load(None, variables).unwrap();
    // What was sent last stays, also without its sender.
    Relay::new(channel, watch::channel(Live::of(&config)).1)
}

async fn relayed(
    body: &Value,
    answer: impl Fn(&Value) -> Value + Send + 'static,
) -> Result<String, RelayError> {
    let folder = tempfile::tempdir().unwrap();
    let desk = relay(Some(answering(folder.path(), answer)));
    let body = serde_json::to_vec(body).unwrap();
    desk.ask(&body, &running()).await.map(|answer| answer.document)
}

#[tokio::test]
async fn a_nonce_goes_in_and_a_document_comes_out() {
    let question = json!({ "nonce": "bm9uY2U=" });
    let good = |question: &Value| {
        assert_eq!(question["type"], "attest");
        json!({ "nonce": question["nonce"], "document": "ZG9j" })
    };
    assert_eq!(relayed(&question, good).await.unwrap(), "ZG9j");
    for (answer, expected) in [
        (json!({ "nonce": "bm9uY2U=" }), "without a document"),
        (json!({ "nonce": "bm9uY2U=", "document": "\"}" }), "without a document"),
        (json!({ "nonce": "bm9uY2U=", "error": "no NSM" }), "refused: no NSM"),
        (json!({ "nonce": "other", "document": "ZG9j" }), "another question"),
        (json!("text"), "what is no answer"),
    ] {
        let error = relayed(&question, move |_| answer.clone()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for body in [
        json!({}),
        json!({ "nonce": "" }),
        json!({ "nonce": "not base64!" }),
        json!({ "nonce": "x".repeat(685) }),
        json!({ "nonce": "eA==", "more": 1 }),
    ] {
        let refused = relayed(&body, |_| unreachable!("nothing is passed on")).await;
        assert!(matches!(refused, Err(RelayError::Invalid(_))), "{body}");
    }
}

#[tokio::test]
async fn there_must_be_an_enclave_and_room() {
    let body = br#"{"nonce":"eA=="}"#;
    let none = relay(None).ask(body, &running()).await;
    assert!(matches!(none, Err(RelayError::NoChannel)));

    let folder = tempfile::tempdir().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let channel = enclave(folder.path(), move |_, _| {
        // Until the test is over.
        let _ = released.recv();
        Ok(())
    });
    let relay = relay(Some(channel));
    let stopped = relay.ask(body, &running()[..1]).await;
    assert!(matches!(stopped, Err(RelayError::NoEnclave)));

    let mut asking: Vec<_> = (0..4)
        .map(|_| {
            let relay = relay.clone();
            Box::pin(async move { relay.ask(body, &running()).await })
        })
        .collect();
    for one in &mut asking {
        // Once polled, it has its place.
        let polled = tokio::time::timeout(Duration::from_millis(20), one.as_mut()).await;
        assert!(polled.is_err());
    }
    assert!(matches!(relay.ask(body, &running()).await, Err(RelayError::Busy)));
    drop(release);
    for one in asking {
        assert!(matches!(one.await, Err(RelayError::Channel(_))));
    }
}
