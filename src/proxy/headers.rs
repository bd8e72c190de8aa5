//! Which headers travel. Hop-by-hop headers end here, the buyer's credentials never reach a seller, and only what a
//! product's rule names comes back.

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;

use super::catalog::Sold;
use super::cors;
use super::request_body::RequestBody;
use crate::protocol::answer::{AnswerHead, connection_options};
use crate::protocol::head::Framing;

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

/// Room for the head of most requests, in bytes.
const REQUEST_HEAD_BYTES: usize = 1_024;
/// Headers that answers get from us, at most.
const OWN_HEADERS: usize = 10;

/// A buyer's head on its way to a seller.
pub struct ToSeller<'a> {
    /// As the buyer asked.
    pub method: &'a Method,
    /// Path and query at the seller.
    pub target: &'a str,
    /// The buyer's.
    pub headers: &'a HeaderMap,
    /// The buyer's address.
    pub client: &'a HeaderValue,
    /// Of this call.
    pub request_id: &'a HeaderValue,
    /// How the body goes.
    pub framing: Framing,
}

impl ToSeller<'_> {
    /// Writes the head: the buyer's credentials out, the seller's in.
    pub fn write(&self, sold: &Sold) -> Vec<u8> {
        let mut head = Vec::with_capacity(REQUEST_HEAD_BYTES);
        for part in [self.method.as_str(), " ", self.target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        let sellers = &sold.product.upstream.headers;
        let is_sellers = |name: &HeaderName| sellers.iter().any(|(sellers, _)| sellers == name);
        // The gateway must be able to read an event stream to know whether it began.
        let identity = HeaderValue::from_static("identity");
        let encoding = sold.llm.then_some((&header::ACCEPT_ENCODING, &identity));
        let own = [(&header::HOST, &sold.host), (&X_REQUEST_ID, self.request_id), (&X_FORWARDED_FOR, self.client)];
        for (name, value) in own.into_iter().chain(encoding).filter(|(name, _)| !is_sellers(name)) {
            write_field(&mut head, name, value);
        }
        for (name, value) in sellers {
            write_field(&mut head, name, value);
        }
        let mut named = Vec::new();
        if self.headers.contains_key(header::CONNECTION) {
            named.extend(connection_names(self.headers).filter(|name| !name.eq_ignore_ascii_case("keep-alive")));
        }
        for (name, value) in self.headers {
            let text = name.as_str();
            let ends = matches!(text, "host" | "content-length" | "x-request-id")
                || (sold.llm && text == "accept-encoding")
                || of_one_hop(text)
                || buyers_own(text)
                || named.iter().any(|named| named.eq_ignore_ascii_case(text))
                || is_sellers(name);
            if !ends {
                write_field(&mut head, name, value);
            }
        }
        match self.framing {
            Framing::None => {}
            Framing::Length(length) => {
                head.extend_from_slice(b"content-length: ");
                head.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                head.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn write_field(head: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// How a body goes to the seller. Of an empty body a seller hears if the buyer's head said so (RFC 9110 section 8.6).
pub fn framing(asked: &HeaderMap, body: &RequestBody) -> Framing {
    let announced = || asked.contains_key(header::CONTENT_LENGTH) || asked.contains_key(header::TRANSFER_ENCODING);
    match body.left() {
        None => Framing::Chunked,
        Some(0) if !announced() => Framing::None,
        Some(length) => Framing::Length(length),
    }
}

/// Of a seller's head what may reach the buyer. A header or a reason that holds what the seller was called with does not.
/// `bytes` are those that the head was read from. `None`: its status is none.
pub fn to_buyer(head: &AnswerHead<'_>, bytes: &Bytes, sold: &Sold) -> Option<Parts> {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(head.status).ok()?;
    if parts.status.canonical_reason() != Some(head.reason)
        && !sold.secrets.stand_in(head.reason.as_bytes())
        && let Ok(reason) = ReasonPhrase::try_from(head.reason.as_bytes())
    {
        parts.extensions.insert(reason);
    }
    parts.headers = HeaderMap::with_capacity(head.fields.len().saturating_add(OWN_HEADERS));
    let mut telling = Vec::new();
    for field in head.fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { continue }; // the parser lets no others through
        let ends = of_one_hop(name.as_str())
            || cors::is_sellers(&name)
            || !sold.product.response_headers.allows(&name)
            || (head.names_fields
                && connection_options(head.fields).any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes())));
        if sold.secrets.stand_in(field.value) {
            telling.push(name);
        } else if !ends {
            parts.headers.append(name, value);
        }
    }
    for name in telling {
        parts.headers.remove(name); // one value of several would say something else
    }
    Some(parts)
}
