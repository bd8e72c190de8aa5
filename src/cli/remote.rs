//! The commands that go through the admin API: what is asked, and how the answer is printed.

use std::io::Write;
use std::process::ExitCode;

use http::{Method, StatusCode};

use super::apps::{apps, apps_text};
use super::args::apps::AppsArgs;
use super::args::limits::{AccountLimit, KeyLimit};
use super::args::{
    AccountsArgs, AccountsCommand, KeyAdd, KeyChange, KeysArgs, KeysCommand, PackagesArgs, PackagesCommand,
    RemoteCommand, ResolveArgs,
};
use super::client::{Ask, Client, TOKEN_VARIABLE};
use super::output::{Failure, Output, every_account, limits_text, networks_text, path_of, some_of};
use super::table::Table;
use super::{EXIT_BUG, EXIT_OK};
use crate::admin::wire::{
    AccountView, AddKey, AddPackage, AddedKey, ChangeKey, KeyList, KeyStateView, KeyView, OpenAccount, OpenedAccount,
    PackageList, PackageView, ReadyView, ResolveSuspense, RotateKey,
};
use crate::domain::allocation::Tags;
use crate::domain::budget::{Budget, MoneyBudget};
use crate::domain::limit::Limits;

/// Carries out a command: answers go to `out`, notes and errors to `notes`.
pub fn run(command: RemoteCommand, out: &mut dyn Write, notes: &mut dyn Write) -> ExitCode {
    ExitCode::from(run_with(command, std::env::var(TOKEN_VARIABLE).ok(), out, notes))
}

/// As [`run`], with the admin token that the environment holds.
pub(super) fn run_with(
    command: RemoteCommand,
    token: Option<String>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(notes, "error: {error}");
            return EXIT_BUG;
        }
    };
    match runtime.block_on(carry_out(command, token, Output { out, notes, json: false })) {
        Ok(()) => EXIT_OK,
        Err(failure) => {
            let exit = failure.exit();
            if exit != EXIT_OK {
                let _ = writeln!(notes, "error: {failure}"); // there is no one else to tell
            }
            exit
        }
    }
}

async fn carry_out(command: RemoteCommand, token: Option<String>, mut output: Output<'_>) -> Result<(), Failure> {
    match command {
        RemoteCommand::Accounts(AccountsArgs { access, command }) => {
            output.json = access.address.json;
            accounts(&Client::with_token(&access, token)?, command, output).await
        }
        RemoteCommand::Keys(KeysArgs { access, command }) => {
            output.json = access.address.json;
            keys(&Client::with_token(&access, token)?, command, output).await
        }
        RemoteCommand::Apps(AppsArgs { access, command }) => {
            output.json = access.address.json;
            apps(&Client::with_token(&access, token)?, command, output).await
        }
        RemoteCommand::Packages(PackagesArgs { access, command }) => {
            output.json = access.address.json;
            packages(&Client::with_token(&access, token)?, command, output).await
        }
        RemoteCommand::Health(address) => {
            output.json = address.json;
            health(&Client::open(&address)?, output).await
        }
    }
}

async fn health(client: &Client, mut output: Output<'_>) -> Result<(), Failure> {
    let (status, body) = client.answer(Ask::get("/readyz")).await?;
    if !matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
        return Err(client.strange(status, &"/readyz has no such status").into());
    }
    let view: ReadyView = serde_json::from_slice(&body).map_err(|error| client.strange(status, &error))?;
    if output.json || view.ready {
        output.print(&view, || "ready\n".to_owned())?;
    }
    if view.ready { Ok(()) } else { Err(Failure::NotReady(view.reasons.join(", "))) }
}

async fn accounts(client: &Client, command: AccountsCommand, mut output: Output<'_>) -> Result<(), Failure> {
    match command {
        AccountsCommand::Open { name, id, once } => {
            let body = OpenAccount { name, id };
            let ask = Ask::send(Method::POST, "/admin/v1/accounts", Some(once.key()), &body)?;
            let opened: OpenedAccount = client.ask(ask).await?;
            output.print(&opened, || format!("{}\n", opened.id))?;
        }
        AccountsCommand::List => {
            let all = every_account(client).await?;
            output.print(&all, || {
                let mut table = Table::new(["id", "name"]);
                all.iter().for_each(|entry| table.row([entry.id.to_string(), entry.name.clone()]));
                table.text()
            })?;
        }
        AccountsCommand::Show { account } => {
            let view: AccountView = client.ask(Ask::get(&path_of(&account, ""))).await?;
            output.print(&view, || account_text(&view))?;
        }
        AccountsCommand::Limit(AccountLimit { account, limits }) => {
            let path = path_of(&account, "/limits");
            let limits: Limits = client.ask(Ask::send(Method::PUT, &path, None, &Limits::from(limits))?).await?;
            output.print(&limits, || format!("{}\n", limits_text(&limits)))?;
        }
    }
    Ok(())
}

