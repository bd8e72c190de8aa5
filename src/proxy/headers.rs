//! Which headers travel. Hop-by-hop headers end here, the buyer's credentials never reach a seller, and only what a
//! product's rule names comes back.

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::catalog::Sold;
use super::request_body::RequestBody;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Headers of one hop (RFC 9110 section 7.6.1).
fn of_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What a buyer proves itself with, and what it has no business to tell a seller.
fn buyers_own(name: &str) -> bool {
    matches!(name, "authorization" | "x-api-key" | "x-apig-appcode" | "x-real-ip" | "forwarded" | "expect")
        || (name.starts_with("x-") && IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// Prefixes of headers that only a gateway may set, or that belong to a signature.
const IDENTITY_PREFIXES: [&str; 5] = ["x-tollgate-", "x-consumer-", "x-app-", "x-forwarded-", "x-sdk-"];

/// The options of `Connection`, among them the names of headers that end at this hop.
pub fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Removes the headers that `ends` names, and those that `Connection` does. Most heads have few of them: one pass over
/// what is there costs less than asking for each that could be.
fn end_hop(headers: &mut HeaderMap, ends: impl Fn(&HeaderName, &HeaderValue) -> bool) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = connection_names(headers).filter_map(|name| name.parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    let ended: Vec<HeaderName> =
        headers.iter().filter(|(name, value)| ends(name, value)).map(|(name, _)| name.clone()).collect();
    for name in ended {
        headers.remove(name);
    }
}

/// Makes a buyer's headers a request to a seller: the buyer's credentials out, the seller's in.
pub fn to_seller(headers: &mut HeaderMap, sold: &Sold, client: &HeaderValue, request_id: &HeaderValue) {
    end_hop(headers, |name, _| {
        // The engine writes the length from the body that is sent; `frame` writes that of an empty one.
        *name == header::CONTENT_LENGTH || of_one_hop(name.as_str()) || buyers_own(name.as_str())
    });
    headers.insert(header::HOST, sold.host.clone());
    headers.insert(X_REQUEST_ID, request_id.clone());
    headers.insert(X_FORWARDED_FOR, client.clone());
    if sold.llm {
        // The gateway must be able to read an event stream to know whether it began.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    for (name, value) in &sold.product.upstream.headers {
        headers.insert(name.clone(), value.clone());
    }
}

/// Whether a buyer's head says how its body ends: then it has one, be it an empty one.
pub fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Says how the body goes to the seller where the engine would not of its own accord: without a length it sends GET and
/// HEAD without their body, as if they were whole; and of an empty body it says nothing, though a buyer did, and sellers
/// may want to hear it (RFC 9110 section 8.6).
pub fn frame(request: &mut Request<RequestBody>, announced: bool) {
    match request.body().size_hint().exact() {
        None => {
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Some(0) if announced => {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(_) => {}
    }
}

/// Leaves of a seller's head what may reach the buyer. A header or a reason that holds what the seller was called with goes.
pub fn to_buyer(head: &mut Parts, sold: &Sold) {
    let (rule, secrets) = (&sold.product.response_headers, &sold.secrets);
    end_hop(&mut head.headers, |name, value| {
        of_one_hop(name.as_str()) || !rule.allows(name) || secrets.stand_in(value.as_bytes())
    });
    if head.extensions.get::<ReasonPhrase>().is_some_and(|reason| secrets.stand_in(reason.as_bytes())) {
        head.extensions.remove::<ReasonPhrase>();
    }
}
