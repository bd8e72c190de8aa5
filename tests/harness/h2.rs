//! HTTP/2 for tests: frames as bytes, for what no sane client sends, and a sane client for the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Request;
use super::tls::connect;
use super::within;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Frame types and flags (RFC 9113 section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// One frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// Fields as a block of HPACK's simplest form: literal, not indexed, not compressed (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(u8::try_from(length).unwrap());
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// A frame with a whole head.
pub(crate) fn headers(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(end), stream, &block(fields))
}

/// What came of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer, with its body as far as it came.
    Answered(u16, String),
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection was ended, with the code if it was said.
    Ended(Option<u32>),
}

/// A client that sends any bytes.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Connects, sends the preface and settings without a dynamic table.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let mut raw = Self { stream: TcpStream::connect(to).await.unwrap() };
        raw.stream.set_nodelay(true).unwrap();
        raw.send(PREFACE).await;
        raw.send(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])).await;
        raw
    }

    /// Sends, unless the other side has ended the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = within("bytes are read", self.stream.write_all(bytes)).await;
    }

    /// The next frame: type, flags, stream, content. `None`: the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        within("a frame", self.stream.read_exact(&mut head)).await.ok()?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let mut content = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
        within("a frame's content", self.stream.read_exact(&mut content)).await.ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), content))
    }

    /// What becomes of a stream.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Outcome {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let (mut status, mut body) = (None, Vec::new());
        while let Some((kind, flags, of, content)) = self.next().await {
            match kind {
                GOAWAY if number(&content[4..8]) != 0 => return Outcome::Ended(Some(number(&content[4..8]))),
                RST_STREAM if of == stream => return Outcome::Reset(number(&content)),
                HEADERS if of == stream => status = Some(status_of(&content)),
                DATA if of == stream => body.extend_from_slice(&content),
                _ => continue,
            }
            if let (Some(status), true) = (status, flags & END_STREAM != 0) {
                return Outcome::Answered(status, String::from_utf8_lossy(&body).into_owned());
            }
        }
        Outcome::Ended(None)
    }

    /// Reads until the connection has ended; the code, if one was said.
    pub(crate) async fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, _, _, content)) = self.next().await {
            if kind == GOAWAY {
                code = Some(u32::from_be_bytes(content[4..8].try_into().unwrap()));
            }
        }
        code
    }
}

/// The status at the beginning of a block, which our engine puts first.
fn status_of(block: &[u8]) -> u16 {
    let mut rest = block;
    while let [update, more @ ..] = rest
        && update & 0xe0 == 0x20
    {
        rest = more; // an update of the table's size
    }
    match rest {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [0x08 | 0x48, length, text @ ..] if length & 0x80 != 0 => digits(&text[..usize::from(length & 0x7f)]),
        [0x08 | 0x48, length, text @ ..] => {
            std::str::from_utf8(&text[..usize::from(*length)]).unwrap().parse().unwrap()
        }
        other => panic!("no status: {other:x?}"),
    }
}

/// Three digits in HPACK's Huffman code: 0 to 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0_u16, |sum, bit| sum << 1 | u16::from(*bit));
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = value(&bits[at..at + 5]);
        let (digit, length) = if short <= 2 { (short, 5) } else { (value(&bits[at..at + 6]) - 0x19 + 3, 6) };
        (number, at) = (number * 10 + digit, at + length);
    }
    number
}

/// An answer to a sane client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{:?}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }
}

/// A sane client's connection; its clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Without TLS.
    pub(crate) async fn plain(to: SocketAddr) -> Self {
        Self::on(TcpStream::connect(to).await.unwrap()).await
    }

    /// With TLS, where `h2` must be agreed on.
    pub(crate) async fn tls(to: SocketAddr, mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = connect(to, &Arc::new(config), "localhost").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::on(stream).await
    }

    async fn on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let engine = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = engine.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends a request whose `Host` becomes the authority; the head of its answer, and the body to be read.
    pub(crate) async fn begin(&mut self, request: &Request) -> hyper::Result<Response<Incoming>> {
        let field = |name: &str| request.fields().iter().find(|(there, _)| there.eq_ignore_ascii_case(name));
        let uri: Uri = format!("https://{}{}", field("host").unwrap().1, request.target()).parse().unwrap();
        let mut made = http::Request::new(Full::new(Bytes::copy_from_slice(request.body_bytes())));
        *made.method_mut() = Method::from_bytes(request.method().as_bytes()).unwrap();
        *made.uri_mut() = uri;
        for (name, value) in request.fields().iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            let name = http::HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap();
            made.headers_mut().append(name, value.parse().unwrap());
        }
        self.sender.ready().await?;
        within("an answer's head", self.sender.send_request(made)).await
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn call(&mut self, request: &Request) -> Answer {
        let (head, body) = self.begin(request).await.unwrap().into_parts();
        let body = within("an answer's body", body.collect()).await.unwrap().to_bytes();
        Answer { head, body }
    }
}
