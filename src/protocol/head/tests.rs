//! Both sides of every rule of the head, and what the engine behind must be able to take.

use super::Malformed as M;
use super::*;
use proptest::prelude::*;

/// How `find_head_end` and `check_head` together judge what arrives on a connection.
fn judge(bytes: &[u8]) -> Result<HeadFacts, HeadFault> {
    match find_head_end(bytes, 0) {
        HeadEnd::Complete { start, end } => check_head(&bytes[start..end]),
        HeadEnd::Fault(fault) => Err(fault),
        HeadEnd::Partial { .. } => panic!("no end found in {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Judges the bytes whole, then arriving one by one: both must say the same.
fn check(bytes: impl AsRef<[u8]>, expected: Result<HeadFacts, HeadFault>) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(bytes);
    assert_eq!(judge(bytes), expected, "{shown:?}");
    let mut searched = 0;
    for end in 1..=bytes.len() {
        match find_head_end(&bytes[..end], searched) {
            HeadEnd::Partial { searched: so_far } => searched = so_far,
            settled @ (HeadEnd::Complete { .. } | HeadEnd::Fault(_)) => {
                assert_eq!(settled, find_head_end(bytes, 0), "{shown:?}");
                return;
            }
        }
    }
    panic!("never settled: {shown:?}");
}

fn plain() -> HeadFacts {
    HeadFacts { version: Version::Http11, framing: Framing::None, expects_continue: false, keep_alive: true }
}

fn with_body(framing: Framing) -> HeadFacts {
    HeadFacts { framing, ..plain() }
}

fn refused(fault: impl Into<HeadFault>) -> Result<HeadFacts, HeadFault> {
    Err(fault.into())
}

/// A head whose only other field is `Host: a`.
fn with_field(line: &str) -> String {
    format!("POST /v1 HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")
}

fn with_host(value: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost:{value}\r\n\r\n")
}

fn with_line(line: &str) -> String {
    format!("{line}\r\nHost: a.example\r\n\r\n")
}

#[test]
fn line_ends() {
    check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(plain()));
    check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(plain()));
    check("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next", Ok(plain()));
    for (bytes, fault) in [
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", M::BlankLines),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", M::BareLineFeed),
        ("GET / HTTP/1.1\nHost: a\n\n", M::BareLineFeed),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", M::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", M::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", M::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\nContent-Length: 3\r\n\r\n", M::BareLineFeed),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", M::BareCarriageReturn),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", M::BareCarriageReturn),
        ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", M::BareCarriageReturn),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", M::BareCarriageReturn),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", M::BareCarriageReturn),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r: b\r\n\r\n", M::BareCarriageReturn),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", M::BareCarriageReturn),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", M::BareCarriageReturn),
    ] {
        check(bytes, refused(fault));
    }
}

#[test]
fn bytes_that_are_no_request() {
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01", refused(M::NotHttp)); // a TLS ClientHello
    check(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", refused(M::NotHttp));
    check("\0", refused(M::NotHttp));
    check("{\"model\":1}", refused(M::NotHttp));
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused(M::Version)); // an HTTP/2 preface
}

