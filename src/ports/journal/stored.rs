//! Records as they stand in files: their positions, and what earlier versions of this program wrote.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Ask, CallEnd, CommandRefused, Grant, JournalledCommand, Record};
use crate::domain::allocation::Allocation;
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::id::{AccountId, KeyId, OfferId, PackageId, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::money::Money;
use crate::domain::usage::{CallFacts, CallerRef, Charge, ChargePart, PackageTerms, UnitClass};

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
    UnpricedGrant(UnpricedGrant),
    Charge(Charge),
    Grant(Grant),
}

/// Their positions: a record begins with its own.
pub mod form {
    /// The end of a call.
    pub const END: u8 = 2;
    /// The end of a run.
    pub const CLOSE: u8 = 3;
    /// A lease may be asked for.
    pub const ASK: u8 = 4;
    /// A command.
    pub const COMMAND: u8 = 5;
    /// A command that was not done.
    pub const REFUSED: u8 = 6;
    /// A charge.
    pub const CHARGE: u8 = 8;
    /// A grant.
    pub const GRANT: u8 = 9;
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
            Stored::UnpricedGrant(unpriced) => Self::Grant(unpriced.into()),
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

/// A grant on packages without prices.
#[derive(Deserialize)]
pub(super) struct UnpricedGrant {
    account: AccountId,
    product: ProductId,
    number: u64,
    parts: Vec<LeasePart>,
    #[serde(with = "crate::domain::moment")]
    deadline: Timestamp,
    terms: Vec<UnpricedTerms>,
}

#[derive(Deserialize)]
struct UnpricedTerms {
    package: PackageId,
    offer: OfferId,
    billable: BillableStatuses,
    allocation: Allocation,
}

impl From<UnpricedGrant> for Grant {
    fn from(unpriced: UnpricedGrant) -> Self {
        let UnpricedGrant { account, product, number, parts, deadline, terms } = unpriced;
        let terms = terms.into_iter().map(|UnpricedTerms { package, offer, billable, allocation }| PackageTerms {
            package,
            offer,
            billable,
            allocation,
            unit_worth: Money::ZERO,
        });
        Self { account, product, number, parts, deadline, terms: terms.collect() }
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

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    /// What an earlier version wrote at the seventh position.
    #[derive(Serialize)]
    struct Before {
        package: PackageId,
        offer: OfferId,
        billable: BillableStatuses,
        allocation: Allocation,
    }

    #[test]
    fn a_grant_without_prices_is_read_as_one_whose_units_are_worth_nothing() {
        let package = PackageId::new("pkg").unwrap();
        let (offer, billable) = (OfferId::new("small").unwrap(), BillableStatuses::default());
        let terms = |unit_worth| PackageTerms {
            package: package.clone(),
            offer: offer.clone(),
            billable: billable.clone(),
            allocation: Allocation::default(),
            unit_worth,
        };
        let grant = |terms| Grant {
            account: AccountId::new("a").unwrap(),
            product: ProductId::new("chat").unwrap(),
            number: 7,
            parts: vec![LeasePart::new(package.clone(), Units::new(5))],
            deadline: Timestamp::UNIX_EPOCH,
            terms: vec![terms],
        };
        let unpriced = grant(terms(Money::ZERO));
        let Grant { account, product, number, parts, .. } = unpriced.clone();
        let before = Before {
            package: package.clone(),
            offer: offer.clone(),
            billable: billable.clone(),
            allocation: Allocation::default(),
        };
        // The position of the form, then its fields; the moment is two numbers.
        let bytes = postcard::to_stdvec(&(7_u8, account, product, number, parts, (0_i64, 0_i32), vec![before]));
        assert_eq!(postcard::from_bytes::<Record>(&bytes.unwrap()).unwrap(), Record::Grant(unpriced));
        let priced = grant(terms(Money::written("0.05").unwrap()));
        let bytes = postcard::to_stdvec(&(form::GRANT, &priced)).unwrap();
        assert_eq!(postcard::from_bytes::<Record>(&bytes).unwrap(), Record::Grant(priced));
    }
}
