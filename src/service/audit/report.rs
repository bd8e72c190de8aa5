//! What an audit finds, as it is told: each difference with the ids that name it.

use serde::Serialize;

use crate::domain::id::{AccountId, Incarnation, PackageId};

/// Differences that are kept, at most; further ones are counted.
const DIFFERENCES_MAX: usize = 100_000;

/// A lease's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseName {
    /// The run that holds it.
    pub run: Incarnation,
    /// Its number in that run and pool.
    pub number: u64,
}

/// One thing that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are ids and amounts of what the text before them says")]
pub enum Difference {
    /// The journals charge more than the books say was used.
    ChargedNotBooked {
        account: AccountId,
        package: PackageId,
        lease: Option<LeaseName>,
        units: u64,
        /// Some of the calls, if it is known which.
        request_ids: Vec<String>,
    },
    /// The books say that more was used than any journal charges.
    BookedNotCharged {
        account: AccountId,
        package: PackageId,
        units: u64,
        /// Those leases of which the books know more than the journals.
        leases: Vec<LeaseName>,
        /// Runs that the books know of this pool, and that no journal or export is at hand of.
        without_journal: Vec<Incarnation>,
    },
    /// Calls pay with a package that is not in the books.
    UnknownPackage { account: AccountId, package: PackageId, units: u64, request_ids: Vec<String> },
    /// A journal has two charges with one number.
    ChargedTwice { run: Incarnation, core: u16, call: u64, request_id: String },
    /// Two data directories hold the same run: one is a copy. The second was not counted.
    RunTwice { run: Incarnation },
    /// Records of a run are missing or cannot be read.
    JournalDamaged { run: Incarnation, bytes: u64, missing_files: u64 },
    /// The units of a package do not stand in one place each.
    Unbalanced { account: AccountId, package: PackageId },
    /// More was used than was bought.
    Overrun { account: AccountId, package: PackageId, units: u64 },
    /// The seller says that it answered a call with 2xx, so often beyond what is charged.
    AnsweredNotCharged { request_id: String, times: u32 },
    /// A call was charged so often beyond the seller's answers.
    ChargedNotAnswered { request_id: String, times: u32 },
    /// An account cannot be read.
    BrokenAccount { reason: String },
}

/// Units that a lease holds: nobody can tell yet whether they are used. No difference, but it may explain one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Whose.
    pub account: AccountId,
    /// Of which package.
    pub package: PackageId,
    /// Who holds it; `None`: a lease that is closed, because its journal has lost records.
    pub lease: Option<LeaseName>,
    /// How many.
    pub units: u64,
    /// In suspense: the gateway is silent, or its journal has lost records.
    pub suspense: bool,
    /// Whether the run's journal or export is at hand.
    pub journal: bool,
}

/// How much was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Runs whose journal or export was read.
    pub runs: u64,
    /// Charged calls, those that were taken back too.
    pub calls: u64,
    /// Units charged.
    pub units: u64,
    /// Calls that are under way.
    pub open: u64,
    /// Units that are charged, and which their gateway or its restart has yet to report.
    pub unreported: u64,
    /// Lines of exports whose calls were known already.
    pub repeated: u64,
    /// Packages in the books.
    pub packages: u64,
    /// Answers of the seller's log that were compared.
    pub answers: u64,
    /// Charges whose status is not 2xx: not compared with the seller's log.
    pub other_statuses: u64,
    /// Differences that are not listed.
    pub left_out: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Each of them breaks the promise, or tells what is missing to judge it.
    pub differences: Vec<Difference>,
    /// Open questions.
    pub holdings: Vec<Holding>,
    /// How much was compared.
    pub counts: Counts,
}

impl Report {
    /// Adds a difference, or counts it.
    pub(super) fn note(&mut self, difference: Difference) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference);
        } else {
            self.counts.left_out += 1;
        }
    }
}
