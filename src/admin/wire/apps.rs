//! The bodies about apps. Those with a secret have no `Debug`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::app::{App, AppCode};
use crate::domain::id::{AppCodeId, AppId, ProductId};
use crate::domain::limit::Limits;
use crate::domain::network::Network;

/// Adds an app.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddApp {
    /// The owner's word for it; at most 200 characters.
    pub name: String,
    /// An AppKey that its clients have already, 8 to 128 characters; left out: a new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_key: Option<String>,
    /// A secret that its clients have already, 16 to 128 characters; left out: a new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_secret: Option<String>,
    /// The products that it opens; others are bound later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub products: Vec<ProductId>,
    /// The only networks from which it is accepted: addresses and ranges; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["192.0.2.7", "2001:db8::/32"]))]
    pub networks: Option<Vec<Network>>,
}

/// An app with its present secret.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct AppWithSecret {
    /// Signs its calls.
    pub app_secret: String,
    /// What every listing shows of it.
    #[serde(flatten)]
    pub view: AppView,
}

/// An app without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppView {
    /// Named in listings and usage records.
    #[schema(value_type = String)]
    pub id: AppId,
    /// The owner's word for it.
    pub name: String,
    /// What its calls name: no secret.
    pub app_key: String,
    /// The products that it opens.
    #[schema(value_type = Vec<String>)]
    pub products: Vec<ProductId>,
    /// The only networks from which it is accepted; missing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub networks: Option<Vec<Network>>,
    /// Its secrets, the present one first.
    pub secrets: Vec<SecretView>,
    /// Its AppCodes, at most five.
    pub codes: Vec<CodeView>,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many calls it may make, over all products.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    #[schema(value_type = Option<super::limits::CallLimits>)]
    pub limits: Limits,
}

/// A secret without the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// When it was made.
    pub created_at: Timestamp,
    /// First moment at which it is refused, since a newer one has taken its place; missing: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// An AppCode without the code itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeView {
    /// Named in listings.
    #[schema(value_type = String)]
    pub id: AppCodeId,
    /// Its first characters.
    pub hint: String,
    /// When it was added.
    pub created_at: Timestamp,
}

impl From<AppCode> for CodeView {
    fn from(code: AppCode) -> Self {
        Self { id: code.id, hint: code.hint, created_at: code.created_at }
    }
}

impl From<App> for AppView {
    fn from(app: App) -> Self {
        let secrets = app.secrets.into_iter();
        Self {
            id: app.id,
            name: app.name,
            app_key: app.app_key,
            products: app.products,
            networks: app.networks,
            secrets: secrets.map(|secret| SecretView { created_at: secret.created_at, until: secret.until }).collect(),
            codes: app.codes.into_iter().map(CodeView::from).collect(),
            created_at: app.created_at,
            limits: app.limits,
        }
    }
}

/// An account's apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppList {
    /// In the order in which they were added.
    pub apps: Vec<AppView>,
}

/// Puts a new secret in the place of an app's present one.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateSecret {
    /// A secret of the owner's choice, 16 to 128 characters; left out: a new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_secret: Option<String>,
    /// For how many seconds the one before is accepted, too; at most 2592000 (30 days); left out: no longer.
    #[serde(default)]
    pub overlap_seconds: u32,
}

/// Sets the only networks from which an app is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowNetworks {
    /// Addresses and ranges, in place of all that there are; `null`: all networks.
    #[schema(value_type = Option<Vec<String>>, example = json!(["192.0.2.7", "2001:db8::/32"]))]
    #[serde(deserialize_with = "Option::deserialize")]
    pub networks: Option<Vec<Network>>,
}

/// Adds an AppCode.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddCode {
    /// A code that clients have already, 64 to 180 characters; left out: a new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// An AppCode that was added.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct AddedCode {
    /// The code itself, shown only here. Missing if the request brought it, or an earlier one with the same
    /// `Idempotency-Key` added it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What every listing shows of it.
    #[serde(flatten)]
    pub view: CodeView,
}

/// What became of the secrets of an account's apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResealedView {
    /// Secrets that `secrets.seal_key` seals now, and did not before.
    pub resealed: u64,
    /// Secrets that it sealed before.
    pub already: u64,
    /// Apps with a secret that no configured key opens.
    #[schema(value_type = Vec<String>)]
    pub broken: Vec<AppId>,
}
