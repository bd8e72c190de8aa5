//! Balances recomputed from usage records and commands alone: what was bought, what was used, what is left. A fold over
//! records; the books are only held against its outcome.

use std::collections::{BTreeMap, HashMap};

use jiff::{Timestamp, ToSpan};
use serde::Serialize;

use super::books::Books;
use super::calls::{Called, Calls, Fate, Item, KnownRun, Seen};
use crate::domain::command::Action;
use crate::domain::id::{AccountId, CommandId, Incarnation, OfferId, PackageId, ProductId};
use crate::domain::offer::Offer;
use crate::ports::journal::Record;
use crate::service::commands::Told;

/// How a command changes a balance.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A package is bought.
    Bought {
        /// Its id.
        package: PackageId,
        /// Its terms.
        offer: Offer,
        /// First moment of use; `None`: when it was bought.
        valid_from: Option<Timestamp>,
    },
    /// Units in suspense count as used.
    Decided {
        /// Of which package.
        package: PackageId,
        /// How many.
        units: u64,
    },
}

/// How a journalled command changes a balance; `None`: not at all.
pub fn effect(body: &str) -> Option<Effect> {
    let Told::Change(command) = serde_json::from_str(body).ok()? else { return None };
    match command.action {
        Action::AddPackage { package, offer, valid_from, .. } => Some(Effect::Bought { package, offer, valid_from }),
        Action::ResolveSuspense { package, units, used: true, .. } => {
            Some(Effect::Decided { package, units: units.get() })
        }
        Action::ResolveSuspense { used: false, .. }
        | Action::AddKey(_)
        | Action::ChangeKey(..)
        | Action::RotateKey(..)
        | Action::RevokeKey(_)
        | Action::LimitAccount(_)
        | Action::AddApp(_)
        | Action::ChangeApp(..) => None,
    }
}

/// The units that an operator's decision counts as used.
pub(super) fn decided_used(body: &str) -> Option<(PackageId, u64)> {
    match effect(body)? {
        Effect::Decided { package, units } => Some((package, units)),
        Effect::Bought { .. } => None,
    }
}

/// Where a package's terms come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Terms {
    /// The command that bought it is among the records.
    Command,
    /// The books: its purchase is older than the records.
    Books,
    /// Nobody knows: calls pay with it, and that is all.
    Unknown,
}

/// What the books say of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BookedBalance {
    /// Units bought.
    pub bought: u64,
    /// Units used.
    pub used: u64,
    /// Units left.
    pub remaining: u64,
}

/// A package's balance, recomputed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Whose.
    pub account: AccountId,
    /// Which package.
    pub package: PackageId,
    /// What it pays for, if known.
    pub product: Option<ProductId>,
    /// What was bought, if known.
    pub offer: Option<OfferId>,
    /// Where the terms come from.
    pub terms: Terms,
    /// Units bought.
    pub bought: u64,
    /// Its last second.
    pub valid_until: Option<Timestamp>,
    /// Calls that it paid.
    pub calls: u64,
    /// Units that these cost, and those that an operator decided to count.
    pub used: u64,
    /// Of these, by decision.
    pub decided: u64,
    /// Units that can still be used.
    pub remaining: u64,
    /// Nothing can be used of it any more.
    pub ended: bool,
    /// What the books say; `None`: they do not know it, or were not asked.
    pub booked: Option<BookedBalance>,
}

impl Balance {
    /// Whether the books say the same; `None` if they were not asked, so that nothing was compared. A package of which
    /// nobody knows a purchase agrees with nothing.
    pub fn agrees(&self, asked: bool) -> Option<bool> {
        let own = BookedBalance { bought: self.bought, used: self.used, remaining: self.remaining };
        match self.terms {
            Terms::Unknown => Some(false),
            Terms::Command | Terms::Books => asked.then_some(self.booked == Some(own)),
        }
    }
}

/// What was used of a package.
#[derive(Debug, Clone, Default)]
struct Used {
    product: Option<ProductId>,
    calls: u64,
    units: u64,
}

/// Commands by id, each once: when it was given and what it does. `None` inside: it does nothing, or was refused.
type Commands = BTreeMap<(AccountId, CommandId), Option<(Timestamp, Effect)>>;

/// The fold.
#[derive(Debug, Default)]
pub struct Replay {
    calls: Calls,
    commands: Commands,
    used: HashMap<AccountId, HashMap<PackageId, Used>>,
    /// Calls under way: they do not count yet.
    pub open: u64,
    /// Runs whose records are not all there.
    pub damaged: Vec<Incarnation>,
}

impl Replay {
    /// Takes in what there is to read of journals and exports.
    pub fn take(&mut self, item: Item) {
        let mut calls = std::mem::take(&mut self.calls);
        calls.take(item, &mut |_, run, seen| self.seen(run, seen));
        self.calls = calls;
    }

    /// Takes in a command that an export tells. The same id counts once.
    pub fn command(&mut self, account: AccountId, command: CommandId, at: Timestamp, body: &str) {
        let effect = || effect(body).map(|effect| (at, effect));
        self.commands.entry((account, command)).or_insert_with(effect);
    }

