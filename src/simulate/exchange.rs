//! What a gateway does with the store for one pool: reports, and asks for a lease. The glue here mirrors
//! `service::ledger`; what the documents become is decided by the same pure functions.

use std::sync::Arc;

use jiff::Timestamp;

use super::run::Held;
use super::store::{Answer, Commit, Disk, Doc, TIME_OFF_MAX, Write, millis, moment};
use super::world::{Checked, World};
use super::{Safeguard, run};
use crate::domain::account::{Sync, sync};
use crate::domain::amount::Units;
use crate::domain::lease::{HeldLeases, LEASE_DURATION_MAX, Lease, Want};
use crate::domain::pool::Pool;
use crate::domain::settle::LeaseReport;
use crate::ports::account_store::Stamp;
use crate::ports::journal::{Ask, Grant, Record};

/// A commit that meets this many conflicts in a row is left to the next exchange.
const ATTEMPTS_MAX: usize = 4;

/// What becomes of a message to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives and is answered.
    Answered,
    /// It never arrives.
    Lost,
    /// It arrives; the answer does not.
    ReplyLost,
    /// It arrives twice at once; the second answer is the one that is heard.
    Twice,
    /// It arrives, is answered, and arrives once more later.
    Repeated,
    /// It arrives later, perhaps after its sender gave up.
    Slow,
}

/// What a commit meant to its sender.
#[derive(Debug)]
pub(super) struct Sent {
    stamp: Stamp,
    next: Arc<Pool>,
    grant: Option<(u64, Option<Lease>)>,
    reports: Vec<LeaseReport>,
    asked_at: i64,
}

/// A commit that awaits its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) token: u64,
    pub(super) sent: Sent,
}

/// A message that is under way.
pub(super) struct Parcel {
    commit: Commit,
    /// Who awaits the answer: run, product, token.
    reply_to: Option<(usize, usize, u64)>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The store has all that was said.
    Told,
    /// There is no such pool.
    NoPool,
    /// Not told, or nobody knows.
    Open,
    /// A conflict: the same again with the current document.
    Again,
}

impl World {
    /// What happens to the next message of a run.
    pub(super) fn fate(&mut self) -> Fate {
        if !self.rng.percent(self.trouble) {
            return Fate::Answered;
        }
        match self.rng.below(5) {
            0 => Fate::Lost,
            1 => Fate::ReplyLost,
            2 => Fate::Twice,
            3 => Fate::Repeated,
            _ => Fate::Slow,
        }
    }

    /// A run's idea of the store's time.
    pub(super) fn believed(&self, run: usize) -> Timestamp {
        let run = &self.runs[run];
        let off = if self.without == Some(Safeguard::Clock) { run.clock_off } else { run.offset };
        moment(self.now + off)
    }

    /// Lets a commit arrive at the store, and checks the books if it was written.
    pub(super) fn arrive(&mut self, commit: &Commit) -> Result<Answer, String> {
        let answer = self.store.commit(commit, self.now);
        self.counts.commits += 1;
        if let (Answer::Done, Some((_, write))) = (&answer, &commit.pool) {
            self.truth.check_pool(&write.value, self.store.time_high, self.store.open)?;
        }
        self.say(|| format!("        store: {}", tell(&answer)));
        Ok(answer)
    }

    /// Reads all documents. Nothing if the store cannot be reached, or is another than the run believes.
    pub(super) fn load(&mut self, run: usize) -> Option<Disk> {
        if !self.runs[run].connected(self.now) || self.rng.percent(self.trouble / 4) {
            return None;
        }
        if self.runs[run].server != self.store.server {
            self.meet(run);
            return None;
        }
        self.runs[run].offset = self.store.now(self.now) - self.now;
        Some(self.store.disk.clone())
    }

