//! TLS of the listeners: what is shown to clients, read anew when its files change, and the handshake. The rules for
//! certificates and keys are the configuration's.

mod acceptor;
mod resolver;

pub use acceptor::{Acceptor, TlsError};

/// What a TLS connection of ours runs over.
pub type TlsStream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
