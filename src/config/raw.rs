//! What a configuration file says, key by key. The comments here become the descriptions of the JSON Schema. What
//! the values must fulfil together is in `check`; the values that absent keys have are in [`defaults`].

mod limits;
mod listeners;
mod store;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use self::limits::{RawCallLimits, RawProductLimits};
pub(super) use self::listeners::{RawCertificate, RawListeners};
pub(super) use self::store::{RawRedis, RawRedisTls, RawSentinel, RawStore};

use super::bounds::*;
use super::pattern;
use super::read::Given;
use super::scalar::{Moment, Period, PriceText, Secret, ValidityText, Zone};
use crate::domain::billable::StatusRule;

/// What an absent key means, each in the unit of its key.
pub(super) mod defaults {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;

    pub(in super::super) const GATEWAY: &str = "gw-1";
    pub(in super::super) const DATA_LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
    pub(in super::super) const ADMIN_LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
    pub(in super::super) const CONNECTIONS: u64 = 10_000;
    pub(in super::super) const FAILED_AUTH_PER_MINUTE: u64 = 6_000;
    pub(in super::super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
    pub(in super::super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
    pub(in super::super) const CONNECTION_AGE: Duration = Duration::from_secs(3600);
    pub(in super::super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
    pub(in super::super) const BUFFERED_BYTES: u64 = 512 << 20;
    pub(in super::super) const SEGMENT_BYTES: u64 = 64 << 20;
    pub(in super::super) const KEEP: Duration = super::super::bounds::KEEP_MIN;
    pub(in super::super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);
    pub(in super::super) const IDLE_CONNECTIONS: u64 = 256;
    pub(in super::super) const SELLER_CONNECT: Duration = Duration::from_secs(5);
    /// A model may think for ten minutes.
    pub(in super::super) const SELLER_HEAD: Duration = Duration::from_secs(600);
    pub(in super::super) const SELLER_IDLE: Duration = Duration::from_secs(600);
    pub(in super::super) const SELLER_TOTAL: Duration = Duration::from_secs(3600);
    pub(in super::super) const BODY_MAX: u64 = 32 << 20;
    pub(in super::super) const CORS_MAX_AGE: Duration = Duration::from_secs(86_400);
    pub(in super::super) const SPOOL_ABOVE: u64 = 1 << 20;
    pub(in super::super) const SPOOLED_BYTES: u64 = 4 << 30;
    pub(in super::super) const USED_SIGNATURES: u64 = 1_000_000;
    pub(in super::super) const REDIS_PREFIX: &str = "tollgate";
    pub(in super::super) const REDIS_TIMEOUT: Duration = Duration::from_millis(250);
}

/// Configuration of one Tollgate gateway. `${VAR}`, `${VAR:-default}` and `${file:path}` stand for an environment
/// variable or a file's content inside any value; `$$` is a dollar. Relative paths begin at this file's folder.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tollgate configuration", extend("required" = ["data_dir", "admin", "secrets", "products"]))]
pub(super) struct Raw {
    /// This process's name in records; two gateways never share one.
    #[schemars(extend("default" = "gw-1"))]
    #[schemars(transform = pattern::id)]
    pub(super) gateway: Given<String>,
    /// Cores that serve calls, 1 to 256. Default: as many as the machine has.
    pub(super) workers: Given<Workers>,
    /// Folder of the journal, and of the embedded store.
    #[schemars(transform = pattern::path)]
    pub(super) data_dir: Given<String>,
    /// Where accounts are kept. Default: in a file of `data_dir`, for one gateway.
    pub(super) store: Given<RawStore>,
    /// Where the gateway listens.
    pub(super) listeners: Given<RawListeners>,
    /// Proxies before `listeners.data`.
    pub(super) proxies: Given<RawProxies>,
    /// The operators' side.
    pub(super) admin: Given<RawAdmin>,
    /// Keys of the gateway itself.
    pub(super) secrets: Given<RawSecrets>,
    /// How callers prove who they are.
    pub(super) credentials: Given<RawCredentials>,
    /// What is written where.
    pub(super) log: Given<RawLog>,
    /// Bounds of the data plane.
    pub(super) limits: Given<RawLimits>,
    /// The record of every metered call.
    pub(super) journal: Given<RawJournal>,
    /// Signed receipts for buyers. Default: none are given.
    pub(super) receipts: Given<RawReceipts>,
    /// How long open streams may go on after SIGTERM.
    #[schemars(extend("default" = "600s"))]
    pub(super) drain_timeout: Given<Period>,
    /// What is sold, at least one.
    #[schemars(extend("minItems" = 1, "maxItems" = PRODUCTS_MAX))]
    pub(super) products: Given<Vec<Given<RawProduct>>>,
    /// What can be bought.
    #[schemars(extend("default" = []))]
    #[schemars(extend("maxItems" = OFFERS_MAX))]
    pub(super) offers: Given<Vec<Given<RawOffer>>>,
}

/// Signed receipts for buyers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["key_id", "key"]))]
pub(super) struct RawReceipts {
    /// The name of the key in receipts; another key gets another name. 1 to 64 characters of a-z A-Z 0-9 - _ .
    #[schemars(transform = pattern::name)]
    pub(super) key_id: Given<String>,
    /// The private Ed25519 key in PEM, as `tollgate receipt keygen` makes it. Its file must be the owner's alone (chmod 600).
    #[schemars(transform = pattern::private_pem)]
    pub(super) key: Given<Secret>,
    /// Public keys that have signed earlier, so that their receipts can still be verified.
    #[schemars(extend("default" = []))]
    #[schemars(extend("maxItems" = EARLIER_KEYS_MAX))]
    pub(super) earlier: Given<Vec<Given<RawEarlierKey>>>,
}

/// A key that has signed earlier.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["id", "public_key"]))]
pub(super) struct RawEarlierKey {
    /// Its name in receipts.
    #[schemars(transform = pattern::name)]
    pub(super) id: Given<String>,
    /// The public Ed25519 key in PEM.
    #[schemars(transform = pattern::public_pem)]
    pub(super) public_key: Given<String>,
}

/// Proxies before `listeners.data` that are trusted to say where calls come from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawProxies {
    /// Their addresses, or ranges of them. Nobody else can choose the address under which allow-lists, limits, the
    /// access log and sellers know a client.
    #[schemars(extend("default" = []))]
    #[schemars(transform = pattern::each(pattern::network))]
    #[schemars(extend("maxItems" = TRUSTED_MAX))]
    pub(super) trusted: Given<Vec<Given<String>>>,
    /// The header to which they add whom they speak for; the other one is whatever the client sent, and is not read.
    #[schemars(extend("default" = "x-forwarded-for"))]
    pub(super) header: Given<RawProxyHeader>,
    /// Their connections begin with a header of the PROXY protocol, version 1 or 2; those without one are closed.
    #[schemars(extend("default" = false))]
    pub(super) proxy_protocol: Given<bool>,
}

/// A header in which proxies say whom they speak for.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum RawProxyHeader {
    XForwardedFor,
    Forwarded,
}

/// The operators' side.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["token"]))]
pub(super) struct RawAdmin {
    /// Opens the admin listener; at least 16 characters. A file it comes from must be the owner's alone (chmod 600).
    #[schemars(transform = pattern::token)]
    pub(super) token: Given<Secret>,
}

/// Keys of the gateway itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["hash_key"]))]
pub(super) struct RawSecrets {
    /// Keys the hashes of API keys, AppKeys and AppCodes; at least 16 bytes. Changing it makes all of them unknown.
    #[schemars(transform = pattern::own_key)]
    pub(super) hash_key: Given<Secret>,
    /// Encrypts the secrets of apps; at least 16 bytes. Default: a key made of `hash_key`.
    #[schemars(transform = pattern::own_key)]
    pub(super) seal_key: Given<Secret>,
    /// Keys that were `seal_key` before: they still open what they have encrypted.
    #[schemars(extend("default" = []))]
    #[schemars(transform = pattern::each(pattern::own_key))]
    #[schemars(extend("maxItems" = FORMER_KEYS_MAX))]
    pub(super) former_seal_keys: Given<Vec<Given<Secret>>>,
}

/// How callers prove who they are.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCredentials {
    /// Accepts AppCodes over connections without TLS, where whoever listens can copy them.
    #[schemars(extend("default" = false))]
    pub(super) allow_app_code_without_tls: Given<bool>,
    /// Other readings of a request under which a signature is accepted if the base rule does not fit.
    #[schemars(extend("default" = ["empty_hash", "raw_path", "encoded_sort"]))]
    pub(super) signature_fallbacks: Given<Vec<Given<RawFallback>>>,
}

