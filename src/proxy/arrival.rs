//! How a call's body is taken in: read as far as its model or its signature asks for it, and no further. What it names
//! settles which product is called.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use http_body::Body;

use super::body_kind::{has_other_charset, is_coded, may_be_json, says_json};
use super::catalog::{Shelf, Sold};
use super::client_body::ClientBody;
use super::context::Call;
use super::identify::{Pending, check_product, fits, is_strangers, missing, needs_body, refuse_placeholder, verify};
use super::rejection::{Code, Rejection};
use super::request_body::{RequestBody, UploadState, UploadTimeouts};
use super::route;
use super::whole_body::{Hashed, InMemory, Reading};
use super::words::texts;
use crate::domain::usage::{END_USER_BYTES_MAX, kept};
use crate::protocol::chat::{BodyFault, ModelField, begins_like_an_object, read_request, replace_model};
use crate::protocol::credential::has_parameter;
use crate::protocol::signature::{BodyHash, SeenBody};

/// A larger JSON body, in bytes, is read beside the core: streams on the same core do not wait for it.
const READ_HERE_BYTES_MAX: usize = 256 * 1024;

/// A request body that is ready to go.
pub struct ReadyBody {
    /// What goes to the seller.
    pub body: RequestBody,
    /// How far it has come, if the client is still sending.
    pub upload: Option<Rc<Cell<UploadState>>>,
}

/// A body as far as it had to be read.
pub enum Arrived {
    /// Whole, for its hash.
    Read(Hashed),
    /// Not at all.
    Waiting(ClientBody),
}

/// Reads the body if a signature covers it, and checks the signature. `max` bounds what is read.
pub async fn arrive(
    call: &mut Call,
    (sold, max): (Option<&Sold>, u64),
    head: &Parts,
    incoming: ClientBody,
    pending: Option<Pending<'_>>,
) -> Result<Arrived, Rejection> {
    let Some(pending) = pending else { return Ok(Arrived::Waiting(incoming)) };
    let nothing = SeenBody::Hashed(BodyHash::of(&[]));
    if incoming.is_end_stream() {
        verify(call, pending, head, (sold, nothing)).await?;
        return Ok(Arrived::Waiting(incoming));
    }
    let shared = Arc::clone(&call.core.shared);
    let bounds = (max, shared.limits.body_timeout);
    if needs_body(&pending, sold) {
        let reading = Reading::new(incoming, &call.conn, bounds, true)?;
        let (above, stranger) = (shared.limits.spool_above, is_strangers(&pending));
        // Boxed, as it is rare: warm calls keep no room for it.
        let hashed = Box::pin(reading.hashed((&shared.held, &shared.spool), above, stranger)).await?;
        call.body_unread = false;
        verify(call, pending, head, (sold, SeenBody::Hashed(hashed.hash))).await?;
        return Ok(Arrived::Read(hashed));
    }
    // Some signers sign the hash of nothing where they declare an empty body unsigned. If it came without a length, only
    // its first part tells whether it is empty; a signature that fits as it is does not wait for that.
    if incoming.size_hint().exact().is_none() && !fits(call, &pending, head, (sold, SeenBody::Unread))? {
        let mut reading = Reading::new(incoming, &call.conn, bounds, true)?;
        let body = if reading.is_empty().await? { nothing } else { SeenBody::Unread };
        verify(call, pending, head, (sold, body)).await?;
        return Ok(Arrived::Read(Hashed::nothing()));
    }
    verify(call, pending, head, (sold, SeenBody::Unread)).await?;
    Ok(Arrived::Waiting(incoming))
}

/// The largest body that is read whole: of a product, or, before it is known, of any.
pub fn body_max(shelf: &Shelf, sold: Option<&Sold>) -> u64 {
    let largest = || shelf.sold.iter().filter(|sold| sold.llm).map(|sold| sold.product.body_max).max();
    sold.map(|sold| sold.product.body_max).or_else(largest).unwrap_or_default()
}

