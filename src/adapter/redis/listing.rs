//! Pages of accounts, put together from all buckets, and an account's history.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::try_join_all;
use redis::cmd;

use super::Shared;
use super::keys::{bucket_of, buckets};
use super::reply;
use crate::adapter::documents::account_name;
use crate::domain::id::{AccountId, ProductId};
use crate::domain::package::Package;
use crate::ports::account_store::{AccountSummary, LIST_MAX, StoreError};

/// How many ids each bucket is asked for at a time: a page of [`LIST_MAX`] has about 4 of each.
const BUCKET_PAGE: usize = 16;
/// Entries of a history that are read for each that is asked for: a package is there twice only if the server had
/// forgotten its first end.
const READ_FOR_EACH: usize = 2;

/// An entry of an account's history, as it is kept.
#[derive(serde::Deserialize)]
struct Ended {
    product: ProductId,
    package: Package,
}

impl Shared {
    pub(super) async fn list(&self, after: Option<AccountId>) -> Result<Vec<AccountSummary>, StoreError> {
        let named = |(id, body): (AccountId, Option<String>)| {
            let name = body.and_then(|body| account_name(&body)).unwrap_or_default();
            AccountSummary { id, name }
        };
        Ok(self.heads(after.as_ref()).await?.into_iter().map(named).collect())
    }

    /// A page of accounts with the texts of their head documents, as far as they have one.
    pub(super) async fn heads(
        &self,
        after: Option<&AccountId>,
    ) -> Result<Vec<(AccountId, Option<String>)>, StoreError> {
        let ids = self.ids(after).await?;
        let mut by_bucket: BTreeMap<u8, Vec<&AccountId>> = BTreeMap::new();
        ids.iter().for_each(|id| by_bucket.entry(bucket_of(id)).or_default().push(id));
        let questions = by_bucket.values().map(|ids| async move {
            let mut question = cmd("MGET");
            for id in ids {
                question.arg(self.keys.account(id));
            }
            let bodies = reply::list(self.link.ask(&question).await?).into_iter().map(reply::text);
            Ok::<_, StoreError>(ids.iter().map(|id| (*id).clone()).zip(bodies).collect::<Vec<_>>())
        });
        let found: BTreeMap<_, _> = try_join_all(questions).await?.into_iter().flatten().collect();
        Ok(found.into_iter().collect())
    }

    /// The next ids, in their order, at most [`LIST_MAX`].
    async fn ids(&self, after: Option<&AccountId>) -> Result<Vec<AccountId>, StoreError> {
        let mut found = Vec::new();
        let mut after = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        loop {
            let pages = try_join_all(buckets().map(|bucket| self.ids_in(bucket, &after))).await?;
            // Beyond the last id of a bucket that has more, that bucket's next one may come first.
            let bound = pages.iter().filter(|page| page.len() == BUCKET_PAGE).filter_map(|page| page.last()).min();
            let bound = bound.cloned();
            let mut next: Vec<String> = pages.into_iter().flatten().collect();
            next.retain(|id| bound.as_ref().is_none_or(|bound| id <= bound));
            next.sort_unstable();
            found.extend(next.iter().filter_map(|id| AccountId::new(id).ok())); // others are not ours
            match bound {
                Some(bound) if found.len() < LIST_MAX => after = format!("({bound}"),
                _ => break,
            }
        }
        found.truncate(LIST_MAX);
        Ok(found)
    }

    async fn ids_in(&self, bucket: u8, after: &str) -> Result<Vec<String>, StoreError> {
        let mut question = cmd("ZRANGEBYLEX");
        question.arg(self.keys.accounts(bucket)).arg(after).arg("+").arg("LIMIT").arg(0).arg(BUCKET_PAGE);
        match self.link.ask(&question).await {
            Ok(ids) => Ok(reply::list(ids).into_iter().filter_map(reply::text).collect()),
            Err(super::Fault::Foreign(why)) => {
                tracing::error!(key = self.keys.accounts(bucket), why, "accounts of a bucket cannot be listed");
                Ok(Vec::new())
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// An account's ended packages before the latest so many, latest first.
    pub(super) async fn ended(
        &self,
        account: &AccountId,
        latest: usize,
    ) -> Result<Vec<(ProductId, Package)>, StoreError> {
        let wanted = latest.saturating_add(LIST_MAX);
        let mut question = cmd("LRANGE");
        question.arg(self.keys.ended(account)).arg(0).arg(wanted.saturating_mul(READ_FOR_EACH));
        let entries = self.link.ask(&question).await.map_err(|fault| fault.about(account))?;
        let (mut seen, mut packages) = (HashSet::new(), Vec::new());
        for entry in reply::list(entries) {
            let text = reply::text(entry).unwrap_or_default();
            let Ended { product, package } = serde_json::from_str(&text).map_err(|error| StoreError::Broken {
                account: account.clone(),
                document: "history".to_owned(),
                reason: error.to_string(),
            })?;
            if seen.insert(package.id.clone()) {
                packages.push((product, package));
            }
        }
        packages.truncate(wanted);
        Ok(packages.split_off(latest.min(packages.len())))
    }
}
