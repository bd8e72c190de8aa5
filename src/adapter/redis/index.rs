//! The index from the hash of an API key, an AppKey or an AppCode (a key, below) to its account. It cannot lie in the account's slot, since whoever asks does not know
//! the account yet, so it is written beside the commits: a key is claimed before the commit that adds it, and released
//! after the one that removes it. The head document decides: an entry whose account lacks the key is stale, does no harm,
//! and gives way to whoever wants the key. What a server has lost of it is written anew after its check-in.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use jiff::{SignedDuration, Timestamp};
use redis::{Value, cmd};
use sha2::{Digest, Sha256};

use super::Shared;
use super::keys::bucket_of;
use super::reply::{self, Answer, bytes};
use crate::domain::account::Account;
use crate::domain::id::AccountId;
use crate::domain::key::KeyHash;
use crate::ports::account_store::{CommitError, Loaded, StoreError, TIME_OFF_MAX};
use crate::ports::gateways::Servers;

/// A claim may be ahead of its commit for so long: a commit that is later than [`TIME_OFF_MAX`] is refused, and servers'
/// clocks may differ by as much again.
const CLAIM_AHEAD_MAX: SignedDuration = SignedDuration::from_millis(2 * TIME_OFF_MAX.as_millis() as i64 + 1_000);
/// How often a stale entry is taken over before the key is said to be taken: others want it too.
const CLAIM_TRIES: usize = 3;
/// Pause between two tries to write a lost index anew.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);
/// Tries to write a lost index anew; then the next check-in does.
const REBUILD_TRIES: usize = 30;

/// The servers for which this process has seen that the index is complete, or is making it so.
#[derive(Debug, Default)]
pub(super) struct Indexed(Mutex<Option<String>>);

/// An entry of another account.
struct Other {
    entry: String,
    account: Option<AccountId>,
    claimed_for: SignedDuration,
}

fn account_in(entry: &str) -> Option<AccountId> {
    AccountId::new(entry.split(' ').next()?).ok()
}

impl Shared {
    /// Whose key it is, as far as the index knows; whoever uses the answer finds the key in that account's head document
    /// or takes it to be unknown.
    pub(super) async fn account_of(&self, hash: &KeyHash) -> Result<Option<AccountId>, StoreError> {
        let mut question = cmd("GET");
        question.arg(self.keys.owner(hash));
        let entry = self.link.ask(&question).await?;
        Ok(reply::text(entry).as_deref().and_then(account_in))
    }

    /// The documents of the account whose key it is, as far as the index knows: one question, unless the store is a
    /// Cluster, where account and key lie on different servers, or the entry does not say where its account lies.
    pub(super) async fn load_by_key(&self, hash: &KeyHash) -> Result<Option<Loaded>, StoreError> {
        let entry = self.keys.owner(hash);
        let found = if self.divided {
            self.link.ask(cmd("GET").arg(entry)).await?
        } else {
            let arguments = [self.epoch(), self.keys.prefix().to_owned()];
            self.scripts.run((&self.link, self.deadline()), &self.scripts.find, &[entry], &arguments).await?
        };
        if matches!(found, Value::Array(_)) {
            let answer = Answer::read(found)?;
            let account = AccountId::new(&answer.word);
            return account.map_or(Ok(None), |account| answer.account(&account)); // no account has another name
        }
        match reply::text(found).as_deref().and_then(account_in) {
            Some(account) => self.load(&account).await,
            None => Ok(None),
        }
    }

    /// Claims all keys of a head document that is about to be written.
    pub(super) async fn claim_all(&self, head: &Account) -> Result<(), CommitError> {
        let claims = head.hashes().map(|hash| async move { self.claim(&hash, &head.id).await });
        try_join_all(claims).await.map(drop)
    }

    async fn claim(&self, hash: &KeyHash, account: &AccountId) -> Result<(), CommitError> {
        let mut stale = String::new();
        for _ in 0..CLAIM_TRIES {
            let Some(other) = self.try_claim(hash, account, stale).await? else { return Ok(()) };
            if self.holds(&other, hash).await? {
                return Err(CommitError::KeyTaken);
            }
            stale = other.entry;
        }
        Err(CommitError::KeyTaken)
    }

