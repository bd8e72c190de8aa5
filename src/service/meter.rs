//! One call's quota, from admission to its end: set aside, charged when the seller's status is billable, or given back.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::budgets::KeyHold;
use super::ledger::Ledger;
use super::supply::{Dry, Hold, LocalPool};
use crate::domain::amount::Units;
use crate::domain::billable;
use crate::domain::budget::Used;
use crate::domain::money::Money;
use crate::domain::pool::Shortage;
use crate::domain::usage::{CallFacts, CallerRef, Charge, ChargePart, Ending, UnitClass};
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
    /// The charges that the next write takes.
    batch: RefCell<Arc<Batch>>,
    /// Charges in this turn of the event loop.
    in_turn: Cell<u32>,
    /// Whether the last turn that had any had one only: there is no company to wait for then.
    alone: Cell<bool>,
    any_charged: Notify,
}

/// Charges that go to the journal with one write: those of one turn of the core's event loop.
#[derive(Debug, Default)]
struct Batch {
    result: OnceLock<Result<Position, JournalError>>,
    written: Notify,
}

impl Batch {
    async fn written(&self) -> Result<Position, JournalError> {
        let written = self.written.notified(); // before the look: what comes after it is not missed
        if let Some(result) = self.result.get() {
            return result.clone();
        }
        written.await;
        self.result.get().cloned().unwrap_or_else(|| Err(JournalError::Io("the journal is closed".to_owned())))
    }
}

/// What is known of a call when its seller has answered.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The client's id or ours.
    pub request_id: &'a str,
    /// When the call came.
    pub arrived: Timestamp,
    /// With what it was made.
    pub caller: Option<CallerRef>,
    /// The seller's status.
    pub status: u16,
    /// Whether an event stream follows.
    pub streamed: bool,
    /// How often the request was sent.
    pub attempts: u8,
    /// What else the record says.
    pub facts: CallFacts,
}

/// A call with quota set aside. It ends in exactly one way: [`Meter::end`] or [`Meter::give_back`].
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
    /// What the account has left of the product.
    pub remaining: u64,
    /// Where the charge stands in the journal; `None` until it is written.
    position: Option<Position>,
}

impl Meter {
    /// A meter that writes to this core's journal, for calls that wait at most for `patience` in all for the store.
    pub fn new(ledger: Arc<Ledger>, journal: Arc<dyn Journal>, patience: Duration) -> Self {
        let (batch, in_turn) = (RefCell::default(), Cell::default());
        let (alone, any_charged) = (Cell::default(), Notify::new());
        Self { ledger, journal, patience, calls: Cell::new(0), batch, in_turn, alone, any_charged }
    }

