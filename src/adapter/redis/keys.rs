//! The names of all keys. Accounts are dealt to 256 buckets; everything that one commit touches has its bucket in
//! braces, so that a Cluster keeps it together. `docs/store.md` says what each key holds.

use sha2::{Digest, Sha256};

use crate::domain::id::AccountId;
use crate::domain::key::KeyHash;

/// How many buckets there are. Fixed for ever: another number would look for accounts in other places.
pub(super) const BUCKETS: usize = 256;
/// The bucket that holds the list of live gateways.
pub(super) const REGISTRY: u8 = 0;

/// The names of one installation's keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

/// An account's bucket: the first byte of its id's SHA-256. `printf ID | sha256sum | cut -c1-2` says it too.
pub(super) fn bucket_of(account: &AccountId) -> u8 {
    Sha256::digest(account.as_str()).first().copied().unwrap_or_default()
}

/// All buckets.
pub(super) fn buckets() -> impl Iterator<Item = u8> {
    0..=u8::MAX
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What every key begins with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn of_bucket(&self, bucket: u8, name: &str) -> String {
        format!("{}:{{{bucket:02x}}}:{name}", self.prefix)
    }

    fn of_account(&self, name: &str, account: &AccountId) -> String {
        format!("{}:{{{:02x}}}:{name}:{account}", self.prefix, bucket_of(account))
    }

    /// Hash: the bucket's epoch, and which gateways have checked in.
    pub(super) fn server(&self, bucket: u8) -> String {
        self.of_bucket(bucket, "server")
    }

    /// Sorted set: the ids of the bucket's accounts.
    pub(super) fn accounts(&self, bucket: u8) -> String {
        self.of_bucket(bucket, "accounts")
    }

    /// Stream: events of the bucket's accounts.
    pub(super) fn outbox(&self, bucket: u8) -> String {
        self.of_bucket(bucket, "outbox")
    }

    /// Set: the ids of all events that the outbox has had.
    pub(super) fn events(&self, bucket: u8) -> String {
        self.of_bucket(bucket, "events")
    }

    /// Sorted set: used signatures whose names begin with the bucket's byte, by the moment at which they are over.
    pub(super) fn signatures(&self, bucket: u8) -> String {
        self.of_bucket(bucket, "signatures")
    }

    /// Something to try commands on.
    pub(super) fn probe(&self, name: &str) -> String {
        self.of_bucket(REGISTRY, &format!("probe:{name}"))
    }

    /// Sorted set: live gateways, by the time of their last heartbeat.
    pub(super) fn gateways(&self) -> String {
        self.of_bucket(REGISTRY, "gateways")
    }

    /// String: an account's head document.
    pub(super) fn account(&self, account: &AccountId) -> String {
        self.of_account("account", account)
    }

    /// Hash: an account's pool documents, by product.
    pub(super) fn pools(&self, account: &AccountId) -> String {
        self.of_account("pools", account)
    }

    /// Hash: the stamps of an account's documents, and who has the turn at a pool.
    pub(super) fn stamps(&self, account: &AccountId) -> String {
        self.of_account("stamps", account)
    }

    /// List: an account's packages that have ended, latest first.
    pub(super) fn ended(&self, account: &AccountId) -> String {
        self.of_account("ended", account)
    }

    /// String: whose key it is. In a slot of its own, because whoever asks does not know the account yet.
    pub(super) fn owner(&self, hash: &KeyHash) -> String {
        format!("{}:key:{hash}", self.prefix)
    }

    /// String: the servers for which the index of keys is known to be complete.
    pub(super) fn indexed(&self) -> String {
        self.of_bucket(REGISTRY, "indexed")
    }

    /// The channel of notices.
    pub(super) fn notices(&self) -> String {
        format!("{}:notices", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(account: &str, bucket: u8) {
        assert_eq!(bucket_of(&AccountId::new(account).unwrap()), bucket, "{account}");
    }

    /// Other buckets would lose every account that is there.
    #[test]
    fn an_accounts_bucket_never_changes() {
        check("acme", 0x82);
        check("a", 0xca);
        check("buyer-1", 0x2d);
    }

    #[test]
    fn keys_can_be_read() {
        let (keys, account) = (Keys::new("shop"), AccountId::new("acme").unwrap());
        assert_eq!(keys.account(&account), "shop:{82}:account:acme");
        assert_eq!(keys.pools(&account), "shop:{82}:pools:acme");
        assert_eq!(keys.server(7), "shop:{07}:server");
        assert_eq!(keys.owner(&KeyHash([0xab; 32])), format!("shop:key:{}", "ab".repeat(32)));
        assert_eq!(keys.notices(), "shop:notices");
    }
}
