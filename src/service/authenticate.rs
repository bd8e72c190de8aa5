//! Who calls? Finds the caller behind an API key, an AppCode or an AppKey, from memory if it has called lately, and
//! forgets within a moment what a command has changed.

pub mod caller;
#[cfg(test)]
pub(super) mod tests;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::broadcast;

use super::failures::{Failures, TooMany};
use super::ledger::Read;
use super::limits::Limiter;
use crate::domain::credential::Scheme;
use crate::domain::id::AccountId;
use crate::domain::key::{KeyHash, KeyState};
use crate::ports::account_store::{AccountStore, StoreError};
use crate::ports::gateways::Notice;
use crate::protocol::api_key::{ApiKeyText, KeyFault};
use crate::protocol::keyring::Keyring;
use crate::protocol::signature::{SECRETS_MAX, SigningKey};

pub use self::caller::Caller;

/// Keys that are remembered; above it, the least lucky are forgotten.
const CALLERS_MAX: usize = 100_000;

/// A credential as it is presented. No `Debug` shows it.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// Of which kind.
    pub scheme: Scheme,
    /// An API key, an AppCode, or the AppKey of a signature.
    pub text: &'a str,
    /// The address that it comes from.
    pub client: &'a str,
}

/// A caller, and what finding it has brought.
#[derive(Debug)]
pub struct Found {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The account's documents, if the store was asked just now: the caller's first call need not ask for them again.
    pub read: Option<Box<Read>>,
    /// How long the store was waited for.
    pub waited: Duration,
}

impl From<Arc<Caller>> for Found {
    fn from(caller: Arc<Caller>) -> Self {
        Self { caller, read: None, waited: Duration::ZERO }
    }
}

/// Why a credential opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It has not the form of a key: a typo, or another product's key.
    #[error("{0}")]
    Malformed(KeyFault),
    /// No account has it.
    #[error("the credential is not known")]
    Unknown,
    /// It is switched off.
    #[error("the key is disabled")]
    Disabled,
    /// Its time is over.
    #[error("the key has expired")]
    Expired,
    /// Too many have failed from this address, or with this credential: nobody was asked.
    #[error("too many authentications have failed")]
    TooMany(TooMany),
    /// Another has taken its place, and the overlap is over.
    #[error("the key was replaced")]
    Replaced,
    /// The store did not say.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
}

/// Who called last on a connection. While no account has changed, the same key on the same connection is the same
/// caller, and need not be hashed again.
#[derive(Debug)]
pub struct LastCaller {
    scheme: Scheme,
    text: SecretString,
    /// `None`: nobody has it. Remembered like the others, so that the difference cannot be felt.
    caller: Option<Arc<Caller>>,
    /// [`Authenticator::changes`] before the caller was found.
    changes: u64,
}

/// While notices of changes are not heard, what is remembered is believed for this long.
const CONFIRMED_FOR: Duration = Duration::from_secs(1);
/// Notices are heard if the last one came within this time; heartbeats make some every second.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LISTEN_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum Remembered {
    /// With the moment at which the store said so, and whether a wrong signature has been shown since unknown ones were
    /// forgotten.
    Known(Arc<Caller>, Instant, bool),
    /// The same, of one that nobody has. It is believed as long as a known one: who asks again and again must not feel
    /// the difference.
    Unknown(Instant),
}

/// A caller that can be used now.
fn usable(found: Found, now: Timestamp) -> Result<Found, AuthError> {
    match found.caller.state_at(now) {
        KeyState::Usable => Ok(found),
        KeyState::Disabled => Err(AuthError::Disabled),
        KeyState::Expired => Err(AuthError::Expired),
        KeyState::Replaced => Err(AuthError::Replaced),
    }
}

/// Finds callers.
pub struct Authenticator {
    store: Arc<dyn AccountStore>,
    keyring: Keyring,
    limiter: Arc<Limiter>,
    failures: Failures,
    /// Checks the signatures of those who are not known, so that they take as long as others.
    nobody: SigningKey,
    /// One call waits at most this long for the store in all.
    patience: Duration,
    callers: DashMap<KeyHash, Remembered>,
    /// Counts changes, once before what they touch is forgotten and once after: an answer that was read before a change
    /// is not remembered after it, here or by a connection.
    changes: AtomicU64,
    /// Notices of changes are not heard: what is remembered may be wrong.
    deaf: AtomicBool,
}

impl Authenticator {
    /// Remembers nobody yet. A call waits at most for `patience` for the store.
    pub fn new(
        store: Arc<dyn AccountStore>,
        keyring: Keyring,
        (limiter, failures): (Arc<Limiter>, Failures),
        patience: Duration,
    ) -> Self {
        let (callers, changes, deaf) = (DashMap::new(), AtomicU64::new(0), AtomicBool::new(false));
        // Its signatures open nothing: nobody's are refused even if they fit.
        let nobody = SigningKey::new(&keyring.of_app_key("").0);
        Self { store, keyring, limiter, failures, nobody, patience, callers, changes, deaf }
    }

