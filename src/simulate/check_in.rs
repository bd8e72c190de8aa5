//! What a gateway does when it meets a server that it does not know, and at its start: applies its commands again,
//! reports its leases and those of its earlier runs again, then says so. And how it applies a command.

use std::sync::Arc;

use super::Safeguard;
use super::exchange::{Fate, Outcome};
use super::run::{Journalled, State};
use super::store::{Answer, Commit, Disk, Doc, Write};
use super::world::{Checked, World};
use crate::domain::account::{Books, Change, Sync, apply, sync};
use crate::domain::command::Command;
use crate::domain::pool::Pool;
use crate::service::tally::Tally;

/// A command that meets this many conflicts in a row is left.
const ATTEMPTS_MAX: usize = 4;

/// What is older is neither applied nor reported again, in milliseconds.
const REPAIRED_FOR: i64 = 7 * 24 * 3_600_000;

/// How far a check-in has come.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    phase: Phase,
    /// The next thing of the phase.
    next: usize,
    /// Commands that were refused: what they need may come with the reports.
    refused: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Server,
    Commands,
    Pools,
    Earlier,
    Refused,
    Tell,
    /// All have applied their commands again: what was refused may find now what it needs.
    Last,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Server, next: 0, refused: Vec::new() }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.next) = (phase, 0);
    }
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    Done,
    Refused,
    /// Nobody knows, or the store was not reached.
    Unknown,
}

impl World {
    /// A run learns that another server is there than it believed: nothing that it knows of documents holds any more.
    pub(super) fn meet(&mut self, run: usize) {
        self.say(|| format!("        run {run} meets another server"));
        for product in 0..self.products.len() {
            self.give_up(run, product, 0);
            self.runs[run].sides[product].known = None;
        }
        self.runs[run].progress = Some(Progress::new());
    }

    /// The next step of a run's check-in.
    pub(super) fn advance(&mut self, run: usize) -> Checked {
        if !self.runs[run].connected(self.now) {
            return Ok(());
        }
        let Some(mut progress) = self.runs[run].progress.take() else { return Ok(()) };
        let done = match progress.phase {
            Phase::Server => {
                self.runs[run].server = self.store.server;
                self.runs[run].offset = self.store.now(self.now) - self.now;
                progress.enter(Phase::Commands);
                false
            }
            Phase::Commands => self.resend_command(run, &mut progress)?,
            Phase::Pools => self.resend_pool(run, &mut progress)?,
            Phase::Earlier => self.resend_earlier(run, &mut progress)?,
            Phase::Refused => self.retry_refused(run, &mut progress)?,
            Phase::Tell => {
                if self.tell(run) {
                    progress.enter(Phase::Last);
                }
                false
            }
            Phase::Last => self.retry_last(run, &mut progress)?,
        };
        // Unless another server was met on the way, which begins it anew.
        if !done && self.runs[run].progress.is_none() {
            self.runs[run].progress = Some(progress);
        }
        Ok(())
    }

    fn resend_pool(&mut self, run: usize, progress: &mut Progress) -> Result<bool, String> {
        if progress.next == self.products.len() {
            progress.enter(Phase::Earlier);
        } else if matches!(self.exchange(run, progress.next, None)?, Outcome::Told | Outcome::NoPool) {
            progress.next += 1;
        }
        Ok(false)
    }

    fn resend_earlier(&mut self, run: usize, progress: &mut Progress) -> Result<bool, String> {
        match self.earlier_runs(run).get(progress.next) {
            Some(dead) => progress.next += usize::from(self.book(run, *dead, &mut progress.refused)?),
            None => progress.enter(Phase::Refused),
        }
        Ok(false)
    }

    /// Runs of the same gateway that are over, whose journals are there, and which a loss of the store may concern.
    fn earlier_runs(&self, run: usize) -> Vec<usize> {
        let host = self.runs[run].host;
        let over = |other: &usize| {
            let other = &self.runs[*other];
            let recent = !other.settled || self.now - other.gone_at <= REPAIRED_FOR;
            other.host == host && !other.lives() && !other.disk_lost && recent
        };
        (0..self.runs.len()).filter(over).collect()
    }

    fn resend_command(&mut self, run: usize, progress: &mut Progress) -> Result<bool, String> {
        if self.resend_commands(run, (run, &mut progress.next), &mut progress.refused)? {
            progress.enter(Phase::Pools);
        }
        Ok(false)
    }

