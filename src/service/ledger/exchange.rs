//! One exchange of a pool with the store: reports what is used, asks for what is needed, and commits both at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::HeaderValue;
use jiff::Timestamp;

use super::recall::Recalled;
use super::{Entry, Known, Ledger, Memory};
use crate::domain::account::{Change, Sync, sync};
use crate::domain::amount::Units;
use crate::domain::budget::Used;
use crate::domain::event::Event;
use crate::domain::id::{Incarnation, PackageId};
use crate::domain::lease::{Lease, LeasePart, Want};
use crate::domain::package::Package;
use crate::domain::pool::{Pool, Shortage};
use crate::domain::settle::{LeaseReport, REPORT_OPEN_EVERY};
use crate::domain::usage::PackageTerms;
use crate::ports::account_store::{Commit, CommitError, Stamped, StoreError};
use crate::ports::journal::{Ask, Grant, JournalError, Record};
use crate::service::budgets::KeyUse;
use crate::service::desk::BUSY_WAIT;
use crate::service::supply::{DRY_BELIEVED, DRY_DOUBTED, Dry, Granted, LocalPool, PartTerms, Standing};

/// A commit that meets this many conflicts and turns of others in a row is left to the next exchange.
const COMMIT_ATTEMPTS_MAX: usize = 12;
/// Rates are measured over at least this long.
const RATE_WINDOW_MIN: Duration = Duration::from_millis(100);

/// That a run draws on a pool is written down again after this time: old files of the journal are removed one day, but
/// never one that is younger than a week.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// While several gateways draw on the budget of one key, each looks at all of the account's pools this often.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);

/// Why an exchange brought nothing.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(transparent)]
    Store(#[from] CommitError),
    #[error("the documents changed {COMMIT_ATTEMPTS_MAX} times meanwhile")]
    Contended,
}

impl From<StoreError> for ExchangeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl ExchangeError {
    fn is_want_of_room(&self) -> bool {
        matches!(self, Self::Store(CommitError::Store(StoreError::Full(_))))
    }

    fn concerns_one_account(&self) -> bool {
        matches!(self, Self::Store(CommitError::Store(StoreError::Broken { .. }) | CommitError::TooLarge { .. }))
    }
}

/// How an exchange went.
enum Outcome {
    /// Those who wait have supply, or a reason why there is none.
    Answer(Option<Dry>),
    /// The same, but somebody who holds units has not answered: nobody else is to be told so.
    Doubtful(Option<Dry>),
    /// The store gives no leases at the moment: those who wait go on waiting until it does.
    Later,
}

/// How a commit went.
enum Committed {
    /// This is the document now.
    Done(Pool),
    /// There was nothing to write: this is the document as last seen.
    Unchanged(Pool),
    /// Nothing was written: try again, with what is known now.
    Again,
    /// The same, and the store gives no leases at the moment.
    Shut,
}

/// What one attempt sends.
struct Round {
    sync: Sync,
    /// How many of the reports are of leases at hand; behind them, of those that the store has forgotten.
    own: usize,
    now: Timestamp,
    turn: bool,
}

impl Ledger {
    /// Returns whether the store took everything that it can take: a document that is broken is its account's business.
    pub(super) async fn exchange(&self, entry: &Arc<Entry>) -> bool {
        let pool = &entry.pool;
        let mut memory = entry.memory.lock().await;
        match self.try_exchange(pool, &mut memory).await {
            Ok(Outcome::Answer(dry)) => pool.answer(dry, DRY_BELIEVED),
            Ok(Outcome::Doubtful(dry)) => pool.answer(dry, DRY_DOUBTED),
            Ok(Outcome::Later) => {}
            Err(error) => {
                memory.known = None;
                pool.note_news();
                self.parts.metrics.commits.failed.inc();
                self.note_store_failure();
                if error.is_want_of_room() {
                    self.note_room(false);
                }
                tracing::warn!(account = %pool.account, product = %pool.product, %error, "the store did not take a report");
                pool.answer(Some(Dry::Unavailable), DRY_BELIEVED);
                return error.concerns_one_account();
            }
        }
        true
    }

