//! The admin listener: operators' calls under `/admin/v1`, health and metrics. Buyers' calls never pass here, and no
//! rule is decided here: requests become calls of `service`, its answers become bodies.

mod accounts;
mod apps;
mod auth;
mod catalog;
pub mod health;
mod keys;
mod limits;
mod openapi;
mod packages;
mod parts;
mod refusal;
mod request;
mod server;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post, put};
use prometheus::Registry;

pub use auth::AdminToken;
pub use openapi::document;
pub use server::serve;

use crate::config::Catalog;
use crate::ports::BoxFuture;
use crate::service::accounts::Accounts;
use health::Readiness;
use refusal::Refusal;

/// Reads the configuration anew; gives the problems of a file that was not taken over.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Vec<String>>> + Send + Sync>;

/// What the admin listener works with.
pub struct AdminState {
    /// The operators' use-cases.
    pub accounts: Accounts,
    /// What is sold now.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// Whether calls are served.
    pub readiness: Arc<Readiness>,
    /// Every metric of the process.
    pub registry: Registry,
    /// Opens `/admin/v1`.
    pub token: AdminToken,
    /// Reads the configuration anew.
    pub reload: Reload,
}

type Shared = Arc<AdminState>;

/// All routes of the admin listener.
pub fn router(state: AdminState) -> Router {
    let state = Arc::new(state);
    let guarded = Router::new()
        .route("/admin/v1/accounts", post(accounts::open).get(accounts::list))
        .route("/admin/v1/accounts/{account}", get(accounts::show))
        .route("/admin/v1/accounts/{account}/limits", put(limits::of_account))
        .route("/admin/v1/accounts/{account}/keys", post(keys::add).get(keys::list))
        .route("/admin/v1/accounts/{account}/keys/{key}", patch(keys::change).delete(keys::revoke))
        .route("/admin/v1/accounts/{account}/keys/{key}/rotate", post(keys::rotate))
        .route("/admin/v1/accounts/{account}/apps", post(apps::add).get(apps::list))
        .route("/admin/v1/accounts/{account}/apps/{app}", delete(apps::delete))
        .route("/admin/v1/accounts/{account}/apps/{app}/secret", get(apps::show_secret).post(apps::rotate_secret))
        .route("/admin/v1/accounts/{account}/apps/reseal", post(apps::reseal))
        .route("/admin/v1/accounts/{account}/apps/{app}/limits", put(limits::of_app))
        .route("/admin/v1/accounts/{account}/apps/{app}/networks", put(apps::allow_networks))
        .route("/admin/v1/accounts/{account}/apps/{app}/codes", post(apps::add_code))
        .route("/admin/v1/accounts/{account}/apps/{app}/codes/{code}", delete(apps::remove_code))
        .route("/admin/v1/accounts/{account}/apps/{app}/products/{product}", put(apps::bind).delete(apps::unbind))
        .route("/admin/v1/accounts/{account}/packages", post(packages::add).get(packages::list))
        .route("/admin/v1/accounts/{account}/packages/{package}/resolve", post(packages::resolve))
        .route("/admin/v1/products", get(catalog::products))
        .route("/admin/v1/offers", get(catalog::offers))
        .route("/admin/v1/reload", post(catalog::reload))
        .route_layer(from_fn_with_state(Arc::clone(&state), auth::require));
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/admin/v1/openapi.json", get(openapi::show))
        .merge(guarded)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(request::BODY_BYTES_MAX))
        .with_state(state)
}

async fn unknown_route(uri: Uri) -> Refusal {
    let message = format!("there is no {} here; /admin/v1/openapi.json lists what there is", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, "unknown_route", message)
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let message = format!("{} takes no {method}; the Allow header lists what it takes", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}
