//! Finds the credentials that a request presents: a Bearer key, an AppCode, a signature. Whether one is known, and
//! whose it is, is asked elsewhere.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::app_text::{AppTextFault, is_code};
use super::class;
use super::signature::ALGORITHM;
use super::signature::canonical::percent_decoded;
use crate::domain::credential::Scheme;

/// Longest Bearer token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;
/// The header with an AppCode.
pub const APP_CODE: HeaderName = HeaderName::from_static("x-apig-appcode");
/// Where Anthropic's SDKs put the key.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Longest scheme that an error names, in bytes. Shorter than a key: one that was sent in the
/// scheme's place is not repeated.
const SCHEME_BYTES_MAX: usize = 24;

/// What a caller presents.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A key, after `Authorization: Bearer` or in `x-api-key`.
    Key(&'a str),
    /// An AppCode: in its header, after `Authorization: APPCODE`, or in the query.
    AppCode(Cow<'a, str>),
    /// The whole value of an `Authorization` header that holds a signature.
    Signature(&'a [u8]),
}

impl Credential<'_> {
    /// Of which kind it is.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Key(_) => Scheme::ApiKey,
            Self::AppCode(_) => Scheme::AppCode,
            Self::Signature(_) => Scheme::Signature,
        }
    }
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Key(_) => "Key(redacted)",
            Self::AppCode(_) => "AppCode(redacted)",
            Self::Signature(_) => "Signature(redacted)",
        })
    }
}

/// Where credentials are looked for besides the headers that always hold one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places<'a> {
    /// Whether `x-api-key` holds a key.
    pub x_api_key: bool,
    /// The query, and the names of the parameters that may hold an AppCode.
    pub query: (&'a str, &'a [String]),
}

/// Why what is presented is no credential. No token is part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault<'a> {
    /// The same header or parameter twice.
    #[error("{0} is repeated; send exactly one")]
    Repeated(&'a str),
    /// No scheme before the token, or none that can be named.
    #[error("the authorization header names no scheme; send Bearer, a space and the key")]
    SchemeMissing,
    /// A scheme that is not served.
    #[error("the authorization scheme {scheme} is not served; send Bearer, a space and the key")]
    SchemeUnknown {
        /// The scheme, as sent.
        scheme: &'a str,
    },
    /// Nothing after the scheme.
    #[error("no key stands after Bearer; send Bearer, a space and the key")]
    TokenEmpty,
    /// A byte that RFC 9110's token68 does not have.
    #[error("the key holds a character that no key has; copy it again")]
    TokenMalformed,
    /// More than [`TOKEN_BYTES_MAX`] bytes.
    #[error("the key is longer than {TOKEN_BYTES_MAX} bytes; copy it again")]
    TokenTooLong,
    /// What stands for an AppCode is none.
    #[error("{0}")]
    NoAppCode(AppTextFault),
}

/// All that a request presents: in `Authorization`, and in the rarer places.
#[derive(Debug, Default)]
pub struct Presented<'a>(Option<Credential<'a>>, Vec<Credential<'a>>);

impl<'a> Presented<'a> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Credential<'a>> {
        self.0.iter().chain(&self.1)
    }

    /// The one that counts if all are one caller's.
    pub fn strongest(&self) -> Option<&Credential<'a>> {
        self.iter().max_by_key(|credential| credential.scheme())
    }
}

/// Finds what a request presents.
///
/// # Errors
/// See [`CredentialFault`].
pub fn find_credentials<'a>(headers: &'a HeaderMap, places: Places<'_>) -> Result<Presented<'a>, CredentialFault<'a>> {
    check_single(headers)?;
    let first = headers.get(AUTHORIZATION).map(|value| in_authorization(value.as_bytes())).transpose()?;
    let (query, names) = places.query;
    let elsewhere = places.x_api_key || headers.contains_key(APP_CODE) || (!names.is_empty() && !query.is_empty());
    Ok(Presented(first, if elsewhere { find_elsewhere(headers, places)? } else { Vec::new() }))
}