    /// Applies the commands of a journal again, from the `next` one on. False: not all of them yet.
    fn resend_commands(
        &mut self,
        run: usize,
        (source, next): (usize, &mut usize),
        refused: &mut Vec<(usize, usize)>,
    ) -> Result<bool, String> {
        while let Some(entry) = self.runs[source].commands.get(*next).cloned() {
            let wanted = !entry.refused && self.now - entry.at <= REPAIRED_FOR;
            if wanted && self.without != Some(Safeguard::Commands) {
                match self.apply(run, &entry.command, entry.product)? {
                    Applied::Done => {}
                    Applied::Refused => refused.push((source, *next)),
                    Applied::Unknown => return Ok(false),
                }
            }
            *next += 1;
        }
        Ok(true)
    }

    fn retry_refused(&mut self, run: usize, progress: &mut Progress) -> Result<bool, String> {
        let Some((source, index)) = progress.refused.get(progress.next).copied() else {
            progress.enter(Phase::Tell);
            return Ok(false);
        };
        let entry = self.runs[source].commands[index].clone();
        if self.apply(run, &entry.command, entry.product)? != Applied::Unknown {
            progress.next += 1;
        }
        Ok(false)
    }

    /// True when everything is done.
    fn retry_last(&mut self, run: usize, progress: &mut Progress) -> Result<bool, String> {
        let Some((source, index)) = progress.refused.get(progress.next).copied() else { return Ok(true) };
        let entry = self.runs[source].commands[index].clone();
        if self.apply(run, &entry.command, entry.product)? != Applied::Unknown {
            progress.next += 1;
        }
        Ok(false)
    }

    /// True when leases are given again.
    fn tell(&mut self, run: usize) -> bool {
        let (now, server) = (self.now, self.runs[run].server);
        let live: Vec<usize> = self.store.heartbeat(run, now).collect();
        let answer = self.store.check_in(run, server, &live, now);
        self.say(|| format!("run {run} has checked in, with {live:?} live: {answer:?}"));
        let Some(open) = answer else {
            self.meet(run);
            return false;
        };
        self.runs[run].checked_in = Some(self.runs[run].server);
        open
    }

    /// A run says that it lives.
    pub(super) fn heartbeat(&mut self, run: usize) {
        let now = self.now;
        if self.runs[run].connected(now) {
            self.store.heartbeat(run, now).for_each(drop);
            if self.runs[run].server != self.store.server {
                self.meet(run);
            }
        }
    }

    /// Applies and books what the journal of a run that is over says. True when it is all in the books.
    fn book(&mut self, run: usize, dead: usize, refused: &mut Vec<(usize, usize)>) -> Result<bool, String> {
        if !self.resend_commands(run, (dead, &mut 0), refused)? {
            return Ok(false);
        }
        let mut tally = Tally::default();
        for record in &self.runs[dead].records {
            tally.add(0, record.clone());
        }
        tally.count_open();
        let syncs = tally.reports(&self.runs[dead].incarnation, self.runs[dead].end);
        self.say(|| format!("run {run} books the journal of run {dead}: {syncs:?}"));
        for ((_, name), asked) in syncs {
            let Some(product) = self.products.iter().position(|there| *there == name) else { continue };
            if !self.book_pool(run, product, &asked)? {
                return Ok(false);
            }
        }
        self.runs[dead].settled = true;
        Ok(true)
    }

    fn book_pool(&mut self, run: usize, product: usize, asked: &Sync) -> Result<bool, String> {
        let Some(disk) = self.load(run) else { return Ok(false) };
        let new = || Pool::new(self.account.clone(), self.products[product].clone());
        let known = disk.pools[product].clone().unwrap_or_else(|| Doc { stamp: None, value: Arc::new(new()) });
        let (believed, stamp) = (self.believed(run), self.stamp(known.stamp));
        let (change, _) = sync(&known.value, asked, believed);
        let value = change.pool.map_or(known.value, Arc::new);
        let write = Write { expected: known.stamp, stamp, value };
        let commit = Commit {
            head: None,
            pool: Some((product, write)),
            ended: change.ended,
            events: change.events,
            now: believed,
            server: self.runs[run].server,
            grants: 0,
        };
        Ok(self.deliver_now(run, &commit)? == Applied::Done)
    }