#[test]
fn request_lines() {
    for line in [
        "GET / HTTP/1.1",
        "get / HTTP/1.1",
        "M-SEARCH /x HTTP/1.1",
        "A!#$%&'*+-.^_`|~9 /x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /a//b/../%2f?q={x}|^\\[] HTTP/1.1",
        "GET /?a=b HTTP/1.1",
        "GET http://a.example/x HTTP/1.1",
        "GET HTTPS://A.Example/x?y HTTP/1.1",
        "GET http://a.example HTTP/1.1",
        "GET http://a.example?q HTTP/1.1",
    ] {
        check(with_line(line), Ok(plain()));
    }
    for (line, fault) in [
        ("GET  / HTTP/1.1", M::RequestLine),
        ("GET /  HTTP/1.1", M::RequestLine),
        ("GET / x HTTP/1.1", M::RequestLine),
        ("GET / HTTP/1.1 ", M::RequestLine),
        ("GET\t/ HTTP/1.1", M::RequestLine),
        ("GET /\tHTTP/1.1", M::RequestLine),
        ("GET /\t HTTP/1.1", M::RequestLine),
        ("GET /", M::RequestLine),
        ("GET", M::RequestLine),
        ("GET HTTP/1.1", M::RequestLine),
        ("G(T / HTTP/1.1", M::RequestLine),
        ("G\u{e9}T / HTTP/1.1", M::RequestLine),
        ("GET / http/1.1", M::RequestLine),
        ("GET / HTTP/1.10", M::RequestLine),
        ("GET / HTTP/11", M::RequestLine),
        ("GET / HTTP/ 1.1", M::RequestLine),
        ("GET / HTTP/0.9", M::Version),
        ("GET / HTTP/1.2", M::Version),
        ("GET / HTTP/2", M::Version),
        ("GET / HTTP/3.0", M::Version),
        ("CONNECT a.example:443 HTTP/1.1", M::Connect),
        ("connect / HTTP/1.1", M::Connect),
        ("GET /#top HTTP/1.1", M::TargetByte),
        ("GET /\u{e9} HTTP/1.1", M::TargetByte),
        ("GET /\0 HTTP/1.1", M::TargetByte),
        ("GET /\u{7f} HTTP/1.1", M::TargetByte),
        ("GET /<b> HTTP/1.1", M::TargetByte),
        ("GET /?\"q\" HTTP/1.1", M::TargetByte),
        ("GET /`x HTTP/1.1", M::TargetByte),
        ("GET * HTTP/1.1", M::TargetForm),
        ("options * HTTP/1.1", M::TargetForm),
        ("OPTIONS ** HTTP/1.1", M::TargetForm),
        ("GET ! HTTP/1.1", M::TargetForm),
        ("GET x/y HTTP/1.1", M::TargetForm),
        ("GET ?q HTTP/1.1", M::TargetForm),
        ("GET a.example:80 HTTP/1.1", M::TargetForm),
        ("GET ftp://a.example/ HTTP/1.1", M::TargetForm),
        ("GET http:/a.example/ HTTP/1.1", M::TargetForm),
        ("GET http://b.example/ HTTP/1.1", M::AuthorityDiffers),
        ("GET http://a.example:80/ HTTP/1.1", M::AuthorityDiffers),
        ("GET http://me@a.example/ HTTP/1.1", M::AuthorityDiffers),
        ("GET http:///x HTTP/1.1", M::AuthorityDiffers),
        ("GET http://a.example\\@b.example/ HTTP/1.1", M::AuthorityDiffers),
    ] {
        check(with_line(line), refused(fault));
    }
}

#[test]
fn hosts() {
    for value in [
        "a",
        " a ",
        "\ta",
        " api.example.com",
        " API.Example.COM:8443",
        " my_service:80",
        " 127.0.0.1:8080",
        " [::1]",
        " [::1]:8080",
        " [2001:db8::1:2]:1",
        " a:0",
        " a:65535",
        " xn--fsq.example",
    ] {
        check(with_host(value), Ok(plain()));
    }
    for value in [
        "",
        " ",
        ":80",
        " a:",
        " a:x",
        " a:65536",
        " a:123456",
        " a:+1",
        " a:80:80",
        " a/b",
        " a#b",
        " a?b",
        " a@b",
        " a b",
        " a,b",
        " a%2eb",
        " a;b",
        " a\\b",
        " \u{e9}",
        " [::1",
        " ::1",
        " [::1]x",
        " [::1]:",
        " [1.2.3.4]",
        " [::1%25eth0]",
        " []",
        " http://a",
    ] {
        check(with_host(value), refused(M::HostMalformed));
    }
    check("GET / HTTP/1.1\r\nAccept: a\r\n\r\n", refused(M::HostMissing));
    check("GET / HTTP/1.1\r\n\r\n", refused(M::HostMissing));
    check("GET / HTTP/1.1\r\nHost: a\r\nHOST: a\r\n\r\n", refused(M::HostRepeated));
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", refused(M::HostRepeated));
    check("GET / HTTP/1.0\r\nHost: \r\n\r\n", refused(M::HostMalformed));
    check("GET http://a/ HTTP/1.0\r\n\r\n", refused(M::AuthorityDiffers));
}

