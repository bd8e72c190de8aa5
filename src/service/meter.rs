//! One call's quota, from admission to its end: set aside, charged when the seller's status is billable, or given back.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::budgets::KeyHold;
use super::ledger::Ledger;
use super::supply::{Dry, Hold, Left, LocalPool};
use crate::domain::amount::Units;
use crate::domain::billable;
use crate::domain::budget::Used;
use crate::domain::money::Money;
use crate::domain::pool::Shortage;
use crate::domain::usage::{CallerRef, ChargePart, Ending, LentCharge, LentFacts, UnitClass};
use crate::ports::BoxFuture;
use crate::ports::journal::{CallEnd, Journal, JournalError, Position, Record};

/// Why a call got no quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// There is none.
    #[error("no quota: {0:?}")]
    Empty(Shortage),
    /// The store did not answer in time.
    #[error("the store does not answer")]
    Unavailable,
    /// A charge could not be written down.
    #[error("the journal cannot be written")]
    Journal,
}

/// Meters the calls of one core.
pub struct Meter {
    ledger: Arc<Ledger>,
    journal: Arc<dyn Journal>,
    /// One call waits at most this long for the store in all.
    patience: Duration,
    calls: Cell<u64>,
}

/// What is known of a call when its seller has answered.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The client's id or ours.
    pub request_id: &'a str,
    /// When the call came.
    pub arrived: Timestamp,
    /// With what it was made.
    pub caller: Option<&'a CallerRef>,
    /// The seller's status.
    pub status: u16,
    /// Whether an event stream follows.
    pub streamed: bool,
    /// How often the request was sent.
    pub attempts: u8,
    /// When the call ended, if its answer is whole already: its end is written down with its charge.
    pub whole: Option<Timestamp>,
    /// What else the record says.
    pub facts: LentFacts<'a>,
}

/// A call with quota set aside. It ends in exactly one way: [`Meter::end`], [`Meter::settle`] or [`Meter::give_back`].
#[derive(Debug)]
#[must_use = "a dropped call keeps its unit from being sold until the gateway restarts"]
pub struct OpenCall {
    pool: Arc<LocalPool>,
    hold: Hold,
    charged: Option<Charged>,
    /// The unit of its key's budget.
    budget: Option<KeyHold>,
}

/// A charge that is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    call: u64,
    /// How much.
    pub units: Units,
    /// Whether the journal knows the call's end, too.
    pub ended: bool,
    /// Where the charge stands in the journal.
    position: Position,
}

/// Room in the journal for a call that is not admitted yet: given back if it never is, or hangs up meanwhile.
struct Room<'a>(Option<&'a dyn Journal>);

impl<'a> Room<'a> {
    fn reserve(journal: &'a dyn Journal) -> Result<Self, JournalError> {
        journal.reserve().map(|()| Self(Some(journal)))
    }

    /// The call is admitted: its end gives it back.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(journal) = self.0 {
            journal.release();
        }
    }
}

/// What metering makes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// `None`: the status is not billable.
    pub charged: Option<Charged>,
    /// What the account has left of the product.
    pub left: Left,
}

impl Meter {
    /// A meter that writes to this core's journal, for calls that wait at most for `patience` in all for the store.
    pub fn new(ledger: Arc<Ledger>, journal: Arc<dyn Journal>, patience: Duration) -> Self {
        Self { ledger, journal, patience, calls: Cell::default() }
    }

    /// Sets one unit aside. Waits only if this gateway has none at hand, and for what is left of a call's patience that
    /// has `waited` for the store already.
    pub async fn admit(&self, pool: Arc<LocalPool>, waited: Duration) -> Result<OpenCall, AdmitError> {
        // Room for the charge first: what cannot be written down must not be forwarded.
        let room = Room::reserve(&*self.journal).map_err(|_| AdmitError::Journal)?;
        let hold = match self.take(&pool) {
            Some(hold) => hold,
            None => {
                // Boxed, as it is rare: warm calls keep no room for it.
                let left = self.patience.saturating_sub(waited);
                let answer = Box::pin(tokio::time::timeout(left, self.wait(&pool))).await;
                answer.unwrap_or(Err(AdmitError::Unavailable))?
            }
        };
        room.keep();
        Ok(OpenCall { pool, hold, charged: None, budget: None })
    }

    fn take(&self, pool: &LocalPool) -> Option<Hold> {
        let now = Instant::now();
        let (hold, low) = pool.take(now)?;
        if low && pool.known_dry(now).is_none() {
            self.ledger.nudge(pool);
        }
        Some(hold)
    }

