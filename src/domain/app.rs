//! An app: a client application with an AppKey and a secret that signs its calls, and with up to five AppCodes. It opens
//! the products that it is bound to. What the account's document keeps of it opens nothing by itself: the secret is
//! sealed, a code is a keyed hash.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::command::Refusal;
use super::id::{AppCodeId, AppId, ProductId};
use super::key::KeyHash;
use super::limit::Limits;
use super::network::Network;

/// The marketplace's limit of apps per account, beside the one that purchases make.
pub const APPS_PER_ACCOUNT_MAX: usize = 50;
/// The marketplace's limit of AppCodes per app.
pub const CODES_PER_APP_MAX: usize = 5;
/// Most products that an app is bound to by hand.
pub const BINDINGS_MAX: usize = 100;
/// Secrets of an app that are accepted at one time: the present one, and the one before it during a rotation.
pub const SECRETS_MAX: usize = 2;
/// The app that the first purchase of a product for apps makes; no other may have its name.
pub const MARKETPLACE_APP: &str = "MARKETPLACE_APP";

/// A client application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Named in listings and usage records.
    pub id: AppId,
    /// The owner's word for it.
    pub name: String,
    /// What its calls name: no secret.
    pub app_key: String,
    /// Finds the app when its AppKey is presented.
    pub hash: KeyHash,
    /// The present one first; at most [`SECRETS_MAX`].
    pub secrets: Vec<AppSecret>,
    /// At most [`CODES_PER_APP_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<AppCode>,
    /// The products that it opens; bound by hand at most [`BINDINGS_MAX`].
    pub products: Vec<ProductId>,
    /// The only networks from which it is accepted; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<Network>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many calls it may make, over all products.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// A secret that signs calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSecret {
    /// The secret, encrypted with a key that no document holds.
    pub sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// First moment at which it is refused: a newer one has taken its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl AppSecret {
    /// Whether calls signed with it are accepted at a moment.
    pub fn usable_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A code that opens what its app opens, without a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppCode {
    /// Named in listings.
    pub id: AppCodeId,
    /// Finds the app when the code is presented.
    pub hash: KeyHash,
    /// Its first characters, so that its owner recognises it.
    pub hint: String,
    /// When it was added.
    pub created_at: Timestamp,
}

/// A secret that is sealed with another key than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherSeal {
    /// As it was sealed; a secret that has gone meanwhile is left out.
    pub before: String,
    /// As it is sealed from now on.
    pub after: String,
}

/// What can be changed of an account's apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppChange {
    /// Puts a new secret in the place of the present one, which is accepted until a moment; `None`: no longer.
    RotateSecret {
        /// The new one.
        secret: AppSecret,
        /// The end of the one before.
        overlap_until: Option<Timestamp>,
    },
    /// Adds an AppCode.
    AddCode(AppCode),
    /// Removes one for ever.
    RemoveCode(AppCodeId),
    /// Lets the app open a product.
    Bind(ProductId),
    /// No longer lets it.
    Unbind(ProductId),
    /// Sets how many calls it may make, in place of all limits that there are.
    Limit(Limits),
    /// Puts other seals of the same secrets in the place of those that there are.
    Reseal(Vec<OtherSeal>),
    /// Sets the only networks from which it is accepted; `None`: all.
    AllowNetworks(Option<Vec<Network>>),
    /// Removes the app for ever, with its secrets and codes.
    Delete,
}

/// Adds an app.
pub(super) fn add(head: &mut Account, app: &App) -> Result<(), Refusal> {
    let by_hand = head.apps.iter().filter(|app| app.name != MARKETPLACE_APP).count();
    if by_hand >= APPS_PER_ACCOUNT_MAX {
        return Err(Refusal::TooManyApps { max: APPS_PER_ACCOUNT_MAX });
    }
    refuse_taken(head, app.hash)?;
    head.apps.push(app.clone());
    Ok(())
}

