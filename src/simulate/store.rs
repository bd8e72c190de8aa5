//! The store of a history: compares and swaps, answers or refuses as the port says, and can lose its tail. It knows no
//! rule of metering.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::Safeguard;
use crate::domain::account::Account;
use crate::domain::event::Event;
use crate::domain::id::PackageId;
use crate::domain::lease::LEASE_DURATION_MAX;
use crate::domain::package::Package;
use crate::domain::pool::Pool;
use crate::ports::account_store::Stamp;

/// A commit whose idea of the store's time is further off is refused, in milliseconds.
pub(super) const TIME_OFF_MAX: i64 = 2_000;
/// How long a heartbeat counts, in milliseconds.
pub(super) const LIVE_FOR: i64 = 5_000;
/// How many earlier states a rollback may reach.
const EARLIER_MAX: usize = 40;
/// The store's time at the beginning of every history: shortly before a midnight, so that packages end.
const START: i64 = 1_772_409_420_000; // 2026-03-01T23:57:00Z

/// A moment of the store's clock, from milliseconds since the beginning.
pub(super) fn moment(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(START + ms).unwrap_or(Timestamp::MAX)
}

/// Milliseconds since the beginning, the other way round.
pub(super) fn millis(moment: Timestamp) -> i64 {
    moment.as_millisecond() - START
}

/// A document as the store has it.
#[derive(Debug)]
pub(super) struct Doc<T> {
    /// `None`: the store has none yet.
    pub(super) stamp: Option<Stamp>,
    pub(super) value: Arc<T>,
}

impl<T> Clone for Doc<T> {
    fn clone(&self) -> Self {
        Self { stamp: self.stamp, value: Arc::clone(&self.value) }
    }
}

/// All that a rollback takes back.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) head: Doc<Account>,
    /// By product.
    pub(super) pools: Vec<Option<Doc<Pool>>>,
    /// Packages that have left their documents.
    pub(super) history: Arc<Vec<Package>>,
    outbox: Arc<BTreeSet<String>>,
    /// Use that came after its package had left, as far as the outbox tells of it.
    pub(super) stray: Arc<BTreeMap<PackageId, u64>>,
}

/// What is to be written to a document.
#[derive(Debug, Clone)]
pub(super) struct Write<T> {
    pub(super) expected: Option<Stamp>,
    pub(super) stamp: Stamp,
    pub(super) value: Arc<T>,
}

/// One atomic change.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub(super) head: Option<Write<Account>>,
    /// With the product.
    pub(super) pool: Option<(usize, Write<Pool>)>,
    pub(super) ended: Vec<Package>,
    pub(super) events: Vec<Event>,
    /// What the writer believes of the store.
    pub(super) now: Timestamp,
    pub(super) server: u64,
    /// Units that a new lease in `pool` takes.
    pub(super) grants: u64,
}

/// What the store says to a commit.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Conflict(Box<Disk>),
    Stranger,
    Closed,
    TimeOff(i64),
}

/// The store.
pub(super) struct Store {
    pub(super) disk: Disk,
    /// With the moment at which each state ended, and the units granted by the commit that ended it.
    earlier: VecDeque<(Disk, i64, u64)>,
    /// Which life of the store this is.
    pub(super) server: u64,
    /// How far its clock is ahead of the history's, in milliseconds.
    pub(super) clock_off: i64,
    /// Its highest time so far.
    pub(super) time_high: i64,
    /// Whether leases are given.
    pub(super) open: bool,
    answered_at: Option<i64>,
    checked_in: BTreeSet<usize>,
    heartbeats: BTreeMap<usize, i64>,
    without: Option<Safeguard>,
}

impl Store {
    pub(super) fn new(head: Account, products: usize, without: Option<Safeguard>) -> Self {
        let head = Doc { stamp: Some(Stamp::next(None, 0)), value: Arc::new(head) };
        let pools = (0..products).map(|_| None).collect();
        let (history, outbox, stray) = (Arc::default(), Arc::default(), Arc::default());
        Self {
            disk: Disk { head, pools, history, outbox, stray },
            earlier: VecDeque::new(),
            server: 1,
            clock_off: 0,
            time_high: 0,
            open: true,
            answered_at: None,
            checked_in: BTreeSet::new(),
            heartbeats: BTreeMap::new(),
            without,
        }
    }

    /// The store's time.
    pub(super) fn now(&mut self, now: i64) -> i64 {
        let here = now + self.clock_off;
        self.time_high = self.time_high.max(here);
        here
    }

