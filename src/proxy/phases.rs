//! The life of one call, from its head to the seller's. What follows the head is the `body` module's; how a call ends,
//! the `context` module's.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::body::{AnswerBody, FirstFrame, Tap, TapParts};
use super::catalog::{Shelf, Sold};
use super::client::named_by_header;
use super::client_body::ClientBody;
use super::conn::Conn;
use super::context::{Call, CallGuard};
use super::forward::{Outgoing, exchange};
use super::identify::{
    Pending, accept_once, check_payload, check_product, identify, needs_body, served_nothing, verify,
};
use super::rejection::{Code, Rejection, Shape};
use super::request_body::{RequestBody, Share, UploadState, UploadTimeouts};
use super::route::{self, Route};
use super::seller::{Link, Seller};
use super::server::Core;
use super::whole_body::{Hashed, InMemory, Reading};
use super::words::texts;
use super::{cors, headers, limits, models, receipts, sellers_head};
use crate::config::{Durability, Meter};
use crate::domain::usage::{END_USER_BYTES_MAX, Ending, cut};
use crate::protocol::chat::{begins_like_an_object, read_request, replace_model};
use crate::protocol::credential::without_parameter;
use crate::protocol::head::HeadFault;
use crate::protocol::language::Language;
use crate::protocol::request_id::valid_request_id;
use crate::protocol::signature::{BodyHash, SeenBody};
use crate::service::meter::{Answered, Charged};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same, where Anthropic's SDKs look.
const REQUEST_ID_ANTHROPIC: HeaderName = HeaderName::from_static("request-id");

/// An unread body of this size may still be dropped, so that its connection goes on; of a larger one the engine drops
/// what has come, and closes.
const DROPPED_BYTES_MAX: u64 = 4 * 1024;

const REMAINING: HeaderName = HeaderName::from_static("x-tollgate-remaining");
const UNIT: HeaderName = HeaderName::from_static("x-tollgate-unit");
const PACKAGE_EXPIRES: HeaderName = HeaderName::from_static("x-tollgate-package-expires");

/// Serves one call; always answers. `refused` says what is wrong with its head, if anything is.
pub async fn serve(
    core: Rc<Core>,
    conn: Rc<Conn>,
    refused: Option<HeadFault>,
    request: Request<ClientBody>,
) -> Response<AnswerBody> {
    let named = named_by_header(&conn.client, request.headers(), &core.shared.proxies);
    let mut call = begin(core, conn, &request);
    let named = named.map(|client| call.forwarded_for = client.map(Box::new));
    if refused.is_some() {
        call.take_asked();
    }
    let mut guard = CallGuard::new(call);
    let served = match (refused, named) {
        (Some(fault), _) => Err(Rejection::head(fault)),
        (None, Err(fault)) => {
            let message = texts::FORWARDED_MALFORMED.with([("name", fault.name.into())]);
            Err(Rejection::new(Code::InvalidRequest, message))
        }
        (None, Ok(())) => serve_checked(&mut guard, request).await,
    };
    let answer = served.unwrap_or_else(|rejection| reject(&mut guard, &rejection));
    guard.finish(Ending::Complete); // those whose body is a seller's have handed their call on
    answer
}

fn begin(core: Rc<Core>, conn: Rc<Conn>, request: &Request<ClientBody>) -> Call {
    core.shared.metrics.calls_open.inc();
    let (head, arrived) = (request.headers(), core.shared.clock.now());
    let own = || core.next_request_id();
    let request_id = head.get(REQUEST_ID).filter(|id| valid_request_id(id.as_bytes())).cloned().unwrap_or_else(own);
    Call {
        conn,
        forwarded_for: None,
        request_id,
        arrived,
        started: Instant::now(),
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        origin: cors::origin(head),
        anthropic: head.contains_key("anthropic-version"),
        language: Language::preferred(head.get_all(header::ACCEPT_LANGUAGE).iter().map(HeaderValue::as_bytes)),
        sold: None,
        scheme: None,
        caller: None,
        signed: None,
        read: None,
        waited: Duration::ZERO,
        body_unread: request.body().size_hint().exact().is_none_or(|length| length > DROPPED_BYTES_MAX),
        model: None,
        end_user: None,
        permit: None,
        budget: None,
        open: None,
        attempts: 0,
        status: None,
        code: None,
        limit: None,
        head_at: None,
        stream: None,
        body_bytes: 0,
        core,
    }
}

