//! What a refused head asked for: for the log alone. Nothing is decided by it, for two parsers could read it differently.

use crate::protocol::class;
use crate::protocol::request_id::valid_request_id;

/// Longest method that is told.
const METHOD_BYTES_MAX: usize = 32;
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
}

/// Reads a head, or the beginning of one, that was refused.
pub fn asked(head: &[u8]) -> Asked {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let path = path.get(..path.len().min(PATH_BYTES_MAX)).unwrap_or_default();
    let is_method = method.len() <= METHOD_BYTES_MAX && method.iter().all(|byte| class::is_token(*byte));
    let is_path = path.starts_with(b"/") && path.iter().all(u8::is_ascii_graphic);
    let text = |bytes: &[u8], fits: bool| match std::str::from_utf8(bytes) {
        Ok(text) if fits && !text.is_empty() => text.to_owned(),
        Ok(_) | Err(_) => UNTOLD.to_owned(),
    };
    Asked { method: text(method, is_method), path: text(path, is_method && is_path), request_id: lines.find_map(id) }
}

fn id(line: &[u8]) -> Option<String> {
    let at = memchr::memchr(b':', line)?;
    let (name, value) = (line.get(..at)?, class::trim(line.get(at.saturating_add(1)..)?));
    let fits = name.eq_ignore_ascii_case(b"x-request-id") && valid_request_id(value);
    fits.then(|| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_told_is_told() {
        let check = |head: &str, method: &str, path: &str, id: Option<&str>| {
            let told = Asked { method: method.to_owned(), path: path.to_owned(), request_id: id.map(str::to_owned) };
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
}
