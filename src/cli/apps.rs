//! `tollgate apps`: what is asked of the admin API about apps, and how the answer is printed.

use std::path::{Path, PathBuf};

use http::Method;

use super::args::apps::{AppAdd, AppNetworks, AppsCommand, WhichApp};
use super::args::limits::AppLimit;
use super::client::{Ask, Client, ClientError};
use super::output::{Failure, Output, every_account, limits_text, networks_text, path_of, some_of};
use super::table::Table;
use crate::admin::wire::apps::{
    AddApp, AddCode, AddedCode, AllowNetworks, AppList, AppView, AppWithSecret, ResealedView, RotateSecret,
};
use crate::domain::id::AccountId;
use crate::domain::limit::Limits;

pub(super) async fn apps(client: &Client, command: AppsCommand, mut output: Output<'_>) -> Result<(), Failure> {
    match command {
        AppsCommand::Add(wanted) => add(client, wanted, output).await?,
        AppsCommand::List { account } => {
            let list: AppList = client.ask(Ask::get(&path_of(&account, "/apps"))).await?;
            output.print(&list.apps, || apps_text(&list.apps))?;
        }
        AppsCommand::Secret(app) => {
            let shown: AppWithSecret = client.ask(Ask::get(&path(&app, "/secret"))).await?;
            output.print(&shown, || format!("{}\n", shown.app_secret))?;
        }
        AppsCommand::Rotate { app, secret_file, overlap_seconds } => {
            let body = RotateSecret { app_secret: read(secret_file)?, overlap_seconds };
            let path = path(&app, "/secret");
            let rotated: AppWithSecret = client.ask(Ask::send(Method::POST, &path, None, &body)?).await?;
            output.print(&rotated, || format!("{}\n", rotated.app_secret))?;
        }
        AppsCommand::AddCode { app, code_file, once } => {
            let (path, body) = (path(&app, "/codes"), AddCode { code: read(code_file)? });
            let ask = Ask::send(Method::POST, &path, Some(once.key()), &body)?;
            let added: AddedCode = client.ask(ask).await?;
            output.print(&added, || added.code.as_ref().map(|code| format!("{code}\n")).unwrap_or_default())?;
            match added.code {
                Some(_) => output
                    .note(&format!("{} is added; keep the code now, it is shown only this once", added.view.id))?,
                None => output.note(&format!("{} is there", added.view.id))?,
            }
        }
        AppsCommand::RemoveCode { app, code } => {
            remove(client, &path(&app, &format!("/codes/{code}"))).await?;
            output.note(&format!("{code} is removed; calls with it are refused within a second"))?;
        }
        AppsCommand::Bind(wanted) => {
            let path = path(&wanted.app, &format!("/products/{}", wanted.product));
            let bound: AppView = client.ask(Ask { method: Method::PUT, ..Ask::get(&path) }).await?;
            output.print(&bound, || apps_text(std::slice::from_ref(&bound)))?;
        }
        AppsCommand::Unbind(wanted) => {
            let path = path(&wanted.app, &format!("/products/{}", wanted.product));
            let bound: AppView = client.ask(Ask { method: Method::DELETE, ..Ask::get(&path) }).await?;
            output.print(&bound, || apps_text(std::slice::from_ref(&bound)))?;
        }
        AppsCommand::Limit(AppLimit { account, app, limits }) => {
            let path = path_of(&account, &format!("/apps/{app}/limits"));
            let limited: AppView = client.ask(Ask::send(Method::PUT, &path, None, &Limits::from(limits))?).await?;
            output.print(&limited, || apps_text(std::slice::from_ref(&limited)))?;
        }
        AppsCommand::Networks(AppNetworks { app, networks, all_networks: _ }) => {
            let (path, body) = (path(&app, "/networks"), AllowNetworks { networks: some_of(networks) });
            let changed: AppView = client.ask(Ask::send(Method::PUT, &path, None, &body)?).await?;
            output.print(&changed, || apps_text(std::slice::from_ref(&changed)))?;
        }
        AppsCommand::Reseal { account } => reseal(client, account, output).await?,
        AppsCommand::Delete(app) => {
            remove(client, &path(&app, "")).await?;
            output.note(&format!("{} is deleted; calls with it are refused within a second", app.app))?;
        }
    }
    Ok(())
}

async fn remove(client: &Client, path: &str) -> Result<(), ClientError> {
    client.order(Ask { method: Method::DELETE, ..Ask::get(path) }).await
}

async fn add(client: &Client, wanted: AppAdd, mut output: Output<'_>) -> Result<(), Failure> {
    let AppAdd { account, name, app_key, secret_file, products, networks, once } = wanted;
    let body = AddApp { name, app_key, app_secret: read(secret_file)?, products, networks: some_of(networks) };
    let path = path_of(&account, "/apps");
    let added: AppWithSecret = client.ask(Ask::send(Method::POST, &path, Some(once.key()), &body)?).await?;
    output.print(&added, || format!("{}\n{}\n", added.view.app_key, added.app_secret))?;
    output.note(&format!("{} is added; `tollgate apps secret` shows its secret again", added.view.id))?;
    Ok(())
}

/// Seals the secrets of one account's apps anew, or of all.
async fn reseal(client: &Client, account: Option<AccountId>, mut output: Output<'_>) -> Result<(), Failure> {
    let accounts = match account {
        Some(account) => vec![account],
        None => every_account(client).await?.into_iter().map(|entry| entry.id).collect(),
    };
    let mut all = ResealedView { resealed: 0, already: 0, broken: Vec::new() };
    for account in accounts {
        let path = path_of(&account, "/apps/reseal");
        let done: ResealedView = client.ask(Ask { method: Method::POST, ..Ask::get(&path) }).await?;
        all.resealed = all.resealed.saturating_add(done.resealed);
        all.already = all.already.saturating_add(done.already);
        for app in done.broken {
            output.note(&format!("{app} of {account}: no configured key opens its secret"))?;
            all.broken.push(app);
        }
    }
    output.print(&all, || format!("{} sealed anew, {} as they should be\n", all.resealed, all.already))?;
    match all.broken.len() {
        0 => Ok(()),
        count => Err(Failure::Sealed(count)),
    }
}

fn path(app: &WhichApp, rest: &str) -> String {
    path_of(&app.account, &format!("/apps/{}{rest}", app.app))
}

/// The secret that a file holds, without the end of its line.
pub(super) fn read_secret(file: &Path) -> Result<String, ClientError> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| ClientError::Setup(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(file: Option<PathBuf>) -> Result<Option<String>, ClientError> {
    file.map(|file| read_secret(&file)).transpose()
}

/// Apps as a table.
pub(super) fn apps_text(apps: &[AppView]) -> String {
    let heading = ["id", "name", "app key", "products", "networks", "secrets", "app codes", "limits"];
    let mut table = Table::new(heading);
    let joined = |words: Vec<String>| if words.is_empty() { "none".to_owned() } else { words.join(",") };
    for app in apps {
        table.row([
            app.id.to_string(),
            app.name.clone(),
            app.app_key.clone(),
            joined(app.products.iter().map(ToString::to_string).collect()),
            networks_text(app.networks.as_deref()),
            app.secrets.len().to_string(),
            joined(app.codes.iter().map(|code| format!("{} {}", code.id, code.hint)).collect()),
            limits_text(&app.limits),
        ]);
    }
    table.text()
}
