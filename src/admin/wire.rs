//! The bodies of the admin API, as JSON and as OpenAPI schemas. The command line reads and writes the same types.

pub mod apps;
pub mod limits;

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::domain::allocation::Tags;
use crate::domain::billable::BillableStatuses;
use crate::domain::budget::Budget;
use crate::domain::id::{AccountId, CommandId, KeyId, OfferId, PackageId, ProductId, ProjectId};
use crate::domain::key::{ApiKey, KeyState};
use crate::domain::limit::Limits;
use crate::domain::money::{Currency, Price};
use crate::domain::network::Network;
use crate::domain::offer::Validity;
use crate::domain::package::Package;

/// What every refusal looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The refusal.
    pub error: ErrorDetail,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable, for programs.
    #[schema(example = "unknown_offer")]
    pub code: String,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// Every problem by itself, where there can be several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Opens an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenAccount {
    /// For people; at most 200 characters.
    pub name: String,
    /// For programs; left out: a new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<AccountId>,
}

/// An account that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenedAccount {
    /// For programs.
    #[schema(value_type = String)]
    pub id: AccountId,
    /// For people.
    pub name: String,
    /// When it was opened.
    pub created_at: Timestamp,
}

/// A page of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountList {
    /// In the order of their ids.
    pub accounts: Vec<AccountEntry>,
    /// There may be more: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next: Option<AccountId>,
}

/// An account in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountEntry {
    /// For programs.
    #[schema(value_type = String)]
    pub id: AccountId,
    /// For people.
    pub name: String,
}

/// All of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// For programs.
    #[schema(value_type = String)]
    pub id: AccountId,
    /// For people.
    pub name: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// How many calls it may make with all its keys and apps, over all products.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    #[schema(value_type = Option<limits::CallLimits>)]
    pub limits: Limits,
    /// Of its money; missing: it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "CNY")]
    pub currency: Option<Currency>,
    /// Its API keys.
    pub keys: Vec<KeyView>,
    /// Its apps.
    pub apps: Vec<apps::AppView>,
    /// What it can draw on, one per product.
    pub pools: Vec<PoolView>,
    /// Packages that are used up or over, latest first.
    pub ended: Vec<PackageView>,
}

/// All packages that an account can draw on for one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// What its calls are for.
    #[schema(value_type = String)]
    pub product: ProductId,
    /// Units left over all packages in force.
    pub remaining: u64,
    /// Last second of the package that is drawn next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_expiry: Option<Timestamp>,
    /// Its packages.
    pub packages: Vec<PackageView>,
}

/// Adds an API key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddKey {
    /// The owner's words; at most 200 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// First moment at which it is refused; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The only products it opens; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub products: Option<Vec<ProductId>>,
    /// The only models it opens, by the names that buyers use; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The only networks from which it is accepted: addresses and ranges; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["192.0.2.7", "2001:db8::/32"]))]
    pub networks: Option<Vec<Network>>,
    /// To what its calls are allotted; left out: `default`.
    #[serde(default, skip_serializing_if = "ProjectId::is_default")]
    #[schema(value_type = Option<String>, example = "default")]
    pub project: ProjectId,
    /// The owner's tags, at most 10, at most 512 bytes in all.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub tags: Tags,
    /// How many calls it may make, over all products; left out: no limit.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    #[schema(value_type = Option<limits::CallLimits>)]
    pub limits: Limits,
    /// How many units its calls may use, or what they may be worth, over all products; left out: no limit.
    #[serde(default, skip_serializing_if = "Budget::is_none")]
    #[schema(value_type = Option<limits::KeyBudget>)]
    pub budget: Budget,
}

/// A key that was added.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct AddedKey {
    /// The key itself, shown only here. Missing when an earlier request with the same `Idempotency-Key` made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "sk-tg-…")]
    pub key: Option<String>,
    /// What every listing shows of it.
    #[serde(flatten)]
    pub view: KeyView,
}

