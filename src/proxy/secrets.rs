//! What the gateway proves itself to a seller with, ready to be looked for in what the seller answers.

use std::fmt;

use http::{HeaderName, HeaderValue, header};
use memchr::memmem::Finder;

use crate::protocol::signature::canonical::percent_decoded;

/// The shortest text, in bytes, that counts as a secret where a header's name says that it holds one. A shorter one would
/// be found where nobody wrote it.
const SECRET_BYTES_MIN: usize = 8;
/// The same in any other header that a product's upstream adds: what is shorter names a tenant or a region.
const OTHER_BYTES_MIN: usize = 16;
/// What stands in the names of headers that hold secrets.
const TELLING: [&str; 8] = ["auth", "key", "token", "secret", "cookie", "code", "pass", "credential"];
/// Headers that say what is asked for and prove nothing.
const PLAIN: [&str; 14] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "anthropic-beta",
    "anthropic-version",
    "cache-control",
    "content-type",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "referer",
    "user-agent",
];

/// The secrets of one product's upstream. Nothing shows them.
pub struct Secrets(Vec<Finder<'static>>);

impl Secrets {
    /// Takes them out of the headers that are added to every request.
    pub fn of(headers: &[(HeaderName, HeaderValue)]) -> Self {
        let each = headers.iter().flat_map(|(name, value)| {
            let telling = TELLING.iter().any(|part| name.as_str().contains(part));
            let shortest = match name.as_str() {
                plain if PLAIN.contains(&plain) => usize::MAX,
                _ if telling => SECRET_BYTES_MIN,
                _ => OTHER_BYTES_MIN,
            };
            parts(name, value.as_bytes()).into_iter().filter(move |part| part.len() >= shortest)
        });
        Self(each.map(|part| Finder::new(part).into_owned()).collect())
    }

    /// Whether one of them stands in a text, as it is or percent-encoded, as a seller's redirect would have it.
    pub fn stand_in(&self, text: &[u8]) -> bool {
        let text_of = |text| std::str::from_utf8(text).ok().filter(|text| text.contains('%'));
        self.stand_plain_in(text) || text_of(text).is_some_and(|text| self.stand_plain_in(&percent_decoded(text)))
    }

    fn stand_plain_in(&self, text: &[u8]) -> bool {
        self.0.iter().any(|secret| text.len() >= secret.needle().len() && secret.find(text).is_some())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Secrets").field(&self.0.len()).finish()
    }
}

/// What of a header's value is told to nobody else: without a scheme's name before it, or the names of cookies.
fn parts<'v>(name: &HeaderName, value: &'v [u8]) -> Vec<&'v [u8]> {
    let behind = |text: &'v [u8], mark: u8| {
        let at = memchr::memchr(mark, text);
        at.and_then(|at| text.get(at.saturating_add(1)..)).unwrap_or(text).trim_ascii()
    };
    match *name {
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION => vec![behind(value, b' ')],
        header::COOKIE => value.split(|byte| *byte == b';').map(|pair| behind(pair, b'=')).collect(),
        _ => value.split(u8::is_ascii_whitespace).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, value: &'static str, text: &str, expected: bool) {
        let secrets = Secrets::of(&[(HeaderName::from_static(name), HeaderValue::from_static(value))]);
        assert_eq!(secrets.stand_in(text.as_bytes()), expected, "{name}: {value} in {text:?}");
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands() {
        for text in ["sk-123456", "Bearer sk-123456", "/next?key=sk-123456&x", "sk-12345sk-123456"] {
            check("authorization", "Bearer sk-123456", text, true);
            check("x-api-key", "sk-123456", text, true);
        }
        for text in ["", "Bearer", "sk-12345", "bearer sk-12345x6"] {
            check("authorization", "Bearer sk-123456", text, false);
        }
        check("authorization", "sk-123456", "a sk-123456", true);
        check("authorization", "Bearer sk/1234+56=", "/next?key=sk%2f1234%2B56%3D&x", true);
        check("authorization", "Bearer sk/1234+56=", "/next?key=sk%2f1234%2B56&x", false);
        check("x-api-key", "sk-12%3456", "/next?key=sk-12%3456", true);
        check("cookie", "a=1; session=0123456789; b", "/?s=0123456789", true);
        check("cookie", "a=1; session=0123456789; b", "session=1", false);
        check("x-partner-token", "Token abcdefgh", "abcdefgh", true);
        check("x-unlike-any", "0123456789abcdef", "0123456789abcdef", true);
    }

    #[test]
    fn what_proves_nothing_or_is_too_short_to_be_told_apart_is_no_secret() {
        check("authorization", "Bearer short", "a short text", false);
        check("x-tenant", "eu-west-1", "eu-west-1", false);
        check("accept", "application/json", "application/json", false);
        check("user-agent", "a-gateway/1.0-of-ours", "a-gateway/1.0-of-ours", false);
    }

    #[test]
    fn nothing_shows_them() {
        let headers = [(HeaderName::from_static("x-api-key"), HeaderValue::from_static("sk-123456"))];
        assert_eq!(format!("{:?}", Secrets::of(&headers)), "Secrets(1)");
    }
}
