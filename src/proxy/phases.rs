//! The life of one call, from its head to the seller's. What follows the head is the `body` module's; how a call ends,
//! the `context` module's.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;

use super::arrival::{arrive, body_max, read_body};
use super::body::{self, AnswerBody, Tap, TapParts};
use super::catalog::Sold;
use super::client::named_by_header;
use super::client_body::ClientBody;
use super::conn::Conn;
use super::context::{Call, CallGuard};
use super::forward::{self, exchange};
use super::headers::ToSeller;
use super::identify::{accept_once, check_payload, identify, served_nothing};
use super::link::{Outgoing, SellerBody};
use super::rejection::{Code, Rejection, Shape};
use super::request_body::RequestBody;
use super::route::{self, Route};
use super::seller::Seller;
use super::server::Core;
use super::words::texts;
use super::{cors, headers, limits, models, receipts, sellers_head};
use crate::config::{Durability, Meter};
use crate::domain::usage::{Ending, Exactness, LentFacts, MODEL_BYTES_MAX, kept};
use crate::protocol::credential::without_parameter;
use crate::protocol::head::{Framing, HeadFault};
use crate::protocol::language::Language;
use crate::protocol::request_id::valid_request_id;
use crate::service::meter::{Answered, Metered, OpenCall};
use crate::service::supply::Left;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same, where Anthropic's SDKs look.
const REQUEST_ID_ANTHROPIC: HeaderName = HeaderName::from_static("request-id");

/// What the requests of Anthropic's SDKs have.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

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
    let (mut guard, begun) = open(core, conn, refused, &request);
    let served = match begun {
        Ok(()) => serve_checked(&mut guard, request).await,
        Err(rejection) => Err(rejection),
    };
    let answer = served.unwrap_or_else(|rejection| reject(&mut guard, &rejection));
    guard.finish(Ending::Complete); // those whose body is a seller's have handed their call on
    answer
}

/// Begins a call, unless its head says already that it is refused. Not a part of `serve`: its future would keep room for
/// the call that its guard has.
fn open(
    core: Rc<Core>,
    conn: Rc<Conn>,
    refused: Option<HeadFault>,
    request: &Request<ClientBody>,
) -> (CallGuard, Result<(), Rejection>) {
    let named = named_by_header(&conn.client, request.headers(), &core.shared.proxies);
    let mut call = begin(core, conn, request);
    let named = named.map(|client| call.forwarded_for = client.map(Box::new));
    if refused.is_some() {
        call.take_asked();
    }
    let begun = match (refused, named) {
        (Some(fault), _) => Err(Rejection::head(fault)),
        (None, Err(fault)) => {
            let message = texts::FORWARDED_MALFORMED.with([("name", fault.name.into())]);
            Err(Rejection::new(Code::InvalidRequest, message))
        }
        (None, Ok(())) => Ok(()),
    };
    (CallGuard::new(call), begun)
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
        anthropic: head.contains_key(ANTHROPIC_VERSION),
        language: Language::preferred(head.get_all(header::ACCEPT_LANGUAGE).iter().map(HeaderValue::as_bytes)),
        sold: None,
        scheme: None,
        placeholder: false,
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
    if let Some(sold) = sold.as_ref().filter(|sold| sold.llm && parts.headers.contains_key(header::EXPECT)) {
        look_ahead(call, sold).await?;
    }
    let body = read_body(call, (&shelf, sold), &parts, incoming, pending).await?;
    let sold = call.sold.clone().ok_or_else(gone)?;
    let target = sellers_target(&sold, &path)?;
    accept_once(call, Some(&sold)).await?;
    if let Err(refused) = let_in(call, &sold).await {
        served_nothing(call).await;
        return Err(refused);
    }
    let seller = call.core.seller(&sold);
    let outgoing = outgoing(call, &sold, (&parts, &target), body.body);
    let keeper = body.upload.is_none().then(|| Rc::clone(&seller));
    let request = forward::Request { outgoing, idempotent: parts.method.is_idempotent(), upload: body.upload };
    drop(parts);
    let answered = exchange(call, &seller, request).await?;
    answer(guard, answered, keeper, &sold).await
}

/// The request as the seller gets it.
fn outgoing(call: &Call, sold: &Sold, (asked, target): (&Parts, &str), body: RequestBody) -> Outgoing {
    let framing = headers::framing(&asked.headers, &body);
    let head = ToSeller {
        method: &asked.method,
        target,
        headers: &asked.headers,
        client: &call.client().text,
        request_id: &call.request_id,
        framing,
    };
    let is_head = asked.method == Method::HEAD;
    Outgoing { head: head.write(sold).into(), body, chunked: framing == Framing::Chunked, is_head }
}

/// Asks for quota, then the limits: that may wait for the store, and whoever waits there for nothing must keep nobody
/// from passing a limit. What is refused has used neither.
async fn let_in(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    admit(call, sold).await?;
    let worth = call.open.as_ref().map(OpenCall::unit_worth);
    let passed = limits::pass(call, sold, worth);
    if passed.is_err() {
        give_back(call);
    } else if let (Some(open), Some(budget)) = (&mut call.open, call.budget.take()) {
        open.set_budget(budget);
    }
    passed
}

/// Gives back what was set aside, if anything was.
fn give_back(call: &mut Call) {
    if let Some(open) = call.open.take() {
        call.core.meter.give_back(open);
    }
}

