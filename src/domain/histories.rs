//! Random histories of one pool: gateways that draw, report, lose replies, die and come back, while packages come and
//! expire. The gateways here do what the services do, in the smallest form, so that the books can be held against
//! what was really used.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::account::{Account, Books, Change, Sync, apply, sync};
use super::amount::Units;
use super::billable::BillableStatuses;
use super::command::{Action, Command};
use super::event::Event;
use super::id::{AccountId, CommandId, GatewayId, Incarnation, OfferId, PackageId, ProductId};
use super::lease::{Lease, LeasePart, Want};
use super::offer::{Offer, Validity};
use super::package::Package;
use super::pool::Pool;
use super::settle::{JOURNAL_READ_FOR, LeaseReport, RunEnd};

/// What becomes of a message to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is written and answered.
    Answered,
    /// It is not written; the gateway hears nothing.
    Lost,
    /// It is written; the gateway hears nothing.
    ReplyLost,
    /// It is written, the reply is lost, someone else writes, and the gateway asks the same again after the conflict.
    AskedAgain,
    /// It is on its way until a `Deliver`; the gateway hears nothing.
    Late,
}

#[derive(Debug, Clone)]
enum Step {
    Buy {
        quantity: u64,
        days: u16,
        starts_in_hours: i64,
    },
    Ask {
        gateway: usize,
        now: u64,
        rate: u64,
        fate: Fate,
    },
    Report {
        gateway: usize,
        fate: Fate,
    },
    Admit {
        gateway: usize,
        calls: u64,
    },
    /// Ends the oldest open calls; those that are billed are in the journal from then on.
    End {
        gateway: usize,
        calls: u64,
        billed: bool,
    },
    /// Stops admitting on all leases, so that the next report returns them.
    Return {
        gateway: usize,
    },
    Kill {
        gateway: usize,
    },
    /// Reports what the journals of dead incarnations know.
    Recover {
        gateway: usize,
        fate: Fate,
    },
    /// Lets the message that is under way longest arrive.
    Deliver,
    Pass {
        seconds: i64,
    },
    /// The store loses what was written since some earlier moment.
    Forget {
        back: usize,
    },
}

/// A lease as its gateway knows it; `used` is what its journal says.
#[derive(Debug, Clone)]
struct Drawn {
    parts: Vec<LeasePart>,
    /// Open calls, by part.
    open: Vec<u64>,
    deadline: Timestamp,
    /// No call is admitted any more.
    ended: bool,
}

impl Drawn {
    fn spare(&self, part: usize) -> u64 {
        self.parts[part].granted.get() - self.parts[part].used.get() - self.open[part]
    }

    fn report(&self, number: u64) -> LeaseReport {
        let spare = |part| Units::new(if self.ended { self.spare(part) } else { 0 });
        let part = |(index, part): (usize, &LeasePart)| LeasePart { returned: spare(index), ..part.clone() };
        let parts = self.parts.iter().enumerate().map(part).collect();
        LeaseReport { number, parts, deadline: self.deadline, lost: false }
    }
}

/// One incarnation, and its journal.
#[derive(Debug, Clone)]
struct Run {
    incarnation: Incarnation,
    leases: BTreeMap<u64, Drawn>,
    next_number: u64,
    /// As the last reply said.
    closed_through: u64,
    died_at: Option<Timestamp>,
}

impl Run {
    fn new(gateway: usize, number: u64) -> Self {
        let incarnation = Incarnation { gateway: GatewayId::new(&format!("gw-{gateway}")).unwrap(), number };
        Self { incarnation, leases: BTreeMap::new(), next_number: 1, closed_through: 0, died_at: None }
    }

    /// Everything that the store may not know to be closed. A number without a lease never came through.
    fn reports(&self) -> Vec<LeaseReport> {
        let nothing = |number| LeaseReport::unused(number, Timestamp::UNIX_EPOCH);
        let numbers = self.closed_through + 1..self.next_number;
        numbers.map(|number| self.leases.get(&number).map_or(nothing(number), |drawn| drawn.report(number))).collect()
    }

