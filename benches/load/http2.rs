//! Calls over HTTP/2: one stream of a connection that others share, by hyper's client.

use crate::Result;
use crate::tls::Tls;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use memchr::memmem;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Makes one call at a time; its clones share the connection.
#[derive(Clone)]
pub(crate) struct Stream {
    sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
}

impl Stream {
    /// A connection of its own; `request` is rendered for HTTP/1.1. Without `tls` it begins with HTTP/2 at once.
    pub(crate) async fn open(address: SocketAddr, tls: Option<&Tls>, request: &[u8]) -> Result<Self> {
        let request = translate(request, if tls.is_some() { "https" } else { "http" })?;
        let sender = match tls {
            Some(tls) => begin(tls.connect(address).await?).await?,
            None => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                begin(stream).await?
            }
        };
        Ok(Self { sender, request })
    }

    /// Calls and reads the answer to its end; `on_data` sees the body as it arrives. Returns the status.
    pub(crate) async fn call(&mut self, mut on_data: impl FnMut(&[u8])) -> Result<u16> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(self.request.clone()).await?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                on_data(data);
            }
        }
        Ok(status)
    }
}

async fn begin(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The same request as HTTP/2 has it: the host becomes the authority.
fn translate(request: &[u8], scheme: &str) -> Result<Request<Full<Bytes>>> {
    let end = memmem::find(request, b"\r\n\r\n").ok_or("a request without an end of its head")?;
    let (head, body) = (std::str::from_utf8(&request[..end])?, &request[end + 4..]);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let mut translated = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *translated.method_mut() = Method::from_bytes(method.as_bytes())?;
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("a header without a value")?;
        let name = HeaderName::from_bytes(name.as_bytes())?;
        if name == HOST {
            let uri = Uri::builder().scheme(scheme).authority(value).path_and_query(path);
            *translated.uri_mut() = uri.build()?;
        } else {
            translated.headers_mut().append(name, HeaderValue::from_str(value)?);
        }
    }
    Ok(translated)
}