/// Reads the body as far as its model or its signature asks for it; settles which product is called.
pub async fn read_body(
    call: &mut Call,
    (shelf, sold): (&Shelf, Option<Arc<Sold>>),
    head: &Parts,
    incoming: ClientBody,
    pending: Option<Pending<'_>>,
) -> Result<ReadyBody, Rejection> {
    let llm = sold.as_ref().is_none_or(|sold| sold.llm);
    let has_body = !incoming.is_end_stream();
    if llm && has_body && may_be_json(&head.headers) {
        return read_model(call, (shelf, sold), head, incoming, pending).await;
    }
    let max = body_max(shelf, sold.as_deref());
    let arrived = arrive(call, (sold.as_deref(), max), head, incoming, pending).await?;
    let sold = match sold {
        Some(sold) => sold,
        None => by_model(call, shelf, head)?,
    };
    settle_product(call, &sold, if has_body && llm { Words::Unread } else { Words::None })?;
    name_end_user(call, &sold, &head.headers);
    Ok(match arrived {
        Arrived::Read(Hashed { body, .. }) => ReadyBody { body, upload: None },
        Arrived::Waiting(incoming) => unread(call, &sold, incoming, has_body),
    })
}

/// Reads a body that may name a model.
async fn read_model(
    call: &mut Call,
    (shelf, sold): (&Shelf, Option<Arc<Sold>>),
    head: &Parts,
    incoming: ClientBody,
    pending: Option<Pending<'_>>,
) -> Result<ReadyBody, Rejection> {
    for (wrong, text) in [
        (is_coded(&head.headers), &texts::BODY_COMPRESSED),
        (has_other_charset(&head.headers), &texts::BODY_OTHER_CHARSET),
    ] {
        if wrong {
            return Err(Rejection::new(Code::EncodingUnsupported, text).closing());
        }
    }
    let max = body_max(shelf, sold.as_deref());
    let shared = Arc::clone(&call.core.shared);
    let bounds = (max, shared.limits.body_timeout);
    let reading = Reading::new(incoming, &call.conn, bounds, pending.is_some())?;
    let InMemory { bytes, hash, share } = reading.in_memory(&shared.held).await?;
    call.body_unread = false;
    if let (Some(pending), Some(hash)) = (pending, hash) {
        verify(call, pending, head, (sold.as_deref(), SeenBody::Hashed(hash))).await?;
    }
    let named = match named(&bytes).await {
        Ok(named) => Some(named),
        // Some other format: handed on as it is.
        Err(_) if !says_json(&head.headers) && !begins_like_an_object(&bytes) => None,
        Err(fault) => return Err(Rejection::body(&fault)),
    };
    let words = if named.is_some() { Words::Read } else { Words::Unread };
    let (model, user) = named.map_or((None, None), |named| (named.model, named.user));
    call.model = model.as_ref().map(|(name, _)| Arc::clone(name));
    call.end_user = user;
    let sold = match sold {
        Some(sold) => sold,
        None => by_model(call, shelf, head)?,
    };
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > sold.product.body_max {
        let message = texts::BODY_LARGER.with([("max", sold.product.body_max.to_string().into())]);
        return Err(Rejection::new(Code::RequestTooLarge, message));
    }
    settle_product(call, &sold, words)?;
    name_end_user(call, &sold, &head.headers);
    let bytes = share.kept_with(bytes);
    let body = match (&model, sold.sellers_model(call.model.as_deref())) {
        (Some((_, span)), Some(sellers)) => RequestBody::pieces(replace_model(&bytes, span, sellers)),
        (_, _) => RequestBody::whole(bytes),
    };
    Ok(ReadyBody { body, upload: None })
}

/// What a JSON body names.
struct Named {
    /// The model, and where it stands.
    model: Option<(Arc<str>, Range<usize>)>,
    /// The buyer's own user.
    user: Option<Arc<str>>,
}

