//! The books as an audit needs them: all packages, those that have ended too, and what gateways hold.

use std::collections::{BTreeMap, HashMap};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::domain::amount::Units;
use crate::domain::id::{AccountId, Incarnation, PackageId, ProductId};
use crate::domain::lease::HeldLeases;
use crate::domain::package::Package;
use crate::domain::pool::Pool;
use crate::ports::account_store::{AccountStore, LIST_MAX, StoreError};

/// Accounts that are read at one time.
const READ_AT_ONCE: usize = 64;

/// A package in the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// What it pays for.
    pub product: ProductId,
    /// Where its units stand.
    pub package: Package,
    /// It has left its document for the history.
    pub ended: bool,
}

impl Booked {
    /// What is booked as used, beyond what was bought too.
    pub fn used(&self) -> Units {
        self.package.settled.saturating_add(self.package.overrun)
    }
}

/// What one run of a gateway holds, by account and product.
pub type HeldByRun = HashMap<AccountId, HashMap<ProductId, HeldLeases>>;

/// All accounts at (nearly) one moment.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// All packages.
    pub packages: BTreeMap<(AccountId, PackageId), Booked>,
    /// Use that waits for its package.
    pub unplaced: BTreeMap<(AccountId, PackageId), Units>,
    /// What gateways hold, or held lately.
    pub held: HashMap<Incarnation, HeldByRun>,
    /// Accounts that cannot be read, and why.
    pub broken: Vec<String>,
}

impl Books {
    /// Reads them all. Each account is as one moment has it.
    ///
    /// # Errors
    /// When the store does not answer. Accounts that cannot be read are named in the answer.
    pub async fn read(store: &dyn AccountStore) -> Result<Self, StoreError> {
        let (mut books, mut after) = (Self::default(), None);
        loop {
            let page = store.list(after).await?;
            let Some(last) = page.last() else { return Ok(books) };
            after = Some(last.id.clone());
            let accounts = page.into_iter().map(|summary| async move { account(store, &summary.id).await });
            let mut accounts = stream::iter(accounts).buffered(READ_AT_ONCE);
            loop {
                match accounts.try_next().await {
                    Ok(Some((pools, ended))) => books.add(pools, ended),
                    Ok(None) => break,
                    Err(error @ StoreError::Broken { .. }) => books.broken.push(error.to_string()),
                    Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_))) => return Err(error),
                }
            }
        }
    }

    /// Adds an account. A package that was ending meanwhile is in both: what the history says is the later.
    pub fn add(&mut self, pools: Vec<Pool>, ended: Vec<(AccountId, ProductId, Package)>) {
        for pool in pools {
            let (account, product) = (pool.account, pool.product);
            for package in pool.packages {
                let booked = Booked { product: product.clone(), package, ended: false };
                self.packages.insert((account.clone(), booked.package.id.clone()), booked);
            }
            for (package, unplaced) in pool.unplaced {
                self.unplaced.insert((account.clone(), package), unplaced.used);
            }
            for (run, held) in pool.held {
                let of_account = self.held.entry(run).or_default().entry(account.clone()).or_default();
                of_account.insert(product.clone(), held);
            }
        }
        for (account, product, package) in ended {
            self.packages.insert((account, package.id.clone()), Booked { product, package, ended: true });
        }
    }
}

type Read = (Vec<Pool>, Vec<(AccountId, ProductId, Package)>);

async fn account(store: &dyn AccountStore, id: &AccountId) -> Result<Read, StoreError> {
    // The documents first: a package that ends between the two is seen twice rather than never.
    let loaded = store.load(id).await?;
    let pools = loaded.map(|loaded| loaded.pools.into_values().map(|pool| pool.value).collect());
    let mut ended = Vec::new();
    loop {
        let page = store.ended_before(id, ended.len()).await?;
        let whole = page.len() < LIST_MAX;
        ended.extend(page.into_iter().map(|(product, package)| (id.clone(), product, package)));
        if whole {
            return Ok((pools.unwrap_or_default(), ended));
        }
    }
}
