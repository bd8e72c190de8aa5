//! Receipts for buyers: the public facts of a usage record, signed, for whoever made the call.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::authenticate::Caller;
use crate::domain::allocation::Tags;
use crate::domain::amount::Units;
use crate::domain::id::{AccountId, ProductId, ProjectId};
use crate::domain::signing::SigningKey;
use crate::domain::usage::{CallerRef, Ending, PartLine, UnitClass, UsageRecord};
use crate::ports::call_records::{CallRecords, FindError};
use crate::protocol::receipt::{KeySet, Receipt, Receipts};

/// What every payload begins with, so that no other signed text passes for one.
const KIND: &str = "tollgate-receipt";
/// Grows when a reader of payloads must change.
const VERSION: u32 = 1;

/// Why there is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// This gateway made no such call with this credential in the last days.
    #[error("there is none")]
    None,
    /// The call has not ended.
    #[error("the call is still open")]
    Open,
    /// Nobody can tell at the moment.
    #[error(transparent)]
    Find(#[from] FindError),
}

/// Makes receipts.
pub struct ReceiptDesk {
    records: Arc<dyn CallRecords>,
    key_id: String,
    key: SigningKey,
    published: KeySet,
}

/// What a receipt says: what the buyer may know of its call, and nothing of the seller's.
#[derive(Serialize)]
struct Payload<'a> {
    kind: &'static str,
    version: u32,
    record: String,
    request_id: &'a str,
    arrived: Timestamp,
    ended: Option<Timestamp>,
    account: &'a AccountId,
    #[serde(flatten)]
    caller: &'a Option<CallerRef>,
    project: &'a ProjectId,
    tags: &'a Tags,
    product: &'a ProductId,
    model: Option<&'a str>,
    end_user: Option<&'a str>,
    status: u16,
    streamed: bool,
    ending: Ending,
    units: Units,
    classes: BTreeMap<UnitClass, Units>,
    estimated: bool,
    parts: Vec<PartLine<'a>>,
}

impl<'a> Payload<'a> {
    fn of(record: &'a UsageRecord) -> Self {
        let charge = &record.charge;
        Self {
            kind: KIND,
            version: VERSION,
            record: record.id(),
            request_id: &charge.request_id,
            arrived: charge.arrived,
            ended: record.ended,
            account: &charge.account,
            caller: &charge.caller,
            project: &charge.facts.allocation.project,
            tags: &charge.facts.allocation.tags,
            product: &charge.product,
            model: charge.facts.model.as_deref(),
            end_user: charge.facts.end_user.as_deref(),
            status: charge.status,
            streamed: charge.streamed,
            ending: record.ending,
            units: record.units,
            classes: record.classes(),
            estimated: charge.facts.estimated(),
            parts: record.parts().collect(),
        }
    }
}

impl ReceiptDesk {
    /// Signs with one key; publishes it with those that have signed earlier.
    pub fn new(records: Arc<dyn CallRecords>, (key_id, key): (String, SigningKey), published: KeySet) -> Self {
        Self { records, key_id, key, published }
    }

    /// The public keys that receipts can be held against.
    pub fn keys(&self) -> &KeySet {
        &self.published
    }

    /// The receipts of a caller's calls with a request id.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub async fn receipts(&self, caller: &Caller, request_id: &str) -> Result<Receipts, ReceiptError> {
        let found = self.records.find(&caller.account, request_id).await?;
        let own = Some(&caller.reference);
        let mine = found.records.iter().filter(|record| record.charge.caller.as_ref() == own);
        let receipts: Vec<Receipt> = mine.map(|record| self.sign(record)).collect();
        match (receipts.is_empty(), found.open.iter().any(|charge| charge.caller.as_ref() == own)) {
            (false, _) => Ok(Receipts { receipts }),
            (true, true) => Err(ReceiptError::Open),
            (true, false) => Err(ReceiptError::None),
        }
    }

    fn sign(&self, record: &UsageRecord) -> Receipt {
        // Names, numbers and texts always serialise.
        let payload = serde_json::to_string(&Payload::of(record)).unwrap_or_default();
        Receipt::sign(payload, &self.key_id, &self.key)
    }
}
