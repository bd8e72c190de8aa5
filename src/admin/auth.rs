//! One static token opens `/admin/v1`. Compared as hashes and in constant time, so that neither its content nor its
//! length can be felt.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Shared;
use super::refusal::Refusal;

/// The admin token, hashed.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Keeps only a hash of the token.
    pub fn new(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret()).into())
    }

    fn opens(&self, presented: &[u8]) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        self.0.ct_eq(&presented).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// Lets a request pass that brings the token.
pub(super) async fn require(
    State(admin): State<Shared>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let (code, message) = match bearer(&headers) {
        Some(token) if admin.token.opens(token) => return Ok(next.run(request).await),
        Some(_) => ("wrong_token", "this is not the admin token; take the one that the running process started with"),
        None => ("no_token", "send the admin token of the configuration as `Authorization: Bearer <token>`"),
    };
    Err(Refusal::new(StatusCode::UNAUTHORIZED, code, message))
}

/// What follows `Bearer` in the only Authorization header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return None };
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[&str], expected: Option<&str>) {
        let headers = headers.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        assert_eq!(bearer(&headers), expected.map(str::as_bytes), "{headers:?}");
    }

    #[test]
    fn one_bearer_token_is_found() {
        check(&["Bearer abc"], Some("abc"));
        check(&["bearer  abc "], Some("abc"));
        check(&["Bearer "], Some(""));
        check(&["Bearer"], None);
        check(&["Basic abcdefgh"], None);
        check(&["Bearer a", "Bearer a"], None);
        check(&[], None);
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = AdminToken::new(&"token-of-tests".into());
        for (presented, opens) in [("token-of-tests", true), ("token-of-test", false), ("", false), ("x", false)] {
            assert_eq!(token.opens(presented.as_bytes()), opens, "{presented}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken(redacted)");
    }
}
