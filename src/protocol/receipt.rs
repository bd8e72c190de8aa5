//! Signed receipts and sets of public keys, as bytes. A receipt's payload is JSON text; the signature is over exactly the
//! bytes of that text, so that it does not matter how the JSON around it is laid out. What a payload says is the
//! service's.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::domain::signing::{PublicKey, SigningKey};

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// JSON text; these bytes are signed.
    pub payload: String,
    /// The name of the key that signed.
    pub key_id: String,
    /// Ed25519, in Base64.
    pub signature: String,
}

impl Receipt {
    /// Signs a payload.
    pub fn sign(payload: String, key_id: &str, key: &SigningKey) -> Self {
        let signature = STANDARD.encode(key.sign(payload.as_bytes()));
        Self { payload, key_id: key_id.to_owned(), signature }
    }
}

/// All receipts of one request id: clients may have used it for several calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    /// The latest call first.
    pub receipts: Vec<Receipt>,
}

/// Public keys by name, as a JSON Web Key Set (RFC 7517, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    keys: Vec<Jwk>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    kid: String,
    x: String,
}

impl KeySet {
    /// A set of named keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, PublicKey)>) -> Self {
        let jwk = |(kid, key): (&str, PublicKey)| Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: kid.to_owned(),
            x: URL_SAFE_NO_PAD.encode(key.0),
        };
        Self { keys: keys.into_iter().map(jwk).collect() }
    }

    fn find(&self, id: &str) -> Option<PublicKey> {
        let jwk = self.keys.iter().find(|key| key.kid == id && key.kty == "OKP" && key.crv == "Ed25519")?;
        URL_SAFE_NO_PAD.decode(&jwk.x).ok()?.try_into().ok().map(PublicKey)
    }

    fn names(&self) -> String {
        self.keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// What receipts are held against: a set, or one key, whatever its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// As the gateway publishes it.
    Set(KeySet),
    /// As a PEM file holds it.
    One(PublicKey),
}

impl Trusted {
    /// Reads a key set, or a public key in PEM. `None`: neither.
    pub fn read(text: &str) -> Option<Self> {
        match PublicKey::from_pem(text) {
            Ok(key) => Some(Self::One(key)),
            Err(_) => serde_json::from_str(text).ok().map(Self::Set),
        }
    }
}

/// Why a receipt does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// It is none.
    #[error("malformed: {0}; a receipt is the gateway's answer, or one entry of its `receipts`")]
    Malformed(String),
    /// None of the keys at hand has its key's name.
    #[error("unknown key: it was signed with {id:?}, and the keys at hand are {known}; get the gateway's key set")]
    UnknownKey {
        /// The key's name.
        id: String,
        /// Those at hand.
        known: String,
    },
    /// The signature is not of this payload.
    #[error("changed: the signature of {id:?} does not fit the payload; one of them, or the key, is not what it was")]
    Changed {
        /// The key's name.
        id: String,
    },
}

/// Verifies a receipt, or all of an answer; returns the payloads.
///
/// # Errors
/// The first fault.
pub fn verify(text: &[u8], trusted: &Trusted) -> Result<Vec<String>, ReceiptFault> {
    // One after the other, so that the message is about the form that is meant.
    let malformed = |error: serde_json::Error| ReceiptFault::Malformed(error.to_string());
    let value: serde_json::Value = serde_json::from_slice(text).map_err(malformed)?;
    let receipts = if value.get("receipts").is_some() {
        serde_json::from_slice::<Receipts>(text).map_err(malformed)?.receipts
    } else {
        vec![serde_json::from_slice(text).map_err(malformed)?]
    };
    if receipts.is_empty() {
        return Err(ReceiptFault::Malformed("it holds no receipt".to_owned()));
    }
    receipts.into_iter().map(|receipt| verify_one(receipt, trusted)).collect()
}

fn verify_one(receipt: Receipt, trusted: &Trusted) -> Result<String, ReceiptFault> {
    let Receipt { payload, key_id: id, signature } = receipt;
    let key = match trusted {
        Trusted::One(key) => *key,
        Trusted::Set(set) => {
            let known = || if set.keys.is_empty() { "none".to_owned() } else { set.names() };
            set.find(&id).ok_or_else(|| ReceiptFault::UnknownKey { id: id.clone(), known: known() })?
        }
    };
    let signature = STANDARD
        .decode(&signature)
        .map_err(|error| ReceiptFault::Malformed(format!("the signature is not Base64: {error}")))?;
    if !key.verifies(payload.as_bytes(), &signature) {
        return Err(ReceiptFault::Changed { id });
    }
    let valid = serde_json::from_str::<serde::de::IgnoredAny>(&payload);
    valid.map_err(|error| ReceiptFault::Malformed(format!("the payload is not JSON: {error}")))?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_pem(&SigningKey::pem_of([seed; 32])).unwrap()
    }

    fn set() -> Trusted {
        let set = KeySet::new([("old", key(1).public()), ("new", key(2).public())]);
        Trusted::read(&serde_json::to_string(&set).unwrap()).unwrap()
    }

    fn receipt() -> Receipt {
        Receipt::sign(r#"{"units":1}"#.to_owned(), "new", &key(2))
    }

    fn check(change: impl FnOnce(&mut Receipt), trusted: &Trusted, expected: Result<(), &str>) {
        let mut receipt = receipt();
        change(&mut receipt);
        let verified = verify(&serde_json::to_vec(&receipt).unwrap(), trusted);
        match (verified, expected) {
            (Ok(payloads), Ok(())) => assert_eq!(payloads, [receipt.payload]),
            (Err(fault), Err(word)) => assert!(fault.to_string().starts_with(word), "{fault}"),
            (verified, _) => panic!("{verified:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_receipt_holds_until_anything_of_it_changes() {
        check(|_| {}, &set(), Ok(()));
        check(|_| {}, &Trusted::read(&key(2).public().to_pem()).unwrap(), Ok(()));
        check(|receipt| receipt.payload = receipt.payload.replace('1', "2"), &set(), Err("changed"));
        check(|receipt| receipt.payload.push(' '), &set(), Err("changed"));
        check(|receipt| receipt.key_id = "old".to_owned(), &set(), Err("changed"));
        check(|receipt| receipt.key_id = "gone".to_owned(), &set(), Err("unknown key"));
        check(|receipt| receipt.signature = "é".to_owned(), &set(), Err("malformed"));
        check(|receipt| receipt.signature.clear(), &set(), Err("changed"));
        check(|_| {}, &Trusted::read(&key(3).public().to_pem()).unwrap(), Err("changed"));
    }

    #[test]
    fn the_layout_around_a_payload_does_not_matter_and_an_answer_may_hold_several() {
        let all = Receipts { receipts: vec![receipt(), receipt()] };
        assert_eq!(verify(&serde_json::to_vec_pretty(&all).unwrap(), &set()).map(|all| all.len()), Ok(2));
        assert_eq!(verify(&serde_json::to_vec_pretty(&receipt()).unwrap(), &set()).map(|all| all.len()), Ok(1));
        for bad in ["", "{}", "[]", r#"{"receipts":[]}"#, r#"{"receipts":[{}]}"#, r#"{"payload":1}"#] {
            assert!(matches!(verify(bad.as_bytes(), &set()), Err(ReceiptFault::Malformed(_))), "{bad}");
        }
        assert_eq!(Trusted::read("no key"), None);
    }
}
