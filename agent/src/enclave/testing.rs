//! What the tests here share: a `nitro-cli` that does as it is told, and a program in an enclave.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::Channel;
use crate::config;

/// A shell script as `nitro-cli`.
pub(super) fn nitro_cli(folder: &Path, script: &str) -> String {
    let program = folder.join("nitro-cli");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}

/// With a machine that has nothing for enclaves.
pub(super) fn config(nitro_cli: &str) -> config::Enclave {
    config::Enclave {
        nitro_cli: nitro_cli.to_owned(),
        logs_directory: None,
        device: "/nowhere/nitro_enclaves".into(),
        allocator: "/nowhere/allocator.yaml".into(),
        channel: None,
        required: false,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(1_000),
    }
}

/// What stands in for the program in an enclave: it answers each question with what `answer` writes.
pub(super) fn enclave(
    folder: &Path,
    answer: impl Fn(&Value, &mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> Channel {
    let path: PathBuf = folder.join("enclave.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            // Whoever asked may have gone.
            let _ = answer(&serde_json::from_str(&line).unwrap(), &mut stream);
        }
    });
    Channel::Unix { path }
}
