//! What is sold, as the configuration says it, and the order to read the configuration anew. Sellers' credentials are
//! never shown.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Shared;
use super::parts::Guarded;
use super::refusal::Refusal;
use super::wire::{ErrorBody, OfferList, OfferView, ProductList, ProductView};
use crate::config::{Access, Meter, Product, ProductKind, Upstream};
use crate::domain::offer::Offer;

/// Lists products.
#[utoipa::path(get, path = "/admin/v1/products",
    tag = "catalog", operation_id = "list_products", security(("admin_token" = [])),
    responses(Guarded, (status = 200, description = "The products", body = ProductList)))]
pub(super) async fn products(State(admin): State<Shared>) -> Json<ProductList> {
    let products = admin.catalog.load().products.values().map(|product| product_view(product)).collect();
    Json(ProductList { products })
}

/// Lists offers.
#[utoipa::path(get, path = "/admin/v1/offers",
    tag = "catalog", operation_id = "list_offers", security(("admin_token" = [])),
    responses(Guarded, (status = 200, description = "The offers", body = OfferList)))]
pub(super) async fn offers(State(admin): State<Shared>) -> Json<OfferList> {
    Json(OfferList { offers: admin.catalog.load().offers.values().map(|offer| offer_view(offer)).collect() })
}

/// Reads the configuration anew: all of it, or nothing.
#[utoipa::path(post, path = "/admin/v1/reload",
    tag = "catalog", operation_id = "reload", security(("admin_token" = [])),
    responses(Guarded,
    (status = 204, description = "In force"),
    (status = 422, description = "Not taken over; the last good configuration stays", body = ErrorBody),
))]
pub(super) async fn reload(State(admin): State<Shared>) -> Result<StatusCode, Refusal> {
    match (admin.reload)().await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(problems) => {
            let message = "the configuration has problems; the last good one stays in force";
            let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "config_invalid", message);
            Err(refusal.with_problems(problems))
        }
    }
}

fn product_view(product: &Product) -> ProductView {
    let (kind, host, path, models) = match &product.kind {
        ProductKind::Llm { deployment, models } => ("llm", None, format!("/v1/infers/{deployment}/v1"), models.clone()),
        ProductKind::Http { host, path, .. } => ("http", host.clone(), path.clone(), Default::default()),
    };
    let access = match product.access {
        Access::Keys => "keys",
        Access::Open => "open",
    };
    let meter = match product.meter {
        Meter::Calls => "calls",
        Meter::None => "none",
    };
    ProductView {
        id: product.id.clone(),
        kind: kind.to_owned(),
        host,
        path,
        models,
        access: access.to_owned(),
        meter: meter.to_owned(),
        upstream: upstream_url(&product.upstream),
        buy_url: product.buy_url.clone(),
    }
}

fn upstream_url(upstream: &Upstream) -> String {
    let scheme = if upstream.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{}", upstream.authority, upstream.base_path)
}

fn offer_view(offer: &Offer) -> OfferView {
    OfferView {
        id: offer.id.clone(),
        product: offer.product.clone(),
        quantity: offer.quantity.get(),
        validity: offer.validity,
        zone: offer.zone.iana_name().map_or_else(|| format!("{:?}", offer.zone), str::to_owned),
        billable: offer.billable.clone(),
        price: offer.price,
    }
}