    /// What the journal says after the end: only leases that were written down, and all of them.
    fn journal(&self) -> Vec<LeaseReport> {
        let whole = |part: &LeasePart| LeasePart { returned: part.granted.saturating_sub(part.used), ..part.clone() };
        let closed = |(number, drawn): (&u64, &Drawn)| {
            let parts = drawn.parts.iter().map(whole).collect();
            LeaseReport { number: *number, parts, deadline: drawn.deadline, lost: false }
        };
        self.leases.iter().map(closed).collect()
    }
}

/// A message under way. Reports may arrive at any time; a grant only if nothing was written since it was made, as the
/// stamps see to.
#[derive(Debug, Clone)]
struct Message {
    sync: Sync,
    made_on: u64,
}

/// What the store keeps.
#[derive(Debug, Clone)]
struct Store {
    pool: Pool,
    history: Vec<Package>,
    /// Use that came after its package had ended, by package.
    stray: BTreeMap<PackageId, u64>,
}

struct World {
    now: Timestamp,
    store: Store,
    /// Counts writes; never the same twice.
    version: u64,
    earlier: Vec<Store>,
    late: Vec<Message>,
    runs: Vec<Vec<Run>>,
    bought: Vec<Command>,
    /// Truth: units used, by package.
    used: BTreeMap<PackageId, u64>,
    /// Whether the store ever forgot anything: then more may be sold than there is.
    forgetful: bool,
}

fn account() -> AccountId {
    AccountId::new("a").unwrap()
}

fn product() -> ProductId {
    ProductId::new("chat").unwrap()
}

impl World {
    fn new(gateways: usize) -> Self {
        let runs = (0..gateways).map(|gateway| vec![Run::new(gateway, 1)]).collect();
        Self {
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
            store: Store { pool: Pool::new(account(), product()), history: Vec::new(), stray: BTreeMap::new() },
            version: 0,
            earlier: Vec::new(),
            late: Vec::new(),
            runs,
            bought: Vec::new(),
            used: BTreeMap::new(),
            forgetful: false,
        }
    }

    fn run(&mut self, gateway: usize) -> &mut Run {
        let gateway = gateway % self.runs.len();
        self.runs[gateway].last_mut().unwrap()
    }

