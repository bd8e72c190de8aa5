//! Who calls? What a request presents is found, looked up, and, for a signature, checked once the body is known. What
//! one caller can be told of another's credentials is decided here: nothing.

use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;

use super::catalog::{Shelf, Sold};
use super::client::came_by_tls;
use super::context::Call;
use super::headers::connection_names;
use super::limits;
use super::rejection::{Code, Rejection};
use super::route::{self, Route};
use super::words::{Said, texts};
use crate::config::Access;
use crate::domain::credential::{Scheme, SignatureRule};
use crate::protocol::api_key::KeyFault;
use crate::protocol::credential::{Credential, CredentialFault, Places, check_single, find_credentials};
use crate::protocol::signature::{Claim, Payload, Policy, SeenBody, SignatureFault, SignedRequest};
use crate::service::authenticate::{AuthError, Caller, Found, Presented};
use crate::service::replay::Signed;

/// A signature that is complete and timely, and not checked yet.
pub struct Pending<'h> {
    claim: Claim<'h>,
    /// The AppKey that it names.
    app_key: &'h str,
    /// Whose AppKey it names; `None`: nobody's, which is found out only when a known one's would be.
    found: Option<Found>,
}

/// Finds out who calls, and whether they may. A product that is open to all asks for nothing. A signature's caller is
/// noted by [`verify`] alone.
pub async fn identify<'h>(
    call: &mut Call,
    shelf: &Shelf,
    route: &Route,
    head: &'h Parts,
) -> Result<Option<Pending<'h>>, Rejection> {
    let (sold, path) = match route {
        Route::Product { sold, path } => (Some(sold), path.as_str()),
        Route::ByModel { path } => (None, path.as_str()),
        Route::Models { sold, .. } => (sold.as_ref(), ""),
        Route::Receipts { .. } => (None, ""),
        Route::ReceiptKeys => return Ok(None),
    };
    if sold.is_some_and(|sold| sold.product.access == Access::Open) {
        // They are no credential to us, but the seller would take one of two.
        return check_single(&head.headers).map(|()| None).map_err(|fault| malformed(&fault));
    }
    let query = head.uri.query().unwrap_or_default();
    let parameters = sold.map_or(&*shelf.code_parameters, |sold| sold.product.app_code_query.as_slice());
    let llm = sold.is_none_or(|sold| sold.llm);
    call.anthropic |= is_messages(path);
    let places = Places { x_api_key: llm && call.anthropic, query: (query, parameters) };
    let sent = find_credentials(&head.headers, places).map_err(|fault| not_one(call, &fault))?;
    let Some(strongest) = sent.strongest() else {
        return match (sold, route) {
            (None, Route::Receipts { .. }) => Err(missing(&Scheme::ALL)),
            (None, _) if route::callable(shelf, None).next().is_some() => Ok(None),
            (None, _) => Err(missing(&[Scheme::ApiKey])),
            (Some(sold), _) => Err(missing(&sold.product.accept)),
        };
    };
    let scheme = strongest.scheme();
    if let Some(sold) = sold {
        check_accepted(sold, scheme)?;
    }
    let shared = &call.core.shared;
    let has_code = sent.iter().any(|credential| credential.scheme() == Scheme::AppCode);
    let in_the_clear = has_code && !call.conn.tls && !came_by_tls(&call.conn.client, &head.headers, &shared.proxies);
    if in_the_clear && !shared.credentials.allow_app_code_without_tls {
        return Err(Rejection::new(Code::TlsRequired, &texts::APP_CODE_IN_THE_CLEAR));
    }
    let claim = match strongest {
        Credential::Signature(value) => {
            let value: &'h [u8] = value; // not as long as what holds it
            let claim = Claim::read(value, &head.headers, None);
            let claim = claim.and_then(|claim| claim.check_date(call.arrived).map(|()| claim));
            Some((claim.map_err(|fault| Rejection::signature(&fault))?, app_key(value)))
        }
        Credential::Key(_) | Credential::AppCode(_) => None,
    };
    let mut found = look_up(call, strongest, Duration::ZERO).await;
    for other in sent.iter().filter(|other| *other != strongest) {
        check_same(call, found.as_mut(), other).await?;
    }
    call.scheme = Some(scheme);
    match (found, claim) {
        (Ok(found), Some((claim, app_key))) => Ok(Some(Pending { claim, app_key, found: Some(found) })),
        // Where too many have failed nobody was asked: the answer must not tell whether this AppKey is known.
        (Err(AuthError::Unknown | AuthError::TooMany(_)), Some((claim, app_key))) => {
            Ok(Some(Pending { claim, app_key, found: None }))
        }
        (Ok(found), None) => {
            note(call, found)?;
            sold.map_or(Ok(None), |sold| check_product(call, sold).map(|()| None))
        }
        // SDKs cannot send no key. What may be one of ours is looked up, and refused, as ever: nothing is learned of it.
        (Err(AuthError::Malformed(KeyFault::NotOurs)), None) if sold.is_none() && may_be_open(shelf, route) => {
            (call.scheme, call.placeholder) = (None, true);
            Ok(None)
        }
        (Err(error @ (AuthError::Unknown | AuthError::Malformed(_))), None) => {
            let client = call.client().text.clone();
            Err(failed(call, presented(strongest, &client), refused(scheme, &error)))
        }
        (Err(AuthError::TooMany(too_many)), None) => Err(limits::too_many(call, &too_many)),
        (Err(error), _) => Err(refused(scheme, &error)),
    }
}