    fn seen(&mut self, run: &KnownRun, seen: Seen<'_>) {
        match seen {
            Seen::Call(_, called, Fate::Billed) => self.call(called),
            Seen::Call(_, _, Fate::Open) => self.open += 1,
            Seen::RunEnd(damage) if !damage.is_whole() => self.damaged.push(run.incarnation.clone()),
            Seen::Other(Record::Command(command)) => {
                self.command(command.account, command.command, command.at, &command.body);
            }
            Seen::Other(Record::Refused(refused)) => {
                self.commands.insert((refused.account, refused.command), None);
            }
            Seen::Call(_, _, Fate::Void)
            | Seen::Twice(..)
            | Seen::RunTwice
            | Seen::RunEnd(_)
            | Seen::Other(Record::Grant(_) | Record::Charge(_) | Record::End(_) | Record::Close | Record::Ask(_)) => {}
        }
    }

    fn call(&mut self, called: &Called) {
        if !self.used.contains_key(&called.account) {
            self.used.insert(called.account.clone(), HashMap::new());
        }
        let Some(of_account) = self.used.get_mut(&called.account) else { return };
        for part in &called.parts {
            if !of_account.contains_key(&part.package) {
                of_account.insert(part.package.clone(), Used::default());
            }
            let Some(used) = of_account.get_mut(&part.package) else { continue };
            used.calls += 1;
            used.units = used.units.saturating_add(part.units.get());
            used.product.get_or_insert_with(|| called.product.clone());
        }
    }

    /// Every package's balance at a moment. The books, if there are any, give the terms of packages that were bought
    /// before the records begin, and stand beside each balance.
    pub fn balances(self, books: Option<&Books>, now: Timestamp) -> Vec<Balance> {
        let mut balances: BTreeMap<(AccountId, PackageId), Balance> = BTreeMap::new();
        let mut decisions = Vec::new();
        for ((account, _), command) in self.commands {
            match command {
                Some((at, Effect::Bought { package, offer, valid_from })) => {
                    let key = (account, package);
                    balances.insert(key.clone(), bought(key, &offer, valid_from.unwrap_or(at)));
                }
                Some((_, Effect::Decided { package, units })) => decisions.push(((account, package), units)),
                None => {}
            }
        }
        for (key, booked) in books.map(|books| &books.packages).into_iter().flatten() {
            balances.entry(key.clone()).or_insert_with(|| Balance {
                product: Some(booked.product.clone()),
                offer: Some(booked.package.offer.clone()),
                terms: Terms::Books,
                bought: booked.package.total.get(),
                valid_until: Some(booked.package.valid_until),
                ..unknown(key.clone())
            });
        }
        for (account, packages) in self.used {
            for (package, used) in packages {
                let key = (account.clone(), package);
                let balance = balances.entry(key.clone()).or_insert_with(|| unknown(key));
                balance.calls = used.calls;
                balance.used = used.units;
                balance.product = balance.product.take().or(used.product);
            }
        }
        for (key, units) in decisions {
            let balance = balances.entry(key.clone()).or_insert_with(|| unknown(key));
            balance.used = balance.used.saturating_add(units);
            balance.decided = balance.decided.saturating_add(units);
        }
        let closed = |balance| close(balance, books, now);
        balances.into_values().map(closed).collect()
    }
}

fn unknown((account, package): (AccountId, PackageId)) -> Balance {
    Balance {
        account,
        package,
        product: None,
        offer: None,
        terms: Terms::Unknown,
        bought: 0,
        valid_until: None,
        calls: 0,
        used: 0,
        decided: 0,
        remaining: 0,
        ended: false,
        booked: None,
    }
}

fn bought(key: (AccountId, PackageId), offer: &Offer, from: Timestamp) -> Balance {
    Balance {
        product: Some(offer.product.clone()),
        offer: Some(offer.id.clone()),
        terms: Terms::Command,
        bought: offer.quantity.get(),
        valid_until: offer.validity.end(from, &offer.zone),
        ..unknown(key)
    }
}

/// What is left at a moment, and what the books say.
fn close(mut balance: Balance, books: Option<&Books>, now: Timestamp) -> Balance {
    // The last second counts to its end.
    let ends = balance.valid_until.map(|last| last.checked_add(1.second()).unwrap_or(Timestamp::MAX));
    let expired = ends.is_some_and(|ends| ends <= now);
    balance.remaining = if expired { 0 } else { balance.bought.saturating_sub(balance.used) };
    balance.ended = balance.remaining == 0;
    let key = (balance.account.clone(), balance.package.clone());
    balance.booked = books.and_then(|books| {
        let there = books.packages.get(&key)?;
        let used = there.used().saturating_add(books.unplaced.get(&key).copied().unwrap_or_default());
        // The documents let expired units go with the next change.
        let remaining = if expired { 0 } else { there.package.remaining().get() };
        Some(BookedBalance { bought: there.package.total.get(), used: used.get(), remaining })
    });
    balance
}
