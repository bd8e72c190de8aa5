//! The keys under `store`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::bounds::{StoreTimeout, URLS_MAX};
use crate::config::pattern;
use crate::config::read::Given;
use crate::config::scalar::Secret;

/// Where accounts are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawStore {
    /// A Redis (7.0 or newer) or Valkey server that several gateways share.
    pub(in crate::config) redis: Given<RawRedis>,
    /// Accepts a server that keeps nothing on its disk, neither AOF nor RDB: what it holds is gone when it ends.
    #[schemars(extend("default" = false))]
    pub(in crate::config) volatile: Given<bool>,
}

/// A Redis or Valkey server, and how it is used.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{ "required": ["url"] }, { "required": ["urls"] }]))]
pub(in crate::config) struct RawRedis {
    /// `redis://host:port/database`, `rediss://…` for TLS, or `unix:/path/to/socket`. Without user and password.
    #[schemars(transform = pattern::store_url)]
    pub(in crate::config) url: Given<String>,
    /// Several such URLs, of the Sentinels or of some nodes of a Cluster.
    #[schemars(transform = pattern::each(pattern::store_url))]
    #[schemars(extend("minItems" = 1, "maxItems" = URLS_MAX))]
    pub(in crate::config) urls: Given<Vec<Given<String>>>,
    /// The URLs are those of Sentinels.
    pub(in crate::config) sentinel: Given<RawSentinel>,
    /// The URLs are those of a Cluster's nodes.
    #[schemars(extend("default" = false))]
    pub(in crate::config) cluster: Given<bool>,
    /// What every key begins with, 1 to 64 characters of a-z A-Z 0-9 - _ . Installations that share a server have different ones.
    #[schemars(extend("default" = "tollgate"))]
    #[schemars(transform = pattern::name)]
    pub(in crate::config) prefix: Given<String>,
    /// Certificates, for `rediss://` alone.
    pub(in crate::config) tls: Given<RawRedisTls>,
    /// The ACL user. Default: the server's default user.
    #[schemars(transform = pattern::username)]
    pub(in crate::config) username: Given<String>,
    /// The user's password. A file it comes from must be the owner's alone (chmod 600).
    #[schemars(transform = pattern::secret)]
    pub(in crate::config) password: Given<Secret>,
    /// Longest wait for the answer to a command, 10ms to 10s.
    #[schemars(extend("default" = "250ms"))]
    pub(in crate::config) timeout: Given<StoreTimeout>,
    /// Says that the server loses no write that it has answered, in a failover neither, so that quota is granted at once after a restart.
    #[schemars(extend("default" = false))]
    pub(in crate::config) durable: Given<bool>,
}

/// The Sentinels that name the primary.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["master"]))]
pub(in crate::config) struct RawSentinel {
    /// The name under which they watch it, as in `sentinel monitor NAME …`.
    #[schemars(transform = pattern::master)]
    pub(in crate::config) master: Given<String>,
    /// The ACL user to the Sentinels. Default: their default user.
    #[schemars(transform = pattern::username)]
    pub(in crate::config) username: Given<String>,
    /// The password to the Sentinels. A file it comes from must be the owner's alone (chmod 600).
    #[schemars(transform = pattern::secret)]
    pub(in crate::config) password: Given<Secret>,
}

/// Certificates towards the server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRedisTls {
    /// PEM file with the only authorities that are trusted. Default: the public ones.
    #[schemars(transform = pattern::path)]
    pub(in crate::config) ca_file: Given<String>,
    /// PEM file with the certificate that the server is shown. Default: none is shown.
    #[schemars(transform = pattern::path)]
    pub(in crate::config) client_cert: Given<String>,
    /// PEM file with the key of that certificate; it must be the owner's alone (chmod 600).
    #[schemars(transform = pattern::path)]
    pub(in crate::config) client_key: Given<String>,
}
