//! Reads a request target for routing, as a copy of its own: the bytes that go to the seller stay
//! as they came. What a seller could read as another path than the one we priced is refused.

use std::borrow::Cow;

use memchr::{memchr, memchr3};

use super::signature::canonical::percent_decoded;

/// A path and a query, read for routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path, with the escapes of letters, digits and `-_~` resolved and other escapes in upper
    /// case (RFC 3986 section 6.2.2), so that one resource has one spelling.
    pub path: Cow<'a, str>,
    /// What stands after the first `?`, as it came.
    pub query: Option<&'a str>,
}

/// Why a path is not routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetFault {
    /// Neither begins with `/` nor is `*`.
    #[error("the path does not begin with /; send a path that does")]
    NotAPath,
    /// `%2f`, `%5c` or `%00`.
    #[error("the path holds an encoded slash, backslash or null; put such text into the query or body")]
    EncodedSeparator,
    /// A backslash.
    #[error("the path holds a backslash; use /")]
    Backslash,
    /// A segment `.` or `..`, or any `%2e`.
    #[error("the path holds a dot segment or an encoded dot; send the path it leads to")]
    DotSegment,
    /// A `%` without two hexadecimal digits after it.
    #[error("the path holds a % without two hexadecimal digits; write % itself as %25")]
    BadEscape,
}

/// Reads the path and query of a target in origin form, or `*`. Queries are not looked into.
///
/// # Errors
/// See [`TargetFault`]; escapes are judged once, so a `%252f` is the text `%2f` and passes.
pub fn read_target(target: &str) -> Result<Target<'_>, TargetFault> {
    let (path, query) = match memchr(b'?', target.as_bytes()).and_then(|at| target.split_at_checked(at)) {
        Some((path, query)) => (path, query.get(1..)),
        None => (target, None),
    };
    if !path.starts_with('/') && path != "*" {
        return Err(TargetFault::NotAPath);
    }
    if memchr3(b'%', b'.', b'\\', path.as_bytes()).is_none() {
        return Ok(Target { path: path.into(), query }); // most paths: nothing below finds anything in them
    }
    if path.contains('\\') {
        return Err(TargetFault::Backslash);
    }
    let path = resolve_escapes(path)?;
    if path.split('/').any(is_dot_segment) {
        return Err(TargetFault::DotSegment);
    }
    Ok(Target { path, query })
}

/// Whether the segment is `.` or `..`; some servers drop parameters (`..;x`) before they look.
fn is_dot_segment(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or(segment);
    matches!(name, "." | "..")
}

fn resolve_escapes(path: &str) -> Result<Cow<'_, str>, TargetFault> {
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default();
    let mut resolved = Cow::Borrowed(first);
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(TargetFault::BadEscape)?;
        let byte = hex_byte(digits.as_bytes()).ok_or(TargetFault::BadEscape)?;
        let text = resolved.to_mut();
        match byte {
            b'/' | b'\\' | 0 => return Err(TargetFault::EncodedSeparator),
            b'.' => return Err(TargetFault::DotSegment),
            b'-' | b'_' | b'~' => text.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            _ => {
                text.push('%');
                text.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
            }
        }
        text.push_str(rest);
    }
    Ok(resolved)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    match digits {
        [high, low] => Some(value(*high)? << 4 | value(*low)?),
        _ => None,
    }
}

/// The target with the encoded slashes below its first `/models/` resolved, or `None` where there are none. For what the
/// gateway answers itself alone: the SDKs of LLMs send the model `a/b` as `a%2Fb`.
pub fn with_models_slashes(target: &str) -> Option<String> {
    let path = target.split('?').next().unwrap_or(target);
    let (before, _) = path.split_once(MODELS)?;
    let (base, rest) = target.split_at_checked(before.len().saturating_add(MODELS.len()))?;
    let (model, query) = rest.split_once('?').map_or((rest, None), |(model, query)| (model, Some(query)));
    let resolved = model.replace("%2F", "/").replace("%2f", "/");
    let query = query.map(|query| ["?", query].concat()).unwrap_or_default();
    (resolved.len() < model.len()).then(|| [base, &resolved, &query].concat())
}

/// What stands before a model that a path names.
const MODELS: &str = "/models/";

/// The text that a part of a read path stands for; as it is, if that is no text.
pub fn decoded(part: &str) -> String {
    String::from_utf8(percent_decoded(part)).unwrap_or_else(|_| part.to_owned())
}

/// Returns the path with each run of slashes as one. For LLM routes alone: there a base URL that
/// ends with a slash makes `/v1//chat/completions`, which means nothing else.
pub fn collapsed(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !text.ends_with('/') {
            text.push(letter);
        }
    }
    Cow::Owned(text)
}

