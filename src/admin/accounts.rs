//! Accounts: opened, listed, shown.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::parts::{AccountPath, Bodied, Guarded, InAccount, Keyed, Repeatable};
use super::refusal::Refusal;
use super::request::{Body, Idempotency, OneId};
use super::wire::{
    AccountEntry, AccountList, AccountView, ErrorBody, KeyView, OpenAccount, OpenedAccount, PackageView, PoolView,
};
use crate::domain::id::AccountId;
use crate::ports::account_store::LIST_MAX;
use crate::service::accounts::Shown;

/// 201 for what was made now, 200 for what the same command made before.
pub(super) fn made(repeated: bool) -> StatusCode {
    if repeated { StatusCode::OK } else { StatusCode::CREATED }
}

/// Opens an account.
#[utoipa::path(post, path = "/admin/v1/accounts",
    tag = "accounts", operation_id = "open_account", security(("admin_token" = [])),
    params(Keyed), request_body = OpenAccount, responses(Guarded, Bodied, Repeatable,
    (status = 200, description = "Opened before by the same Idempotency-Key", body = OpenedAccount),
    (status = 201, description = "Opened", body = OpenedAccount),
    (status = 409, description = "The id is taken", body = ErrorBody),
))]
pub(super) async fn open(
    State(admin): State<Shared>,
    Idempotency(command): Idempotency,
    Body(wanted): Body<OpenAccount>,
) -> Result<(StatusCode, Json<OpenedAccount>), Refusal> {
    let opened = admin.accounts.open(command, wanted.id, &wanted.name).await?;
    let head = opened.value;
    Ok((made(opened.repeated), Json(OpenedAccount { id: head.id, name: head.name, created_at: head.created_at })))
}

/// Where a listing goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only accounts after this id: the `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<AccountId>,
}

/// Lists accounts, a page at a time.
#[utoipa::path(get, path = "/admin/v1/accounts",
    tag = "accounts", operation_id = "list_accounts", security(("admin_token" = [])),
    params(ListQuery), responses(Guarded,
    (status = 200, description = "A page of accounts", body = AccountList),
    (status = 400, description = "A bad query", body = ErrorBody),
))]
pub(super) async fn list(
    State(admin): State<Shared>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<AccountList>, Refusal> {
    let Query(ListQuery { after }) = query?;
    let page = admin.accounts.list(after).await?;
    let next = page.last().filter(|_| page.len() >= LIST_MAX).map(|last| last.id.clone());
    let accounts = page.into_iter().map(|entry| AccountEntry { id: entry.id, name: entry.name }).collect();
    Ok(Json(AccountList { accounts, next }))
}

/// Shows an account with its keys and packages.
#[utoipa::path(get, path = "/admin/v1/accounts/{account}",
    tag = "accounts", operation_id = "show_account", security(("admin_token" = [])),
    params(AccountPath), responses(Guarded, InAccount,
    (status = 200, description = "The account", body = AccountView),
))]
pub(super) async fn show(
    State(admin): State<Shared>,
    OneId(account): OneId<AccountId>,
) -> Result<Json<AccountView>, Refusal> {
    let Shown { loaded, ended } = admin.accounts.show(&account).await?;
    let now = loaded.now;
    let head = loaded.head.value;
    let pools = loaded.pools.into_iter().map(|(product, pool)| {
        let pool = pool.value;
        PoolView {
            remaining: pool.remaining(now).get(),
            next_expiry: pool.next_expiry(now),
            packages: PackageView::all(pool.packages.into_iter().map(|package| (product.clone(), package))),
            product,
        }
    });
    Ok(Json(AccountView {
        pools: pools.collect(),
        apps: head.apps.into_iter().map(Into::into).collect(),
        keys: head.keys.into_iter().map(|key| KeyView::at(key, now)).collect(),
        ended: PackageView::all(ended),
        id: head.id,
        name: head.name,
        created_at: head.created_at,
        limits: head.limits,
        currency: head.currency,
    }))
}
