//! An API key as an account's document keeps it: everything but the key itself.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::allocation::{Allocation, Tags};
use super::budget::Budget;
use super::id::{KeyId, ProductId, ProjectId};
use super::limit::Limits;
use super::network::Network;

/// The marketplace's limit of API keys per account.
pub const KEYS_PER_ACCOUNT_MAX: usize = 20;

/// Texts of one key that are accepted beside the present one, during rotations. Two, so that a rotation whose answer was
/// lost can be repeated without cutting off the clients that still have the text before it.
pub const FORMER_TEXTS_MAX: usize = 2;

/// A keyed hash of a key's text. Compared as a whole by look-up; it is no secret that opens anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> String {
        hash.to_string()
    }
}

impl TryFrom<String> for KeyHash {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FAULT: &str = "a key hash has 64 hexadecimal digits";
        let mut bytes = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(FAULT);
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let digits = std::str::from_utf8(pair).map_err(|_| FAULT)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| FAULT)?;
        }
        Ok(Self(bytes))
    }
}

/// What a key may be used for and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Named in listings and usage records.
    pub id: KeyId,
    /// Finds the key when it is presented.
    pub hash: KeyHash,
    /// Its first and last characters, so that its owner recognises it.
    pub hint: String,
    /// Texts that it had before, the latest first; at most [`FORMER_TEXTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerText>,
    /// The owner's words.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// First moment at which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Refused until enabled again.
    pub disabled: bool,
    /// The only products it opens; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<Vec<ProductId>>,
    /// The only models it opens, by the names that buyers use; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The only networks from which it is accepted; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<Network>>,
    /// To what its owner allots the calls that it makes.
    #[serde(default, skip_serializing_if = "ProjectId::is_default")]
    pub project: ProjectId,
    /// Its owner's tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// How many calls it may make, over all products.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// How many units its calls may use, over all products.
    #[serde(default, skip_serializing_if = "Budget::is_none")]
    pub budget: Budget,
}

/// A text that a key had before, until a newer one took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerText {
    /// Finds the key when it is presented.
    pub hash: KeyHash,
    /// Its first and last characters.
    pub hint: String,
    /// First moment at which it is refused.
    pub until: Timestamp,
}

/// A text that takes the place of a key's present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewText {
    /// Finds the key when it is presented.
    pub hash: KeyHash,
    /// Its first and last characters.
    pub hint: String,
    /// Until when the one before is accepted; `None`: no longer.
    pub overlap_until: Option<Timestamp>,
}

/// Why a known key opens nothing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It can be used.
    Usable,
    /// Its owner or the operator has switched it off.
    Disabled,
    /// Its time is over.
    Expired,
    /// A newer text has taken the place of the one that was presented.
    Replaced,
}

impl ApiKey {
    /// A key that opens everything, for ever and without limits.
    pub fn new(id: KeyId, hash: KeyHash, hint: String, created_at: Timestamp) -> Self {
        Self {
            id,
            hash,
            hint,
            former: Vec::new(),
            description: String::new(),
            created_at,
            expires_at: None,
            disabled: false,
            products: None,
            models: None,
            networks: None,
            project: ProjectId::default(),
            tags: Tags::default(),
            limits: Limits::NONE,
            budget: Budget::default(),
        }
    }

    /// Whether it can be used at a moment.
    pub fn state_at(&self, now: Timestamp) -> KeyState {
        if self.disabled {
            KeyState::Disabled
        } else if self.expires_at.is_some_and(|end| end <= now) {
            KeyState::Expired
        } else {
            KeyState::Usable
        }
    }

    /// Whether one of its texts can be used at a moment, by the hash of the text.
    pub fn text_state_at(&self, hash: KeyHash, now: Timestamp) -> KeyState {
        let replaced = self.former.iter().any(|former| former.hash == hash && former.until <= now);
        let state = self.state_at(now);
        if state == KeyState::Usable && replaced { KeyState::Replaced } else { state }
    }

