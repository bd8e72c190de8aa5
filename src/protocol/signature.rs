//! APIG's app signature, SDK-HMAC-SHA256: what a request presents, whether it is complete and timely, and whether it
//! was made with a secret. Whose the AppKey is, and what it may call, is asked elsewhere.

pub mod canonical;
mod date;
pub mod explain;
#[cfg(test)]
mod tests;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::canonical::{Canonical, hex, unhex};
use crate::domain::credential::SignatureRule;

pub use self::date::{date_text, parse_date};

/// The scheme's name in the `Authorization` header.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";
/// The header with the moment of signing. It must be signed.
pub const DATE: &str = "x-sdk-date";
/// The header with the body's hash; counts only if it is signed.
pub const CONTENT_HASH: &str = "x-sdk-content-sha256";
/// What that header says when the body is not signed.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// A signature is accepted this long before and after its date.
pub const SKEW_MAX: SignedDuration = SignedDuration::from_mins(15);
/// Most headers that a signature may cover.
pub const SIGNED_HEADERS_MAX: usize = 64;
/// Longest AppKey, in bytes.
pub const APP_KEY_BYTES_MAX: usize = 128;
/// Secrets that an app can have at one time: the present one, and the one before it while both are accepted.
pub const SECRETS_MAX: usize = 2;

/// Why a signature is refused before anyone asks whose it is. Nothing here depends on a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The header has not the right form.
    #[error(
        "the authorization header is malformed; send SDK-HMAC-SHA256 Access=<AppKey>, SignedHeaders=<a;b>, Signature=<64 lower-case hexadecimal digits>"
    )]
    Malformed,
    /// A header is named twice, or there are too many.
    #[error("SignedHeaders names a header twice, or more than {SIGNED_HEADERS_MAX}")]
    SignedHeaders,
    /// The date is not among the signed headers, is not there, or is there twice.
    #[error("exactly one x-sdk-date header is needed, and SignedHeaders must name it")]
    DateMissing,
    /// Not a date of the only form.
    #[error("x-sdk-date is malformed; write it in UTC like 20260115T083000Z")]
    DateMalformed,
    /// Too old or too new.
    #[error("signature expired, signature time:{signed},server time:{now}; sign again, with the right time")]
    Expired {
        /// The signature's date.
        signed: String,
        /// Our time.
        now: String,
    },
    /// A signed header is not there.
    #[error("the signed header {0} is missing from the request")]
    HeaderMissing(String),
    /// Two lines of the header with the body's hash.
    #[error("x-sdk-content-sha256 is repeated; send it once")]
    HashRepeated,
    /// The body is not what was signed.
    #[error("the body's SHA-256 is not the signed x-sdk-content-sha256")]
    BodyChanged,
    /// The body is not signed, and must be.
    #[error("UNSIGNED-PAYLOAD is not accepted here; sign the body's SHA-256")]
    Unsigned,
}

impl SignatureFault {
    /// Of a signature that is too old or too new at a moment.
    pub fn expired(signed: Timestamp, now: Timestamp) -> Self {
        Self::Expired { signed: date_text(signed), now: date_text(now) }
    }
}

/// What the `Authorization` header and the signed headers say, complete and well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Who is said to have signed.
    pub app_key: &'a str,
    /// The signed headers, in the order given.
    signed: Vec<&'a str>,
    /// The same, as it stands in the header.
    signed_line: &'a str,
    signature: [u8; 32],
    date_text: &'a str,
    date: Timestamp,
    payload: Payload<'a>,
}

/// What a signature says of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Its hash was computed by the signer and not sent.
    Silent,
    /// The signed header names a hash, or whatever is none and fits no body.
    Declared(&'a str),
    /// The body is not signed.
    Unsigned,
}

/// The parts of a request that are signed, as received.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// In its own case.
    pub method: &'a str,
    /// Path and query, byte for byte.
    pub target: &'a str,
    /// All of them.
    pub headers: &'a HeaderMap,
    /// What stands for the `host` header where the protocol has none (HTTP/2's `:authority`).
    pub authority: Option<&'a str>,
}

