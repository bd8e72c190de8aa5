//! Joins journals, exports, the books and a seller's log, and names each difference. What is charged and what is booked
//! are added up by package, and by lease where the lease is not closed in the books yet; the books are read first, so
//! that beside a running gateway a charge can be ahead of them, never behind. Memory grows with packages and open
//! leases, not with calls. No I/O but the store's.

pub mod answers;
pub mod books;
pub mod calls;
pub mod replay;
pub mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use self::answers::{Answers, Doubts, is_compared};
use self::books::{Booked, Books};
use self::calls::{Called, Calls, Fate, Item, KnownRun, RunState, Seen};
use self::replay::decided_used;
use self::report::{Difference, Holding, LeaseName, Report};
use crate::domain::id::{AccountId, CommandId, Incarnation, PackageId};
use crate::domain::lease::{HeldLeases, Lease};
use crate::ports::journal::{Damage, Record};

/// Request ids and leases that a difference names, at most.
const NAMED_MAX: usize = 20;
/// What is charged: for certain, and by calls that are open.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    sure: u64,
    open: u64,
}

impl Sum {
    fn add(&mut self, units: u64, fate: Fate) {
        match fate {
            Fate::Billed => self.sure += units,
            Fate::Open => self.open += units,
            Fate::Void => {}
        }
    }

    fn most(self) -> u64 {
        self.sure + self.open
    }
}

/// By run, package and lease.
type LeaseKey = (usize, usize, u64);

#[derive(Debug)]
struct PackageSum {
    account: AccountId,
    package: PackageId,
    /// On leases that the books have closed.
    closed: Sum,
    /// Used by operators' decisions on units in suspense.
    decided: u64,
    /// What the books say of leases that are not closed, as far as charges explain it.
    open_booked: u64,
    /// Of the leases that are suspended.
    suspended: u64,
    /// Leases of which the books say more.
    ahead: Vec<LeaseName>,
}

/// The first pass.
pub struct Audit {
    books: Books,
    calls: Calls,
    packages: Vec<PackageSum>,
    numbers: HashMap<AccountId, HashMap<PackageId, usize>>,
    leases: HashMap<LeaseKey, Sum>,
    commands: BTreeMap<(AccountId, CommandId), Option<(PackageId, u64)>>,
    answers: Option<Answers>,
    report: Report,
}

impl Audit {
    /// Over books that were read before any journal is. `seller`: a seller's log will be shown, before the journals.
    pub fn new(books: Books, seller: bool) -> Self {
        Self {
            books,
            calls: Calls::default(),
            packages: Vec::new(),
            numbers: HashMap::new(),
            leases: HashMap::new(),
            commands: BTreeMap::new(),
            answers: seller.then(Answers::default),
            report: Report::default(),
        }
    }

    /// Takes in a line of the seller's log.
    pub fn answered(&mut self, answer: &answers::Answer) {
        if let Some(answers) = self.answers.as_mut().filter(|_| is_compared(answer.status)) {
            answers.answered(&answer.request_id);
        }
    }

    /// Takes in what there is to read of journals and exports.
    pub fn take(&mut self, item: Item) {
        let mut calls = std::mem::take(&mut self.calls);
        calls.take(item, &mut |number, run, seen| self.seen(number, run, seen));
        self.calls = calls;
    }

    /// Takes in an operator's decision that an export of commands tells.
    pub fn command(&mut self, account: AccountId, command: CommandId, body: &str) {
        self.commands.entry((account, command)).or_insert_with(|| decided_used(body));
    }

    fn seen(&mut self, number: usize, run: &KnownRun, seen: Seen<'_>) {
        let name = || run.incarnation.clone();
        match seen {
            Seen::Call(_, called, fate) => self.call((number, run), called, fate),
            Seen::Twice(core, called) => {
                let (call, request_id) = (called.call, called.request_id.clone());
                self.report.note(Difference::ChargedTwice { run: name(), core, call, request_id });
            }
            Seen::RunTwice => self.report.note(Difference::RunTwice { run: name() }),
            Seen::RunEnd(damage) if damage.is_whole() => {}
            Seen::RunEnd(Damage { bytes, missing_files, .. }) => {
                self.report.note(Difference::JournalDamaged { run: name(), bytes, missing_files });
            }
            Seen::Other(Record::Command(command)) => self.command(command.account, command.command, &command.body),
            Seen::Other(Record::Refused(refused)) => {
                self.commands.insert((refused.account, refused.command), None);
            }
            Seen::Other(Record::Grant(_) | Record::Charge(_) | Record::End(_) | Record::Close | Record::Ask(_)) => {}
        }
    }

