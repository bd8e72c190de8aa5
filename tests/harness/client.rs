//! A buyer that sends exact bytes and reads exact bytes.

use std::net::SocketAddr;

use serde_json::Value;

use super::wire::{Body, End, Head, Wire};
use super::within;

/// A request that is put together field by field.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let fields = vec![("Host".to_owned(), "api.test".to_owned())];
        Self { method: method.to_owned(), target: target.to_owned(), fields, body: Vec::new() }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// A chat completion of the product `chat`.
    pub(crate) fn chat(key: &str) -> Self {
        Self::post("/v1/infers/chat/v1/chat/completions").bearer(key).json(r#"{"model":"m","messages":[]}"#)
    }

    /// A streamed one.
    pub(crate) fn stream(key: &str) -> Self {
        Self::chat(key).json(r#"{"model":"m","stream":true,"messages":[]}"#)
    }

    pub(crate) fn bearer(self, key: &str) -> Self {
        self.field("Authorization", &format!("Bearer {key}"))
    }

    /// Adds a field, or replaces the one of that name.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(there, _)| !there.eq_ignore_ascii_case(name));
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.field("Content-Type", "application/json").body(body.as_bytes())
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.field("Content-Length", &body.len().to_string())
    }

    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    pub(crate) fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Adds a field beside one of that name.
    pub(crate) fn also(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.body].concat()
    }
}

/// An answer with its body, as far as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Heads with a status of 1xx that came before.
    pub(crate) before: Vec<Head>,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// How the connection ended before the body did; `None`: the body is whole.
    pub(crate) cut: Option<End>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of an error of ours, in the shape of LLM routes or of the others.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let code = json.pointer("/error/code").or(json.get("error_code"));
        code.and_then(Value::as_str).unwrap_or_else(|| panic!("no code: {json}")).to_owned()
    }

    /// The message of an error of ours.
    pub(crate) fn message(&self) -> String {
        let json = self.json();
        let message = json.pointer("/error/message").or(json.get("error_msg"));
        message.and_then(Value::as_str).unwrap_or_else(|| panic!("no message: {json}")).to_owned()
    }

    /// Fails the test, showing the answer, if the status is another.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{:?}\n{}", self.head, self.text());
        self
    }
}

/// A buyer's connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let wire = within("a connection to the gateway", Wire::connect(to)).await;
        Self { wire: wire.unwrap() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = within("the gateway reads what is sent", self.wire.send(bytes.as_ref())).await;
        sent.unwrap();
    }

    /// The next head, 1xx included.
    pub(crate) async fn head(&mut self) -> Head {
        within("an answer's head", self.wire.head()).await.unwrap()
    }

    /// The next chunk of a chunked body; `None` at its proper end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        within("the next chunk", self.wire.chunk()).await
    }

    /// So many bytes of a chunked body, over as many chunks as it takes.
    pub(crate) async fn chunked(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let chunk = self.chunk().await.unwrap().unwrap_or_else(|| panic!("ended after {bytes:?}"));
            bytes.extend_from_slice(&chunk);
        }
        bytes
    }

    /// The whole answer to a request with this method.
    pub(crate) async fn answer(&mut self, method: &str) -> Answer {
        let mut before = Vec::new();
        let head = loop {
            let head = self.head().await;
            if head.status() >= 200 {
                break head;
            }
            before.push(head);
        };
        let framing = head.answer_framing(method);
        let Body { bytes, cut } = within("an answer's body", self.wire.body(framing)).await;
        Answer { before, head, body: bytes, cut }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn call(&mut self, request: &Request) -> Answer {
        self.send(request.bytes()).await;
        self.answer(request.method()).await
    }

    /// How the gateway ends the connection, after nothing more.
    pub(crate) async fn ends(&mut self) -> End {
        self.wire.ends_silently().await
    }
}