/// Whether a call that names no product may turn out to be one of a product that is open to all.
fn may_be_open(shelf: &Shelf, route: &Route) -> bool {
    matches!(route, Route::ByModel { .. } | Route::Models { .. }) && route::callable(shelf, None).next().is_some()
}

/// Refuses a placeholder for a key, now that the product turns out to want one; counts it.
pub fn refuse_placeholder(call: &mut Call, sold: &Sold) -> Result<(), Rejection> {
    if !call.placeholder || sold.product.access == Access::Open {
        return Ok(());
    }
    call.scheme = Some(Scheme::ApiKey);
    let counted = call.core.shared.authenticator.malformed(call.client().text.to_str().unwrap_or_default());
    let refused = Rejection::auth(&AuthError::Malformed(KeyFault::NotOurs));
    Err(counted.map_or_else(|too_many| limits::too_many(call, &too_many), |()| refused))
}

/// Refuses what is no credential; counts it, unless it may be one that is only sent twice.
fn not_one(call: &mut Call, fault: &CredentialFault<'_>) -> Rejection {
    if matches!(fault, CredentialFault::Repeated(_)) {
        return malformed(fault);
    }
    let counted = call.core.shared.authenticator.malformed(call.client().text.to_str().unwrap_or_default());
    counted.map_or_else(|too_many| limits::too_many(call, &too_many), |()| malformed(fault))
}

/// Counts a failed authentication. `refused` is its answer, unless too many failed before it.
fn failed(call: &mut Call, presented: Presented<'_>, refused: Rejection) -> Rejection {
    match call.core.shared.authenticator.failed(presented) {
        Ok(()) => refused,
        Err(too_many) => limits::too_many(call, &too_many),
    }
}