    /// The hashes under which it is found.
    pub fn hashes(&self) -> impl Iterator<Item = KeyHash> + '_ {
        std::iter::once(self.hash).chain(self.former.iter().map(|former| former.hash))
    }

    /// Puts a new text in the place of the present one.
    pub(super) fn rotate(&mut self, new: &NewText, now: Timestamp) {
        let until = new.overlap_until.unwrap_or(now);
        let before = FormerText { hash: self.hash, hint: std::mem::take(&mut self.hint), until };
        self.former.insert(0, before);
        for former in &mut self.former {
            former.until = former.until.min(until);
        }
        self.former.retain(|former| former.until > now);
        self.former.truncate(FORMER_TEXTS_MAX);
        (self.hash, self.hint) = (new.hash, new.hint.clone());
    }

    /// To what its calls are allotted.
    pub fn allocation(&self) -> Allocation {
        Allocation { project: self.project.clone(), tags: self.tags.clone() }
    }

    /// Whether it opens a product.
    pub fn opens(&self, product: &ProductId) -> bool {
        self.products.as_ref().is_none_or(|allowed| allowed.contains(product))
    }

    /// Whether it opens a model.
    pub fn opens_model(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|allowed| allowed.iter().any(|name| name == model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(disabled: bool, expires_at: Option<&str>) -> ApiKey {
        let created_at = Timestamp::UNIX_EPOCH;
        let id = KeyId::new("key-1").unwrap();
        ApiKey {
            expires_at: expires_at.map(|text| text.parse().unwrap()),
            disabled,
            products: Some(vec![ProductId::new("chat").unwrap()]),
            ..ApiKey::new(id, KeyHash([0xa5; 32]), "sk-tg-abcd…wxyz".into(), created_at)
        }
    }

    fn check(disabled: bool, expires_at: Option<&str>, now: &str, expected: KeyState) {
        assert_eq!(key(disabled, expires_at).state_at(now.parse().unwrap()), expected, "{now}");
    }

    #[test]
    fn a_key_ends_at_its_expiry_to_the_second() {
        let end = Some("2026-01-01T00:00:00Z");
        check(false, end, "2025-12-31T23:59:59.999Z", KeyState::Usable);
        check(false, end, "2026-01-01T00:00:00Z", KeyState::Expired);
        check(true, end, "2025-12-31T23:59:59Z", KeyState::Disabled);
        check(false, None, "2999-01-01T00:00:00Z", KeyState::Usable);
    }

    #[test]
    fn a_text_before_is_accepted_to_the_end_of_its_overlap() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let new = |number: u8, overlap: Option<i64>| NewText {
            hash: KeyHash([number; 32]),
            hint: format!("text {number}"),
            overlap_until: overlap.map(at),
        };
        let hashes = |key: &ApiKey| key.hashes().map(|hash| hash.0[0]).collect::<Vec<_>>();
        let mut key = ApiKey { hash: KeyHash([1; 32]), ..key(false, None) };
        key.rotate(&new(2, Some(100)), at(0));
        assert_eq!(
            (hashes(&key), key.hint.as_str(), key.former[0].hint.as_str()),
            (vec![2, 1], "text 2", "sk-tg-abcd…wxyz")
        );
        let state = |key: &ApiKey, number: u8, second: i64| key.text_state_at(KeyHash([number; 32]), at(second));
        assert_eq!((state(&key, 1, 99), state(&key, 1, 100)), (KeyState::Usable, KeyState::Replaced));
        assert_eq!(state(&key, 2, 100), KeyState::Usable);
        // The answer was lost, and the rotation is repeated: whoever has the first text still gets in.
        key.rotate(&new(3, Some(200)), at(1));
        assert_eq!(hashes(&key), [3, 2, 1]);
        assert_eq!(
            (state(&key, 1, 99), state(&key, 1, 100), state(&key, 2, 199)),
            (KeyState::Usable, KeyState::Replaced, KeyState::Usable)
        );
        key.rotate(&new(4, Some(150)), at(2));
        assert_eq!(hashes(&key), [4, 3, 2], "no more than two");
        assert_eq!(state(&key, 2, 150), KeyState::Replaced, "a shorter overlap holds for all before");
        key.disabled = true;
        assert_eq!(state(&key, 2, 3), KeyState::Disabled);
        key.rotate(&new(5, None), at(3));
        assert_eq!(hashes(&key), [5], "no overlap: nothing before it is accepted");
    }

    #[test]
    fn an_allow_list_opens_only_what_it_names() {
        let key = key(false, None);
        assert!(key.opens(&ProductId::new("chat").unwrap()));
        assert!(!key.opens(&ProductId::new("other").unwrap()));
        assert!(key.opens_model("anything"));
        let named = ApiKey { models: Some(vec!["m1".into()]), ..key };
        assert!(named.opens_model("m1") && !named.opens_model("M1"));
    }

    #[test]
    fn a_hash_reads_back_what_it_prints() {
        let hash = KeyHash([0xa5; 32]);
        assert_eq!(KeyHash::try_from(hash.to_string()), Ok(hash));
        for bad in ["", "a5", &"zz".repeat(32), &"a5".repeat(33), &"+5".repeat(31)] {
            assert!(KeyHash::try_from((*bad).to_owned()).is_err(), "{bad}");
        }
    }
}