    /// Reports what a run knows of a pool, and asks for a lease if it wants one.
    pub(super) fn exchange(&mut self, run: usize, product: usize, want: Option<Want>) -> Result<Outcome, String> {
        if self.runs[run].sides[product].pending.is_some() || !self.runs[run].connected(self.now) {
            return Ok(Outcome::Open);
        }
        let may_ask = self.runs[run].checked_in == Some(self.runs[run].server);
        let want = want.filter(|_| may_ask || self.without == Some(Safeguard::CheckIn));
        for _ in 0..ATTEMPTS_MAX {
            if self.runs[run].sides[product].known.is_none() {
                let Some(disk) = self.load(run) else { return Ok(Outcome::Open) };
                let there = disk.pools[product].clone();
                self.runs[run].sides[product].known = there.or_else(|| self.forgotten(run, product));
            }
            let Some(known) = self.runs[run].sides[product].known.clone() else { return Ok(Outcome::NoPool) };
            let (commit, sent) = self.compose(run, product, &known, want);
            let Some(commit) = commit else {
                self.accept(run, product, known.stamp, sent)?;
                return Ok(Outcome::Told);
            };
            let outcome = self.send(run, product, commit, sent)?;
            if outcome != Outcome::Again {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Open)
    }

    /// A document for a pool that the store does not have, though this run holds leases of it: the store forgot it.
    fn forgotten(&self, run: usize, product: usize) -> Option<Doc<Pool>> {
        let new = || Arc::new(Pool::new(self.account.clone(), self.products[product].clone()));
        let used = !self.runs[run].sides[product].leases.is_empty();
        used.then(|| Doc { stamp: None, value: new() })
    }

    fn compose(&mut self, run: usize, product: usize, known: &Doc<Pool>, want: Option<Want>) -> (Option<Commit>, Sent) {
        let (now, believed, stamp) = (self.now, self.believed(run), self.stamp(known.stamp));
        let name = self.products[product].clone();
        let account = self.account.clone();
        let this = &mut self.runs[run];
        let side = &mut this.sides[product];
        side.retire(now);
        if want.is_some() && !side.asked {
            side.asked = true;
            this.records.push(Record::Ask(Ask { account, product: name }));
        }
        let mut reports = side.reports(&known.value, &this.incarnation, now);
        if self.without == Some(Safeguard::Counters) {
            as_deltas(&mut reports, side, known.value.held.get(&this.incarnation));
        }
        let number = this.sides[product].last_number + 1;
        let grant = want.map(|want| (number, want));
        let asked_for = Sync { incarnation: this.incarnation.clone(), reports, ended: None, grant };
        let (change, lease) = sync(&known.value, &asked_for, believed);
        let next = change.pool.map_or_else(|| Arc::clone(&known.value), Arc::new);
        let there = known.value.held.get(&this.incarnation).is_some_and(|held| held.leases.contains_key(&number));
        let units = |lease: &Lease| lease.parts.iter().map(|part| part.granted.get()).sum();
        let grants = lease.as_ref().filter(|_| !there).map_or(0, units);
        let (head, server) = (None, this.server);
        let same = next.packages == known.value.packages && next.held == known.value.held;
        let sent = Sent {
            stamp,
            next: Arc::clone(&next),
            grant: grant.map(|_| (number, lease)),
            reports: asked_for.reports,
            asked_at: now,
        };
        let write = Write { expected: known.stamp, stamp, value: next };
        let (pool, ended, events) = (Some((product, write)), change.ended, change.events);
        let commit = Commit { head, pool, ended, events, now: believed, server, grants };
        ((!same).then_some(commit), sent)
    }

    fn send(&mut self, run: usize, product: usize, commit: Commit, sent: Sent) -> Result<Outcome, String> {
        let fate = self.fate();
        self.say(|| format!("        sends {} reports, asks {:?}: {fate:?}", sent.reports.len(), sent.grant));
        match fate {
            Fate::Answered => {
                let answer = self.arrive(&commit)?;
                self.hear(run, product, sent, answer)
            }
            Fate::Lost => Ok(self.unknown(run, product, &sent)),
            Fate::ReplyLost => {
                self.arrive(&commit)?;
                Ok(self.unknown(run, product, &sent))
            }
            Fate::Twice => {
                self.arrive(&commit)?;
                let answer = self.arrive(&commit)?;
                self.hear(run, product, sent, answer)
            }
            Fate::Repeated => {
                let answer = self.arrive(&commit)?;
                self.parcels.push(Parcel { commit, reply_to: None });
                self.hear(run, product, sent, answer)
            }
            Fate::Slow => {
                self.tokens += 1;
                let token = self.tokens;
                self.parcels.push(Parcel { commit, reply_to: Some((run, product, token)) });
                self.runs[run].sides[product].pending = Some(Pending { token, sent });
                Ok(Outcome::Open)
            }
        }
    }

    /// Lets one of the messages under way arrive.
    pub(super) fn deliver(&mut self) -> Checked {
        if self.parcels.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.parcels.len());
        let Parcel { commit, reply_to } = self.parcels.swap_remove(index);
        self.say(|| format!("a message of before arrives, for {reply_to:?}"));
        let answer = self.arrive(&commit)?;
        let Some((run, product, token)) = reply_to else { return Ok(()) };
        if !self.runs[run].acts(self.now) || self.rng.percent(self.trouble / 2) {
            return Ok(());
        }
        let pending = &mut self.runs[run].sides[product].pending;
        if let Some(Pending { sent, .. }) = pending.take_if(|pending| pending.token == token) {
            self.hear(run, product, sent, answer)?;
        }
        Ok(())
    }

