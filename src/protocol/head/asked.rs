//! What a refused head asked for: for the log, and for the page that may read why. Nothing else is decided by it, for two
//! parsers could read it differently.

use crate::protocol::class;
use crate::protocol::request_id::valid_request_id;

/// Longest method that is told.
const METHOD_BYTES_MAX: usize = 32;
/// Longest origin that is told.
const ORIGIN_BYTES_MAX: usize = 256;
/// What is told of a path.
const PATH_BYTES_MAX: usize = 256;
/// What stands for a method or a path that cannot be told.
const UNTOLD: &str = "-";

/// What a head asked for, as far as that can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A method, or `-`.
    pub method: String,
    /// The beginning of a path, without the query, or `-`.
    pub path: String,
    /// The client's id for the request, if it is a valid one.
    pub request_id: Option<String>,
    /// The page's origin, if one is named, once.
    pub origin: Option<String>,
}

/// Reads a head, or the beginning of one, that was refused.
pub fn asked(head: &[u8]) -> Asked {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let path = path.get(..path.len().min(PATH_BYTES_MAX)).unwrap_or_default();
    let is_method = method.len() <= METHOD_BYTES_MAX && class::are(method, class::TOKEN);
    let is_path = path.starts_with(b"/") && path.iter().all(u8::is_ascii_graphic);
    let text = |bytes: &[u8], fits: bool| match std::str::from_utf8(bytes) {
        Ok(text) if fits && !text.is_empty() => text.to_owned(),
        Ok(_) | Err(_) => UNTOLD.to_owned(),
    };
    let (mut request_id, mut origin, mut origins) = (None, None, 0_usize);
    for (name, value) in lines.filter_map(field) {
        let told = || Some(String::from_utf8_lossy(value).into_owned());
        if name.eq_ignore_ascii_case(b"x-request-id") && valid_request_id(value) {
            request_id = request_id.or_else(told);
        } else if name.eq_ignore_ascii_case(b"origin") {
            origins = origins.saturating_add(1);
            let fits = value.len() <= ORIGIN_BYTES_MAX && value.iter().all(u8::is_ascii_graphic);
            origin = told().filter(|_| fits);
        }
    }
    Asked {
        method: text(method, is_method),
        path: text(path, is_method && is_path),
        request_id,
        origin: origin.filter(|_| origins == 1),
    }
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b':', line)?;
    Some((line.get(..at)?, class::trim(line.get(at.saturating_add(1)..)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_told_is_told() {
        let check = |head: &str, method: &str, path: &str, id: Option<&str>| {
            let (method, path) = (method.to_owned(), path.to_owned());
            let told = Asked { method, path, request_id: id.map(str::to_owned), origin: None };
            assert_eq!(asked(head.as_bytes()), told, "{head:?}");
        };
        check("POST /v1/x?k=secret HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "POST", "/v1/x", None);
        check("GET /a\nX-Request-ID:\t r-1 \n", "GET", "/a", Some("r-1"));
        check("GET /a HTTP/1.1\r\nx-request-id: a b\r\n\r\n", "GET", "/a", None);
        check("GET  /a HTTP/1.1\r\n\r\n", "GET", "-", None);
        check("GET /a\u{e9} HTTP/1.1\r\n\r\n", "GET", "-", None);
        check("GET http://u:p@h/a HTTP/1.1\r\n\r\n", "GET", "-", None);
        check("G\"T /a HTTP/1.1\r\n\r\n", "-", "-", None);
        check("\u{16}\u{3}\u{1}hello", "-", "-", None);
        check("", "-", "-", None);
        check("GET", "GET", "-", None);
        check(&format!("{} /a", "G".repeat(33)), "-", "-", None);
        let long = "/".repeat(300);
        check(&format!("GET {long} HTTP/1.1\r\n\r\n"), "GET", &long[..256], None);
    }

    #[test]
    fn the_page_is_told_if_it_is_one() {
        let check = |fields: &str, expected: Option<&str>| {
            assert_eq!(
                asked(format!("GET /a HTTP/1.1\r\n{fields}\r\n").as_bytes()).origin.as_deref(),
                expected,
                "{fields:?}"
            );
        };
        check("Host: a\r\norigin: https://a.test\r\nx_y: 1\r\n", Some("https://a.test"));
        check("ORIGIN:null\r\n", Some("null"));
        check("Origin: https://a.test\r\nOrigin: https://a.test\r\n", None);
        check("Origin: https://a.test\r\nOrigin: a b\r\n", None);
        check("Origin : https://a.test\r\n", None);
        check("Origin: a\u{e9}\r\n", None);
        check(&format!("Origin: {}\r\n", "o".repeat(257)), None);
    }
}