/// Changes an app.
pub(super) fn change(head: &mut Account, id: &AppId, wanted: &AppChange, now: Timestamp) -> Result<(), Refusal> {
    if let AppChange::AddCode(code) = wanted {
        refuse_taken(head, code.hash)?;
    }
    let unknown = || Refusal::UnknownApp(id.clone());
    let app = head.apps.iter_mut().find(|app| app.id == *id).ok_or_else(unknown)?;
    match wanted {
        AppChange::RotateSecret { secret, overlap_until } => rotate(app, secret, *overlap_until, now),
        AppChange::AddCode(code) => {
            if app.codes.len() >= CODES_PER_APP_MAX {
                return Err(Refusal::TooManyCodes { max: CODES_PER_APP_MAX });
            }
            app.codes.push(code.clone());
        }
        AppChange::RemoveCode(code) => {
            let before = app.codes.len();
            app.codes.retain(|there| there.id != *code);
            if app.codes.len() == before {
                return Err(Refusal::UnknownCode(code.clone()));
            }
        }
        AppChange::Bind(product) => bind(app, product)?,
        AppChange::Reseal(seals) => seals.iter().for_each(|seal| {
            let sealed_so = app.secrets.iter_mut().filter(|secret| secret.sealed == seal.before);
            sealed_so.for_each(|secret| secret.sealed.clone_from(&seal.after));
        }),
        AppChange::AllowNetworks(networks) => app.networks = networks.clone(),
        AppChange::Unbind(product) => app.products.retain(|bound| bound != product),
        AppChange::Limit(limits) => app.limits = *limits,
        AppChange::Delete => head.apps.retain(|app| app.id != *id),
    }
    Ok(())
}

fn rotate(app: &mut App, secret: &AppSecret, overlap_until: Option<Timestamp>, now: Timestamp) {
    let until = overlap_until.unwrap_or(now);
    for before in &mut app.secrets {
        before.until = Some(before.until.map_or(until, |end| end.min(until)));
    }
    app.secrets.retain(|before| before.usable_at(now));
    app.secrets.truncate(SECRETS_MAX - 1); // the latest of those before
    app.secrets.insert(0, secret.clone());
}

fn bind(app: &mut App, product: &ProductId) -> Result<(), Refusal> {
    if app.products.contains(product) {
        return Ok(());
    }
    if app.products.len() >= BINDINGS_MAX {
        return Err(Refusal::TooManyBindings { max: BINDINGS_MAX });
    }
    app.products.push(product.clone());
    Ok(())
}

fn refuse_taken(head: &Account, hash: KeyHash) -> Result<(), Refusal> {
    if head.hashes().any(|there| there == hash) { Err(Refusal::CredentialTaken) } else { Ok(()) }
}

