//! The same check for a head that comes as fields and not as text: HTTP/2's. What the decoder refuses by itself (names
//! in capitals, control bytes, pseudo-fields in the wrong place) does not come here.

use http::header::{self, HeaderName};
use http::{HeaderMap, Method, Uri};

use super::fields::Fields;
use super::{FIELDS_MAX, HEAD_BYTES_MAX, HeadFault, Malformed, host};
use crate::protocol::class;

/// Fields of one HTTP/1 connection (RFC 9113 section 8.2.2).
const OF_CONNECTIONS: [HeaderName; 4] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What a field counts beside its text, in bytes (RFC 9113 section 6.5.2).
const FIELD_BYTES: usize = 32;

/// Checks one decoded head. Afterwards one host is named, by `:authority`, by `Host`, or by both alike.
///
/// # Errors
/// The first fault found.
pub fn check_decoded_head(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), HeadFault> {
    if headers.len() > FIELDS_MAX {
        return Err(HeadFault::TooManyFields);
    }
    if bytes(method, uri, headers) > HEAD_BYTES_MAX {
        return Err(HeadFault::TooLarge);
    }
    // Methods are case-sensitive, but not to every server behind us.
    let is = |name| method.as_str().eq_ignore_ascii_case(name);
    if is("CONNECT") {
        return Err(Malformed::Connect.into());
    }
    if is("TRACE") || is("TRACK") {
        return Err(Malformed::Trace.into());
    }
    check_target(method, uri)?;
    if headers.contains_key(header::UPGRADE) {
        return Err(HeadFault::UpgradeOffered);
    }
    if OF_CONNECTIONS.iter().any(|name| headers.contains_key(name)) {
        return Err(Malformed::ConnectionField.into());
    }
    if headers.get_all(header::TE).iter().any(|value| value != "trailers") {
        return Err(Malformed::TeUnknown.into());
    }
    let mut fields = Fields::default();
    for (name, value) in headers {
        let name = name.as_str().as_bytes();
        if !class::are(name, class::PLAIN_NAME) {
            if !class::are(name, class::NAME) {
                return Err(Malformed::NameUnderscore.into()); // the only byte that the decoder knows and we do not
            }
            if class::resembles_guarded(name) {
                return Err(Malformed::NameResemblesGuarded.into());
            }
        }
        let value = value.as_bytes();
        if !class::are_values(value) {
            return Err(Malformed::ValueByte.into());
        }
        if class::trim(value).len() != value.len() {
            return Err(Malformed::ValuePadded.into());
        }
        fields.note(name, value)?;
    }
    check_host(uri, headers)
}

/// How large a head is, as clients count.
fn bytes(method: &Method, uri: &Uri, headers: &HeaderMap) -> usize {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let pseudo = [
        (":method", method.as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (":authority", authority),
        (":path", target),
    ];
    let pseudo = pseudo.into_iter().filter(|(_, value)| !value.is_empty());
    let pseudo = pseudo.map(|(name, value)| name.len() + value.len());
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    pseudo.chain(fields).map(|bytes| bytes + FIELD_BYTES).sum()
}

fn check_target(method: &Method, uri: &Uri) -> Result<(), HeadFault> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let form = target.starts_with('/') || (target == "*" && method == Method::OPTIONS);
    if !form {
        return Err(Malformed::TargetForm.into());
    }
    if !class::are(target.as_bytes(), class::TARGET) {
        return Err(Malformed::TargetByte.into());
    }
    match uri.scheme_str() {
        None | Some("http" | "https") => Ok(()),
        Some(_) => Err(Malformed::SchemeUnknown.into()),
    }
}