/// The hash of a whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHash {
    sha256: [u8; 32],
    empty: bool,
}

impl BodyHash {
    /// Of a body that is at hand.
    pub fn of(body: &[u8]) -> Self {
        Self { sha256: Sha256::digest(body).into(), empty: body.is_empty() }
    }

    /// Of a body that was hashed piece by piece.
    pub fn new(hasher: Sha256, empty: bool) -> Self {
        Self { sha256: hasher.finalize().into(), empty }
    }
}

/// A body as a signature sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenBody {
    /// Read whole.
    Hashed(BodyHash),
    /// Not read: only for a signature that does not cover it, where that is accepted.
    Unread,
}

/// Which readings are accepted besides the base rule, and whether a body may stay unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy<'a> {
    /// Tried in their own order, each at most once.
    pub fallbacks: &'a [SignatureRule],
    /// Whether `UNSIGNED-PAYLOAD` is accepted.
    pub unsigned_payload: bool,
}

/// An app's secret, ready to check signatures. No `Debug` shows it.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Takes a secret.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("a key of any length"))
    }

    fn sign(&self, text: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SigningKey(redacted)")
    }
}

impl<'a> Claim<'a> {
    /// Reads what a request presents. `authorization` is the header's value.
    ///
    /// # Errors
    /// See [`SignatureFault`]; the body and the time are judged later.
    pub fn read(
        authorization: &'a [u8],
        headers: &'a HeaderMap,
        authority: Option<&str>,
    ) -> Result<Self, SignatureFault> {
        let (app_key, signed_line, signature) = parse(authorization).ok_or(SignatureFault::Malformed)?;
        let signed: Vec<&str> = signed_line.split(';').collect();
        let repeated = |(at, name): (usize, &&str)| signed.iter().take(at).any(|before| before == name);
        if signed.len() > SIGNED_HEADERS_MAX || signed.iter().enumerate().any(repeated) {
            return Err(SignatureFault::SignedHeaders);
        }
        if !signed.contains(&DATE) {
            return Err(SignatureFault::DateMissing);
        }
        let date_text = only(headers, DATE).ok_or(SignatureFault::DateMissing)?;
        let date_text = std::str::from_utf8(date_text).map_err(|_| SignatureFault::DateMalformed)?;
        let date = parse_date(date_text).ok_or(SignatureFault::DateMalformed)?;
        let there = |name: &str| headers.contains_key(name) || (name == "host" && authority.is_some());
        if let Some(missing) = signed.iter().find(|name| !there(name)) {
            return Err(SignatureFault::HeaderMissing((*missing).to_owned()));
        }
        let payload = match signed.contains(&CONTENT_HASH) {
            false => Payload::Silent,
            true => match only(headers, CONTENT_HASH).map(std::str::from_utf8) {
                None => return Err(SignatureFault::HashRepeated),
                Some(Err(_)) => return Err(SignatureFault::BodyChanged),
                Some(Ok(UNSIGNED_PAYLOAD)) => Payload::Unsigned,
                Some(Ok(text)) => Payload::Declared(text),
            },
        };
        Ok(Self { app_key, signed, signed_line, signature, date_text, date, payload })
    }

    /// Whether a header is signed, by its name in any case.
    pub fn signs(&self, name: &str) -> bool {
        self.signed.iter().any(|signed| signed.eq_ignore_ascii_case(name))
    }

    /// When it says that it was signed.
    pub fn date(&self) -> Timestamp {
        self.date
    }

    /// The signature itself.
    pub fn signature(&self) -> &[u8; 32] {
        &self.signature
    }

