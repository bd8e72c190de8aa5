//! One newtype per identifier, so that an account is never passed where a product is meant.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// The longest identifier accepted, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no id; write 1 to {ID_BYTES_MAX} characters of a-z A-Z 0-9 - _ . of which the first is a letter or a digit"
)]
pub struct IdFault(pub String);

fn well_formed(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= ID_BYTES_MAX
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl $name {
            /// Checks and keeps the text; see [`IdFault`] for the rule.
            pub fn new(text: &str) -> Result<Self, IdFault> {
                if well_formed(text) { Ok(Self(text.into())) } else { Err(IdFault(text.to_owned())) }
            }

            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdFault;
            fn try_from(text: String) -> Result<Self, IdFault> {
                Self::new(&text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A buyer.
    AccountId
);
id!(
    /// An API key, as shown in listings; says nothing about the key's text.
    KeyId
);
id!(
    /// An app, as shown in listings; says nothing about its AppKey.
    AppId
);
id!(
    /// An AppCode, as shown in listings; says nothing about the code's text.
    AppCodeId
);
id!(
    /// What is sold.
    ProductId
);
id!(
    /// A purchasable specification of a product.
    OfferId
);
id!(
    /// A bought quantity.
    PackageId
);
id!(
    /// A change asked for by someone; the same id is applied once.
    CommandId
);
id!(
    /// To what a buyer allots its costs.
    ProjectId
);
id!(
    /// A Tollgate process's name, the same across its restarts.
    GatewayId
);

/// The project of what names none.
const DEFAULT_PROJECT: &str = "default";

impl Default for ProjectId {
    fn default() -> Self {
        Self(DEFAULT_PROJECT.into())
    }
}

impl ProjectId {
    /// Whether it is the project of what names none.
    pub fn is_default(&self) -> bool {
        self.as_str() == DEFAULT_PROJECT
    }
}

/// One run of one gateway. Leases are numbered within it, so that two runs never share a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation {
    /// Whose run this is.
    pub gateway: GatewayId,
    /// Counts the starts of this gateway on its data directory, from 1.
    pub number: u64,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.gateway, self.number)
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> String {
        incarnation.to_string()
    }
}

impl TryFrom<String> for Incarnation {
    type Error = IdFault;
    fn try_from(text: String) -> Result<Self, IdFault> {
        let parsed = text.split_once('#').and_then(|(gateway, number)| {
            Some(Self { gateway: GatewayId::new(gateway).ok()?, number: number.parse().ok()? })
        });
        parsed.ok_or(IdFault(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_plain_words() {
        for good in ["a", "A-1_2.x", &"x".repeat(64)] {
            assert!(ProductId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(ProductId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_incarnation_reads_back_what_it_prints() {
        let it = Incarnation { gateway: GatewayId::new("gw-1").unwrap(), number: 7 };
        assert_eq!(Incarnation::try_from(it.to_string()), Ok(it));
        for bad in ["gw", "gw#", "#1", "gw#x"] {
            assert!(Incarnation::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