    /// Sets one unit aside. Waits only if this gateway has none at hand, and for what is left of a call's patience that
    /// has `waited` for the store already.
    pub async fn admit(&self, pool: &Arc<LocalPool>, waited: Duration) -> Result<OpenCall, AdmitError> {
        // Room for the charge first: what cannot be written down must not be forwarded.
        self.journal.reserve().map_err(|_| AdmitError::Journal)?;
        let taken = match self.take(pool) {
            Some(hold) => Ok(hold),
            None => {
                // Boxed, as it is rare: warm calls keep no room for it.
                let left = self.patience.saturating_sub(waited);
                let answer = Box::pin(tokio::time::timeout(left, self.wait(pool))).await;
                answer.unwrap_or(Err(AdmitError::Unavailable))
            }
        };
        match taken {
            Ok(hold) => Ok(OpenCall { pool: Arc::clone(pool), hold, charged: None, budget: None }),
            Err(error) => {
                self.journal.release();
                Err(error)
            }
        }
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

    /// The seller has answered: charges the call if its package's terms say so. The charge is in the journal when this
    /// returns; only then may the head go to the client. `None`: the status is not billable. If it is dropped before, the
    /// call is charged all the same, until its end says otherwise.
    pub async fn charge(&self, call: &mut OpenCall, answered: Answered<'_>) -> Result<Option<Charged>, JournalError> {
        let Some(part) = call.hold.part() else { return Ok(None) };
        let units = billable::charge(&part.billable, answered.arrived, Some(answered.status));
        if units.is_zero() {
            return Ok(None);
        }
        let number = self.calls.get().wrapping_add(1);
        self.calls.set(number);
        self.journal.stage(&Record::Charge(Charge {
            call: number,
            request_id: answered.request_id.to_owned(),
            arrived: answered.arrived,
            account: call.pool.account.clone(),
            caller: answered.caller,
            product: call.pool.product.clone(),
            parts: vec![ChargePart {
                lease: call.hold.lease(),
                package: part.package.clone(),
                class: UnitClass::Calls,
                units,
            }],
            status: answered.status,
            streamed: answered.streamed,
            attempts: answered.attempts,
            facts: answered.facts,
        }))?;
        let mut charged = Charged { call: number, units, remaining: call.pool.charge(&call.hold), position: None };
        call.charged = Some(charged);
        match self.written().await {
            Ok(position) => charged.position = Some(position),
            Err(error) => {
                call.pool.uncharge(&call.hold);
                call.charged = None;
                return Err(error);
            }
        }
        call.charged = Some(charged);
        Ok(Some(charged))
    }

    /// Writes the charge that was staged last: at once while charges come one by one, else with its like.
    async fn written(&self) -> Result<Position, JournalError> {
        let before = self.in_turn.get();
        self.in_turn.set(before.saturating_add(1));
        self.any_charged.notify_one();
        if before == 0 && self.alone.get() {
            return self.journal.write();
        }
        let batch = Arc::clone(&self.batch.borrow());
        batch.written().await
    }

    /// Writes charges, until it is dropped: those of all calls whose sellers have answered in one turn of the core's
    /// event loop with one write, as a write for each took a twentieth of a core under load. Each core runs it once.
    pub async fn write_charges(&self) {
        loop {
            self.any_charged.notified().await;
            let charges = self.in_turn.take();
            let written_at_once = u32::from(self.alone.replace(charges == 1));
            if charges > written_at_once {
                let batch = self.batch.take();
                let _ = batch.result.set(self.journal.write()); // fails never: each batch is written once
                batch.written.notify_waiters();
            }
        }
    }

    /// Ends a call. A charge stands unless `billed` is false; a call that was never charged costs nothing.
    pub fn end(&self, mut call: OpenCall, ending: Ending, billed: bool, at: Timestamp) {
        let Some(Charged { call: number, units, .. }) = call.charged else { return self.give_back(call) };
        let end = Record::End(CallEnd { call: number, ending, billed, at });
        if billed {
            // If this record is lost the call counts all the same: only the explanation is missing.
            self.journal.append_soon(&end);
            match &mut call.budget {
                Some(budget) => {
                    let worth = call.hold.unit_worth().times(units.get());
                    budget.spend(&call.pool.product, Used { units, worth });
                    call.pool.settle_for(&call.hold, budget.key(), units);
                }
                None => call.pool.settle(&call.hold),
            }
            self.journal.release();
            return;
        }
        if let Err(error) = self.journal.append(&end) {
            tracing::error!(%error, "a charge was taken back, but the journal does not say so");
        }
        call.pool.uncharge(&call.hold);
        self.give_back(call);
    }

    /// Ends a call that costs nothing.
    pub fn give_back(&self, call: OpenCall) {
        call.pool.give_back(&call.hold);
        self.journal.release();
    }

    /// Resolves when a charge survives the loss of power.
    pub fn on_disk(&self, charged: Charged) -> BoxFuture<'static, Result<(), JournalError>> {
        let journal = Arc::clone(&self.journal);
        Box::pin(async move {
            match charged.position {
                Some(position) => journal.on_disk(position).await,
                None => Err(JournalError::Io("the charge is not written".to_owned())),
            }
        })
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
    pub fn within(self, budget: Option<KeyHold>) -> Self {
        if let Some(budget) = &budget {
            self.pool.note_budget(budget.of());
        }
        Self { budget, ..self }
    }

    /// Who pays.
    pub fn pool(&self) -> &LocalPool {
        &self.pool
    }
}
