//! TLS as the driver speaks it: 1.3 alone, with a name, trusting one authority. A session is resumed where a client has a
//! ticket, and every client has a store of tickets of its own: those of one must not run dry because others took them.

use crate::Result;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name that the certificate is made out to.
pub(crate) const HOST: &str = "localhost";
/// Servers whose tickets a client keeps.
const SERVERS: usize = 1;

/// What is negotiated within the handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    Http1,
    Http2,
}

impl Alpn {
    fn id(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// A server's certificate and its authority, in one folder.
#[derive(Clone)]
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    pub(crate) fn certificate(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("server.key")
    }

    fn authority(&self) -> PathBuf {
        self.0.join("ca.pem")
    }
}

/// One client's settings and tickets.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    alpn: Alpn,
}

impl Tls {
    pub(crate) fn new(files: &Files, alpn: Alpn) -> Result<Self> {
        let mut config = trusting(&files.authority())?;
        config.alpn_protocols = vec![alpn.id().to_vec()];
        Ok(Self { config: Arc::new(config), alpn })
    }

    /// The same client, without a ticket yet.
    pub(crate) fn anew(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(SERVERS);
        Self { config: Arc::new(config), alpn: self.alpn }
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(HOST)?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(self.alpn.id()) {
            return Err("another protocol was agreed on".into());
        }
        Ok(stream)
    }

    /// An error when the server made a full handshake.
    pub(crate) async fn resume(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let stream = self.connect(address).await?;
        match stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => Ok(stream),
            kind => Err(format!("the session was not resumed: {kind:?}").into()),
        }
    }
}

fn trusting(authority: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