    async fn try_exchange(&self, pool: &LocalPool, memory: &mut Memory) -> Result<Outcome, ExchangeError> {
        let asked = Instant::now();
        memory.exchanged_at = Some(asked);
        let wants = pool.begin_sync(asked) || pool.waiting() > 0;
        let want = want(pool, memory, asked);
        if self.should_look_around(pool, memory, asked) {
            memory.known = None;
        }
        let (mut turn, mut recalled) = (false, Recalled::default());
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let Some((known, fresh)) = self.known(pool, memory).await? else {
                pool.accept(None, &[], Standing { base: 0, expires: None });
                pool.note_news(); // what is used is still to be told
                if !self.is_open() {
                    return Ok(Outcome::Later); // the account may come back with the check-in
                }
                return Ok(Outcome::Answer(Some(Dry::Short(Shortage::NoPackage))));
            };
            let grants = wants && self.is_open();
            if grants && memory.asked_at.is_none_or(|at| asked.duration_since(at) >= ASK_AGAIN_AFTER) {
                if self.write(&ask(pool)).is_err() {
                    return Ok(Outcome::Answer(Some(Dry::Unavailable)));
                }
                memory.asked_at = Some(asked);
            }
            let round = self.round(pool, memory, &known.pool.value, (grants.then_some(want), turn));
            let (change, lease) = sync(&known.pool.value, &round.sync, round.now);
            let (next, current) = match self.commit(pool, (known, change, lease.is_some()), &round, memory).await? {
                Committed::Done(next) => (next, true),
                Committed::Unchanged(next) => (next, fresh),
                Committed::Again => {
                    turn = true;
                    continue;
                }
                Committed::Shut => {
                    self.raise_alarm();
                    continue;
                }
            };
            if next.is_finished(&self.parts.desk.by) {
                self.supersede();
                return Ok(Outcome::Answer(Some(Dry::Unavailable)));
            }
            // What an earlier run held may not be booked yet: then its pool comes first, and whoever waits is served after.
            let key = || (pool.account.clone(), pool.product.clone());
            let later = grants && lease.is_none() && self.parts.unbooked.want(&key());
            if grants && lease.is_none() && !later && (!current || self.recall(pool, &next, &mut recalled).await) {
                memory.known = None; // others have written meanwhile
                continue;
            }
            let dry = self.take_in(pool, memory, &round, (lease, &next, asked));
            let dry = dry.filter(|_| wants);
            return Ok(match (later || wants && !grants, recalled.is_doubtful()) {
                (true, _) => Outcome::Later,
                (false, true) => Outcome::Doubtful(dry),
                (false, false) => Outcome::Answer(dry),
            });
        }
        Err(ExchangeError::Contended)
    }

    /// What is to be sent now.
    fn round(&self, pool: &LocalPool, memory: &Memory, known: &Pool, (want, turn): (Option<Want>, bool)) -> Round {
        let (incarnation, now) = (self.parts.desk.by.clone(), self.parts.desk.now());
        let mut reports = pool.reports();
        reports.extend(memory.burnt.iter().map(|number| LeaseReport::unused(*number, now)));
        let own = reports.len();
        reports.extend(memory.closed.forgotten_by(known, &incarnation));
        let grant = want.map(|want| (memory.last_number.saturating_add(1), want));
        Round { sync: Sync { incarnation, reports, ended: None, grant }, own, now, turn }
    }

    /// Takes in what the store has acknowledged; returns why there is no supply, if there is none.
    fn take_in(
        &self,
        pool: &LocalPool,
        memory: &mut Memory,
        round: &Round,
        (lease, next, asked): (Option<Lease>, &Pool, Instant),
    ) -> Option<Dry> {
        let reports = round.sync.reports.get(..round.own).unwrap_or_default();
        memory.burnt.clear();
        memory.closed.note(reports);
        memory.see_closed(next, &self.parts.desk.by);
        let number = memory.last_number.saturating_add(1);
        let granted = lease.as_ref().and_then(|lease| {
            memory.last_number = number;
            // What cannot be written down is not used: it is reported as such next time.
            let written = self.write(&grant_record(pool, number, lease, next));
            let admits_until = asked + Duration::try_from(next.lasts(lease)).unwrap_or_default();
            written.map(|()| granted(number, lease, next, admits_until)).map_err(|_| memory.burnt.push(number)).ok()
        });
        let dry = match (&lease, &granted) {
            (None, _) => Some(Dry::Short(next.shortage(next.time_high))),
            (Some(_), None) => Some(Dry::Unavailable),
            (Some(_), Some(_)) => None,
        };
        let suspense: Units = next.packages.iter().map(|package| package.suspense).sum();
        self.note_suspense(&pool.account, &pool.product, suspense.get());
        let looked = (memory.looked_at >= Some(asked)).then_some(next.time_high);
        acknowledge(pool, reports, next, looked);
        pool.accept(granted, reports, standing(next, pool, reports, memory));
        dry
    }

    /// Whether all of the account's pools should be looked at: a key's budget is for all of them, and other gateways may
    /// draw on those that this one does not.
    fn should_look_around(&self, pool: &LocalPool, memory: &Memory, now: Instant) -> bool {
        let lately = memory.looked_at.is_some_and(|at| now.duration_since(at) < LOOK_AROUND_EVERY);
        let wanted =
            |budgets: &[Arc<KeyUse>]| !budgets.is_empty() && (!lately || budgets.iter().any(|of| of.wants_look()));
        self.parts.desk.fleet.gateways().get() > 1 && wanted(&pool.budgets())
    }

    /// The pool's document as last seen, else as the store has it, and whether it was just loaded; `None` if there is
    /// none.
    async fn known(&self, pool: &LocalPool, memory: &mut Memory) -> Result<Option<(Known, bool)>, StoreError> {
        if let Some(known) = memory.known.clone() {
            return Ok(Some((known, false)));
        }
        let asked = Instant::now();
        let loaded = self.parts.desk.load(&pool.account).await?;
        memory.looked_at = Some(asked);
        for of in pool.budgets() {
            loaded.iter().flat_map(|loaded| loaded.pools.values()).for_each(|pool| of.see(&pool.value));
        }
        memory.known = loaded.and_then(|loaded| Known::of(&pool.product, loaded));
        if memory.look_for_loss(&self.parts.desk.by) {
            self.parts.metrics.ledger.rollbacks.inc();
            self.raise_alarm();
            tracing::warn!(account = %pool.account, product = %pool.product, loss = ?memory.loss, "the store has forgotten what it had acknowledged");
        }
        Ok(memory.known.clone().map(|known| (known, true)))
    }

    /// Commits if anything changed that is worth it.
    async fn commit(
        &self,
        pool: &LocalPool,
        (known, change, grants): (Known, Change, bool),
        round: &Round,
        memory: &mut Memory,
    ) -> Result<Committed, ExchangeError> {
        let Known { pool: seen, server } = known;
        let Some(next) = change.pool else { return Ok(Committed::Unchanged(seen.value)) };
        if nothing_new(&seen.value, &next, &self.parts.desk.by) {
            return Ok(Committed::Unchanged(seen.value));
        }
        let desk = &self.parts.desk;
        let write = desk.write(Some(seen.stamp), next.clone());
        let stamp = write.stamp;
        self.count_overrun(&change.events);
        let commit = Commit {
            account: pool.account.clone(),
            head: None,
            pool: Some(write),
            ended: change.ended,
            events: change.events,
            durable: false,
            believed: desk.believed(Some(&server)),
            grants,
            by: desk.by.clone(),
            turn: round.turn,
        };
        let answer = desk.commit(commit).await;
        if grants && may_be_written_yet(&answer) {
            // The number is used up, and reported empty next time: else nobody would close the lease.
            memory.last_number = memory.last_number.saturating_add(1);
            memory.burnt.push(memory.last_number);
        }
        match answer {
            Ok(()) => {
                self.parts.metrics.commits.done.inc();
                self.note_room(true);
                memory.known = Some(Known { pool: Stamped { stamp, value: next.clone() }, server });
                memory.witness(stamp);
                Ok(Committed::Done(next))
            }
            Err(CommitError::Conflict(current)) => {
                self.parts.metrics.commits.conflict.inc();
                memory.known = current.and_then(|current| Known::of(&pool.product, *current));
                Ok(Committed::Again)
            }
            Err(CommitError::TimeOff(_)) => Ok(Committed::Again),
            Err(CommitError::Busy) => {
                tokio::time::sleep(BUSY_WAIT).await;
                Ok(Committed::Again)
            }
            Err(CommitError::Stranger(_)) => {
                memory.known = None;
                Ok(Committed::Shut)
            }
            Err(CommitError::Closed) => Ok(Committed::Shut),
            Err(error) => Err(error.into()),
        }
    }

    fn count_overrun(&self, events: &[Event]) {
        if events.iter().any(|event| matches!(event, Event::Overrun { .. })) {
            self.parts.metrics.ledger.overruns.inc();
        }
    }

    fn write(&self, record: &Record) -> Result<(), JournalError> {
        let written = self.parts.grants.append(record).map(|_| ());
        written.inspect_err(|error| tracing::warn!(%error, "no lease is used, for it cannot be written down"))
    }

    /// Another process has booked this run's journal, believing it dead: what is leased here may be sold again.
    fn supersede(&self) {
        if !self.superseded.swap(true, Ordering::Relaxed) {
            tracing::error!(run = %self.parts.desk.by, "another process has taken this run's place; nothing is sold here any more: stop this one");
        }
        for entry in &self.pools {
            entry.pool.retire();
        }
    }
}

