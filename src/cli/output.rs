//! What the commands that go through the admin API share: where they print, why they fail, how they write what an answer
//! says.

use std::io::{self, Write};

use serde::Serialize;

use super::client::{Ask, Client, ClientError};
use super::{EXIT_CONFIG, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::admin::wire::{AccountEntry, AccountList};
use crate::domain::allocation::TagsFault;
use crate::domain::budget::BudgetFault;
use crate::domain::id::AccountId;
use crate::domain::limit::{Kind, Limits};
use crate::domain::network::Network;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the answer cannot be printed: {0}")]
    Output(#[from] io::Error),
    /// What is shown once alone was not: the change has been made all the same.
    #[error("{done}, but what is shown this once cannot be printed: {error}; {next}")]
    Unshown { done: String, next: &'static str, error: io::Error },
    #[error(transparent)]
    Tags(#[from] TagsFault),
    #[error(transparent)]
    Budget(#[from] BudgetFault),
    #[error("the gateway does not serve calls: {0}")]
    NotReady(String),
    #[error("{0} apps have a secret that cannot be read; name the key that sealed it under secrets.former_seal_keys")]
    Sealed(usize),
}

impl Failure {
    /// For the exit.
    pub(super) fn exit(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit(),
            // Whoever closed the pipe has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_OK,
            Self::Output(_) | Self::Unshown { .. } => EXIT_UNAVAILABLE,
            Self::Tags(_) | Self::Budget(_) => EXIT_USAGE,
            Self::NotReady(_) => EXIT_UNAVAILABLE,
            Self::Sealed(_) => EXIT_CONFIG,
        }
    }
}

/// Where a command prints.
pub(super) struct Output<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) notes: &'a mut dyn Write,
    /// Whether answers are printed as they came.
    pub(super) json: bool,
}

impl Output<'_> {
    /// JSON if that is wanted, else the text.
    pub(super) fn print(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.json {
            serde_json::to_writer_pretty(&mut *self.out, value)?;
            writeln!(self.out)
        } else {
            self.out.write_all(text().as_bytes())
        }
    }

    /// A line for people.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.notes, "{text}")
    }
}

/// Lists all accounts, page by page.
pub(super) async fn every_account(client: &Client) -> Result<Vec<AccountEntry>, Failure> {
    let mut all: Vec<AccountEntry> = Vec::new();
    let mut path = "/admin/v1/accounts".to_owned();
    loop {
        let page: AccountList = client.ask(Ask::get(&path)).await?;
        let last = all.last().map(|entry| entry.id.clone());
        all.extend(page.accounts);
        match page.next {
            // Each page lies behind the one before, so that this ends.
            Some(next) if Some(&next) > last.as_ref() => path = format!("/admin/v1/accounts?after={next}"),
            _ => return Ok(all),
        }
    }
}

/// Ids need no escaping in a path.
pub(super) fn path_of(account: &AccountId, rest: &str) -> String {
    format!("/admin/v1/accounts/{account}{rest}")
}

/// Limits in a table: `7/second, 100/day, 3 at once`.
pub(super) fn limits_text(limits: &Limits) -> String {
    let each = Kind::ALL.into_iter().filter_map(|kind| {
        let calls = limits.of(kind)?;
        Some(if kind == Kind::Concurrent { format!("{calls} at once") } else { format!("{calls}/{}", kind.name()) })
    });
    let text: Vec<String> = each.collect();
    if text.is_empty() { "none".to_owned() } else { text.join(", ") }
}

/// A list that was given; `None` if none was.
pub(super) fn some_of<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// A list of networks in a table.
pub(super) fn networks_text(networks: Option<&[Network]>) -> String {
    let joined = |networks: &[Network]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    networks.map_or_else(|| "all".to_owned(), joined)
}
