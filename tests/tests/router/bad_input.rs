//! What a client can get wrong, and what it is told.

use anyhow::{Result, ensure};
use http_body_util::{BodyExt, Full};
use mrgc_tests::model_server::ModelServer;
use serde_json::json;

use crate::support::{
    ANY_ROUTE, CHAT, Lone, MODEL, Setup, chat_body, h2, header, model_server, problem, problem_in,
    raw,
};

async fn any_router() -> Result<(ModelServer, Lone)> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    Ok((server, lone))
}

fn post_json(lone: &Lone, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    let request = lone.client.post(lone.router.data_url(CHAT));
    request.header("content-type", "application/json").body(body)
}

#[tokio::test]
async fn a_garbled_body_is_told_where() -> Result<()> {
    let (server, lone) = any_router().await?;
    let nested = format!("{{\"model\":\"{MODEL}\",\"x\":{}", "[".repeat(100_000));
    for (garbled, told) in [
        ("{\"model\":", "EOF"),
        ("{\"model\":\"a\"", "EOF"),
        ("{\"model\":\"a\"} {}", "trailing"),
        ("not json", "expected"),
        ("\u{0}", "expected"),
        ("{\"model\":\"\\ud800\"}", "hex escape"),
        ("{\"model\":7}", "expected a string"),
        ("{\"stream\":\"yes\"}", "boolean"),
        ("{\"max_tokens\":-1}", "-1"),
        (nested.as_str(), "EOF"),
    ] {
        let detail =
            problem(post_json(&lone, garbled.to_owned()).send().await?, 400, "bad-request").await?;
        let start: String = garbled.chars().take(20).collect();
        ensure!(detail.contains(told) && detail.contains("line 1"), "{start}: {detail}");
    }
    let not_text: &'static [u8] = b"{\"model\":\"\xff\"}";
    problem(post_json(&lone, not_text).send().await?, 400, "bad-request").await?;
    assert_eq!(server.counters().received, 0);

    let odd = json!({"user": null, "max_tokens": null, "model": MODEL, "x": [[[]]]});
    assert_eq!(post_json(&lone, odd.to_string()).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_body_that_says_not_to_be_json_is_not_judged() -> Result<()> {
    let (server, lone) = any_router().await?;
    let request = lone.client.post(lone.router.data_url(CHAT)).header("content-type", "text/plain");
    let answer = request.body("not json").send().await?;
    assert_eq!(answer.status(), 400);
    ensure!(answer.text().await?.contains("not a chat request"), "the upstream's own words");
    assert_eq!(server.counters().received, 0);
    Ok(())
}

#[tokio::test]
async fn unknown_models_and_paths_are_not_found() -> Result<()> {
    let server = model_server("one").await?;
    let route = "[[routes]]\nname = \"v1\"\nmatch = { path = \"/v1/*\" }";
    let lone = Setup::new(route).instance("i-one", server.address()).start().await?;

    let unknown = post_json(&lone, chat_body("gpt-17", false).to_string()).send().await?;
    assert!(header(unknown.headers(), "x-mrgc-decision")?.len() > 8);
    let detail = problem(unknown, 404, "unknown-model").await?;
    ensure!(detail.contains("`gpt-17`"), "{detail}");
    // The header is the client's word, too, and comes before the body's.
    let request = lone.chat(false).header("x-mrgc-model", "gpt-18");
    problem(request.send().await?, 404, "unknown-model").await?;

    let lost = lone.client.post(lone.router.data_url("/v2/x")).json(&chat_body(MODEL, false));
    let detail = problem(lost.send().await?, 404, "no-such-route").await?;
    ensure!(detail.contains("/v2/x"), "{detail}");
    assert_eq!(server.counters().received, 0);
    assert_eq!(lone.chat(false).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_model_can_be_left_out_where_one_pool_is_all_there_is() -> Result<()> {
    let server = model_server("one").await?;
    let other = "[[instances]]\nid = \"i-other\"\nregion = \"us-east-1\"\npool = \"other\"\n\
                 address = \"192.0.2.1:1\"\nmodels = [\"other\"]\n";
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let nameless = r#"{"messages": []}"#;
    assert_eq!(post_json(&lone, nameless).send().await?.status(), 200);

    let setup = Setup::new(&format!("{ANY_ROUTE}{other}"));
    let lone = setup.instance("i-one", server.address()).start().await?;
    let detail = problem(post_json(&lone, nameless).send().await?, 400, "no-model").await?;
    ensure!(detail.contains("mock, other"), "{detail}");
    assert_eq!(lone.chat(false).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_and_without_a_length() -> Result<()> {
    let server = model_server("one").await?;
    let limits = "[limits]\nbuffered_body_bytes = 4096\nbody_bytes = 65536";
    let setup = Setup::new(&format!("{ANY_ROUTE}{limits}"));
    let lone = setup.instance("i-one", server.address()).start().await?;
    let chat = |padding: usize| {
        let mut body = chat_body(MODEL, false);
        body["padding"] = "x".repeat(padding).into();
        body.to_string()
    };
    let unsized_body = |text: String| reqwest::Body::wrap(WithoutLength(Full::from(text)));

    for fits in [100, 40_000] {
        assert_eq!(post_json(&lone, chat(fits)).send().await?.status(), 200, "{fits}");
        assert_eq!(
            post_json(&lone, unsized_body(chat(fits))).send().await?.status(),
            200,
            "{fits}"
        );
    }
    assert_eq!(server.counters().completed, 4);

    let detail =
        problem(post_json(&lone, chat(70_000)).send().await?, 413, "body-too-large").await?;
    ensure!(detail.contains("65536"), "{detail}");
    problem(post_json(&lone, unsized_body(chat(70_000))).send().await?, 413, "body-too-large")
        .await?;
    // It comes in pieces, of which the first are within all limits.
    let mut pieces =
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        pieces += &format!("1000\r\n{}\r\n", "y".repeat(0x1000));
    }
    let answer = raw(lone.router.data, format!("{pieces}0\r\n\r\n").as_bytes()).await?;
    ensure!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let mut connection = h2(lone.router.data).await?;
    let request = http::Request::post(lone.router.data_url(CHAT)).body(Full::from(chat(70_000)))?;
    assert_eq!(connection.send_request(request).await?.status(), 413);

    assert_eq!(server.counters().completed, 4);
    lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    assert_eq!(lone.metric("mrgc_instance_ejected").await?, 0.0, "it is not the instance's fault");
    Ok(())
}

/// Hides how long a body is.
struct WithoutLength(Full<bytes::Bytes>);

impl http_body::Body for WithoutLength {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(context)
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() -> Result<()> {
    let server = model_server("one").await?;
    let limits = "[limits]\nidle_timeout_ms = 200\nbuffered_body_bytes = 1024";
    let setup = Setup::new(&format!("{ANY_ROUTE}{limits}"));
    let lone = setup.instance("i-one", server.address()).start().await?;
    let head =
        |length| format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let short = raw(lone.router.data, format!("{}{{", head(10)).as_bytes()).await?;
    ensure!(short.starts_with("HTTP/1.1 408") && short.contains("body-timeout"), "{short}");
    let long = format!("{}{}", head(10_000), "x".repeat(5_000));
    let long = raw(lone.router.data, long.as_bytes()).await?;
    ensure!(long.starts_with("HTTP/1.1 408") && long.contains("body-timeout"), "{long}");
    assert_eq!(lone.metric("mrgc_instance_ejected").await?, 0.0, "it is not the instance's fault");
    assert_eq!(lone.chat(false).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn heads_over_the_limit_are_refused() -> Result<()> {
    let server = model_server("one").await?;
    let limits = "[limits]\nhead_bytes = 16384";
    let setup = Setup::new(&format!("{ANY_ROUTE}{limits}"));
    let lone = setup.instance("i-one", server.address()).start().await?;
    let fits = lone.chat(false).header("x-long", "y".repeat(8_000));
    assert_eq!(fits.send().await?.status(), 200);

    let long = |name: &str| {
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{name}: {}\r\n\r\n", "y".repeat(100_000))
    };
    let answer = raw(lone.router.data, long("x-long").as_bytes()).await?;
    ensure!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer =
        raw(lone.router.data, format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(100_000)).as_bytes())
            .await?;
    ensure!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut connection = h2(lone.router.data).await?;
    let request = http::Request::get(lone.router.data_url("/v1/models"))
        .header("x-long", "y".repeat(100_000))
        .body(Full::default())?;
    match connection.send_request(request).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(e) => ensure!(!e.is_timeout(), "{e}"),
    }
    for garbage in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
    ] {
        let answer =
            raw(lone.router.data, format!("{garbage}{}", "\r\n".repeat(8)).as_bytes()).await;
        let answer = answer.unwrap_or_default();
        ensure!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400") || !answer.starts_with("HTTP"),
            "{garbage:?}: {answer}"
        );
    }
    assert_eq!(lone.chat(false).send().await?.status(), 200);
    assert_eq!(server.counters().completed, 2);
    Ok(())
}

#[tokio::test]
async fn lengths_that_contradict_each_other_are_refused() -> Result<()> {
    let (server, lone) = any_router().await?;
    let body = chat_body(MODEL, false).to_string();
    for lines in [
        format!("content-length: {}\r\ncontent-length: 5", body.len()),
        "content-length: 5, 6".to_owned(),
        "content-length: -1".to_owned(),
        "content-length: +5".to_owned(),
        "transfer-encoding: gzip".to_owned(),
        "transfer-encoding: chunked, gzip".to_owned(),
    ] {
        let request = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n{body}");
        let answer = raw(lone.router.data, request.as_bytes()).await?;
        ensure!(answer.starts_with("HTTP/1.1 400"), "{lines}: {answer}");
    }
    // Both at once are how requests are smuggled.
    let smuggled = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
    let both = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n{smuggled}",
        body.len()
    );
    let answer = raw(lone.router.data, both.as_bytes()).await?;
    ensure!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    ensure!(answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    assert_eq!(server.counters().received, 0);
    Ok(())
}

#[tokio::test]
async fn a_header_value_that_cannot_be_read_is_named() -> Result<()> {
    let (server, lone) = any_router().await?;
    for (name, bad) in [
        ("x-mrgc-origin", "north"),
        ("x-mrgc-origin", "91,0"),
        ("x-mrgc-origin", "NaN,0"),
        ("x-mrgc-origin", "52.5"),
        ("x-mrgc-priority", "high"),
        ("x-mrgc-priority", "1.5"),
        ("x-mrgc-deadline-ms", "soon"),
        ("x-mrgc-deadline-ms", ""),
        ("x-mrgc-enclave", "yes"),
        ("x-mrgc-allowed-regions", ""),
        ("x-mrgc-allowed-regions", " , "),
        ("x-mrgc-frameworks", ","),
    ] {
        let answer = lone.chat(false).header(name, bad).send().await?;
        let detail = problem(answer, 400, "bad-request").await?;
        ensure!(detail.contains(name), "{name}: {bad}: {detail}");
    }
    for name in ["x-mrgc-model", "x-mrgc-session", "x-mrgc-frameworks", "x-mrgc-country"] {
        let value = http::HeaderValue::from_bytes(b"\xff\xfe")?;
        let detail =
            problem(lone.chat(false).header(name, value).send().await?, 400, "bad-request").await?;
        ensure!(detail.contains(name), "{detail}");
    }
    assert_eq!(server.counters().received, 0);

    let good = [
        ("x-mrgc-origin", " 52.5, 13.4"),
        ("x-mrgc-country", "de"),
        ("x-mrgc-priority", "-7"),
        ("x-mrgc-deadline-ms", "20000"),
        ("x-mrgc-session", "s"),
        ("x-mrgc-frameworks", "SOC2"),
        ("x-mrgc-allowed-regions", "eu-west-1, us-east-1"),
    ];
    let request =
        good.iter().fold(lone.chat(false), |request, (name, value)| request.header(*name, *value));
    assert_eq!(request.send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_need_that_nobody_meets_now_is_503_and_one_that_nobody_could_is_451() -> Result<()> {
    let (server, lone) = any_router().await?;
    // An enclave may come to be.
    let response = lone.chat(false).header("x-mrgc-enclave", "required").send().await?;
    ensure!(header(response.headers(), "retry-after")?.parse::<u32>()? > 0);
    assert_eq!(header(response.headers(), "x-mrgc-no-capacity")?, "1");
    problem(response, 503, "no-capacity").await?;

    for (name, value, told) in [
        ("x-mrgc-frameworks", "hipaa", "hipaa"),
        ("x-mrgc-frameworks", "soc2,hipaa", "hipaa"),
        ("x-mrgc-allowed-regions", "mars-north-1", "mars-north-1"),
    ] {
        let response = lone.chat(false).header(name, value).send().await?;
        ensure!(!response.headers().contains_key("retry-after"), "waiting will not help");
        let detail = problem(response, 451, "cannot-comply").await?;
        ensure!(detail.contains(told), "{detail}");
    }
    // A list may come in several lines, and every one of them counts.
    let lines =
        lone.chat(false).header("x-mrgc-frameworks", "soc2").header("x-mrgc-frameworks", "hipaa");
    problem(lines.send().await?, 451, "cannot-comply").await?;
    assert_eq!(server.counters().received, 0);
    assert_eq!(lone.chat(false).header("x-mrgc-frameworks", "soc2").send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn allowed_regions_that_rule_each_other_out_are_451() -> Result<()> {
    let server = model_server("one").await?;
    let route =
        "[[routes]]\nname = \"home\"\nneeds = { allowed_regions = [\"us-east-1\", \"eu-west-1\"] }";
    let setup = Setup::new(route).region("eu-west-1", server.address(), &[]);
    let lone = setup.instance("i-one", server.address()).start().await?;
    let allowed = |regions: &str| lone.chat(false).header("x-mrgc-allowed-regions", regions).send();
    assert_eq!(allowed("us-east-1, eu-central-1").await?.status(), 200);
    let detail = problem(allowed("eu-central-1").await?, 451, "cannot-comply").await?;
    ensure!(detail.contains("contradictory"), "{detail}");
    Ok(())
}

#[tokio::test]
async fn a_refusal_leaves_its_connection_fit_for_the_next_request() -> Result<()> {
    let (_server, lone) = any_router().await?;
    let body = chat_body(MODEL, false).to_string();
    let head = |more: &str| {
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}")
    };
    let bad = format!("{}content-length: 3\r\n\r\n{{x}}", head(""));
    let good =
        format!("{}connection: close\r\ncontent-length: {}\r\n\r\n{body}", head(""), body.len());
    let answers = raw(lone.router.data, format!("{bad}{good}").as_bytes()).await?;
    ensure!(answers.starts_with("HTTP/1.1 400") && answers.contains("HTTP/1.1 200"), "{answers}");
    let problem = answers.split("\r\n\r\n").nth(1).and_then(|rest| rest.split("HTTP/1.1").next());
    problem_in(problem.unwrap_or_default(), 400, "bad-request")?;

    let mut connection = h2(lone.router.data).await?;
    for (text, status) in [("{", 400), (body.as_str(), 200)] {
        let request = http::Request::post(lone.router.data_url(CHAT))
            .header("content-type", "application/json")
            .body(Full::from(text.to_owned()))?;
        let response = connection.send_request(request).await?;
        assert_eq!(response.status(), status);
        response.collect().await?;
    }
    Ok(())
}
