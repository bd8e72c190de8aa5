//! Near the end of a pool, what is left may lie idle at one gateway while another refuses calls. The one that needs it
//! asks the others by way of the store's notices; each gives back what it can do without, and says so.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::Receiver;

use super::Ledger;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::pool::Pool;
use crate::ports::gateways::Notice;
use crate::service::supply::LocalPool;

/// How long one who needs units waits for the answers of those who hold some, each time it asks.
const RECALL_WAIT: Duration = Duration::from_millis(100);
/// How often it asks: a notice may be lost, a holder busy.
const RECALLS_MAX: usize = 3;
/// What is given back for one may be taken by another before it is here: so often whoever holds units then is asked.
const ROUNDS_MAX: usize = 3;

/// What one exchange has asked others for.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    leases: BTreeSet<(Incarnation, u64)>,
    rounds: usize,
    doubtful: bool,
}

impl Recalled {
    /// Whether somebody who holds units was not asked, or has not answered.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }
}

impl Ledger {
    /// Asks those who hold units by leases that they were not asked for yet to give back what they can do without; more
    /// than once only while a call waits for it. Returns whether anybody was asked.
    pub(super) async fn recall(&self, pool: &LocalPool, document: &Pool, recalled: &mut Recalled) -> bool {
        let mut leases = document.leases_of_others(&self.parts.desk.by);
        leases.retain(|lease| !recalled.leases.contains(lease));
        if leases.is_empty() {
            return false;
        }
        if recalled.rounds > 0 && (recalled.rounds >= ROUNDS_MAX || pool.waiting() == 0) {
            recalled.doubtful = true;
            return false;
        }
        recalled.rounds += 1;
        let mut holders: Vec<_> = leases.iter().map(|(holder, _)| holder.clone()).collect();
        holders.dedup();
        recalled.leases.extend(leases);
        recalled.doubtful |= !self.ask(pool, holders).await;
        true
    }

    /// Asks these; returns whether all have answered.
    async fn ask(&self, pool: &LocalPool, mut holders: Vec<Incarnation>) -> bool {
        let desk = &self.parts.desk;
        let mut notices = desk.store.changes();
        self.parts.metrics.ledger.recalls.inc();
        for _ in 0..RECALLS_MAX {
            let (account, product) = (pool.account.clone(), pool.product.clone());
            if let Err(error) = desk.store.notify(Notice::Recall { account, product, by: desk.by.clone() }).await {
                tracing::debug!(%error, "other gateways could not be asked for units");
                return false;
            }
            let answered = tokio::time::timeout(RECALL_WAIT, answers(&mut notices, pool, &mut holders));
            if let Ok(all) = answered.await {
                return all;
            }
        }
        false // whoever has not answered by then is silent: what it holds is not to be had now
    }

    /// Gives back what can be done without: all if the pool is idle, half if it is busy. Answers when that is booked.
    pub(super) async fn answer_recall(&self, account: AccountId, product: ProductId) {
        let entry = self.pools.get(&(account.clone(), product.clone())).map(|entry| std::sync::Arc::clone(&entry));
        if let Some(entry) = entry {
            let given = entry.pool.give_up(entry.is_idle(Instant::now()));
            if given > 0 && !self.exchange(&entry).await {
                return; // nothing is booked: the one who asks waits in vain, but not for long
            }
        }
        let notice = Notice::Answered { account, product, by: self.parts.desk.by.clone() };
        if let Err(error) = self.parts.desk.store.notify(notice).await {
            tracing::debug!(%error, "a recall could not be answered");
        }
    }
}

/// Waits until all holders have answered; returns whether they have, as far as is known.
async fn answers(notices: &mut Receiver<Notice>, pool: &LocalPool, holders: &mut Vec<Incarnation>) -> bool {
    while !holders.is_empty() {
        match notices.recv().await {
            Ok(Notice::Answered { account, product, by }) if account == pool.account && product == pool.product => {
                holders.retain(|holder| *holder != by);
            }
            Ok(_) => {}
            Err(_) => return false, // an answer may have been missed
        }
    }
    true
}
