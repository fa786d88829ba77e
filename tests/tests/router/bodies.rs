//! Bodies longer than a router may remember: its memory stays flat, whichever way they go.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body::Frame;
use mrgc_tests::{cluster::Program, model_server::filler_byte};

use crate::support::{ANY_ROUTE, CHAT, Dead, Lone, Scripted, Setup, header, in_time, model_server};

const GIGABYTE: u64 = 1 << 30;
const MEGABYTE: u64 = 1 << 20;
/// What a router's memory may grow by, whatever passes through it.
const GROWTH_BYTES_MAX: u64 = 32 * MEGABYTE;

/// Starts the peak afresh from what is resident now, and gives that.
fn restart_peak(program: &Program) -> Result<u64> {
    let pid = program.pid().context("it has ended")?;
    // See proc(5).
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    peak_memory_bytes(program)
}

/// The most memory a process has had resident.
fn peak_memory_bytes(program: &Program) -> Result<u64> {
    let pid = program.pid().context("it has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmHWM")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

/// Reads an answer of filler, checks each byte, and gives the length.
async fn read_filler(lone: &Lone, bytes: u64) -> Result<u64> {
    let request = lone.chat(false).header("x-mock-bytes", bytes.to_string());
    let mut response = request.timeout(Duration::from_secs(120)).send().await?;
    assert_eq!(response.status(), 200);
    assert_eq!(response.content_length(), Some(bytes));
    let period: Vec<u8> = (0..251 * 1024).map(filler_byte).collect();
    let mut len = 0;
    while let Some(chunk) = in_time("the next part", response.chunk()).await?? {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let at = (len % 251) as usize;
            let same = rest.len().min(period.len() - at);
            ensure!(rest[..same] == period[at..at + same], "a wrong byte after {len}");
            rest = &rest[same..];
            len += same as u64;
        }
    }
    Ok(len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_of_a_gigabyte_leaves_memory_flat() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    assert_eq!(read_filler(&lone, MEGABYTE).await?, MEGABYTE);
    let before = restart_peak(&lone.router.program)?;
    assert_eq!(read_filler(&lone, GIGABYTE).await?, GIGABYTE);
    let growth = peak_memory_bytes(&lone.router.program)? - before;
    println!("1 GB through a router of {} MB: {} KB more", before / MEGABYTE, growth / 1024);
    ensure!(growth < GROWTH_BYTES_MAX, "{growth} bytes more");
    Ok(())
}

/// A body of no declared length.
fn upload(bytes: u64) -> reqwest::Body {
    reqwest::Body::wrap(Pieces { left: bytes })
}

struct Pieces {
    left: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: &[u8] = &[b'x'; 64 << 10];
        let len = self.left.min(PIECE.len() as u64);
        self.left -= len;
        let piece = Bytes::from_static(&PIECE[..len as usize]);
        Poll::Ready((len > 0).then_some(Ok(Frame::data(piece))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_longer_than_is_kept_is_streamed_and_leaves_memory_flat() -> Result<()> {
    const LENGTH: u64 = 256 * MEGABYTE;
    let upstream = Scripted::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    let limits = "[limits]\nbody_bytes = 536870912";
    let setup = Setup::new(&format!("{ANY_ROUTE}{limits}"));
    let lone = setup.instance("i-one", upstream.address).start().await?;
    let post = |bytes| lone.client.post(lone.router.data_url(CHAT)).body(upload(bytes)).send();
    let short = post(2 * MEGABYTE).await?;
    ensure!(short.status() == 200, "{}", short.text().await?);
    let before = restart_peak(&lone.router.program)?;
    let seen_before = upstream.body_bytes() as u64;
    let long = post(LENGTH).await?;
    ensure!(long.status() == 200, "{}", long.text().await?);
    ensure!(upstream.body_bytes() as u64 - seen_before >= LENGTH, "all of it arrives");
    let growth = peak_memory_bytes(&lone.router.program)? - before;
    println!("256 MB up through a router of {} MB: {} KB more", before / MEGABYTE, growth / 1024);
    ensure!(growth < GROWTH_BYTES_MAX, "{growth} bytes more");
    Ok(())
}

#[tokio::test]
async fn a_streamed_request_moves_on_while_none_of_it_is_sent_and_not_after() -> Result<()> {
    let (dead, server) =
        (Dead::new()?, Scripted::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?);
    let cut = Scripted::start("HTTP/1.1 2").await?;
    let setup = Setup::new(ANY_ROUTE);
    let lone =
        setup.instance("i-dead", dead.address).instance("i-live", server.address).start().await?;
    let mut attempts = 1;
    // Whichever is picked first, by chance.
    for _ in 0..64 {
        let body = upload(2 * MEGABYTE);
        let sent = lone.client.post(lone.router.data_url(CHAT)).body(body).send().await?;
        assert_eq!(sent.status(), 200);
        assert_eq!(header(sent.headers(), "x-mrgc-instance")?, "i-live");
        attempts = header(sent.headers(), "x-mrgc-attempts")?.parse()?;
        if attempts > 1 {
            break;
        }
    }
    assert_eq!(attempts, 2, "the dead one was never picked first");

    let setup = Setup::new(ANY_ROUTE);
    let lone =
        setup.instance("i-cut", cut.address).instance("i-cut-2", cut.address).start().await?;
    let sent =
        lone.client.post(lone.router.data_url(CHAT)).body(upload(2 * MEGABYTE)).send().await?;
    assert_eq!(sent.status(), 502, "what was sent is gone and cannot be sent again");
    assert_eq!(cut.requests(), 1);
    Ok(())
}
