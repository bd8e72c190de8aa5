//! One history: its gateways, its store, its clock, and what happens next.

use std::ops::AddAssign;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Safeguard;
use super::check_in::Applied;
use super::exchange::{Outcome, Parcel};
use super::faults::Host;
use super::rng::Rng;
use super::run::{Run, State};
use super::store::{Store, moment};
use super::truth::{Key, Sold, Truth};
use crate::domain::account::Account;
use crate::domain::allocation::Tags;
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::command::{Action, Command, KeyChange};
use crate::domain::id::{AccountId, CommandId, GatewayId, IdFault, KeyId, OfferId, PackageId, ProductId, ProjectId};
use crate::domain::key::{ApiKey, KeyHash};
use crate::domain::lease::Want;
use crate::domain::offer::{Offer, Validity};
use crate::ports::account_store::Stamp;

/// What a step shows: nothing, or what is wrong.
pub(super) type Checked = Result<(), String>;

/// The longest history, in steps.
const STEPS_MAX: u64 = 90;
/// One history in so many has faults that meet.
const DOUBLE_ONE_IN: u64 = 16;
/// A run with open calls reports at least this often, in milliseconds.
const REPORT_OPEN_EVERY: i64 = 10_000;
/// A run waits this long for an answer, in milliseconds.
const PATIENCE: i64 = 1_500;
/// Everybody who can has come to rest after so many rounds.
const ROUNDS_MAX: usize = 60;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps taken.
    pub steps_taken: u64,
    /// Calls admitted.
    pub calls: u64,
    /// Leases that came through.
    pub grants: u64,
    /// Commits that reached the store.
    pub commits: u64,
    /// Times that the store lost its tail.
    pub rollbacks: u64,
    /// Gateways killed.
    pub kills: u64,
    /// Journals that were lost, or their ends.
    pub losses: u64,
    /// Gateways cut off or stopped by a signal.
    pub cuts: u64,
    /// Clocks that stepped.
    pub steps: u64,
    /// Histories in which faults may meet.
    pub double: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.steps_taken += more.steps_taken;
        self.calls += more.calls;
        self.grants += more.grants;
        self.commits += more.commits;
        self.rollbacks += more.rollbacks;
        self.kills += more.kills;
        self.losses += more.losses;
        self.cuts += more.cuts;
        self.steps += more.steps;
        self.double += more.double;
    }
}

/// A history under way.
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) without: Option<Safeguard>,
    /// True time, and everyone's monotonic clock, in milliseconds.
    pub(super) now: i64,
    pub(super) account: AccountId,
    pub(super) products: Vec<ProductId>,
    pub(super) store: Store,
    pub(super) hosts: Vec<Host>,
    pub(super) runs: Vec<Run>,
    pub(super) parcels: Vec<Parcel>,
    pub(super) tokens: u64,
    /// How many messages in a hundred do not simply arrive.
    pub(super) trouble: u64,
    /// When a journal was lost last.
    pub(super) lost_at: i64,
    pub(super) truth: Truth,
    pub(super) counts: Counts,
    /// What happened, if anyone wants to read it.
    log: Option<Vec<String>>,
}

impl World {
    /// A history's beginning.
    pub(super) fn new(seed: u64, without: Option<Safeguard>, logged: bool) -> Result<Self, String> {
        let named = |fault: IdFault| fault.to_string();
        let mut rng = Rng::new(seed);
        let account = AccountId::new("a").map_err(named)?;
        let products = if rng.percent(30) { vec!["chat", "maps"] } else { vec!["chat"] };
        let products = products.into_iter().map(ProductId::new).collect::<Result<Vec<_>, _>>().map_err(named)?;
        let exact = rng.below(DOUBLE_ONE_IN) > 0;
        let head = Account::open(account.clone(), "A".into(), moment(0));
        let gateways = 1 + rng.below(4);
        let host = |number| Ok(Host { name: GatewayId::new(&format!("gw-{number}"))?, runs: 0, current: None });
        let mut world = Self {
            store: Store::new(head, products.len(), without),
            hosts: (0..gateways).map(host).collect::<Result<_, _>>().map_err(named)?,
            trouble: [0, 5, 20, 40][rng.index(4)],
            rng,
            without,
            now: 0,
            account,
            products,
            runs: Vec::new(),
            parcels: Vec::new(),
            tokens: 0,
            lost_at: i64::MIN,
            truth: Truth { exact, ..Truth::default() },
            counts: Counts { double: u64::from(!exact), ..Counts::default() },
            log: logged.then(Vec::new),
        };
        for host in 0..world.hosts.len() {
            world.start(host);
        }
        Ok(world)
    }

