//! The socket under a connection, whatever is spoken over it.

use std::fmt::Debug;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::tls::TlsStream;

/// What lies over one TCP connection.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Debug {
    /// That connection.
    fn tcp(&self) -> &TcpStream;

    /// Whether the other side has closed or reset it, be what it sent before read or not.
    fn is_hung_up(&self) -> bool {
        let ready = pin!(self.tcp().ready(Interest::READABLE));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Socket for tokio_rustls::client::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}
