//! Serves the admin listener over HTTP/1.1, plain or under TLS: few connections, one request each, all of it bounded in time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::tls::Acceptor;

/// Open connections; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// From a connection's first moment to its request's whole head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// From a connection's first moment to its answer's last byte.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// After a failed accept (no file descriptors left, above all) until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` comes; then finishes what is open, which takes at most 30 seconds.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Acceptor>>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let mut open = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { break };
        let (router, tls) = (router.clone(), tls.clone());
        open.spawn(async move {
            match tls {
                None => connection(stream, router).await,
                Some(tls) => {
                    if let Some(stream) = tls.accept(stream, HEAD_TIME_MAX).await {
                        connection(stream, router).await;
                    }
                }
            }
            drop(place);
        });
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// A connection and its place among the open ones. `None` never comes: the semaphore is not closed.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, place)),
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).keep_alive(false);
    let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIME_MAX, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}
