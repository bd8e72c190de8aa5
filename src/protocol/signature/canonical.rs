//! The canonical request: the text that stands for a request when it is signed.

use http::HeaderMap;

use super::SignedRequest;
use crate::domain::credential::SignatureRule;

/// What is written down of a request.
pub(super) struct Canonical<'a> {
    pub(super) request: SignedRequest<'a>,
    pub(super) signed: &'a [&'a str],
    pub(super) signed_line: &'a str,
    pub(super) payload: &'a str,
}

impl Canonical<'_> {
    /// The text by one rule.
    pub(super) fn bytes(&self, rule: SignatureRule) -> Vec<u8> {
        let (path, query) = split_target(self.request.target);
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(self.request.method.as_bytes());
        text.push(b'\n');
        put_path(&mut text, path, rule);
        text.push(b'\n');
        put_query(&mut text, query, rule);
        text.push(b'\n');
        for name in self.signed {
            put_header(&mut text, name, self.request.headers, self.request.authority);
        }
        text.push(b'\n');
        text.extend_from_slice(self.signed_line.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(self.payload.as_bytes());
        text
    }
}

fn split_target(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// Each segment decoded once and encoded again, or encoded as it came; always with a slash at the end.
fn put_path(text: &mut Vec<u8>, path: &str, rule: SignatureRule) {
    let start = text.len();
    if rule == SignatureRule::RawPath || !path.contains('%') {
        path.bytes().for_each(|byte| put_path_byte(text, byte));
    } else {
        decoded(path.as_bytes(), false).into_iter().for_each(|byte| put_path_byte(text, byte));
    }
    if text.len() == start || text.last() != Some(&b'/') {
        text.push(b'/');
    }
}

fn put_path_byte(text: &mut Vec<u8>, byte: u8) {
    if byte == b'/' { text.push(byte) } else { put_encoded(text, byte) }
}

/// Parameters decoded, sorted by name and value, encoded again. A parameter without a name is left out, one without a
/// value has an empty one.
fn put_query(text: &mut Vec<u8>, query: &str, rule: SignatureRule) {
    if query.is_empty() {
        return;
    }
    let plus_is_space = rule != SignatureRule::LiteralPlus;
    let read = |part: &str| decoded(part.as_bytes(), plus_is_space);
    let parameters = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!name.is_empty()).then(|| (read(name), read(value)))
    });
    let encoded = |bytes: &[u8]| {
        let mut text = Vec::with_capacity(bytes.len());
        bytes.iter().for_each(|byte| put_encoded(&mut text, *byte));
        text
    };
    let pairs: Vec<_> = if rule == SignatureRule::EncodedSort {
        let mut pairs: Vec<_> = parameters.map(|(name, value)| (encoded(&name), encoded(&value))).collect();
        pairs.sort_unstable();
        pairs
    } else {
        let mut pairs: Vec<_> = parameters.collect();
        pairs.sort_unstable();
        pairs.into_iter().map(|(name, value)| (encoded(&name), encoded(&value))).collect()
    };
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            text.push(b'&');
        }
        text.extend_from_slice(name);
        text.push(b'=');
        text.extend_from_slice(value);
    }
}

/// One line for each value of a header, the values sorted, outer white space off, inner kept.
fn put_header(text: &mut Vec<u8>, name: &str, headers: &HeaderMap, authority: Option<&str>) {
    let mut line = |value: &[u8]| {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value.trim_ascii());
        text.push(b'\n');
    };
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => authority.filter(|_| name == "host").into_iter().for_each(|host| line(host.as_bytes())),
        (Some(only), None) => line(only.as_bytes()),
        (Some(_), Some(_)) => {
            let mut values: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
            values.sort_unstable();
            values.into_iter().for_each(line);
        }
    }
}

/// Escapes resolved once; what is no escape stays as it is.
fn decoded(bytes: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let escape = if *byte == b'%' { after.split_at_checked(2) } else { None };
        match escape.and_then(|(digits, after)| unhex::<1>(digits).map(|byte| (byte, after))) {
            Some(([byte], after)) => {
                text.push(byte);
                rest = after;
            }
            None if *byte == b'+' && plus_is_space => text.push(b' '),
            None => text.push(*byte),
        }
    }
    text
}

/// The text that percent-decoding makes of a parameter's name or value; a plus stays one.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    decoded(text.as_bytes(), false)
}

fn put_encoded(text: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
        text.push(byte);
    } else {
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        text.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of exactly so many hexadecimal digits.
pub(super) fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

/// The canonical request with an asterisk for each value, its lines parted by `|`.
pub(super) fn redacted(request: SignedRequest<'_>, signed: &[&str], signed_line: &str) -> String {
    let (path, query) = split_target(request.target);
    let mut text = Vec::new();
    put_path(&mut text, path, SignatureRule::Base);
    let path = String::from_utf8_lossy(&text).into_owned();
    let mut names: Vec<&str> = query.split('&').filter_map(|pair| pair.split('=').next()).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    let query: Vec<String> = names.iter().map(|name| format!("{name}=*")).collect();
    let headers: Vec<String> = signed.iter().map(|name| format!("{name}:*")).collect();
    let parts = [request.method, &path, &query.join("&"), &headers.join("|"), "", signed_line, "*"];
    parts.join("|")
}