/// Whether a path under an LLM product's base is one of Anthropic's API.
fn is_messages(path: &str) -> bool {
    path.strip_prefix("/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Notes who calls, and refuses a caller that may not call from where it does.
fn note(call: &mut Call, Found { caller, read, waited }: Found) -> Result<(), Rejection> {
    let address = call.client().address;
    let accepted = caller.accepted_from(address);
    let refusal = if caller.is_app() { &texts::APP_ADDRESS } else { &texts::KEY_ADDRESS };
    (call.caller, call.read, call.waited) = (Some(caller), read, waited);
    if accepted {
        return Ok(());
    }
    let message = refusal.with([("address", address.to_string().into())]);
    Err(Rejection::new(Code::AddressNotAllowed, message))
}

/// Looks a credential up for a call that has `waited` for the store before.
async fn look_up(call: &Call, credential: &Credential<'_>, waited: Duration) -> Result<Found, AuthError> {
    let (authenticator, last) = (&call.core.shared.authenticator, call.conn.last_caller());
    let presented = presented(credential, &call.client().text);
    match authenticator.last_caller(presented, call.arrived, last) {
        Some(found) => found,
        // Boxed, as it is rare: warm calls keep no room for it.
        None => Box::pin(authenticator.caller(presented, (call.arrived, waited), last)).await,
    }
}

/// A credential as the authenticator knows it.
fn presented<'a>(credential: &'a Credential<'_>, client: &'a HeaderValue) -> Presented<'a> {
    let text = match credential {
        Credential::Key(key) => key,
        Credential::AppCode(code) => code.as_ref(),
        Credential::Signature(value) => app_key(value),
    };
    Presented { scheme: credential.scheme(), text, client: client.to_str().unwrap_or_default() }
}

/// The AppKey of a signature that has been read before.
fn app_key(authorization: &[u8]) -> &str {
    let text = std::str::from_utf8(authorization).unwrap_or_default();
    let after = text.split_once("Access=").map_or("", |(_, after)| after);
    after.split(',').next().unwrap_or_default()
}

/// Refuses a second credential unless it is the same caller's beyond doubt: of the same account, of the same app if both
/// are an app's, and if both are of one kind, the same one. Whether it exists at all makes no difference to the answer.
async fn check_same(
    call: &mut Call,
    found: Result<&mut Found, &mut AuthError>,
    other: &Credential<'_>,
) -> Result<(), Rejection> {
    if let Err(AuthError::Unavailable(_)) = found {
        return Err(Rejection::store()); // not asked a second time
    }
    let waited = found.as_ref().map_or(Duration::ZERO, |found| found.waited);
    let second = look_up(call, other, waited).await;
    let guessed = matches!(second, Err(AuthError::Unknown | AuthError::Malformed(_) | AuthError::TooMany(_)));
    let same = match (found, second) {
        (_, Err(AuthError::Unavailable(_))) => return Err(Rejection::store()),
        (Ok(found), Ok(second)) => {
            found.waited = found.waited.saturating_add(second.waited);
            let may_differ = found.caller.is_app() != second.caller.is_app();
            let alike = may_differ || found.caller.reference == second.caller.reference;
            found.caller.account == second.caller.account && alike
        }
        (_, _) => false,
    };
    if same {
        return Ok(());
    }
    let refused = Rejection::new(Code::AmbiguousCredentials, &texts::TWO_CREDENTIALS);
    if guessed {
        let client = call.client().text.clone();
        return Err(failed(call, presented(other, &client), refused));
    }
    Err(refused)
}

/// Whether it names an AppKey that nobody has, or that was not looked for: it will be refused.
pub fn is_strangers(pending: &Pending<'_>) -> bool {
    pending.found.is_none()
}

/// Refuses a body that is not signed where it must be, before it is asked for: there is one by the head alone.
pub fn check_payload(pending: Option<&Pending<'_>>, sold: Option<&Sold>, length: Option<u64>) -> Result<(), Rejection> {
    let refused = |pending: &Pending<'_>| pending.claim.payload() == Payload::Unsigned && needs_body(pending, sold);
    if length.is_some_and(|length| length > 0) && pending.is_some_and(refused) {
        return Err(Rejection::signature(&SignatureFault::Unsigned));
    }
    Ok(())
}

/// What a signature needs of the body before it can be checked.
pub fn needs_body(pending: &Pending<'_>, sold: Option<&Sold>) -> bool {
    let may_be_unsigned = sold.is_some_and(|sold| sold.product.unsigned_payload);
    !(may_be_unsigned && pending.claim.payload() == Payload::Unsigned)
}