    /// The caller behind what is presented, if it can be used now and is the `last` one of the connection.
    pub fn last_caller(
        &self,
        Presented { scheme, text, .. }: Presented<'_>,
        now: Timestamp,
        last: &RefCell<Option<LastCaller>>,
    ) -> Option<Result<Found, AuthError>> {
        let changes = self.changes.load(Ordering::Acquire);
        let last = last.borrow();
        let same =
            |last: &&LastCaller| last.changes == changes && last.scheme == scheme && last.text.expose_secret() == text;
        let caller = last.as_ref().filter(same)?.caller.clone();
        Some(caller.ok_or(AuthError::Unknown).and_then(|caller| usable(caller.into(), now)))
    }

    /// The caller behind what is presented, if it can be used now; from here on the `last` one of the connection. `waited`
    /// is how long the call has waited for the store before: of its patience the rest is left.
    pub async fn caller(
        &self,
        presented: Presented<'_>,
        (now, waited): (Timestamp, Duration),
        last: &RefCell<Option<LastCaller>>,
    ) -> Result<Found, AuthError> {
        let changes = self.changes.load(Ordering::Acquire);
        let found = self.find_noting(presented, waited, (changes, last)).await?;
        usable(found, now)
    }

    /// The keys that a caller's signatures are checked with; those of nobody where it has none.
    pub fn signing_keys<'a>(&'a self, caller: Option<&'a Caller>, now: Timestamp) -> [&'a SigningKey; SECRETS_MAX] {
        let mut own = caller.into_iter().flat_map(|caller| caller.signing_keys(now));
        std::array::from_fn(|_| own.next().unwrap_or(&self.nobody))
    }

    /// Finds the caller, and lets the connection remember who it is, or that it is nobody.
    async fn find_noting(
        &self,
        presented: Presented<'_>,
        waited: Duration,
        (changes, last): (u64, &RefCell<Option<LastCaller>>),
    ) -> Result<Found, AuthError> {
        let found = self.find(presented, waited).await;
        let caller = match &found {
            Ok(found) => Some(Arc::clone(&found.caller)),
            Err(AuthError::Unknown) => None,
            Err(_) => return found,
        };
        let Presented { scheme, text, .. } = presented;
        *last.borrow_mut() = Some(LastCaller { scheme, text: text.to_owned().into(), caller, changes });
        found
    }

    fn hash(&self, Presented { scheme, text, .. }: Presented<'_>) -> Result<KeyHash, KeyFault> {
        Ok(match scheme {
            Scheme::ApiKey => self.keyring.of_api_key(ApiKeyText::parse(text)?.expose()),
            Scheme::AppCode => self.keyring.of_app_code(text),
            Scheme::Signature => self.keyring.of_app_key(text),
        })
    }

    /// Counts a failed authentication, unless too many failed before it.
    pub fn failed(&self, presented: Presented<'_>) -> Result<(), TooMany> {
        self.failures.count(presented.client, self.hash(presented).ok(), Instant::now())
    }

    /// Counts what has not even the form of a credential.
    pub fn malformed(&self, client: &str) -> Result<(), TooMany> {
        self.failures.count(client, None, Instant::now())
    }

    /// After a wrong signature that was counted: the first one of an unknown AppKey has cost a look at the store, so the
    /// first one of a known AppKey costs one too, and the time of a refusal does not tell them apart. What is looked for
    /// is an AppKey that nobody has.
    pub async fn look_as_for_nobody(&self, presented: Presented<'_>, waited: Duration) {
        let Ok(hash) = self.hash(presented) else { return };
        let first = self.callers.get_mut(&hash).is_some_and(|mut remembered| match remembered.value_mut() {
            Remembered::Known(_, _, guessed) => !std::mem::replace(guessed, true),
            Remembered::Unknown(_) => false,
        });
        if first {
            let looked = self.store.load_by_key(self.keyring.of_app_key(""));
            // What it says is of no interest, and neither is whether it answers.
            let _ = tokio::time::timeout(self.patience.saturating_sub(waited), looked).await;
        }
    }

    async fn find(&self, presented: Presented<'_>, waited: Duration) -> Result<Found, AuthError> {
        let hash = self.hash(presented).map_err(AuthError::Malformed)?;
        match self.remembered(hash) {
            Some(found) => found.map(Found::from),
            None if !self.is_known(hash) => {
                self.failures.check(presented.client, Some(hash), Instant::now()).map_err(AuthError::TooMany)?;
                Box::pin(self.ask(hash, self.patience.saturating_sub(waited))).await
            }
            None => Box::pin(self.ask(hash, self.patience.saturating_sub(waited))).await, // boxed, as it is rare: warm calls keep no room for it
        }
    }

    fn remembered(&self, hash: KeyHash) -> Option<Result<Arc<Caller>, AuthError>> {
        let stale = |at: &Instant| self.deaf.load(Ordering::Relaxed) && at.elapsed() >= CONFIRMED_FOR;
        match self.callers.get(&hash)?.value() {
            Remembered::Known(_, at, _) | Remembered::Unknown(at) if stale(at) => None,
            Remembered::Known(caller, ..) => Some(Ok(Arc::clone(caller))),
            Remembered::Unknown(_) => Some(Err(AuthError::Unknown)),
        }
    }

    /// Whether it was somebody's when it was last asked for: attacks from the same address do not concern it.
    fn is_known(&self, hash: KeyHash) -> bool {
        self.callers.get(&hash).is_some_and(|remembered| matches!(*remembered, Remembered::Known(..)))
    }

    /// Asks the store. If it does not answer, one who was known a moment ago still is: until the leases end, there is
    /// something to sell.
    async fn ask(&self, hash: KeyHash, patience: Duration) -> Result<Found, AuthError> {
        let silent = || AuthError::Unavailable("no answer in time".to_owned());
        let asked = Instant::now();
        let answer = tokio::time::timeout(patience, self.look_up(hash)).await.unwrap_or_else(|_| Err(silent()));
        let waited = asked.elapsed();
        if let Err(AuthError::Unavailable(_)) = &answer
            && let Some(mut kept) = self.callers.get_mut(&hash)
            && let Remembered::Known(caller, at, _) = kept.value_mut()
        {
            *at = Instant::now();
            return Ok(Found { waited, ..Arc::clone(caller).into() });
        }
        answer.map(|found| Found { waited, ..found })
    }

    async fn look_up(&self, hash: KeyHash) -> Result<Found, AuthError> {
        let before = self.changes.load(Ordering::Acquire);
        let asked = Instant::now();
        let loaded = self.store.load_by_key(hash).await;
        let loaded = loaded.map_err(|error: StoreError| AuthError::Unavailable(error.to_string()))?;
        let found = loaded.and_then(|loaded| {
            let caller = Arc::new(Caller::find(&loaded, hash, (&self.keyring, &self.limiter))?);
            Some(Found { read: Some(Box::new(Read { loaded, asked })), ..caller.into() })
        });
        let remembered = match &found {
            Some(found) => Remembered::Known(Arc::clone(&found.caller), Instant::now(), false),
            None => Remembered::Unknown(Instant::now()),
        };
        self.make_room();
        self.callers.insert(hash, remembered);
        if self.changes.load(Ordering::Acquire) != before {
            self.callers.remove(&hash); // what was read may be older than the change
        }
        found.ok_or(AuthError::Unknown)
    }

    /// Forgets some when there are too many: first the unknown ones, then whatever comes first.
    fn make_room(&self) {
        if self.callers.len() < CALLERS_MAX {
            return;
        }
        self.callers.retain(|_, remembered| keep_known(remembered));
        let mut surplus = self.callers.len().saturating_sub(CALLERS_MAX / 2);
        self.callers.retain(|_, _| {
            let keep = surplus == 0;
            surplus = surplus.saturating_sub(1);
            keep
        });
    }

    /// Forgets what commands change, until the store is closed.
    pub async fn follow(&self, mut changes: broadcast::Receiver<Notice>) {
        let mut tick = tokio::time::interval(LISTEN_EVERY);
        loop {
            let notice = tokio::select! {
                notice = changes.recv() => notice,
                _ = tick.tick() => {
                    let heard = self.store.heard_at().is_some_and(|at| at.elapsed() <= HEARD_WITHIN);
                    self.deaf.store(!heard, Ordering::Relaxed);
                    if !heard {
                        self.changes.fetch_add(1, Ordering::AcqRel); // connections look again, too
                    }
                    continue;
                }
            };
            let changed = match notice {
                Ok(Notice::Changed(account)) => Some(account),
                Ok(Notice::Recall { .. } | Notice::Answered { .. } | Notice::CheckIn) => continue,
                Ok(Notice::Missed) | Err(broadcast::error::RecvError::Lagged(_)) => None,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            self.forget(changed.as_ref());
        }
    }

    /// Forgets what is remembered of an account, or of all.
    fn forget(&self, changed: Option<&AccountId>) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.callers.retain(|_, remembered| match (remembered, changed) {
            (Remembered::Known(caller, ..), Some(account)) if caller.account == *account => false,
            // A new key may be one that was unknown a moment ago.
            (remembered, Some(_)) => keep_known(remembered),
            (_, None) => false, // after a lag anything may have changed
        });
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether it is a known one; then what was guessed before is forgotten, as unknown ones are.
fn keep_known(remembered: &mut Remembered) -> bool {
    match remembered {
        Remembered::Known(_, _, guessed) => {
            *guessed = false;
            true
        }
        Remembered::Unknown(_) => false,
    }
}
