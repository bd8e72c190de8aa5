//! What a seller's status may not tell a buyer.

use http::{StatusCode, header};

use super::catalog::Sold;
use super::context::Call;
use super::rejection::{Code, Rejection};
use super::words::texts;

/// Refuses answers that only say that the gateway's own credential is wrong.
pub fn check(call: &Call, sold: &Sold, status: StatusCode) -> Result<(), Rejection> {
    let ours = sold.llm && sold.product.upstream.headers.iter().any(|(name, _)| name == header::AUTHORIZATION);
    if ours && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        tracing::error!(product = %sold.product.id, request_id = call.request_id(), %status, "the seller refuses the gateway's credential");
        return Err(Rejection::new(Code::SellerAuth, &texts::SELLER_REFUSES_US));
    }
    Ok(())
}
