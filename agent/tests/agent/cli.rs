//! The command's own face.

use std::{fs, process::Output};

use tokio::net::TcpListener;

use crate::support::command;

async fn agent(arguments: &[&str]) -> Output {
    command().args(arguments).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `BLESS=1 cargo test` writes the golden anew.
#[tokio::test]
async fn the_help_is_as_agreed() {
    let help = text(&agent(&["--help"]).await.stdout);
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/help.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(golden, &help).unwrap();
    }
    assert_eq!(help, fs::read_to_string(golden).unwrap());
}

#[tokio::test]
async fn the_example_validates() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/agent.example.toml");
    let output = agent(&["validate", "--config", example]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "the configuration is valid\n");
}

#[tokio::test]
async fn all_errors_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "[instance]\nid = 3\n[gpu]\ninterval = 1\n").unwrap();
    for arguments in [&["validate", "--config"][..], &["--config"], &["run", "--config"]] {
        let output = command()
            .args(arguments)
            .arg(&file)
            .env("MRGC_AGENT__DRAIN__DEADLINE_SECONDS", "soon")
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let (told, name) = (text(&output.stderr), file.display());
        for expected in [
            format!("{name}:2: instance.id: is integer `3`, expected a string"),
            format!("{name}:4: gpu.interval: there is no such key here"),
            "MRGC_AGENT__DRAIN__DEADLINE_SECONDS: drain.deadline_seconds: is string \"soon\""
                .to_owned(),
        ] {
            assert!(told.contains(&expected), "{expected} is not in:\n{told}");
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command()
        .env("MRGC_AGENT__LISTEN", &address)
        .env("MRGC_AGENT__INSTANCE__ID", "i-1")
        .env("MRGC_AGENT__INSTANCE__REGION", "us-east-1")
        .env("MRGC_AGENT__INSTANCE__ADDRESS", "127.0.0.1:8000")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains(&format!("cannot listen on {address}")), "{told}");
}

#[tokio::test]
async fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = agent(&["completions", shell]).await;
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("print-address"), "{shell}");
    }
}
