//! Every recorded request, every altered one, the edges of the date, and what no request may do: pass when changed.

use base64::Engine;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde::Deserialize;

use super::explain::first_difference;
use super::*;

/// Requests as they came over a socket, see the file's own words.
#[derive(Deserialize)]
struct Vectors {
    app_key: String,
    app_secret: String,
    at: Timestamp,
    recorded: Vec<Recorded>,
    changed: Vec<Changed>,
    malformed_dates: Vec<String>,
}

#[derive(Deserialize)]
struct Recorded {
    name: String,
    head: String,
    body: String,
    rule: Option<SignatureRule>,
    canonical_sha256: String,
}

#[derive(Deserialize)]
struct Changed {
    name: String,
    head: String,
    body: String,
    accepted: bool,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/vectors/signature.json")).unwrap()
}

/// A request that owns its parts.
struct Wire {
    method: String,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Wire {
    /// Of a head in Latin-1 and a body in base64.
    fn read(head: &str, body: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            let value: Vec<u8> = value.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value.trim_ascii()).unwrap());
        }
        Self { method, target, headers, body: base64::prelude::BASE64_STANDARD.decode(body).unwrap() }
    }

    fn request(&self) -> SignedRequest<'_> {
        SignedRequest { method: &self.method, target: &self.target, headers: &self.headers, authority: None }
    }

    fn verify(
        &self,
        secret: &str,
        now: Timestamp,
        policy: Policy<'_>,
    ) -> Result<Option<SignatureRule>, SignatureFault> {
        let claim = Claim::read(self.headers["authorization"].as_bytes(), &self.headers, None)?;
        claim.check_date(now)?;
        let key = SigningKey::new(secret.as_bytes());
        claim.verify(self.request(), SeenBody::Hashed(BodyHash::of(&self.body)), [&key, &key], policy)
    }
}

const ALL: Policy<'static> = Policy { fallbacks: &SignatureRule::FALLBACKS, unsigned_payload: true };
const BASE: Policy<'static> = Policy { fallbacks: &[], unsigned_payload: true };
const STRICT: Policy<'static> = Policy { fallbacks: &SignatureRule::FALLBACKS, unsigned_payload: false };

fn at(text: &str) -> Timestamp {
    parse_date(text).unwrap()
}

#[test]
fn every_recorded_request_verifies_by_its_rule_and_by_no_other() {
    let vectors = vectors();
    assert!(vectors.recorded.len() >= 200);
    for case in &vectors.recorded {
        let wire = Wire::read(&case.head, &case.body);
        let verify = |secret: &str, policy| wire.verify(secret, vectors.at, policy);
        assert_eq!(verify(&vectors.app_secret, ALL), Ok(case.rule), "{}", case.name);
        let alone = case.rule.filter(|rule| *rule == SignatureRule::Base);
        assert_eq!(verify(&vectors.app_secret, BASE), Ok(alone), "{}: without fallbacks", case.name);
        assert_eq!(verify("another secret", ALL), Ok(None), "{}", case.name);
        let claim = Claim::read(wire.headers["authorization"].as_bytes(), &wire.headers, None).unwrap();
        assert_eq!(claim.app_key, vectors.app_key);
        let Some(rule) = case.rule else { continue };
        let body = SeenBody::Hashed(BodyHash::of(&wire.body));
        let canonical = claim.canonical(wire.request(), body, ALL, rule).unwrap().unwrap();
        assert_eq!(hex(&Sha256::digest(&canonical)), case.canonical_sha256, "{}", case.name);
    }
}

#[test]
fn each_fallback_can_be_switched_off_by_itself() {
    let vectors = vectors();
    for case in vectors.recorded.iter().filter(|case| case.rule.is_some_and(|rule| rule != SignatureRule::Base)) {
        let rest: Vec<_> = SignatureRule::FALLBACKS.into_iter().filter(|rule| Some(*rule) != case.rule).collect();
        let policy = Policy { fallbacks: &rest, unsigned_payload: true };
        let wire = Wire::read(&case.head, &case.body);
        assert_eq!(wire.verify(&vectors.app_secret, vectors.at, policy), Ok(None), "{}", case.name);
    }
}

