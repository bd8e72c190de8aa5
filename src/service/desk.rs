//! The store as the services use it: in the name of this gateway, with the store's time and fresh stamps. Which rules
//! apply to what is written is decided elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::limits::Fleet;
use crate::domain::id::{AccountId, Incarnation};
use crate::ports::account_store::{
    AccountStore, Believed, Commit, CommitError, Loaded, Stamp, StoreError, TURN_MAX, Write,
};
use crate::ports::clock::{Clock, Entropy};
use crate::ports::gateways::ServerId;

/// How long to wait before a commit is tried again that met another gateway's turn: a fifth of the longest turn.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(TURN_MAX.as_millis() as u64 / 5);

/// The store's time, told by its replies and carried on by this machine's monotonic clock, so that a step of this
/// machine's time of day changes nothing.
pub struct StoreTime {
    /// Stands in until the store has said something.
    clock: Arc<dyn Clock>,
    told: Mutex<Option<(Instant, Timestamp)>>,
}

impl StoreTime {
    /// Knows nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, told: Mutex::new(None) }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.map_or_else(|| self.clock.now(), |told| carried_on(told, Instant::now()))
    }

    /// Takes in the time in a reply to a question that was sent at `asked`. What was told before is kept as long as it
    /// agrees: the shorter of two ways does not always come first.
    pub fn note(&self, asked: Instant, time: Timestamp) {
        let received = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = carried_on((asked, time), received);
        let agrees = told.is_some_and(|told| (time..=latest).contains(&carried_on(told, received)));
        if !agrees {
            *told = Some((received, time));
        }
    }
}

fn carried_on((at, time): (Instant, Timestamp), now: Instant) -> Timestamp {
    let passed = SignedDuration::try_from(now.duration_since(at)).unwrap_or(SignedDuration::MAX);
    time.checked_add(passed).unwrap_or(Timestamp::MAX)
}

/// Where this gateway reads and writes the shared books.
#[derive(Clone)]
pub struct Desk {
    /// The shared books.
    pub store: Arc<dyn AccountStore>,
    /// Their time.
    pub time: Arc<StoreTime>,
    /// For stamps and ids.
    pub entropy: Arc<dyn Entropy>,
    /// Who writes here.
    pub by: Incarnation,
    /// Who else does.
    pub fleet: Arc<Fleet>,
}

impl Desk {
    /// A desk of the gateway's run `by`.
    pub fn new(
        store: Arc<dyn AccountStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        by: Incarnation,
    ) -> Self {
        Self { store, time: Arc::new(StoreTime::new(clock)), entropy, by, fleet: Arc::default() }
    }

    /// The store's time.
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// All documents of an account.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn load(&self, account: &AccountId) -> Result<Option<Loaded>, StoreError> {
        let asked = Instant::now();
        let loaded = self.store.load(account).await?;
        if let Some(loaded) = &loaded {
            self.time.note(asked, loaded.now);
        }
        Ok(loaded)
    }

    /// Commits, and takes the time from the reply.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let asked = Instant::now();
        let answer = self.store.commit(commit).await;
        let time = match &answer {
            Ok(now) | Err(CommitError::TimeOff(now)) => Some(*now),
            Err(CommitError::Conflict(Some(there))) => Some(there.now),
            Err(_) => None,
        };
        time.into_iter().for_each(|time| self.time.note(asked, time));
        answer.map(drop)
    }

    /// What a commit believes of the store.
    pub(super) fn believed(&self, server: Option<&ServerId>) -> Believed {
        Believed { now: self.now(), server: server.cloned() }
    }

    /// A document's next state.
    pub(super) fn write<T>(&self, expected: Option<Stamp>, value: T) -> Write<T> {
        Write { expected, stamp: Stamp::next(expected, self.random()), value }
    }

    /// Sixty-four bits that nobody can foresee.
    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    /// Notes a reply that says so many seconds after another, and tells whether its time was taken over.
    fn check(way: Duration, seconds: i64, expected: bool) {
        let time = StoreTime::new(Arc::new(Stopped));
        assert_eq!(time.now(), Timestamp::UNIX_EPOCH);
        let first: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        time.note(Instant::now(), first);
        let before = time.told.lock().unwrap().unwrap();
        let second = first.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        time.note(Instant::now().checked_sub(way).unwrap(), second);
        assert_eq!(*time.told.lock().unwrap() != Some(before), expected, "{way:?} {seconds}");
        assert!(time.now() >= if expected { second } else { first });
    }

    #[test]
    fn a_time_that_agrees_is_kept_and_a_step_is_followed() {
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(20));
        check(short, 10, true);
        check(short, -10, true);
        // The reply took long: what it says may have been true on its way.
        check(long, -10, false);
        check(long, -30, true);
        check(long, 10, true);
    }
}
