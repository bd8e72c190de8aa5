//! Where a call comes from: the connection's peer, or whom a trusted proxy speaks for. A proxy says it before a
//! connection's first byte (the PROXY protocol) or in a header of each request; nobody else is listened to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::Proxies;
use crate::domain::network::{ProxyHeader, any_contains};
use crate::protocol::forwarded::{FORWARDED_PROTO, ForwardedFault, are_tls, client_of, header_name, is_tls};
use crate::protocol::proxy_header::{
    ProxyFault, START_BYTES, Source, V1_BYTES_MAX, V2_FIXED_BYTES, Version, read_v1, read_v2, v2_rest_bytes, version,
};

/// A client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// An IPv4 address that came as an IPv6 one is the IPv4 address.
    pub address: IpAddr,
    /// As headers and the log show it.
    pub text: HeaderValue,
}

impl Client {
    /// A client at an address.
    pub fn at(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let text = HeaderValue::from_str(&address.to_string());
        // Digits, letters, dots and colons are fine.
        Self { address, text: text.unwrap_or_else(|_| HeaderValue::from_static("")) }
    }
}

/// Whom a request's header names, if its peer is trusted to say so.
pub fn named_by_header(
    peer: &Client,
    headers: &HeaderMap,
    proxies: &Proxies,
) -> Result<Option<Client>, ForwardedFault> {
    let name = header_name(proxies.header);
    if proxies.trusted.is_empty() || !headers.contains_key(name) {
        return Ok(None);
    }
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let address = client_of(peer.address, (proxies.header, lines), &proxies.trusted)?;
    Ok((address != peer.address).then(|| Client::at(address)))
}

/// Whether a trusted proxy says that its client spoke TLS with it.
pub fn came_by_tls(peer: &Client, headers: &HeaderMap, proxies: &Proxies) -> bool {
    let lines = |name: &str| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    any_contains(&proxies.trusted, peer.address)
        && match proxies.header {
            ProxyHeader::XForwardedFor => are_tls(lines(FORWARDED_PROTO)),
            ProxyHeader::Forwarded => is_tls(peer.address, lines(header_name(proxies.header)), &proxies.trusted),
        }
}

/// Why no PROXY header was read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It is not one.
    #[error(transparent)]
    Fault(#[from] ProxyFault),
    /// It did not come whole in time.
    #[error("no PROXY header came in time")]
    Late,
    /// The connection ended before.
    #[error("the connection ended: {0}")]
    Io(#[from] io::Error),
}

/// Who a fresh connection comes from: reads the header of the PROXY protocol where it is due, and not one byte more.
pub async fn source(
    stream: &mut TcpStream,
    peer: SocketAddr,
    (proxies, head_timeout): (&Proxies, Duration),
) -> Result<SocketAddr, HeaderError> {
    if !proxies.proxy_protocol || !any_contains(&proxies.trusted, peer.ip()) {
        return Ok(peer);
    }
    let read = tokio::time::timeout(head_timeout, read_header(stream)).await.map_err(|_| HeaderError::Late)?;
    Ok(match read? {
        Source::Client(client) => client,
        Source::Proxy => peer,
    })
}

async fn read_header(stream: &mut TcpStream) -> Result<Source, HeaderError> {
    let mut start = [0; START_BYTES];
    stream.read_exact(&mut start).await?;
    Ok(match version(&start)? {
        Version::One => read_v1(&read_line(stream, &start).await?)?,
        Version::Two => {
            let mut fixed = [0; V2_FIXED_BYTES];
            let (signature, more) = fixed.split_at_mut(START_BYTES);
            signature.copy_from_slice(&start);
            stream.read_exact(more).await?;
            let mut rest = vec![0; v2_rest_bytes(&fixed)?];
            stream.read_exact(&mut rest).await?;
            read_v2(&fixed, &rest)?
        }
    })
}

/// Reads on to the end of a line. What follows it belongs to whoever gets the stream: it is looked at, not taken.
async fn read_line(stream: &mut TcpStream, start: &[u8]) -> Result<Vec<u8>, HeaderError> {
    let mut line = start.to_vec();
    while line.len() < V1_BYTES_MAX {
        let mut seen = [0; V1_BYTES_MAX];
        let count = stream.peek(&mut seen).await?;
        let seen = seen.get(..count).unwrap_or_default();
        let end = memchr::memchr(b'\n', seen).map(|at| at.saturating_add(1));
        let take = end.unwrap_or(count);
        if take == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let old = line.len();
        line.resize(old.saturating_add(take), 0);
        stream.read_exact(line.get_mut(old..).unwrap_or_default()).await?;
        if end.is_some() {
            return Ok(line);
        }
    }
    Err(ProxyFault::TooLong.into())
}