#[test]
fn field_syntax() {
    for line in [
        "X: b",
        "X:b",
        "X:",
        "X: ",
        "X: \t b \t",
        "X: a\tb",
        "X: caf\u{e9} \u{4e2d}",
        "X: :::",
        "x!#$%&'*+-.^`|~9: b",
        "X: b\r\nX: b",
        "Cookie: a=b; c=\"d\"",
    ] {
        check(with_field(line), Ok(plain()));
    }
    for (line, fault) in [
        (" X: b", M::ObsoleteFold),
        ("\tX: b", M::ObsoleteFold),
        ("X: b\r\n c", M::ObsoleteFold),
        ("X: b\r\n\tc: d", M::ObsoleteFold),
        ("X : b", M::BlankBeforeColon),
        ("X\t: b", M::BlankBeforeColon),
        ("Content-Length : 3", M::BlankBeforeColon),
        ("X", M::ColonMissing),
        ("X b", M::ColonMissing),
        (": b", M::NameEmpty),
        (":", M::NameEmpty),
        ("X_Y: b", M::NameUnderscore),
        ("Transfer_Encoding: chunked", M::NameUnderscore),
        ("_: b", M::NameUnderscore),
        ("X(Y): b", M::NameByte),
        ("X\0: b", M::NameByte),
        ("X\u{e9}: b", M::NameByte),
        ("\"X\": b", M::NameByte),
        ("X: a\0b", M::ValueByte),
        ("X: a\u{1}b", M::ValueByte),
        ("X: a\u{1b}b", M::ValueByte),
        ("X: a\u{7f}b", M::ValueByte),
        ("X: a\u{b}b", M::ValueByte),
    ] {
        check(with_field(line), refused(fault));
    }
    check(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\x80\r\n\r\n", Ok(plain()));
}

#[test]
fn framing() {
    for (line, framing) in [
        ("Content-Length: 0", Framing::Length(0)),
        ("Content-Length:7", Framing::Length(7)),
        ("CONTENT-LENGTH: \t10 ", Framing::Length(10)),
        ("Content-Length: 9223372036854775807", Framing::Length(LENGTH_MAX)),
        ("Transfer-Encoding: chunked", Framing::Chunked),
        ("transfer-encoding: CHUNKED ", Framing::Chunked),
        ("X-Content-Length: 5", Framing::None),
    ] {
        check(with_field(line), Ok(with_body(framing)));
    }
    for (line, fault) in [
        ("Content-Length:", M::LengthMalformed),
        ("Content-Length: ", M::LengthMalformed),
        ("Content-Length: +3", M::LengthMalformed),
        ("Content-Length: -3", M::LengthMalformed),
        ("Content-Length: 010", M::LengthMalformed),
        ("Content-Length: 00", M::LengthMalformed),
        ("Content-Length: 3,3", M::LengthMalformed),
        ("Content-Length: 3 3", M::LengthMalformed),
        ("Content-Length: 0x3", M::LengthMalformed),
        ("Content-Length: 3.0", M::LengthMalformed),
        ("Content-Length: \u{663}", M::LengthMalformed),
        ("Content-Length: 9223372036854775808", M::LengthTooLarge),
        ("Content-Length: 18446744073709551616", M::LengthTooLarge),
        ("Content-Length: 99999999999999999999999999", M::LengthTooLarge),
        ("Content-Length: 3\r\nContent-Length: 3", M::LengthRepeated),
        ("Content-Length: 3\r\ncontent-length: 4", M::LengthRepeated),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", M::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", M::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", M::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", M::EncodingRepeated),
        ("Transfer-Encoding:", M::EncodingUnknown),
        ("Transfer-Encoding: gzip, chunked", M::EncodingUnknown),
        ("Transfer-Encoding: chunked, chunked", M::EncodingUnknown),
        ("Transfer-Encoding: chunked,", M::EncodingUnknown),
        ("Transfer-Encoding: identity", M::EncodingUnknown),
        ("Transfer-Encoding: xchunked", M::EncodingUnknown),
        ("Transfer-Encoding: \"chunked\"", M::EncodingUnknown),
        ("Transfer-Encoding: chunked;q=1", M::EncodingUnknown),
    ] {
        check(with_field(line), refused(fault));
    }
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", refused(M::EncodingTooOld));
    check(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", refused(M::ValueByte));
}

#[test]
fn connection_and_upgrade() {
    for (line, keep_alive) in [
        ("Connection: close", false),
        ("Connection: CLOSE, te", false),
        ("Connection: close, keep-alive", false),
        ("Connection: te\r\nConnection: close", false),
        ("Connection: keep-alive", true),
        ("Connection: , ,", true),
        ("Connection:", true),
        ("Connection: x-upgraded, x-sdk, x-apigee", true),
    ] {
        check(with_field(line), Ok(HeadFacts { keep_alive, ..plain() }));
    }
    let old = |keep_alive| Ok(HeadFacts { version: Version::Http10, keep_alive, ..plain() });
    check("GET / HTTP/1.0\r\n\r\n", old(false));
    check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", old(true));
    check("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", old(false));
    for line in
        ["Upgrade: websocket", "upgrade: h2c", "Upgrade:", "Connection: Upgrade", "Connection: keep-alive, upgrade"]
    {
        check(with_field(line), refused(HeadFault::UpgradeOffered));
    }
    for name in [
        "host",
        "Authorization",
        "content-length",
        "Content-Type",
        "cookie",
        "X-Request-Id",
        "x-api-key",
        "X-Apig-AppCode",
        "x-sdk-date",
        "X-Tollgate-Remaining",
        "x-sdk-content-sha256-and-a-very-long-tail",
    ] {
        check(with_field(&format!("Connection: close , {name}")), refused(M::ConnectionNamesGuarded));
    }
    check(with_field("Connection: a b"), refused(M::ConnectionMalformed));
    check(with_field("Connection: \"close\""), refused(M::ConnectionMalformed));
}

#[test]
fn authorization_and_expect() {
    check(with_field("Authorization: Bearer x"), Ok(plain()));
    check(with_field("Authorization: a\r\nauthorization: a"), refused(M::AuthorizationRepeated));
    let waits = |expects_continue| Ok(HeadFacts { expects_continue, ..with_body(Framing::Length(3)) });
    check(with_field("Expect: 100-continue\r\nContent-Length: 3"), waits(true));
    check(with_field("Content-Length: 3\r\nexpect: 100-Continue"), waits(true));
    check(with_field("Content-Length: 3"), waits(false));
    check(with_field("Expect: 100-continue"), Ok(plain()));
    check(with_field("Expect: 100-continue\r\nContent-Length: 0"), Ok(with_body(Framing::Length(0))));
    check(
        "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        Ok(HeadFacts { version: Version::Http10, keep_alive: false, ..with_body(Framing::Length(3)) }),
    );
    for line in ["Expect: 200-ok", "Expect:", "Expect: 100-continue, x", "Expect: 100-continue;q=1"] {
        check(with_field(line), refused(HeadFault::ExpectationUnknown));
    }
}

#[test]
fn what_is_not_read_in_two_ways_behind_us() {
    for method in ["TRACE", "trace", "Track"] {
        check(with_line(&format!("{method} / HTTP/1.1")), refused(M::Trace));
    }
    check(with_line("TRACER / HTTP/1.1"), Ok(plain()));
    for name in ["Transfer.Encoding", "Transfer~Encoding", "!Content-Length", "Content|Length", "X.Sdk.Date"] {
        check(with_field(&format!("{name}: 1")), refused(M::NameResemblesGuarded));
    }
    for name in ["TransferEncoding", "Transfer--Encoding", "-Transfer-Encoding", "Transfer-Encoding-"] {
        check(with_field(&format!("{name}: chunked")), refused(M::NameResemblesGuarded));
    }
    for name in ["ContentLength", "Content--Length", "-ContentLength", "content-length-", "con-tent-length"] {
        check(with_field(&format!("{name}: 5")), refused(M::NameResemblesGuarded));
    }
    for name in ["X-Content-Length", "Content-Lengths", "Content-Len", "Transfer-Encodings", "Content-Language"] {
        check(with_field(&format!("{name}: 1")), Ok(plain()));
    }
    check(with_field("x.y!#$%&'*+^`|~: 1"), Ok(plain()));
    check(with_field("Content-Type: a/b\r\ncontent-type: a/b"), refused(M::TypeRepeated));
    check(with_field("Content-Type: a/b\r\nX-Type: a/b"), Ok(plain()));
}

#[test]
fn limits() {
    let lines = |count: usize| "X: b\r\n".repeat(count - 1) + "X: b";
    check(with_field(&lines(FIELDS_MAX - 1)), Ok(plain())); // and Host
    check(with_field(&lines(FIELDS_MAX)), refused(HeadFault::TooManyFields));

    let around = with_field("X: ").len();
    let fits = with_field(&format!("X: {}", "b".repeat(HEAD_BYTES_MAX - around)));
    assert_eq!(judge(fits.as_bytes()), Ok(plain()));
    let over = with_field(&format!("X: {}", "b".repeat(HEAD_BYTES_MAX - around + 1)));
    assert_eq!(judge(over.as_bytes()), Err(HeadFault::TooLarge));
    assert_eq!(check_head(over.as_bytes()), Err(HeadFault::TooLarge));
    let endless = "GET /".to_owned() + &"x".repeat(HEAD_BYTES_MAX);
    let end = |len: usize| find_head_end(&endless.as_bytes()[..len], 0);
    assert_eq!(end(HEAD_BYTES_MAX - 1), HeadEnd::Partial { searched: HEAD_BYTES_MAX - 1 });
    assert_eq!(end(HEAD_BYTES_MAX), HeadEnd::Fault(HeadFault::TooLarge));
}

#[test]
fn check_head_takes_one_whole_head() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(check_head(head.as_bytes()), Ok(plain()));
    for end in 0..head.len() {
        assert!(check_head(&head.as_bytes()[..end]).is_err(), "{end}");
    }
    assert_eq!(check_head(format!("{head}x").as_bytes()), refused(M::NotOneHead));
    assert_eq!(check_head(format!("\r\n{head}").as_bytes()), refused(M::RequestLine));
}

