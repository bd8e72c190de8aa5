//! One core's connections to one seller. A connection serves one call at a time and is kept for the next; it counts the
//! bytes received since a request, so that "closed while it was idle" can be told from "broke off".

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::catalog::Sold;
use super::joined;
use super::request_body::RequestBody;
use super::socket::Socket;

/// An idle connection older than this is not used: the seller may be about to close it.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);
/// Read buffer of one connection, in bytes: what a slow reader makes us hold at most on this side.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// One core's side of a seller.
#[derive(Debug)]
pub struct Seller {
    /// The product, and everything about its upstream.
    pub sold: Arc<Sold>,
    idle: RefCell<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// A connection to a seller. During a call it ends with this, whatever is still to be written to a seller that does not
/// read: whoever has not got all of an answer keeps it.
#[derive(Debug)]
pub struct Link {
    /// Sends a request on it.
    pub sender: SendRequest<RequestBody>,
    shared: Rc<Shared>,
    /// Whether it has served a call before.
    pub reused: bool,
    state: LinkState,
    connection: AbortHandle,
}

/// What a connection and its link share.
#[derive(Debug)]
struct Shared {
    /// Bytes received since the last request began.
    received: Cell<u64>,
    /// How much is read at once, in bytes.
    part_bytes_max: Cell<usize>,
    /// Whether the connection ends with a reset.
    reset: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    /// Without a call.
    Idle,
    /// Its call has not got all of the answer.
    Busy,
    /// Its call has; the seller may not have read all of the request.
    Ended,
}

impl Drop for Link {
    fn drop(&mut self) {
        match self.state {
            LinkState::Idle => {} // the engine ends it in order
            LinkState::Busy => {
                // Nobody waits for the answer: a seller hears of a reset even if it does not read.
                self.shared.reset.set(true);
                self.connection.abort();
            }
            LinkState::Ended => self.connection.abort(),
        }
    }
}

impl Link {
    /// A request is about to be sent; its answer is read in parts of at most this size.
    pub fn begin(&mut self, part_bytes_max: usize) {
        self.shared.received.set(0);
        self.shared.part_bytes_max.set(part_bytes_max);
        self.state = LinkState::Busy;
    }

    /// The answer is whole.
    pub fn end(&mut self) {
        self.state = LinkState::Ended;
    }

    /// Whether the seller has sent anything since [`Link::begin`].
    pub fn answered(&self) -> bool {
        self.shared.received.get() > 0
    }
}

impl Seller {
    /// No connection yet.
    pub fn new(sold: Arc<Sold>) -> Self {
        Self { sold, idle: RefCell::default() }
    }

    /// A connection that was kept, if one is still open.
    pub fn kept(&self) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { link, since }) = idle.pop() {
            if !link.sender.is_closed() && since.elapsed() < IDLE_AGE_MAX {
                return Some(link);
            }
        }
        None
    }

    /// Keeps a connection for the next call.
    pub fn keep(&self, mut link: Link) {
        link.end();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.sold.product.upstream.idle_connections && !link.sender.is_closed() {
            (link.reused, link.state) = (true, LinkState::Idle);
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    /// Drops connections that are closed or too old to be used.
    pub fn forget_closed(&self) {
        let fresh = |idle: &Idle| !idle.link.sender.is_closed() && idle.since.elapsed() < IDLE_AGE_MAX;
        self.idle.borrow_mut().retain(fresh);
    }

    /// Opens a connection.
    pub async fn connect(&self) -> io::Result<Link> {
        let upstream = &self.sold.product.upstream;
        self.sold.metrics.connects.inc();
        let stream = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
        stream.set_nodelay(true)?;
        match &self.sold.tls {
            None => start(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(upstream.host.clone()).map_err(io::Error::other)?;
                start(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?).await
            }
        }
    }
}

async fn start<T: Socket + 'static>(stream: T) -> io::Result<Link> {
    let shared = Rc::new(Shared {
        received: Cell::new(0),
        part_bytes_max: Cell::new(BUFFER_BYTES_MAX),
        reset: Cell::new(false),
    });
    let io = TokioIo::new(Counted { stream, shared: Rc::clone(&shared) });
    let engine = http1::Builder::new().max_buf_size(BUFFER_BYTES_MAX).handshake(io).await;
    let (sender, connection) = engine.map_err(io::Error::other)?;
    // Its error, if any, reaches the call through the sender and the answer's body. Spawned as it is: an `async` block around
    // it would have room for it twice.
    let connection = tokio::task::spawn_local(connection).abort_handle();
    Ok(Link { sender, shared, reused: false, state: LinkState::Idle, connection })
}

/// Counts what is received, and measures it out.
#[derive(Debug)]
struct Counted<T: Socket> {
    stream: T,
    shared: Rc<Shared>,
}

impl<T: Socket> Drop for Counted<T> {
    fn drop(&mut self) {
        if self.shared.reset.get() {
            let _ = self.stream.tcp().set_zero_linger(); // fails only if the connection has ended already
        }
    }
}

impl<T: Socket> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, part_bytes_max) = (to.filled().len(), self.shared.part_bytes_max.get());
        let read = if part_bytes_max < to.remaining() {
            let mut part = ReadBuf::new(to.initialize_unfilled_to(part_bytes_max));
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
            let new = part.filled().len();
            to.advance(new);
            read
        } else {
            Pin::new(&mut self.stream).poll_read(cx, to)
        };
        let new = to.filled().len().saturating_sub(before);
        let received = &self.shared.received;
        received.set(received.get().saturating_add(u64::try_from(new).unwrap_or(u64::MAX)));
        read
    }
}

impl<T: Socket> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        joined::poll_write(&mut self.stream, cx, bytes)
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