/// Whether the prefix covers the path by whole segments: `/api` covers `/api`, `/api/x` and
/// `/api?q`, not `/apix`. A slash at the prefix's end means nothing; `/` covers every path.
pub fn has_path_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(target: &str, expected: Result<(&str, Option<&str>), TargetFault>) {
        let read = read_target(target);
        let shown = read.as_ref().map(|target| (target.path.as_ref(), target.query)).map_err(|fault| *fault);
        assert_eq!(shown, expected, "{target}");
    }

    #[test]
    fn reads_paths_and_queries() {
        for (target, path, query) in [
            ("/", "/", None),
            ("*", "*", None),
            ("/v1/chat/completions", "/v1/chat/completions", None),
            ("/v1//chat/", "/v1//chat/", None),
            ("/a?", "/a", Some("")),
            ("/a?b=%2f&c=%zz\\..%", "/a", Some("b=%2f&c=%zz\\..%")),
            ("/a?b?c", "/a", Some("b?c")),
            ("/%61%5A%30%2d%5F%7e", "/aZ0-_~", None),
            ("/a%20b%2bc%e4%bd%a0", "/a%20b%2Bc%E4%BD%A0", None),
            ("/%252f%252e", "/%252f%252e", None),
            ("/.well-known/a..b/...", "/.well-known/a..b/...", None),
            ("/a;b=.", "/a;b=.", None),
        ] {
            check(target, Ok((path, query)));
        }
    }

    #[test]
    fn refuses_what_is_read_in_two_ways() {
        use TargetFault::*;
        for (target, fault) in [
            ("", NotAPath),
            ("v1/x", NotAPath),
            ("?q", NotAPath),
            ("http://a/", NotAPath),
            ("/a%2fb", EncodedSeparator),
            ("/a%2Fb", EncodedSeparator),
            ("/a%5cb", EncodedSeparator),
            ("/a%5Cb", EncodedSeparator),
            ("/a%00", EncodedSeparator),
            ("/a\\b", Backslash),
            ("/.", DotSegment),
            ("/..", DotSegment),
            ("/./a", DotSegment),
            ("/a/../b", DotSegment),
            ("/v1/../admin//x/%2e%2e/%2f", DotSegment),
            ("/%2e%2e/b", DotSegment),
            ("/.%2E/b", DotSegment),
            ("/a%2ejson", DotSegment),
            ("/a/..;x/b", DotSegment),
            ("/a/.;/b", DotSegment),
            ("/%", BadEscape),
            ("/%4", BadEscape),
            ("/%4/x", BadEscape),
            ("/%zz", BadEscape),
            ("/%+1", BadEscape),
            ("/%é", BadEscape),
        ] {
            check(target, Err(fault));
        }
    }

    #[test]
    fn slashes_below_models_alone_are_resolved() {
        for (target, expected) in [
            ("/v1/models/a%2Fb", Some("/v1/models/a/b")),
            ("/v1/models/a%2fb/c%2Fd?e=%2F", Some("/v1/models/a/b/c/d?e=%2F")),
            ("/x%2Fy/models/a%2F..%2Fb", Some("/x%2Fy/models/a/../b")),
            ("/v1/models/a%252Fb", None),
            ("/v1/models/a", None),
            ("/v1/models?x=/models/a%2Fb", None),
            ("/v1%2Fmodels/a", None),
            ("/a%2Fb", None),
        ] {
            assert_eq!(with_models_slashes(target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn a_part_of_a_path_is_decoded_once() {
        for (part, expected) in
            [("a", "a"), ("a%20b", "a b"), ("m%C3%A9", "m\u{e9}"), ("a+b%252F", "a+b%2F"), ("%FF", "%FF")]
        {
            assert_eq!(decoded(part), expected, "{part}");
        }
    }

    #[test]
    fn collapses_slashes() {
        for (path, expected) in [
            ("/v1//chat/completions", "/v1/chat/completions"),
            ("//v1///models//", "/v1/models/"),
            ("/v1/models", "/v1/models"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(collapsed(path), expected, "{path}");
        }
        assert!(matches!(collapsed("/v1/models"), Cow::Borrowed(_)));
    }

    #[test]
    fn prefixes_end_at_a_segment() {
        for (path, prefix, expected) in [
            ("/api", "/api", true),
            ("/api/", "/api", true),
            ("/api/x", "/api", true),
            ("/api?q", "/api", true),
            ("/apix", "/api", false),
            ("/ap", "/api", false),
            ("/API", "/api", false),
            ("/x/api", "/api", false),
            ("/api", "/api/", true),
            ("/api/x", "/api/", true),
            ("/apix", "/api/", false),
            ("/", "/", true),
            ("/x", "/", true),
        ] {
            assert_eq!(has_path_prefix(path, prefix), expected, "{path} under {prefix}");
        }
    }

    proptest! {
        #[test]
        fn reading_what_was_read_changes_nothing(target in "/([a-z/.;%?]|%[0-9a-fA-F]{2}|\\PC){0,12}") {
            if let Ok(read) = read_target(&target) {
                let again = read_target(&read.path).map(|target| target.path.into_owned());
                prop_assert_eq!(again, Ok(read.path.into_owned()));
            }
        }
    }
}
