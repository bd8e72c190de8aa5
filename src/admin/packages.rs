//! Packages: added, listed, their units in suspense decided upon.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Shared;
use super::accounts::made;
use super::parts::{AccountPath, Bodied, Guarded, InAccount, Keyed, Repeatable};
use super::refusal::Refusal;
use super::request::{Body, Idempotency, OneId, TwoIds};
use super::wire::{AddPackage, ErrorBody, PackageList, PackageView, ResolveSuspense};
use crate::domain::allocation::Allocation;
use crate::domain::amount::Units;
use crate::domain::id::{AccountId, OfferId, PackageId};
use crate::domain::offer::Offer;
use crate::service::accounts::{NewPackage, Resolution, Shown};

/// Adds a package of an offer.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/packages",
    tag = "packages", operation_id = "add_package", security(("admin_token" = [])),
    params(AccountPath, Keyed), request_body = AddPackage,
    responses(Guarded, InAccount, Bodied, Repeatable,
    (status = 200, description = "Added before by the same Idempotency-Key", body = PackageView),
    (status = 201, description = "Added", body = PackageView),
    (status = 409, description = "The Idempotency-Key did something else, the account's money is in another currency, or the document is full", body = ErrorBody),
    (status = 422, description = "A field is unknown or not accepted, or no such offer", body = ErrorBody),
))]
pub(super) async fn add(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
    Idempotency(command): Idempotency,
    Body(wanted): Body<AddPackage>,
) -> Result<(StatusCode, Json<PackageView>), Refusal> {
    let offer = known_offer(&admin, &wanted.offer)?;
    let AddPackage { valid_from, project, tags, .. } = wanted;
    let new = NewPackage { offer: &offer, valid_from, allocation: Allocation { project, tags } };
    let added = admin.accounts.add_package(&account, command, new).await?;
    let (product, package) = added.value;
    Ok((made(added.repeated), Json(PackageView::of(product, package))))
}

/// Lists an account's packages.
#[utoipa::path(get, path = "/admin/v1/accounts/{account}/packages",
    tag = "packages", operation_id = "list_packages", security(("admin_token" = [])),
    params(AccountPath), responses(Guarded, InAccount,
    (status = 200, description = "The packages", body = PackageList),
))]
pub(super) async fn list(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
) -> Result<Json<PackageList>, Refusal> {
    let Shown { loaded, ended } = admin.accounts.show(&account).await?;
    let of_pools = loaded
        .pools
        .into_iter()
        .flat_map(|(product, pool)| pool.value.packages.into_iter().map(move |package| (product.clone(), package)));
    Ok(Json(PackageList { packages: PackageView::all(of_pools), ended: PackageView::all(ended) }))
}

/// Decides on units in suspense: used, or back for sale.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/packages/{package}/resolve",
    tag = "packages", operation_id = "resolve_suspense", security(("admin_token" = [])),
    params(AccountPath,
        ("package" = String, Path, description = "The package's id"), Keyed),
    request_body = ResolveSuspense, responses(Guarded, Bodied, Repeatable,
    (status = 200, description = "The package as it is now", body = PackageView),
    (status = 404, description = "No such account or package", body = ErrorBody),
    (status = 409, description = "So many units are not in suspense", body = ErrorBody),
))]
pub(super) async fn resolve(
    State(admin): State<Shared>,
    TwoIds(account, package): TwoIds<AccountId, PackageId>,
    Idempotency(command): Idempotency,
    Body(wanted): Body<ResolveSuspense>,
) -> Result<Json<PackageView>, Refusal> {
    let resolution = Resolution { package, units: Units::new(wanted.units.get()), used: wanted.used };
    let (product, package) = admin.accounts.resolve_suspense(&account, command, resolution).await?;
    Ok(Json(PackageView::of(product, package)))
}

fn known_offer(admin: &Shared, wanted: &OfferId) -> Result<Arc<Offer>, Refusal> {
    let catalog = admin.catalog.load();
    catalog.offers.get(wanted).cloned().ok_or_else(|| {
        let known: Vec<_> = catalog.offers.keys().map(OfferId::as_str).collect();
        let message = format!("offer: there is no offer {wanted}; known are: {}", known.join(", "));
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_offer", message)
    })
}
