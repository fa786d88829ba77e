use http::{HeaderValue, Request, Uri};

use super::*;

fn written(request: http::request::Builder, added: &HeaderMap, body: BodyLength) -> String {
    let (head, ()) = request.body(()).unwrap().into_parts();
    let mut out = Vec::new();
    write(&mut out, &head, added, body);
    String::from_utf8(out).unwrap()
}

fn parsed(text: &str) -> Result<Head, WireError> {
    read(&Bytes::copy_from_slice(text.as_bytes()), &Method::POST)
}

#[test]
fn a_request_says_its_length_anew() {
    let post = || Request::post("/v1/chat?x=1").header("content-length", "7").header("a", "b");
    let none = HeaderMap::new();
    for (body, end) in [
        (BodyLength::Known(12), "content-length: 12\r\n\r\n"),
        (BodyLength::Known(0), "content-length: 0\r\n\r\n"),
        (BodyLength::Unknown, "transfer-encoding: chunked\r\n\r\n"),
    ] {
        let expected = format!("POST /v1/chat?x=1 HTTP/1.1\r\na: b\r\n{end}");
        assert_eq!(written(post(), &none, body), expected);
    }
    let get = written(Request::get("/v1/models"), &none, BodyLength::Known(0));
    assert_eq!(get, "GET /v1/models HTTP/1.1\r\n\r\n");
}

#[test]
fn a_request_has_one_host_and_what_is_added() {
    let mut added = HeaderMap::new();
    added.insert("x-more", HeaderValue::from_static("1"));
    let uri = || Uri::from_static("http://models.example:8000");
    let head = written(Request::get(uri()), &added, BodyLength::Known(0));
    assert_eq!(head, "GET / HTTP/1.1\r\nhost: models.example:8000\r\nx-more: 1\r\n\r\n");
    let named = Request::get(uri()).header("host", "other");
    let head = written(named, &HeaderMap::new(), BodyLength::Known(0));
    assert_eq!(head, "GET / HTTP/1.1\r\nhost: models.example:8000\r\n\r\n");
}

#[test]
fn how_a_response_ends() {
    use Framing::{Ended, Length, UntilClose};
    for (head, framing, is_kept) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Length(5), true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", Length(5), true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ended, true),
        ("HTTP/1.1 200\r\ncontent-length: 5\r\nconnection: Close\r\n\r\n", Length(5), false),
        ("HTTP/1.1 200 OK\r\nconnection: x, close\r\ncontent-length: 5\r\n\r\n", Length(5), false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", Length(5), false),
        ("HTTP/1.1 200 OK\r\n\r\n", UntilClose, false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", Framing::chunked(), true),
        ("HTTP/1.1 204 No Content\r\n\r\n", Ended, true),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Ended, true),
        ("HTTP/1.1 100 Continue\r\n\r\n", Ended, true),
    ] {
        let read = parsed(head).unwrap();
        assert_eq!((read.framing, read.is_kept), (framing, is_kept), "{head:?}");
        assert_eq!(read.len, head.len(), "{head:?}");
    }
    let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(read(&head, &Method::HEAD).unwrap().framing, Ended);
}

#[test]
fn a_head_that_says_two_things_or_nothing_is_refused() {
    for length in ["5\r\ncontent-length: 6", "5, 5", "+5", "", "-1", "99999999999999999999"] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        assert!(matches!(parsed(&head).unwrap_err(), WireError::Length), "{length}");
    }
    for encoding in ["gzip", "gzip, chunked", "chunked\r\ntransfer-encoding: gzip"] {
        let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {encoding}\r\n\r\n");
        assert!(matches!(parsed(&head).unwrap_err(), WireError::Length), "{encoding}");
    }
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(matches!(parsed(both).unwrap_err(), WireError::Length));
    for garbage in [
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "\r\n\r\n",
    ] {
        let error = parsed(garbage).unwrap_err();
        assert!(matches!(error, WireError::NotHttp(_)), "{garbage:?}: {error}");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
    assert!(matches!(parsed(&many).unwrap_err(), WireError::TooManyFields));
}