/// Tells the keys with a budget how much of their use is in the books. As in [`standing`], a closed lease is
/// acknowledged once, an open one as far as it was reported.
fn acknowledge(pool: &LocalPool, reports: &[LeaseReport], document: &Pool, looked: Option<Timestamp>) {
    for of in pool.budgets() {
        let (mut closed, mut open) = (Used::default(), Used::default());
        for report in reports {
            let is_open = report.parts.iter().any(|part| !part.outstanding().is_zero());
            let used = report.spent.get(&of.key).copied().unwrap_or_default();
            if is_open { open.put(used) } else { closed.put(used) }
        }
        of.acknowledge(document, (closed, open), looked);
    }
}

/// Whether a commit that is not known to be written may have been, or may be later, by a copy that is still under way: the
/// store that is closed may open meanwhile, the turn of another end, the time come right. A conflict and another server
/// stay what they are.
fn may_be_written_yet(answer: &Result<(), CommitError>) -> bool {
    match answer {
        Ok(()) | Err(CommitError::Conflict(_) | CommitError::Stranger(_)) => false,
        Err(_) => true,
    }
}

/// Whether nothing has changed but the time, or only that this gateway is heard of, which is not due yet.
fn nothing_new(seen: &Pool, next: &Pool, by: &Incarnation) -> bool {
    let heard = |pool: &Pool| pool.held.get(by).map(|held| held.reported_at);
    let (Some(before), Some(after)) = (heard(seen), heard(next)) else {
        return Pool { time_high: seen.time_high, ..next.clone() } == *seen;
    };
    if after.duration_since(before) >= REPORT_OPEN_EVERY {
        return false;
    }
    let mut same = Pool { time_high: seen.time_high, ..next.clone() };
    if let Some(held) = same.held.get_mut(by) {
        held.reported_at = before;
    }
    same == *seen
}

