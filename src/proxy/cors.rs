//! Cross-origin calls from browsers: preflights are answered here, and are neither authenticated, forwarded nor billed.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::body::AnswerBody;

/// How long a browser may remember a preflight, in seconds.
const REMEMBERED_SECONDS: HeaderValue = HeaderValue::from_static("86400");
/// Our own answer headers that a page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-should-retry, retry-after, retry-after-ms, x-ratelimit-limit-requests, \
     x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-tollgate-remaining, x-tollgate-unit, x-tollgate-package-expires, \
     x-tollgate-error-source, x-tollgate-error-code",
);

/// Whether a browser asks for permission to make a call.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The permission: what is asked for, to everybody. A call needs a key all the same.
pub fn permit(asked: &HeaderMap) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let reflect: [(HeaderName, HeaderName); 2] = [
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
    ];
    for (from, to) in reflect {
        if let Some(value) = asked.get(from) {
            headers.insert(to, value.clone());
        }
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED_SECONDS);
    let vary = "origin, access-control-request-method, access-control-request-headers";
    headers.insert(header::VARY, HeaderValue::from_static(vary));
    response
}

/// Lets a page read the answer to its call.
pub fn expose(answer: &mut HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}
