use http::HeaderValue;

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect()
}

fn read(body: &str, whole: bool) -> Result<Request, Refusal> {
    let mut facts = Request::default();
    let json = headers(&[("content-type", "application/json; charset=utf-8")]);
    from_body(&mut facts, &json, body.as_bytes(), whole).map(|()| facts)
}

#[test]
fn an_openai_body_says_model_stream_tokens_and_user() {
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"model":"ll\u0061ma",
                   "stream":true,"max_tokens":64,"user":"u-1"}"#;
    let facts = read(body, true).unwrap();
    assert_eq!(facts.model.as_deref(), Some("llama"));
    assert_eq!((facts.stream, facts.max_tokens), (true, Some(64)));
    assert_eq!(facts.session, Some(hash("u-1")));
    assert_eq!(facts.prompt_tokens, Some(body.len() as u32 / 4));
}

#[test]
fn of_a_body_cut_short_what_came_before_the_cut_is_kept() {
    let body = r#"{"model":"llama","messages":[{"role":"user","content":"a long pro"#;
    assert_eq!(read(body, false).unwrap().model.as_deref(), Some("llama"));
    assert!(matches!(read(body, true), Err(Refusal::BadRequest(_))));
}

#[test]
fn a_garbled_body_is_refused() {
    for body in ["{", "[1]", r#"{"model":7}"#, r#"{"model":"a"} x"#, "null", "\u{0}"] {
        assert!(matches!(read(body, true), Err(Refusal::BadRequest(_))), "{body}");
    }
}

#[test]
fn what_is_not_json_is_passed_on_unread() {
    let mut facts = Request::default();
    let plain = headers(&[("content-type", "multipart/form-data")]);
    from_body(&mut facts, &plain, b"--x", true).unwrap();
    assert_eq!(facts.model, None);
}

#[test]
fn headers_add_facts_and_needs() {
    let facts = from_headers(&headers(&[
        ("x-mrgc-frameworks", "GDPR, hipaa"),
        ("x-mrgc-allowed-regions", "eu-west-1"),
        ("x-mrgc-enclave", "attested"),
        ("x-mrgc-origin", "52.5, 13.4"),
        ("x-mrgc-priority", "1000000"),
    ]))
    .unwrap();
    assert_eq!(facts.needs.frameworks, ["gdpr".into(), "hipaa".into()]);
    assert!(facts.needs.enclave && facts.needs.attested);
    assert_eq!(facts.origin, Some(Location { latitude: 52.5, longitude: 13.4 }));
    assert_eq!(facts.priority, 100);
}

#[test]
fn a_header_that_cannot_be_read_is_named() {
    for (name, value) in [
        ("x-mrgc-enclave", "maybe"),
        ("x-mrgc-origin", "Berlin"),
        ("x-mrgc-origin", "152.5,13.4"),
        ("x-mrgc-origin", "NaN,13.4"),
        ("x-mrgc-priority", "high"),
        ("x-mrgc-deadline-ms", "1.5"),
    ] {
        let refusal = from_headers(&headers(&[(name, value)])).unwrap_err();
        assert!(refusal.to_string().contains(name), "{refusal}");
    }
}