/// A lease with what its packages say: calls that draw on it need not repeat it.
fn grant_record(pool: &LocalPool, number: u64, lease: &Lease, document: &Pool) -> Record {
    let (account, product) = (pool.account.clone(), pool.product.clone());
    let drawn = |package: &&Package| lease.parts.iter().any(|part| part.package == package.id);
    let terms = document.packages.iter().filter(drawn).map(PackageTerms::of).collect();
    Record::Grant(Grant { account, product, number, parts: lease.parts.clone(), deadline: lease.deadline, terms })
}

/// A lease with the terms of the packages that it draws on.
fn granted(number: u64, lease: &Lease, document: &Pool, admits_until: Instant) -> Granted {
    let terms = |id: &PackageId| document.packages.iter().find(|package| package.id == *id);
    let with_terms = |part: &LeasePart| {
        let terms = terms(&part.package)
            .map(|package| PartTerms { billable: package.billable.clone(), unit_worth: package.unit_worth() });
        (part.clone(), terms.unwrap_or_default())
    };
    let parts = lease.parts.iter().map(with_terms).collect();
    Granted { number, parts, deadline: lease.deadline, admits_until }
}

/// Says, before a lease is asked for, that this run draws on the pool.
fn ask(pool: &LocalPool) -> Record {
    Record::Ask(Ask { account: pool.account.clone(), product: pool.product.clone() })
}

/// What a pool needs: what waits, and what the last second drew.
fn want(pool: &LocalPool, memory: &mut Memory, now: Instant) -> Want {
    let drawn = pool.drawn();
    let waiting = pool.waiting();
    let (since, before) = memory.measured.unwrap_or((now, drawn));
    let elapsed = now.duration_since(since).max(RATE_WINDOW_MIN);
    let per_second = u128::from(drawn.saturating_sub(before)) * 1_000 / elapsed.as_millis().max(1);
    memory.measured = Some((now, drawn));
    Want { now: Units::new(waiting), rate: Units::new(u64::try_from(per_second).unwrap_or(u64::MAX)) }
}

/// How a pool stands after a commit. `base` does not move when use is booked: the documents lose what `booked` gains. The
/// pool counts all that is charged against it, also to calls whose package has ended meanwhile: that much it gains.
fn standing(document: &Pool, pool: &LocalPool, reports: &[LeaseReport], memory: &mut Memory) -> Standing {
    let now = document.time_high;
    let used = |report: &LeaseReport| report.parts.iter().map(|part| part.used.get()).sum::<u64>();
    let open = |report: &&LeaseReport| report.parts.iter().any(|part| !part.outstanding().is_zero());
    let in_open: u64 = reports.iter().filter(open).map(used).sum();
    let closed: u64 = reports.iter().map(used).sum::<u64>().saturating_sub(in_open);
    memory.booked = memory.booked.saturating_add(closed);
    let booked = memory.booked.saturating_add(in_open);
    let open = pool.open_charges(reports);
    let past_end = document.past_end(open.iter().map(|(id, units)| (id, *units)), now);
    let base = document.remaining(now).get().saturating_add(booked).saturating_add(past_end.get());
    let expires = document.next_expiry(now).and_then(|expires| HeaderValue::try_from(expires.to_string()).ok());
    Standing { base: i64::try_from(base).unwrap_or(i64::MAX), expires }
}
