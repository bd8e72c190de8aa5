//! The gateway's own secrets at work: hashes by which credentials are found, and the seal on what must be read again.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use secrecy::SecretString;

use super::api_key::{KeyHasher, SECRET_BYTES_MIN, SecretTooShort};
use super::signature::canonical::hex;
use crate::domain::key::KeyHash;

/// Random bytes that each seal needs, never the same twice.
pub const SEAL_RANDOM_BYTES: usize = NONCE_LEN;
/// What a sealed text begins with: the form in which it is sealed.
const SEALED_PREFIX: &str = "v1.";

/// Hashes credentials and seals secrets.
#[derive(Clone)]
pub struct Keyring {
    hasher: KeyHasher,
    /// The first one seals, all of them open.
    seals: Arc<[LessSafeKey]>,
}

/// A text that none of the keys opens for its owner: sealed with a key that is gone, or altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed secret cannot be opened; name the key that sealed it under secrets.former_seal_keys")]
pub struct SealBroken;

impl Keyring {
    /// Takes the secret that keys the hashes, and those that seal: the first seals, the others still open. The last
    /// opener is always made of the hash key; with no other it seals, too.
    ///
    /// # Errors
    /// When one of them is too short.
    pub fn new(hash_key: &[u8], seal_keys: &[&[u8]]) -> Result<Self, SecretTooShort> {
        let hasher = KeyHasher::new(hash_key)?;
        if seal_keys.iter().any(|key| key.len() < SECRET_BYTES_MIN) {
            return Err(SecretTooShort);
        }
        let seals = seal_keys.iter().copied().chain([hash_key]).map(seal_key).collect::<Option<_>>();
        Ok(Self { hasher, seals: seals.ok_or(SecretTooShort)? })
    }

    /// The hash of an API key.
    pub fn of_api_key(&self, key: &str) -> KeyHash {
        self.hasher.hash(key)
    }

    /// The hash of an AppKey. Another kind of credential with the same text has another hash.
    pub fn of_app_key(&self, key: &str) -> KeyHash {
        self.hasher.hash_parts(&["app_key/", key])
    }

    /// The hash of an AppCode; see [`Self::of_app_key`].
    pub fn of_app_code(&self, code: &str) -> KeyHash {
        self.hasher.hash_parts(&["app_code/", code])
    }

    /// The hash under which a used signature is remembered.
    pub fn of_signature(&self, signature: &[u8; 32]) -> KeyHash {
        self.hasher.hash_parts(&["signature/", &hex(signature)])
    }

    /// A text that stands for the secret and opens only with one of our keys, and for the same owner.
    pub fn seal(&self, secret: &str, owner: &str, random: [u8; SEAL_RANDOM_BYTES]) -> Option<String> {
        let mut sealed = secret.as_bytes().to_vec();
        let nonce = Nonce::assume_unique_for_key(random);
        self.seals.first()?.seal_in_place_append_tag(nonce, Aad::from(owner.as_bytes()), &mut sealed).ok()?;
        let bytes = [random.as_slice(), &sealed].concat();
        Some(format!("{SEALED_PREFIX}{}", BASE64_STANDARD_NO_PAD.encode(bytes)))
    }

    /// The secret behind a sealed text.
    ///
    /// # Errors
    /// [`SealBroken`].
    pub fn open(&self, sealed: &str, owner: &str) -> Result<SecretString, SealBroken> {
        let bytes = sealed.strip_prefix(SEALED_PREFIX).and_then(|text| BASE64_STANDARD_NO_PAD.decode(text).ok());
        let bytes = bytes.ok_or(SealBroken)?;
        let (random, sealed) = bytes.split_first_chunk::<SEAL_RANDOM_BYTES>().ok_or(SealBroken)?;
        let open = |key: &LessSafeKey| {
            let mut text = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*random);
            let opened = key.open_in_place(nonce, Aad::from(owner.as_bytes()), &mut text).ok()?;
            std::str::from_utf8(opened).ok().map(SecretString::from)
        };
        self.seals.iter().find_map(open).ok_or(SealBroken)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keyring(redacted)")
    }
}

/// The sealing key that a configured secret stands for.
fn seal_key(secret: &[u8]) -> Option<LessSafeKey> {
    let derived = Salt::new(HKDF_SHA256, b"tollgate").extract(secret);
    let derived = derived.expand(&[b"secrets of apps"], &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(derived)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const HASH_KEY: &[u8] = b"the hash key of tests";
    const FIRST: &[u8] = b"the first seal key of tests";
    const SECOND: &[u8] = b"the second seal key of tests";

    fn keyring(seal_keys: &[&[u8]]) -> Keyring {
        Keyring::new(HASH_KEY, seal_keys).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_for_its_owner_with_the_key_that_sealed_it() {
        let check = |sealing: &[&[u8]], opening: &[&[u8]], opens: bool| {
            let sealed = keyring(sealing).seal("the secret", "acme/app", [7; SEAL_RANDOM_BYTES]).unwrap();
            assert!(!sealed.contains("secret"));
            let opened = keyring(opening).open(&sealed, "acme/app");
            assert_eq!(opened.is_ok_and(|text| text.expose_secret() == "the secret"), opens, "{sealing:?} {opening:?}");
            assert!(keyring(sealing).open(&sealed, "acme/other").is_err());
        };
        check(&[], &[], true);
        check(&[FIRST], &[FIRST], true);
        check(&[FIRST], &[SECOND, FIRST], true);
        check(&[], &[FIRST], true);
        check(&[SECOND, FIRST], &[FIRST], false);
        check(&[FIRST], &[], false);
    }

    #[test]
    fn what_was_altered_does_not_open() {
        let keyring = keyring(&[FIRST]);
        let sealed = keyring.seal("the secret", "a", [7; SEAL_RANDOM_BYTES]).unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert!(keyring.open(std::str::from_utf8(&altered).unwrap(), "a").is_err(), "{at}");
        }
        for text in ["", "v1.", "v1.AAAA", "v1.é"] {
            assert_eq!(keyring.open(text, "a").err(), Some(SealBroken), "{text}");
        }
    }

    #[test]
    fn kinds_of_credentials_do_not_mix() {
        let keyring = keyring(&[]);
        let hashes = [keyring.of_api_key("x"), keyring.of_app_key("x"), keyring.of_app_code("x")];
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
        assert_eq!(Keyring::new(b"short", &[]).err(), Some(SecretTooShort));
        assert_eq!(Keyring::new(HASH_KEY, &[FIRST, b""]).err(), Some(SecretTooShort));
        assert_eq!(format!("{keyring:?}"), "Keyring(redacted)");
    }
}