    fn write(&mut self, change: Change) {
        self.earlier.push(self.store.clone());
        self.version += 1;
        let there: Vec<_> = self.packages().map(|package| package.id.clone()).collect();
        let gone = |id: &PackageId| !self.store.pool.packages.iter().any(|package| package.id == *id);
        let mut stray = Vec::new();
        for event in change.events {
            if let Event::Overrun { package, overrun, .. } = event
                && gone(&package)
            {
                stray.push((package, overrun.get()));
            }
        }
        for (package, units) in stray {
            assert!(there.contains(&package), "{package} is not known");
            *self.store.stray.entry(package).or_default() += units;
        }
        self.store.pool = change.pool.unwrap();
        self.store.history.extend(change.ended);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Buy { quantity, days, starts_in_hours } => self.buy(quantity, days, starts_in_hours),
            Step::Ask { gateway, now, rate, fate } => {
                self.sync(gateway, Some(Want { now: Units::new(now), rate: Units::new(rate) }), fate);
            }
            Step::Report { gateway, fate } => self.sync(gateway, None, fate),
            Step::Admit { gateway, calls } => self.admit(gateway, calls),
            Step::End { gateway, calls, billed } => self.end(gateway, calls, billed),
            Step::Return { gateway } => self.run(gateway).leases.values_mut().for_each(|drawn| drawn.ended = true),
            Step::Kill { gateway } => self.kill(gateway),
            Step::Recover { gateway, fate } => self.recover(gateway, fate),
            Step::Deliver => self.deliver(),
            Step::Pass { seconds } => self.pass(seconds),
            Step::Forget { back } => self.forget(back),
        }
        self.check();
    }

    fn buy(&mut self, quantity: u64, days: u16, starts_in_hours: i64) {
        let number = self.bought.len();
        let offer = Offer {
            id: OfferId::new("offer").unwrap(),
            product: product(),
            quantity: Units::new(quantity),
            validity: Validity::Days(days),
            zone: TimeZone::UTC,
            billable: BillableStatuses::default(),
        };
        let valid_from = Some(self.now.checked_add(SignedDuration::from_hours(starts_in_hours)).unwrap());
        let package = PackageId::new(&format!("p-{number}")).unwrap();
        let action = Action::AddPackage { package, offer, valid_from };
        let command = Command { id: CommandId::new(&format!("c-{number}")).unwrap(), action };
        self.apply(&command);
        self.bought.push(command);
    }

    fn apply(&mut self, command: &Command) {
        let head = Account::open(account(), "A".into(), self.now);
        let books = Books { head, pools: BTreeMap::from([(product(), self.store.pool.clone())]) };
        let change = apply(&books, command, self.now).unwrap();
        self.write(change);
    }

    fn sync(&mut self, gateway: usize, want: Option<Want>, fate: Fate) {
        let now = self.now;
        let run = self.run(gateway);
        for drawn in run.leases.values_mut() {
            drawn.ended |= drawn.deadline <= now;
        }
        let grant = want.map(|want| (run.next_number, want));
        let sync = Sync { incarnation: run.incarnation.clone(), reports: run.reports(), ended: None, grant };
        let incarnation = run.incarnation.clone();
        let granted = self.send(sync, fate);
        let closed_through = self.store.pool.held.get(&incarnation).map_or(0, |held| held.closed_through);
        let run = self.run(gateway);
        match granted {
            None => run.next_number += u64::from(grant.is_some()), // whether there is such a lease is unknown
            Some(lease) => {
                run.closed_through = closed_through;
                if let Some(Lease { parts, deadline, .. }) = lease {
                    let open = vec![0; parts.len()];
                    run.leases.insert(run.next_number, Drawn { parts, open, deadline, ended: false });
                    run.next_number += 1;
                }
            }
        }
    }

    /// `None`: no reply.
    fn send(&mut self, sync: Sync, fate: Fate) -> Option<Option<Lease>> {
        match fate {
            Fate::Answered => Some(self.book(&sync)),
            Fate::Lost => None,
            Fate::ReplyLost => {
                self.book(&sync);
                None
            }
            Fate::AskedAgain => {
                self.book(&sync);
                self.version += 1;
                Some(self.book(&sync))
            }
            Fate::Late => {
                self.late.push(Message { sync, made_on: self.version });
                None
            }
        }
    }

    fn book(&mut self, message: &Sync) -> Option<Lease> {
        let (change, lease) = sync(&self.store.pool, message, self.now);
        self.write(change);
        lease
    }

    fn admit(&mut self, gateway: usize, calls: u64) {
        let now = self.now;
        let mut calls = calls;
        for drawn in self.run(gateway).leases.values_mut() {
            if drawn.ended || drawn.deadline <= now {
                continue;
            }
            for part in 0..drawn.parts.len() {
                let taken = drawn.spare(part).min(calls);
                drawn.open[part] += taken;
                calls -= taken;
            }
        }
    }

    fn end(&mut self, gateway: usize, calls: u64, billed: bool) {
        let mut calls = calls;
        let mut used = Vec::new();
        for drawn in self.run(gateway).leases.values_mut() {
            for part in 0..drawn.parts.len() {
                let ended = drawn.open[part].min(calls);
                drawn.open[part] -= ended;
                calls -= ended;
                if billed {
                    drawn.parts[part].used.put(Units::new(ended));
                    used.push((drawn.parts[part].package.clone(), ended));
                }
            }
        }
        for (package, units) in used {
            *self.used.entry(package).or_default() += units;
        }
    }

    /// Calls without a record in the journal are not billed. The next incarnation starts at once.
    fn kill(&mut self, gateway: usize) {
        let now = self.now;
        let run = self.run(gateway);
        run.died_at = Some(now);
        run.leases.values_mut().for_each(|drawn| drawn.open.fill(0));
        let number = run.incarnation.number + 1;
        let gateway = gateway % self.runs.len();
        self.runs[gateway].push(Run::new(gateway, number));
    }

    /// A journal that is too old is not read again.
    fn recover(&mut self, gateway: usize, fate: Fate) {
        let gateway = gateway % self.runs.len();
        let readable = |run: &&Run| run.died_at.is_some_and(|at| self.now.duration_since(at) <= JOURNAL_READ_FOR);
        let dead: Vec<Run> = self.runs[gateway].iter().filter(readable).cloned().collect();
        for run in dead {
            let (incarnation, reports) = (run.incarnation.clone(), run.journal());
            self.send(Sync { incarnation, reports, ended: Some(RunEnd::Whole), grant: None }, fate);
        }
    }

    /// No gateway stays away for so long that its journal is not read; no message is under way for hours, and no store
    /// loses as much.
    fn pass(&mut self, seconds: i64) {
        let then = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        for gateway in 0..self.runs.len() {
            let too_late = |run: &Run| run.died_at.is_some_and(|at| then.duration_since(at) > JOURNAL_READ_FOR);
            if self.runs[gateway].iter().any(too_late) {
                self.recover(gateway, Fate::Answered);
            }
        }
        if seconds > 3_600 {
            if self.forgetful {
                self.check_in();
            }
            self.late.clear();
            self.earlier.clear();
        }
        self.now = then;
    }

    fn deliver(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let message = self.late.remove(0);
        if message.sync.grant.is_none() || message.made_on == self.version {
            self.book(&message.sync);
        }
    }

    /// Commands that the store forgot are applied again, as from the journals.
    fn forget(&mut self, back: usize) {
        let Some(index) = self.earlier.len().checked_sub(1 + back) else {
            return;
        };
        self.store = self.earlier[index].clone();
        self.version += 1;
        self.forgetful = true;
        for command in self.bought.clone() {
            let Action::AddPackage { package: id, .. } = &command.action else { continue };
            if !self.packages().any(|package| package.id == *id) {
                self.apply(&command);
            }
        }
    }

    fn packages(&self) -> impl Iterator<Item = &Package> {
        self.store.pool.packages.iter().chain(&self.store.history)
    }

    fn check(&self) {
        for package in self.packages() {
            let id = &package.id;
            assert!(package.balanced(), "{package:?}");
            let open =
                self.store.pool.held.values().flat_map(|held| held.leases.values()).filter(|lease| lease.in_hand());
            let parts = open.flat_map(|lease| &lease.parts).filter(|part| part.package == *id);
            let claims: u64 = parts.map(|part| part.outstanding().get()).sum();
            assert_eq!(package.leased.get(), claims, "{id} leased against the leases' claims");
            let used = self.used.get(id).copied().unwrap_or(0);
            assert!(package.settled.get() + package.overrun.get() <= used, "{id} is charged for more than was used");
            if !self.forgetful {
                assert!(self.store.stray.is_empty(), "{:?}", self.store.stray);
                assert_eq!(package.overrun, Units::ZERO, "{id}");
                assert!(used + self.in_hand(id) <= package.total.get(), "{id} is sold beyond its total");
            }
        }
    }

    /// Units of a package that gateways may still use, or have open calls on.
    fn in_hand(&self, package: &PackageId) -> u64 {
        let alive = self.runs.iter().flatten().filter(|run| run.died_at.is_none());
        let leases = alive.flat_map(|run| run.leases.values());
        let part = |drawn: &Drawn, index: usize| drawn.open[index] + if drawn.ended { 0 } else { drawn.spare(index) };
        let parts = leases.flat_map(|drawn| (0..drawn.parts.len()).map(move |index| (drawn, index)));
        parts
            .filter(|(drawn, index)| drawn.parts[*index].package == *package)
            .map(|(drawn, index)| part(drawn, index))
            .sum()
    }

    /// Everyone reports. Twice: the first reply tells what the store has forgotten.
    fn check_in(&mut self) {
        for _ in 0..2 {
            for gateway in 0..self.runs.len() {
                self.recover(gateway, Fate::Answered);
                self.sync(gateway, None, Fate::Answered);
            }
        }
    }

    /// Everything under way arrives, everything open ends, every journal is read, everything is returned.
    fn come_to_rest(&mut self) {
        for gateway in 0..self.runs.len() {
            self.take(&Step::End { gateway, calls: u64::MAX, billed: true });
            self.take(&Step::Return { gateway });
        }
        while !self.late.is_empty() {
            self.take(&Step::Deliver);
        }
        self.check_in();
        for package in self.packages() {
            let (id, stray) = (&package.id, self.store.stray.get(&package.id).copied().unwrap_or(0));
            let booked = package.settled.get() + package.overrun.get() + stray;
            assert_eq!(booked, self.used.get(id).copied().unwrap_or(0), "{id} after everything came to rest");
            assert_eq!((package.leased, package.suspense), (Units::ZERO, Units::ZERO), "{id}");
            assert!(package.overrun.is_zero() || package.settled == package.total, "{id} has overrun and units left");
        }
        assert_eq!(self.packages().count(), self.bought.len());
        assert!(self.store.pool.held.values().all(|held| held.leases.is_empty()), "{:?}", self.store.pool.held);
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::Lost),
        1 => Just(Fate::ReplyLost),
        1 => Just(Fate::AskedAgain),
        1 => Just(Fate::Late),
    ]
}