    fn call(&mut self, (number, run): (usize, &KnownRun), called: &Called, fate: Fate) {
        let counts = &mut self.report.counts;
        counts.calls += 1;
        counts.open += u64::from(fate == Fate::Open);
        if !is_compared(called.status) {
            counts.other_statuses += 1;
        } else if let Some(answers) = &mut self.answers {
            answers.charged(&called.request_id);
        }
        let held = self.books.held.get(&run.incarnation);
        let held = held.and_then(|held| held.get(&called.account)?.get(&called.product));
        // Where the books know nothing of a run that is settled, they have forgotten it after it was booked.
        let forgotten = matches!(run.state, RunState::Ended { settled: true } | RunState::Elsewhere);
        for part in &called.parts {
            let package = number_of(&mut self.numbers, &mut self.packages, &called.account, &part.package);
            let closed = held.map_or(forgotten, |held| is_closed(held, part.lease));
            let units = part.units.get();
            if fate == Fate::Billed {
                self.report.counts.units += units;
            }
            if !closed {
                self.leases.entry((number, package, part.lease)).or_default().add(units, fate);
            } else if let Some(sum) = self.packages.get_mut(package) {
                sum.closed.add(units, fate);
            }
        }
    }

    /// Compares what was added up with the books. Returns what is left to be looked up: which calls those are that differ.
    pub fn compare(mut self) -> Second {
        for ((account, _), decided) in std::mem::take(&mut self.commands) {
            if let Some((package, units)) = decided {
                let package = number_of(&mut self.numbers, &mut self.packages, &account, &package);
                if let Some(sum) = self.packages.get_mut(package) {
                    sum.decided += units;
                }
            }
        }
        let mut wanted = HashMap::new();
        self.open_leases();
        self.unbooked(&mut wanted);
        self.packages_agree(&mut wanted);
        let Self { books, calls, mut report, answers, .. } = self;
        for reason in books.broken {
            report.note(Difference::BrokenAccount { reason });
        }
        report.counts.runs = calls.runs().len() as u64;
        report.counts.repeated = calls.repeated;
        report.counts.packages = books.packages.len() as u64;
        report.counts.answers = answers.as_ref().map_or(0, |answers| answers.count);
        let doubts = answers.map(Answers::doubts);
        Second { first: calls, calls: Calls::default(), numbers: self.numbers, wanted, doubts, report }
    }

    /// Goes through the leases that the books have not closed: what they say was used must be charged.
    fn open_leases(&mut self) {
        let runs: HashMap<Incarnation, usize> =
            self.calls.runs().iter().enumerate().map(|(number, run)| (run.incarnation.clone(), number)).collect();
        let held = std::mem::take(&mut self.books.held);
        for (incarnation, of_run) in &held {
            let run = runs.get(incarnation).copied();
            for (account, products) in of_run {
                let leases = products.values().flat_map(|held| held.leases.iter().filter(|(_, lease)| !lease.closed));
                for (number, lease) in leases {
                    let name = LeaseName { run: incarnation.clone(), number: *number };
                    for part in &lease.parts {
                        let package = number_of(&mut self.numbers, &mut self.packages, account, &part.package);
                        let charged = run.and_then(|run| self.leases.get_mut(&(run, package, *number)));
                        let used = part.used.get();
                        let most = charged.as_ref().map_or(0, |charged| charged.most());
                        if let Some(charged) = charged {
                            charged.sure = charged.sure.saturating_sub(used);
                        }
                        let Some(sum) = self.packages.get_mut(package) else { continue };
                        sum.open_booked += used.min(most);
                        if used > most && sum.ahead.len() < NAMED_MAX {
                            sum.ahead.push(name.clone());
                        }
                        let units = part.outstanding().get();
                        if lease.suspended {
                            sum.suspended += units;
                        }
                        if units > 0 {
                            let (account, package) = (account.clone(), part.package.clone());
                            let (suspense, journal) = (lease.suspended, run.is_some());
                            let lease = Some(name.clone());
                            self.report.holdings.push(Holding { account, package, lease, units, suspense, journal });
                        }
                    }
                }
            }
        }
        self.report.holdings.sort_by(|one, other| (&one.account, &one.package).cmp(&(&other.account, &other.package)));
        self.books.held = held;
    }