/// That `Host` stands at most once and is one has been seen by then.
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), HeadFault> {
    let named = headers.get(header::HOST).map(http::HeaderValue::as_bytes);
    match (uri.authority().map(|authority| authority.as_str().as_bytes()), named) {
        (None, None) => Err(Malformed::HostMissing.into()),
        (None, Some(_)) => Ok(()),
        (Some(authority), _) if !host::is_host(authority) => Err(Malformed::HostMalformed.into()),
        (Some(authority), Some(named)) if !authority.eq_ignore_ascii_case(named) => Err(Malformed::HostDiffers.into()),
        (Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Malformed as M;
    use http::{HeaderValue, Request};

    fn check(method: &str, uri: &str, fields: &[(&str, &str)], expected: Result<(), HeadFault>) {
        let request = Request::builder().method(method).uri(uri);
        let mut request = request.body(()).unwrap_or_else(|error| panic!("{method} {uri}: {error}"));
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        let found = check_decoded_head(request.method(), request.uri(), request.headers());
        assert_eq!(found, expected, "{method} {uri} {fields:?}");
    }

    #[test]
    fn heads_that_pass() {
        for (method, uri, fields) in [
            ("GET", "https://api.test/a?b=%2f", &[][..]),
            ("GET", "http://api.test:8080/", &[("host", "API.test:8080")]),
            ("POST", "/a", &[("host", "[::1]:80"), ("content-length", "5"), ("te", "trailers")]),
            ("OPTIONS", "*", &[("host", "a")]),
            ("GET", "https://a/", &[("cookie", "a=b"), ("cookie", "c=d"), ("x-empty", ""), ("x", "a\tb \u{e9}")]),
            ("PUT", "https://a/", &[("expect", "100-Continue"), ("authorization", "Bearer x")]),
        ] {
            check(method, uri, fields, Ok(()));
        }
    }

    #[test]
    fn heads_that_two_parsers_could_read_differently() {
        let bad =
            |method, uri, fields: &[(&str, &str)], fault: Malformed| check(method, uri, fields, Err(fault.into()));
        bad("CONNECT", "a:80", &[], M::Connect);
        bad("connect", "https://a/", &[], M::Connect);
        bad("TRACE", "https://a/", &[], M::Trace);
        bad("track", "https://a/", &[], M::Trace);
        bad("GET", "https://a/", &[("content.length", "1")], M::NameResemblesGuarded);
        bad("GET", "https://a/", &[("contentlength", "1")], M::NameResemblesGuarded);
        bad("GET", "https://a/", &[("x.api.key", "1")], M::NameResemblesGuarded);
        bad("GET", "https://a/", &[("content-type", "a"), ("content-type", "b")], M::TypeRepeated);
        bad("GET", "*", &[("host", "a")], M::TargetForm);
        bad("GET", "https://a/\"", &[], M::TargetByte);
        bad("GET", "https://a/\u{e9}", &[], M::TargetByte);
        bad("GET", "ftp://a/", &[], M::SchemeUnknown);
        bad("GET", "/", &[], M::HostMissing);
        bad("GET", "https://a/", &[("host", "b")], M::HostDiffers);
        bad("GET", "https://a:443/", &[("host", "a")], M::HostDiffers);
        bad("GET", "https://u@a/", &[], M::HostMalformed);
        bad("GET", "https://a/", &[("host", "a"), ("host", "a")], M::HostRepeated);
        bad("GET", "https://a/", &[("host", "")], M::HostMalformed);
        bad("GET", "/", &[("host", "a/b")], M::HostMalformed);
        for name in ["connection", "transfer-encoding", "keep-alive", "proxy-connection"] {
            bad("GET", "https://a/", &[(name, "x")], M::ConnectionField);
        }
        bad("GET", "https://a/", &[("te", "gzip")], M::TeUnknown);
        bad("GET", "https://a/", &[("te", "trailers"), ("te", "trailers, deflate")], M::TeUnknown);
        bad("GET", "https://a/", &[("x_app", "1")], M::NameUnderscore);
        bad("GET", "https://a/", &[("x", " 1")], M::ValuePadded);
        bad("GET", "https://a/", &[("x", "1\t")], M::ValuePadded);
        for length in ["", "+1", "01", "1,1", "0x1", "1 1", "-1"] {
            bad("POST", "https://a/", &[("content-length", length)], M::LengthMalformed);
        }
        bad("POST", "https://a/", &[("content-length", "9223372036854775808")], M::LengthTooLarge);
        bad("POST", "https://a/", &[("content-length", "1"), ("content-length", "1")], M::LengthRepeated);
        bad("GET", "https://a/", &[("authorization", "x"), ("authorization", "x")], M::AuthorizationRepeated);
    }

    #[test]
    fn heads_that_ask_for_what_is_not_there() {
        check("GET", "https://a/", &[("upgrade", "websocket")], Err(HeadFault::UpgradeOffered));
        check("GET", "https://a/", &[("expect", "200-ok")], Err(HeadFault::ExpectationUnknown));
        let many = vec![("x", "1"); FIELDS_MAX];
        check("GET", "https://a/", &many, Ok(()));
        check("GET", "https://a/", &[many, vec![("x", "1")]].concat(), Err(HeadFault::TooManyFields));
    }

    #[test]
    fn heads_are_as_large_as_clients_count_them() {
        // 42, 44, 43 and 38 bytes of pseudo-fields, and 33 of the field beside its value.
        let fits = "v".repeat(HEAD_BYTES_MAX - 200);
        check("GET", "https://a/", &[("x", &fits)], Ok(()));
        check("GET", "https://a/", &[("x", &format!("{fits}v"))], Err(HeadFault::TooLarge));
        let long = format!("https://a/{}", "p".repeat(HEAD_BYTES_MAX));
        check("GET", &long, &[], Err(HeadFault::TooLarge));
    }
}