async fn keys(client: &Client, command: KeysCommand, mut output: Output<'_>) -> Result<(), Failure> {
    match command {
        KeysCommand::Add(wanted) => add_key(client, wanted, output).await?,
        KeysCommand::List { account } => {
            let list: KeyList = client.ask(Ask::get(&path_of(&account, "/keys"))).await?;
            output.print(&list.keys, || keys_text(&list.keys))?;
        }
        KeysCommand::Change(wanted) => {
            let path = path_of(&wanted.account, &format!("/keys/{}", wanted.key));
            let ask = Ask::send(Method::PATCH, &path, None, &key_change(wanted)?)?;
            let changed: KeyView = client.ask(ask).await?;
            output.print(&changed, || keys_text(std::slice::from_ref(&changed)))?;
        }
        KeysCommand::Limit(KeyLimit { account, key, limits }) => {
            let path = path_of(&account, &format!("/keys/{key}"));
            let body = ChangeKey { limits: Some(limits.into()), ..ChangeKey::default() };
            let changed: KeyView = client.ask(Ask::send(Method::PATCH, &path, None, &body)?).await?;
            output.print(&changed, || keys_text(std::slice::from_ref(&changed)))?;
        }
        KeysCommand::Budget(wanted) => {
            let path = path_of(&wanted.account, &format!("/keys/{}", wanted.key));
            let budget = Budget::try_from(wanted)?;
            let body = ChangeKey { budget: Some(budget), ..ChangeKey::default() };
            let changed: KeyView = client.ask(Ask::send(Method::PATCH, &path, None, &body)?).await?;
            output.print(&changed, || keys_text(std::slice::from_ref(&changed)))?;
        }
        KeysCommand::Rotate { account, key, overlap_seconds } => {
            let path = path_of(&account, &format!("/keys/{key}/rotate"));
            let ask = Ask::send(Method::POST, &path, None, &RotateKey { overlap_seconds })?;
            let rotated: AddedKey = client.ask(ask).await?;
            let printed =
                output.print(&rotated, || rotated.key.as_ref().map(|key| format!("{key}\n")).unwrap_or_default());
            let done = || format!("{key} has a new key");
            printed.map_err(|error| Failure::Unshown { done: done(), next: "rotate it again", error })?;
            let before = match overlap_seconds {
                0 => "calls with the one before are refused within a second".to_owned(),
                seconds => format!("the one before works for {seconds} s more"),
            };
            writeln!(output.notes, "{key} has a new key; keep it now, it is shown only this once; {before}")?;
        }
        KeysCommand::Revoke { account, key } => {
            let path = path_of(&account, &format!("/keys/{key}"));
            client.order(Ask { method: Method::DELETE, ..Ask::get(&path) }).await?;
            writeln!(output.notes, "{key} is revoked; calls with it are refused within a second")?;
        }
    }
    Ok(())
}

/// Prints the key alone on the output, so that it can be piped to where it belongs.
async fn add_key(client: &Client, wanted: KeyAdd, mut output: Output<'_>) -> Result<(), Failure> {
    let KeyAdd { account, description, expires_at, products, models, networks, project, tags, once } = wanted;
    let tags = tags_of(tags)?;
    let (products, models, networks) = (some_of(products), some_of(models), some_of(networks));
    let path = path_of(&account, "/keys");
    let (limits, budget) = (Limits::NONE, Budget::default());
    let body = AddKey { description, expires_at, products, models, networks, project, tags, limits, budget };
    let added: AddedKey = client.ask(Ask::send(Method::POST, &path, Some(once.key()), &body)?).await?;
    let id = &added.view.id;
    let printed = output.print(&added, || added.key.as_ref().map(|key| format!("{key}\n")).unwrap_or_default());
    let next = "revoke it and add another";
    printed.map_err(|error| Failure::Unshown { done: format!("{id} is added"), next, error })?;
    match added.key {
        Some(_) => writeln!(output.notes, "{id} is added; keep the key now, it is shown only this once")?,
        None => writeln!(
            output.notes,
            "{id} was added before and its key shown then; if it is lost, revoke it and add another"
        )?,
    }
    Ok(())
}

fn key_change(wanted: KeyChange) -> Result<ChangeKey, Failure> {
    Ok(ChangeKey {
        description: wanted.description,
        disabled: (wanted.disable || wanted.enable).then_some(wanted.disable),
        expires_at: if wanted.never_expires { Some(None) } else { wanted.expires_at.map(Some) },
        products: if wanted.all_products { Some(None) } else { some_of(wanted.products).map(Some) },
        models: if wanted.all_models { Some(None) } else { some_of(wanted.models).map(Some) },
        networks: if wanted.all_networks { Some(None) } else { some_of(wanted.networks).map(Some) },
        project: wanted.project,
        limits: None,
        budget: None,
        tags: if wanted.no_tags { Some(Tags::default()) } else { some_of(wanted.tags).map(tags_of).transpose()? },
    })
}