    /// What it says of the body.
    pub fn payload(&self) -> Payload<'a> {
        self.payload
    }

    /// Refuses a signature that is too old or too new.
    ///
    /// # Errors
    /// [`SignatureFault::Expired`].
    pub fn check_date(&self, now: Timestamp) -> Result<(), SignatureFault> {
        if now.duration_since(self.date).abs() <= SKEW_MAX {
            return Ok(());
        }
        Err(SignatureFault::expired(self.date, now))
    }

    /// Refuses a body that is not the signed one; returns what stands for it in the canonical request, and by which rule.
    fn payloads(&self, body: SeenBody, policy: Policy<'_>) -> Result<Payloads<'a>, SignatureFault> {
        let (body, may_be_unsigned) = match body {
            SeenBody::Unread => {
                return match self.payload {
                    Payload::Unsigned if policy.unsigned_payload => Ok(Payloads::only(UNSIGNED_PAYLOAD)),
                    Payload::Unsigned | Payload::Silent | Payload::Declared(_) => Err(SignatureFault::Unsigned),
                };
            }
            SeenBody::Hashed(body) => (body, policy.unsigned_payload),
        };
        match self.payload {
            Payload::Silent => Ok(Payloads { base: Some(Text::Hex(hex(&body.sha256))), empty: None }),
            Payload::Declared(text) => {
                let declared: [u8; 32] = unhex(text.as_bytes()).ok_or(SignatureFault::BodyChanged)?;
                let same: bool = declared.ct_eq(&body.sha256).into();
                if same { Ok(Payloads::only(text)) } else { Err(SignatureFault::BodyChanged) }
            }
            // Some signers declare an empty body unsigned and sign its hash all the same. Where a body must be signed,
            // the declared word does not do for an empty one either: it could have been taken off on the way.
            Payload::Unsigned => {
                let empty_allowed = policy.fallbacks.contains(&SignatureRule::EmptyHash);
                let empty = (body.empty && empty_allowed).then(|| Text::Hex(hex(&body.sha256)));
                let base = may_be_unsigned.then_some(Text::Given(UNSIGNED_PAYLOAD));
                if base.is_none() && empty.is_none() {
                    return Err(SignatureFault::Unsigned);
                }
                Ok(Payloads { base, empty })
            }
        }
    }

    /// Whether the signature was made with one of the keys, and by which rule. Where none fits, the time does not depend
    /// on the keys: all of them are tried with all readings.
    ///
    /// # Errors
    /// When the body is not the signed one, whatever the keys.
    pub fn verify(
        &self,
        request: SignedRequest<'_>,
        body: SeenBody,
        keys: [&SigningKey; SECRETS_MAX],
        policy: Policy<'_>,
    ) -> Result<Option<SignatureRule>, SignatureFault> {
        let payloads = self.payloads(body, policy)?;
        let mut tried: Vec<[u8; 32]> = Vec::new();
        for rule in SignatureRule::ALL {
            if rule != SignatureRule::Base && !policy.fallbacks.contains(&rule) {
                continue;
            }
            let Some(payload) = payloads.by(rule) else { continue };
            let text = Canonical { request, signed: &self.signed, signed_line: self.signed_line, payload };
            let digest: [u8; 32] = Sha256::digest(text.bytes(rule)).into();
            if tried.contains(&digest) {
                continue; // this reading makes no difference here
            }
            tried.push(digest);
            let to_sign = string_to_sign(self.date_text, &digest);
            let fits = |key: &&SigningKey| bool::from(key.sign(to_sign.as_bytes()).ct_eq(&self.signature));
            if keys.iter().any(fits) {
                return Ok(Some(rule));
            }
        }
        Ok(None)
    }

    /// The canonical request by one rule, for explanations; `None` where the rule does not apply to this body.
    ///
    /// # Errors
    /// When the body is not the signed one.
    pub fn canonical(
        &self,
        request: SignedRequest<'_>,
        body: SeenBody,
        policy: Policy<'_>,
        rule: SignatureRule,
    ) -> Result<Option<Vec<u8>>, SignatureFault> {
        let payloads = self.payloads(body, policy)?;
        Ok(payloads.by(rule).map(|payload| {
            Canonical { request, signed: &self.signed, signed_line: self.signed_line, payload }.bytes(rule)
        }))
    }

    /// What a refusal may show of the request that was checked: names without values, in one line as APIG shows it.
    pub fn redacted(&self, request: SignedRequest<'_>) -> String {
        canonical::redacted(request, &self.signed, self.signed_line)
    }
}