async fn serve_checked(guard: &mut CallGuard, request: Request<ClientBody>) -> Result<Response<AnswerBody>, Rejection> {
    let Some(call) = guard.call() else { return Err(gone()) };
    let shelf = Arc::clone(&call.core.shelf());
    let (parts, incoming) = request.into_parts();
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if let Some(asked) = cors::preflight(&parts.method, &parts.headers) {
        let route = route::find(&shelf, host, target, asked == "GET" || asked == "HEAD");
        return Ok(permission(call, cors::permit(&shelf, route.ok().as_ref(), &parts.headers)));
    }
    let asks = matches!(parts.method, Method::GET | Method::HEAD);
    let route = route::find(&shelf, host, target, asks)?;
    if let Route::Product { sold, .. } | Route::Models { sold: Some(sold), .. } = &route {
        call.sold = Some(Arc::clone(sold));
    }
    let pending = identify(call, &shelf, &route, &parts).await?;
    check_payload(pending.as_ref(), route.sold(), incoming.size_hint().exact())?;
    let (sold, path) = match route {
        Route::Models { sold, model } => {
            if pending.is_some() {
                let max = body_max(&shelf, sold.as_deref());
                arrive(call, (sold.as_deref(), max), &parts, incoming, pending).await?;
                accept_once(call, sold.as_deref()).await?;
            }
            let answer = models::answer(&shelf, call.caller.as_deref(), sold.as_deref(), model.as_deref())?;
            return Ok(own_answer(call, answer));
        }
        Route::Receipts { request_id } => {
            if pending.is_some() {
                arrive(call, (None, 0), &parts, incoming, pending).await?;
            }
            let answer = Box::pin(receipts::answer(call, &request_id)).await?;
            return Ok(own_answer(call, answer));
        }
        Route::ReceiptKeys => {
            let answer = receipts::keys(&call.core)?;
            return Ok(own_answer(call, answer));
        }
        Route::Product { sold, path } => (Some(sold), path),
        Route::ByModel { path } => (None, path),
    };
    let body = read_body(call, (&shelf, sold), &parts, incoming, pending).await?;
    let sold = call.sold.clone().ok_or_else(gone)?;
    let _held = body.held;
    let target = seller_uri(&sold, &path)?;
    accept_once(call, Some(&sold)).await?;
    if let Err(refused) = let_in(call, &sold).await {
        served_nothing(call).await;
        return Err(refused);
    }
    let seller = call.core.seller(&sold);
    let mut request = Request::new(body.body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = target;
    *request.headers_mut() = parts.headers;
    headers::to_seller(request.headers_mut(), &sold, &call.client().text, &call.request_id);
    headers::frame(&mut request);
    let streamed_up = body.upload.is_some();
    let (response, link) = exchange(call, &seller, Outgoing { request, upload: body.upload }).await?;
    let keeper = (!streamed_up).then_some(seller);
    answer(guard, response, (link, keeper), &sold).await
}

/// A request body that is ready to go, and what keeps it counted while it is held.
struct ReadyBody {
    body: RequestBody,
    upload: Option<Rc<Cell<UploadState>>>,
    held: Option<Share>,
}

/// A body as far as it had to be read.
enum Arrived {
    /// Whole, for its hash.
    Read(Hashed),
    /// Not at all.
    Waiting(ClientBody),
}

/// Reads the body if a signature covers it, and checks the signature. `max` bounds what is read.
async fn arrive(
    call: &mut Call,
    (sold, max): (Option<&Sold>, u64),
    head: &Parts,
    incoming: ClientBody,
    pending: Option<Pending<'_>>,
) -> Result<Arrived, Rejection> {
    let covered = needs_body(pending.as_ref(), sold);
    let arrived = if covered && !incoming.is_end_stream() {
        let shared = Arc::clone(&call.core.shared);
        let reading = Reading::new(incoming, &call.conn, (max, shared.limits.body_timeout), true)?;
        // Boxed, as it is rare: warm calls keep no room for it.
        let hashed = Box::pin(reading.hashed(&shared.held, &shared.spool, shared.limits.spool_above));
        let hashed = hashed.await?;
        call.body_unread = false;
        Arrived::Read(hashed)
    } else {
        Arrived::Waiting(incoming)
    };
    if let Some(pending) = pending {
        let body = match &arrived {
            Arrived::Read(hashed) => SeenBody::Hashed(hashed.hash),
            Arrived::Waiting(_) if covered => SeenBody::Hashed(BodyHash::of(&[])),
            Arrived::Waiting(_) => SeenBody::Unread,
        };
        verify(call, pending, head, (sold, body))?;
    }
    Ok(arrived)
}

/// The largest body that is read whole: of a product, or, before it is known, of any.
fn body_max(shelf: &Shelf, sold: Option<&Sold>) -> u64 {
    let largest = || shelf.sold.iter().filter(|sold| sold.llm).map(|sold| sold.product.body_max).max();
    sold.map(|sold| sold.product.body_max).or_else(largest).unwrap_or_default()
}

/// Reads the body as far as its model or its signature asks for it; settles which product is called.
async fn read_body(
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
        None => route::by_model(shelf, call.caller.as_deref(), None)?,
    };
    settle_product(call, &sold, has_body && llm)?;
    name_end_user(call, &sold, &head.headers);
    Ok(match arrived {
        Arrived::Read(Hashed { body, share, .. }) => ReadyBody { body, upload: None, held: share },
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
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Rejection::new(Code::EncodingUnsupported, &texts::BODY_COMPRESSED).closing());
    }
    if let (Some(sold), true) = (&sold, head.headers.contains_key(header::EXPECT)) {
        look_at_quota(call, sold).await?;
    }
    let max = body_max(shelf, sold.as_deref());
    let shared = Arc::clone(&call.core.shared);
    let bounds = (max, shared.limits.body_timeout);
    let reading = Reading::new(incoming, &call.conn, bounds, pending.is_some())?;
    let InMemory { bytes, hash, share: held } = reading.in_memory(&shared.held).await?;
    call.body_unread = false;
    if let (Some(pending), Some(hash)) = (pending, hash) {
        verify(call, pending, head, (sold.as_deref(), SeenBody::Hashed(hash)))?;
    }
    let read = match read_request(&bytes) {
        Ok(read) => Some(read),
        // Some other format: handed on as it is.
        Err(_) if !says_json(&head.headers) && !begins_like_an_object(&bytes) => None,
        Err(fault) => return Err(Rejection::body(&fault)),
    };
    let (field, user) = read.map_or((None, None), |read| (read.model, read.user));
    call.model = field.as_ref().map(|field| Arc::from(&*field.name));
    call.end_user = user.as_deref().and_then(end_user);
    let sold = match sold {
        Some(sold) => sold,
        None => route::by_model(shelf, call.caller.as_deref(), call.model.as_deref())?,
    };
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > sold.product.body_max {
        let message = texts::BODY_LARGER.with([("max", sold.product.body_max.to_string().into())]);
        return Err(Rejection::new(Code::RequestTooLarge, message));
    }
    settle_product(call, &sold, true)?;
    name_end_user(call, &sold, &head.headers);
    let body = match (&field, call.sellers_model()) {
        (Some(field), Some(sellers)) => RequestBody::pieces(replace_model(&bytes, field, sellers)),
        (_, _) => RequestBody::whole(bytes),
    };
    Ok(ReadyBody { body, upload: None, held: Some(held) })
}

