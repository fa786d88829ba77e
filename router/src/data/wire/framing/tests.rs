use super::*;

/// A body, its trailers, and the bytes left after it.
type Read = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// What a body in chunks says, read in parts that are cut after `cut` bytes.
fn read(wire: &[u8], cut: usize) -> Result<Read, Garbled> {
    let mut framing = Framing::chunked();
    let (mut body, mut trailers) = (Vec::new(), None);
    let mut parts = wire.chunks(cut);
    let mut ahead = Bytes::new();
    while framing != Framing::Ended {
        match framing.take(&mut ahead)? {
            Some(Piece::Data(data)) => body.extend_from_slice(&data),
            Some(Piece::Trailers(all)) => trailers = Some(all),
            None if framing == Framing::Ended => {}
            None => match parts.next() {
                Some(part) => ahead = Bytes::copy_from_slice(part),
                None => return Err(Garbled("no end")),
            },
        }
    }
    let rest = parts.fold(ahead.to_vec(), |rest, part| [&rest, part].concat());
    Ok((body, trailers, rest))
}

#[test]
fn chunks_say_the_same_however_they_are_cut() {
    let wire = b"5\r\nhello\r\n1;name=\"a b\"\r\n \r\n0A\t\r\n0123456789\r\n0\r\n\r\nHTTP/1.1";
    for cut in 1..=wire.len() {
        let (body, trailers, rest) = read(wire, cut).unwrap();
        assert_eq!(body, b"hello 0123456789", "cut after {cut}");
        assert_eq!((trailers, &rest[..]), (None, &b"HTTP/1.1"[..]), "cut after {cut}");
    }
}

#[test]
fn trailers_come_last() {
    let wire = b"2\r\nok\r\n0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\nrest";
    for cut in 1..=wire.len() {
        let (body, trailers, rest) = read(wire, cut).unwrap();
        let sums: Vec<_> = trailers.unwrap().get_all("x-sum").iter().cloned().collect();
        assert_eq!(
            (&body[..], &sums[..], &rest[..]),
            (&b"ok"[..], &["1", "2"].map(value)[..], &b"rest"[..])
        );
    }
}

fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

#[test]
fn garbled_chunks_are_told() {
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_EXTENSION_BYTES + 1));
    let trailers = format!("0\r\nx: {}\r\n\r\n", "x".repeat(MAX_TRAILER_BYTES));
    for (wire, reason) in [
        ("\r\n", "a size is no number"),
        ("-1\r\n", "a size is no number"),
        ("g\r\n", "a size is no number"),
        ("10000000000000000\r\n", "a size is too large"),
        ("1\na\r\n0\r\n\r\n", "a size is no number"),
        ("1;\na\r\n0\r\n\r\n", "a size's line does not end well"),
        ("1\rx\na\r\n0\r\n\r\n", "a size's line does not end well"),
        ("1\r\na\n0\r\n\r\n", "a chunk is longer than its size"),
        ("1\r\na\r\r\n0\r\n\r\n", "a chunk is longer than its size"),
        ("0\r\n\n\n", "no end"),
        ("1\r\nab\r\n", "a chunk is longer than its size"),
        ("1\r\na0\r\n\r\n", "a chunk is longer than its size"),
        ("0\r\nno colon\r\n\r\n", "a trailer is no header"),
        (extension.as_str(), "an extension is too long"),
        (trailers.as_str(), "the trailers are too long"),
        ("5\r\nhel", "no end"),
        ("0\r\n", "no end"),
    ] {
        for cut in [1, 7, wire.len()] {
            assert_eq!(read(wire.as_bytes(), cut).unwrap_err(), Garbled(reason), "{wire:.40}");
        }
    }
}

#[test]
fn a_length_is_counted_down_and_leaves_what_follows() {
    let mut framing = Framing::length(5);
    let mut ahead = Bytes::from_static(b"hel");
    assert_eq!(framing.take(&mut ahead), Ok(Some(Piece::Data(Bytes::from_static(b"hel")))));
    assert_eq!((framing.take(&mut ahead), &framing), (Ok(None), &Framing::Length(2)));
    ahead = Bytes::from_static(b"lo, and more");
    assert_eq!(framing.take(&mut ahead), Ok(Some(Piece::Data(Bytes::from_static(b"lo")))));
    assert_eq!((&framing, &ahead[..]), (&Framing::Ended, &b", and more"[..]));
    assert_eq!(Framing::length(0), Framing::Ended);
}