    /// A run gives up waiting for an answer.
    pub(super) fn give_up(&mut self, run: usize, product: usize, patience: i64) {
        let now = self.now;
        let pending = &mut self.runs[run].sides[product].pending;
        if let Some(Pending { sent, .. }) = pending.take_if(|pending| now - pending.sent.asked_at >= patience) {
            self.unknown(run, product, &sent);
        }
    }

    /// Whether a commit happened is unknown: the number of its lease is reported empty if nothing comes of it.
    fn unknown(&mut self, run: usize, product: usize, sent: &Sent) -> Outcome {
        let side = &mut self.runs[run].sides[product];
        side.known = None;
        if let Some((number, _)) = sent.grant {
            side.last_number = number;
        }
        Outcome::Open
    }

    fn hear(&mut self, run: usize, product: usize, sent: Sent, answer: Answer) -> Result<Outcome, String> {
        match answer {
            Answer::Done => self.accept(run, product, Some(sent.stamp), sent),
            Answer::Conflict(disk) => {
                let current = disk.pools[product].clone();
                // A conflict whose current stamp is the one just sent was a success.
                if current.as_ref().is_some_and(|doc| doc.stamp == Some(sent.stamp)) {
                    return self.accept(run, product, Some(sent.stamp), sent);
                }
                self.runs[run].sides[product].known = current;
                Ok(Outcome::Again)
            }
            Answer::Stranger => {
                self.meet(run);
                Ok(Outcome::Open)
            }
            // A copy may still be under way, and arrive when leases are given again: the number is not used again.
            Answer::Closed => Ok(self.unknown(run, product, &sent)),
            Answer::TimeOff(here) => {
                self.runs[run].offset = here - self.now;
                Ok(Outcome::Again)
            }
        }
    }

    fn accept(&mut self, run: usize, product: usize, stamp: Option<Stamp>, sent: Sent) -> Result<Outcome, String> {
        let (account, name) = (self.account.clone(), self.products[product].clone());
        let (here, now) = (self.store.now(self.now), self.now);
        let side = &mut self.runs[run].sides[product];
        for report in &sent.reports {
            let Some(held) = side.leases.get_mut(&report.number) else { continue };
            for (part, said) in held.parts.iter_mut().zip(&report.parts) {
                (part.told_used, part.told_returned) = (part.used.min(said.used.get()), said.returned.get());
            }
        }
        if let Some((number, Some(lease))) = sent.grant {
            side.last_number = number;
            let lasts = i64::try_from(sent.next.lasts(&lease).as_millis()).unwrap_or(i64::MAX);
            if i128::from(lasts) > LEASE_DURATION_MAX.as_millis() {
                return Err(format!("oversold: lease {number} lasts {lasts} ms"));
            }
            let ends = |package: &run::HeldPart| {
                let there = sent.next.packages.iter().find(|there| there.id == package.package);
                there.map_or(i64::MIN, |there| millis(there.expires_at()) - here + now + TIME_OFF_MAX)
            };
            let mut held = Held::new(&lease, sent.asked_at + lasts, Vec::new());
            held.lawful_until = held.parts.iter().map(ends).collect();
            side.leases.insert(number, held);
            let (parts, deadline) = (lease.parts, lease.deadline);
            let terms = Vec::new(); // they explain, and no balance depends on them
            let grant = Grant { account, product: name, number, parts, deadline, terms };
            self.runs[run].records.push(Record::Grant(grant));
            self.counts.grants += 1;
        }
        self.runs[run].sides[product].known = Some(Doc { stamp, value: sent.next });
        Ok(Outcome::Told)
    }
}

/// Without counters: a report says how much more was used since the last answer, and the document adds it.
fn as_deltas(reports: &mut [LeaseReport], side: &run::Side, booked: Option<&HeldLeases>) {
    for report in reports {
        let Some(held) = side.leases.get(&report.number) else { continue };
        let lease = booked.and_then(|booked| booked.leases.get(&report.number));
        for (part, told) in report.parts.iter_mut().zip(&held.parts) {
            let there = lease.and_then(|lease| lease.parts.iter().find(|there| there.package == part.package));
            let (used, returned) = there.map_or((0, 0), |there| (there.used.get(), there.returned.get()));
            part.used = Units::new(used + (told.used - told.told_used));
            part.returned = Units::new(returned + part.returned.get().saturating_sub(told.told_returned));
        }
    }
}

fn tell(answer: &Answer) -> &'static str {
    match answer {
        Answer::Done => "written",
        Answer::Conflict(_) => "conflict",
        Answer::Stranger => "another server than you believe",
        Answer::Closed => "no leases before all have checked in",
        Answer::TimeOff(_) => "your idea of my time is wrong",
    }
}
