//! How many calls accounts and apps may make; what a key may is one of the things that can be changed of it.

use axum::Json;
use axum::extract::State;

use super::Shared;
use super::parts::{AccountPath, AppPath, Bodied, Growing, Guarded, InAccount, InApp};
use super::refusal::Refusal;
use super::request::{Body, OneId, TwoIds};
use super::wire::apps::AppView;
use super::wire::limits::CallLimits;
use crate::domain::id::{AccountId, AppId};
use crate::domain::limit::Limits;

/// Sets how many calls an account may make, in place of all limits that it has.
#[utoipa::path(put, path = "/admin/v1/accounts/{account}/limits",
    tag = "accounts", operation_id = "limit_account", security(("admin_token" = [])),
    params(AccountPath),
    request_body = CallLimits, responses(Guarded, InAccount, Bodied, Growing,
    (status = 200, description = "The limits as they are now; every gateway enforces them within a second", body = CallLimits),
))]
pub(super) async fn of_account(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
    Body(limits): Body<Limits>,
) -> Result<Json<Limits>, Refusal> {
    admin.accounts.limit_account(&account, limits).await?;
    Ok(Json(limits))
}

/// Sets how many calls an app may make, in place of all limits that it has.
#[utoipa::path(put, path = "/admin/v1/accounts/{account}/apps/{app}/limits",
    tag = "apps", operation_id = "limit_app", security(("admin_token" = [])),
    params(AppPath),
    request_body = CallLimits, responses(Guarded, InApp, Bodied, Growing,
    (status = 200, description = "The app as it is now; every gateway enforces its limits within a second", body = AppView),
))]
pub(super) async fn of_app(
    State(admin): State<Shared>,
    TwoIds(account, app): TwoIds<AccountId, AppId>,
    Body(limits): Body<Limits>,
) -> Result<Json<AppView>, Refusal> {
    Ok(Json(admin.accounts.limit_app(&account, &app, limits).await?.into()))
}
