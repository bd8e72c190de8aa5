//! Whose pages may call a product.

use http::uri::{Authority, Scheme, Uri};
use http::{HeaderName, Method};

use super::{Cx, period};
use crate::config::bounds::CORS_ENTRIES_MAX;
use crate::config::raw::{RawCors, defaults};
use crate::config::read::{At, Given};
use crate::config::{CorsRule, Methods, Origins};

pub(super) fn rule(raw: RawCors, cx: Cx<'_>) -> Option<CorsRule> {
    let origins = entries(raw.origins, "*", origin, cx);
    let methods = entries(raw.methods, "*", method, cx);
    let exposed = entries(raw.exposed_headers, "", exposed, cx);
    let max_age = period(raw.max_age, defaults::CORS_MAX_AGE);
    Some(CorsRule {
        origins: match origins? {
            Some(origins) => Origins::These(origins),
            None => Origins::Any,
        },
        methods: match methods? {
            Some(methods) => Methods::These(methods),
            None => Methods::Any,
        },
        exposed: exposed?.unwrap_or_default(),
        max_age: max_age?,
    })
}

/// A list's entries; `Some(None)` where the list is absent or holds the word for all alone.
fn entries<T>(
    given: Given<Vec<Given<String>>>,
    all: &str,
    rule: impl Fn(&str) -> Result<T, String>,
    cx: Cx<'_>,
) -> Option<Option<Vec<T>>> {
    let Some(At { place, value }) = given.optional()? else { return Some(None) };
    cx.at_most(CORS_ENTRIES_MAX, value.len(), "entries", place)?;
    if !all.is_empty() && value.iter().any(|entry| entry.value().is_some_and(|at| at.value == all)) {
        if value.len() > 1 {
            cx.report.note(place, format!("`{all}` stands for all; write it alone, or take it out"));
            return None;
        }
        return Some(None);
    }
    let entries: Vec<_> = value.into_iter().map(|given| cx.text(given, &rule)).collect();
    entries.into_iter().map(|entry| entry.flatten().map(|at| at.value)).collect::<Option<_>>().map(Some)
}

/// An origin as browsers write it: they compare bytes, and so do we.
fn origin(text: &str) -> Result<String, String> {
    const RIGHT: &str = "write scheme and host as browsers send them, as in `https://app.example.com` or \
                         `http://localhost:3000`, or `*` alone";
    let wrong = || format!("`{text}` is not an origin; {RIGHT}");
    let parts = text.parse::<Uri>().ok().map(Uri::into_parts).ok_or_else(wrong)?;
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(wrong()) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if text != format!("{scheme}://{authority}") || !authority.as_str().bytes().all(plain) {
        return Err(wrong());
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("`{text}` has capital letters, which browsers never send; {RIGHT}"));
    }
    let default = (scheme == Scheme::HTTPS && port(&authority) == Some(443))
        || (scheme == Scheme::HTTP && port(&authority) == Some(80));
    if default {
        return Err(format!("`{text}` has its scheme's own port, which browsers leave out; {RIGHT}"));
    }
    Ok(text.to_owned())
}

fn port(authority: &Authority) -> Option<u16> {
    authority.port_u16()
}

fn method(text: &str) -> Result<Method, String> {
    let upper = text.bytes().all(|byte| byte.is_ascii_uppercase()) && !text.is_empty();
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| upper);
    method.ok_or_else(|| format!("`{text}` is not a method; write one in capital letters, as in `GET`, or `*` alone"))
}

fn exposed(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    name.map_err(|_| format!("`{text}` is not the name of a header; write one, as in `x-seller-region`"))
}
