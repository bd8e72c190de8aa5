//! The pools whose use by ended runs is not in the books yet. A start does not wait for all of them where there are very
//! many; but what such a run held is neither for sale nor used up, so a call that finds nothing else waits until its pool
//! is booked, and its pool comes first.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::domain::id::{AccountId, ProductId};

type PoolKey = (AccountId, ProductId);

/// Pools that are still to be booked.
#[derive(Debug, Default)]
pub struct Unbooked {
    inner: Mutex<Inner>,
    /// Told of pools that calls have waited for.
    booked: OnceLock<UnboundedSender<PoolKey>>,
}

#[derive(Debug, Default)]
struct Inner {
    open: HashSet<PoolKey>,
    /// Those that calls wait for.
    wanted: HashSet<PoolKey>,
    /// The same in the order in which they are to be booked, without those that were begun.
    next: VecDeque<PoolKey>,
}

impl Unbooked {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner) // plain values
    }

    /// Who is told when a pool is booked that was wanted. Only the first caller is.
    pub fn tell(&self, booked: UnboundedSender<PoolKey>) {
        let _ = self.booked.set(booked);
    }

    /// These are to be booked, too.
    pub fn add<'a>(&self, pools: impl Iterator<Item = &'a PoolKey>) {
        self.inner().open.extend(pools.cloned());
    }

    /// Lets a pool come first, if it is still to be booked; returns whether it is.
    pub fn want(&self, pool: &PoolKey) -> bool {
        let mut inner = self.inner();
        let open = inner.open.contains(pool);
        if open && inner.wanted.insert(pool.clone()) {
            inner.next.push_back(pool.clone());
        }
        open
    }

    /// The pool that is wanted longest.
    pub fn next_wanted(&self) -> Option<PoolKey> {
        self.inner().next.pop_front()
    }

    /// It is in the books.
    pub fn remove(&self, pool: &PoolKey) {
        let mut inner = self.inner();
        inner.open.remove(pool);
        if inner.wanted.remove(pool)
            && let Some(booked) = self.booked.get()
        {
            let _ = booked.send(pool.clone()); // fails only while the process stops
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn pool(account: &str) -> PoolKey {
        (AccountId::new(account).unwrap(), ProductId::new("chat").unwrap())
    }

    #[test]
    fn pools_that_are_wanted_come_first_and_those_who_wait_are_told() {
        let (unbooked, (told, mut heard)) = (Unbooked::default(), mpsc::unbounded_channel());
        unbooked.tell(told);
        unbooked.add([pool("a"), pool("b"), pool("c")].iter());
        assert!(!unbooked.want(&pool("d")));
        assert!(unbooked.want(&pool("c")) && unbooked.want(&pool("b")) && unbooked.want(&pool("c")));
        assert_eq!([unbooked.next_wanted(), unbooked.next_wanted()], [Some(pool("c")), Some(pool("b"))]);
        assert_eq!(unbooked.next_wanted(), None);
        assert!(unbooked.want(&pool("c")), "begun, not booked");
        for account in ["a", "c", "b"] {
            unbooked.remove(&pool(account));
        }
        assert_eq!([heard.try_recv().ok(), heard.try_recv().ok()], [Some(pool("c")), Some(pool("b"))]);
        assert!(heard.try_recv().is_err(), "nobody wanted the other");
        assert!(!unbooked.want(&pool("c")));
    }
}
