//! The gateway's own secrets, and how callers may prove who they are.

use secrecy::{ExposeSecret, SecretString};

use super::Cx;
use crate::config::Credentials;
use crate::config::bounds::{FORMER_KEYS_MAX, KEY_BYTES_MIN, PARAMETER_BYTES_MAX};
use crate::config::problem::PlaceId;
use crate::config::raw::{RawCredentials, RawFallback, RawKind, RawScheme, RawSecrets};
use crate::config::read::{At, Given};
use crate::config::scalar::Secret;
use crate::domain::credential::{Scheme, SignatureRule};

/// The key of the hashes, and those that seal.
pub(super) fn secrets(
    given: Given<RawSecrets>,
    root: PlaceId,
    cx: Cx<'_>,
) -> Option<(SecretString, Vec<SecretString>)> {
    let secrets = given.required("secrets", root, "{ hash_key: \"${file:hash.key}\" }", cx.report)?;
    let At { place, value: raw } = secrets;
    let hash_key = raw.hash_key.required("hash_key", place, "\"${file:hash.key}\"", cx.report);
    let hash_key = hash_key.and_then(|at| long_enough(at, cx));
    let seal_key = match raw.seal_key.optional() {
        Some(Some(at)) => long_enough(at, cx).map(Some),
        Some(None) => Some(None),
        None => None,
    };
    let former = former_keys(raw.former_seal_keys, cx);
    let (hash_key, seal_key, former) = (hash_key?, seal_key?, former?);
    let Some((at, former)) = former.filter(|(_, keys)| !keys.is_empty()) else {
        return Some((hash_key, seal_key.into_iter().collect()));
    };
    let Some(seal_key) = seal_key else {
        cx.report.note(at, "`former_seal_keys` without `seal_key`: nothing says which key seals now; add it");
        return None;
    };
    Some((hash_key, std::iter::once(seal_key).chain(former).collect()))
}

type Former = Option<(PlaceId, Vec<SecretString>)>;

fn former_keys(given: Given<Vec<Given<Secret>>>, cx: Cx<'_>) -> Option<Former> {
    let Some(At { place, value }) = given.optional()? else { return Some(None) };
    cx.at_most(FORMER_KEYS_MAX, value.len(), "keys", place)?;
    let keys: Vec<Option<SecretString>> = value
        .into_iter()
        .map(|given| match given {
            Given::Value(at) => long_enough(at, cx),
            Given::Absent | Given::Bad => None,
        })
        .collect();
    let keys: Option<Vec<SecretString>> = keys.into_iter().collect();
    keys.map(|keys| Some((place, keys)))
}

fn long_enough(at: At<Secret>, cx: Cx<'_>) -> Option<SecretString> {
    let secret = cx.secret(at.place, at.value)?;
    let bytes = secret.expose_secret().len();
    if bytes < KEY_BYTES_MIN {
        cx.report.note(at.place, format!("the key has {bytes} bytes; write at least {KEY_BYTES_MIN}"));
        return None;
    }
    Some(secret)
}

/// What holds for all products.
pub(super) fn credentials(raw: RawCredentials) -> Option<Credentials> {
    let rule = |fallback| match fallback {
        RawFallback::EmptyHash => SignatureRule::EmptyHash,
        RawFallback::RawPath => SignatureRule::RawPath,
        RawFallback::EncodedSort => SignatureRule::EncodedSort,
        RawFallback::LiteralPlus => SignatureRule::LiteralPlus,
    };
    let named = raw.signature_fallbacks.optional();
    let allow_app_code_without_tls = raw.allow_app_code_without_tls.or(false);
    let signature_fallbacks = match named? {
        None => SignatureRule::FALLBACKS_DEFAULT.to_vec(),
        Some(At { value, .. }) => {
            let named = value.into_iter().map(|given| given.optional().flatten().map(|at| rule(at.value)));
            named.collect::<Option<_>>()?
        }
    };
    Some(Credentials { allow_app_code_without_tls: allow_app_code_without_tls?, signature_fallbacks })
}

/// The schemes that a product accepts, none twice.
pub(super) fn accept(given: Given<Vec<Given<RawScheme>>>, kind: Option<RawKind>, cx: Cx<'_>) -> Option<Vec<Scheme>> {
    let scheme = |raw| match raw {
        RawScheme::Signature => Scheme::Signature,
        RawScheme::AppCode => Scheme::AppCode,
        RawScheme::ApiKey => Scheme::ApiKey,
    };
    let Some(At { place, value }) = given.optional()? else {
        return Some(match kind? {
            RawKind::Llm => vec![Scheme::ApiKey],
            RawKind::Http => vec![Scheme::Signature, Scheme::ApiKey],
        });
    };
    if value.is_empty() {
        cx.report.note(place, "no scheme, so nobody can call; write some of `signature`, `app_code`, `api_key`");
        return None;
    }
    let named = value.into_iter().map(|given| given.optional().flatten().map(|at| scheme(at.value)));
    let mut accepted: Vec<Scheme> = named.collect::<Option<_>>()?;
    accepted.sort_unstable_by(|one, other| other.cmp(one)); // the strongest first
    accepted.dedup();
    Some(accepted)
}

/// Whether signatures are accepted once.
pub(super) fn replay_protection(given: Given<bool>, accept: Option<&[Scheme]>, cx: Cx<'_>) -> Option<bool> {
    let place = given.value().map(|at| at.place);
    let wanted = given.or(false)?;
    if let (true, Some(place), Some(accept)) = (wanted, place, accept)
        && !accept.contains(&Scheme::Signature)
    {
        let message = "`replay_protection` is for products that accept `signature`; add it to `accept`";
        cx.report.note(place, message);
        return None;
    }
    Some(wanted)
}

/// The query parameter that may hold an AppCode.
pub(super) fn app_code_query(given: Given<String>, accept: Option<&[Scheme]>, cx: Cx<'_>) -> Option<Option<String>> {
    let place = given.value().map(|at| at.place);
    let name = cx.text(given, |text| {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if plain && (1..=PARAMETER_BYTES_MAX).contains(&text.len()) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "`{text}` is no parameter's name; write 1 to {PARAMETER_BYTES_MAX} characters of A-Z a-z 0-9 - _ ."
        ))
    })?;
    if let (Some(place), Some(accept)) = (place, accept)
        && !accept.contains(&Scheme::AppCode)
    {
        cx.report.note(place, "`app_code_query` is for products that accept `app_code`; add it to `accept`");
        return None;
    }
    Some(name.map(|at| at.value))
}