/// Those that are not in `Authorization`. Apart from it, as most requests have none: what runs in each call is short.
#[cold]
fn find_elsewhere<'a>(
    headers: &'a HeaderMap,
    Places { x_api_key, query: (query, names) }: Places<'_>,
) -> Result<Vec<Credential<'a>>, CredentialFault<'a>> {
    let in_query = parameter(query, names)?;
    let in_header = headers.get(APP_CODE).map(|value| app_code(value.as_bytes())).transpose()?;
    let x_api_key = headers.get(X_API_KEY).filter(|_| x_api_key);
    let x_api_key = x_api_key.map(|value| key(value.as_bytes()).map(Credential::Key)).transpose()?;
    let in_query = in_query.map(|code| checked(Cow::Owned(code))).transpose()?;
    Ok([in_header, x_api_key, in_query].into_iter().flatten().collect())
}

/// Refuses a header that may hold a credential and stands twice, whether it is looked for or not.
///
/// # Errors
/// [`CredentialFault::Repeated`].
pub fn check_single(headers: &HeaderMap) -> Result<(), CredentialFault<'static>> {
    if headers.len() == headers.keys_len() {
        return Ok(()); // nothing stands twice
    }
    for (name, what) in [
        (&AUTHORIZATION, "the authorization header"),
        (&APP_CODE, "the header x-apig-appcode"),
        (&X_API_KEY, "the header x-api-key"),
    ] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(CredentialFault::Repeated(what));
        }
    }
    Ok(())
}

fn in_authorization(value: &[u8]) -> Result<Credential<'_>, CredentialFault<'_>> {
    let end = memchr::memchr(b' ', value).unwrap_or(value.len());
    let (scheme, after) = value.split_at_checked(end).ok_or(CredentialFault::SchemeMissing)?;
    let token = after.iter().position(|byte| *byte != b' ').and_then(|start| after.get(start..));
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return key(token.ok_or(CredentialFault::TokenEmpty)?).map(Credential::Key);
    }
    in_another_scheme(scheme, (value, after, token))
}

#[cold]
fn in_another_scheme<'a>(
    scheme: &'a [u8],
    (value, after, token): (&'a [u8], &'a [u8], Option<&'a [u8]>),
) -> Result<Credential<'a>, CredentialFault<'a>> {
    if scheme.eq_ignore_ascii_case(ALGORITHM.as_bytes()) {
        return Ok(Credential::Signature(value));
    }
    if scheme.eq_ignore_ascii_case(b"APPCODE") {
        return app_code(token.unwrap_or_default());
    }
    Err(unknown_scheme(scheme, after))
}

fn key(token: &[u8]) -> Result<&str, CredentialFault<'_>> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(CredentialFault::TokenTooLong);
    }
    match std::str::from_utf8(token) {
        Ok(text) if is_token68(text) => Ok(text),
        Ok(_) | Err(_) => Err(CredentialFault::TokenMalformed),
    }
}

fn app_code(value: &[u8]) -> Result<Credential<'_>, CredentialFault<'_>> {
    let text = std::str::from_utf8(value).map_err(|_| CredentialFault::NoAppCode(AppTextFault::Code))?;
    checked(Cow::Borrowed(text))
}

fn checked<'a>(code: Cow<'a, str>) -> Result<Credential<'a>, CredentialFault<'a>> {
    if is_code(&code) { Ok(Credential::AppCode(code)) } else { Err(CredentialFault::NoAppCode(AppTextFault::Code)) }
}

/// The value of the only parameter with one of these names. Escapes are resolved in both; a plus is a plus, since codes have it.
fn parameter(query: &str, names: &[String]) -> Result<Option<String>, CredentialFault<'static>> {
    let mut values = query.split('&').filter(|pair| names.iter().any(|name| is_parameter(pair, name)));
    let Some(pair) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CredentialFault::Repeated("the AppCode in the query"));
    }
    let value = pair.split_once('=').map_or("", |(_, value)| value);
    let text = String::from_utf8(percent_decoded(value));
    text.map(Some).map_err(|_| CredentialFault::NoAppCode(AppTextFault::Code))
}

/// Whether a query has a parameter of a name.
pub fn has_parameter(query: &str, name: &str) -> bool {
    query.split('&').any(|pair| is_parameter(pair, name))
}

fn is_parameter(pair: &str, name: &str) -> bool {
    let own = pair.split('=').next().unwrap_or_default();
    own == name || (own.contains('%') && percent_decoded(own) == name.as_bytes())
}

