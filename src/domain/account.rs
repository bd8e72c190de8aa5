//! The account: the one door to a balance. `apply` for commands, `sync` for usage; both take the documents as they
//! are and say what they become. Nothing else changes a balance.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::amount::Units;
use super::command::{Action, Command, KeyChange, Refusal};
use super::event::Event;
use super::id::{AccountId, CommandId, Incarnation, KeyId, PackageId, ProductId};
use super::key::{ApiKey, KEYS_PER_ACCOUNT_MAX};
use super::lease::{Lease, Want};
use super::offer::Offer;
use super::package::Package;
use super::pool::Pool;
use super::settle::LeaseReport;

/// The document version that this program writes, and the newest that it reads.
pub const ACCOUNT_VERSION: u32 = 1;
/// How long a command's id is remembered, so that asking again does nothing.
const COMMAND_MEMORY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The head document: who the account is, and its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// See [`ACCOUNT_VERSION`].
    pub version: u32,
    /// Its name for programs.
    pub id: AccountId,
    /// Its name for people.
    pub name: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// At most [`KEYS_PER_ACCOUNT_MAX`].
    pub keys: Vec<ApiKey>,
    /// Commands of the last 30 days, by id, with the time of each.
    pub commands: BTreeMap<CommandId, Timestamp>,
    /// The highest time seen.
    pub time_high: Timestamp,
}

impl Account {
    /// A new account with nothing in it.
    pub fn open(id: AccountId, name: String, now: Timestamp) -> Self {
        let (keys, commands) = (Vec::new(), BTreeMap::new());
        Self { version: ACCOUNT_VERSION, id, name, created_at: now, keys, commands, time_high: now }
    }

    fn key_mut(&mut self, id: &KeyId) -> Result<&mut ApiKey, Refusal> {
        self.keys.iter_mut().find(|key| key.id == *id).ok_or_else(|| Refusal::UnknownKey(id.clone()))
    }
}

/// All documents of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// The head document.
    pub head: Account,
    /// One per product that the account ever bought.
    pub pools: BTreeMap<ProductId, Pool>,
}

/// What a command or a sync makes of the documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The new head document, if it changed.
    pub head: Option<Account>,
    /// The new pool document, if one changed.
    pub pool: Option<Pool>,
    /// Packages that left their document, for the history.
    pub ended: Vec<Package>,
    /// What happened, for the outbox.
    pub events: Vec<Event>,
}

/// Applies a command. A command that was applied in the last 30 days changes nothing.
pub fn apply(books: &Books, command: &Command, now: Timestamp) -> Result<Change, Refusal> {
    let mut head = books.head.clone();
    let now = now.max(head.time_high);
    if head.commands.contains_key(&command.id) {
        return Ok(Change::default());
    }
    head.time_high = now;
    head.commands.retain(|_, at| now.duration_since(*at) <= COMMAND_MEMORY);
    head.commands.insert(command.id.clone(), now);
    let mut change = Change::default();
    match &command.action {
        Action::AddKey(key) => add_key(&mut head, key)?,
        Action::ChangeKey(id, wanted) => change_key(head.key_mut(id)?, wanted),
        Action::RevokeKey(id) => {
            head.key_mut(id)?;
            head.keys.retain(|key| key.id != *id);
        }
        Action::AddPackage { package, offer, valid_from } => {
            let from = valid_from.unwrap_or(now);
            let package = bought(package, offer, &command.id, (now, from))?;
            change = add_package(books, offer.product.clone(), package, now);
        }
        Action::ResolveSuspense { product, package, units, used } => {
            change = resolve(books, product, package, (*units, *used), now)?;
        }
    }
    change.head = Some(head);
    Ok(change)
}

fn add_key(head: &mut Account, key: &ApiKey) -> Result<(), Refusal> {
    if head.keys.len() >= KEYS_PER_ACCOUNT_MAX {
        return Err(Refusal::TooManyKeys { max: KEYS_PER_ACCOUNT_MAX });
    }
    head.keys.push(key.clone());
    Ok(())
}