fn tags_of(given: Vec<(String, String)>) -> Result<Tags, Failure> {
    Ok(Tags::new(given.into_iter().collect())?)
}

async fn packages(client: &Client, command: PackagesCommand, mut output: Output<'_>) -> Result<(), Failure> {
    match command {
        PackagesCommand::Add { account, offer, valid_from, project, tags, once } => {
            let path = path_of(&account, "/packages");
            let body = AddPackage { offer, valid_from, project, tags: tags_of(tags)? };
            let ask = Ask::send(Method::POST, &path, Some(once.key()), &body)?;
            let added: PackageView = client.ask(ask).await?;
            output.print(&added, || packages_text(std::slice::from_ref(&added)))?;
        }
        PackagesCommand::List { account } => {
            let list: PackageList = client.ask(Ask::get(&path_of(&account, "/packages"))).await?;
            output.print(&list, || packages_text(list.packages.iter().chain(&list.ended)))?;
        }
        PackagesCommand::Resolve(ResolveArgs { account, package, units, used, once, .. }) => {
            let path = path_of(&account, &format!("/packages/{package}/resolve"));
            let body = ResolveSuspense { units, used };
            let ask = Ask::send(Method::POST, &path, Some(once.key()), &body)?;
            let resolved: PackageView = client.ask(ask).await?;
            output.print(&resolved, || packages_text(std::slice::from_ref(&resolved)))?;
        }
    }
    Ok(())
}

/// A budget in a table: `7/day, 100 in all, 9.5 CNY/month`.
fn budget_text(budget: &Budget) -> String {
    let day = budget.per_day.map(|units| format!("{units}/day"));
    let month = budget.per_month.map(|units| format!("{units}/month"));
    let total = budget.total.map(|units| format!("{units} in all"));
    let mut text: Vec<String> = [day, month, total].into_iter().flatten().collect();
    if let Some(MoneyBudget { currency, per_day, per_month, total }) = budget.money {
        let day = per_day.map(|amount| format!("{amount} {currency}/day"));
        let month = per_month.map(|amount| format!("{amount} {currency}/month"));
        let total = total.map(|amount| format!("{amount} {currency} in all"));
        text.extend([day, month, total].into_iter().flatten());
    }
    if text.is_empty() { "none".to_owned() } else { text.join(", ") }
}

fn account_text(view: &AccountView) -> String {
    let mut text = format!("{}  {}  opened {:.0}\n", view.id, view.name, view.created_at);
    if !view.limits.is_none() {
        text.push_str(&format!("limits: {}\n", limits_text(&view.limits)));
    }
    for pool in &view.pools {
        let end = pool.next_expiry.map(|end| format!(", next package ends {end:.0}")).unwrap_or_default();
        text.push_str(&format!("\n{}: {} left{end}\n{}", pool.product, pool.remaining, packages_text(&pool.packages)));
    }
    if !view.ended.is_empty() {
        text.push_str(&format!("\nended\n{}", packages_text(&view.ended)));
    }
    if !view.keys.is_empty() {
        text.push_str(&format!("\nkeys\n{}", keys_text(&view.keys)));
    }
    if !view.apps.is_empty() {
        text.push_str(&format!("\napps\n{}", apps_text(&view.apps)));
    }
    text
}

fn keys_text(keys: &[KeyView]) -> String {
    let heading = [
        "id",
        "key",
        "state",
        "expires",
        "products",
        "models",
        "networks",
        "project",
        "limits",
        "budget",
        "description",
    ];
    let mut table = Table::new(heading);
    for key in keys {
        let state = match key.state {
            KeyStateView::Usable => "usable",
            KeyStateView::Disabled => "disabled",
            KeyStateView::Expired => "expired",
        };
        let products =
            key.products.as_ref().map(|list| list.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(","));
        table.row([
            key.id.to_string(),
            key.hint.clone(),
            state.to_owned(),
            key.expires_at.map_or_else(|| "never".to_owned(), |end| format!("{end:.0}")),
            products.unwrap_or_else(|| "all".to_owned()),
            key.models.as_ref().map_or_else(|| "all".to_owned(), |list| list.join(",")),
            networks_text(key.networks.as_deref()),
            key.project.to_string(),
            limits_text(&key.limits),
            budget_text(&key.budget),
            key.description.clone(),
        ]);
    }
    table.text()
}

fn packages_text<'a>(packages: impl IntoIterator<Item = &'a PackageView>) -> String {
    let heading = ["id", "product", "offer", "total", "remaining", "leased", "suspense", "forfeited", "from", "until"];
    let mut table = Table::new(heading);
    for package in packages {
        table.row([
            package.id.to_string(),
            package.product.to_string(),
            package.offer.to_string(),
            package.total.to_string(),
            package.remaining.to_string(),
            package.leased.to_string(),
            package.suspense.to_string(),
            package.forfeited.to_string(),
            format!("{:.0}", package.valid_from),
            format!("{:.0}", package.valid_until),
        ]);
    }
    table.text()
}
