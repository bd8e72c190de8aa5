//! Which headers a configuration may set, and which of a seller's headers reach the buyer unless it says more.

use http::{HeaderName, HeaderValue};

use crate::config::{HeaderRule, ProductKind};

/// Set by the proxy itself or belonging to one connection: a configured value would break the message's framing or
/// be overwritten.
const OURS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// The prefix of what Tollgate says itself; a seller cannot speak in its name.
const TOLLGATE: &str = "x-tollgate-";

/// What an OpenAI-compatible answer needs to be read, cached, retried and asked about. Anything else would tell the
/// buyer who the seller is, or let the seller set state at the buyer's.
const LLM_ALLOWED: [&str; 22] = [
    "accept-ranges",
    "age",
    "anthropic-*",
    "cache-control",
    "content-*",
    "date",
    "etag",
    "expires",
    "idempotency-key",
    "last-modified",
    "link",
    "openai-*",
    "pragma",
    "ratelimit-*",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "vary",
    "warning",
    "x-ratelimit-*",
    "x-request-id",
    "x-should-retry",
];

/// What `*` leaves out.
const DENIED: [&str; 18] = [
    "alt-svc",                   // would lead the client past the gateway
    "clear-site-data",           // acts on the gateway's whole origin, not on one product
    "content-security-policy-*", // reports to the seller what the buyer's browser does
    "nel",                       // same
    "proxy-authenticate",        // asks for the gateway's own credential
    "proxy-authentication-info", // same
    "public-key-pins",           // pins the gateway's name to the seller's key
    "public-key-pins-*",         // same
    "report-to",                 // reports to the seller what the buyer's browser does
    "reporting-endpoints",       // same
    "server",                    // names the seller's software
    "set-cookie",                // a cookie of one buyer, kept for the gateway's origin
    "strict-transport-security", // is for the gateway's operator to decide
    "via",                       // names the seller's own proxies
    "www-authenticate",          // asks for the seller's credential, which the buyer has not
    "x-internal-*",              // the seller's own
    "x-powered-by",              // names the seller's software
    "x-tollgate-*",              // said by the gateway alone
];

/// What never passes, for the gateway proves itself to sellers with it: one that sends it back would hand it out.
const WITHHELD: [&str; 3] = ["authorization", "proxy-authorization", "x-api-key"];

/// Headers that mean the same in a request and in an answer: that one is added to requests does not keep it back.
fn goes_both_ways(name: &str) -> bool {
    name.starts_with("content-") || matches!(name, "cache-control" | "date" | "pragma")
}

/// Why a request header may not be configured; `None` if it may.
pub(super) fn refusal(name: &str) -> Option<&'static str> {
    if OURS.contains(&name) {
        Some("is set by the gateway for each connection; take it out")
    } else if name.starts_with(TOLLGATE) {
        Some("is said by the gateway alone; take it out")
    } else {
        None
    }
}

/// What carries a credential, and so must stand in no record.
const CREDENTIALS: [&str; 6] =
    ["authorization", "cookie", "proxy-authorization", "x-api-key", "api-key", "x-apig-appcode"];

/// The request header that names the buyer's own user.
pub(super) fn end_user(text: &str) -> Result<http::HeaderName, String> {
    let name = http::HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("`{text}` is not the name of a header; write one, as in `x-end-user`"))?;
    if CREDENTIALS.contains(&name.as_str()) {
        return Err(format!(
            "`{name}` carries a credential, which must not be recorded; write another, as in `x-end-user`"
        ));
    }
    Ok(name)
}

/// One entry of `response_headers`, in lower case.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    const RIGHT: &str = "write a header's name, or the beginning of names and `*`, as in `x-seller-*`";
    let lower = text.to_ascii_lowercase();
    let stem = lower.strip_suffix('*').unwrap_or(&lower);
    let named = stem.is_empty() && lower == "*" || http::HeaderName::from_bytes(stem.as_bytes()).is_ok();
    if !named || stem.contains('*') {
        return Err(format!("`{text}` is not the name of a header; {RIGHT}"));
    }
    if lower.starts_with(TOLLGATE) {
        return Err(format!("`{text}` is said by the gateway alone and never passes from a seller; take it out"));
    }
    if lower != "*" && OURS.contains(&lower.as_str()) {
        return Err(format!("`{text}` belongs to one connection and never passes; take it out"));
    }
    Ok(lower)
}

