//! Records as they stand in files: their positions, and what earlier versions of this program wrote.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::{Ask, CallEnd, CommandRefused, Grant, JournalledCommand, Record};
use crate::domain::amount::Units;
use crate::domain::id::{AccountId, KeyId, PackageId, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::usage::{CallFacts, CallerRef, Charge, ChargePart, UnitClass};

/// Every form that was ever written. New ones are added at the end: the position is part of the format.
#[derive(Deserialize)]
pub(super) enum Stored {
    BareGrant(BareGrant),
    BareCharge(BareCharge),
    End(CallEnd),
    Close,
    Ask(Ask),
    Command(JournalledCommand),
    Refused(CommandRefused),
    Grant(Grant),
    Charge(Charge),
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        const NAME: &str = "Stored";
        match self {
            Self::End(end) => to.serialize_newtype_variant(NAME, 2, "End", end),
            Self::Close => to.serialize_unit_variant(NAME, 3, "Close"),
            Self::Ask(ask) => to.serialize_newtype_variant(NAME, 4, "Ask", ask),
            Self::Command(command) => to.serialize_newtype_variant(NAME, 5, "Command", command),
            Self::Refused(refused) => to.serialize_newtype_variant(NAME, 6, "Refused", refused),
            Self::Grant(grant) => to.serialize_newtype_variant(NAME, 7, "Grant", grant),
            Self::Charge(charge) => to.serialize_newtype_variant(NAME, 8, "Charge", charge),
        }
    }
}

impl From<Stored> for Record {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::BareGrant(bare) => Self::Grant(bare.into()),
            Stored::BareCharge(bare) => Self::Charge(bare.into()),
            Stored::End(end) => Self::End(end),
            Stored::Close => Self::Close,
            Stored::Ask(ask) => Self::Ask(ask),
            Stored::Command(command) => Self::Command(command),
            Stored::Refused(refused) => Self::Refused(refused),
            Stored::Grant(grant) => Self::Grant(grant),
            Stored::Charge(charge) => Self::Charge(charge),
        }
    }
}

/// A grant without the packages' terms.
#[derive(Deserialize)]
pub(super) struct BareGrant {
    account: AccountId,
    product: ProductId,
    number: u64,
    parts: Vec<LeasePart>,
    #[serde(with = "crate::domain::moment")]
    deadline: Timestamp,
}

impl From<BareGrant> for Grant {
    fn from(bare: BareGrant) -> Self {
        let BareGrant { account, product, number, parts, deadline } = bare;
        Self { account, product, number, parts, deadline, terms: Vec::new() }
    }
}

/// A charge of calls made with a key, without what explains it.
#[derive(Deserialize)]
pub(super) struct BareCharge {
    call: u64,
    request_id: String,
    #[serde(with = "crate::domain::moment")]
    arrived: Timestamp,
    account: AccountId,
    key: Option<KeyId>,
    product: ProductId,
    parts: Vec<BarePart>,
    status: u16,
    streamed: bool,
    attempts: u8,
}

#[derive(Deserialize)]
struct BarePart {
    lease: u64,
    package: PackageId,
    units: Units,
}

impl From<BareCharge> for Charge {
    fn from(bare: BareCharge) -> Self {
        let part = |BarePart { lease, package, units }| ChargePart { lease, package, class: UnitClass::Calls, units };
        Self {
            call: bare.call,
            request_id: bare.request_id,
            arrived: bare.arrived,
            account: bare.account,
            caller: bare.key.map(CallerRef::Key),
            product: bare.product,
            parts: bare.parts.into_iter().map(part).collect(),
            status: bare.status,
            streamed: bare.streamed,
            attempts: bare.attempts,
            facts: CallFacts::default(),
        }
    }
}
