//! What the command looks like, and how it says no.

use std::fs;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Engine, command, mrgc, said};

/// `BLESS=1 cargo test -p mrgc-cli` writes the golden anew.
#[tokio::test]
async fn the_help_is_as_agreed() {
    let mut help = String::new();
    for arguments in [
        &["--help"][..],
        &["state", "--help"],
        &["state", "init", "--help"],
        &["state", "check", "--help"],
        &["state", "export", "--help"],
        &["state", "import", "--help"],
        &["state", "cost", "--help"],
        &["instances", "--help"],
        &["instances", "list", "--help"],
        &["instances", "show", "--help"],
        &["instances", "check", "--help"],
        &["instances", "drain", "--help"],
        &["instances", "quarantine", "--help"],
        &["instances", "release", "--help"],
        &["instances", "forget", "--help"],
        &["regions", "--help"],
        &["failover", "--help"],
        &["failover", "status", "--help"],
        &["failover", "start", "--help"],
        &["failover", "simulate", "--help"],
        &["failover", "recover", "--help"],
        &["failover", "pin", "--help"],
        &["failover", "unpin", "--help"],
        &["failover", "history", "--help"],
        &["completions", "--help"],
    ] {
        help.push_str(&format!("$ mrgc {}\n{}\n", arguments.join(" "), mrgc(arguments).await.out));
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/help.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(golden, &help).unwrap();
    }
    assert_eq!(help, fs::read_to_string(golden).unwrap());
}

#[tokio::test]
async fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let said = mrgc(&["completions", shell]).await;
        assert_eq!(said.code, Some(0));
        for word in ["on-conflict", "quarantine", "simulate"] {
            assert!(said.out.contains(word), "{shell}: {word}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_meant_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.toml");
    fs::write(&file, "[listen]\nthreads = 2\n[store]\nendpoint = 3\ntable_prefx = \"x\"\n")
        .unwrap();
    let config = file.to_str().unwrap();
    let bare = folder.path().join("bare.toml");
    fs::write(&bare, "endpoint = \"http://127.0.0.1:1\"\n").unwrap();
    let long = "r".repeat(257);
    for (arguments, expected) in [
        (&["state", "check", "--nonsense"][..], "--nonsense"),
        (&["state"], "Usage: mrgc state"),
        (&["state", "import"], "<FILE>"),
        (&["state", "import", "f", "--on-conflict", "guess"], "guess"),
        (&["state", "export", "f", "--segments", "65"], "65"),
        (&["state", "cost", "--instances", "0"], "0 is not in"),
        (&["state", "cost", "--interval", "-1"], "-1"),
        (&["state", "cost", "--region", "mars-1"], "there are no prices of `mars-1`"),
        (&["instances", "drain", "--reason", "r"], "<ID>"),
        (&["instances", "drain", "i-1"], "--reason"),
        (&["instances", "drain", "i-1", "--reason", " "], "`--reason` says nothing"),
        (&["instances", "drain", "i-1", "--reason", &long], "`--reason` has 257 bytes; it may"),
        (&["instances", "release", "", "--reason", "r"], "<ID>"),
        (&["instances", "release", "i", "--reason", "r", "--operator", ""], "`--operator` says"),
        (&["instances", "forget", "i-1"], "--reason"),
        (&["instances", "list", "--watch", "0"], "it is not within 0.1 and 86400"),
        (&["instances", "check", "", "--router", "http://127.0.0.1:1"], "<ID>"),
        (&["regions", "--router", "127.0.0.1:9000"], "give it as http://HOST:PORT"),
        (&["regions", "--router", "https://router"], "give it as http://HOST:PORT"),
        (&["failover"], "Usage: mrgc failover"),
        (&["failover", "status", "--watch", "soon"], "it is no number of seconds"),
        (&["failover", "start", "us", "--yes"], "--reason"),
        (&["failover", "start", "us", "--reason", " ", "--yes"], "`--reason` says nothing"),
        (&["failover", "start", "us", "--reason", "r", "--operator", "o"], "say `--yes`"),
        (&["failover", "start", "us", "--to", "us", "--reason", "r", "-y"], "to itself"),
        (&["failover", "start", "us", "--strategy", "fast", "--reason", "r"], "graceful"),
        (&["failover", "pin", "us", "broken", "--reason", "r"], "failover-active"),
        (&["failover", "recover", "us", "--reason", "r", "--operator", "o"], "no terminal to ask"),
        (&["failover", "unpin", "us", "--reason", "r", "--operator", ""], "`--operator` says"),
        (&["failover", "history", "--days", "401"], "401 is not in"),
        (&["instances", "list", "--endpoint", "nowhere"], "it must be an http:// or https:// URL"),
        (&["state", "check", "--endpoint", "nowhere"], "it must be an http:// or https:// URL"),
        (&["state", "check", "--table-prefix", "a b"], "`table_prefix` is `a b`"),
        (&["state", "check", "--config", "/nowhere/x.toml"], "cannot read /nowhere/x.toml"),
        (&["state", "check", "--config", bare.to_str().unwrap()], "the file has no [store]"),
        (&["state", "check", "--config", config], "router.toml:4: endpoint: "),
        (&["state", "check", "--config", config], "router.toml:5: table_prefx: "),
    ] {
        let said = mrgc(arguments).await;
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        assert!(said.err.contains(expected), "{arguments:?}: {}", said.err);
        assert_eq!(said.out, "", "{arguments:?}");
    }
}

#[tokio::test]
async fn arguments_win_over_the_environment_and_that_over_the_file() {
    let engine = Engine::start().await;
    let file = engine.path("agent.toml");
    let text = "[instance]\nid = \"i-1\"\n[store]\nendpoint = \"http://127.0.0.1:1\"\ntable_prefix = \"no\"\n";
    fs::write(&file, text).unwrap();
    let mut check = command();
    check.args(["state", "check", "--config"]).arg(&file);
    check.env("MRGC_STORE__ENDPOINT", &engine.endpoint);
    let said_before = said(&mut check).await;
    assert_eq!(said_before.code, Some(1));
    assert!(said_before.out.contains("no-metrics"), "{said_before:?}");
    let said = said(check.args(["--table-prefix", "mrgc"])).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    engine.stop().await;
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for command in ["init", "check"] {
        let said = mrgc(&["state", command, "--endpoint", &endpoint]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(&format!("{endpoint} cannot be reached")), "{}", said.err);
    }
}

#[tokio::test]
async fn a_denial_is_told_with_what_was_denied() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 16 * 1_024];
            // A request this short comes in one piece, or its head does, which is enough.
            let _ = connection.read(&mut request).await;
            let body = r#"{"__type":"x#AccessDeniedException","message":"mrgc may not do that"}"#;
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    let said = mrgc(&["state", "check", "--endpoint", &endpoint]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    for expected in [
        "DescribeTable on table `mrgc-gpu-instances`",
        "mrgc may not do that",
        "Check the credentials",
    ] {
        assert!(said.err.contains(expected), "{expected} is not in {}", said.err);
    }
    serving.abort();
}
