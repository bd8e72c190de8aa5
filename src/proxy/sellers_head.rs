//! The strict check of a seller's head, before it is charged: what a buyer could read otherwise than we did goes no further.

use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::catalog::Sold;
use super::context::Call;
use super::rejection::{Code, Rejection};
use super::words::texts;

/// Refuses answers that are no answers, and those that only say that the gateway's own credential is wrong.
pub fn check(call: &Call, sold: &Sold, head: &Parts) -> Result<(), Rejection> {
    let status = head.status;
    check_framing(&head.headers)?;
    if status.is_informational() {
        return Err(Rejection::new(Code::UpstreamBroke, &texts::SELLER_SWITCHED));
    }
    let ours = sold.llm && sold.product.upstream.headers.iter().any(|(name, _)| name == header::AUTHORIZATION);
    if ours && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        tracing::error!(product = %sold.product.id, request_id = call.request_id(), %status, "the seller refuses the gateway's credential");
        return Err(Rejection::new(Code::SellerAuth, &texts::SELLER_REFUSES_US));
    }
    Ok(())
}

/// Refuses an answer whose end two readers could see in different places, and codings of the hop, which would be lost.
fn check_framing(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let length = lengths.next();
    let plain = |length: &HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    let fault = match (length, codings.next()) {
        (Some(_), Some(_)) => &texts::SELLER_TWO_LENGTHS,
        (Some(length), None) if lengths.next().is_some() || !plain(length) => &texts::SELLER_LENGTH_LISTED,
        (None, Some(coding)) if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            &texts::SELLER_CODING
        }
        (Some(_), None) | (None, Some(_) | None) => return Ok(()),
    };
    Err(Rejection::new(Code::UpstreamBroke, fault))
}