/// The path and query without any parameter of a name; the rest stays byte for byte.
pub fn without_parameter<'a>(target: &'a str, name: &str) -> Cow<'a, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    if !has_parameter(query, name) {
        return Cow::Borrowed(target);
    }
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_parameter(pair, name)).collect();
    if rest.is_empty() { Cow::Borrowed(path) } else { Cow::Owned([path, "?", &rest.join("&")].concat()) }
}

fn unknown_scheme<'a>(scheme: &'a [u8], after: &[u8]) -> CredentialFault<'a> {
    let can_be_named = (1..=SCHEME_BYTES_MAX).contains(&scheme.len())
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && !after.is_empty();
    match std::str::from_utf8(scheme) {
        Ok(scheme) if can_be_named => CredentialFault::SchemeUnknown { scheme },
        Ok(_) | Err(_) => CredentialFault::SchemeMissing,
    }
}

/// RFC 9110 section 11.2: letters, digits and `-._~+/`, then any number of `=`.
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && class::are(body.as_bytes(), class::TOKEN68)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn check(values: &[&[u8]], expected: Result<Option<Credential<'_>>, CredentialFault<'_>>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        let found = find_credentials(&headers, Places::default());
        assert_eq!(found.map(|found| found.strongest().cloned()), expected, "{values:?}");
    }

    #[test]
    fn finds_a_bearer_token() {
        check(&[], Ok(None));
        for (value, token) in [
            ("Bearer abc", "abc"),
            ("bearer abc", "abc"),
            ("BEARER   abc", "abc"),
            ("Bearer sk-tg-0", "sk-tg-0"),
            ("Bearer aZ09-._~+/", "aZ09-._~+/"),
            ("Bearer abc==", "abc=="),
            (&format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX)), &"x".repeat(TOKEN_BYTES_MAX)),
        ] {
            check(&[value.as_bytes()], Ok(Some(Credential::Key(token))));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        use CredentialFault::*;
        check(&[b"Bearer a", b"Bearer a"], Err(Repeated("the authorization header")));
        check(&[b"Bearer a", b""], Err(Repeated("the authorization header")));
        for (value, scheme) in [("Basic dTpw", "Basic"), ("Bearers x", "Bearers"), ("Basic ", "Basic")] {
            check(&[value.as_bytes()], Err(SchemeUnknown { scheme }));
        }
        for value in [
            "",
            "sk-tg-0123456789ABCDEFGHIJKLMNOPQRST123456",
            "sk-tg-0123456789ABCDEFGHIJKLMNOPQRST123456 x",
            "Basic",
            "Bearer:abc",
            "Bearer\tabc",
            "Bearer, abc",
            " Bearer abc",
            "\"Bearer\" abc",
        ] {
            check(&[value.as_bytes()], Err(SchemeMissing));
        }
        for value in ["Bearer", "Bearer ", "bearer    "] {
            check(&[value.as_bytes()], Err(TokenEmpty));
        }
        for value in [
            "Bearer a b",
            "Bearer a,b",
            "Bearer a ",
            "Bearer \ta",
            "Bearer a=b",
            "Bearer =",
            "Bearer \"a\"",
            "Bearer é",
        ] {
            check(&[value.as_bytes()], Err(TokenMalformed));
        }
        check(&[b"Bearer \xff"], Err(TokenMalformed));
        check(&[format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1)).as_bytes()], Err(TokenTooLong));
    }

    const CODE: &str = "0123456789+/_!@#$%-=0123456789+/_!@#$%-=0123456789+/_!@#$%-=0123";

    #[test]
    fn finds_signatures_and_app_codes() {
        let signature = b"SDK-HMAC-SHA256 Access=a, SignedHeaders=b, Signature=c";
        check(&[signature], Ok(Some(Credential::Signature(signature))));
        for scheme in ["APPCODE", "AppCode", "appcode  "] {
            let value = format!("{scheme} {CODE}");
            check(&[value.as_bytes()], Ok(Some(Credential::AppCode(CODE.into()))));
        }
        for value in ["APPCODE", "APPCODE ", "APPCODE short", &format!("APPCODE {CODE} "), &format!("APPCODE {CODE},a")]
        {
            check(&[value.as_bytes()], Err(CredentialFault::NoAppCode(AppTextFault::Code)));
        }
    }

    #[test]
    fn each_place_is_looked_into_and_the_strongest_counts() {
        let mut headers = HeaderMap::new();
        headers.insert(X_API_KEY, HeaderValue::from_static("sk-1"));
        let query = "a=b&Ap%70Code=0123456789%2B%2F_%21%40%23%24%25-%3D0123456789+/_!@%23$%25-=\
                     0123456789+/_!@%23$%25-=0123&c";
        let names = ["AppCode".to_owned(), "code".to_owned()];
        let places = Places { x_api_key: true, query: (query, &names) };
        let schemes = |headers: &HeaderMap, places| {
            let found = find_credentials(headers, places).unwrap();
            found.iter().map(Credential::scheme).collect::<Vec<_>>()
        };
        assert_eq!(schemes(&headers, Places::default()), []);
        assert_eq!(schemes(&headers, places), [Scheme::ApiKey, Scheme::AppCode]);
        let found = find_credentials(&headers, places).unwrap();
        assert_eq!(found.strongest(), Some(&Credential::AppCode(CODE.into())));
        headers.insert(APP_CODE, HeaderValue::from_static(CODE));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("SDK-HMAC-SHA256 x"));
        let found = find_credentials(&headers, places).unwrap();
        assert_eq!((found.iter().count(), found.strongest().unwrap().scheme()), (4, Scheme::Signature));
        headers.append(APP_CODE, HeaderValue::from_static(CODE));
        assert!(matches!(find_credentials(&headers, places), Err(CredentialFault::Repeated(_))));
        for query in ["AppCode=1&Ap%70Code=1", "AppCode=1&code=1"] {
            let twice = Places { query: (query, &names), ..Places::default() };
            assert!(matches!(find_credentials(&HeaderMap::new(), twice), Err(CredentialFault::Repeated(_))));
        }
    }

    #[test]
    fn a_parameter_is_taken_out_and_the_rest_stays() {
        for (target, expected) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?code=1", "/a"),
            ("/a?code", "/a"),
            ("/a?x=%20&code=1&&y=+", "/a?x=%20&&y=+"),
            ("/a?c%6Fde=1&x&code=2", "/a?x"),
            ("/code=1?codes=1&Code=2", "/code=1?codes=1&Code=2"),
        ] {
            assert_eq!(without_parameter(target, "code"), expected, "{target}");
        }
    }

    #[test]
    fn no_token_is_shown() {
        assert_eq!(format!("{:?}", Credential::Key("abc")), "Key(redacted)");
        assert_eq!(format!("{:?}", Credential::AppCode("abc".into())), "AppCode(redacted)");
    }

    /// Pieces of credentials, right and wrong, and any bytes.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "Bearer",
                "bearer",
                "APPCODE",
                "SDK-HMAC-SHA256",
                "Basic",
                " ",
                "  ",
                "\t",
                ",",
                "=",
                "abc",
                "sk-tg-",
                CODE
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_is_presented_is_one_credential_a_place_or_a_fault(
            values in prop::collection::vec((0..3_usize, value()), 0..4),
            query in prop_oneof!["(code|c%6fde|other|=|&|%|%zz|\\PC){0,6}", "code=[a-zA-Z0-9+/=%]{64,70}"],
        ) {
            let mut headers = HeaderMap::new();
            for (place, value) in &values {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append([AUTHORIZATION, APP_CODE, X_API_KEY][*place].clone(), value);
                }
            }
            let repeated = headers.keys().any(|name| headers.get_all(name).iter().count() > 1);
            let names = ["code".to_owned()];
            let places = Places { x_api_key: true, query: (&query, &names) };
            let found = find_credentials(&headers, places);
            prop_assert!(!(repeated && found.is_ok()));
            if let Ok(found) = found {
                prop_assert!(found.iter().count() >= headers.keys_len());
                for credential in found.iter() {
                    match credential {
                        Credential::Key(key) => prop_assert!(is_token68(key) && key.len() <= TOKEN_BYTES_MAX),
                        Credential::AppCode(code) => prop_assert!(is_code(code)),
                        Credential::Signature(value) => prop_assert_eq!(Some(*value), headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)),
                    }
                }
            }
            let target = format!("/x?{query}");
            let without = without_parameter(&target, "code");
            let again = without_parameter(&without, "code");
            prop_assert_eq!(&again, &without);
        }
    }
}
