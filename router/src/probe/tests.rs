use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A listener that answers each connection with the next of these, then with the last for ever.
async fn instance(answers: &[&str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut answers: Vec<String> =
        answers.iter().rev().map(|a| a.replace("SELF", &address.to_string())).collect();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = match answers.len() {
                1 => answers[0].clone(),
                _ => answers.pop().unwrap(),
            };
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                if answer.ends_with("ENDLESS") {
                    while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
                }
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

async fn probe(config: HealthCheck, answers: &[&str]) -> ProbeResult {
    let address = instance(answers).await;
    let config = HealthCheck { timeout_seconds: Some(0.3), ..config };
    Prober::new(&config).unwrap().probe(&address.to_string()).await
}

fn failed(result: ProbeResult) -> String {
    match result {
        ProbeResult::Failed(why) => why,
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn the_code_and_the_body_must_be_as_expected() {
    let healthy = answer("200 OK", "", r#"{"status":"healthy"}"#);
    let wants = |body: &str| HealthCheck {
        expected_codes: vec![String::from("200").try_into().unwrap()],
        expected_body: Some(body.to_owned()),
        ..HealthCheck::default()
    };
    for (config, answer, expected) in [
        (HealthCheck::default(), healthy.clone(), None),
        (wants(r#""status":"healthy""#), healthy.clone(), None),
        (wants(r#""status":"perfect""#), healthy, Some("does not contain")),
        (wants(""), answer("204 No Content", "", ""), Some("answered 204")),
        (HealthCheck::default(), answer("500 Oops", "", ""), Some("answered 500")),
        (
            HealthCheck::default(),
            answer("503 Service Unavailable", "", r#"{"status":"unhealthy"}"#),
            Some("answered 503"),
        ),
        // It is well, and leaves.
        (
            HealthCheck::default(),
            answer(
                "503 Service Unavailable",
                "",
                r#"{"status":"degraded","lifecycle":"draining"}"#,
            ),
            None,
        ),
        (
            HealthCheck::default(),
            answer(
                "503 Service Unavailable",
                "",
                r#"{"status":"unhealthy","lifecycle":"draining"}"#,
            ),
            Some("answered 503"),
        ),
        (HealthCheck::default(), "SSH-2.0-OpenSSH_9\r\n".to_owned(), Some("no HTTP answer")),
    ] {
        let result = probe(config, &[&answer]).await;
        match expected {
            None => assert_eq!(result, ProbeResult::Passed, "{answer}"),
            Some(expected) => {
                let why = failed(result);
                assert!(why.contains(expected), "{answer}: {why}");
            }
        }
    }
}

#[tokio::test]
async fn an_endless_body_is_read_up_to_its_bound_and_silence_times_out() {
    let endless = "HTTP/1.1 200 OK\r\n\r\nENDLESS";
    let wants = HealthCheck { expected_body: Some("healthy".to_owned()), ..HealthCheck::default() };
    assert!(failed(probe(wants, &[endless]).await).contains("does not contain"));
    assert_eq!(probe(HealthCheck::default(), &[""]).await, ProbeResult::TimedOut);
}

#[tokio::test]
async fn redirects_stay_on_the_instance() {
    let to = |location: &str| answer("302 Found", &format!("location: {location}\r\n"), "");
    let ok = answer("200 OK", "", "");
    let follow = || HealthCheck { follow_redirects: true, ..HealthCheck::default() };
    for stays in ["/ready", "http://SELF/ready?x"] {
        assert_eq!(probe(follow(), &[&to(stays), &ok]).await, ProbeResult::Passed, "{stays}");
        let why = failed(probe(HealthCheck::default(), &[&to(stays), &ok]).await);
        assert!(why.contains("answered 302"), "{why}");
    }
    for leaves in ["http://127.0.0.1:1/", "https://SELF/", "http://example.com/", "//x/", ""] {
        let why = failed(probe(follow(), &[&to(leaves), &ok]).await);
        assert!(why.contains("not followed"), "{leaves}: {why}");
    }
    let why = failed(probe(follow(), &[&to("/again")]).await);
    assert!(why.contains("more than 3 times"), "{why}");
}

#[tokio::test]
async fn nobody_there_is_a_failure_and_headers_are_sent() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let prober = Prober::new(&HealthCheck::default()).unwrap();
    assert!(failed(prober.probe(&gone).await).contains("cannot connect"));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        request.truncate(length);
        String::from_utf8(request).unwrap().to_lowercase()
    });
    let headers = [("Host".to_owned(), "api.example.com".to_owned())].into();
    let config = HealthCheck { headers, path: "/deep".to_owned(), ..HealthCheck::default() };
    let _ = Prober::new(&config).unwrap().probe(&address.to_string()).await;
    let request = heard.await.unwrap();
    assert!(request.starts_with("get /deep http/1.1\r\n"), "{request}");
    assert!(request.contains("host: api.example.com\r\n"), "{request}");
}

#[tokio::test]
async fn over_https_only_a_trusted_certificate_passes() {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer("200 OK", "", "").as_bytes()).await;
            });
        }
    });
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        Some(path)
    };
    let https = || HealthCheck { scheme: Scheme::Https, ..HealthCheck::default() };
    let its = HealthCheck { ca_file: file("its.pem", signed.cert.pem()), ..https() };
    let others = HealthCheck { ca_file: file("others.pem", other.cert.pem()), ..https() };
    let insecure = HealthCheck { allow_insecure: true, ..https() };
    for (config, passes) in [(its, true), (others, false), (insecure, true)] {
        let result = Prober::new(&config).unwrap().probe(&address).await;
        assert_eq!(result == ProbeResult::Passed, passes, "{result:?}");
    }
    let empty = HealthCheck { ca_file: file("empty.pem", String::new()), ..https() };
    assert!(Prober::new(&empty).is_err());
}