/// An API key without the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Named in listings and usage records.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// Its first and last characters.
    pub hint: String,
    /// The owner's words.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// First moment at which it is refused; missing: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Switched off.
    pub disabled: bool,
    /// Whether it can be used now.
    pub state: KeyStateView,
    /// The only products it opens; missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub products: Option<Vec<ProductId>>,
    /// The only models it opens; missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The only networks from which it is accepted; missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub networks: Option<Vec<Network>>,
    /// Keys that a rotation has replaced and that are accepted for a while, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerKeyView>,
    /// To what its calls are allotted.
    #[serde(default)]
    #[schema(value_type = String)]
    pub project: ProjectId,
    /// The owner's tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub tags: Tags,
    /// How many calls it may make, over all products.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    #[schema(value_type = Option<limits::CallLimits>)]
    pub limits: Limits,
    /// How many units its calls may use, or what they may be worth, over all products.
    #[serde(default, skip_serializing_if = "Budget::is_none")]
    #[schema(value_type = Option<limits::KeyBudget>)]
    pub budget: Budget,
}

/// A key that a newer one has replaced under the same id, without the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FormerKeyView {
    /// Its first and last characters.
    pub hint: String,
    /// First moment at which it is refused.
    pub until: Timestamp,
}

/// Puts a new key in the place of an API key, under the same id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// For how many seconds the one before is accepted, too; at most 2592000 (30 days); left out: no longer.
    #[serde(default)]
    pub overlap_seconds: u32,
}

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStateView {
    /// It can.
    Usable,
    /// It is switched off.
    Disabled,
    /// Its time is over.
    Expired,
}

impl KeyView {
    /// A key as it is at a moment.
    pub fn at(key: ApiKey, now: Timestamp) -> Self {
        let state = match key.state_at(now) {
            KeyState::Usable | KeyState::Replaced => KeyStateView::Usable, // replaced are only former texts
            KeyState::Disabled => KeyStateView::Disabled,
            KeyState::Expired => KeyStateView::Expired,
        };
        let former = key.former.into_iter().filter(|former| now < former.until);
        Self {
            id: key.id,
            hint: key.hint,
            description: key.description,
            created_at: key.created_at,
            expires_at: key.expires_at,
            disabled: key.disabled,
            state,
            products: key.products,
            models: key.models,
            networks: key.networks,
            former: former.map(|former| FormerKeyView { hint: former.hint, until: former.until }).collect(),
            project: key.project,
            tags: key.tags,
            limits: key.limits,
            budget: key.budget,
        }
    }
}

/// An account's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// In the order in which they were added.
    pub keys: Vec<KeyView>,
}

/// Changes an API key: what is left out stays, `null` takes a limit away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeKey {
    /// The owner's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Switches it off or on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// First moment at which it is refused; `null`: never.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Option<Timestamp>>,
    /// The only products it opens; `null`: all.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub products: Option<Option<Vec<ProductId>>>,
    /// The only models it opens; `null`: all.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub models: Option<Option<Vec<String>>>,
    /// The only networks from which it is accepted; `null`: all.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub networks: Option<Option<Vec<Network>>>,
    /// To what its calls are allotted from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub project: Option<ProjectId>,
    /// The owner's tags, in place of all that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub tags: Option<Tags>,
    /// How many calls it may make, in place of all limits that there are; `{}`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<limits::CallLimits>)]
    pub limits: Option<Limits>,
    /// How many units its calls may use, in place of the whole budget that it has; `{}`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<limits::KeyBudget>)]
    pub budget: Option<Budget>,
}

/// Tells `null` (`Some(None)`) from a field that is not there (`None`, the default).
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Adds a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPackage {
    /// What was bought.
    #[schema(value_type = String)]
    pub offer: OfferId,
    /// First moment of use; left out: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
    /// To what its use is allotted; left out: `default`.
    #[serde(default, skip_serializing_if = "ProjectId::is_default")]
    #[schema(value_type = Option<String>, example = "default")]
    pub project: ProjectId,
    /// The owner's tags, at most 10, at most 512 bytes in all.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub tags: Tags,
}