/// The default rule of a kind, with what a product adds. What is `sent` with every request to the seller does not come back.
pub(super) fn rule(kind: &ProductKind, more: Vec<String>, sent: &[(HeaderName, HeaderValue)]) -> HeaderRule {
    let mut allowed: Vec<String> = match kind {
        ProductKind::Llm { .. } => LLM_ALLOWED.map(str::to_owned).to_vec(),
        ProductKind::Http { .. } => vec!["*".to_owned()],
    };
    allowed.extend(more);
    allowed.sort();
    allowed.dedup();
    let sent = sent.iter().map(|(name, _)| name.as_str()).filter(|name| !goes_both_ways(name));
    let withheld: Vec<&str> = WITHHELD.into_iter().chain(sent).collect();
    allowed.retain(|name| !withheld.contains(&name.as_str()));
    let denied: Vec<String> = DENIED.into_iter().chain(withheld).map(str::to_owned).collect();
    HeaderRule::new(&allowed, &denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llm() -> ProductKind {
        ProductKind::Llm { deployment: "d".to_owned(), models: std::collections::BTreeMap::new() }
    }

    fn http() -> ProductKind {
        ProductKind::Http { host: None, path: "/x".to_owned(), strip_path: false }
    }

    fn check(kind: &ProductKind, more: &[&str], name: &'static str, expected: bool) {
        let sent = [("x-tenant", "a"), ("cache-control", "b"), ("content-type", "c")];
        let sent = sent.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let rule = rule(kind, more.iter().map(|text| pattern(text).unwrap()).collect(), &sent);
        assert_eq!(rule.allows(&http::HeaderName::from_static(name)), expected, "{name} with {more:?}");
    }

    #[test]
    fn a_model_answers_with_ordinary_headers_only() {
        for name in
            ["content-type", "cache-control", "x-ratelimit-remaining-requests", "openai-processing-ms", "retry-after"]
        {
            check(&llm(), &[], name, true);
        }
        for name in ["set-cookie", "server", "x-seller-a", "x-tollgate-charge", "cf-ray", "contents"] {
            check(&llm(), &[], name, false);
        }
        check(&llm(), &["X-Seller-*"], "x-seller-a", true);
        check(&llm(), &["x-*"], "x-other", true);
        check(&llm(), &["x-*"], "x-internal-a", false);
        check(&llm(), &["x-internal-a"], "x-internal-a", true);
    }

    #[test]
    fn another_api_answers_with_all_but_the_denied() {
        for name in ["content-type", "x-anything", "etag", "access-control-allow-origin"] {
            check(&http(), &[], name, true);
        }
        for name in
            ["set-cookie", "server", "alt-svc", "x-internal-node", "x-tollgate-charge", "public-key-pins-report-only"]
        {
            check(&http(), &[], name, false);
        }
        check(&http(), &["Set-Cookie"], "set-cookie", true);
        check(&http(), &["set-cookie"], "set-cookie2", true);
        check(&http(), &["*"], "x-tollgate-charge", false);
        check(&http(), &["x-toll*"], "x-tollgate-charge", false);
    }

    #[test]
    fn what_sellers_are_called_with_never_comes_back() {
        for name in ["authorization", "proxy-authorization", "x-api-key", "x-tenant"] {
            for kind in [llm(), http()] {
                check(&kind, &[], name, false);
                check(
                    &kind,
                    &["*", "X-*", "Authorization", "Proxy-Authorization", "X-Api-Key", "X-Tenant"],
                    name,
                    false,
                );
            }
        }
        for name in ["cache-control", "content-type"] {
            check(&llm(), &[], name, true);
            check(&http(), &[], name, true);
        }
    }

    #[test]
    fn no_credential_passes_for_an_end_user() {
        assert_eq!(end_user("X-End-User").unwrap(), "x-end-user");
        for bad in ["", "x y", "é", "Authorization", "cookie", "X-Api-Key"] {
            assert!(end_user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_documentation_lists_them_all() {
        let page = include_str!("../../../docs/front-door.md");
        let named: std::collections::BTreeSet<&str> = page.split_whitespace().collect();
        for name in LLM_ALLOWED.iter().chain(&DENIED).chain(&WITHHELD) {
            assert!(named.contains(name), "{name}");
        }
    }

    #[test]
    fn patterns() {
        assert_eq!(pattern("X-Seller-*").as_deref(), Ok("x-seller-*"));
        assert_eq!(pattern("*").as_deref(), Ok("*"));
        for bad in ["", "**", "a*b", "x y", "x:", "é", "x-tollgate-*", "X-Tollgate-Charge", "transfer-encoding"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
