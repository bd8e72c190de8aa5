//! All accounts of a store as text, and back into a store: for backups, and to move from one store to another. One JSON
//! line an account, between a line that says what it is and one that says that it is whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::desk::Desk;
use crate::domain::account::Account;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::package::Package;
use crate::domain::pool::Pool;
use crate::ports::account_store::{AccountStore, Commit, CommitError, LIST_MAX, Loaded, Stamp, StoreError};

/// What this program writes and reads.
const VERSION: u32 = 1;
/// Packages of a history that are written by one commit.
const HISTORY_CHUNK: usize = 100;
/// How often a commit is tried: the first reply tells the store's time.
const COMMIT_TRIES: usize = 3;

/// Why accounts were not read or written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The store did not answer.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The store did not take an account.
    #[error("account {account} was not written: {why}")]
    Commit {
        /// Which.
        account: AccountId,
        /// Why.
        why: CommitError,
    },
    /// The file could not be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
    /// The file is not what it should be.
    #[error("line {line}: {reason}")]
    Bad {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The store has something else already.
    #[error("account {0} is in the store already, and is not the same there; nothing of it was changed")]
    Differs(AccountId),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moved {
    /// Accounts in the file.
    pub accounts: usize,
    /// Of those, accounts that were not in the store, or not whole.
    pub written: usize,
    /// Accounts that cannot be read, and are not in the file.
    pub broken: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    tollgate_store: u32,
    made_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    accounts: usize,
    /// Of all lines before.
    sha256: String,
}

/// An account, whole.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    account: Account,
    pools: Vec<Pool>,
    /// Latest first.
    ended: Vec<Past>,
}

/// A package that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Past {
    product: ProductId,
    package: Package,
}