/// A tag of the buyer's own user, as a record keeps it.
fn end_user(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| cut(text, END_USER_BYTES_MAX))
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
        return ReadyBody { body: RequestBody::whole(Bytes::new()), upload: None, held: None };
    }
    let timeouts = UploadTimeouts { client: call.core.shared.limits.body_timeout, seller: sold.product.timeouts.head };
    let (body, upload) = RequestBody::streamed(incoming, Rc::clone(&call.conn), timeouts);
    ReadyBody { body, upload: Some(upload), held: None }
}

/// Notes the product, once it is certain; checks the key's allow-lists.
fn settle_product(call: &mut Call, sold: &Arc<Sold>, model_matters: bool) -> Result<(), Rejection> {
    call.sold = Some(Arc::clone(sold));
    check_product(call, sold)?;
    match &call.model {
        Some(model) => {
            route::check_model(sold, model)?;
            let allowed = call.caller.as_ref().is_none_or(|caller| caller.opens_model(model));
            if allowed { Ok(()) } else { Err(model_not_allowed(model)) }
        }
        None if model_matters && call.caller.as_ref().is_some_and(|caller| caller.limits_models()) => {
            Err(Rejection::new(Code::ModelNotAllowed, &texts::KEY_MODEL_UNREAD))
        }
        None => Ok(()),
    }
}

