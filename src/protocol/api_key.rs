//! The text of a Bearer API key, with a checksum that tells a typo from a key that we never issued,
//! and the keyed hash under which a key is stored. Who owns a key is not known here.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::domain::key::KeyHash;

/// What every key begins with.
pub const KEY_PREFIX: &str = "sk-tg-";

/// Random characters of a key: 178 bits.
const RANDOM_LENGTH: usize = 30;

/// Base62 digits that hold any CRC-32.
const CHECKSUM_LENGTH: usize = 6;

/// Length of a key, in characters.
pub const KEY_LENGTH: usize = KEY_PREFIX.len() + RANDOM_LENGTH + CHECKSUM_LENGTH;

/// Random bytes that a new key is drawn from: 30 of them are used, and 1 in 32 is passed over to
/// keep the characters even; that 64 do not suffice has a chance of about 2^-115.
pub const KEY_RANDOM_BYTES: usize = 64;

/// Shortest secret that keys the hashes, in bytes.
pub const SECRET_BYTES_MIN: usize = 16;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed key. Its text is shown once, when the key is made, and by no `Debug`.
#[derive(Clone)]
pub struct ApiKeyText(SecretString);

/// Why a text is no key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It does not begin with [`KEY_PREFIX`].
    #[error("the key is not one of this gateway; its keys begin with sk-tg-")]
    NotOurs,
    /// It is not [`KEY_LENGTH`] characters long.
    #[error("the key has the wrong length; copy all of it, without what stands around it")]
    WrongLength,
    /// A character that is neither a letter nor a digit.
    #[error("the key holds a character that no key has; copy it again")]
    BadCharacter,
    /// The checksum is wrong: a character was changed.
    #[error("the key has a typo; copy it again")]
    BadChecksum,
}

impl ApiKeyText {
    /// Makes a key of random bytes. `None` if they are so uneven that no 30 characters come of them:
    /// then the source is broken.
    pub fn from_random(bytes: [u8; KEY_RANDOM_BYTES]) -> Option<Self> {
        let mut text = String::with_capacity(KEY_LENGTH);
        text.push_str(KEY_PREFIX);
        // 248 = 4 × 62: below it each character has four bytes.
        let even = bytes.into_iter().filter(|byte| *byte < 248);
        text.extend(even.map(|byte| base62(u32::from(byte))).take(RANDOM_LENGTH));
        if text.len() < KEY_PREFIX.len() + RANDOM_LENGTH {
            return None;
        }
        text.extend(checksum(&text));
        Some(Self(text.into()))
    }

    /// Takes a presented text for a key.
    ///
    /// # Errors
    /// See [`KeyFault`].
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let random = text.strip_prefix(KEY_PREFIX).ok_or(KeyFault::NotOurs)?;
        if !random.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(KeyFault::BadCharacter);
        }
        if text.len() != KEY_LENGTH {
            return Err(KeyFault::WrongLength);
        }
        let (payload, sum) = text.split_at_checked(KEY_LENGTH - CHECKSUM_LENGTH).ok_or(KeyFault::WrongLength)?;
        if !sum.chars().eq(checksum(payload)) {
            return Err(KeyFault::BadChecksum);
        }
        Ok(Self(text.into()))
    }

    /// The key itself, for the one answer that shows it and for [`KeyHasher::hash`].
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Enough to recognise a key by, and too little to use it: `sk-tg-AbCd…wxyz`.
    pub fn hint(&self) -> String {
        let text = self.expose();
        let first = text.get(..KEY_PREFIX.len() + 4).unwrap_or_default();
        let last = text.get(KEY_LENGTH - 4..).unwrap_or_default();
        format!("{first}…{last}")
    }
}

impl fmt::Debug for ApiKeyText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKeyText(redacted)")
    }
}

/// The CRC-32 of the text as base62 digits, the highest first.
fn checksum(text: &str) -> impl Iterator<Item = char> + use<> {
    let sum = crc32fast::hash(text.as_bytes());
    (0..CHECKSUM_LENGTH as u32).rev().map(move |place| base62(sum / 62_u32.pow(place)))
}

/// The last base62 digit of a number.
fn base62(number: u32) -> char {
    BASE62.get(number as usize % BASE62.len()).copied().map_or('0', char::from)
}

/// Hashes keys with the operator's secret, whose own part of the work is done once.
#[derive(Clone)]
pub struct KeyHasher(Hmac<Sha256>);

/// The secret has fewer than [`SECRET_BYTES_MIN`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret that keys the hashes has fewer than {SECRET_BYTES_MIN} bytes")]
pub struct SecretTooShort;

