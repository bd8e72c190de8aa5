//! Who changes an account waits for whoever changes it already.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::domain::id::AccountId;

/// Changes of one account are made one after the other; accounts are dealt to so many queues.
const QUEUES: usize = 64;
/// How long a change waits for those before it.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(10);

/// Who changes an account at one gateway waits for the others there: many at once would only meet conflicts. What other
/// gateways change meanwhile is a conflict as before.
pub(super) struct Queues(Vec<Mutex<()>>, RandomState);

impl Queues {
    pub(super) fn new() -> Self {
        Self((0..QUEUES).map(|_| Mutex::new(())).collect(), RandomState::new())
    }

    /// Waits for this change's turn; `None`: for too long.
    pub(super) async fn turn(&self, account: &AccountId) -> Option<MutexGuard<'_, ()>> {
        let queues = u64::try_from(self.0.len()).ok()?;
        let number = usize::try_from(self.1.hash_one(account).checked_rem(queues)?).ok()?;
        tokio::time::timeout(QUEUE_TIME_MAX, self.0.get(number)?.lock()).await.ok()
    }
}
