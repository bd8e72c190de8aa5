//! The schemes by which a caller proves who it is, and the readings under which a signature may fit.

use serde::{Deserialize, Serialize};

/// How a caller proves who it is, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// A Bearer key.
    ApiKey,
    /// A code of an app.
    AppCode,
    /// A signature made with an app's secret.
    Signature,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ApiKey, Self::AppCode, Self::Signature];

    /// The name in configurations and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::AppCode => "app_code",
            Self::Signature => "signature",
        }
    }
}

/// How a request is read to get the text that was signed. Signers in the field disagree in a few corners: the base
/// rule comes first, each other reading differs from it in one point and is tried only if the base rule does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureRule {
    /// Path and query are decoded once and encoded again, a plus in the query is a space, parameters are sorted as
    /// decoded.
    Base,
    /// The path is encoded as it came, escapes and all.
    RawPath,
    /// Parameters are sorted as encoded.
    EncodedSort,
    /// A plus in the query is a plus.
    LiteralPlus,
    /// An empty body counts with its hash though the signed header says `UNSIGNED-PAYLOAD`.
    EmptyHash,
}

impl SignatureRule {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 5] = [Self::Base, Self::EmptyHash, Self::RawPath, Self::EncodedSort, Self::LiteralPlus];
    /// Those that an operator may switch on and off.
    pub const FALLBACKS: [Self; 4] = [Self::EmptyHash, Self::RawPath, Self::EncodedSort, Self::LiteralPlus];
    /// Those that are on by themselves: SDKs need them. A literal plus is no SDK's, and lets a plus stand for the `%2B`
    /// that was signed.
    pub const FALLBACKS_DEFAULT: [Self; 3] = [Self::EmptyHash, Self::RawPath, Self::EncodedSort];

    /// The name in configurations and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::RawPath => "raw_path",
            Self::EncodedSort => "encoded_sort",
            Self::LiteralPlus => "literal_plus",
            Self::EmptyHash => "empty_hash",
        }
    }
}

/// What a store says of a signature that is about to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureUse {
    /// It was not used before, and is noted.
    First,
    /// It was used before.
    Again,
    /// It is too old by the store's time.
    Over,
    /// It is dated before the store's memory begins: nobody can say.
    Unsure,
    /// There is no room to note it.
    Full,
}

impl SignatureUse {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::First, Self::Again, Self::Over, Self::Unsure, Self::Full];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Again => "again",
            Self::Over => "over",
            Self::Unsure => "unsure",
            Self::Full => "full",
        }
    }
}