/// Reads what a body names.
async fn named(bytes: &Bytes) -> Result<Named, BodyFault> {
    if bytes.len() <= READ_HERE_BYTES_MAX {
        return named_in(bytes);
    }
    let body = bytes.clone();
    // Boxed, as it is rare. Fails only if the process ends: then it does not matter what was read.
    let read = Box::pin(tokio::task::spawn_blocking(move || named_in(&body))).await;
    read.unwrap_or(Err(BodyFault::NotAnObject))
}

fn named_in(body: &[u8]) -> Result<Named, BodyFault> {
    let read = read_request(body)?;
    let model = read.model.map(|ModelField { name, span }| (Arc::from(&*name), span));
    Ok(Named { model, user: read.user.as_deref().and_then(end_user) })
}

/// A tag of the buyer's own user, as a record keeps it.
fn end_user(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| kept(text, END_USER_BYTES_MAX).into())
}

/// Notes whom the product's header names.
fn name_end_user(call: &mut Call, sold: &Sold, head: &HeaderMap) {
    let Some(name) = &sold.product.end_user_header else { return };
    let named = head.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).and_then(end_user);
    if named.is_some() {
        call.end_user = named;
    }
}

/// A body that is handed on unread.
fn unread(call: &Call, sold: &Sold, incoming: ClientBody, has_body: bool) -> ReadyBody {
    if !has_body {
        return ReadyBody { body: RequestBody::whole(Bytes::new()), upload: None };
    }
    let timeouts = UploadTimeouts { client: call.core.shared.limits.body_timeout, seller: sold.product.timeouts.head };
    let (body, upload) = RequestBody::streamed(incoming, Rc::clone(&call.conn), timeouts);
    ReadyBody { body, upload: Some(upload) }
}

/// How much of the words that could name a model is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// There are none.
    None,
    /// As the seller reads them.
    Read,
    /// Whatever they say, the seller may find a model in them.
    Unread,
}

/// The product of a call that names its model alone. An AppCode in another product's parameter is none here, and must not
/// reach the seller.
fn by_model(call: &mut Call, shelf: &Shelf, head: &Parts) -> Result<Arc<Sold>, Rejection> {
    let sold = route::by_model(shelf, call.caller.as_deref(), call.model.as_deref())?;
    refuse_placeholder(call, &sold)?;
    let query = head.uri.query().unwrap_or_default();
    let own = sold.product.app_code_query.as_deref();
    let foreign = |name: &String| own != Some(name.as_str()) && has_parameter(query, name);
    if shelf.code_parameters.iter().any(foreign) { Err(missing(&sold.product.accept)) } else { Ok(sold) }
}

/// Notes the product, once it is certain; checks the lists of models, its own and the key's.
fn settle_product(call: &mut Call, sold: &Arc<Sold>, words: Words) -> Result<(), Rejection> {
    call.sold = Some(Arc::clone(sold));
    check_product(call, sold)?;
    let limited = call.caller.as_ref().is_some_and(|caller| caller.limits_models());
    match (&call.model, words) {
        (Some(model), _) => {
            route::check_model(sold, model)?;
            let allowed = call.caller.as_ref().is_none_or(|caller| caller.opens_model(model));
            if allowed { Ok(()) } else { Err(model_not_allowed(model)) }
        }
        (None, Words::Read | Words::Unread) if limited => {
            Err(Rejection::new(Code::ModelNotAllowed, &texts::KEY_MODEL_UNREAD))
        }
        (None, Words::Unread) => route::check_unread(sold),
        (None, Words::None | Words::Read) => Ok(()),
    }
}

fn model_not_allowed(model: &str) -> Rejection {
    let message = texts::KEY_MODEL.with([("model", route::quoted(model))]);
    Rejection::new(Code::ModelNotAllowed, message).param("model")
}