/// A reading of a request besides the base rule.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawFallback {
    EmptyHash,
    RawPath,
    EncodedSort,
    LiteralPlus,
}

/// How a caller may prove who it is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawScheme {
    Signature,
    AppCode,
    ApiKey,
}

/// What is written where.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    /// Least severe level of the program's own messages, which go to standard error.
    #[schemars(extend("default" = "info"))]
    pub(super) level: Given<RawLevel>,
    /// One JSON line a call: `off`, `stdout`, or the path of a file, which holds a slash.
    #[schemars(extend("default" = "stdout"))]
    #[schemars(transform = pattern::access_log)]
    pub(super) access: Given<String>,
}

/// Severity of the program's own messages.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Bounds of the data plane.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    /// Open client connections, 1 to 1000000. Where one more comes, the one that has been without a call for longest is
    /// closed; if all have a call, it waits.
    #[schemars(extend("default" = 10000))]
    pub(super) connections: Given<Connections>,
    /// From a request head's first byte to its last.
    #[schemars(extend("default" = "10s"))]
    pub(super) head_timeout: Given<Period>,
    /// Between two requests of one connection, and for a client that reads nothing of its answer.
    #[schemars(extend("default" = "75s"))]
    pub(super) idle_timeout: Given<Period>,
    /// A connection that is older ends with its next answer, or, over HTTP/2, once its calls have: clients come back and
    /// are dealt to the core that has least to do.
    #[schemars(extend("default" = "1h"))]
    pub(super) connection_age: Given<Period>,
    /// Between two reads of a request body; a body that comes slower than 240 bytes a second for longer than this in all
    /// is refused as well.
    #[schemars(extend("default" = "30s"))]
    pub(super) body_timeout: Given<Period>,
    /// Request bodies held in memory at one time, over all calls; at least the largest `body_max`.
    #[schemars(extend("default" = "512MiB"))]
    pub(super) buffered_bytes: Given<BodyBytes>,
    /// A request body that is read for its signature goes to a temporary file of `data_dir` from this size on.
    #[schemars(extend("default" = "1MiB"))]
    pub(super) spool_above: Given<SpoolAbove>,
    /// Request bodies in such files at one time, over all calls.
    #[schemars(extend("default" = "4GiB"))]
    pub(super) spooled_bytes: Given<BodyBytes>,
    /// Failed authentications in a minute that are heard from one client address, and with one key, AppCode or AppKey;
    /// 1 to 1000000000.
    #[schemars(extend("default" = 6000))]
    pub(super) failed_auth_per_minute: Given<LimitCalls>,
    /// Used signatures that are remembered at one time for `replay_protection`, 256 to 16000000, over all gateways that
    /// share a store; with so many, further ones are refused until the oldest are over.
    #[schemars(extend("default" = 1000000))]
    pub(super) used_signatures: Given<UsedSignatures>,
}