    /// Writes all or nothing.
    pub(super) fn commit(&mut self, commit: &Commit, now: i64) -> Answer {
        let here = self.now(now);
        self.answered_at.get_or_insert(here);
        if commit.server != self.server {
            return Answer::Stranger;
        }
        if self.without != Some(Safeguard::Clock) && (millis(commit.now) - here).abs() > TIME_OFF_MAX {
            return Answer::TimeOff(here);
        }
        if commit.grants > 0 && !self.open && self.without != Some(Safeguard::CheckIn) {
            return Answer::Closed;
        }
        if self.without != Some(Safeguard::Compare) && !self.matches(commit) {
            return Answer::Conflict(Box::new(self.disk.clone()));
        }
        if self.earlier.len() == EARLIER_MAX {
            self.earlier.pop_front();
        }
        self.earlier.push_back((self.disk.clone(), now, commit.grants));
        self.write(commit);
        Answer::Done
    }

    fn matches(&self, commit: &Commit) -> bool {
        let head = commit.head.as_ref().is_none_or(|write| write.expected == self.disk.head.stamp);
        let there = |product: usize| self.disk.pools[product].as_ref().and_then(|doc| doc.stamp);
        head && commit.pool.as_ref().is_none_or(|(product, write)| write.expected == there(*product))
    }

    fn write(&mut self, commit: &Commit) {
        let waiting = commit.pool.as_ref().and_then(|(product, _)| self.disk.pools[*product].clone());
        if let Some(write) = &commit.head {
            self.disk.head = Doc { stamp: Some(write.stamp), value: Arc::clone(&write.value) };
        }
        if let Some((product, write)) = &commit.pool {
            self.disk.pools[*product] = Some(Doc { stamp: Some(write.stamp), value: Arc::clone(&write.value) });
        }
        if !commit.ended.is_empty() {
            Arc::make_mut(&mut self.disk.history).extend(commit.ended.iter().cloned());
        }
        for event in &commit.events {
            if !Arc::make_mut(&mut self.disk.outbox).insert(event.id()) {
                continue;
            }
            if let Event::Overrun { package, overrun, .. } = event
                && waiting.as_ref().is_some_and(|before| before.value.unplaced.contains_key(package))
                && !self.disk.packages().any(|there| there.id == *package && !there.overrun.is_zero())
            {
                *Arc::make_mut(&mut self.disk.stray).entry(package.clone()).or_default() += overrun.get();
            }
        }
    }

    /// How long ago, at most, the earlier states reach that came to their end at `since` or later.
    pub(super) fn reach(&self, since: i64) -> usize {
        self.earlier.iter().rev().take_while(|(_, until, _)| *until > since).count()
    }

    /// Loses the last `back` commits, all of them at least one; another server answers from now on. Returns how many
    /// units they had granted.
    pub(super) fn lose(&mut self, back: usize, heartbeats_too: bool) -> u64 {
        let mut granted = 0;
        for _ in 0..back {
            if let Some((disk, _, units)) = self.earlier.pop_back() {
                self.disk = disk;
                granted += units;
            }
        }
        if self.without != Some(Safeguard::Stamp) {
            self.server += 1;
            self.open = false;
        }
        self.answered_at = None;
        self.checked_in.clear();
        if heartbeats_too {
            self.heartbeats.clear();
        }
        granted
    }

    /// No rollback reaches behind this moment any more.
    pub(super) fn forget_earlier(&mut self) {
        self.earlier.clear();
    }

    /// Notes that a run lives; tells who else does.
    pub(super) fn heartbeat(&mut self, by: usize, now: i64) -> impl Iterator<Item = usize> + '_ {
        let here = self.now(now);
        self.heartbeats.insert(by, here);
        self.heartbeats.iter().filter(move |(_, at)| (here - **at).abs() <= LIVE_FOR).map(|(run, _)| *run)
    }

    /// Notes that a run has left in order.
    pub(super) fn leave(&mut self, by: usize) {
        self.heartbeats.remove(&by);
    }

    /// Notes that a run has re-sent all it knows to `server`. `None`: another server is here by now.
    pub(super) fn check_in(&mut self, by: usize, server: u64, live: &[usize], now: i64) -> Option<bool> {
        let here = self.now(now);
        if server != self.server {
            return None;
        }
        let answered_at = here.min(*self.answered_at.get_or_insert(here));
        self.answered_at = Some(answered_at);
        self.checked_in.insert(by);
        let all = live.iter().all(|run| self.checked_in.contains(run));
        let waited = here - answered_at;
        // Whoever lives has said so by then, even if the store forgot who lives.
        self.open |= (all && waited >= LIVE_FOR) || i128::from(waited) >= LEASE_DURATION_MAX.as_millis();
        Some(self.open)
    }
}

impl Disk {
    /// All packages, ended ones too.
    pub(super) fn packages(&self) -> impl Iterator<Item = &Package> {
        let pools = self.pools.iter().flatten();
        pools.flat_map(|doc| &doc.value.packages).chain(self.history.iter())
    }

    /// Use of a package that waits for its purchase.
    pub(super) fn unplaced(&self, id: &PackageId) -> u64 {
        let waiting = self.pools.iter().flatten().filter_map(|doc| doc.value.unplaced.get(id));
        waiting.map(|unplaced| unplaced.used.get()).sum()
    }
}
