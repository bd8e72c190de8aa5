//! What every store does alike for several gateways: who lives, who has checked in, who has the turn. A store whose
//! server keeps these itself, because gateways are on many machines, need not use it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::lease::LEASE_DURATION_MAX;
use crate::ports::account_store::{Commit, CommitError, TIME_OFF_MAX, TURN_MAX};
use crate::ports::gateways::{LIVE_FOR, ServerId};

/// Refuses a commit whose writer believes something else of the store than is so.
pub(super) fn check_believed(commit: &Commit, server: &ServerId, now: Timestamp) -> Result<(), CommitError> {
    match &commit.believed.server {
        Some(believed) if believed != server => return Err(CommitError::Stranger(server.clone())),
        None if commit.grants => return Err(CommitError::Stranger(server.clone())),
        Some(_) | None => {}
    }
    let off = now.duration_since(commit.believed.now).abs();
    if off > TIME_OFF_MAX { Err(CommitError::TimeOff(now)) } else { Ok(()) }
}

/// When each gateway was last heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Heartbeats {
    heard: BTreeMap<Incarnation, Timestamp>,
    /// Since when somebody was always heard.
    kept_since: Option<Timestamp>,
}

impl Heartbeats {
    /// Notes one, forgets those that no longer live, and tells who does.
    pub(super) fn beat(&mut self, by: &Incarnation, now: Timestamp) -> Vec<Incarnation> {
        self.heard.retain(|_, at| now.duration_since(*at).abs() <= LIVE_FOR);
        if self.heard.is_empty() {
            self.kept_since = None; // what was forgotten, or not heard meanwhile, nobody can tell
        }
        self.kept_since.get_or_insert(now);
        self.heard.insert(by.clone(), now);
        self.heard.keys().cloned().collect()
    }

    /// A gateway has stopped in order.
    pub(super) fn leave(&mut self, by: &Incarnation) {
        self.heard.remove(by);
    }

    /// Whether everyone who lives has had the time to be heard.
    pub(super) fn are_whole(&self, now: Timestamp) -> bool {
        self.kept_since.is_some_and(|since| now.duration_since(since) >= LIVE_FOR)
    }
}

/// Whether a server that may have forgotten leases gives new ones.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: bool,
    asked_first: Option<Timestamp>,
    checked_in: BTreeSet<Incarnation>,
}

impl Gate {
    /// That of a server which has nothing to forget yet.
    pub(super) fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// Whether new leases may be given.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Notes that a gateway has sent all it has; returns whether new leases may be given. `live` is of use only if the
    /// list of heartbeats is `whole`.
    pub(super) fn check_in(&mut self, by: &Incarnation, (live, whole): (&[Incarnation], bool), now: Timestamp) -> bool {
        let first = *self.asked_first.get_or_insert(now);
        self.checked_in.insert(by.clone());
        let all = whole && live.iter().all(|gateway| self.checked_in.contains(gateway));
        self.open |= all || now.duration_since(first) >= LEASE_DURATION_MAX;
        self.open
    }
}

/// Who has the turn at which pool document, and until when.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<(AccountId, ProductId), (Incarnation, Timestamp)>);

fn pool_of(commit: &Commit) -> Option<(AccountId, ProductId)> {
    commit.pool.as_ref().map(|write| (commit.account.clone(), write.value.product.clone()))
}

impl Turns {
    /// Refuses a commit on a document at which another gateway has the turn.
    pub(super) fn check(&self, commit: &Commit, now: Timestamp) -> Result<(), CommitError> {
        let turn = pool_of(commit).and_then(|pool| self.0.get(&pool));
        let others = turn.is_some_and(|(whose, until)| *whose != commit.by && now < *until);
        if others { Err(CommitError::Busy) } else { Ok(()) }
    }

    /// Gives the turn after a conflict, if it is asked for and nobody has it.
    pub(super) fn conflicted(&mut self, commit: &Commit, now: Timestamp) {
        if let Some(pool) = pool_of(commit).filter(|_| commit.turn) {
            self.0.retain(|_, (_, until)| now < *until);
            let until = now.checked_add(TURN_MAX).unwrap_or(Timestamp::MAX);
            self.0.entry(pool).or_insert_with(|| (commit.by.clone(), until));
        }
    }

    /// Takes the turn back when its owner has written.
    pub(super) fn written(&mut self, commit: &Commit) {
        if !self.0.is_empty()
            && let Some(pool) = pool_of(commit)
        {
            self.0.remove(&pool);
        }
    }
}
