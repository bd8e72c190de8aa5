//! What a request's head says of its body: whether a seller could find a model in it, and whether it would read the same
//! bytes as we do. Where it might read others, the body is not read as JSON here.

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// The content type in lower case; bytes that are no text do not hide the rest.
fn content_type(head: &HeaderMap) -> Cow<'_, str> {
    let bytes = head.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    match bytes {
        b"application/json" => "application/json".into(), // nearly every one
        _ => String::from_utf8_lossy(bytes).to_ascii_lowercase().into(),
    }
}

/// Whether a body says that it is JSON.
pub fn says_json(head: &HeaderMap) -> bool {
    let kind = content_type(head);
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind == "application/json" || kind.ends_with("+json")
}

/// Whether a seller could read a body as JSON: everything but forms with files and raw bytes. Some servers do not look
/// at the content type.
pub fn may_be_json(head: &HeaderMap) -> bool {
    let kind = content_type(head);
    let other = ["multipart/", "audio/", "image/", "video/", "application/octet-stream"];
    !other.iter().any(|other| kind.starts_with(other))
}

/// Whether a body is anything but the bytes that it stands for, by any line that says so.
pub fn is_coded(head: &HeaderMap) -> bool {
    let codings = head.get_all(CONTENT_ENCODING).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    codings.map(<[u8]>::trim_ascii).any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether a body says that its letters are not UTF-8's. Everything that a reader could take for the parameter counts,
/// in quotes or not, the first or not.
pub fn has_other_charset(head: &HeaderMap) -> bool {
    let kind = content_type(head);
    let Some(parameters) = memchr::memchr2(b';', b',', kind.as_bytes()).and_then(|at| kind.get(at..)) else {
        return false;
    };
    parameters.split([';', ',']).skip(1).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let value = value.trim().trim_matches(['"', '\'']).trim();
        name.trim().starts_with("charset") && !matches!(value, "utf-8" | "utf8" | "us-ascii" | "ascii")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &'static str, lines: &[&'static [u8]]) -> HeaderMap {
        lines.iter().map(|line| (name.parse().unwrap(), HeaderValue::from_bytes(line).unwrap())).collect()
    }

    #[test]
    fn every_coding_of_every_line_counts() {
        let coded = |lines: &[&'static [u8]]| is_coded(&head("content-encoding", lines));
        assert!(!coded(&[]));
        for plain in [b"".as_slice(), b"identity", b"IDENTITY", b" identity , "] {
            assert!(!coded(&[plain]) && !coded(&[plain, b"Identity"]), "{plain:?}");
        }
        for other in [b"gzip".as_slice(), b"identity, br", b"x", b"identity;q=1"] {
            assert!(coded(&[other]) && coded(&[b"identity", other]), "{other:?}");
        }
    }

    #[test]
    fn only_utf_8_is_no_other_charset() {
        let other = |line: &'static str| has_other_charset(&head("content-type", &[line.as_bytes()]));
        for plain in [
            "application/json",
            "charset=utf-7",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "text/plain; Charset=US-ASCII; q=1",
            "application/json; boundary=x",
        ] {
            assert!(!other(plain), "{plain}");
        }
        for line in [
            "application/json; charset=utf-7",
            "application/json; charset = \"utf-16\"",
            "application/json; charset=utf-8; charset=cp037",
            "application/json; charset*=utf-8''utf-7",
            "text/plain, application/json; CHARSET=gbk",
            "application/json; charset=",
        ] {
            assert!(other(line), "{line}");
        }
        assert!(has_other_charset(&head("content-type", &[b"application/json; charset=utf-7; x=\xff"])));
    }

    #[test]
    fn raw_bytes_and_forms_with_files_are_not_json_in_any_case() {
        let kind = |line: &'static [u8]| head("content-type", &[line]);
        for line in
            [&b"Multipart/form-data; boundary=x"[..], b"IMAGE/png", b"audio/wav\xff", b"application/octet-stream"]
        {
            assert!(!may_be_json(&kind(line)), "{line:?}");
        }
        for line in [&b"application/json"[..], b"text/plain", b"\xff", b"x, image/png"] {
            assert!(may_be_json(&kind(line)), "{line:?}");
        }
        assert!(says_json(&kind(b"Application/JSON ; charset=utf-8")) && says_json(&kind(b"application/vnd.x+json")));
        assert!(!says_json(&kind(b"text/json")) && !says_json(&HeaderMap::new()));
    }
}
