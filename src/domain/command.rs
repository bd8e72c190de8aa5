//! What can be asked of an account, other than usage. Each command has an id, and is applied once.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::allocation::Tags;
use super::amount::Units;
use super::app::{App, AppChange};
use super::budget::Budget;
use super::id::{AppCodeId, AppId, CommandId, KeyId, PackageId, ProductId, ProjectId};
use super::key::{ApiKey, NewText};
use super::limit::Limits;
use super::money::Currency;
use super::network::Network;
use super::offer::Offer;

/// A change that someone asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The same id is applied once, whatever the content.
    pub id: CommandId,
    /// The change.
    pub action: Action,
}

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Adds an API key.
    AddKey(ApiKey),
    /// Changes what is given of a key; `None` leaves it.
    ChangeKey(KeyId, KeyChange),
    /// Gives a key a new text.
    RotateKey(KeyId, NewText),
    /// Removes a key for ever.
    RevokeKey(KeyId),
    /// Puts a package of an offer into the account's pool.
    AddPackage {
        /// Its name from now on.
        package: PackageId,
        /// Whose terms it keeps.
        offer: Offer,
        /// First moment of use; `None`: now.
        valid_from: Option<Timestamp>,
        /// To what its owner allots it.
        #[serde(default, skip_serializing_if = "ProjectId::is_default")]
        project: ProjectId,
        /// Its owner's tags.
        #[serde(default, skip_serializing_if = "Tags::is_empty")]
        tags: Tags,
        /// For an offer [for apps](Offer::for_apps): the account's MARKETPLACE_APP, if it has none yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spare_app: Option<Box<App>>,
    },
    /// Sets how many calls the account may make, in place of all limits that there are.
    LimitAccount(Limits),
    /// Adds an app.
    AddApp(Box<App>),
    /// Changes an app, or removes it.
    ChangeApp(AppId, AppChange),
    /// An operator's decision on units in suspense.
    ResolveSuspense {
        /// The pool.
        product: ProductId,
        /// The package.
        package: PackageId,
        /// How many units.
        units: Units,
        /// True: they were used; false: they go back for sale.
        used: bool,
    },
}

/// The parts of a key that can change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    /// The owner's words.
    pub description: Option<String>,
    /// Switches it off or on.
    pub disabled: Option<bool>,
    /// A new expiry, or `Some(None)` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub expires_at: Option<Option<Timestamp>>,
    /// A new list of products, or `Some(None)` for all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub products: Option<Option<Vec<ProductId>>>,
    /// A new list of models, or `Some(None)` for all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub models: Option<Option<Vec<String>>>,
    /// A new list of networks, or `Some(None)` for all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub networks: Option<Option<Vec<Network>>>,
    /// Another project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Other tags, in place of all that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Other limits, in place of all that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Another budget, in place of the whole one that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// Tells `null`, which takes a limit away, from a field that is left out.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Why a command was not applied. The texts say what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The account has as many keys as it may have.
    #[error("an account has at most {max} API keys; revoke one first")]
    TooManyKeys {
        /// The limit.
        max: usize,
    },
    /// There is no such key.
    #[error("the account has no key {0}")]
    UnknownKey(KeyId),
    /// The account has as many apps as it may have.
    #[error("an account has at most {max} apps; delete one first")]
    TooManyApps {
        /// The limit.
        max: usize,
    },
    /// There is no such app.
    #[error("the account has no app {0}")]
    UnknownApp(AppId),
    /// The app has as many AppCodes as it may have.
    #[error("an app has at most {max} AppCodes; remove one first")]
    TooManyCodes {
        /// The limit.
        max: usize,
    },
    /// The app has no such AppCode.
    #[error("the app has no AppCode {0}")]
    UnknownCode(AppCodeId),
    /// The app is bound to as many products as it may be.
    #[error("an app is bound to at most {max} products; unbind one first")]
    TooManyBindings {
        /// The limit.
        max: usize,
    },
    /// An AppKey or AppCode that is there already.
    #[error("this AppKey or AppCode is in use already; choose another one")]
    CredentialTaken,
    /// There is no such package in the pool's document.
    #[error("the pool has no package {0} with units in suspense")]
    UnknownPackage(PackageId),
    /// An account's money is in one currency.
    #[error(
        "the account's money is in {has}, and this is in {asked}; use an offer or a budget in {has}, or another account"
    )]
    OtherCurrency {
        /// The account's.
        has: Currency,
        /// That of the offer or the budget.
        asked: Currency,
    },
    /// The offer's validity leads outside the calendar.
    #[error("the package would end outside the calendar")]
    OutsideCalendar,
    /// More units than are in suspense.
    #[error("only {available} units are in suspense")]
    NotInSuspense {
        /// What there is.
        available: Units,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_key_reads_back_what_it_leaves_and_what_it_takes_away() {
        let check = |change: KeyChange, text: &str| {
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
            assert_eq!(serde_json::from_str::<KeyChange>(text).unwrap(), change);
        };
        check(KeyChange::default(), r#"{"description":null,"disabled":null}"#);
        let limits =
            KeyChange { expires_at: Some(None), models: Some(Some(vec!["m".to_owned()])), ..KeyChange::default() };
        check(limits, r#"{"description":null,"disabled":null,"expires_at":null,"models":["m"]}"#);
    }
}