#[test]
fn every_reason_reads_alike() {
    for fault in [
        HeadFault::TooLarge,
        HeadFault::TooManyFields,
        HeadFault::UpgradeOffered,
        HeadFault::ExpectationUnknown,
        M::NameUnderscore.into(),
    ] {
        let reason = fault.reason();
        assert!(!reason.ends_with('.') && reason.contains(';'), "{reason}");
        assert_eq!(fault.to_string(), reason);
    }
}

/// Whether the engine's own types take what we accepted; if not, its refusal would lack our body
/// and request id.
fn engine_takes(head: &[u8]) -> bool {
    let text: Vec<&[u8]> =
        head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let mut parts = text[0].split(|byte| *byte == b' ');
    let (method, target) = (parts.next().unwrap(), parts.next().unwrap());
    http::Method::from_bytes(method).is_ok()
        && http::Uri::try_from(target).is_ok()
        && text[1..].iter().take_while(|line| !line.is_empty()).all(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            http::HeaderName::from_bytes(&line[..colon]).is_ok()
                && http::HeaderValue::from_bytes(class::trim(&line[colon + 1..])).is_ok()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check_head(&bytes);
        let _ = find_head_end(&bytes, 0);
    }

    #[test]
    fn the_engine_takes_what_is_accepted(
        target in prop_oneof!["/[!-~]{0,3}", "(http|HTTPS)://(a.b|\\[::1\\]:8)[!-~]{0,3}", "[!-~]{1,3}"],
        host in prop_oneof![Just("a.b"), Just("[::1]:8"), Just("A.B")],
        method in "[!-~]{1,4}",
        name in "[!-~]{1,4}",
        value in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{name}: ").into_bytes();
        head.extend(value);
        head.extend(b"\r\n\r\n");
        if check_head(&head).is_ok() {
            prop_assert!(engine_takes(&head), "{:?}", String::from_utf8_lossy(&head));
        }
    }

    #[test]
    fn a_head_is_found_the_same_however_it_is_cut(
        pieces in prop::collection::vec(prop_oneof![Just("\r\n"), Just("\n"), Just("\r"), Just("GET / HTTP/1.1"), Just("a: b")], 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = pieces.concat().into_bytes();
        let cut = cut.index(bytes.len() + 1);
        let whole = find_head_end(&bytes, 0);
        let in_two = match find_head_end(&bytes[..cut], 0) {
            HeadEnd::Partial { searched } => find_head_end(&bytes, searched),
            settled @ (HeadEnd::Complete { .. } | HeadEnd::Fault(_)) => settled,
        };
        prop_assert_eq!(in_two, whole);
    }

    /// Near to what is right: whatever the change, a verdict, and of an accepted head the engine's own.
    #[test]
    fn an_altered_head_is_judged_and_what_is_accepted_the_engine_takes(
        altered in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, prop_oneof![any::<u8>(), prop::sample::select(b"\r\n :\t,;_.".to_vec())]), 0..5),
    ) {
        let mut head = b"POST http://a.b:8/x?y HTTP/1.1\r\nHost: a.b:8\r\nContent-Length: 15\r\nConnection: close, te\r\nContent-Type: a/b\r\nX.Y: z\r\n\r\n".to_vec();
        for (at, how, byte) in altered {
            let at = at.index(head.len());
            match how {
                0 => head[at] = byte,
                1 => head.insert(at, byte),
                _ => drop(head.remove(at)),
            }
        }
        if let HeadEnd::Complete { start, end } = find_head_end(&head, 0)
            && check_head(&head[start..end]).is_ok()
        {
            prop_assert!(engine_takes(&head[start..end]), "{:?}", String::from_utf8_lossy(&head));
        }
        // The short way to a head that came whole finds what the long one does.
        let long = match find_head_end(&head, 0) {
            HeadEnd::Complete { start: 0, end } => Some(&head[..end]),
            HeadEnd::Complete { .. } | HeadEnd::Partial { .. } | HeadEnd::Fault(_) => None,
        };
        prop_assert_eq!(whole_head(&head), long.and_then(|head| Some((head, check_head(head).ok()?))));
    }
}
