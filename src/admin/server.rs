//! Serves the admin listener over HTTP/1.1, plain or under TLS: few connections, one request each, all of it bounded in time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::tls::Acceptor;

/// Open connections. For one more, the one that has been open for longest without a request is closed; if all have one,
/// it waits.
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
    let (mut open, mut visits) = (JoinSet::new(), Vec::<Visit>::new());
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            stream = accept(&listener) => stream,
        };
        while open.try_join_next().is_some() {}
        if open.len() >= CONNECTIONS_MAX {
            if let Some(idle) = visits.iter().find(|visit| visit.is_idle()) {
                idle.task.abort();
            }
            tokio::select! {
                () = &mut shutdown => break,
                _ = open.join_next() => {}
            }
        }
        visits.retain(|visit| !visit.task.is_finished());
        let (router, tls, asked) = (router.clone(), tls.clone(), Arc::new(AtomicBool::new(false)));
        let asks = Arc::clone(&asked);
        let task = open.spawn(async move {
            match tls {
                None => connection(stream, router, asks).await,
                Some(tls) => {
                    if let Some(stream) = tls.accept(stream, HEAD_TIME_MAX).await {
                        connection(stream, router, asks).await;
                    }
                }
            }
        });
        visits.push(Visit { task, asked });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// An open connection.
struct Visit {
    task: AbortHandle,
    /// Set once its request's head is there.
    asked: Arc<AtomicBool>,
}

impl Visit {
    fn is_idle(&self) -> bool {
        !self.asked.load(Ordering::Relaxed) && !self.task.is_finished()
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, asked: Arc<AtomicBool>) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).keep_alive(false);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        router.call(request)
    });
    let served = server.serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME_MAX, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}
