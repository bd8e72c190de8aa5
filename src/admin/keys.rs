//! API keys: added, listed, changed, revoked. A key's text leaves in the answer that adds it, and never again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::SignedDuration;

use super::Shared;
use super::accounts::made;
use super::parts::{AccountPath, Bodied, Growing, Guarded, InAccount, InKey, KeyPath, Keyed, Repeatable};
use super::refusal::Refusal;
use super::request::{Body, Idempotency, OneId, TwoIds};
use super::wire::{AddKey, AddedKey, ChangeKey, ErrorBody, KeyList, KeyView, RotateKey};
use crate::domain::allocation::Allocation;
use crate::domain::command::KeyChange;
use crate::domain::id::{AccountId, KeyId, ProductId};
use crate::service::accounts::NewKey;

/// The longest overlap of two secrets or keys.
const OVERLAP_SECONDS_MAX: u32 = 30 * 24 * 3600;

/// Adds an API key. The answer is the only one that holds the key itself.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/keys",
    tag = "keys", operation_id = "add_key", security(("admin_token" = [])),
    params(AccountPath, Keyed), request_body = AddKey,
    responses(Guarded, InAccount, Bodied, Repeatable,
    (status = 200, description = "Added before by the same Idempotency-Key; without the key itself", body = AddedKey),
    (status = 201, description = "Added; holds the key itself", body = AddedKey),
    (status = 409, description = "It has 20 keys, its money is in another currency, or the Idempotency-Key did something else", body = ErrorBody),
))]
pub(super) async fn add(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
    Idempotency(command): Idempotency,
    Body(wanted): Body<AddKey>,
) -> Result<(StatusCode, Json<AddedKey>), Refusal> {
    check_products(&admin, wanted.products.as_deref())?;
    let AddKey { description, expires_at, products, models, networks, project, tags, limits, budget } = wanted;
    let allocation = Allocation { project, tags };
    let new = NewKey { description, expires_at, products, models, networks, allocation, limits, budget };
    let added = admin.accounts.add_key(&account, command, new).await?;
    let key = added.text.map(|text| text.expose().to_owned());
    let now = admin.accounts.now();
    Ok((made(key.is_none()), Json(AddedKey { key, view: KeyView::at(added.key, now) })))
}

/// Lists an account's API keys.
#[utoipa::path(get, path = "/admin/v1/accounts/{account}/keys",
    tag = "keys", operation_id = "list_keys", security(("admin_token" = [])),
    params(AccountPath), responses(Guarded, InAccount,
    (status = 200, description = "The keys, without the keys themselves", body = KeyList),
))]
pub(super) async fn list(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
) -> Result<Json<KeyList>, Refusal> {
    let loaded = admin.accounts.show(&account).await?.loaded;
    let keys = loaded.head.value.keys.into_iter().map(|key| KeyView::at(key, loaded.now));
    Ok(Json(KeyList { keys: keys.collect() }))
}

/// Changes what is given of an API key.
#[utoipa::path(patch, path = "/admin/v1/accounts/{account}/keys/{key}",
    tag = "keys", operation_id = "change_key", security(("admin_token" = [])),
    params(KeyPath),
    request_body = ChangeKey, responses(Guarded, InKey, Bodied, Growing,
    (status = 200, description = "The key as it is now", body = KeyView),
))]
pub(super) async fn change(
    State(admin): State<Shared>,
    TwoIds(account, key): TwoIds<AccountId, KeyId>,
    Body(wanted): Body<ChangeKey>,
) -> Result<Json<KeyView>, Refusal> {
    check_products(&admin, wanted.products.as_ref().and_then(Option::as_deref))?;
    let ChangeKey { description, disabled, expires_at, products, models, networks, project, tags, limits, budget } =
        wanted;
    let change =
        KeyChange { description, disabled, expires_at, products, models, networks, project, tags, limits, budget };
    let changed = admin.accounts.change_key(&account, &key, change).await?;
    Ok(Json(KeyView::at(changed, admin.accounts.now())))
}

/// Puts a new key in the place of an API key: id, settings and records stay. The answer is the only one that holds the
/// new key itself.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/keys/{key}/rotate",
    tag = "keys", operation_id = "rotate_key", security(("admin_token" = [])),
    params(KeyPath),
    request_body = RotateKey, responses(Guarded, InKey, Bodied, Growing,
    (status = 200, description = "Holds the new key itself; the one before is accepted for the overlap", body = AddedKey),
))]
pub(super) async fn rotate(
    State(admin): State<Shared>,
    TwoIds(account, key): TwoIds<AccountId, KeyId>,
    Body(wanted): Body<RotateKey>,
) -> Result<Json<AddedKey>, Refusal> {
    let overlap = overlap(wanted.overlap_seconds)?;
    let rotated = admin.accounts.rotate_key(&account, &key, overlap).await?;
    let key = rotated.text.map(|text| text.expose().to_owned());
    Ok(Json(AddedKey { key, view: KeyView::at(rotated.key, admin.accounts.now()) }))
}

/// The overlap of two secrets or keys, if it is not too long.
pub(super) fn overlap(seconds: u32) -> Result<SignedDuration, Refusal> {
    if seconds > OVERLAP_SECONDS_MAX {
        let message = format!("overlap_seconds is at most {OVERLAP_SECONDS_MAX}");
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", message));
    }
    Ok(SignedDuration::from_secs(seconds.into()))
}

/// Revokes an API key for ever.
#[utoipa::path(delete, path = "/admin/v1/accounts/{account}/keys/{key}",
    tag = "keys", operation_id = "revoke_key", security(("admin_token" = [])),
    params(KeyPath),
    responses(Guarded, InKey,
    (status = 204, description = "Revoked; every gateway refuses it within a second"),
))]
pub(super) async fn revoke(
    State(admin): State<Shared>,
    TwoIds(account, key): TwoIds<AccountId, KeyId>,
) -> Result<StatusCode, Refusal> {
    admin.accounts.revoke_key(&account, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A product that is not sold is a typo more often than a plan.
pub(super) fn check_products(admin: &Shared, wanted: Option<&[ProductId]>) -> Result<(), Refusal> {
    let catalog = admin.catalog.load();
    let unknown = wanted.unwrap_or_default().iter().find(|product| !catalog.products.contains_key(*product));
    let Some(unknown) = unknown else { return Ok(()) };
    let known: Vec<_> = catalog.products.keys().map(ProductId::as_str).collect();
    let message = format!("products: there is no product {unknown}; known are: {}", known.join(", "));
    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_product", message))
}
