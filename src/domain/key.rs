//! An API key as an account's document keeps it: everything but the key itself.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::allocation::{Allocation, Tags};
use super::budget::Budget;
use super::id::{KeyId, ProductId, ProjectId};
use super::limit::Limits;

/// The marketplace's limit of API keys per account.
pub const KEYS_PER_ACCOUNT_MAX: usize = 20;

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

/// Why a known key opens nothing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It can be used.
    Usable,
    /// Its owner or the operator has switched it off.
    Disabled,
    /// Its time is over.
    Expired,
}

impl ApiKey {
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
        ApiKey {
            id: KeyId::new("key-1").unwrap(),
            hash: KeyHash([0xa5; 32]),
            hint: "sk-tg-abcd…wxyz".into(),
            description: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: expires_at.map(|text| text.parse().unwrap()),
            disabled,
            products: Some(vec![ProductId::new("chat").unwrap()]),
            models: None,
            project: ProjectId::default(),
            tags: Tags::default(),
            limits: Limits::NONE,
            budget: Budget::default(),
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