fn seconds() -> impl Strategy<Value = i64> {
    // Within a lease, over its deadline, into the next day, beyond what is remembered; and a clock that steps back.
    prop_oneof![6 => 0..10i64, 3 => 20..40i64, 1 => 40_000..50_000i64, 1 => 2_500_000..2_600_000i64, 1 => -5..0i64]
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = || 0..3usize;
    prop_oneof![
        2 => (1..40u64, 0..3u16, prop_oneof![4 => Just(0i64), 1 => 1..30i64])
            .prop_map(|(quantity, days, starts_in_hours)| Step::Buy { quantity, days, starts_in_hours }),
        6 => (gateway(), 1..6u64, 0..20u64, fate())
            .prop_map(|(gateway, now, rate, fate)| Step::Ask { gateway, now, rate, fate }),
        3 => (gateway(), fate()).prop_map(|(gateway, fate)| Step::Report { gateway, fate }),
        6 => (gateway(), 1..8u64).prop_map(|(gateway, calls)| Step::Admit { gateway, calls }),
        6 => (gateway(), 1..8u64, prop::bool::weighted(0.8))
            .prop_map(|(gateway, calls, billed)| Step::End { gateway, calls, billed }),
        1 => gateway().prop_map(|gateway| Step::Return { gateway }),
        1 => gateway().prop_map(|gateway| Step::Kill { gateway }),
        1 => (gateway(), fate()).prop_map(|(gateway, fate)| Step::Recover { gateway, fate }),
        1 => Just(Step::Deliver),
        3 => seconds().prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// Takes the steps and checks the books after each, then brings everything to rest.
fn live_through(gateways: usize, steps: &[Step]) {
    let mut world = World::new(gateways);
    world.take(&Step::Buy { quantity: 30, days: 2, starts_in_hours: 0 });
    for step in steps {
        world.take(step);
    }
    world.come_to_rest();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_use_is_booked_once_and_nothing_is_sold_twice(
        gateways in 1..=3usize,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        live_through(gateways, &steps);
    }

    #[test]
    fn a_store_that_forgets_loses_no_use_and_doubles_none(
        gateways in 1..=3usize,
        steps in prop::collection::vec(
            prop_oneof![20 => step(), 1 => (0..12usize).prop_map(|back| Step::Forget { back })],
            1..80,
        ),
    ) {
        live_through(gateways, &steps);
    }
}
