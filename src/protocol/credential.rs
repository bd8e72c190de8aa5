//! Finds the credential that a request head presents. Whether it is known, and whose it is, is
//! asked elsewhere.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Longest Bearer token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;

/// Longest scheme that an error names, in bytes. Shorter than a key: one that was sent in the
/// scheme's place is not repeated.
const SCHEME_BYTES_MAX: usize = 24;

/// What a caller presents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing.
    None,
    /// The token after `Authorization: Bearer`.
    Bearer(&'a str),
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer(redacted)",
        })
    }
}

/// Why what is presented is no credential. No token is part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault<'a> {
    /// Two `Authorization` headers.
    #[error("the authorization header is repeated; send exactly one")]
    Repeated,
    /// No scheme before the token, or none that can be named.
    #[error("the authorization header names no scheme; send Bearer, a space and the key")]
    SchemeMissing,
    /// A scheme other than Bearer.
    #[error("the authorization scheme {scheme} is not served; send Bearer, a space and the key")]
    SchemeUnknown {
        /// The scheme, as sent.
        scheme: &'a str,
    },
    /// Nothing after the scheme.
    #[error("no key stands after Bearer; send Bearer, a space and the key")]
    TokenEmpty,
    /// A byte that RFC 9110's token68 does not have.
    #[error("the key after Bearer holds a character that no key has; copy it again")]
    TokenMalformed,
    /// More than [`TOKEN_BYTES_MAX`] bytes.
    #[error("the key after Bearer is longer than {TOKEN_BYTES_MAX} bytes; copy it again")]
    TokenTooLong,
}

/// Finds what the head presents.
///
/// # Errors
/// See [`CredentialFault`].
pub fn find_credential(headers: &HeaderMap) -> Result<Credential<'_>, CredentialFault<'_>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(Credential::None) };
    if values.next().is_some() {
        return Err(CredentialFault::Repeated);
    }
    let value = value.as_bytes();
    let end = memchr::memchr(b' ', value).unwrap_or(value.len());
    let (scheme, after) = value.split_at_checked(end).ok_or(CredentialFault::SchemeMissing)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Err(unknown_scheme(scheme, after));
    }
    let token = after.iter().position(|byte| *byte != b' ').and_then(|start| after.get(start..));
    let token = token.ok_or(CredentialFault::TokenEmpty)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(CredentialFault::TokenTooLong);
    }
    match std::str::from_utf8(token) {
        Ok(text) if is_token68(text) => Ok(Credential::Bearer(text)),
        Ok(_) | Err(_) => Err(CredentialFault::TokenMalformed),
    }
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
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && body.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(values: &[&[u8]], expected: Result<Credential<'_>, CredentialFault<'_>>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        assert_eq!(find_credential(&headers), expected, "{values:?}");
    }

    #[test]
    fn finds_a_bearer_token() {
        check(&[], Ok(Credential::None));
        for (value, token) in [
            ("Bearer abc", "abc"),
            ("bearer abc", "abc"),
            ("BEARER   abc", "abc"),
            ("Bearer sk-tg-0", "sk-tg-0"),
            ("Bearer aZ09-._~+/", "aZ09-._~+/"),
            ("Bearer abc==", "abc=="),
            (&format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX)), &"x".repeat(TOKEN_BYTES_MAX)),
        ] {
            check(&[value.as_bytes()], Ok(Credential::Bearer(token)));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        use CredentialFault::*;
        check(&[b"Bearer a", b"Bearer a"], Err(Repeated));
        check(&[b"Bearer a", b""], Err(Repeated));
        for (value, scheme) in [
            ("Basic dTpw", "Basic"),
            ("SDK-HMAC-SHA256 Access=a, SignedHeaders=b, Signature=c", "SDK-HMAC-SHA256"),
            ("APPCODE x", "APPCODE"),
            ("Bearers x", "Bearers"),
            ("Basic ", "Basic"),
        ] {
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

    #[test]
    fn no_token_is_shown() {
        assert_eq!(format!("{:?}", Credential::Bearer("abc")), "Bearer(redacted)");
    }
}