    /// Notes what happens.
    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9}.{:03} s  {}", now / 1_000, now % 1_000, what()));
        }
    }

    /// What was noted.
    pub(super) fn into_log(self) -> Vec<String> {
        self.log.unwrap_or_default()
    }

    /// A new name for a document's state.
    pub(super) fn stamp(&mut self, before: Option<Stamp>) -> Stamp {
        let random = if self.without == Some(Safeguard::Stamp) { 0 } else { self.rng.next() };
        Stamp::next(before, random)
    }

    /// Lives through the whole history.
    pub(super) fn live(&mut self) -> Checked {
        let run = 0;
        self.buy(run, true)?;
        let steps = 20 + self.rng.below(STEPS_MAX - 20);
        for _ in 0..steps {
            self.counts.steps_taken += 1;
            self.step()?;
        }
        self.come_to_rest()
    }

    fn step(&mut self) -> Checked {
        let host = self.rng.index(self.hosts.len());
        let Some(run) = self.pick(host) else {
            if self.rng.percent(40) {
                self.start(host);
            } else {
                self.pass(2_000)?;
            }
            return Ok(());
        };
        let product = self.rng.index(self.products.len());
        match self.rng.below(1_000) {
            0..240 => self.serve(run, product)?,
            240..340 => self.charge_some(run)?,
            340..440 => self.end_some(run)?,
            440..560 => self.ask(run, product)?,
            560..640 => {
                self.exchange(run, product, None)?;
            }
            640..700 => self.deliver()?,
            700..860 => {
                let long = [300, 1_200, 3_000, 35_000][self.rng.index(4)];
                self.pass(long)?;
            }
            860..890 => self.buy(run, false)?,
            890..905 => self.change_keys(run)?,
            905..912 => self.resolve(run)?,
            912..925 => self.recall(run, product)?,
            925..931 => self.recover(run)?,
            931..946 => self.kill(run)?,
            946..952 => self.stop(run)?,
            952..958 => self.start(host),
            958..970 => self.roll_back(),
            970..982 => {
                let frozen = self.rng.percent(50);
                self.cut(run, frozen);
            }
            982..990 => self.step_clock(),
            990..994 => self.lose_journal(run, false)?,
            994..997 => self.lose_journal(run, true)?,
            _ => self.pass_long()?,
        }
        self.work()
    }

    /// A run of a gateway that can act: mostly the newest.
    fn pick(&mut self, host: usize) -> Option<usize> {
        let here = |run: &usize| self.runs[*run].host == host && self.runs[*run].acts(self.now);
        let able: Vec<usize> = (0..self.runs.len()).filter(here).collect();
        if able.len() > 1 && self.rng.percent(30) { able.first().copied() } else { able.last().copied() }
    }

    /// What everyone does by itself: gives up waiting, checks in.
    fn work(&mut self) -> Checked {
        for run in 0..self.runs.len() {
            for product in 0..self.products.len() {
                self.give_up(run, product, PATIENCE);
            }
            if self.runs[run].progress.is_some() && self.rng.percent(80) {
                for _ in 0..=self.rng.below(10) {
                    self.advance(run)?;
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self, run: usize, product: usize) -> Checked {
        let calls = 1 + self.rng.below(6);
        let admitted = self.admit(run, product, calls)?;
        if admitted < calls {
            self.ask(run, product)?;
            self.admit(run, product, calls - admitted)?;
        }
        Ok(())
    }

    fn ask(&mut self, run: usize, product: usize) -> Checked {
        if self.runs[run].state != State::Serving {
            return Ok(());
        }
        let want = Want { now: Units::new(1 + self.rng.below(4)), rate: Units::new(self.rng.below(20)) };
        self.say(|| format!("run {run} asks for {want:?} of {product}"));
        self.exchange(run, product, Some(want)).map(drop)
    }

    fn charge_some(&mut self, run: usize) -> Checked {
        let calls = 1 + self.rng.index(6);
        self.charge(run, calls)
    }

    fn end_some(&mut self, run: usize) -> Checked {
        for _ in 0..=self.rng.below(5) {
            if self.runs[run].calls.is_empty() {
                break;
            }
            let (at, billed) = (self.rng.index(self.runs[run].calls.len()), self.rng.percent(85));
            self.end(run, at, billed)?;
        }
        Ok(())
    }

    /// Another gateway found nothing: a holder returns what it does not use.
    fn recall(&mut self, run: usize, product: usize) -> Checked {
        self.say(|| format!("run {run} returns what it holds of {product}"));
        self.runs[run].sides[product].leases.values_mut().for_each(|held| held.retired = true);
        self.exchange(run, product, None).map(drop)
    }

    /// Lets time pass; whoever has open calls reports of them meanwhile.
    fn pass(&mut self, long: i64) -> Checked {
        // While a fault is being mended nobody who can act waits: it takes a second or two.
        let long = if self.truth.exact && !self.calm_but_for_absent() { long.min(700) } else { long };
        let mut left = self.rng.between(1, long);
        self.say(|| format!("{left} ms pass"));
        while left > 0 {
            // Of a long time, only the last minute is lived through.
            let by = if left > 60_000 { left - 50_000 } else { left.min(REPORT_OPEN_EVERY) };
            left -= by;
            self.now += by;
            self.store.now(self.now);
            for run in 0..self.runs.len() {
                self.heartbeat(run);
                let open = |product: &usize| self.runs[run].calls.iter().any(|call| call.product == *product);
                let reported: Vec<usize> = (0..self.products.len()).filter(open).collect();
                for product in reported.into_iter().filter(|_| by == REPORT_OPEN_EVERY) {
                    self.give_up(run, product, PATIENCE);
                    self.exchange(run, product, None)?;
                }
            }
        }
        Ok(())
    }

    /// Hours pass, or a month: nobody is away for so long that its journal is not read, no message is under way and no
    /// rollback reaches back.
    fn pass_long(&mut self) -> Checked {
        if !self.truth.exact || !self.calm() {
            return Ok(());
        }
        self.parcels.clear();
        self.settle_all()?;
        self.store.forget_earlier();
        let long = if self.rng.percent(80) { 100_000_000 } else { 2_700_000_000 };
        self.pass(long)
    }

    fn command_of(&mut self, kind: &str, action: Action) -> Result<Command, String> {
        self.tokens += 1;
        let id = CommandId::new(&format!("{kind}-{}", self.tokens)).map_err(|fault| fault.to_string())?;
        Ok(Command { id, action })
    }

    /// Applies a command; its sender asks again, at any gateway, while it hears nothing.
    fn tell_command(&mut self, run: usize, command: &Command, product: usize) -> Result<bool, String> {
        let mut run = run;
        for _ in 0..=self.rng.below(3) {
            self.say(|| format!("run {run} is asked for {command:?}"));
            match self.command(run, command, product)? {
                Applied::Done => return Ok(true),
                Applied::Refused => return Ok(false),
                Applied::Unknown => {}
            }
            let host = self.rng.index(self.hosts.len());
            run = self.pick(host).unwrap_or(run);
        }
        Ok(false)
    }

    fn buy(&mut self, run: usize, first: bool) -> Checked {
        let number = self.truth.packages.len();
        let product = self.rng.index(self.products.len());
        let total = 1 + if self.rng.percent(30) { self.rng.below(4) } else { self.rng.below(60) };
        let id = PackageId::new(&format!("p-{number}")).map_err(|fault| fault.to_string())?;
        let offer = Offer {
            id: OfferId::new("o").map_err(|fault| fault.to_string())?,
            product: self.products[product].clone(),
            quantity: Units::new(total),
            validity: Validity::Days(u16::try_from(self.rng.below(3)).unwrap_or(0)),
            zone: TimeZone::UTC,
            billable: BillableStatuses::default(),
            price: None,
            for_apps: false,
        };
        // Said when it is asked for, so that it means the same whenever it is applied again.
        let later = if !first && self.rng.percent(15) { self.rng.between(1, 300_000) } else { 0 };
        let from = self.believed(run).checked_add(SignedDuration::from_millis(later)).unwrap_or(Timestamp::MAX);
        let valid_until = offer.validity.end(from, &offer.zone);
        let (project, tags, valid_from) = (ProjectId::default(), Tags::default(), Some(from));
        let action = Action::AddPackage { package: id.clone(), offer, valid_from, project, tags, spare_app: None };
        let command = self.command_of("buy", action)?;
        self.truth.packages.push(Sold {
            id,
            product,
            total,
            acknowledged: false,
            valid_until,
            taken: 0,
            received: 0,
            written: 0,
            lost: 0,
            declared_used: 0,
            put_back: 0,
        });
        self.truth.packages[number].acknowledged = self.tell_command(run, &command, product)?;
        Ok(())
    }

    fn change_keys(&mut self, run: usize) -> Checked {
        let known = self.truth.keys.len();
        if known == 0 || self.rng.percent(40) {
            let id = KeyId::new(&format!("k-{known}")).map_err(|fault| fault.to_string())?;
            let key = ApiKey::new(id.clone(), KeyHash([0; 32]), String::new(), moment(self.now));
            let command = self.command_of("key", Action::AddKey(key))?;
            self.truth.keys.push(Key { id, added: false, revoking: false, revoked: false });
            self.truth.keys[known].added = self.tell_command(run, &command, 0)?;
            return Ok(());
        }
        let at = self.rng.index(known);
        let id = self.truth.keys[at].id.clone();
        if self.rng.percent(50) {
            let change = KeyChange { disabled: Some(self.rng.percent(50)), ..KeyChange::default() };
            let command = self.command_of("change", Action::ChangeKey(id, change))?;
            self.tell_command(run, &command, 0)?;
            return Ok(());
        }
        let command = self.command_of("revoke", Action::RevokeKey(id))?;
        self.truth.keys[at].revoking = true;
        let revoked = self.tell_command(run, &command, 0)?;
        self.truth.keys[at].revoked |= revoked;
        Ok(())
    }

    /// An operator decides on units in suspense.
    fn resolve(&mut self, run: usize) -> Checked {
        let pools = self.store.disk.pools.iter().flatten();
        let packages = pools.flat_map(|doc| &doc.value.packages);
        let mut found = packages
            .filter(|package| !package.suspense.is_zero())
            .map(|package| (package.id.clone(), package.suspense));
        let Some((package, suspense)) = found.next_back() else { return Ok(()) };
        let units = 1 + self.rng.below(suspense.get());
        let used = self.rng.percent(60);
        let sold = self.truth.of(&package)?;
        if used {
            sold.declared_used += units;
        } else {
            sold.put_back += units;
        }
        let product = sold.product;
        let (name, units) = (self.products[product].clone(), Units::new(units));
        let command = self.command_of("resolve", Action::ResolveSuspense { product: name, package, units, used })?;
        self.tell_command(run, &command, product).map(drop)
    }

    /// Everyone reports and checks in until nothing is left to do.
    fn settle_all(&mut self) -> Checked {
        for host in 0..self.hosts.len() {
            if self.hosts[host].current.is_none() {
                self.start(host);
            }
        }
        for _ in 0..ROUNDS_MAX {
            for run in 0..self.runs.len() {
                self.heartbeat(run);
                for product in 0..self.products.len() {
                    self.give_up(run, product, PATIENCE);
                }
                self.advance(run)?;
                if self.runs[run].lives() && self.runs[run].progress.is_none() {
                    self.recover(run)?;
                }
            }
            self.now += 1_000;
            let over = |run: &Run| if run.lives() { run.progress.is_none() } else { run.settled || run.disk_lost };
            if self.runs.iter().all(over) {
                return Ok(());
            }
        }
        Err("stuck: a check-in or a recovery does not end".into())
    }

    /// Everything under way arrives, everything open ends, every journal is read, everything is returned.
    fn come_to_rest(&mut self) -> Checked {
        self.say(|| "everything comes to rest".into());
        for run in 0..self.runs.len() {
            (self.runs[run].cut_until, self.runs[run].frozen_until) = (0, 0);
        }
        self.drain()?;
        self.trouble = 0;
        while !self.parcels.is_empty() {
            self.deliver()?;
        }
        self.now += PATIENCE;
        self.work()?;
        self.settle_all()?;
        self.drain()?;
        for run in 0..self.runs.len() {
            self.charge(run, usize::MAX)?;
            while let Some(at) = self.runs[run].calls.len().checked_sub(1) {
                self.end(run, at, true)?;
            }
            for product in 0..self.products.len() {
                self.runs[run].sides[product].leases.values_mut().for_each(|held| held.retired = true);
                if self.runs[run].lives() && self.exchange(run, product, None)? == Outcome::Open {
                    return Err(format!("stuck: run {run} cannot report"));
                }
            }
        }
        let pools: Vec<_> = self.store.disk.pools.iter().flatten().map(|doc| doc.value.clone()).collect();
        self.say(|| format!("at rest: {pools:?}"));
        self.truth.check_rest(&self.store.disk)
    }

    /// Everyone sells what is to be had.
    fn drain(&mut self) -> Checked {
        for _ in 0..2 {
            for run in 0..self.runs.len() {
                for product in 0..self.products.len() {
                    if self.runs[run].connected(self.now) {
                        self.ask(run, product)?;
                        self.admit(run, product, 20)?;
                    }
                }
                self.charge(run, usize::MAX)?;
            }
        }
        Ok(())
    }
}
