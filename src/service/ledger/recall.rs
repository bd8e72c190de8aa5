//! Near the end of a pool, what is left may lie idle at one gateway while another refuses calls. The one that needs it
//! asks the others by way of the store's notices; each gives back what it can do without, and says so.

use std::time::{Duration, Instant};

use tokio::sync::broadcast::Receiver;

use super::Ledger;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::ports::gateways::Notice;
use crate::service::supply::LocalPool;

/// How long one who needs units waits for the answers of those who hold some, each time it asks.
const RECALL_WAIT: Duration = Duration::from_millis(100);
/// How often it asks: a notice may be lost, a holder busy.
const RECALLS_MAX: usize = 3;

impl Ledger {
    /// Asks those who hold units to give back what they can do without; returns whether all have answered.
    pub(super) async fn recall(&self, pool: &LocalPool, mut holders: Vec<Incarnation>) -> bool {
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
