//! The usage record: the immutable fact that one call was counted, with all that is needed to see why.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::allocation::{Allocation, Tags};
use super::amount::Units;
use super::billable::{BillableStatuses, DatedRule};
use super::id::{AccountId, AppId, Incarnation, KeyId, OfferId, PackageId, ProductId, ProjectId};
use super::money::Money;
use super::package::Package;

/// The longest name of a model in a record, in bytes; a longer one is cut.
pub const MODEL_BYTES_MAX: usize = 256;
/// The longest tag of an end user in a record, in bytes; a longer one is cut.
pub const END_USER_BYTES_MAX: usize = 128;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The seller's whole answer was handed on.
    Complete,
    /// The client hung up before the end.
    ClientGone,
    /// The seller broke off before the end.
    SellerBroke,
    /// The seller fell silent for longer than the product's idle time-out, or the call took too long in all.
    TimedOut,
    /// The gateway stopped or died during the answer; nobody knows how much of it arrived.
    Interrupted,
}

impl Ending {
    /// Every ending, for tables of metrics.
    pub const ALL: [Self; 5] = [Self::Complete, Self::ClientGone, Self::SellerBroke, Self::TimedOut, Self::Interrupted];

    /// The name in records, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::SellerBroke => "seller_broke",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }
}

/// With what a call was made. New kinds are added at the end: the position is part of the journal's format.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerRef {
    /// An API key.
    Key(KeyId),
    /// An app, by its signature or one of its codes.
    App(AppId),
}

/// What units count. New classes are added at the end: the position is part of the journal's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitClass {
    /// Whole calls.
    #[default]
    Calls,
}

/// One package's share of a charge, of one class of units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargePart {
    /// The lease it was admitted under, within the pool and the incarnation.
    pub lease: u64,
    /// Who pays.
    pub package: PackageId,
    /// What was used.
    pub class: UnitClass,
    /// How much.
    pub units: Units,
}

/// What is known of a call when its billable head is about to go to the client; written down before it does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Charge {
    /// Numbers the calls of one core of one incarnation.
    pub call: u64,
    /// The client's own id if it sent a valid one, else ours. Not necessarily unique: clients choose.
    pub request_id: String,
    /// When the call's head was read.
    #[serde(with = "super::moment")]
    pub arrived: Timestamp,
    /// Who pays.
    pub account: AccountId,
    /// With what; `None` on a product with open access.
    pub caller: Option<CallerRef>,
    /// What was called.
    pub product: ProductId,
    /// Which packages pay.
    pub parts: Vec<ChargePart>,
    /// The seller's status.
    pub status: u16,
    /// Whether the answer is an event stream.
    pub streamed: bool,
    /// How many times the gateway sent the request to the seller.
    pub attempts: u8,
    /// What else is known of it.
    pub facts: CallFacts,
}

/// A [`Charge`] as it is written: of what its call has, so that nothing is copied before.
#[derive(Debug, Clone)]
pub struct LentCharge<'a> {
    /// As in [`Charge`], like all that follow.
    pub call: u64,
    /// The client's or ours.
    pub request_id: &'a str,
    /// When the call's head was read.
    pub arrived: Timestamp,
    /// Who pays.
    pub account: &'a AccountId,
    /// With what.
    pub caller: Option<&'a CallerRef>,
    /// What was called.
    pub product: &'a ProductId,
    /// Which packages pay.
    pub parts: &'a [ChargePart],
    /// The seller's status.
    pub status: u16,
    /// Whether the answer is an event stream.
    pub streamed: bool,
    /// How many times the request was sent.
    pub attempts: u8,
    /// What else is known of it.
    pub facts: LentFacts<'a>,
}

impl Charge {
    /// The charge, to be written.
    pub fn lend(&self) -> LentCharge<'_> {
        LentCharge {
            call: self.call,
            request_id: &self.request_id,
            arrived: self.arrived,
            account: &self.account,
            caller: self.caller.as_ref(),
            product: &self.product,
            parts: &self.parts,
            status: self.status,
            streamed: self.streamed,
            attempts: self.attempts,
            facts: self.facts.lend(),
        }
    }
}