/// Whether a signature fits what is known of the body; nothing is noted.
pub fn fits(
    call: &Call,
    pending: &Pending<'_>,
    head: &Parts,
    body: (Option<&Sold>, SeenBody),
) -> Result<bool, Rejection> {
    fitting(call, pending, head, body).map(|rule| rule.is_some())
}

/// The rule by which a signature fits.
fn fitting(
    call: &Call,
    pending: &Pending<'_>,
    head: &Parts,
    (sold, body): (Option<&Sold>, SeenBody),
) -> Result<Option<SignatureRule>, Rejection> {
    let Pending { claim, found, .. } = pending;
    if connection_names(&head.headers).any(|name| claim.signs(name)) {
        return Err(Rejection::new(Code::InvalidRequest, &texts::CONNECTION_NAMES_SIGNED).closing());
    }
    let shared = &call.core.shared;
    let policy = Policy {
        fallbacks: &shared.credentials.signature_fallbacks,
        unsigned_payload: sold.is_some_and(|sold| sold.product.unsigned_payload),
    };
    let caller = found.as_ref().map(|found| &*found.caller);
    let keys = shared.authenticator.signing_keys(caller, call.arrived);
    claim.verify(signed_request(head), body, keys, policy).map_err(|fault| Rejection::signature(&fault))
}

fn signed_request(head: &Parts) -> SignedRequest<'_> {
    SignedRequest {
        method: head.method.as_str(),
        target: head.uri.path_and_query().map_or("/", |target| target.as_str()),
        headers: &head.headers,
        authority: None,
    }
}

/// Checks a signature; only then is its caller the call's. `sold` is the product, if the request alone names it.
pub async fn verify(
    call: &mut Call,
    pending: Pending<'_>,
    head: &Parts,
    (sold, body): (Option<&Sold>, SeenBody),
) -> Result<(), Rejection> {
    let verified = fitting(call, &pending, head, (sold, body))?;
    let Pending { claim, app_key, found } = pending;
    let opens = |caller: &Caller| sold.is_none_or(|sold| caller.opens(&sold.product.id));
    match (verified, found) {
        (Some(rule), Some(found)) if opens(&found.caller) => {
            call.core.shared.metrics.signatures(rule).inc();
            call.signed = Some(Signed { signature: *claim.signature(), dated: claim.date() });
            note(call, found)
        }
        (_, found) => {
            let debug = sold.is_some_and(|sold| sold.product.signature_debug);
            let refused = Rejection::wrong_signature(debug.then(|| claim.redacted(signed_request(head))).as_deref());
            let client = call.client().text.clone();
            let client = client.to_str().unwrap_or_default();
            let presented = Presented { scheme: Scheme::Signature, text: app_key, client };
            let authenticator = &call.core.shared.authenticator;
            if let Err(too_many) = authenticator.failed(presented) {
                return Err(limits::too_many(call, &too_many));
            }
            if let Some(found) = found.filter(|found| found.read.is_none()) {
                // Boxed, as it is rare: warm calls keep no room for it.
                Box::pin(authenticator.look_as_for_nobody(presented, found.waited)).await;
            }
            Err(refused)
        }
    }
}

/// Refuses a signature that was used before, where the product is protected from that. From here on it is used, unless
/// [`served_nothing`]. Before the limits: whoever sends a used one again takes no place of theirs, and hears nothing of
/// them.
pub async fn accept_once(call: &mut Call, sold: Option<&Sold>) -> Result<(), Rejection> {
    let protected = sold.is_some_and(|sold| sold.product.replay_protection);
    let Some(signed) = call.signed.take().filter(|_| protected) else { return Ok(()) };
    let replay = &call.core.shared.replay;
    // Boxed, as it is rare: warm calls keep no room for it.
    Box::pin(replay.accept(signed, call.arrived)).await.map_err(|fault| Rejection::replay(&fault))?;
    call.signed = Some(signed);
    Ok(())
}