/// The purchase of a product for apps: it is bound to the account's [`MARKETPLACE_APP`], which the first one makes. How
/// many apps and bindings there are by hand is no reason to refuse a purchase.
pub(super) fn bind_bought(head: &mut Account, product: &ProductId, spare: &App) -> Result<(), Refusal> {
    if let Some(app) = head.apps.iter_mut().find(|app| app.name == MARKETPLACE_APP) {
        if !app.products.contains(product) {
            app.products.push(product.clone());
        }
        return Ok(());
    }
    refuse_taken(head, spare.hash)?;
    head.apps.push(App { name: MARKETPLACE_APP.to_owned(), products: vec![product.clone()], ..spare.clone() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::account::{Books, apply};
    use crate::domain::amount::Units;
    use crate::domain::billable::BillableStatuses;
    use crate::domain::command::{Action, Command};
    use crate::domain::id::{AccountId, CommandId, OfferId, PackageId};
    use crate::domain::offer::{Offer, Validity};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn product(id: &str) -> ProductId {
        ProductId::new(id).unwrap()
    }

    fn app(number: u8) -> App {
        App {
            id: AppId::new(&format!("app-{number}")).unwrap(),
            name: "test".into(),
            app_key: number.to_string(),
            hash: KeyHash([number; 32]),
            secrets: vec![secret("first", 0)],
            codes: Vec::new(),
            products: Vec::new(),
            networks: None,
            created_at: at(0),
            limits: Limits::NONE,
        }
    }

    fn secret(sealed: &str, made: i64) -> AppSecret {
        AppSecret { sealed: sealed.into(), created_at: at(made), until: None }
    }

    fn code(number: u8) -> AppCode {
        let id = AppCodeId::new(&format!("code-{number}")).unwrap();
        AppCode { id, hash: KeyHash([number; 32]), hint: "abc…".into(), created_at: at(0) }
    }

    struct World {
        books: Books,
        commands: u32,
    }

    impl World {
        fn new() -> Self {
            let head = Account::open(AccountId::new("a").unwrap(), "A".into(), at(0));
            Self { books: Books { head, pools: BTreeMap::new() }, commands: 0 }
        }

        fn run(&mut self, action: Action, now: i64) -> Result<(), Refusal> {
            self.commands += 1;
            let id = CommandId::new(&format!("c-{}", self.commands)).unwrap();
            let change = apply(&self.books, &Command { id, action }, at(now))?;
            self.books.head = change.head.unwrap();
            Ok(())
        }

        fn add(&mut self, number: u8) -> Result<(), Refusal> {
            self.run(Action::AddApp(Box::new(app(number))), 0)
        }

        fn change(&mut self, number: u8, change: AppChange, now: i64) -> Result<(), Refusal> {
            self.run(Action::ChangeApp(app(number).id, change), now)
        }

        fn buy(&mut self, of: &str, spare: Option<u8>) -> Result<(), Refusal> {
            let offer = Offer {
                id: OfferId::new("small").unwrap(),
                product: product(of),
                quantity: Units::new(1),
                validity: Validity::Days(1),
                zone: jiff::tz::TimeZone::UTC,
                billable: BillableStatuses::default(),
                price: None,
                for_apps: spare.is_some(),
            };
            let package = PackageId::new(&format!("p-{}", self.commands)).unwrap();
            let spare_app = spare.map(|number| Box::new(app(number)));
            let (project, tags) = Default::default();
            self.run(Action::AddPackage { package, offer, valid_from: None, project, tags, spare_app }, 0)
        }
    }

    #[test]
    fn an_account_has_fifty_apps_and_each_five_codes() {
        let mut world = World::new();
        for number in 0..50 {
            world.add(number).unwrap();
        }
        assert_eq!(world.add(50), Err(Refusal::TooManyApps { max: 50 }));
        for number in 100..105 {
            world.change(7, AppChange::AddCode(code(number)), 0).unwrap();
        }
        assert_eq!(world.change(7, AppChange::AddCode(code(105)), 0), Err(Refusal::TooManyCodes { max: 5 }));
        world.change(7, AppChange::RemoveCode(code(102).id), 0).unwrap();
        assert_eq!(world.change(7, AppChange::RemoveCode(code(102).id), 0), Err(Refusal::UnknownCode(code(102).id)));
        world.change(7, AppChange::AddCode(code(105)), 0).unwrap();
        world.change(7, AppChange::Delete, 0).unwrap();
        assert_eq!(world.change(7, AppChange::Delete, 0), Err(Refusal::UnknownApp(app(7).id)));
        assert_eq!(world.books.head.hashes().count(), 49);
    }

    #[test]
    fn no_two_credentials_of_an_account_are_the_same() {
        let mut world = World::new();
        world.add(1).unwrap();
        world.change(1, AppChange::AddCode(code(2)), 0).unwrap();
        for (number, taken) in [(1, true), (2, true), (3, false)] {
            let refused = |done| done == Err(Refusal::CredentialTaken);
            assert_eq!(refused(world.change(1, AppChange::AddCode(code(number)), 0)), taken, "{number}");
            assert!(refused(world.add(number)), "{number}: it is there now");
        }
    }

    #[test]
    fn a_secret_ends_when_its_overlap_does_and_two_at_most_are_kept() {
        let mut world = World::new();
        world.add(1).unwrap();
        let rotate = |sealed: &str, now, overlap: Option<i64>| AppChange::RotateSecret {
            secret: secret(sealed, now),
            overlap_until: overlap.map(at),
        };
        let usable = |world: &World, now: i64| {
            let secrets = world.books.head.apps[0].secrets.iter().filter(|secret| secret.usable_at(at(now)));
            secrets.map(|secret| secret.sealed.clone()).collect::<Vec<_>>()
        };
        world.change(1, rotate("second", 10, Some(20)), 10).unwrap();
        assert_eq!(usable(&world, 19), ["second", "first"]);
        assert_eq!(usable(&world, 20), ["second"]);
        world.change(1, rotate("third", 15, Some(30)), 15).unwrap();
        assert_eq!(usable(&world, 15), ["third", "second"], "the oldest makes room");
        world.change(1, rotate("fourth", 16, None), 16).unwrap();
        assert_eq!(world.books.head.apps[0].secrets, [secret("fourth", 16)]);
    }

    #[test]
    fn bought_products_are_bound_to_one_app_that_the_first_one_makes() {
        let mut world = World::new();
        world.add(1).unwrap();
        world.buy("chat", None).unwrap();
        assert_eq!(world.books.head.apps.len(), 1);
        for (of, spare) in [("one", 2), ("one", 3), ("two", 4)] {
            world.buy(of, Some(spare)).unwrap();
        }
        let bought = &world.books.head.apps[1];
        assert_eq!((bought.name.as_str(), &bought.id), (MARKETPLACE_APP, &app(2).id));
        assert_eq!(bought.products, [product("one"), product("two")]);
        assert_eq!(world.books.head.apps.len(), 2);
        // Deleted, it is made anew by the next purchase.
        world.change(2, AppChange::Delete, 0).unwrap();
        world.buy("two", Some(5)).unwrap();
        assert_eq!(world.books.head.apps[1].products, [product("two")]);
    }

    #[test]
    fn no_number_of_apps_and_bindings_by_hand_stands_against_a_purchase() {
        let mut world = World::new();
        for number in 0..50 {
            world.add(number).unwrap();
        }
        for number in 0..=BINDINGS_MAX {
            world.buy(&format!("p{number}"), Some(200)).unwrap();
        }
        let bought = world.books.head.apps.last().unwrap();
        assert_eq!((bought.name.as_str(), bought.products.len()), (MARKETPLACE_APP, BINDINGS_MAX + 1));
        assert_eq!(world.add(50), Err(Refusal::TooManyApps { max: 50 }));
        // It takes no place among the fifty.
        world.change(7, AppChange::Delete, 0).unwrap();
        world.add(50).unwrap();
        let by_hand = world.change(200, AppChange::Bind(product("more")), 0);
        assert_eq!(by_hand, Err(Refusal::TooManyBindings { max: BINDINGS_MAX }));
    }

    #[test]
    fn limits_are_set_whole_and_stand_in_the_document_only_if_there_are_any() {
        let mut world = World::new();
        world.add(1).unwrap();
        let limits: Limits = serde_json::from_str(r#"{"per_minute":3}"#).unwrap();
        world.change(1, AppChange::Limit(limits), 0).unwrap();
        let text = serde_json::to_string(&world.books.head.apps[0]).unwrap();
        assert!(text.contains(r#""limits":{"per_minute":3}"#), "{text}");
        assert_eq!(serde_json::from_str::<App>(&text).unwrap().limits, limits);
        world.change(1, AppChange::Limit(Limits::NONE), 0).unwrap();
        world.run(Action::LimitAccount(limits), 0).unwrap();
        assert_eq!((world.books.head.apps[0].limits, world.books.head.limits), (Limits::NONE, limits));
        assert!(!serde_json::to_string(&world.books.head.apps[0]).unwrap().contains("limits"));
    }

    #[test]
    fn a_binding_is_made_once_and_bounded() {
        let mut world = World::new();
        world.add(1).unwrap();
        for number in 0..BINDINGS_MAX {
            world.change(1, AppChange::Bind(product(&format!("p{number}"))), 0).unwrap();
        }
        world.change(1, AppChange::Bind(product("p7")), 0).unwrap();
        let full = world.change(1, AppChange::Bind(product("more")), 0);
        assert_eq!(full, Err(Refusal::TooManyBindings { max: BINDINGS_MAX }));
        world.change(1, AppChange::Unbind(product("p7")), 0).unwrap();
        world.change(1, AppChange::Bind(product("more")), 0).unwrap();
    }

    #[test]
    fn other_seals_take_the_places_of_those_that_are_still_there() {
        let mut world = World::new();
        world.add(1).unwrap();
        let overlap_until = Some(at(100));
        world.change(1, AppChange::RotateSecret { secret: secret("second", 1), overlap_until }, 1).unwrap();
        let seal = |before: &str, after: &str| OtherSeal { before: before.into(), after: after.into() };
        let seals = vec![seal("first", "first again"), seal("gone", "back"), seal("second", "second again")];
        world.change(1, AppChange::Reseal(seals), 2).unwrap();
        let now: Vec<_> =
            world.books.head.apps[0].secrets.iter().map(|secret| (&*secret.sealed, secret.until)).collect();
        assert_eq!(now, [("second again", None), ("first again", Some(at(100)))]);
    }
}