impl From<LentCharge<'_>> for Charge {
    fn from(lent: LentCharge<'_>) -> Self {
        Self {
            call: lent.call,
            request_id: lent.request_id.to_owned(),
            arrived: lent.arrived,
            account: lent.account.clone(),
            caller: lent.caller.cloned(),
            product: lent.product.clone(),
            parts: lent.parts.to_vec(),
            status: lent.status,
            streamed: lent.streamed,
            attempts: lent.attempts,
            facts: lent.facts.into(),
        }
    }
}

/// Whether the number of units is certain. A certain one is no zero in the journal, see [`CallFacts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Exactness {
    /// The best guess: nobody knows how many there were.
    Estimated,
    /// What was used.
    #[default]
    Exact,
}

/// What explains a charge but does not decide it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct CallFacts {
    /// As the seller was asked for it, if that is another name than the buyer's.
    pub sellers_model: Option<Arc<str>>,
    /// As the buyer named it, at most [`MODEL_BYTES_MAX`].
    pub model: Option<Arc<str>>,
    /// To what the caller's owner allots its calls.
    pub allocation: Arc<Allocation>,
    /// Whom the buyer's own user is said to be, at most [`END_USER_BYTES_MAX`].
    pub end_user: Option<Arc<str>>,
    /// Whether the units are certain.
    pub exactness: Exactness,
}

/// [`CallFacts`] as they are written. The order is part of the journal's format, and of its safety: a frame begins with its
/// length, two bytes and two zeros. What clients choose holds no control characters, and the byte behind it is none that
/// would make one.
#[derive(Debug, Clone)]
pub struct LentFacts<'a> {
    /// As in [`CallFacts`], like all that follow.
    pub sellers_model: Option<Cow<'a, str>>,
    /// As the buyer named it.
    pub model: Option<Cow<'a, str>>,
    /// To what its calls are allotted.
    pub allocation: &'a Allocation,
    /// Whom the buyer's own user is said to be.
    pub end_user: Option<&'a str>,
    /// Whether the units are certain.
    pub exactness: Exactness,
}

impl CallFacts {
    /// Whether the units are a guess.
    pub fn estimated(&self) -> bool {
        self.exactness == Exactness::Estimated
    }

    /// The facts, to be written.
    pub fn lend(&self) -> LentFacts<'_> {
        LentFacts {
            sellers_model: self.sellers_model.as_deref().map(Cow::Borrowed),
            model: self.model.as_deref().map(Cow::Borrowed),
            allocation: &self.allocation,
            end_user: self.end_user.as_deref(),
            exactness: self.exactness,
        }
    }
}

impl From<LentFacts<'_>> for CallFacts {
    fn from(lent: LentFacts<'_>) -> Self {
        Self {
            sellers_model: lent.sellers_model.map(Arc::from),
            model: lent.model.map(Arc::from),
            allocation: Arc::new(lent.allocation.clone()),
            end_user: lent.end_user.map(Arc::from),
            exactness: lent.exactness,
        }
    }
}

/// A client's text as a record keeps it: its beginning, by whole characters, with a blank for each control character.
pub fn kept(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let begin = text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default();
    if begin.bytes().any(|byte| byte.is_ascii_control()) {
        let plain = |letter: char| if letter.is_ascii_control() { ' ' } else { letter };
        return begin.chars().map(plain).collect::<String>().into();
    }
    begin.into()
}

/// What a package says of the calls that it pays for. It was bought on these terms, and keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageTerms {
    /// Which.
    pub package: PackageId,
    /// What was bought.
    pub offer: OfferId,
    /// Which answers count, from when on.
    pub billable: BillableStatuses,
    /// To what its owner allots it.
    pub allocation: Allocation,
    /// What one unit is worth; an earlier version of this program did not write it, and knew no prices.
    pub unit_worth: Money,
}

impl PackageTerms {
    /// A package's.
    pub fn of(package: &Package) -> Self {
        let (project, tags) = (package.project.clone(), package.tags.clone());
        Self {
            package: package.id.clone(),
            offer: package.offer.clone(),
            billable: package.billable.clone(),
            allocation: Allocation { project, tags },
            unit_worth: package.unit_worth(),
        }
    }
}

