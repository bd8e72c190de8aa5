//! How much each key may hold. The rules in `check` hold files to it, and the JSON Schema tells it: it stands here once.

use std::time::Duration;

use super::scalar::{Count, PERIOD_MS_MAX, Period, Size};

/// Cores that serve calls.
pub(super) type Workers = Count<1, WORKERS_MAX>;
/// Client connections.
pub(super) type Connections = Count<1, 1_000_000>;
/// Used signatures: at least one for each of the store's parts; at most about 2 GiB of a Redis server's memory.
pub(super) type UsedSignatures = Count<256, 16_000_000>;
/// Calls that a limit can name.
pub(super) type LimitCalls = Count<1, 1_000_000_000>;
/// Calls of one package.
pub(super) type PackageCalls = Count<1, 1_000_000_000_000>;
/// Idle connections kept per core.
pub(super) type IdleConnections = Count<1, 65_536>;
/// Memory or files for request bodies.
pub(super) type BodyBytes = Size<{ 1 << 20 }, { 1 << 40 }>;
/// From which size on a body may be put into a file: each smaller one is held in memory.
pub(super) type SpoolAbove = Size<{ 4 << 10 }, { 1 << 30 }>;
/// A request body that a product may hold in memory.
pub(super) type BodyMax = Size<1, { 1 << 30 }>;
/// A journal file: room for some thousand records, and a start that reads it in seconds.
pub(super) type SegmentBytes = Size<{ 256 << 10 }, { 1 << 30 }>;
/// For how long records are kept.
pub(super) type Keep = Period<KEEP_MS_MIN, PERIOD_MS_MAX>;
/// Wait for a command of the store's server.
pub(super) type StoreTimeout = Period<10, 10_000>;

/// Most cores that serve calls.
pub(super) const WORKERS_MAX: u64 = 256;
/// Shortest time for which records are kept: a store's loss is repaired from the journals of the last 7 days, and for so
/// long there are receipts.
pub const KEEP_MIN: Duration = Duration::from_millis(KEEP_MS_MIN);
const KEEP_MS_MIN: u64 = 7 * 24 * 60 * 60 * 1000;

/// Most products of a gateway.
pub(super) const PRODUCTS_MAX: usize = 10_000;
/// Most offers of a gateway.
pub(super) const OFFERS_MAX: usize = 10_000;
/// Most dated rules of an offer.
pub(super) const RULES_MAX: usize = 100;
/// Most model names of a product.
pub(super) const MODELS_MAX: usize = 1000;
/// Most headers added to a request: half of what a request may have at all.
pub(super) const HEADERS_MAX: usize = 50;
/// Most entries of each list of a product's rule for pages.
pub(super) const CORS_ENTRIES_MAX: usize = 100;
/// Most proxies that are trusted: the list is gone through for each call.
pub(super) const TRUSTED_MAX: usize = 256;
/// Most certificates of one listener: each is looked at in a handshake.
pub(super) const CERTIFICATES_MAX: usize = 64;
/// Most Sentinels or nodes that are named.
pub(super) const URLS_MAX: usize = 64;
/// Most keys that have sealed before.
pub(super) const FORMER_KEYS_MAX: usize = 16;
/// Most keys that have signed receipts earlier.
pub(super) const EARLIER_KEYS_MAX: usize = 100;

/// Shortest admin token on a loopback address, in characters.
pub(super) const TOKEN_CHARS_MIN: usize = 16;
/// Shortest key of the gateway's own, in bytes.
pub(super) const KEY_BYTES_MIN: usize = 16;
/// The longest model name, in bytes.
pub(super) const MODEL_BYTES_MAX: usize = 256;
/// The longest deployment name, in bytes.
pub(super) const DEPLOYMENT_BYTES_MAX: usize = 64;
/// The longest name of a query parameter, in bytes.
pub(super) const PARAMETER_BYTES_MAX: usize = 64;
/// The longest name of an ACL user, in bytes.
pub(super) const USERNAME_BYTES_MAX: usize = 128;
/// The longest host name, in bytes (RFC 1035, 2.3.4).
pub(super) const HOST_BYTES_MAX: usize = 253;