fn model_not_allowed(model: &str) -> Rejection {
    let message = texts::KEY_MODEL.with([("model", format!("{model:?}").into())]);
    Rejection::new(Code::ModelNotAllowed, message).param("model")
}

/// Whether a body says that it is JSON.
fn says_json(head: &HeaderMap) -> bool {
    let kind = head.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

/// Whether a seller could read a body as JSON: everything but forms with files and raw bytes. Some servers do not look
/// at the content type.
fn may_be_json(head: &HeaderMap) -> bool {
    let kind = head.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let other = ["multipart/", "audio/", "image/", "video/", "application/octet-stream"];
    !other.iter().any(|other| kind.get(..other.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(other)))
}

/// Asks the limits, then for quota. What is refused has used neither.
async fn let_in(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    limits::pass(call, sold)?;
    let admitted = admit(call, sold).await;
    if admitted.is_err() {
        limits::give_back(call);
    }
    admitted
}

/// Refuses a call without quota before its client, which waits for a word, sends its body; takes none.
async fn look_at_quota(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    if call.caller.is_some() {
        admit(call, sold).await?;
        if let Some(open) = call.open.take() {
            call.core.meter.give_back(open);
        }
    }
    Ok(())
}

/// Sets quota aside, if the product is metered.
async fn admit(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    let read = call.read.take();
    let (Meter::Calls, Some(caller)) = (sold.product.meter, &call.caller) else { return Ok(()) };
    let ledger = &call.core.shared.ledger;
    let pool = caller.pool(&sold.product.id, ledger);
    if let Some(read) = read {
        ledger.introduce(&pool, *read);
    }
    let refused = |error| Rejection::quota(&error, &sold.product.id, sold.product.buy_url.as_deref());
    let open = call.core.meter.admit(&pool, call.waited).await.map_err(refused)?;
    call.open = Some(open.within(call.budget.take()));
    Ok(())
}

/// The target at the seller.
fn seller_uri(sold: &Sold, path: &str) -> Result<Uri, Rejection> {
    let base = sold.product.upstream.base_path.as_str();
    // The AppCode stays here, whether it was used or not.
    let own = sold.product.app_code_query.as_deref();
    let path = own.map_or(Cow::Borrowed(path), |name| without_parameter(path, name));
    let target = match (base, &*path) {
        ("", "") => "/".to_owned(),
        ("", path) if path.starts_with('?') => ["/", path].concat(),
        (base, path) => [base, path].concat(),
    };
    Uri::try_from(target).map_err(|_| Rejection::new(Code::InvalidRequest, &texts::PATH_CHARACTERS))
}

/// The seller has answered: charges the call, then lets the head go.
async fn answer(
    guard: &mut CallGuard,
    response: Response<Incoming>,
    (mut link, keeper): (Link, Option<Rc<Seller>>),
    sold: &Sold,
) -> Result<Response<AnswerBody>, Rejection> {
    let Some(call) = guard.call() else { return Err(gone()) };
    let (mut head, mut incoming) = response.into_parts();
    sellers_head::check(call, sold, &head)?;
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let streamed = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
    // Asked for now, so that it has come when the charge is written.
    let mut first = FirstFrame::default();
    first.ask(&mut incoming).await;
    let metered = charge(call, head.status, streamed).await?;
    first.wait_a_turn(&mut incoming).await;
    head.version = Version::HTTP_11; // ours: a seller's older one is its own affair
    sold.filter.to_buyer(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if head.status.is_client_error() || head.status.is_server_error() {
        head.headers.insert("x-tollgate-error-source", HeaderValue::from_static("seller"));
    }
    if let Some(metered) = &metered {
        metered.show(&mut head.headers);
    }
    limits::show(call, &mut head.headers);
    dress(call, &mut head.headers);
    call.status = Some(head.status.as_u16());
    call.head_at = Some(Instant::now());
    let charged = metered.and_then(|metered| metered.charged);
    let awaited = charged.filter(|_| sold.product.durability == Durability::Disk);
    let on_disk = awaited.map(|charged| call.core.meter.on_disk(charged));
    if first.is_none() && incoming.is_end_stream() {
        if let Some(on_disk) = on_disk {
            // Without a body the head is the answer's end. A disk that fails changes nothing for the buyer, as in `Tap`.
            let _ = on_disk.await;
        }
        match keeper {
            Some(keeper) => keeper.keep(link),
            None => link.end(),
        }
        return Ok(Response::from_parts(head, AnswerBody::empty()));
    }
    let ends_by = call.started + sold.product.timeouts.total;
    let call = std::mem::replace(guard, CallGuard::empty());
    let idle_timeout = sold.product.timeouts.idle;
    let tap =
        Tap::new(TapParts { incoming, first, guard: call, link, keeper, idle_timeout, ends_by, streamed, on_disk });
    Ok(Response::from_parts(head, AnswerBody::Sellers(Box::new(tap))))
}

/// What metering makes of an answer.
struct Metered {
    charged: Option<Charged>,
    remaining: u64,
    expires: Option<HeaderValue>,
}

impl Metered {
    /// Shows what is left.
    fn show(&self, head: &mut HeaderMap) {
        head.insert(REMAINING, HeaderValue::from(self.remaining));
        head.insert(UNIT, HeaderValue::from_static("calls"));
        if let Some(expires) = &self.expires {
            head.insert(PACKAGE_EXPIRES, expires.clone());
        }
    }
}

/// Writes the charge down, if the status is billable; gives the quota back, if not. From here on the buyer may see the
/// head. `None`: the call is not metered.
async fn charge(call: &mut Call, status: StatusCode, streamed: bool) -> Result<Option<Metered>, Rejection> {
    if call.open.is_none() {
        return Ok(None);
    }
    let facts = call.facts();
    let Call { core, request_id, arrived, caller, attempts, open: quota, .. } = call;
    // It stays with the call while the charge is written: a client that hangs up then does not take it away.
    let Some(open) = quota else { return Ok(None) };
    let answered = Answered {
        request_id: request_id.to_str().unwrap_or_default(),
        arrived: *arrived,
        caller: caller.as_ref().map(|caller| caller.reference.clone()),
        status: status.as_u16(),
        streamed,
        attempts: *attempts,
        facts,
    };
    let charged = core.meter.charge(open, answered).await;
    let expires = open.pool().expires().and_then(|expires| HeaderValue::from_str(&expires).ok());
    let remaining = open.pool().remaining();
    if let Ok(Some(charged)) = charged {
        return Ok(Some(Metered { charged: Some(charged), remaining: charged.remaining, expires }));
    }
    if let Some(open) = quota.take() {
        core.meter.give_back(open);
    }
    match charged {
        Ok(_) => Ok(Some(Metered { charged: None, remaining, expires })),
        Err(error) => {
            tracing::error!(request_id = call.request_id(), %error, "a seller's answer was withheld, for it could not be counted");
            Err(Rejection::new(Code::MeteringUnavailable, &texts::ANSWER_WITHHELD))
        }
    }
}

/// What every answer carries.
fn dress(call: &Call, head: &mut HeaderMap) {
    name_call(call, head);
    let rules = (&*call.core.shelf(), call.sold.as_deref(), call.speaks_llm());
    cors::expose(head, call.origin.as_ref(), rules);
}

fn name_call(call: &Call, head: &mut HeaderMap) {
    head.insert(REQUEST_ID, call.request_id.clone());
    head.insert(REQUEST_ID_ANTHROPIC, call.request_id.clone());
    if call.conn.is_old(call.started) {
        head.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The answer to a preflight; it says itself whose pages may read it.
fn permission(call: &mut Call, mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    name_call(call, response.headers_mut());
    call.status = Some(response.status().as_u16());
    response
}

fn own_answer(call: &mut Call, mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    dress(call, response.headers_mut());
    call.status = Some(response.status().as_u16());
    response
}

fn reject(guard: &mut CallGuard, rejection: &Rejection) -> Response<AnswerBody> {
    let Some(call) = guard.call() else { return rejection.answer("", Shape::OpenAi, Language::English) };
    call.code = Some(rejection.code.name());
    call.core.rejected(rejection.code);
    call.status = Some(rejection.status());
    let mut response = rejection.answer(call.request_id(), call.shape(), call.language);
    if call.body_unread {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    dress(call, response.headers_mut());
    response
}

/// For places that cannot be reached: a call is only taken from its guard at its end.
fn gone() -> Rejection {
    Rejection::new(Code::Overloaded, &texts::ENDED_MEANWHILE)
}