/// The record of every metered call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawJournal {
    /// Size of one of its files, 256KiB to 1GiB.
    #[schemars(extend("default" = "64MiB"))]
    pub(super) segment_bytes: Given<SegmentBytes>,
    /// How long records are kept at least after they were written, 7d to 30d: from them comes back what a store has
    /// forgotten.
    #[schemars(extend("default" = "7d"))]
    pub(super) keep: Given<Keep>,
    /// What must be done with older records before they are removed. `exported`: they are in the books, and `tollgate
    /// usage export --mark` has shown their usage; `settled`: they are in the books; `never`: none is removed.
    #[schemars(extend("default" = "exported"))]
    pub(super) remove: Given<RawRemove>,
}

/// What must be done with old records before they are removed.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawRemove {
    Exported,
    Settled,
    Never,
}

/// One product: its route, its seller, its meter.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["id", "kind", "upstream"]))]
pub(super) struct RawProduct {
    /// Its name; one among products.
    #[schemars(transform = pattern::id)]
    pub(super) id: Given<String>,
    /// `llm`: OpenAI-compatible, under `/v1/infers/{deployment}/v1`, or under `/v1` by the body's `model`. `http`:
    /// any other API, by host and path.
    pub(super) kind: Given<RawKind>,
    /// llm: its segment in `/v1/infers/{deployment}/v1`. Default: the id.
    #[schemars(transform = pattern::deployment)]
    pub(super) deployment: Given<String>,
    /// llm: the model names that buyers use, each with the seller's own name for it, `~` for the same. Empty: every
    /// name passes as it is.
    #[schemars(extend("default" = {}))]
    #[schemars(transform = pattern::models)]
    #[schemars(extend("maxProperties" = MODELS_MAX))]
    pub(super) models: Given<BTreeMap<String, Given<Option<String>>>>,
    /// http: only calls to this host, without port. Default: any host.
    #[schemars(transform = pattern::host)]
    pub(super) host: Given<String>,
    /// http: only paths under this prefix, by whole segments. Default: every path of the host.
    #[schemars(transform = pattern::path_prefix)]
    pub(super) path: Given<String>,
    /// http: whether the prefix is taken off before forwarding.
    #[schemars(extend("default" = false))]
    pub(super) strip_path: Given<bool>,
    /// Who may call: those who prove who they are, or everybody.
    #[schemars(extend("default" = "keys"))]
    pub(super) access: Given<RawAccess>,
    /// How callers may prove who they are. Default: `[api_key]` for llm, `[signature, api_key]` for http.
    #[schemars(extend("minItems" = 1))]
    pub(super) accept: Given<Vec<Given<RawScheme>>>,
    /// Accepts signatures that leave the body out (`UNSIGNED-PAYLOAD`): such a body streams through, and can be swapped.
    #[schemars(extend("default" = false))]
    pub(super) unsigned_payload: Given<bool>,
    /// Accepts a signature once, at whichever gateway. Needs `signature` in `accept`.
    #[schemars(extend("default" = false))]
    pub(super) replay_protection: Given<bool>,
    /// Shows what was signed, names without values, when a signature does not fit.
    #[schemars(extend("default" = false))]
    pub(super) signature_debug: Given<bool>,
    /// Accepts an AppCode as this query parameter, too. Default: in headers alone.
    #[schemars(transform = pattern::parameter)]
    pub(super) app_code_query: Given<String>,
    /// What is counted: one unit a billable call, or nothing. Open access needs `none`.
    #[schemars(extend("default" = "calls"))]
    pub(super) meter: Given<RawMeter>,
    /// Where a buyer can get more; shown when a package is used up.
    #[schemars(transform = pattern::web_url)]
    pub(super) buy_url: Given<String>,
    /// The seller.
    pub(super) upstream: Given<RawUpstream>,
    /// How long the seller may take.
    pub(super) timeouts: Given<RawTimeouts>,
    /// Largest request body that is read whole, for its model or its signature; at most 1GiB.
    #[schemars(extend("default" = "32MiB"))]
    pub(super) body_max: Given<BodyMax>,
    /// What a charge becomes when the seller breaks off. Default: void for a plain answer shorter than announced,
    /// bill for a stream that had an event.
    pub(super) on_seller_break: Given<RawBreakRule>,
    /// What a charge survives once the client has the whole answer: the process's death (`os`) or a loss of power
    /// (`disk`, which makes the answer's end wait).
    #[schemars(extend("default" = "os"))]
    pub(super) durability: Given<RawDurability>,
    /// How many calls it gets, and how many each of its callers may make.
    pub(super) limits: Given<RawProductLimits>,
    /// Request header in which the buyer names its own user for the usage record. For an llm product it goes before the
    /// body's `user`, which is read anyway.
    #[schemars(transform = pattern::header)]
    pub(super) end_user_header: Given<String>,
    /// Seller's headers that reach the buyer besides the default ones: names, or prefixes that end in `*`.
    #[schemars(extend("default" = []))]
    #[schemars(transform = pattern::each(pattern::header_pattern))]
    pub(super) response_headers: Given<Vec<Given<String>>>,
    /// Whose pages may call it from a browser. Default: everybody's; the call needs its credential all the same.
    pub(super) cors: Given<RawCors>,
}

