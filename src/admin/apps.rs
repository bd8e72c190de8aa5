//! Apps: added, listed, bound to products, deleted; their secrets rotated and looked up; their AppCodes added and
//! removed. Each reading of a secret leaves a line in the log.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret;

use super::Shared;
use super::accounts::made;
use super::keys::{check_products, overlap};
use super::parts::{AccountPath, AppPath, Bodied, Growing, Guarded, InAccount, InApp, Keyed, Repeatable};
use super::refusal::Refusal;
use super::request::{Body, Idempotency, OneId, ThreeIds, TwoIds};
use super::wire::ErrorBody;
use super::wire::apps::{
    AddApp, AddCode, AddedCode, AllowNetworks, AppList, AppView, AppWithSecret as AppWithSecretView, ResealedView,
    RotateSecret,
};
use crate::domain::id::{AccountId, AppCodeId, AppId, ProductId};
use crate::service::accounts::apps::{AppWithSecret, NewApp};
use crate::service::accounts::reseal::Resealed;

/// Adds an app.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/apps",
    tag = "apps", operation_id = "add_app", security(("admin_token" = [])),
    params(AccountPath, Keyed), request_body = AddApp,
    responses(Guarded, InAccount, Bodied, Repeatable,
    (status = 200, description = "Added before by the same Idempotency-Key", body = AppWithSecretView),
    (status = 201, description = "Added", body = AppWithSecretView),
    (status = 409, description = "It has 50 apps, the AppKey is in use, or the Idempotency-Key did something else", body = ErrorBody),
))]
pub(super) async fn add(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
    Idempotency(command): Idempotency,
    Body(wanted): Body<AddApp>,
) -> Result<(StatusCode, Json<AppWithSecretView>), Refusal> {
    check_products(&admin, Some(&wanted.products))?;
    let AddApp { name, app_key, app_secret, products, networks } = wanted;
    let new = NewApp { name, app_key, secret: app_secret.map(Into::into), products, networks };
    let added = admin.accounts.add_app(&account, command, new).await?;
    Ok((made(added.repeated), shown(&account, added)))
}

/// Lists an account's apps.
#[utoipa::path(get, path = "/admin/v1/accounts/{account}/apps",
    tag = "apps", operation_id = "list_apps", security(("admin_token" = [])),
    params(AccountPath), responses(Guarded, InAccount,
    (status = 200, description = "The apps, without their secrets", body = AppList),
))]
pub(super) async fn list(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
) -> Result<Json<AppList>, Refusal> {
    let loaded = admin.accounts.show(&account).await?.loaded;
    Ok(Json(AppList { apps: loaded.head.value.apps.into_iter().map(AppView::from).collect() }))
}

/// Deletes an app for ever, with its secrets and AppCodes.
#[utoipa::path(delete, path = "/admin/v1/accounts/{account}/apps/{app}",
    tag = "apps", operation_id = "delete_app", security(("admin_token" = [])),
    params(AppPath),
    responses(Guarded, InApp,
    (status = 204, description = "Deleted; every gateway refuses it within a second"),
))]
pub(super) async fn delete(
    State(admin): State<Shared>,
    TwoIds(account, app): TwoIds<AccountId, AppId>,
) -> Result<StatusCode, Refusal> {
    admin.accounts.delete_app(&account, &app).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows an app with its present secret. Leaves a line in the log.
#[utoipa::path(get, path = "/admin/v1/accounts/{account}/apps/{app}/secret",
    tag = "apps", operation_id = "show_app_secret", security(("admin_token" = [])),
    params(AppPath),
    responses(Guarded, InApp,
    (status = 200, description = "The app and its secret", body = AppWithSecretView),
    (status = 500, description = "It was encrypted with a key that is not configured", body = ErrorBody),
))]
pub(super) async fn show_secret(
    State(admin): State<Shared>,
    TwoIds(account, app): TwoIds<AccountId, AppId>,
) -> Result<Json<AppWithSecretView>, Refusal> {
    let found = admin.accounts.app_secret(&account, &app).await?;
    Ok(shown(&account, found))
}

/// Puts a new secret in the place of the present one.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/apps/{app}/secret",
    tag = "apps", operation_id = "rotate_app_secret", security(("admin_token" = [])),
    params(AppPath),
    request_body = RotateSecret, responses(Guarded, InApp, Bodied, Growing,
    (status = 200, description = "The app with its new secret", body = AppWithSecretView),
))]
pub(super) async fn rotate_secret(
    State(admin): State<Shared>,
    TwoIds(account, app): TwoIds<AccountId, AppId>,
    Body(wanted): Body<RotateSecret>,
) -> Result<Json<AppWithSecretView>, Refusal> {
    let overlap = overlap(wanted.overlap_seconds)?;
    let secret = wanted.app_secret.map(Into::into);
    let rotated = admin.accounts.rotate_secret(&account, &app, secret, overlap).await?;
    Ok(shown(&account, rotated))
}