#[test]
fn altered_requests_are_refused_where_what_was_signed_changed() {
    let vectors = vectors();
    for case in &vectors.changed {
        let verified = Wire::read(&case.head, &case.body).verify(&vectors.app_secret, vectors.at, ALL);
        assert_eq!(matches!(verified, Ok(Some(_))), case.accepted, "{}: {verified:?}", case.name);
    }
}

#[test]
fn a_date_is_accepted_for_fifteen_minutes_before_and_after_to_the_second() {
    let check = |now: &str, good: bool| {
        let vectors = vectors();
        let case = &vectors.recorded[0];
        let verified = Wire::read(&case.head, &case.body).verify(&vectors.app_secret, at(now), ALL);
        assert_eq!(verified.is_ok(), good, "{now}: {verified:?}");
    };
    for now in ["20260115T083000Z", "20260115T084459Z", "20260115T084500Z", "20260115T081500Z"] {
        check(now, true);
    }
    for now in ["20260115T084501Z", "20260115T081459Z", "20250115T083000Z"] {
        check(now, false);
    }
}

#[test]
fn only_one_form_of_date_is_read() {
    for bad in vectors().malformed_dates.iter().map(String::as_str).chain([
        "20260115T083060Z",
        "20260015T083000Z",
        "20261301T083000Z",
        "20260115t083000z",
        "20260115T083000Z ",
        "+0260115T083000Z",
        "20260115 083000Z",
        "2026０115T08300Z",
    ]) {
        assert_eq!(parse_date(bad), None, "{bad}");
    }
    let leap = at("20240229T235959Z");
    assert_eq!(date_text(leap), "20240229T235959Z");
    let case = &vectors().recorded[0];
    let mut wire = Wire::read(&case.head, &case.body);
    wire.headers.insert(DATE, HeaderValue::from_static("2026-01-15T08:30:00Z"));
    assert_eq!(wire.verify("s", leap, ALL), Err(SignatureFault::DateMalformed));
    wire.headers.append(DATE, HeaderValue::from_static("20260115T083000Z"));
    assert_eq!(wire.verify("s", leap, ALL), Err(SignatureFault::DateMissing));
}

#[test]
fn the_header_has_one_form_with_little_room() {
    let digits = "0".repeat(64);
    let good = |value: String| assert!(parse(value.as_bytes()).is_some(), "{value}");
    good(format!("SDK-HMAC-SHA256 Access=k, SignedHeaders=x-sdk-date, Signature={digits}"));
    good(format!("SDK-HMAC-SHA256   Access=k,SignedHeaders=host;x-sdk-date,Signature={digits}"));
    let more = "0".repeat(65);
    let upper = "A".repeat(64);
    for bad in [
        String::new(),
        "SDK-HMAC-SHA256".to_owned(),
        format!("SDK-HMAC-SHA256Access=k, SignedHeaders=x-sdk-date, Signature={digits}"),
        format!("SDK-HMAC-SHA256, Access=k, SignedHeaders=x-sdk-date, Signature={digits}"),
        format!("sdk-hmac-sha256 Access=k, SignedHeaders=x-sdk-date, Signature={digits}"),
        format!("SDK-HMAC-SHA256 Credential=k/scope, SignedHeaders=x-sdk-date, Signature={digits}"),
        format!("SDK-HMAC-SHA256 Access=, SignedHeaders=x-sdk-date, Signature={digits}"),
        format!("SDK-HMAC-SHA256 Access=k, SignedHeaders=, Signature={digits}"),
        format!("SDK-HMAC-SHA256 Access=k, SignedHeaders=a;;b, Signature={digits}"),
        format!("SDK-HMAC-SHA256 Access=k, SignedHeaders=X-Sdk-Date, Signature={digits}"),
        format!("SDK-HMAC-SHA256 Access=k,  SignedHeaders=x-sdk-date, Signature={digits}"),
        format!("SDK-HMAC-SHA256 Access=k, SignedHeaders=x-sdk-date, Signature={more}"),
        format!("SDK-HMAC-SHA256 Access=k, SignedHeaders=x-sdk-date, Signature={upper}"),
        format!("SDK-HMAC-SHA256 Access=k, SignedHeaders=x-sdk-date, Signature={digits}, Extra=1"),
        format!("SDK-HMAC-SHA256 SignedHeaders=x-sdk-date, Access=k, Signature={digits}"),
    ] {
        assert_eq!(parse(bad.as_bytes()), None, "{bad}");
    }
}

