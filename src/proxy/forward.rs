//! The exchange with the seller: on a kept connection if there is one, and once more where that is safe.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;

use super::conn::Expired;
use super::context::Call;
use super::rejection::{Code, Rejection};
use super::request_body::{RequestBody, UploadState};
use super::seller::{Link, Seller};
use super::words::texts;

/// Requests that one call may cost a seller.
const ATTEMPTS_MAX: u8 = 2;

/// A request to a seller.
pub struct Outgoing {
    /// With the seller's headers and path.
    pub request: Request<RequestBody>,
    /// How far a streamed body has come; `None` for one that is held whole.
    pub upload: Option<Rc<Cell<UploadState>>>,
}

impl Outgoing {
    /// The same again, if its body can be sent again.
    fn again(&self) -> Option<Self> {
        let body = self.request.body().again()?;
        let mut request = Request::new(body);
        *request.method_mut() = self.request.method().clone();
        *request.uri_mut() = self.request.uri().clone();
        *request.headers_mut() = self.request.headers().clone();
        Some(Self { request, upload: None })
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
        let spare = if call.attempts < ATTEMPTS_MAX && (used.reused || idempotent) { next.again() } else { None };
        let upload = next.upload.take();
        match send(call, seller, &mut used, next.request).await {
            Ok(Ok(response)) => return Ok((response, used)),
            Ok(Err(error)) => match spare {
                // Nothing came back: the seller closed the connection, or died. A kept connection may have been closed
                // before the request was sent, so whatever the method, it is sent once more on a fresh one.
                Some(spare) if !used.answered() => next = spare,
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
    link.begin();
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
        Some(UploadState::Open) => Rejection::new(Code::RequestTimeout, &texts::BODY_STOPPED).closing(),
        Some(UploadState::Done | UploadState::Broken) | None => {
            Rejection::new(Code::UpstreamTimeout, &texts::SELLER_LATE)
        }
    }
}
