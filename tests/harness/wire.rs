//! HTTP/1.1 as bytes on a socket, for both ends: what was sent is kept as it was sent. Reads have a deadline; how a
//! connection ended is told, not guessed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// Room for one read.
const READ_BYTES: usize = 16 * 1024;

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: it sends no more.
    Eof,
    /// By a reset.
    Reset,
}

/// A request's or an answer's head.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// As it came, its empty line included.
    pub(crate) raw: Vec<u8>,
    /// The request line or the status line.
    pub(crate) start: String,
    /// Names as sent, values without the blanks around them.
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    fn parse(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let fields = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        });
        let fields = fields.collect();
        Self { raw, start, fields }
    }

    /// All values of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(there, _)| there.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that stands at most once.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands {} times in {:?}", all.len(), self.fields);
        all.first().copied()
    }

    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{:?}", self.start))
    }

    pub(crate) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap()
    }

    /// How a request's body is delimited.
    pub(crate) fn request_framing(&self) -> Framing {
        match (self.get("transfer-encoding"), self.get("content-length")) {
            (Some("chunked"), None) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) => Framing::None,
            other => panic!("no sane request has {other:?}"),
        }
    }

    /// How an answer's body is delimited.
    pub(crate) fn answer_framing(&self, method: &str) -> Framing {
        let status = self.status();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Framing::None;
        }
        match (self.get("transfer-encoding"), self.get("content-length")) {
            (Some("chunked"), None) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) => Framing::UntilClose,
            other => panic!("no sane answer has {other:?}"),
        }
    }
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// A body, as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Body {
    /// Without its framing.
    pub(crate) bytes: Vec<u8>,
    /// How the connection ended before the body did; `None`: the body is whole.
    pub(crate) cut: Option<End>,
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Read, not yet asked for.
    held: Vec<u8>,
    /// Bytes read, over all connections that share it.
    received: Arc<AtomicUsize>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, received: Arc<AtomicUsize>) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, held: Vec::new(), received }
    }

    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(to).await?, Arc::default()))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes all of it, waiting as long as it takes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.stream.write_all(bytes).await.map_err(|_| End::Reset)
    }

    /// Sends no more; goes on reading.
    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await; // the other side may be gone already
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    async fn fill(&mut self) -> Result<(), End> {
        self.held.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.held).await {
            Ok(0) => Err(End::Eof),
            Ok(count) => {
                self.received.fetch_add(count, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                let cut = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
                assert!(cut, "read: {error}");
                Err(End::Reset)
            }
        }
    }

    async fn through(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        let mut searched = 0_usize;
        loop {
            let from = searched.saturating_sub(mark.len());
            if let Some(at) = self.held[from..].windows(mark.len()).position(|window| window == mark) {
                return Ok(self.held.drain(..from + at + mark.len()).collect());
            }
            searched = self.held.len();
            self.fill().await?;
        }
    }

    /// Reads a head.
    pub(crate) async fn head(&mut self) -> Result<Head, End> {
        Ok(Head::parse(self.through(b"\r\n\r\n").await?))
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.held.len() < count {
            self.fill().await?;
        }
        Ok(self.held.drain(..count).collect())
    }

    /// Reads whatever comes next, at least a byte.
    pub(crate) async fn some(&mut self) -> Result<Vec<u8>, End> {
        if self.held.is_empty() {
            self.fill().await?;
        }
        Ok(std::mem::take(&mut self.held))
    }

    /// Reads the next chunk of a chunked body; `None` after its last, when the trailers are read too.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let line = self.through(b"\r\n").await?;
        let text = std::str::from_utf8(&line).unwrap().trim_end();
        let digits = text.split(';').next().unwrap();
        let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no chunk size: {text:?}"));
        if size == 0 {
            while self.through(b"\r\n").await? != b"\r\n" {}
            return Ok(None);
        }
        let data = self.exactly(size).await?;
        assert_eq!(self.exactly(2).await?, b"\r\n", "after a chunk's data");
        Ok(Some(data))
    }

    /// Reads a body to its end, however that comes.
    pub(crate) async fn body(&mut self, framing: Framing) -> Body {
        let mut bytes = Vec::new();
        let cut = loop {
            let piece = match framing {
                Framing::None => break None,
                Framing::Length(length) if bytes.len() == length => break None,
                Framing::Length(length) => self.some().await.map(|mut piece| {
                    let rest = piece.split_off(piece.len().min(length - bytes.len()));
                    self.held = rest;
                    Some(piece)
                }),
                Framing::Chunked => self.chunk().await,
                Framing::UntilClose => self.some().await.map(Some),
            };
            match piece {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => break None,
                Err(End::Eof) if framing == Framing::UntilClose => break None,
                Err(end) => break Some(end),
            }
        };
        Body { bytes, cut }
    }

    /// Reads and drops everything until the other side ends the connection.
    pub(crate) async fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.some().await {
                return end;
            }
        }
    }

    /// As [`Wire::end`], and nothing may come before it.
    pub(crate) async fn ends_silently(&mut self) -> End {
        match within("the connection ends", self.some()).await {
            Err(end) => end,
            Ok(more) => panic!("more bytes: {:?}", String::from_utf8_lossy(&more)),
        }
    }
}
