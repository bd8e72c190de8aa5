//! HTTP/2 towards clients. Each stream is a call of its own, which takes the same way as one over HTTP/1; here are the
//! connection's bounds, its end, and the strict check of decoded heads.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::client_body::ClientBody;
use super::conn::Conn;
use super::joined;
use super::link::PART_BYTES_MAX;
use super::phases;
use super::server::Core;
use crate::protocol::frames::{FrameFollower, PREFACE};
use crate::protocol::head::{HeadFault, check_decoded_head};

/// Its name in TLS.
pub const NAME: &[u8] = b"h2";
/// What a client may send of one body, and of all, before it is read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// What the streams of a connection share out among them: how much of their answers is read from sellers at once, in
/// bytes. A stream whose client takes nothing holds up to three parts.
const PARTS_BYTES: usize = PART_BYTES_MAX;
/// The smallest part: a little less than what the engine makes room for at first, so that it makes no more.
const PART_BYTES_MIN: usize = 8 * 1024 - 1;
/// What one stream may hold of its answer on its way to the socket, in bytes, before a part is added.
const SEND_BUFFER_BYTES_MAX: usize = 8 * 1024;
/// Largest frame that is read, in bytes: the smallest value there is.
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Largest head that the engine hands on, in bytes. It answers a larger one by itself, with a status and nothing else: those
/// that are not much too large get an answer that says so.
const ENGINE_HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Streams that are open at one time.
const STREAMS_MAX: u32 = 100;
/// Streams that a client has reset before they were looked at.
const RESET_STREAMS_MAX: usize = 20;
/// Streams that we reset because of a client's mistakes, before its connection ends.
const MISTAKES_MAX: usize = 64;
/// After so much silence the client is asked whether it is still there, and how long its answer may take.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that is late ends this much later, so that its client learns which calls were not taken.
const FAREWELL: Duration = Duration::from_secs(1);
/// Enough of the preface to know it by: its request line, which is none of HTTP/1.
const PREFACE_BEGIN: usize = 16;
/// How often a client that has sent less is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Whether a connection without TLS begins with HTTP/2's preface.
pub async fn begins(stream: &TcpStream, limit: Duration) -> bool {
    let look = async {
        loop {
            let mut first = [0; PREFACE_BEGIN];
            let Ok(count @ 1..) = stream.peek(&mut first).await else { return false };
            let begin = first.get(..count).unwrap_or_default();
            if !PREFACE.starts_with(begin) || count == PREFACE_BEGIN {
                return PREFACE.starts_with(begin);
            }
            tokio::time::sleep(LOOK_AGAIN).await; // bytes that are only looked at do not tell of more
        }
    };
    tokio::time::timeout(limit, look).await.unwrap_or(false)
}

/// Serves a connection to its end.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(core: Rc<Core>, stream: S, conn: Rc<Conn>) {
    core.shared.metrics.http.http2.inc();
    let now = Instant::now();
    conn.begin_stream_head(now + core.shared.limits.head_timeout); // the preface
    let followed = Followed { stream, core: Rc::clone(&core), conn: Rc::clone(&conn), frames: FrameFollower::new(now) };
    let streams = Streams { core: Rc::clone(&core), next: Rc::default() };
    let service = service_fn({
        let (core, conn, next) = (Rc::clone(&core), Rc::clone(&conn), Rc::clone(&streams.next));
        move |request| {
            let (core, conn) = (Rc::clone(&core), Conn::stream(&conn));
            core.conns.add(&conn);
            next.replace(Some(Rc::clone(&conn)));
            // Boxed, so that an open stream no longer holds the room that its call needed until the seller answered.
            Box::pin(async move {
                let (refused, request) = check(request);
                let request = request.map(|incoming| ClientBody::of_stream(incoming, &core));
                Ok::<_, Infallible>(phases::serve(core, conn, refused, request).await)
            })
        }
    });
    let engine = engine(streams);
    let mut connection = pin!(engine.serve_connection(TokioIo::new(followed), service));
    let aged = async {
        match conn.old_at() {
            Some(old_at) => tokio::time::sleep_until(old_at.into()).await,
            None => std::future::pending().await,
        }
    };
    let late = poll_fn(|cx| if conn.poll_read_expired(cx) { Poll::Ready(()) } else { Poll::Pending });
    tokio::select! {
        biased;
        () = late => conn.prolong(Instant::now() + FAREWELL),
        _ = &mut connection => return,
        () = poll_fn(|cx| core.conns.poll_draining(&conn, cx)) => {}
        () = aged => {}
    }
    connection.as_mut().graceful_shutdown();
    // A client that breaks the protocol or goes away is no event.
    poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Pending if conn.is_in_the_way() => Poll::Ready(()), // the client has been told, and is not waited for
        polled @ (Poll::Ready(_) | Poll::Pending) => polled.map(drop),
    })
    .await;
}

fn engine(streams: Streams) -> http2::Builder<Streams> {
    let mut engine = http2::Builder::new(streams);
    engine
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(ENGINE_HEAD_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(MISTAKES_MAX)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    engine
}

/// How much of a stream's answer is read from its seller at once, where so many are open.
pub fn part_bytes_max(streams: usize) -> usize {
    PARTS_BYTES.checked_div(streams).unwrap_or(PARTS_BYTES).max(PART_BYTES_MIN)
}

/// The strict check; what passes names its host where HTTP/1 does, and holds its cookies in one line, as it is forwarded.
fn check(mut request: Request<Incoming>) -> (Option<HeadFault>, Request<Incoming>) {
    if let Err(fault) = check_decoded_head(request.method(), request.uri(), request.headers()) {
        return (Some(fault), request);
    }
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let headers = request.headers_mut();
    if let (Some(authority), false) = (authority, headers.contains_key(header::HOST)) {
        headers.insert(header::HOST, authority);
    }
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
    (None, request)
}

/// Where the engine puts the streams of a connection.
#[derive(Clone)]
struct Streams {
    core: Rc<Core>,
    /// Of the stream that comes next: the engine asks for the service's future, and hands the stream over at once.
    next: Rc<RefCell<Option<Rc<Conn>>>>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let conn = self.next.take();
        self.core.serve_stream(async move {
            let mut stream = pin!(stream);
            poll_fn(|cx| match stream.as_mut().poll(cx) {
                Poll::Pending if conn.as_ref().is_some_and(|conn| conn.poll_stalled(cx)) => Poll::Ready(()), // reset
                polled @ (Poll::Ready(_) | Poll::Pending) => polled,
            })
            .await;
        });
    }
}

/// A connection whose frames are followed.
struct Followed<S> {
    stream: S,
    core: Rc<Core>,
    conn: Rc<Conn>,
    frames: FrameFollower,
}

impl<S: AsyncRead + Unpin> AsyncRead for Followed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = to.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, to) {
            Poll::Pending if this.conn.poll_read_expired(cx) => return Poll::Ready(Ok(())), // as if it had closed
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => read?,
        }
        let new = to.filled().get(before..).unwrap_or_default();
        let (now, within) = (Instant::now(), this.frames.is_within_head());
        if let Err(flood) = this.frames.feed(new, now) {
            this.core.shared.metrics.http.floods.inc();
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, flood)));
        }
        match (within, this.frames.is_within_head()) {
            // From the head's first byte on, however many of its frames follow.
            (false, true) => this.conn.begin_stream_head(now + this.core.shared.limits.head_timeout),
            (true, false) => this.conn.end_stream_head(),
            (true, true) | (false, false) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Followed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.conn.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = joined::poll_write(&mut self.stream, cx, bytes);
        self.conn.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
