//! The OpenAPI document of the admin listener, made of the handlers themselves.

use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi as Document};
use utoipa::{Modify, OpenApi};

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

/// The OpenAPI document.
pub fn document() -> Document {
    Api::openapi()
}

/// This document.
#[utoipa::path(get, path = "/admin/v1/openapi.json",
    tag = "health", operation_id = "openapi", responses(
    (status = 200, description = "The OpenAPI document", body = Object, content_type = "application/json"),
))]
pub(super) async fn show() -> Json<Document> {
    Json(document())
}