/// What may stand for the body in the canonical request.
struct Payloads<'a> {
    /// By every rule but one.
    base: Option<Text<'a>>,
    /// By [`SignatureRule::EmptyHash`].
    empty: Option<Text<'a>>,
}

enum Text<'a> {
    Hex(String),
    Given(&'a str),
}

impl<'a> Payloads<'a> {
    fn only(text: &'a str) -> Self {
        Self { base: Some(Text::Given(text)), empty: None }
    }

    fn by(&self, rule: SignatureRule) -> Option<&str> {
        let text = if rule == SignatureRule::EmptyHash { self.empty.as_ref() } else { self.base.as_ref() };
        text.map(|text| match text {
            Text::Hex(text) => text.as_str(),
            Text::Given(text) => text,
        })
    }
}

/// The only line of a header, without the white space around it.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(value.as_bytes().trim_ascii())
}

fn string_to_sign(date: &str, canonical: &[u8; 32]) -> String {
    [ALGORITHM, "\n", date, "\n", &hex(canonical)].concat()
}

/// AppKey, signed headers and signature of the header's value: one blank or more after the algorithm, at most one after
/// each comma.
fn parse(value: &[u8]) -> Option<(&str, &str, [u8; 32])> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let fields = text.strip_prefix(ALGORITHM)?;
    let access = fields.trim_start_matches(' ').strip_prefix("Access=").filter(|_| fields.starts_with(' '))?;
    let (app_key, rest) = access.split_once(',')?;
    let after_comma = |rest: &'_ str| -> usize { usize::from(rest.starts_with(' ')) };
    let (signed, rest) = rest.get(after_comma(rest)..)?.strip_prefix("SignedHeaders=")?.split_once(',')?;
    let signature = rest.get(after_comma(rest)..)?.strip_prefix("Signature=")?;
    let name = |name: &str| !name.is_empty() && name.bytes().all(header_name_byte);
    if !is_app_key(app_key) || !signed.split(';').all(name) || signature.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Some((app_key, signed, unhex(signature.as_bytes())?))
}

/// Whether a text can be an AppKey: visible characters, no comma.
pub fn is_app_key(text: &str) -> bool {
    (1..=APP_KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// RFC 9110's token, in lower case.
fn header_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Makes the `Authorization` header of a request. All headers are signed that `headers` has, except what a signer never
/// knows: those of one hop.
///
/// # Errors
/// When the headers do not make a claim that could be verified.
pub fn sign(
    app_key: &str,
    key: &SigningKey,
    request: SignedRequest<'_>,
    body: BodyHash,
) -> Result<String, SignatureFault> {
    let mut names: Vec<&str> = request.headers.keys().map(http::HeaderName::as_str).collect();
    names.retain(|name| !matches!(*name, "authorization" | "connection" | "content-length" | "transfer-encoding"));
    if request.authority.is_some() && !names.contains(&"host") {
        names.push("host");
    }
    names.sort_unstable();
    let signed_line = names.join(";");
    let unsigned = [ALGORITHM, " Access=", app_key, ", SignedHeaders=", &signed_line, ", Signature="].concat();
    let placeholder = [unsigned.as_str(), &hex(&[0; 32])].concat();
    let claim = Claim::read(placeholder.as_bytes(), request.headers, request.authority)?;
    let policy = Policy { fallbacks: &[], unsigned_payload: true };
    let canonical = claim.canonical(request, SeenBody::Hashed(body), policy, SignatureRule::Base)?;
    let digest: [u8; 32] = Sha256::digest(canonical.unwrap_or_default()).into(); // by the base rule there always is one
    let to_sign = string_to_sign(claim.date_text, &digest);
    Ok([unsigned.as_str(), &hex(&key.sign(to_sign.as_bytes()))].concat())
}