/// A request with one signed header more, signed by ourselves.
fn signed(headers: &[(&str, &str)], target: &str, body: &[u8]) -> Wire {
    let mut wire =
        Wire { method: "POST".into(), target: target.into(), headers: HeaderMap::new(), body: body.to_vec() };
    for (name, value) in [("host", "api.test"), (DATE, "20260115T083000Z")].iter().chain(headers) {
        wire.headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let key = SigningKey::new(b"secret");
    let value = sign("key-1", &key, wire.request(), BodyHash::of(body)).unwrap();
    wire.headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
    wire
}

fn verified(wire: &Wire, policy: Policy<'_>) -> Result<Option<SignatureRule>, SignatureFault> {
    wire.verify("secret", at("20260115T083000Z"), policy)
}

#[test]
fn what_is_signed_of_headers_must_be_there_and_once_named() {
    let mut wire = signed(&[("x-a", "1")], "/", b"");
    wire.headers.remove("x-a");
    assert_eq!(verified(&wire, ALL), Err(SignatureFault::HeaderMissing("x-a".into())));
    let rename = |line: &str| {
        let mut wire = signed(&[("x-a", "1")], "/", b"");
        let value = wire.headers["authorization"].to_str().unwrap().replace("host;x-a;x-sdk-date", line);
        wire.headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
        verified(&wire, ALL)
    };
    assert_eq!(rename("host;x-a;x-sdk-date"), Ok(Some(SignatureRule::Base)));
    assert_eq!(rename("host;host;x-sdk-date"), Err(SignatureFault::SignedHeaders));
    assert_eq!(rename("host;x-a"), Err(SignatureFault::DateMissing));
    assert_eq!(rename("x-a;host;x-sdk-date"), Ok(None), "the order is signed");
    let many: Vec<String> = (0..SIGNED_HEADERS_MAX).map(|number| format!("x-{number}")).collect();
    assert_eq!(rename(&format!("{};x-sdk-date", many.join(";"))), Err(SignatureFault::SignedHeaders));
}

#[test]
fn repeated_header_lines_are_signed_in_the_order_of_their_values() {
    let wire = signed(&[("x-a", "2"), ("x-a", "1")], "/", b"");
    assert_eq!(verified(&wire, BASE), Ok(Some(SignatureRule::Base)));
    let mut turned = signed(&[("x-a", "1"), ("x-a", "2")], "/", b"");
    turned.headers.insert("authorization", wire.headers["authorization"].clone());
    assert_eq!(verified(&turned, BASE), Ok(Some(SignatureRule::Base)), "their order on the wire is not");
    turned.headers.append("x-a", HeaderValue::from_static("3"));
    assert_eq!(verified(&turned, BASE), Ok(None));
}

#[test]
fn a_body_counts_as_signed_only_if_its_hash_is() {
    let swapped = |mut wire: Wire| {
        wire.body = b"other".to_vec();
        wire
    };
    let hash = hex(&Sha256::digest(b"body"));
    assert_eq!(verified(&swapped(signed(&[], "/", b"body")), ALL), Ok(None));
    let declared = || signed(&[(CONTENT_HASH, &hash)], "/", b"body");
    assert_eq!(verified(&declared(), BASE), Ok(Some(SignatureRule::Base)));
    assert_eq!(verified(&swapped(declared()), ALL), Err(SignatureFault::BodyChanged));
    let unsigned = || signed(&[(CONTENT_HASH, UNSIGNED_PAYLOAD)], "/", b"body");
    assert_eq!(verified(&swapped(unsigned()), ALL), Ok(Some(SignatureRule::Base)));
    assert_eq!(verified(&unsigned(), STRICT), Err(SignatureFault::Unsigned));
    let mut emptied = unsigned();
    emptied.body.clear();
    assert_eq!(verified(&emptied, STRICT), Ok(None), "a body that was taken off");
    // Not signed, it says nothing.
    let mut beside = signed(&[], "/", b"body");
    beside.headers.insert(CONTENT_HASH, HeaderValue::from_static(UNSIGNED_PAYLOAD));
    assert_eq!(verified(&beside, STRICT), Ok(Some(SignatureRule::Base)));
    assert_eq!(verified(&swapped(beside), ALL), Ok(None));
    let mut twice = declared();
    twice.headers.append(CONTENT_HASH, HeaderValue::from_static(UNSIGNED_PAYLOAD));
    assert_eq!(verified(&twice, ALL), Err(SignatureFault::HashRepeated));
}

#[test]
fn a_plus_in_the_query_is_a_space_and_as_a_fallback_a_plus() {
    let mut wire = signed(&[], "/?q=a%20b", b"");
    wire.target = "/?q=a+b".into();
    assert_eq!(verified(&wire, BASE), Ok(Some(SignatureRule::Base)));
    let mut wire = signed(&[], "/?q=a%2Bb", b"");
    wire.target = "/?q=a+b".into();
    assert_eq!(verified(&wire, ALL), Ok(Some(SignatureRule::LiteralPlus)));
}

#[test]
fn the_authority_stands_for_a_host_that_is_not_there() {
    let mut wire = signed(&[], "/", b"");
    wire.headers.remove("host");
    assert_eq!(verified(&wire, ALL), Err(SignatureFault::HeaderMissing("host".into())));
    let request = SignedRequest { authority: Some("api.test"), ..wire.request() };
    let claim = Claim::read(wire.headers["authorization"].as_bytes(), &wire.headers, Some("api.test")).unwrap();
    let key = SigningKey::new(b"secret");
    let seen = SeenBody::Hashed(BodyHash::of(b""));
    assert_eq!(claim.verify(request, seen, [&key, &key], BASE), Ok(Some(SignatureRule::Base)));
}

#[test]
fn either_of_two_secrets_will_do_and_an_unread_body_only_if_it_is_unsigned() {
    let wire = signed(&[(CONTENT_HASH, UNSIGNED_PAYLOAD)], "/", b"body");
    let (old, new) = (SigningKey::new(b"secret"), SigningKey::new(b"other"));
    let claim = Claim::read(wire.headers["authorization"].as_bytes(), &wire.headers, None).unwrap();
    let verify = |keys, policy| claim.verify(wire.request(), SeenBody::Unread, keys, policy);
    assert_eq!(verify([&new, &old], BASE), Ok(Some(SignatureRule::Base)));
    assert_eq!(verify([&old, &new], BASE), Ok(Some(SignatureRule::Base)));
    assert_eq!(verify([&new, &new], BASE), Ok(None));
    assert_eq!(verify([&old, &old], STRICT), Err(SignatureFault::Unsigned));
    assert_eq!(format!("{old:?}"), "SigningKey(redacted)");
}

#[test]
fn what_is_shown_of_a_request_holds_no_value() {
    let wire = signed(&[("x-a", "canary")], "/p%2Fq?b=canary&a=canary&c", b"canary");
    let claim = Claim::read(wire.headers["authorization"].as_bytes(), &wire.headers, None).unwrap();
    let shown = claim.redacted(wire.request());
    assert_eq!(shown, "POST|/p/q/|a=*&b=*&c=*|host:*|x-a:*|x-sdk-date:*||host;x-a;x-sdk-date|*");
}

#[test]
fn the_first_difference_is_named() {
    let text = "GET\n/a/\nq=1\nhost:h\nx-sdk-date:d\n\nhost;x-sdk-date\nhash";
    let check = |theirs: &str, part: &str, column: usize| {
        let found = first_difference(text, theirs).unwrap();
        assert_eq!((found.part.as_str(), found.column), (part, column), "{theirs}");
    };
    assert_eq!(first_difference(text, text), None);
    check(&text.replace("GET", "get"), "method", 1);
    check(&text.replace("/a/", "/a"), "path", 3);
    check(&text.replace("q=1", "q=2"), "query", 3);
    check(&text.replace("host:h", "host:H"), "header host", 6);
    check(&text.replace("hash", "has"), "body hash", 4);
    check(&text.replace("host;x", "host;y"), "signed headers", 6);
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            Just("a"),
            Just("/"),
            Just("%2F"),
            Just("%e5"),
            Just("%"),
            Just("+"),
            Just("%20"),
            Just("~"),
            Just("&"),
            Just("="),
            Just("b"),
            Just("*"),
            Just("%zz"),
            Just(";")
        ],
        0..8,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_what_is_changed_does_not(
        path in text(), query in text(), value in "[ -~]{0,12}", body in prop::collection::vec(any::<u8>(), 0..64),
        change in any::<prop::sample::Index>(),
    ) {
        let target = format!("/{path}?{query}");
        let wire = signed(&[("x-a", value.trim())], &target, &body);
        prop_assert_eq!(verified(&wire, BASE), Ok(Some(SignatureRule::Base)));
        let mut longer = signed(&[("x-a", value.trim())], &target, &body);
        longer.body.push(0);
        prop_assert_eq!(verified(&longer, ALL), Ok(None));
        let mut other = signed(&[("x-a", value.trim())], &target, &body);
        let mut text = other.headers["authorization"].as_bytes().to_vec();
        let at = text.len() - 64 + change.index(64);
        text[at] = if text[at] == b'0' { b'1' } else { b'0' };
        other.headers.insert("authorization", HeaderValue::from_bytes(&text).unwrap());
        prop_assert_eq!(verified(&other, ALL), Ok(None));
    }

    #[test]
    fn no_header_value_makes_it_panic(value in prop::collection::vec(
        prop_oneof![
            Just("SDK-HMAC-SHA256 "), Just("Access="), Just("k"), Just(", "), Just(","), Just("SignedHeaders="),
            Just("x-sdk-date"), Just(";"), Just("Signature="), Just("00"), Just("é"), Just(" ")
        ],
        0..12,
    )) {
        let headers = HeaderMap::new();
        let value = value.concat();
        prop_assert!(Claim::read(value.as_bytes(), &headers, None).is_err());
    }

    /// Whatever a client may send, the gate lets through and a signer signs.
    #[test]
    fn any_request_that_is_signed_verifies(
        target in "/[!-~]{0,40}", names in prop::collection::btree_set("x-[a-z0-9!#$%&'*+.^`|~-]{1,6}", 0..4), value in "[ -~\t]{0,12}",
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.trim())).collect();
        let wire = signed(&headers, &target, &body);
        prop_assert_eq!(verified(&wire, BASE), Ok(Some(SignatureRule::Base)));
        prop_assert!(verified(&wire, ALL).is_ok_and(|rule| rule.is_some()));
    }

    #[test]
    fn no_bytes_make_it_panic(value in prop::collection::vec(any::<u8>(), 0..200), date in "[0-9TZ]{0,17}", target in "/\\PC{0,20}") {
        let mut wire = signed(&[("x-a", "1")], &target, b"");
        let _ = Claim::read(&value, &wire.headers, None);
        wire.headers.insert(DATE, HeaderValue::from_str(&date).unwrap());
        let _ = verified(&wire, ALL);
    }
}