fn change_key(key: &mut ApiKey, wanted: &KeyChange) {
    let wanted = wanted.clone();
    key.description = wanted.description.unwrap_or(std::mem::take(&mut key.description));
    key.disabled = wanted.disabled.unwrap_or(key.disabled);
    key.expires_at = wanted.expires_at.unwrap_or(key.expires_at);
    key.products = wanted.products.unwrap_or(key.products.take());
    key.models = wanted.models.unwrap_or(key.models.take());
}

fn bought(
    id: &PackageId,
    offer: &Offer,
    command: &CommandId,
    (now, from): (Timestamp, Timestamp),
) -> Result<Package, Refusal> {
    let valid_until = offer.validity.end(from, &offer.zone).ok_or(Refusal::OutsideCalendar)?;
    Ok(Package {
        id: id.clone(),
        offer: offer.id.clone(),
        command: command.clone(),
        total: offer.quantity,
        free: offer.quantity,
        leased: Units::ZERO,
        settled: Units::ZERO,
        suspense: Units::ZERO,
        forfeited: Units::ZERO,
        overrun: Units::ZERO,
        bought_at: now,
        valid_from: from,
        valid_until,
        billable: offer.billable.clone(),
    })
}

fn add_package(books: &Books, product: ProductId, package: Package, now: Timestamp) -> Change {
    let known = books.pools.get(&product).cloned();
    let mut pool = known.unwrap_or_else(|| Pool::new(books.head.id.clone(), product.clone()));
    pool.observe(now);
    let mut events = vec![Event::PackageAdded { product, package: package.id.clone() }];
    pool.packages.push(package);
    let ended = pool.sweep(now, &mut events);
    Change { head: None, pool: Some(pool), ended, events }
}

fn resolve(
    books: &Books,
    product: &ProductId,
    id: &PackageId,
    (units, used): (Units, bool),
    now: Timestamp,
) -> Result<Change, Refusal> {
    let unknown = || Refusal::UnknownPackage(id.clone());
    let mut pool = books.pools.get(product).cloned().ok_or_else(unknown)?;
    let now = pool.observe(now);
    let package = pool.packages.iter_mut().find(|package| package.id == *id).ok_or_else(unknown)?;
    let available = package.suspense;
    package.suspense = available.checked_sub(units).ok_or(Refusal::NotInSuspense { available })?;
    let goes_to = if used { &mut package.settled } else { &mut package.free };
    goes_to.put(units);
    let mut events = Vec::new();
    let ended = pool.sweep(now, &mut events);
    Ok(Change { head: None, pool: Some(pool), ended, events })
}

/// What a gateway reports of a pool and asks of it, in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Who reports.
    pub incarnation: Incarnation,
    /// Its leases that are not known to be closed.
    pub reports: Vec<LeaseReport>,
    /// True when `reports` names every lease that the incarnation's journal knows: all others were never used.
    pub complete: bool,
    /// A new lease: its number, and how much is needed.
    pub grant: Option<(u64, Want)>,
}

/// Books a gateway's reports, then grants what it asks for.
pub fn sync(pool: &Pool, sync: &Sync, now: Timestamp) -> (Change, Option<Lease>) {
    let mut next = pool.clone();
    let now = next.observe(now);
    let mut events = Vec::new();
    for report in &sync.reports {
        next.settle(&sync.incarnation, report, now, &mut events);
    }
    if sync.complete {
        let known = |number| sync.reports.iter().any(|report| report.number == number);
        next.close_unknown(&sync.incarnation, known, now, &mut events);
    }
    next.forget_quiet(&sync.incarnation, now);
    let mut ended = next.sweep(now, &mut events);
    let lease = sync.grant.and_then(|(number, want)| next.grant(&sync.incarnation, number, want, now));
    ended.extend(next.sweep(now, &mut events));
    (Change { head: None, pool: Some(next), ended, events }, lease)
}
