//! One core's connections to one seller. A connection serves one call at a time and is kept for the next.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::catalog::Sold;
use super::link::{Link, SellerBody};

/// An idle connection older than this is not used: the seller may be about to close it.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);

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

impl Seller {
    /// No connection yet.
    pub fn new(sold: Arc<Sold>) -> Self {
        Self { sold, idle: RefCell::default() }
    }

    /// A connection that was kept, if one is still open.
    pub fn kept(&self) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { link, since }) = idle.pop() {
            if link.is_quiet() && since.elapsed() < IDLE_AGE_MAX {
                return Some(link);
            }
        }
        None
    }

    /// An answer is whole: keeps its connection for the next call.
    pub fn keep(&self, answered: SellerBody) {
        let mut idle = self.idle.borrow_mut();
        if let Some(link) = answered.end().filter(|_| idle.len() < self.sold.product.upstream.idle_connections) {
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    /// Drops connections that are closed or too old to be used.
    pub fn forget_closed(&self) {
        self.idle.borrow_mut().retain(|idle| idle.link.is_quiet() && idle.since.elapsed() < IDLE_AGE_MAX);
    }

    /// Opens a connection.
    pub async fn connect(&self) -> io::Result<Link> {
        let upstream = &self.sold.product.upstream;
        self.sold.metrics.connects.inc();
        let stream = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
        stream.set_nodelay(true)?;
        match &self.sold.tls {
            None => Ok(Link::new(stream)),
            Some(tls) => {
                let name = ServerName::try_from(upstream.host.clone()).map_err(io::Error::other)?;
                Ok(Link::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
            }
        }
    }
}