    async fn wait(&self, pool: &LocalPool) -> Result<Hold, AdmitError> {
        loop {
            let mut waiting = pool.wait();
            if let Some(hold) = self.take(pool) {
                return Ok(hold);
            }
            match pool.known_dry(Instant::now()) {
                // All that this gateway holds is charged: its calls go on, and nothing of theirs comes back.
                Some(Dry::Short(Shortage::SetAside)) if pool.remaining() == 0 => {
                    return Err(AdmitError::Empty(Shortage::UsedUp));
                }
                Some(Dry::Short(shortage)) => return Err(AdmitError::Empty(shortage)),
                Some(Dry::Unavailable) => return Err(AdmitError::Unavailable),
                None => {}
            }
            self.ledger.nudge(pool);
            waiting.refilled().await;
        }
    }

    /// The seller has answered: charges the call if its package's terms say so. The charge survives the death of this
    /// process when this returns; only then may the head go to the client.
    pub fn charge(&self, call: &mut OpenCall, answered: Answered<'_>) -> Result<Metered, JournalError> {
        let billable = call
            .hold
            .part()
            .map(|part| (part, billable::charge(&part.billable, answered.arrived, Some(answered.status))));
        let Some((part, units)) = billable.filter(|(_, units)| !units.is_zero()) else {
            return Ok(Metered { charged: None, left: call.pool.left() });
        };
        let number = self.calls.get().wrapping_add(1);
        self.calls.set(number);
        let (lease, package) = (call.hold.lease(), part.package.clone());
        let end = answered.whole.map(|at| CallEnd { call: number, ending: Ending::Complete, billed: true, at });
        let charge = LentCharge {
            call: number,
            request_id: answered.request_id,
            arrived: answered.arrived,
            account: &call.pool.account,
            caller: answered.caller,
            product: &call.pool.product,
            parts: &[ChargePart { lease, package, class: UnitClass::Calls, units }],
            status: answered.status,
            streamed: answered.streamed,
            attempts: answered.attempts,
            facts: answered.facts,
        };
        let position = self.journal.stage(charge, end)?;
        let left = call.pool.charge(&call.hold);
        let charged = Charged { call: number, units, ended: end.is_some(), position };
        call.charged = Some(charged);
        Ok(Metered { charged: Some(charged), left })
    }

    /// Ends a call. A charge stands unless `billed` is false; a call that was never charged costs nothing.
    pub fn end(&self, call: OpenCall, ending: Ending, billed: bool, at: Timestamp) {
        let Some(Charged { call: number, .. }) = call.charged else { return self.give_back(call) };
        let end = CallEnd { call: number, ending, billed, at };
        if billed {
            // If this record is lost the call counts all the same: only the explanation is missing.
            self.journal.end(end);
            return self.settle(call);
        }
        if let Err(error) = self.journal.append(&Record::End(end)) {
            tracing::error!(%error, "a charge was taken back, but the journal does not say so");
        }
        call.pool.uncharge(&call.hold);
        self.give_back(call);
    }

    /// Counts a charged call whose end is written down.
    pub fn settle(&self, mut call: OpenCall) {
        let units = call.charged.map_or(Units::ZERO, |charged| charged.units);
        match &mut call.budget {
            Some(budget) => {
                let worth = call.hold.unit_worth().times(units.get());
                budget.spend(&call.pool.product, Used { units, worth });
                call.pool.settle_for(&call.hold, budget.key(), units);
            }
            None => call.pool.settle(&call.hold),
        }
    }

    /// Ends a call that costs nothing.
    pub fn give_back(&self, call: OpenCall) {
        call.pool.give_back(&call.hold);
        self.journal.release();
    }

    /// Resolves when a charge survives the loss of power.
    pub fn on_disk(&self, charged: Charged) -> BoxFuture<'static, Result<(), JournalError>> {
        let journal = Arc::clone(&self.journal);
        Box::pin(async move { journal.on_disk(charged.position).await })
    }
}

impl OpenCall {
    /// The charge, once there is one.
    pub fn charged(&self) -> Option<Charged> {
        self.charged
    }

    /// What the unit is worth that was set aside.
    pub fn unit_worth(&self) -> Money {
        self.hold.unit_worth()
    }

    /// Its key has a budget: the unit that was set aside of it is used or given back with the call's.
    pub fn set_budget(&mut self, budget: KeyHold) {
        self.pool.note_budget(budget.of());
        self.budget = Some(budget);
    }

    /// Who pays.
    pub fn pool(&self) -> &LocalPool {
        &self.pool
    }
}
