//! The upstream that every target is measured against: answers written ahead, so that its own cost is
//! small beside the proxy's. It reads requests properly (head, Content-Length) but is no general server:
//! no chunked requests, no pipelining.
//!
//! A POST is answered with a chat completion of 613 bytes, or, when its body asks for a stream, with
//! server-sent events: `x-stub-chunks` of them, `x-stub-interval-us` apart, the first at once.
//! `GET /stub/count` tells how many POSTs were answered, `GET /stub/streams` how many streams are open.

use crate::{Result, wire};
use bytes::{Buf, BytesMut};
use memchr::memmem;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What an answer to a small call weighs: a chat completion with its usage.
pub(crate) const ANSWER_BYTES: usize = 613;
/// Digits of the sending time in each event, nanoseconds since 1970.
pub(crate) const SENT_DIGITS: usize = 20;
/// What stands before those digits.
pub(crate) const SENT_MARK: &[u8] = b"\"id\":\"chatcmpl-";
const READ_BYTES: usize = 4096;

const STREAM_END: &str = concat!(
    "data: {\"id\":\"chatcmpl-end\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,",
    "\"model\":\"bench-small\",\"choices\":[],\"usage\":{\"prompt_tokens\":31,",
    "\"completion_tokens\":50,\"total_tokens\":81}}\n\n",
);

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    streams: AtomicU64,
}

/// An open stream, counted for as long as it lives.
struct OpenStream<'a>(&'a AtomicU64);

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Stream {
    chunks: u64,
    interval: Duration,
}

struct Request {
    /// Bytes of head and body together.
    bytes: usize,
    answer: Answer,
}

enum Answer {
    Completion,
    Stream(Stream),
    Count,
    Streams,
}

/// Binds any port.
pub(crate) async fn listen() -> Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
}

/// Serves until the process is ended.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    let counts = Arc::new(Counts::default());
    let completion: Arc<[u8]> = completion().into();
    loop {
        let (stream, _) = listener.accept().await?;
        let (counts, completion) = (Arc::clone(&counts), Arc::clone(&completion));
        // A connection that breaks is the driver's to report.
        tokio::spawn(async move { converse(stream, &counts, &completion).await.ok() });
    }
}

async fn converse(mut stream: TcpStream, counts: &Counts, completion: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = BytesMut::with_capacity(READ_BYTES);
    loop {
        let request = loop {
            if let Some(request) = parse(&unread)? {
                break request;
            }
            unread.reserve(READ_BYTES);
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        };
        unread.advance(request.bytes);
        match request.answer {
            Answer::Completion => {
                counts.answered.fetch_add(1, Relaxed);
                stream.write_all(completion).await?;
            }
            Answer::Stream(plan) => {
                counts.answered.fetch_add(1, Relaxed);
                counts.streams.fetch_add(1, Relaxed);
                let _open = OpenStream(&counts.streams);
                send_events(&mut stream, plan).await?;
            }
            Answer::Count => send_number(&mut stream, counts.answered.load(Relaxed)).await?,
            Answer::Streams => send_number(&mut stream, counts.streams.load(Relaxed)).await?,
        }
    }
}

async fn send_number(stream: &mut TcpStream, number: u64) -> Result<()> {
    let text = number.to_string();
    let length = text.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}");
    Ok(stream.write_all(answer.as_bytes()).await?)
}

async fn send_events(stream: &mut TcpStream, plan: Stream) -> Result<()> {
    let mut event = frame(&format!(
        "data: {{{}{:0SENT_DIGITS$}\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\
         \"model\":\"bench-small\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\
         \"content\":\" wonderful\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n",
        std::str::from_utf8(SENT_MARK)?,
        0,
    ));
    let digits = memmem::find(&event, SENT_MARK).ok_or("an event without its time")? + SENT_MARK.len();
    let mut first = Vec::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
         transfer-encoding: chunked\r\n\r\n",
    );
    let interval = plan.interval.max(Duration::from_micros(1));
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    for number in 0..plan.chunks {
        // Timers are exact to the millisecond only; the first event goes at once.
        if number > 0 {
            ticks.tick().await;
        }
        stamp(&mut event[digits..digits + SENT_DIGITS]);
        if number == 0 {
            first.extend_from_slice(&event);
            stream.write_all(&first).await?;
        } else {
            stream.write_all(&event).await?;
        }
    }
    let mut end = frame(STREAM_END);
    end.extend(frame("data: [DONE]\n\n"));
    end.extend_from_slice(b"0\r\n\r\n");
    Ok(stream.write_all(&end).await?)
}

/// Writes the present time over the digits.
fn stamp(digits: &mut [u8]) {
    let mut rest = unix_nanos();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Nanoseconds since 1970: a clock that the stub and the driver, two processes, share.
pub(crate) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0))
}

fn frame(payload: &str) -> Vec<u8> {
    format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes()
}

fn completion() -> Vec<u8> {
    let body = |content: &str| {
        format!(
            "{{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion\",\"created\":1760000000,\
             \"model\":\"bench-small\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
             \"content\":\"{content}\"}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\
             \"usage\":{{\"prompt_tokens\":31,\"completion_tokens\":74,\"total_tokens\":105}}}}"
        )
    };
    let padding = ANSWER_BYTES.saturating_sub(body("").len());
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {ANSWER_BYTES}\r\n\r\n{}",
        body(&"x".repeat(padding)),
    )
    .into_bytes()
}

/// `None` while the request is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Request>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let (mut length, mut chunks, mut interval_us) = (0, 1, 1);
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        if let Some(value) = wire::header(line, b"content-length:") {
            length = number(value)?;
        } else if let Some(value) = wire::header(line, b"x-stub-chunks:") {
            chunks = number(value)?;
        } else if let Some(value) = wire::header(line, b"x-stub-interval-us:") {
            interval_us = number(value)?;
        }
    }
    let whole = end + 4 + usize::try_from(length)?;
    let Some(body) = bytes.get(end + 4..whole) else {
        return Ok(None);
    };
    let answer = if bytes.starts_with(b"GET /stub/count ") {
        Answer::Count
    } else if bytes.starts_with(b"GET /stub/streams ") {
        Answer::Streams
    } else if memmem::find(body, b"\"stream\":true").is_some() {
        let interval = Duration::from_micros(interval_us);
        Answer::Stream(Stream { chunks, interval })
    } else {
        Answer::Completion
    };
    Ok(Some(Request { bytes: whole, answer }))
}

fn number(text: &[u8]) -> Result<u64> {
    Ok(std::str::from_utf8(text)?.parse()?)
}