    /// One try; returns the entry of another account that stands in the way.
    async fn try_claim(
        &self,
        hash: &KeyHash,
        account: &AccountId,
        stale: String,
    ) -> Result<Option<Other>, CommitError> {
        let bucket = format!("{:02x}", bucket_of(account));
        let (key, arguments) = ([self.keys.owner(hash)], [account.to_string(), bucket, stale]);
        let by = (&self.link, self.deadline());
        let answer = self.scripts.run(by, &self.scripts.claim, &key, &arguments).await;
        let mut answer = reply::list(answer.map_err(|fault| fault.about(account))?).into_iter();
        let Some(entry) = answer.next().and_then(bytes) else { return Ok(None) };
        let entry = String::from_utf8_lossy(&entry).into_owned();
        let now = reply::time(answer.next(), answer.next()).unwrap_or(Timestamp::UNIX_EPOCH);
        let claimed = entry.split(' ').nth(1).and_then(|at| Timestamp::from_microsecond(at.parse().ok()?).ok());
        let claimed_for = now.duration_since(claimed.unwrap_or(Timestamp::UNIX_EPOCH));
        Ok(Some(Other { account: account_in(&entry), entry, claimed_for }))
    }

    /// Whether another account has a key, or is about to.
    async fn holds(&self, other: &Other, hash: &KeyHash) -> Result<bool, CommitError> {
        let Some(account) = &other.account else { return Ok(false) };
        if other.claimed_for.abs() < CLAIM_AHEAD_MAX {
            return Ok(true);
        }
        match self.load(account).await {
            Ok(loaded) => Ok(loaded.is_some_and(|loaded| loaded.head.value.hashes().any(|there| there == *hash))),
            Err(StoreError::Broken { .. }) => Ok(true), // nobody can say: it stays where it is
            Err(error) => Err(error.into()),
        }
    }

    /// Releases the keys that a head document had before and has no more. An entry that stays is stale, no more.
    pub(super) async fn release_all(&self, head: &Account, before: &str, now: Timestamp) {
        let Ok(before) = serde_json::from_str::<Account>(before) else { return };
        let kept: HashSet<KeyHash> = head.hashes().collect();
        let gone = before.hashes().filter(|hash| !kept.contains(hash)).map(|hash| async move {
            let (key, by) = ([self.keys.owner(&hash)], (&self.link, self.deadline()));
            let arguments = [head.id.to_string(), now.as_microsecond().to_string()];
            self.scripts.run(by, &self.scripts.release, &key, &arguments).await
        });
        for outcome in join_all(gone).await {
            if let Err(fault) = outcome {
                tracing::warn!(account = %head.id, why = %StoreError::from(fault), "a stale entry stays in the index of keys");
            }
        }
    }

    /// Makes the index complete once for these servers: one of them may have lost entries whose accounts lie on another.
    pub(super) fn index_for(self: &Arc<Self>, servers: &Servers) {
        let mut digest = Sha256::new();
        servers.0.iter().for_each(|server| digest.update(server.as_str()));
        let name: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut indexed = self.index.0.lock().unwrap_or_else(PoisonError::into_inner);
        if indexed.as_ref() != Some(&name) {
            *indexed = Some(name.clone());
            let shared = Arc::clone(self);
            tokio::spawn(async move { shared.rebuild(&name).await });
        }
    }

    async fn rebuild(&self, servers: &str) {
        for _ in 0..REBUILD_TRIES {
            match self.try_rebuild(servers).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "the index of keys could not be written anew; it is tried again"),
            }
            tokio::time::sleep(REBUILD_PAUSE).await;
        }
        *self.index.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn try_rebuild(&self, servers: &str) -> Result<(), StoreError> {
        let mut question = cmd("GET");
        question.arg(self.keys.indexed());
        if reply::text(self.link.ask(&question).await?).as_deref() == Some(servers) {
            return Ok(());
        }
        let (mut after, mut entries) = (None, 0_usize);
        loop {
            let page = self.heads(after.as_ref()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let heads = page.iter().filter_map(|(_, body)| serde_json::from_str::<Account>(body.as_deref()?).ok());
            for head in heads {
                entries += head.hashes().count();
                match self.claim_all(&head).await {
                    Ok(()) => {}
                    Err(CommitError::Store(error)) => return Err(error),
                    Err(error) => tracing::warn!(account = %head.id, %error, "a key of two accounts opens only one"),
                }
            }
        }
        let mut note = cmd("SET");
        note.arg(self.keys.indexed()).arg(servers);
        self.link.ask(&note).await?;
        tracing::info!(entries, "the index of keys is complete");
        Ok(())
    }
}
