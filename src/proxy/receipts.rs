//! `/.well-known/tollgate/`: a caller's receipts, free of charge, and the public keys to hold them against.

use std::time::Duration;

use http::{HeaderValue, Response, header};
use serde::Serialize;

use super::body::AnswerBody;
use super::context::Call;
use super::rejection::{Code, Rejection};
use super::server::Core;
use super::words::texts;
use crate::ports::call_records::FindError;
use crate::service::receipts::{ReceiptDesk, ReceiptError};

/// An answer takes at most this long: what is not in memory is read from the disk.
const FIND_MAX: Duration = Duration::from_secs(10);

/// The receipts of the caller's own calls with a request id.
pub async fn answer(call: &Call, request_id: &str) -> Result<Response<AnswerBody>, Rejection> {
    let desk = desk(&call.core)?;
    let Some(caller) = &call.caller else { return Err(none(request_id)) };
    let found = tokio::time::timeout(FIND_MAX, desk.receipts(caller, request_id)).await;
    match found.unwrap_or(Err(ReceiptError::Find(FindError::Busy))) {
        Ok(receipts) => Ok(json(&receipts)),
        Err(ReceiptError::None) => Err(none(request_id)),
        Err(ReceiptError::Open) => Err(Rejection::new(Code::ReceiptUnavailable, &texts::RECEIPT_LATER)),
        Err(ReceiptError::Find(error)) => {
            if let FindError::Io(reason) = &error {
                tracing::error!(reason, "receipts cannot be made");
            }
            Err(Rejection::new(Code::ReceiptUnavailable, &texts::RECEIPTS_UNREAD))
        }
    }
}

/// The public keys.
pub fn keys(core: &Core) -> Result<Response<AnswerBody>, Rejection> {
    Ok(json(desk(core)?.keys()))
}

fn desk(core: &Core) -> Result<&ReceiptDesk, Rejection> {
    let none = || Rejection::new(Code::ReceiptNotFound, &texts::NO_RECEIPTS);
    core.shared.receipts.as_ref().ok_or_else(none)
}

fn none(request_id: &str) -> Rejection {
    let message = texts::NO_RECEIPT.with([("request_id", format!("{request_id:?}").into())]);
    Rejection::new(Code::ReceiptNotFound, message)
}

fn json(value: &impl Serialize) -> Response<AnswerBody> {
    let text = serde_json::to_vec(value).unwrap_or_default(); // names and texts always serialise
    let mut response = Response::new(AnswerBody::full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
