//! Just enough of an HTTP client for the tour: one call, one connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A call.
pub(super) struct Ask<'a> {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub method: Method,
    /// What.
    pub path: &'a str,
    /// With which key or token.
    pub bearer: &'a str,
    /// As JSON.
    pub body: String,
}

/// An answer.
pub(super) struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// Makes a call and reads the whole answer.
pub(super) async fn call(ask: Ask<'_>) -> Result<Answer, String> {
    let text = |error: &dyn std::fmt::Display| format!("{} {}: {error}", ask.method, ask.path);
    let stream = TcpStream::connect(ask.address).await.map_err(|error| text(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    tokio::spawn(async move {
        let _ = connection.await; // its error reaches the call itself
    });
    let request = Request::builder()
        .method(ask.method.clone())
        .uri(ask.path)
        .header(header::HOST, ask.address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {}", ask.bearer))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(ask.body.clone())))
        .map_err(|error| text(&error))?;
    let response = sender.send_request(request).await.map_err(|error| text(&error))?;
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame.map_err(|error| text(&error))?.into_data() {
            body.extend_from_slice(&data);
        }
    }
    Ok(Answer { status: head.status, headers: head.headers, body })
}