/// A charged call, with its end. Serialised, it is a line of the usage export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Which gateway, in which of its runs.
    pub incarnation: Incarnation,
    /// Which core of it; with `call` and `incarnation` unique for ever.
    pub core: u16,
    /// What was charged.
    pub charge: Charge,
    /// The sum over `parts`, or zero when the charge was taken back.
    pub units: Units,
    /// How the call ended.
    pub ending: Ending,
    /// When it ended; `None` if the gateway died before.
    pub ended: Option<Timestamp>,
    /// What the packages say that pay; a journal of an earlier version of this program does not tell.
    pub terms: Vec<Arc<PackageTerms>>,
}

impl UsageRecord {
    /// The record's name: no other has it.
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.incarnation, self.core, self.charge.call)
    }

    /// What a package that pays says.
    pub fn terms_of(&self, package: &PackageId) -> Option<&PackageTerms> {
        self.terms.iter().find(|terms| terms.package == *package).map(Arc::as_ref)
    }

    /// The units by what they count; none if the charge was taken back.
    pub fn classes(&self) -> BTreeMap<UnitClass, Units> {
        let mut classes = BTreeMap::new();
        for part in self.charge.parts.iter().filter(|_| !self.units.is_zero()) {
            classes.entry(part.class).or_insert(Units::ZERO).put(part.units);
        }
        classes
    }

    /// The parts with what their packages say.
    pub fn parts(&self) -> impl Iterator<Item = PartLine<'_>> {
        self.charge.parts.iter().map(|part| {
            let terms = self.terms_of(&part.package);
            PartLine {
                package: &part.package,
                offer: terms.map(|terms| &terms.offer),
                lease: part.lease,
                class: part.class,
                units: part.units,
                rule: terms.map(|terms| terms.billable.in_force_at(self.charge.arrived)),
                project: terms.map(|terms| &terms.allocation.project),
                tags: terms.map(|terms| &terms.allocation.tags).filter(|tags| !tags.is_empty()),
            }
        })
    }
}

/// One package's share, as a record shows it.
#[derive(Debug, Clone, Serialize)]
pub struct PartLine<'a> {
    /// Who pays.
    pub package: &'a PackageId,
    /// What was bought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<&'a OfferId>,
    /// Under which lease.
    pub lease: u64,
    /// What was used.
    pub class: UnitClass,
    /// How much.
    pub units: Units,
    /// The rule in force when the call arrived: why its status counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<DatedRule>,
    /// To what the package is allotted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<&'a ProjectId>,
    /// The package's tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<&'a Tags>,
}

#[derive(Serialize)]
struct Line<'a> {
    incarnation: &'a Incarnation,
    core: u16,
    call: u64,
    request_id: &'a str,
    arrived: Timestamp,
    account: &'a AccountId,
    #[serde(flatten)]
    caller: &'a Option<CallerRef>,
    project: &'a ProjectId,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: &'a Tags,
    product: &'a ProductId,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sellers_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_user: Option<&'a str>,
    units: Units,
    classes: BTreeMap<UnitClass, Units>,
    estimated: bool,
    parts: Vec<PartLine<'a>>,
    status: u16,
    streamed: bool,
    attempts: u8,
    ending: Ending,
    ended: Option<Timestamp>,
}

impl Serialize for UsageRecord {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Charge { facts, .. } = &self.charge;
        Line {
            incarnation: &self.incarnation,
            core: self.core,
            call: self.charge.call,
            request_id: &self.charge.request_id,
            arrived: self.charge.arrived,
            account: &self.charge.account,
            caller: &self.charge.caller,
            project: &facts.allocation.project,
            tags: &facts.allocation.tags,
            product: &self.charge.product,
            model: facts.model.as_deref(),
            sellers_model: facts.sellers_model.as_deref(),
            end_user: facts.end_user.as_deref(),
            units: self.units,
            classes: self.classes(),
            estimated: facts.estimated(),
            parts: self.parts().collect(),
            status: self.charge.status,
            streamed: self.charge.streamed,
            attempts: self.charge.attempts,
            ending: self.ending,
            ended: self.ended,
        }
        .serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_text_is_cut_between_characters_and_holds_no_control_characters() {
        for (text, bytes, expected) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("aé", 2, "a"),
            ("é", 1, ""),
            ("", 0, ""),
            ("a\0\n\u{7f}é", 9, "a   é"),
        ] {
            assert_eq!(kept(text, bytes), expected);
        }
    }
}