    /// Goes through the charges that the books do not have yet. Their gateway, or its restart, has to report them; if its
    /// journal is said to be settled nobody will.
    fn unbooked(&mut self, wanted: &mut HashMap<Wanted, Vec<String>>) {
        let mut leases: Vec<(LeaseKey, Sum)> = std::mem::take(&mut self.leases).into_iter().collect();
        leases.sort_unstable_by_key(|(key, _)| *key);
        for ((run, package, number), Sum { sure: units, .. }) in leases.into_iter().filter(|(_, sum)| sum.sure > 0) {
            let (Some(known), Some(sum)) = (self.calls.runs().get(run), self.packages.get(package)) else { continue };
            let (account, id) = (sum.account.clone(), sum.package.clone());
            if !self.books.packages.contains_key(&(account.clone(), id.clone())) {
                // The package itself is missing, which is told once, with all that it pays.
                if let Some(sum) = self.packages.get_mut(package) {
                    sum.closed.sure += units;
                }
                continue;
            }
            if known.state == (RunState::Ended { settled: true }) {
                wanted.insert(Wanted::Lease(run, package, number), Vec::new());
                let lease = Some(LeaseName { run: known.incarnation.clone(), number });
                let request_ids = Vec::new();
                self.report.note(Difference::ChargedNotBooked { account, package: id, lease, units, request_ids });
            } else {
                self.report.counts.unreported += units;
            }
        }
    }

    /// Each package's units stand in one place each, and as many are booked as used as are charged.
    fn packages_agree(&mut self, wanted: &mut HashMap<Wanted, Vec<String>>) {
        for (account, package) in self.books.packages.keys().chain(self.books.unplaced.keys()) {
            number_of(&mut self.numbers, &mut self.packages, account, package);
        }
        let packages = std::mem::take(&mut self.packages);
        for (number, sum) in packages.iter().enumerate() {
            let (account, package) = (sum.account.clone(), sum.package.clone());
            let key = (account.clone(), package.clone());
            let unplaced = self.books.unplaced.get(&key).copied().unwrap_or_default();
            let Some(booked) = self.books.packages.get(&key) else {
                let units = (sum.closed.sure + sum.open_booked).max(unplaced.get());
                wanted.insert(Wanted::Package(number), Vec::new());
                self.report.note(Difference::UnknownPackage { account, package, units, request_ids: Vec::new() });
                continue;
            };
            if !booked.package.balanced() {
                let (account, package) = key.clone();
                self.report.note(Difference::Unbalanced { account, package });
            }
            let units = booked.package.suspense.get().saturating_sub(sum.suspended);
            if units > 0 {
                let (account, package) = key.clone();
                let holding = Holding { account, package, lease: None, units, suspense: true, journal: true };
                self.report.holdings.push(holding);
            }
            if !booked.package.overrun.is_zero() {
                let ((account, package), units) = (key.clone(), booked.package.overrun.get());
                self.report.note(Difference::Overrun { account, package, units });
            }
            let used = booked.used().saturating_add(unplaced).get();
            let least = sum.closed.sure + sum.open_booked;
            let most = least + sum.closed.open + sum.decided;
            if used < least {
                let (lease, units, request_ids) = (None, least - used, Vec::new());
                self.report.note(Difference::ChargedNotBooked { account, package, lease, units, request_ids });
            } else if used > most {
                let (units, leases) = (used - most, sum.ahead.clone());
                let without_journal = self.without_journal(&account, booked);
                self.report.note(Difference::BookedNotCharged { account, package, units, leases, without_journal });
            }
        }
        self.packages = packages;
    }

    /// Runs that the books know of a pool, and that nothing was read of.
    fn without_journal(&self, account: &AccountId, booked: &Booked) -> Vec<Incarnation> {
        let read = |run: &Incarnation| self.calls.runs().iter().any(|known| known.incarnation == *run);
        let of_pool = self
            .books
            .held
            .iter()
            .filter(|(_, held)| held.get(account).is_some_and(|products| products.contains_key(&booked.product)));
        let mut runs: Vec<_> = of_pool.map(|(run, _)| run.clone()).filter(|run| !read(run)).collect();
        runs.sort();
        runs.truncate(NAMED_MAX);
        runs
    }
}

/// Whether the books have all of a lease's use.
fn is_closed(held: &HeldLeases, lease: u64) -> bool {
    let closed = |lease: &Lease| lease.closed;
    held.finished || lease <= held.closed_through || held.leases.get(&lease).is_some_and(closed)
}