/// Adds an AppCode.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/apps/{app}/codes",
    tag = "apps", operation_id = "add_app_code", security(("admin_token" = [])),
    params(AppPath, Keyed),
    request_body = AddCode, responses(Guarded, InApp, Bodied, Repeatable,
    (status = 200, description = "Added before by the same Idempotency-Key; without the code itself", body = AddedCode),
    (status = 201, description = "Added; holds the code itself, if it was made here", body = AddedCode),
    (status = 409, description = "It has five AppCodes, or the code is in use", body = ErrorBody),
))]
pub(super) async fn add_code(
    State(admin): State<Shared>,
    TwoIds(account, app): TwoIds<AccountId, AppId>,
    Idempotency(command): Idempotency,
    Body(wanted): Body<AddCode>,
) -> Result<(StatusCode, Json<AddedCode>), Refusal> {
    let added = admin.accounts.add_code(&account, &app, command, wanted.code.map(Into::into)).await?;
    let code = added.text.map(|text| text.expose_secret().to_owned());
    Ok((made(added.repeated), Json(AddedCode { code, view: added.code.into() })))
}

/// Removes an AppCode for ever.
#[utoipa::path(delete, path = "/admin/v1/accounts/{account}/apps/{app}/codes/{code}",
    tag = "apps", operation_id = "remove_app_code", security(("admin_token" = [])),
    params(AppPath,
        ("code" = String, Path, description = "The AppCode's id")),
    responses(Guarded,
    (status = 204, description = "Removed; every gateway refuses it within a second"),
    (status = 404, description = "No such account, app or AppCode", body = ErrorBody),
))]
pub(super) async fn remove_code(
    State(admin): State<Shared>,
    ThreeIds(account, app, code): ThreeIds<AccountId, AppId, AppCodeId>,
) -> Result<StatusCode, Refusal> {
    admin.accounts.remove_code(&account, &app, &code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets an app open a product.
#[utoipa::path(put, path = "/admin/v1/accounts/{account}/apps/{app}/products/{product}",
    tag = "apps", operation_id = "bind_app", security(("admin_token" = [])),
    params(AppPath,
        ("product" = String, Path, description = "The product's id")),
    responses(Guarded, InApp,
    (status = 200, description = "The app as it is now", body = AppView),
    (status = 409, description = "It is bound to 100 products", body = ErrorBody),
    (status = 422, description = "No such product", body = ErrorBody),
))]
pub(super) async fn bind(
    State(admin): State<Shared>,
    ThreeIds(account, app, product): ThreeIds<AccountId, AppId, ProductId>,
) -> Result<Json<AppView>, Refusal> {
    check_products(&admin, Some(std::slice::from_ref(&product)))?;
    Ok(Json(admin.accounts.bind_app(&account, &app, &product, true).await?.into()))
}

/// No longer lets an app open a product.
#[utoipa::path(delete, path = "/admin/v1/accounts/{account}/apps/{app}/products/{product}",
    tag = "apps", operation_id = "unbind_app", security(("admin_token" = [])),
    params(AppPath,
        ("product" = String, Path, description = "The product's id")),
    responses(Guarded, InApp,
    (status = 200, description = "The app as it is now", body = AppView),
))]
pub(super) async fn unbind(
    State(admin): State<Shared>,
    ThreeIds(account, app, product): ThreeIds<AccountId, AppId, ProductId>,
) -> Result<Json<AppView>, Refusal> {
    Ok(Json(admin.accounts.bind_app(&account, &app, &product, false).await?.into()))
}

/// Sets the only networks from which an app is accepted.
#[utoipa::path(put, path = "/admin/v1/accounts/{account}/apps/{app}/networks",
    tag = "apps", operation_id = "allow_app_networks", security(("admin_token" = [])),
    params(AppPath),
    request_body = AllowNetworks, responses(Guarded, InApp, Bodied, Growing,
    (status = 200, description = "The app as it is now", body = AppView),
))]
pub(super) async fn allow_networks(
    State(admin): State<Shared>,
    TwoIds(account, app): TwoIds<AccountId, AppId>,
    Body(wanted): Body<AllowNetworks>,
) -> Result<Json<AppView>, Refusal> {
    Ok(Json(admin.accounts.allow_networks(&account, &app, wanted.networks).await?.into()))
}

/// Seals the secrets of an account's apps with `secrets.seal_key`, where a former key has sealed them.
#[utoipa::path(post, path = "/admin/v1/accounts/{account}/apps/reseal",
    tag = "apps", operation_id = "reseal_apps", security(("admin_token" = [])),
    params(AccountPath),
    responses(Guarded, InAccount, Growing,
    (status = 200, description = "How many; once no account has any left, former keys can be dropped", body = ResealedView),
))]
pub(super) async fn reseal(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
) -> Result<Json<ResealedView>, Refusal> {
    let Resealed { resealed, already, broken } = admin.accounts.reseal_apps(&account).await?;
    Ok(Json(ResealedView { resealed, already, broken }))
}

/// The answer that holds a secret, and the line that says so.
fn shown(account: &AccountId, found: AppWithSecret) -> Json<AppWithSecretView> {
    tracing::info!(audit = "showAppSecret", %account, app = %found.app.id, "an app's secret was shown to an operator");
    let app_secret = found.secret.expose_secret().to_owned();
    Json(AppWithSecretView { app_secret, view: found.app.into() })
}