/// A call is refused after its signature was accepted: the same one may be sent again.
pub async fn served_nothing(call: &mut Call) {
    if let Some(signed) = call.signed.take() {
        Box::pin(call.core.shared.replay.give_back(signed)).await;
    }
}

/// Refuses a caller that a product is not for: by its scheme, by its binding, by its list.
pub fn check_product(call: &Call, sold: &Sold) -> Result<(), Rejection> {
    if let Some(scheme) = call.scheme.filter(|_| sold.product.access == Access::Keys) {
        check_accepted(sold, scheme)?;
    }
    let caller = call.caller.as_deref();
    match caller {
        _ if route::may_call(sold, caller) => Ok(()),
        None => Err(missing(&sold.product.accept)),
        // Of an app that is not bound nobody is told more than of one that is not there.
        Some(caller) if caller.is_app() => Err(match call.scheme {
            Some(Scheme::Signature) => Rejection::wrong_signature(None),
            Some(Scheme::AppCode | Scheme::ApiKey) | None => Rejection::unknown_app_code(),
        }),
        Some(_) => {
            let message = texts::KEY_PRODUCT.with([("product", sold.product.id.to_string().into())]);
            Err(Rejection::new(Code::ProductNotAllowed, message))
        }
    }
}

fn check_accepted(sold: &Sold, scheme: Scheme) -> Result<(), Rejection> {
    if sold.product.accept.contains(&scheme) {
        return Ok(());
    }
    let sent = match scheme {
        Scheme::Signature => &texts::A_SIGNATURE,
        Scheme::AppCode => &texts::AN_APP_CODE,
        Scheme::ApiKey => &texts::AN_API_KEY,
    };
    let product = sold.product.id.to_string().into();
    let next = what_to_send(&sold.product.accept);
    let message = texts::SCHEME_REFUSED.with([("product", product), ("sent", sent.into()), ("next", next)]);
    Err(Rejection::new(Code::SchemeNotAccepted, message))
}

/// What a product accepts, as an instruction.
fn what_to_send(accept: &[Scheme]) -> Said {
    let way = |scheme: &Scheme| match scheme {
        Scheme::Signature => &texts::SEND_SIGNATURE,
        Scheme::AppCode => &texts::SEND_APP_CODE,
        Scheme::ApiKey => &texts::SEND_API_KEY,
    };
    Said::Listed(accept.iter().map(|scheme| way(scheme).into()).collect(), &texts::OR)
}

/// Nothing was presented of what is accepted.
pub fn missing(accept: &[Scheme]) -> Rejection {
    let text = if accept == [Scheme::ApiKey] { &texts::NO_KEY_SENT } else { &texts::NO_CREDENTIAL_SENT };
    Rejection::new(Code::MissingApiKey, text.with([("next", what_to_send(accept))]))
}

fn malformed(fault: &CredentialFault<'_>) -> Rejection {
    let (code, message) = match fault {
        CredentialFault::Repeated(what) => {
            (Code::AmbiguousCredentials, texts::REPEATED.with([("what", (*what).to_owned().into())]))
        }
        CredentialFault::NoAppCode(_) => (Code::InvalidAppCode, fault.to_string().into()),
        CredentialFault::SchemeUnknown { scheme } => {
            (Code::InvalidApiKey, texts::SCHEME_UNKNOWN.with([("scheme", (*scheme).to_owned().into())]))
        }
        CredentialFault::SchemeMissing
        | CredentialFault::TokenEmpty
        | CredentialFault::TokenMalformed
        | CredentialFault::TokenTooLong => (Code::InvalidApiKey, fault.to_string().into()),
    };
    Rejection::new(code, message)
}

fn refused(scheme: Scheme, error: &AuthError) -> Rejection {
    match (scheme, error) {
        (Scheme::AppCode, AuthError::Unknown) => Rejection::unknown_app_code(),
        (Scheme::ApiKey | Scheme::AppCode | Scheme::Signature, error) => Rejection::auth(error),
    }
}