/// The number of a package, which is new or known.
fn number_of(
    numbers: &mut HashMap<AccountId, HashMap<PackageId, usize>>,
    packages: &mut Vec<PackageSum>,
    account: &AccountId,
    package: &PackageId,
) -> usize {
    if let Some(number) = numbers.get(account).and_then(|of_account| of_account.get(package)) {
        return *number;
    }
    let number = packages.len();
    numbers.entry(account.clone()).or_default().insert(package.clone(), number);
    packages.push(PackageSum {
        account: account.clone(),
        package: package.clone(),
        closed: Sum::default(),
        decided: 0,
        open_booked: 0,
        suspended: 0,
        ahead: Vec::new(),
    });
    number
}

/// Whose request ids are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    Lease(usize, usize, u64),
    Package(usize),
}

/// The second pass, over the same journals, exports and log, if there is anything to look up.
pub struct Second {
    /// What the first pass saw.
    first: Calls,
    calls: Calls,
    numbers: HashMap<AccountId, HashMap<PackageId, usize>>,
    wanted: HashMap<Wanted, Vec<String>>,
    doubts: Option<Doubts>,
    report: Report,
}

impl Second {
    /// Whether anything must be read again.
    pub fn is_needed(&self) -> bool {
        !self.wanted.is_empty() || self.doubts.as_ref().is_some_and(|doubts| doubts.any)
    }

    /// Takes in what the first pass has seen, again.
    pub fn take(&mut self, item: Item) {
        let mut calls = std::mem::take(&mut self.calls);
        calls.take(item, &mut |_, run, seen| {
            if let Seen::Call(core, called, fate) = seen {
                self.call(run, core, called, fate);
            }
        });
        self.calls = calls;
    }

    fn call(&mut self, run: &KnownRun, core: u16, called: &Called, fate: Fate) {
        if let Some(doubts) = self.doubts.as_mut().filter(|_| is_compared(called.status)) {
            let stands = fate == Fate::Billed && self.first.contains(&run.incarnation, core, called.call);
            doubts.charged(&called.request_id, called.attempts, stands);
        }
        let Some(of_account) = self.numbers.get(&called.account).filter(|_| !self.wanted.is_empty()) else { return };
        let number = self.first.number_of(&run.incarnation).filter(|_| fate == Fate::Billed);
        for part in &called.parts {
            let Some((run, package)) = number.zip(of_account.get(&part.package).copied()) else { continue };
            for wanted in [Wanted::Lease(run, package, part.lease), Wanted::Package(package)] {
                if let Some(ids) = self.wanted.get_mut(&wanted).filter(|ids| ids.len() < NAMED_MAX) {
                    ids.push(called.request_id.clone());
                }
            }
        }
    }

    /// Takes in a line of the seller's log again, after the journals. `first`: the first pass saw it too.
    pub fn answered(&mut self, answer: &answers::Answer, first: bool) {
        if let Some(doubts) = self.doubts.as_mut().filter(|_| is_compared(answer.status)) {
            doubts.answered(&answer.request_id, first);
        }
    }

    /// What came of it.
    pub fn report(self) -> Report {
        let Self { first, numbers, wanted, doubts, mut report, .. } = self;
        let package = |account: &AccountId, id: &PackageId| numbers.get(account)?.get(id).copied();
        for difference in &mut report.differences {
            let named = |key: Option<Wanted>| key.and_then(|key| wanted.get(&key).cloned()).unwrap_or_default();
            if let Difference::ChargedNotBooked { account, package: id, lease: Some(lease), request_ids, .. } =
                difference
            {
                let place = first.number_of(&lease.run).zip(package(account, id));
                *request_ids = named(place.map(|(run, package)| Wanted::Lease(run, package, lease.number)));
            } else if let Difference::UnknownPackage { account, package: id, request_ids, .. } = difference {
                *request_ids = named(package(account, id).map(Wanted::Package));
            }
        }
        if let Some(doubts) = doubts {
            report.counts.left_out += doubts.left_out;
            for difference in doubts.differences() {
                report.note(match difference {
                    answers::Difference::NotCharged(request_id, times) => {
                        Difference::AnsweredNotCharged { request_id, times }
                    }
                    answers::Difference::NotAnswered(request_id, times) => {
                        Difference::ChargedNotAnswered { request_id, times }
                    }
                });
            }
        }
        report
    }
}
