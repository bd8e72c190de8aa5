//! The exchange with the seller: on a kept connection if there is one, and once more where that is safe.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use http::response::Parts;

use super::conn::Expired;
use super::context::Call;
use super::http2;
use super::link::{Link, LinkFault, Outgoing, PART_BYTES_MAX, SellerBody};
use super::rejection::{Code, Rejection};
use super::request_body::UploadState;
use super::seller::Seller;
use super::words::texts;
use crate::protocol::answer::AnswerFault;

/// Requests that one call may cost a seller.
const ATTEMPTS_MAX: u8 = 2;

/// What goes to a seller.
pub struct Request {
    /// As it goes out.
    pub outgoing: Outgoing,
    /// Whether its method may be repeated (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// How far a streamed body has come; `None` for one that is held whole.
    pub upload: Option<Rc<Cell<UploadState>>>,
}

/// Sends the request; returns the seller's head, and the body that follows it.
pub async fn exchange(call: &mut Call, seller: &Seller, request: Request) -> Result<(Parts, SellerBody), Rejection> {
    let Request { outgoing: mut next, idempotent, mut upload } = request;
    // A body that cannot be sent again does not go out on a connection that may be dead.
    let mut link = if upload.is_none() { seller.kept() } else { None };
    loop {
        let mut used = match link.take() {
            Some(link) => link,
            None => connect(call, seller).await?,
        };
        call.attempts = call.attempts.saturating_add(1);
        if call.attempts > 1 {
            seller.sold.metrics.retries.inc();
        }
        let again = call.attempts < ATTEMPTS_MAX && (used.reused || idempotent);
        let spare = if again { next.again() } else { None };
        let upload = upload.take();
        let deadline = Instant::now() + seller.sold.product.timeouts.head;
        used.begin(next, call.conn.streams().map_or(PART_BYTES_MAX, http2::part_bytes_max));
        match call.conn.within(deadline, used.head(&seller.sold)).await {
            Ok(Ok((head, rest))) => return Ok((head, SellerBody::new(used, rest))),
            Ok(Err(fault)) => match spare {
                // Nothing came back: the seller closed the connection, or died. A kept connection may have been closed
                // before the request was sent, so whatever the method, it is sent once more on a fresh one.
                Some(spare) if !used.answered() => next = spare,
                Some(_) | None => return Err(broke(call, upload.as_deref(), used.answered(), &fault)),
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

fn broke(call: &Call, upload: Option<&Cell<UploadState>>, answered: bool, fault: &LinkFault) -> Rejection {
    if upload.is_some_and(|upload| upload.get() == UploadState::Broken) {
        return Rejection::broken_body(call.conn.body_fault());
    }
    let text = match fault {
        LinkFault::Answer(AnswerFault::TwoLengths) => &texts::SELLER_TWO_LENGTHS,
        LinkFault::Answer(AnswerFault::LengthListed) => &texts::SELLER_LENGTH_LISTED,
        LinkFault::Answer(AnswerFault::Coding) => &texts::SELLER_CODING,
        LinkFault::Answer(AnswerFault::Switched) => &texts::SELLER_SWITCHED,
        LinkFault::Answer(AnswerFault::Malformed(_) | AnswerFault::HeadTooLarge | AnswerFault::NoStatus)
        | LinkFault::Upload(_)
        | LinkFault::Io(_)
        | LinkFault::Closed => &texts::SELLER_BROKE_OFF,
    };
    tracing::warn!(request_id = call.request_id(), error = %fault, answered, "the seller broke off before its answer's head");
    let rejection = Rejection::new(Code::UpstreamBroke, text);
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
