//! One run of one gateway: what it holds in memory, and its journal. What it does with the store is in `exchange` and
//! `check_in`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::check_in::Progress;
use super::exchange::Pending;
use super::store::Doc;
use crate::domain::amount::Units;
use crate::domain::command::Command;
use crate::domain::id::{Incarnation, PackageId};
use crate::domain::lease::{Lease, LeasePart};
use crate::domain::pool::Pool;
use crate::domain::settle::{LeaseReport, RunEnd};
use crate::ports::journal::Record;

/// Whether a run is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Serving,
    /// It admits no new call: a newer run of its gateway has taken over.
    Draining,
    /// Killed, or stopped in order.
    Gone,
}

/// A part of a lease, drawn on by calls.
#[derive(Debug, Clone)]
pub(super) struct HeldPart {
    pub(super) package: PackageId,
    pub(super) granted: u64,
    pub(super) left: u64,
    pub(super) used: u64,
    /// What the store is known to have booked; only deltas need it.
    pub(super) told_used: u64,
    pub(super) told_returned: u64,
}

/// A lease in a run's hands.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) parts: Vec<HeldPart>,
    pub(super) deadline: Timestamp,
    /// On the monotonic clock.
    pub(super) admits_until: i64,
    /// The same for each part, by the store's clock when it granted the lease and the package's own end.
    pub(super) lawful_until: Vec<i64>,
    pub(super) retired: bool,
}

impl Held {
    pub(super) fn new(lease: &Lease, admits_until: i64, lawful_until: Vec<i64>) -> Self {
        let part = |part: &LeasePart| HeldPart {
            package: part.package.clone(),
            granted: part.granted.get(),
            left: part.granted.get(),
            used: 0,
            told_used: 0,
            told_returned: 0,
        };
        let parts = lease.parts.iter().map(part).collect();
        Self { parts, deadline: lease.deadline, admits_until, lawful_until, retired: false }
    }

    fn report(&self, number: u64) -> LeaseReport {
        let part = |part: &HeldPart| LeasePart {
            used: Units::new(part.used),
            returned: Units::new(if self.retired { part.left } else { 0 }),
            ..LeasePart::new(part.package.clone(), Units::new(part.granted))
        };
        LeaseReport {
            number,
            parts: self.parts.iter().map(part).collect(),
            deadline: self.deadline,
            spent: Default::default(),
            lost: false,
        }
    }
}

/// What a run knows of one pool.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// The document as last seen.
    pub(super) known: Option<Doc<Pool>>,
    /// All leases of this run: closed ones too, for a store that forgets.
    pub(super) leases: BTreeMap<u64, Held>,
    /// The last number used; those without a lease never came through.
    pub(super) last_number: u64,
    /// Whether the journal says that this run draws on the pool.
    pub(super) asked: bool,
    /// The commit that is under way.
    pub(super) pending: Option<Pending>,
}

impl Side {
    /// Everything that a document may not know to be closed.
    pub(super) fn reports(&self, document: &Pool, by: &Incarnation, now: i64) -> Vec<LeaseReport> {
        let closed_through = document.held.get(by).map_or(0, |held| held.closed_through);
        let unused = |number| LeaseReport::unused(number, super::store::moment(now));
        let numbers = closed_through + 1..=self.last_number;
        numbers.map(|number| self.leases.get(&number).map_or(unused(number), |held| held.report(number))).collect()
    }

    /// Ends admission on leases whose time is over.
    pub(super) fn retire(&mut self, now: i64) {
        self.leases.values_mut().filter(|held| held.admits_until <= now).for_each(|held| held.retired = true);
    }
}

/// A call that was admitted.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) product: usize,
    pub(super) lease: u64,
    pub(super) part: usize,
    pub(super) package: PackageId,
    /// Its number in the journal, once its head went to the client.
    pub(super) charged: Option<u64>,
}

/// A command in a run's journal.
#[derive(Debug, Clone)]
pub(super) struct Journalled {
    pub(super) command: Command,
    pub(super) product: usize,
    /// When it was written down.
    pub(super) at: i64,
    /// It was refused: it is not applied again.
    pub(super) refused: bool,
}

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) incarnation: Incarnation,
    pub(super) host: usize,
    pub(super) state: State,
    pub(super) sides: Vec<Side>,
    pub(super) calls: Vec<Call>,
    pub(super) last_call: u64,
    /// The journal; what the disk has of it survives the process.
    pub(super) records: Vec<Record>,
    pub(super) commands: Vec<Journalled>,
    /// How much the journal can say, now that the run is over.
    pub(super) end: RunEnd,
    /// The disk is gone, and the journal with it.
    pub(super) disk_lost: bool,
    /// Its use is in the books, as far as its successor knows.
    pub(super) settled: bool,
    pub(super) gone_at: i64,
    /// The server that it believes to be there, and the one that it has checked in with.
    pub(super) server: u64,
    pub(super) checked_in: Option<u64>,
    pub(super) progress: Option<Progress>,
    /// The store's time less the monotonic clock.
    pub(super) offset: i64,
    /// How wrong its own clock of the day is. Nothing uses that but a gateway without the store's clock.
    pub(super) clock_off: i64,
    /// It cannot reach the store, or is stopped by a signal, until then; and since when.
    pub(super) cut_until: i64,
    pub(super) frozen_until: i64,
    pub(super) away_since: i64,
}

impl Run {
    /// Whether the process is there.
    pub(super) fn lives(&self) -> bool {
        self.state != State::Gone
    }

    /// Whether it can do anything now.
    pub(super) fn acts(&self, now: i64) -> bool {
        self.lives() && self.frozen_until <= now
    }

    /// Whether it reaches the store now.
    pub(super) fn connected(&self, now: i64) -> bool {
        self.acts(now) && self.cut_until <= now
    }
}
