//! What every store does alike: documents as text, and whether a commit may be written. How they are kept is the
//! business of each store.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::domain::account::{ACCOUNT_VERSION, Account};
use crate::domain::id::{AccountId, ProductId};
use crate::domain::pool::{POOL_VERSION, Pool};
use crate::ports::account_store::{
    Commit, CommitError, DOCUMENT_BYTES_MAX, DOCUMENT_BYTES_WARN, Loaded, Stamp, Stamped, StoreError,
};
use crate::ports::gateways::ServerId;

/// Notices that a slow listener may be behind before it has to forget all it has cached.
pub(super) const NOTICES_KEPT: usize = 1_024;
/// The head document's name within its account.
pub(super) const HEAD: &str = "account";
/// What a pool document's name begins with; its product follows.
const POOL: &str = "pool/";

/// The name of a product's pool document within its account.
pub(super) fn pool_name(product: &ProductId) -> String {
    format!("{POOL}{product}")
}

/// A document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// Within its account.
    pub(super) name: String,
    /// Its state's name.
    pub(super) stamp: Stamp,
    /// Readable JSON.
    pub(super) body: String,
}

/// What is there of a document before a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) stamp: Stamp,
    pub(super) bytes: usize,
}

/// Whether a commit is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It fits what is there.
    Write,
    /// It is there already: its reply was lost.
    Repeated,
    /// Someone else was first, or there is no such account.
    Conflict,
}

/// Compares what a commit expects with what is there of the documents that it names.
pub(super) fn judge(commit: &Commit, head: Option<Present>, pool: Option<Present>) -> Verdict {
    let one = |present: Option<Present>, expected: Option<Stamp>, stamp: Stamp| match present {
        Some(present) if present.stamp == stamp => Verdict::Repeated,
        present if present.map(|present| present.stamp) == expected => Verdict::Write,
        Some(_) | None => Verdict::Conflict,
    };
    let of_head = commit.head.as_ref().map(|write| one(head, write.expected, write.stamp));
    let of_pool = commit.pool.as_ref().map(|write| one(pool, write.expected, write.stamp));
    match (of_head, of_pool) {
        (None, None | Some(Verdict::Write)) if head.is_none() => Verdict::Conflict,
        (None, None) => Verdict::Write,
        (Some(verdict), None) | (None, Some(verdict)) => verdict,
        (Some(head), Some(pool)) if head == pool => head,
        (Some(_), Some(_)) => Verdict::Conflict,
    }
}

/// A document's text. Refuses one that is too large, unless it has become smaller: then it is on its way back.
pub(super) fn encode(
    account: &AccountId,
    name: &str,
    value: &impl Serialize,
    before: Option<Present>,
) -> Result<String, CommitError> {
    let body = serde_json::to_string(value).map_err(|error| broken(account, name, error.to_string()))?;
    let (bytes, before) = (body.len(), before.map_or(0, |present| present.bytes));
    if bytes > DOCUMENT_BYTES_MAX && bytes > before {
        return Err(CommitError::TooLarge { bytes });
    }
    if bytes >= DOCUMENT_BYTES_WARN && before < DOCUMENT_BYTES_WARN {
        tracing::warn!(%account, document = name, bytes, limit = DOCUMENT_BYTES_MAX, "a document has become large");
    }
    Ok(body)
}

/// Puts an account together from all of its documents; `None` if there are none.
pub(super) fn assemble(
    account: &AccountId,
    documents: Vec<Document>,
    (now, server): (Timestamp, &ServerId),
) -> Result<Option<Loaded>, StoreError> {
    if documents.is_empty() {
        return Ok(None);
    }
    let mut head = None;
    let mut pools = std::collections::BTreeMap::new();
    for Document { name, stamp, body } in documents {
        if name == HEAD {
            head = Some(Stamped { stamp, value: decode::<Account>(account, &name, &body, ACCOUNT_VERSION)? });
            continue;
        }
        let product = name.strip_prefix(POOL).and_then(|text| ProductId::new(text).ok());
        let product = product.ok_or_else(|| broken(account, &name, "no document has such a name".to_owned()))?;
        pools.insert(product, Stamped { stamp, value: decode::<Pool>(account, &name, &body, POOL_VERSION)? });
    }
    let head = head.ok_or_else(|| broken(account, HEAD, "it is missing".to_owned()))?;
    Ok(Some(Loaded { head, pools, now, server: server.clone() }))
}

/// The name for people in a head document's text; `None` if the text is damaged.
pub(super) fn account_name(body: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }
    parse::<Named>(body).ok().map(|head| head.name)
}

fn decode<T: DeserializeOwned>(account: &AccountId, name: &str, body: &str, reads: u32) -> Result<T, StoreError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    // A newer version may look different in any other field, so it is read first.
    let broken = |reason: String| broken(account, name, reason);
    let version = parse::<Versioned>(body).map_err(broken)?.version;
    if version != reads {
        return Err(broken(format!("it has version {version}, this program reads version {reads}")));
    }
    parse(body).map_err(broken)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| error.to_string())
}

fn broken(account: &AccountId, document: &str, reason: String) -> StoreError {
    StoreError::Broken { account: account.clone(), document: document.to_owned(), reason }
}
