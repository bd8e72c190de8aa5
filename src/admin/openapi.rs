//! The OpenAPI document of the admin listener, made of the handlers themselves.

use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi as Document};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};

use super::wire::ErrorBody;
use super::{accounts, apps, catalog, health, keys, limits, packages};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tollgate admin API", description = "Operators' calls, health and metrics."),
    paths(
        accounts::open, accounts::list, accounts::show, limits::of_account,
        keys::add, keys::list, keys::change, keys::rotate, keys::revoke,
        apps::add, apps::list, apps::delete, apps::show_secret, apps::rotate_secret,
        apps::add_code, apps::remove_code, apps::bind, apps::unbind, apps::allow_networks, apps::reseal,
        limits::of_app,
        packages::add, packages::list, packages::resolve,
        catalog::products, catalog::offers, catalog::reload,
        health::livez, health::readyz, health::metrics,
        show,
    ),
    modifiers(&Token),
)]
struct Api;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut Document) {
        let description = "The admin token of the configuration";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        let components = document.components.get_or_insert_with(Components::default);
        components.add_security_scheme("admin_token", SecurityScheme::Http(scheme));
    }
}

/// What every call under `/admin/v1` can answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Guarded {
    /// No admin token, or a wrong one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The store does not answer, or the account is being changed by others; try again.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// The header that makes asking again safe.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Keyed {
    /// The same key is done once within 30 days, whatever the body; asking again gives what it made. 1 to 64
    /// characters of a-z A-Z 0-9 - _ .
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}

/// The OpenAPI document.
pub fn document() -> Document {
    Api::openapi()
}

/// This document.
#[utoipa::path(get, path = "/admin/v1/openapi.json",
    tag = "health", operation_id = "openapi",responses(
    (status = 200, description = "The OpenAPI document", body = Object, content_type = "application/json"),
))]
pub(super) async fn show() -> Json<Document> {
    Json(document())
}
