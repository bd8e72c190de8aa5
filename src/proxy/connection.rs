//! One client connection: TLS if it is spoken here, then the HTTP engine, until either side ends it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::client::{self, HeaderError};
use super::client_body::ClientBody;
use super::conn::Conn;
use super::gate::Gate;
use super::server::{Closed, Core};
use super::socket::Socket;
use super::{http2, phases};

/// What one connection may make us hold on its side, in bytes; a request head must fit.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How long a connection may still take to its first request when its core begins to drain: what its client has sent by
/// then may not have been looked at.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(250);

/// Serves a connection to its end. `_closed` counts it out.
pub async fn serve(core: Rc<Core>, accepted: (std::net::TcpStream, SocketAddr), _closed: Closed) {
    // Boxed: an open stream holds no room for what came before its connection's first request.
    let begun = Box::pin(begin(Rc::clone(&core), accepted)).await;
    match begun {
        Some(Begun::Plain(stream, conn)) => serve_http1(core, stream, conn).await,
        Some(Begun::Boxed(served)) => served.await,
        None => {}
    }
}

/// A connection whose protocol is known.
enum Begun {
    /// HTTP/1.1 without TLS.
    Plain(TcpStream, Rc<Conn>),
    /// Any other, which serves itself: its room is its own, so that a plain one does not hold it.
    Boxed(Pin<Box<dyn Future<Output = ()>>>),
}

/// All before the first request: who the client is, TLS, which HTTP it speaks. `None`: it is over.
async fn begin(core: Rc<Core>, (stream, peer): (std::net::TcpStream, SocketAddr)) -> Option<Begun> {
    let mut stream = TcpStream::from_std(stream).ok()?;
    let (limits, tls) = (&core.shared.limits, core.shared.tls.as_ref());
    // From now on it can be ended for the sake of another, whatever it still owes before its first request.
    let mut conn = Conn::new(peer, tls.is_some(), limits);
    core.conns.add(&conn);
    let source = client::source(&mut stream, peer, (&core.shared.proxies, limits.head_timeout));
    let source = tokio::select! {
        source = source => source,
        () = too_late(&core, &conn) => return None,
    };
    match source {
        Ok(source) if source == peer => {}
        Ok(source) => {
            conn = Conn::new(source, tls.is_some(), limits);
            core.conns.add(&conn);
        }
        Err(HeaderError::Io(_)) => return None, // as whoever looks whether the port is open
        Err(error) => {
            tracing::warn!(%peer, %error, "a trusted proxy's connection is refused");
            return None;
        }
    }
    let Some(tls) = tls else {
        let begins = async { core.shared.h2c && http2::begins(&stream, limits.head_timeout).await };
        let http2 = tokio::select! {
            biased;
            http2 = begins => http2,
            () = too_late(&core, &conn) => return None,
        };
        return Some(if http2 {
            Begun::Boxed(Box::pin(http2::serve(core, stream, conn)))
        } else {
            Begun::Plain(stream, conn)
        });
    };
    let stream = tokio::select! {
        accepted = tls.accept(stream, limits.head_timeout) => accepted?,
        () = too_late(&core, &conn) => return None,
    };
    Some(Begun::Boxed(if stream.get_ref().1.alpn_protocol() == Some(http2::NAME) {
        Box::pin(http2::serve(core, stream, conn))
    } else {
        Box::pin(serve_http1(core, stream, conn))
    }))
}

/// Waits until a connection that has not come to its first request is ended: for the sake of another, or because its core
/// drains.
async fn too_late(core: &Core, conn: &Conn) {
    let drained = async {
        poll_fn(|cx| core.conns.poll_draining(conn, cx)).await;
        tokio::time::sleep(FIRST_REQUEST_GRACE).await;
    };
    tokio::select! {
        () = drained => {}
        () = conn.read_expired() => {}
    }
}

async fn serve_http1<S: Socket>(core: Rc<Core>, stream: S, conn: Rc<Conn>) {
    conn.arrived();
    core.shared.metrics.http.http1.inc();
    let gate = Gate::new(stream, Rc::clone(&conn), core.shared.limits.head_timeout, core.shelf().body_max());
    let gate = TokioIo::new(gate);
    let service = service_fn(|request| {
        let (core, conn) = (Rc::clone(&core), Rc::clone(&conn));
        let refused = conn.begin_call();
        let request = request.map(ClientBody::of_connection);
        // Boxed, so that an open stream no longer holds the room that its call needed until the seller answered.
        Box::pin(async move { Ok::<_, Infallible>(phases::serve(core, conn, refused, request).await) })
    });
    let mut engine = http1::Builder::new();
    // The gate has its own clock for heads, which runs from their first byte. No `pipeline_flush`: with it the engine
    // holds any amount for a client that reads slowly.
    engine.header_read_timeout(None).max_buf_size(BUFFER_BYTES_MAX).half_close(false);
    let mut connection = pin!(engine.serve_connection(gate, service));
    // A client that breaks the protocol or goes away is no event: the call's own line tells how it ended.
    let ended = poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => core.conns.poll_draining(&conn, cx).map(|()| false),
    });
    if ended.await {
        return;
    }
    if conn.is_fresh() && tokio::time::timeout(FIRST_REQUEST_GRACE, connection.as_mut()).await.is_ok() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
