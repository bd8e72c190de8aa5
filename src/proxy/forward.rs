//! The exchange with the seller: on a kept connection if there is one, and once more where that is safe.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;

use super::conn::Expired;
use super::context::Call;
use super::http2;
use super::rejection::{Code, Rejection};
use super::request_body::{RequestBody, UploadState};
use super::seller::{self, Link, Seller};
use super::words::texts;

/// Requests that one call may cost a seller.
const ATTEMPTS_MAX: u8 = 2;
/// Room for the headers of most requests.
const SPARE_BYTES: usize = 1_024;

/// A request to a seller.
pub struct Outgoing {
    /// With the seller's headers and path.
    pub request: Request<RequestBody>,
    /// How far a streamed body has come; `None` for one that is held whole.
    pub upload: Option<Rc<Cell<UploadState>>>,
}

/// What it takes to send a request once more, which is rare: a copy of its header map would cost a call more than all
/// that it is metered with, so the headers lie here as text.
struct Spare {
    method: Method,
    uri: Uri,
    /// `name LF value LF` for each; neither can hold a line feed.
    headers: Vec<u8>,
    body: RequestBody,
}

impl Spare {
    /// `None`: the body cannot be sent again.
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let body = request.body().again()?;
        let mut headers = Vec::with_capacity(SPARE_BYTES);
        for (name, value) in request.headers() {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                headers.extend_from_slice(part);
                headers.push(b'\n');
            }
        }
        Some(Self { method: request.method().clone(), uri: request.uri().clone(), headers, body })
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(self.body);
        (*request.method_mut(), *request.uri_mut()) = (self.method, self.uri);
        let mut parts = self.headers.split(|byte| *byte == b'\n');
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            if let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                value.set_sensitive(true); // some are, and which ones is not kept
                request.headers_mut().append(name, value);
            }
        }
        request
    }
}

/// Sends the request; returns the seller's head, and the connection that its body comes on.
pub async fn exchange(
    call: &mut Call,
    seller: &Seller,
    outgoing: Outgoing,
) -> Result<(Response<Incoming>, Link), Rejection> {
    let mut next = outgoing;
    // A body that cannot be sent again does not go out on a connection that may be dead.
    let mut link = if next.upload.is_none() { seller.kept() } else { None };
    loop {
        let mut used = match link.take() {
            Some(link) => link,
            None => connect(call, seller).await?,
        };
        call.attempts = call.attempts.saturating_add(1);
        if call.attempts > 1 {
            seller.sold.metrics.retries.inc();
        }
        let idempotent = next.request.method().is_idempotent();
        let again = call.attempts < ATTEMPTS_MAX && (used.reused || idempotent);
        let spare = if again { Spare::of(&next.request) } else { None };
        let upload = next.upload.take();
        match send(call, seller, &mut used, next.request).await {
            Ok(Ok(response)) => return Ok((response, used)),
            Ok(Err(error)) => match spare {
                // Nothing came back: the seller closed the connection, or died. A kept connection may have been closed
                // before the request was sent, so whatever the method, it is sent once more on a fresh one.
                Some(spare) if !used.answered() => next = Outgoing { request: spare.into_request(), upload: None },
                Some(_) | None => return Err(broke(call, upload.as_deref(), used.answered(), &error)),
            },
            Err(Expired) => return Err(late(upload.as_deref())),
        }
    }
}

async fn connect(call: &Call, seller: &Seller) -> Result<Link, Rejection> {
    let deadline = Instant::now() + seller.sold.product.timeouts.connect;
    // Boxed, as it is rare: a TLS handshake's state is larger than all else that a call needs.
    let what = match call.conn.within(deadline, Box::pin(seller.connect())).await {
        Ok(Ok(link)) => return Ok(link),
        Ok(Err(error)) => error.to_string(),
        Err(Expired) => "it did not accept a connection in time".to_owned(),
    };
    // The address and the cause are the operator's business, not the buyer's.
    tracing::warn!(product = %seller.sold.product.id, request_id = call.request_id(), error = what, "the seller cannot be reached");
    Err(Rejection::new(Code::UpstreamConnect, &texts::SELLER_AWAY))
}

async fn send(
    call: &Call,
    seller: &Seller,
    link: &mut Link,
    request: Request<RequestBody>,
) -> Result<hyper::Result<Response<Incoming>>, Expired> {
    let deadline = Instant::now() + seller.sold.product.timeouts.head;
    link.begin(call.conn.streams().map_or(seller::BUFFER_BYTES_MAX, http2::part_bytes_max));
    let sender = &mut link.sender;
    let exchange = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    call.conn.within(deadline, exchange).await
}

fn broke(call: &Call, upload: Option<&Cell<UploadState>>, answered: bool, error: &hyper::Error) -> Rejection {
    if upload.is_some_and(|upload| upload.get() == UploadState::Broken) {
        return Rejection::broken_body(call.conn.body_fault());
    }
    tracing::warn!(request_id = call.request_id(), %error, answered, "the seller broke off before its answer's head");
    let rejection = Rejection::new(Code::UpstreamBroke, &texts::SELLER_BROKE_OFF);
    if upload.is_some() { rejection.closing() } else { rejection }
}

fn late(upload: Option<&Cell<UploadState>>) -> Rejection {
    match upload.map(Cell::get) {
        Some(UploadState::Waiting) => Rejection::new(Code::RequestTimeout, &texts::BODY_STOPPED).closing(),
        Some(UploadState::HandedOn | UploadState::Broken) => {
            Rejection::new(Code::UpstreamTimeout, &texts::SELLER_LATE).closing()
        }
        Some(UploadState::Done) | None => Rejection::new(Code::UpstreamTimeout, &texts::SELLER_LATE),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_spare_is_the_request_again() {
        let mut request = Request::new(RequestBody::Whole(Some(Bytes::from_static(b"{}"))));
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = Uri::from_static("/v1/a?b=c");
        for (name, value) in
            [("host", "h"), ("x-odd", "\t a: b \u{e9}"), ("x-empty", ""), ("x-two", "1"), ("x-two", "2")]
        {
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let again = Spare::of(&request).unwrap().into_request();
        assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
        assert_eq!(again.headers(), request.headers());
    }
}