    /// Sends a commit whose sender waits for the answer and asks again whenever it is in doubt.
    fn deliver_now(&mut self, run: usize, commit: &Commit) -> Result<Applied, String> {
        let fate = self.fate();
        if fate == Fate::Lost {
            return Ok(Applied::Unknown);
        }
        let mut answer = self.arrive(commit)?;
        if fate == Fate::Twice {
            answer = self.arrive(commit)?;
        }
        match answer {
            _ if matches!(fate, Fate::ReplyLost | Fate::Slow) => Ok(Applied::Unknown),
            Answer::Done => Ok(Applied::Done),
            Answer::Conflict(disk) if is_own(commit, &disk) => Ok(Applied::Done),
            Answer::Conflict(_) | Answer::Closed => Ok(Applied::Unknown),
            Answer::TimeOff(here) => {
                self.runs[run].offset = here - self.now;
                Ok(Applied::Unknown)
            }
            Answer::Stranger => {
                self.meet(run);
                Ok(Applied::Unknown)
            }
        }
    }

    /// Applies a command, as a run that has it in its journal.
    pub(super) fn apply(&mut self, run: usize, command: &Command, product: usize) -> Result<Applied, String> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(disk) = self.load(run) else { return Ok(Applied::Unknown) };
            let change = match apply(&self.books(&disk), command, self.believed(run)) {
                Ok(change) => change,
                Err(refusal) => {
                    self.say(|| format!("        refused: {refusal}"));
                    return Ok(Applied::Refused);
                }
            };
            let Some(commit) = self.commit_of(run, &disk, change, product) else { return Ok(Applied::Done) };
            self.say(|| format!("        applies {command:?}"));
            let applied = self.deliver_now(run, &commit)?;
            if applied == Applied::Done {
                return Ok(applied);
            }
        }
        Ok(Applied::Unknown)
    }

    /// Applies a command for the first time: into the journal first. Returns what its sender hears.
    pub(super) fn command(&mut self, run: usize, command: &Command, product: usize) -> Result<Applied, String> {
        let Some(disk) = self.load(run) else { return Ok(Applied::Unknown) };
        if apply(&self.books(&disk), command, self.believed(run)).is_err() {
            return Ok(Applied::Refused);
        }
        self.runs[run].commands.push(Journalled { command: command.clone(), product, at: self.now, refused: false });
        let applied = self.apply(run, command, product)?;
        if applied == Applied::Refused
            && let Some(last) = self.runs[run].commands.last_mut()
        {
            last.refused = true;
        }
        Ok(applied)
    }

    fn books(&self, disk: &Disk) -> Books {
        let pools = self.products.iter().zip(&disk.pools);
        let there = pools.filter_map(|(name, doc)| Some((name.clone(), Pool::clone(&doc.as_ref()?.value))));
        Books { head: disk.head.value.as_ref().clone(), pools: there.collect() }
    }

    fn commit_of(&mut self, run: usize, disk: &Disk, change: Change, product: usize) -> Option<Commit> {
        let head = change.head?;
        let stamp = self.stamp(disk.head.stamp);
        let head = Write { expected: disk.head.stamp, stamp, value: Arc::new(head) };
        let expected = disk.pools[product].as_ref().and_then(|doc| doc.stamp);
        let pool = change.pool.map(|pool| {
            let stamp = self.stamp(expected);
            (product, Write { expected, stamp, value: Arc::new(pool) })
        });
        let (now, server) = (self.believed(run), self.runs[run].server);
        Some(Commit { head: Some(head), pool, ended: change.ended, events: change.events, now, server, grants: 0 })
    }

    /// Books whatever journals of its gateway a run has not booked yet.
    pub(super) fn recover(&mut self, run: usize) -> Checked {
        for dead in self.earlier_runs(run) {
            if !self.runs[dead].settled && self.runs[dead].state == State::Gone {
                self.book(run, dead, &mut Vec::new())?;
            }
        }
        Ok(())
    }
}

fn is_own(commit: &Commit, disk: &Disk) -> bool {
    let head = commit.head.as_ref().is_none_or(|write| Some(write.stamp) == disk.head.stamp);
    let there = |product: usize| disk.pools[product].as_ref().and_then(|doc| doc.stamp);
    head && commit.pool.as_ref().is_none_or(|(product, write)| there(*product) == Some(write.stamp))
}
