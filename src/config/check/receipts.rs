//! What signs receipts, and what has signed them earlier.

use secrecy::ExposeSecret;

use super::Cx;
use crate::config::Receipts;
use crate::config::bounds::EARLIER_KEYS_MAX;
use crate::config::raw::{RawEarlierKey, RawReceipts};
use crate::config::read::{At, Given};
use crate::domain::id::ID_BYTES_MAX;
use crate::domain::signing::{PublicKey, SigningKey};

pub(super) fn receipts(given: Given<RawReceipts>, cx: Cx<'_>) -> Option<Option<Receipts>> {
    let Some(At { place, value: raw }) = given.optional()? else { return Some(None) };
    let id = raw.key_id.required("key_id", place, "\"2026-11\"", cx.report).and_then(|at| cx.rule(at, key_id));
    let key = raw.key.required("key", place, "\"${file:receipt.key}\"", cx.report);
    let key = key.and_then(|at| {
        let secret = cx.secret(at.place, at.value)?;
        let key = SigningKey::from_pem(secret.expose_secret());
        key.map_err(|fault| cx.report.note(at.place, fault.to_string())).ok()
    });
    let earlier = earlier(raw.earlier, id.as_ref().map(|at| at.value.as_str()), cx);
    Some(Some(Receipts { key_id: id?.value, key: key?, earlier: earlier? }))
}

fn earlier(given: Given<Vec<Given<RawEarlierKey>>>, own: Option<&str>, cx: Cx<'_>) -> Option<Vec<(String, PublicKey)>> {
    let Some(At { place, value: raw }) = given.optional()? else { return Some(Vec::new()) };
    cx.at_most(EARLIER_KEYS_MAX, raw.len(), "keys", place)?;
    let mut keys: Vec<(String, PublicKey)> = Vec::new();
    let mut complete = true;
    for given in raw {
        let Given::Value(at) = given else {
            complete = false;
            continue;
        };
        match earlier_key(at, cx) {
            Some((at, _)) if own == Some(at.value.as_str()) || keys.iter().any(|(id, _)| *id == at.value) => {
                cx.report.note(at.place, format!("a second key {:?}; give each its own id", at.value));
                complete = false;
            }
            Some((at, key)) => keys.push((at.value, key)),
            None => complete = false,
        }
    }
    complete.then_some(keys)
}

fn earlier_key(at: At<RawEarlierKey>, cx: Cx<'_>) -> Option<(At<String>, PublicKey)> {
    let At { place, value: raw } = at;
    let id = raw.id.required("id", place, "\"2025-11\"", cx.report).and_then(|at| cx.rule(at, key_id));
    let key = raw.public_key.required("public_key", place, "\"${file:receipt-2025.pub}\"", cx.report);
    let key = key.and_then(|at: At<String>| cx.rule(at, PublicKey::from_pem));
    Some((id?, key?.value))
}

fn key_id(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if text.is_empty() || text.len() > ID_BYTES_MAX || !plain {
        return Err(format!("`{text}` is no key id; write 1 to {ID_BYTES_MAX} characters of a-z A-Z 0-9 - _ ."));
    }
    Ok(text.to_owned())
}