/// Whose pages may call a product from a browser.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCors {
    /// Origins as browsers send them, as in `https://app.example.com`; `*` alone: all; an empty list: none.
    #[schemars(extend("default" = ["*"]))]
    #[schemars(transform = pattern::each(pattern::origin))]
    #[schemars(extend("maxItems" = CORS_ENTRIES_MAX))]
    pub(super) origins: Given<Vec<Given<String>>>,
    /// Methods that a page may use; `*` alone: all.
    #[schemars(extend("default" = ["*"]))]
    #[schemars(transform = pattern::each(pattern::method))]
    #[schemars(extend("maxItems" = CORS_ENTRIES_MAX))]
    pub(super) methods: Given<Vec<Given<String>>>,
    /// The seller's headers that a page may read, besides the request id and the gateway's own.
    #[schemars(extend("default" = []))]
    #[schemars(transform = pattern::each(pattern::header))]
    #[schemars(extend("maxItems" = CORS_ENTRIES_MAX))]
    pub(super) exposed_headers: Given<Vec<Given<String>>>,
    /// How long a browser may remember a permission.
    #[schemars(extend("default" = "1d"))]
    pub(super) max_age: Given<Period>,
}

/// How calls find a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawKind {
    Llm,
    Http,
}

/// Who may call a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawAccess {
    Keys,
    Open,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawMeter {
    Calls,
    None,
}