/// Writes all accounts, each as one moment has it.
///
/// # Errors
/// When the store or the file fails. Accounts that cannot be read are named in the answer, and left out.
pub async fn write_out(store: &dyn AccountStore, now: Timestamp, out: &mut dyn Write) -> Result<Moved, DumpError> {
    let mut lines = Lines { out, hash: Sha256::new() };
    lines.add(&First { tollgate_store: VERSION, made_at: now })?;
    let (mut moved, mut after) = (Moved::default(), None);
    loop {
        let page = store.list(after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for summary in page {
            match read_account(store, &summary.id).await {
                Ok(Some(entry)) => {
                    lines.add(&entry)?;
                    moved.accounts += 1;
                }
                Ok(None) => {}
                Err(error @ StoreError::Broken { .. }) => moved.broken.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    let sha256 = hex(lines.hash.clone());
    lines.add(&Last { accounts: moved.accounts, sha256 })?;
    lines.out.flush()?;
    Ok(moved)
}

/// Brings all accounts of a file into a store. What is there already and the same is left as it is, so that an
/// interrupted run can be repeated; what is there and differs is an error. At the end all is read again and compared.
///
/// # Errors
/// When the file is not whole (then nothing is written), or the store fails or has something else.
pub async fn read_in(desk: &Desk, path: &Path) -> Result<Moved, DumpError> {
    let mut moved = Moved { accounts: check(path)?, ..Moved::default() };
    for entry in entries(path)? {
        let entry = entry?;
        if read_account(&*desk.store, &entry.account.id).await?.is_none_or(|there| !there.same_as(&entry)) {
            write_account(desk, &entry).await?;
            moved.written += 1;
        }
    }
    for entry in entries(path)? {
        let entry = entry?;
        let there = read_account(&*desk.store, &entry.account.id).await?;
        if there.is_none_or(|there| !there.same_as(&entry)) {
            return Err(DumpError::Differs(entry.account.id));
        }
    }
    Ok(moved)
}

struct Lines<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Lines<'_> {
    fn add(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.out.write_all(&text)
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file is whole; how many accounts it has.
///
/// # Errors
/// When it cannot be read, or is not.
pub fn check(path: &Path) -> Result<usize, DumpError> {
    let (mut hash, mut before, mut number) = (Sha256::new(), None::<String>, 0);
    for line in BufReader::new(File::open(path)?).lines() {
        if let Some(before) = before.replace(line?) {
            number += 1;
            hash.update(before.as_bytes());
            hash.update(b"\n");
        }
    }
    let bad = |reason: &str| DumpError::Bad { line: number + 1, reason: reason.to_owned() };
    let last = before.and_then(|line| serde_json::from_str::<Last>(&line).ok());
    let last = last.ok_or_else(|| bad("not the end of a backup: the file is cut off, or is something else"))?;
    if last.sha256 != hex(hash) {
        return Err(bad("the lines before have been changed since the backup was made"));
    }
    let found = entries(path)?.try_fold(0, |found, entry| entry.map(|_| found + 1))?;
    if found == last.accounts { Ok(found) } else { Err(bad("not the number of accounts that are here")) }
}

/// The accounts of a file.
fn entries(path: &Path) -> Result<impl Iterator<Item = Result<Entry, DumpError>> + use<>, DumpError> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    let first = lines.next().transpose()?.and_then(|line| serde_json::from_str::<First>(&line).ok());
    if first.is_none_or(|first| first.tollgate_store != VERSION) {
        let reason = format!("not the beginning of a backup of version {VERSION}");
        return Err(DumpError::Bad { line: 1, reason });
    }
    let entry = |(index, line): (usize, io::Result<String>)| {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(error.into())),
        };
        if serde_json::from_str::<Last>(&line).is_ok() {
            return None;
        }
        let read = serde_json::from_str(&line);
        Some(read.map_err(|error| DumpError::Bad { line: index + 2, reason: error.to_string() }))
    };
    Ok(lines.enumerate().map_while(entry))
}

impl Entry {
    fn same_as(&self, other: &Self) -> bool {
        self.account == other.account && self.pools == other.pools && self.ended == other.ended
    }
}

async fn read_account(store: &dyn AccountStore, id: &AccountId) -> Result<Option<Entry>, StoreError> {
    let Some(Loaded { head, pools, .. }) = store.load(id).await? else { return Ok(None) };
    let pools = pools.into_values().map(|pool| pool.value).collect();
    Ok(Some(Entry { account: head.value, pools, ended: history(store, id).await? }))
}

/// All packages that have ended, latest first.
async fn history(store: &dyn AccountStore, id: &AccountId) -> Result<Vec<Past>, StoreError> {
    let mut ended: Vec<Past> = Vec::new();
    loop {
        let page = store.ended_before(id, ended.len()).await?;
        let whole = page.len() < LIST_MAX;
        ended.extend(page.into_iter().map(|(product, package)| Past { product, package }));
        if whole {
            return Ok(ended);
        }
    }
}

/// Writes what is missing of an account, unless something of it differs.
async fn write_account(desk: &Desk, entry: &Entry) -> Result<(), DumpError> {
    let id = &entry.account.id;
    if desk.load(id).await?.is_none() {
        commit(desk, entry, None, &[]).await?;
    }
    let there = desk.load(id).await?;
    let there = there.filter(|there| there.head.value == entry.account);
    let there = there.ok_or_else(|| DumpError::Differs(id.clone()))?;
    let known = |product: &ProductId| entry.pools.iter().any(|pool| pool.product == *product);
    if there.pools.keys().any(|product| !known(product)) {
        return Err(DumpError::Differs(id.clone()));
    }
    let forgotten = history(&*desk.store, id).await? != entry.ended;
    for pool in &entry.pools {
        let mut expected = there.pools.get(&pool.product).map(|there| there.stamp);
        if there.pools.get(&pool.product).is_some_and(|there| there.value != *pool) {
            return Err(DumpError::Differs(id.clone()));
        }
        if expected.is_none() {
            expected = commit(desk, entry, Some((pool, None)), &[]).await?;
        }
        let past = entry.ended.iter().rev().filter(|past| forgotten && past.product == pool.product);
        let past: Vec<Package> = past.map(|past| past.package.clone()).collect();
        for chunk in past.chunks(HISTORY_CHUNK) {
            expected = commit(desk, entry, Some((pool, expected)), chunk).await?;
        }
    }
    Ok(())
}

/// One commit: of the head if no pool is given. Returns the document's new stamp.
async fn commit(
    desk: &Desk,
    entry: &Entry,
    pool: Option<(&Pool, Option<Stamp>)>,
    ended: &[Package],
) -> Result<Option<Stamp>, DumpError> {
    let account = entry.account.id.clone();
    let head = if pool.is_none() { Some(desk.write(None, entry.account.clone())) } else { None };
    let pool = pool.map(|(pool, expected)| desk.write(expected, pool.clone()));
    let stamp = pool.as_ref().map(|write| write.stamp);
    let mut commit = Commit {
        account,
        head,
        pool,
        ended: ended.to_vec(),
        events: Vec::new(),
        durable: true,
        believed: desk.believed(None),
        grants: false,
        by: desk.by.clone(),
        turn: false,
    };
    let mut tries = 1;
    loop {
        match desk.commit(commit.clone()).await {
            Ok(()) => return Ok(stamp),
            Err(CommitError::TimeOff(_)) if tries < COMMIT_TRIES => tries += 1,
            Err(CommitError::Store(StoreError::Unavailable(_))) if tries < COMMIT_TRIES => tries += 1,
            Err(why) => return Err(DumpError::Commit { account: commit.account, why }),
        }
        commit.believed = desk.believed(None);
    }
}

#[cfg(test)]
mod tests;