/// Refuses a call that has no quota or passes no limit before its client, which waits for a word, sends its body; takes
/// none.
async fn look_ahead(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    if call.caller.is_some() {
        let_in(call, sold).await?;
        give_back(call);
        limits::give_back(call);
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
    let admitted = call.core.meter.admit(pool, call.waited).await;
    let refused = |error| Rejection::quota(&error, &sold.product.id, sold.product.buy_url.as_deref());
    call.open = Some(admitted.map_err(refused)?);
    Ok(())
}

/// The target at the seller.
fn sellers_target(sold: &Sold, path: &str) -> Result<String, Rejection> {
    let base = sold.product.upstream.base_path.as_str();
    // The AppCode stays here, whether it was used or not.
    let own = sold.product.app_code_query.as_deref();
    let path = own.map_or(Cow::Borrowed(path), |name| without_parameter(path, name));
    let target = match (base, &*path) {
        ("", "") => "/".to_owned(),
        ("", path) if path.starts_with('?') => ["/", path].concat(),
        (base, path) => [base, path].concat(),
    };
    // It is written as it is.
    let plain = target.starts_with('/') && target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if plain { Ok(target) } else { Err(Rejection::new(Code::InvalidRequest, &texts::PATH_CHARACTERS)) }
}

/// The seller has answered: charges the call, then lets the head go.
async fn answer(
    guard: &mut CallGuard,
    (mut head, mut body): (http::response::Parts, SellerBody),
    keeper: Option<Rc<Seller>>,
    sold: &Sold,
) -> Result<Response<AnswerBody>, Rejection> {
    let Some(call) = guard.call() else { return Err(gone()) };
    sellers_head::check(call, sold, head.status)?;
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let streamed = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
    body.look().await;
    let head_at = Instant::now();
    let metered = charge(call, (head.status, streamed), body.is_whole().then_some(head_at))?;
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if head.status.is_client_error() || head.status.is_server_error() {
        head.headers.insert("x-tollgate-error-source", HeaderValue::from_static("seller"));
    }
    let charged = metered.and_then(|Metered { charged, left }| {
        show_left(left, &mut head.headers);
        charged
    });
    limits::show(call, &mut head.headers);
    dress(call, &mut head.headers);
    call.status = Some(head.status.as_u16());
    call.head_at = Some(head_at);
    let awaited = charged.filter(|_| sold.product.durability == Durability::Disk);
    let on_disk = awaited.map(|charged| call.core.meter.on_disk(charged));
    if body.is_end() {
        if let Some(on_disk) = on_disk {
            // Without a body the head is the answer's end. A disk that fails changes nothing for the buyer, as in `Tap`.
            let _ = on_disk.await;
        }
        body::end(body, keeper);
        return Ok(Response::from_parts(head, AnswerBody::empty()));
    }
    let ends_by = call.started + sold.product.timeouts.total;
    let call = std::mem::replace(guard, CallGuard::empty());
    let idle_timeout = sold.product.timeouts.idle;
    let tap = Tap::new(TapParts { seller: body, guard: call, keeper, idle_timeout, ends_by, streamed, on_disk });
    Ok(Response::from_parts(head, AnswerBody::Sellers(Box::new(tap))))
}

/// Shows what is left of what was bought.
fn show_left(left: Left, head: &mut HeaderMap) {
    // Digits are always a valid value. Not by `HeaderValue::from`, which takes room for more, and twice.
    if let Ok(units) = HeaderValue::from_str(itoa::Buffer::new().format(left.units)) {
        head.insert(REMAINING, units);
    }
    head.insert(UNIT, HeaderValue::from_static("calls"));
    if let Some(expires) = left.expires {
        head.insert(PACKAGE_EXPIRES, expires);
    }
}

/// Writes the charge down, if the status is billable, with the call's end if the answer was `whole` at some instant; gives
/// the quota back, if not. From here on the buyer may see the head. `None`: the call is not metered.
fn charge(
    call: &mut Call,
    (status, streamed): (StatusCode, bool),
    whole: Option<Instant>,
) -> Result<Option<Metered>, Rejection> {
    let whole = whole.filter(|_| call.open.is_some()).map(|at| call.moment(at));
    let Call { core, request_id, arrived, caller, attempts, open: quota, sold, model, end_user, .. } = call;
    let (Some(open), Some(caller), Some(sold)) = (quota.as_mut(), caller, sold) else { return Ok(None) };
    let model = model.as_deref();
    let answered = Answered {
        request_id: request_id.to_str().unwrap_or_default(),
        arrived: *arrived,
        caller: Some(&caller.reference),
        status: status.as_u16(),
        streamed,
        attempts: *attempts,
        whole,
        facts: LentFacts {
            sellers_model: sold.sellers_model(model).map(|model| kept(model, MODEL_BYTES_MAX)),
            model: model.map(|model| kept(model, MODEL_BYTES_MAX)),
            allocation: &caller.allocation,
            end_user: end_user.as_deref(),
            exactness: Exactness::Exact, // a call is one unit: nothing to guess
        },
    };
    let metered = core.meter.charge(open, answered);
    if !matches!(metered, Ok(Metered { charged: Some(_), .. }))
        && let Some(open) = quota.take()
    {
        core.meter.give_back(open);
    }
    metered.map(Some).map_err(|error| {
        tracing::error!(request_id = call.request_id(), %error, "a seller's answer was withheld, for it could not be counted");
        Rejection::new(Code::MeteringUnavailable, &texts::ANSWER_WITHHELD)
    })
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
