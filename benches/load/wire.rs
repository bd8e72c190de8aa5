//! The least HTTP/1.1 client that a load driver needs: one call at a time on a kept connection, bodies
//! by Content-Length or chunked, plain or over TLS. Not a general client: no redirects, trailers, 1xx or bodies that end
//! with the connection (those are errors here).

use crate::Result;
use bytes::{Buf, BytesMut};
use memchr::memmem;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Room made before each read: an answer to a small call fits in one.
const READ_BYTES: usize = 4096;

/// A kept connection and the bytes read from it that no call has used yet.
pub(crate) struct Connection {
    stream: Stream,
    unread: BytesMut,
    /// The other side said that it will close.
    closing: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

enum Framing {
    Length(usize),
    Chunked,
}

struct Head {
    bytes: usize,
    status: u16,
    framing: Framing,
    closing: bool,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Stream::Plain(stream)))
    }

    pub(crate) fn over_tls(stream: TlsStream<TcpStream>) -> Self {
        Self::over(Stream::Tls(Box::new(stream)))
    }

    fn over(stream: Stream) -> Self {
        Self { stream, unread: BytesMut::with_capacity(READ_BYTES), closing: false }
    }

    /// Whether the other side will take no further call.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Tells the other side that nothing more will come.
    pub(crate) async fn close(&mut self) -> Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await?,
            Stream::Tls(stream) => stream.shutdown().await?,
        }
        Ok(())
    }

    /// Sends a rendered request and reads its answer to the end; `on_data` sees the body as it arrives.
    /// Returns the status. After an error the connection must be opened anew.
    pub(crate) async fn call(&mut self, request: &[u8], mut on_data: impl FnMut(&[u8])) -> Result<u16> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(request).await?,
            Stream::Tls(stream) => {
                stream.write_all(request).await?;
                stream.flush().await?;
            }
        }
        let head = loop {
            if let Some(head) = parse_head(&self.unread)? {
                break head;
            }
            self.fill().await?;
        };
        self.unread.advance(head.bytes);
        self.closing = head.closing;
        match head.framing {
            Framing::Length(length) => self.read_sized(length, &mut on_data).await?,
            Framing::Chunked => self.read_chunked(&mut on_data).await?,
        }
        Ok(head.status)
    }

    async fn read_sized(&mut self, mut length: usize, on_data: &mut impl FnMut(&[u8])) -> Result<()> {
        while length > 0 {
            if self.unread.is_empty() {
                self.fill().await?;
            }
            let part = length.min(self.unread.len());
            on_data(&self.unread[..part]);
            self.unread.advance(part);
            length -= part;
        }
        Ok(())
    }

    async fn read_chunked(&mut self, on_data: &mut impl FnMut(&[u8])) -> Result<()> {
        loop {
            let line = loop {
                match memmem::find(&self.unread, b"\r\n") {
                    Some(line) => break line,
                    None => self.fill().await?,
                }
            };
            let digits = std::str::from_utf8(&self.unread[..line])?;
            let size = usize::from_str_radix(digits.trim(), 16)?;
            let end = line + 2 + size;
            while self.unread.len() < end + 2 {
                self.fill().await?;
            }
            if size > 0 {
                on_data(&self.unread[line + 2..end]);
            }
            self.unread.advance(end + 2);
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn fill(&mut self) -> Result<()> {
        self.unread.reserve(READ_BYTES);
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read_buf(&mut self.unread).await?,
            Stream::Tls(stream) => stream.read_buf(&mut self.unread).await?,
        };
        match read {
            0 => Err("the connection ended inside an answer".into()),
            _ => Ok(()),
        }
    }
}

/// One call on a connection of its own, with the body of the answer: for set-up, not for measuring.
pub(crate) async fn fetch(address: SocketAddr, request: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut body = Vec::new();
    let mut connection = Connection::open(address).await?;
    let status = connection.call(request, |data| body.extend_from_slice(data)).await?;
    Ok((status, body))
}

/// Renders a request; `headers` are whole lines without their line ends.
pub(crate) fn render(method: &str, path: &str, host: SocketAddr, headers: &[String], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        let length = body.len();
        text.push_str("content-type: application/json\r\n");
        text.push_str(&format!("content-length: {length}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = std::str::from_utf8(bytes.get(9..12).ok_or("an answer without a status")?)?;
    let mut head = Head { bytes: end + 4, status: status.parse()?, framing: Framing::Length(0), closing: false };
    for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
        if let Some(value) = header(line, b"content-length:") {
            head.framing = Framing::Length(std::str::from_utf8(value)?.parse()?);
        } else if header(line, b"transfer-encoding:").is_some() {
            head.framing = Framing::Chunked;
        } else if let Some(value) = header(line, b"connection:") {
            head.closing = value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(head))
}

/// The trimmed value when the line begins with this lower-case name and colon.
pub(crate) fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}
