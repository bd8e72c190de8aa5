//! Clients of a target: each makes one call at a time, in the way that is measured, and is opened before the measuring
//! begins.

use crate::Result;
use crate::http2::Stream;
use crate::tls::{Alpn, Files, Tls};
use crate::wire::Connection;
use std::net::SocketAddr;
use std::sync::Arc;

/// Clients that share a connection over HTTP/2.
pub(crate) const STREAMS: usize = 8;

/// How calls reach a target.
#[derive(Clone)]
pub(crate) enum Transport {
    /// HTTP/1.1 on a kept connection.
    Http1,
    /// The same over TLS.
    Tls(Files),
    /// A new connection for each call, over a TLS session that is resumed; a call whose session is not is broken.
    Resumed(Files),
    /// HTTP/2 without TLS, several streams on each connection.
    H2c,
    /// HTTP/2 over TLS, likewise.
    H2(Files),
}

/// What clients call.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    /// Rendered for HTTP/1.1.
    pub(crate) request: Arc<[u8]>,
}

/// Makes one call at a time.
pub(crate) struct Client {
    address: SocketAddr,
    request: Arc<[u8]>,
    way: Way,
}

enum Way {
    /// Kept open; over TLS if there is one.
    Kept {
        connection: Connection,
        tls: Option<Tls>,
    },
    /// `used`: of the call that was last, not closed yet.
    Resumed {
        tls: Tls,
        used: Option<Connection>,
    },
    Stream {
        stream: Stream,
        tls: Option<Tls>,
    },
}

impl Destination {
    /// Opens so many clients.
    pub(crate) async fn clients(&self, count: usize) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        let client = |way| Client { address: self.address, request: Arc::clone(&self.request), way };
        match &self.transport {
            Transport::Http1 => {
                for _ in 0..count {
                    clients.push(client(self.kept(None).await?));
                }
            }
            Transport::Tls(files) => {
                let tls = Tls::new(files, Alpn::Http1)?;
                for _ in 0..count {
                    clients.push(client(self.kept(Some(tls.anew())).await?));
                }
            }
            Transport::Resumed(files) => {
                let tls = Tls::new(files, Alpn::Http1)?;
                for _ in 0..count {
                    clients.push(client(self.resumed(tls.anew()).await?));
                }
            }
            Transport::H2c => self.streams(count, None, |way| clients.push(client(way))).await?,
            Transport::H2(files) => {
                let tls = Tls::new(files, Alpn::Http2)?;
                self.streams(count, Some(tls), |way| clients.push(client(way))).await?;
            }
        }
        Ok(clients)
    }

    async fn kept(&self, tls: Option<Tls>) -> Result<Way> {
        Ok(Way::Kept { connection: connect(self.address, tls.as_ref()).await?, tls })
    }

    /// One call over a full handshake: the tickets come before its answer.
    async fn resumed(&self, tls: Tls) -> Result<Way> {
        let mut connection = connect(self.address, Some(&tls)).await?;
        match connection.call(&self.request, |_| ()).await? {
            200..=299 => Ok(Way::Resumed { tls, used: Some(connection) }),
            status => Err(format!("the call before the first that counts is answered with {status}").into()),
        }
    }

    async fn streams(&self, count: usize, tls: Option<Tls>, mut opened: impl FnMut(Way)) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let stream = Stream::open(self.address, tls.as_ref(), &self.request).await?;
            let sharing = left.min(STREAMS);
            (0..sharing).for_each(|_| opened(Way::Stream { stream: stream.clone(), tls: tls.clone() }));
            left -= sharing;
        }
        Ok(())
    }
}

async fn connect(address: SocketAddr, tls: Option<&Tls>) -> Result<Connection> {
    match tls {
        Some(tls) => Ok(Connection::over_tls(tls.connect(address).await?)),
        None => Connection::open(address).await,
    }
}

impl Client {
    /// Makes the call and reads its answer to the end; `on_data` sees the body as it arrives. Returns the status.
    pub(crate) async fn call(&mut self, on_data: impl FnMut(&[u8])) -> Result<u16> {
        match &mut self.way {
            Way::Kept { connection, tls } => {
                if connection.is_closing() {
                    *connection = connect(self.address, tls.as_ref()).await?;
                }
                connection.call(&self.request, on_data).await
            }
            Way::Resumed { tls, used } => {
                let connection = used.insert(Connection::over_tls(tls.resume(self.address).await?));
                connection.call(&self.request, on_data).await
            }
            Way::Stream { stream, .. } => stream.call(on_data).await,
        }
    }

    /// What a client does when it has its answer: one whose connection broke takes a new one, and one that keeps none
    /// says goodbye. Fails silently: the next call will tell.
    pub(crate) async fn settle(&mut self, broken: bool) {
        match &mut self.way {
            Way::Kept { connection, tls } if broken => {
                if let Ok(fresh) = connect(self.address, tls.as_ref()).await {
                    *connection = fresh;
                }
            }
            Way::Stream { stream, tls } if broken => {
                if let Ok(fresh) = Stream::open(self.address, tls.as_ref(), &self.request).await {
                    *stream = fresh;
                }
            }
            Way::Resumed { used, .. } => {
                if let Some(mut connection) = used.take() {
                    connection.close().await.ok();
                }
            }
            Way::Kept { .. } | Way::Stream { .. } => {}
        }
    }
}
