use http::Response;

use super::*;

fn parsed(text: &str) -> Result<Head, WireError> {
    read(&Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn a_request_is_read_with_what_follows_it() {
    let head = "POST /v1/chat?x=1 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-Continue\r\n\r\n";
    let read = parsed(&format!("{head}ok")).unwrap();
    assert_eq!((read.request.method(), read.len), (&Method::POST, head.len()));
    assert_eq!(read.request.uri().path_and_query().unwrap(), "/v1/chat?x=1");
    assert_eq!(read.request.headers()["host"], "a");
    assert_eq!(
        (read.framing, read.is_kept, read.expects_continue),
        (Framing::Length(2), true, true)
    );
}

#[test]
fn how_a_request_ends_and_whether_another_may_follow() {
    for (head, framing, is_kept) in [
        ("GET / HTTP/1.1\r\n\r\n", Framing::Ended, true),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", Framing::Ended, false),
        ("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", Framing::Ended, false),
        ("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", Framing::Ended, true),
        ("POST / HTTP/1.0\r\ncontent-length: 3\r\n\r\n", Framing::Length(3), false),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", Framing::chunked(), true),
    ] {
        let read = parsed(head).unwrap();
        assert_eq!((read.framing, read.is_kept), (framing, is_kept), "{head:?}");
        assert!(!read.expects_continue);
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for fields in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: chunked\r\ntransfer-encoding: gzip",
    ] {
        let error = parsed(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).unwrap_err();
        assert!(matches!(error, WireError::Length), "{fields}: {error}");
    }
    let error = parsed("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err();
    assert!(matches!(error, WireError::Length), "{error}");
    for garbage in [
        "\u{16}\u{3}\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "\r\n\r\n",
    ] {
        let error = parsed(garbage).unwrap_err();
        assert!(matches!(error, WireError::NotHttp(_)), "{garbage:?}: {error}");
    }
}

fn written(
    response: http::response::Builder,
    length: Option<u64>,
    sent: Sent,
    is_kept: bool,
) -> String {
    let (parts, ()) = response.header("date", "now").body(()).unwrap().into_parts();
    let mut out = Vec::new();
    write(&mut out, &parts, length, sent, is_kept);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_response_says_how_it_ends_once() {
    let ok = || Response::builder().status(200);
    for (head, length, sent, is_kept, end) in [
        (ok(), Some(2), Sent::Whole, true, "content-length: 2\r\n\r\n"),
        (ok(), Some(0), Sent::Whole, true, "content-length: 0\r\n\r\n"),
        (ok(), None, Sent::Chunked, true, "transfer-encoding: chunked\r\n\r\n"),
        (ok(), None, Sent::UntilClose, false, "connection: close\r\n\r\n"),
        (
            ok().status(204).header("content-length", "9"),
            Some(0),
            Sent::Whole,
            true,
            "date: now\r\n\r\n",
        ),
        (ok().status(204), Some(0), Sent::Whole, true, "date: now\r\n\r\n"),
        (ok().header("content-length", "9"), Some(0), Sent::Whole, true, "date: now\r\n\r\n"),
    ] {
        let head = written(head, length, sent, is_kept);
        assert!(head.ends_with(end), "{head}");
        assert_eq!(
            head.matches("content-length").count() + head.matches("chunked").count(),
            usize::from(end.contains("content") || end.contains("chunked") || head.contains(": 9")),
            "{head}"
        );
    }
    let dated = {
        alarm::tick();
        let (parts, ()) = Response::new(()).into_parts();
        let mut out = Vec::new();
        write(&mut out, &parts, Some(0), Sent::Whole, true);
        String::from_utf8(out).unwrap()
    };
    assert!(dated.starts_with("HTTP/1.1 200 OK\r\ndate: "), "{dated}");
    assert!(dated.contains(" GMT\r\n"), "{dated}");
}