/// What becomes of a charge when the seller breaks off.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawBreakRule {
    Bill,
    Void,
}

/// What a charge survives.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawDurability {
    Os,
    Disk,
}

/// The seller's address and what it needs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["base_url"]))]
pub(super) struct RawUpstream {
    /// `http://host:port/path` or `https://…`, without query and fragment.
    #[schemars(transform = pattern::base_url)]
    pub(super) base_url: Given<String>,
    /// The seller's credential, sent as `Authorization: Bearer`. A file it comes from must be the owner's alone.
    #[schemars(transform = pattern::bearer)]
    pub(super) api_key: Given<Secret>,
    /// Added to every request, over what the buyer sent.
    #[schemars(extend("default" = {}))]
    #[schemars(transform = pattern::headers)]
    #[schemars(extend("maxProperties" = HEADERS_MAX))]
    pub(super) headers: Given<BTreeMap<String, Given<Secret>>>,
    /// PEM file with the only authorities trusted for an https seller. Default: the public ones.
    #[schemars(transform = pattern::path)]
    pub(super) ca_file: Given<String>,
    /// Idle connections kept per core, 1 to 65536.
    #[schemars(extend("default" = 256))]
    pub(super) idle_connections: Given<IdleConnections>,
}

/// How long a seller may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTimeouts {
    /// To accept a connection.
    #[schemars(extend("default" = "5s"))]
    pub(super) connect: Given<Period>,
    /// From the request's last byte to the answer's head. At most `total`.
    #[schemars(extend("default" = "600s"))]
    pub(super) head: Given<Period>,
    /// Between two parts of the answer's body.
    #[schemars(extend("default" = "600s"))]
    pub(super) idle: Given<Period>,
    /// From the request's arrival to the answer's last byte.
    #[schemars(extend("default" = "3600s"))]
    pub(super) total: Given<Period>,
}

/// A purchasable specification of a product.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["id", "product", "kind", "calls", "validity"]))]
pub(super) struct RawOffer {
    /// Its name; one among offers.
    #[schemars(transform = pattern::id)]
    pub(super) id: Given<String>,
    /// The id of the product whose calls it grants.
    #[schemars(transform = pattern::id)]
    pub(super) product: Given<String>,
    /// `per_call`: a number of calls, paid once.
    pub(super) kind: Given<RawOfferKind>,
    /// How many calls it grants, 1 to 1000000000000.
    pub(super) calls: Given<PackageCalls>,
    /// How long they can be used, in calendar days, months or years: `30d`, `1mo`, `2y`.
    pub(super) validity: Given<ValidityText>,
    /// What a package of it costs, as in `49.90 CNY`: at most 9 places, and a currency of ISO 4217. Keys' budgets in money
    /// count by it. Default: no price.
    pub(super) price: Given<PriceText>,
    /// Whose midnight ends the validity.
    #[schemars(extend("default" = "UTC"))]
    pub(super) time_zone: Given<Zone>,
    /// Which answers count, from when on. Default: 2xx since ever.
    #[schemars(extend("default" = [{ "statuses": "success" }]))]
    #[schemars(extend("minItems" = 1, "maxItems" = RULES_MAX))]
    pub(super) billable: Given<Vec<Given<RawBillable>>>,
}

/// How an offer is sold.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum RawOfferKind {
    PerCall,
}

/// Which answers count, from a moment on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["statuses"]))]
pub(super) struct RawBillable {
    /// First moment at which it holds, with its offset. Default: since ever.
    pub(super) from: Given<Moment>,
    /// `success`: 2xx alone; `any`: every answer of the seller.
    pub(super) statuses: Given<StatusRule>,
}