/// A bought quantity: `total = free + leased + settled + suspense + forfeited`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PackageView {
    /// Named by usage records.
    #[schema(value_type = String)]
    pub id: PackageId,
    /// What was bought.
    #[schema(value_type = String)]
    pub offer: OfferId,
    /// Whose calls it pays.
    #[schema(value_type = String)]
    pub product: ProductId,
    /// The command that brought it: its request's `Idempotency-Key`, if there was one.
    #[schema(value_type = String)]
    pub command: CommandId,
    /// Units bought.
    pub total: u64,
    /// Units that are neither used nor lost.
    pub remaining: u64,
    /// For sale.
    pub free: u64,
    /// In the hands of gateways, not yet reported used.
    pub leased: u64,
    /// Used and counted.
    pub settled: u64,
    /// Waiting for a lost journal, or for an operator's decision. Not for sale.
    pub suspense: u64,
    /// Unused when the validity ended.
    pub forfeited: u64,
    /// Used beyond `total`: only after a double fault.
    pub overrun: u64,
    /// When it was bought.
    pub bought_at: Timestamp,
    /// First moment of use.
    pub valid_from: Timestamp,
    /// Last second of use.
    pub valid_until: Timestamp,
    /// What it cost; missing: its offer had no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<limits::PriceView>)]
    pub price: Option<Price>,
    /// To what it is allotted.
    #[serde(default)]
    #[schema(value_type = String)]
    pub project: ProjectId,
    /// The owner's tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub tags: Tags,
}

impl PackageView {
    /// A package of a product's pool.
    pub fn of(product: ProductId, package: Package) -> Self {
        Self {
            remaining: package.remaining().get(),
            id: package.id,
            offer: package.offer,
            product,
            command: package.command,
            total: package.total.get(),
            free: package.free.get(),
            leased: package.leased.get(),
            settled: package.settled.get(),
            suspense: package.suspense.get(),
            forfeited: package.forfeited.get(),
            overrun: package.overrun.get(),
            bought_at: package.bought_at,
            valid_from: package.valid_from,
            valid_until: package.valid_until,
            price: package.price,
            project: package.project,
            tags: package.tags,
        }
    }

    /// Packages of several products.
    pub(super) fn all(packages: impl IntoIterator<Item = (ProductId, Package)>) -> Vec<Self> {
        packages.into_iter().map(|(product, package)| Self::of(product, package)).collect()
    }
}

/// An account's packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PackageList {
    /// Those that can still be drawn on, or that count late use.
    pub packages: Vec<PackageView>,
    /// Those that are used up or over, latest first.
    pub ended: Vec<PackageView>,
}

/// An operator's decision on units in suspense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveSuspense {
    /// How many units, at least 1.
    #[schema(value_type = u64, minimum = 1)]
    pub units: NonZeroU64,
    /// True: they were used and count. False: they go back for sale.
    pub used: bool,
}

/// What is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductList {
    /// In the order of their ids.
    pub products: Vec<ProductView>,
}

/// A product, without its seller's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProductView {
    /// Its name.
    #[schema(value_type = String)]
    pub id: ProductId,
    /// `llm` or `http`.
    pub kind: String,
    /// Only calls to this host; missing: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path under which it is called.
    pub path: String,
    /// The names of models that buyers use, each with the seller's own; empty: every name passes as it is.
    pub models: BTreeMap<String, String>,
    /// `keys` or `open`.
    pub access: String,
    /// `calls` or `none`.
    pub meter: String,
    /// Where calls go.
    pub upstream: String,
    /// Where a buyer can get more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buy_url: Option<String>,
}

/// What can be bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferList {
    /// In the order of their ids.
    pub offers: Vec<OfferView>,
}

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferView {
    /// Named by purchases.
    #[schema(value_type = String)]
    pub id: OfferId,
    /// What the calls are for.
    #[schema(value_type = String)]
    pub product: ProductId,
    /// How many calls it grants.
    pub quantity: u64,
    /// How long they can be used, in calendar units: `{"days": n}`, `{"months": n}` or `{"years": n}`.
    #[schema(value_type = BTreeMap<String, u16>)]
    pub validity: Validity,
    /// Whose midnight ends the validity.
    pub zone: String,
    /// Which answers count, and from when.
    #[schema(value_type = Vec<Object>)]
    pub billable: BillableStatuses,
    /// What a package of it costs; missing: it has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<limits::PriceView>)]
    pub price: Option<Price>,
}

/// Whether calls are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyView {
    /// True when nothing stands against it.
    pub ready: bool,
    /// What stands against it.
    pub reasons: Vec<String>,
}