impl KeyHasher {
    /// Takes the secret that keys the hashes.
    ///
    /// # Errors
    /// [`SecretTooShort`].
    pub fn new(secret: &[u8]) -> Result<Self, SecretTooShort> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretTooShort);
        }
        Hmac::new_from_slice(secret).map(Self).map_err(|_| SecretTooShort)
    }

    /// Hashes a key's text.
    pub fn hash(&self, key: &str) -> KeyHash {
        self.hash_parts(&[key])
    }

    /// Hashes a text that is in parts.
    pub fn hash_parts(&self, parts: &[&str]) -> KeyHash {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part.as_bytes()));
        KeyHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHasher(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Its bytes are 0 to 63: the characters run through base62 from its start.
    fn sample() -> ApiKeyText {
        ApiKeyText::from_random(std::array::from_fn(|at| at as u8)).unwrap()
    }

    fn refused(text: &str, fault: KeyFault) {
        assert_eq!(ApiKeyText::parse(text).err(), Some(fault), "{text}");
    }

    #[test]
    fn a_key_has_its_shape() {
        let key = sample();
        // CRC-32 of "sk-tg-0123456789ABCDEFGHIJKLMNOPQRST", computed apart with zlib.
        assert_eq!(key.expose(), "sk-tg-0123456789ABCDEFGHIJKLMNOPQRST04f25W");
        assert_eq!(key.expose().len(), KEY_LENGTH);
        assert_eq!(ApiKeyText::parse(key.expose()).unwrap().expose(), key.expose());
    }

    #[test]
    fn uneven_bytes_are_passed_over() {
        assert!(ApiKeyText::from_random([248; KEY_RANDOM_BYTES]).is_none());
        let with_even = |count: usize| {
            ApiKeyText::from_random(std::array::from_fn(|at| if at < KEY_RANDOM_BYTES - count { 255 } else { 247 }))
        };
        assert!(with_even(RANDOM_LENGTH - 1).is_none());
        assert!(with_even(RANDOM_LENGTH).unwrap().expose().starts_with("sk-tg-zzzz"));
    }

    #[test]
    fn a_typo_is_told_from_a_strangers_key() {
        let key = sample();
        let key = key.expose();
        for text in ["", "sk-", "sk-tg", "sk-proj-abc", "SK-TG-0123", "Bearer sk-tg-", " sk-tg-0"] {
            refused(text, KeyFault::NotOurs);
        }
        for text in ["sk-tg-", &key[..KEY_LENGTH - 1], &format!("{key}0")] {
            refused(text, KeyFault::WrongLength);
        }
        for text in [key.replace('A', "-"), key.replace('A', " "), key.replace('A', "é"), format!("{key}\n")] {
            refused(&text, KeyFault::BadCharacter);
        }
        refused(&key.replace('A', "B"), KeyFault::BadChecksum);
        refused(&key.replace("AB", "BA"), KeyFault::BadChecksum);
        refused(&key.replace('A', "a"), KeyFault::BadChecksum);
    }

    #[test]
    fn only_a_hint_is_shown() {
        let key = sample();
        let last = key.expose()[KEY_LENGTH - 4..].to_owned();
        assert_eq!(key.hint(), format!("sk-tg-0123…{last}"));
        assert_eq!(format!("{key:?}"), "ApiKeyText(redacted)");
        let hasher = KeyHasher::new(&[7; 16]).unwrap();
        assert_eq!(format!("{hasher:?}"), "KeyHasher(redacted)");
    }

    #[test]
    fn hashes_are_hmac_sha256() {
        // RFC 4231, test case 6: key of 131 bytes 0xaa.
        let hasher = KeyHasher::new(&[0xaa; 131]).unwrap();
        let hash = hasher.hash("Test Using Larger Than Block-Size Key - Hash Key First");
        let shown: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        assert_eq!(hasher.hash("a"), hasher.hash("a"));
        assert_ne!(hasher.hash("a"), KeyHasher::new(&[0xab; 131]).unwrap().hash("a"));
    }

    #[test]
    fn short_secrets_are_refused() {
        assert!(KeyHasher::new(&[1; SECRET_BYTES_MIN]).is_ok());
        assert_eq!(KeyHasher::new(&[1; SECRET_BYTES_MIN - 1]).err(), Some(SecretTooShort));
        assert_eq!(KeyHasher::new(b"").err(), Some(SecretTooShort));
    }

    proptest! {
        #[test]
        fn made_keys_parse_and_changed_ones_do_not(
            bytes in prop::collection::vec(any::<u8>(), KEY_RANDOM_BYTES),
            at in KEY_PREFIX.len()..KEY_LENGTH,
            other in "[0-9A-Za-z]",
        ) {
            let key = ApiKeyText::from_random(bytes.try_into().unwrap()).unwrap();
            let key = key.expose();
            prop_assert!(ApiKeyText::parse(key).is_ok());
            let changed = format!("{}{other}{}", &key[..at], &key[at + 1..]);
            prop_assert_eq!(ApiKeyText::parse(&changed).is_ok(), changed == key);
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in "\\PC*", tail in "\\PC*") {
            prop_assert!(ApiKeyText::parse(&text).is_err());
            let prefixed = format!("sk-tg-{tail}");
            prop_assert!(ApiKeyText::parse(&prefixed).is_err());
        }
    }
}
