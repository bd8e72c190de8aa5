//! The account: the one door to a balance. `apply` for commands, `sync` for usage; both take the documents as they
//! are and say what they become. Nothing else changes a balance.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::allocation::Tags;
use super::amount::Units;
use super::app::{self, App};
use super::command::{Action, Command, KeyChange, Refusal};
use super::event::Event;
use super::id::{AccountId, CommandId, Incarnation, KeyId, PackageId, ProductId, ProjectId};
use super::key::{ApiKey, KEYS_PER_ACCOUNT_MAX, KeyHash};
use super::lease::{Lease, Want};
use super::limit::Limits;
use super::money::Currency;
use super::offer::Offer;
use super::package::Package;
use super::pool::Pool;
use super::settle::{LeaseReport, RunEnd};

/// The document version that this program writes, and the newest that it reads.
pub const ACCOUNT_VERSION: u32 = 1;
/// How long a command's id is remembered, so that asking again does nothing.
const COMMAND_MEMORY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The head document: who the account is, its keys and its apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// See [`ACCOUNT_VERSION`].
    pub version: u32,
    /// Its name for programs.
    pub id: AccountId,
    /// Its name for people.
    pub name: String,
    /// When it was opened.
    pub created_at: Timestamp,
    /// At most [`KEYS_PER_ACCOUNT_MAX`].
    pub keys: Vec<ApiKey>,
    /// At most [`app::APPS_PER_ACCOUNT_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<App>,
    /// How many calls it may make with all its keys and apps, over all products.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// Of its money: that of its first package with a price, or of its first budget in money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// Commands of the last 30 days, by id, with the time of each.
    pub commands: BTreeMap<CommandId, Timestamp>,
    /// The highest time seen.
    pub time_high: Timestamp,
}

impl Account {
    /// A new account with nothing in it.
    pub fn open(id: AccountId, name: String, now: Timestamp) -> Self {
        Self {
            version: ACCOUNT_VERSION,
            id,
            name,
            created_at: now,
            keys: Vec::new(),
            apps: Vec::new(),
            limits: Limits::NONE,
            currency: None,
            commands: BTreeMap::new(),
            time_high: now,
        }
    }

    /// The hashes under which the account's credentials are found: of its API keys, AppKeys and AppCodes. No two
    /// accounts share one.
    pub fn hashes(&self) -> impl Iterator<Item = KeyHash> + '_ {
        let of_apps =
            self.apps.iter().flat_map(|app| std::iter::once(app.hash).chain(app.codes.iter().map(|code| code.hash)));
        self.keys.iter().flat_map(ApiKey::hashes).chain(of_apps)
    }

    /// Settles the account's currency, or refuses another one.
    fn settle_currency(&mut self, asked: Option<Currency>) -> Result<(), Refusal> {
        match (self.currency, asked) {
            (Some(has), Some(asked)) if has != asked => Err(Refusal::OtherCurrency { has, asked }),
            (has, asked) => {
                self.currency = has.or(asked);
                Ok(())
            }
        }
    }

    fn key_mut(&mut self, id: &KeyId) -> Result<&mut ApiKey, Refusal> {
        self.keys.iter_mut().find(|key| key.id == *id).ok_or_else(|| Refusal::UnknownKey(id.clone()))
    }
}

/// All documents of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// The head document.
    pub head: Account,
    /// One per product that the account ever bought.
    pub pools: BTreeMap<ProductId, Pool>,
}

/// What a command or a sync makes of the documents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The new head document, if it changed.
    pub head: Option<Account>,
    /// The new pool document, if one changed.
    pub pool: Option<Pool>,
    /// Packages that left their document, for the history.
    pub ended: Vec<Package>,
    /// What happened, for the outbox.
    pub events: Vec<Event>,
}

/// Applies a command. A command that was applied in the last 30 days changes nothing.
pub fn apply(books: &Books, command: &Command, now: Timestamp) -> Result<Change, Refusal> {
    let mut head = books.head.clone();
    let now = now.max(head.time_high);
    head.commands.retain(|_, at| now.duration_since(*at) <= COMMAND_MEMORY);
    if head.commands.contains_key(&command.id) {
        return Ok(Change::default());
    }
    head.time_high = now;
    head.commands.insert(command.id.clone(), now);
    let mut change = Change::default();
    match &command.action {
        Action::AddKey(key) => {
            add_key(&mut head, key)?;
            head.settle_currency(key.budget.currency())?;
        }
        Action::ChangeKey(id, wanted) => {
            change_key(head.key_mut(id)?, wanted);
            head.settle_currency(wanted.budget.and_then(|budget| budget.currency()))?;
        }
        Action::RotateKey(id, new) => head.key_mut(id)?.rotate(new, now),
        Action::RevokeKey(id) => {
            head.key_mut(id)?;
            head.keys.retain(|key| key.id != *id);
        }
        Action::LimitAccount(limits) => head.limits = *limits,
        Action::AddApp(app) => app::add(&mut head, app)?,
        Action::ChangeApp(id, wanted) => app::change(&mut head, id, wanted, now)?,
        Action::AddPackage { package, offer, valid_from, project, tags, spare_app } => {
            head.settle_currency(offer.price.map(|price| price.currency))?;
            let from = valid_from.unwrap_or(now);
            let package = bought(package, offer, &command.id, (now, from))?;
            let package = Package { project: project.clone(), tags: tags.clone(), ..package };
            change = add_package(books, offer.product.clone(), package, now);
            if let Some(spare) = spare_app {
                app::bind_bought(&mut head, &offer.product, spare)?;
            }
        }
        Action::ResolveSuspense { product, package, units, used } => {
            change = resolve(books, product, package, (*units, *used), now)?;
        }
    }
    change.head = Some(head);
    Ok(change)
}

fn add_key(head: &mut Account, key: &ApiKey) -> Result<(), Refusal> {
    if head.keys.len() >= KEYS_PER_ACCOUNT_MAX {
        return Err(Refusal::TooManyKeys { max: KEYS_PER_ACCOUNT_MAX });
    }
    head.keys.push(key.clone());
    Ok(())
}

fn change_key(key: &mut ApiKey, wanted: &KeyChange) {
    let wanted = wanted.clone();
    key.description = wanted.description.unwrap_or(std::mem::take(&mut key.description));
    key.disabled = wanted.disabled.unwrap_or(key.disabled);
    key.expires_at = wanted.expires_at.unwrap_or(key.expires_at);
    key.products = wanted.products.unwrap_or(key.products.take());
    key.networks = wanted.networks.unwrap_or(key.networks.take());
    key.models = wanted.models.unwrap_or(key.models.take());
    key.project = wanted.project.unwrap_or(key.project.clone());
    key.tags = wanted.tags.unwrap_or(std::mem::take(&mut key.tags));
    key.limits = wanted.limits.unwrap_or(key.limits);
    key.budget = wanted.budget.unwrap_or(key.budget);
}

fn bought(
    id: &PackageId,
    offer: &Offer,
    command: &CommandId,
    (now, from): (Timestamp, Timestamp),
) -> Result<Package, Refusal> {
    let valid_until = offer.validity.end(from, &offer.zone).ok_or(Refusal::OutsideCalendar)?;
    Ok(Package {
        id: id.clone(),
        offer: offer.id.clone(),
        command: command.clone(),
        total: offer.quantity,
        free: offer.quantity,
        leased: Units::ZERO,
        settled: Units::ZERO,
        suspense: Units::ZERO,
        forfeited: Units::ZERO,
        overrun: Units::ZERO,
        bought_at: now,
        valid_from: from,
        valid_until,
        billable: offer.billable.clone(),
        price: offer.price,
        project: ProjectId::default(),
        tags: Tags::default(),
    })
}

fn add_package(books: &Books, product: ProductId, package: Package, now: Timestamp) -> Change {
    let known = books.pools.get(&product).cloned();
    let mut pool = known.unwrap_or_else(|| Pool::new(books.head.id.clone(), product.clone()));
    pool.observe(now);
    let mut events = vec![Event::PackageAdded { product, package: package.id.clone() }];
    pool.add(package, &mut events);
    let ended = pool.sweep(now, &mut events);
    Change { head: None, pool: Some(pool), ended, events }
}

fn resolve(
    books: &Books,
    product: &ProductId,
    id: &PackageId,
    (units, used): (Units, bool),
    now: Timestamp,
) -> Result<Change, Refusal> {
    let unknown = || Refusal::UnknownPackage(id.clone());
    let mut pool = books.pools.get(product).cloned().ok_or_else(unknown)?;
    let now = pool.observe(now);
    let package = pool.packages.iter().find(|package| package.id == *id).ok_or_else(unknown)?;
    let available = package.suspense;
    if units > available {
        return Err(Refusal::NotInSuspense { available });
    }
    pool.take_from_suspense(id, units, used);
    pool.cover_missing();
    let mut events = Vec::new();
    let ended = pool.sweep(now, &mut events);
    Ok(Change { head: None, pool: Some(pool), ended, events })
}

/// What a gateway reports of a pool and asks of it, in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Who reports.
    pub incarnation: Incarnation,
    /// Its leases that are not known to be closed.
    pub reports: Vec<LeaseReport>,
    /// Set when the incarnation has ended and `reports` names every lease that its journal knows: nothing but
    /// repetitions will come of it.
    pub ended: Option<RunEnd>,
    /// A new lease: its number, and how much is needed.
    pub grant: Option<(u64, Want)>,
}

/// Books a gateway's reports, then grants what it asks for.
pub fn sync(pool: &Pool, sync: &Sync, now: Timestamp) -> (Change, Option<Lease>) {
    let mut next = pool.clone();
    let now = next.observe(now);
    let mut events = Vec::new();
    for report in &sync.reports {
        next.settle(&sync.incarnation, report, now, &mut events);
    }
    if let Some(end) = sync.ended {
        let known = |number| sync.reports.iter().any(|report| report.number == number);
        next.finish(&sync.incarnation, (end, known), now, &mut events);
    }
    next.forget_finished(now);
    next.give_up_unplaced(now, &mut events);
    next.suspend_silent(now, &mut events);
    next.cover_missing();
    let mut ended = next.sweep(now, &mut events);
    let lease = sync.grant.and_then(|(number, want)| next.grant(&sync.incarnation, number, want, now));
    ended.extend(next.sweep(now, &mut events));
    (Change { head: None, pool: Some(next), ended, events }, lease)
}

#[cfg(test)]
mod tests {
    use jiff::Span;
    use jiff::ToSpan;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::domain::billable::BillableStatuses;
    use crate::domain::id::{GatewayId, OfferId};
    use crate::domain::key::KeyHash;
    use crate::domain::lease::LeasePart;
    use crate::domain::offer::Validity;
    use crate::domain::pool::Shortage;

    fn start() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn books() -> Books {
        Books { head: Account::open(AccountId::new("a").unwrap(), "A".into(), start()), pools: BTreeMap::new() }
    }

    fn command(id: &str, action: Action) -> Command {
        Command { id: CommandId::new(id).unwrap(), action }
    }

    fn key(number: usize) -> ApiKey {
        let id = KeyId::new(&format!("k-{number}")).unwrap();
        let hash = KeyHash([u8::try_from(number).unwrap(); 32]);
        ApiKey { description: "first".into(), ..ApiKey::new(id, hash, "sk-tg-ab…yz".into(), start()) }
    }

    fn product() -> ProductId {
        ProductId::new("chat").unwrap()
    }

    fn package(id: &str) -> PackageId {
        PackageId::new(id).unwrap()
    }

    fn buy(id: &str, quantity: u64, valid_from: Option<Timestamp>) -> Action {
        let offer = Offer {
            id: OfferId::new("small").unwrap(),
            product: product(),
            quantity: Units::new(quantity),
            validity: Validity::Days(1),
            zone: TimeZone::UTC,
            billable: BillableStatuses::default(),
            price: None,
            for_apps: false,
        };
        let (project, tags) = (ProjectId::default(), Tags::default());
        Action::AddPackage { package: package(id), offer, valid_from, project, tags, spare_app: None }
    }

    /// Applies a command to the books, as a store would.
    fn run(books: &mut Books, id: &str, action: Action, now: Timestamp) -> Result<Change, Refusal> {
        let change = apply(books, &command(id, action), now)?;
        books.head = change.head.clone().unwrap_or(books.head.clone());
        books.pools.extend(change.pool.clone().map(|pool| (pool.product.clone(), pool)));
        Ok(change)
    }

    fn after(span: Span) -> Timestamp {
        start().checked_add(span).unwrap()
    }

    #[test]
    fn a_command_is_applied_once_in_thirty_days() {
        let check = |other_commands: bool, later: Span, applied: bool| {
            let mut books = books();
            run(&mut books, "c-1", buy("p-1", 5, None), start()).unwrap();
            if other_commands {
                run(&mut books, "c-2", Action::AddKey(key(1)), after(1.hour())).unwrap();
            }
            let change = run(&mut books, "c-1", buy("p-2", 5, None), after(later)).unwrap();
            assert_eq!(change != Change::default(), applied, "{later} {other_commands}");
        };
        for other_commands in [false, true] {
            check(other_commands, 0.seconds(), false);
            check(other_commands, 720.hours(), false);
            check(other_commands, 720.hours().nanoseconds(1), true);
        }
    }

    #[test]
    fn a_refused_command_can_be_asked_again() {
        let mut books = books();
        let revoke = || Action::RevokeKey(KeyId::new("k-1").unwrap());
        let unknown = Refusal::UnknownKey(KeyId::new("k-1").unwrap());
        assert_eq!(run(&mut books, "c-1", revoke(), start()), Err(unknown));
        run(&mut books, "c-2", Action::AddKey(key(1)), start()).unwrap();
        run(&mut books, "c-1", revoke(), start()).unwrap();
        assert_eq!(books.head.keys, []);
    }

    #[test]
    fn the_twenty_first_key_is_refused_until_one_is_revoked() {
        let mut books = books();
        for number in 1..=20 {
            run(&mut books, &format!("c-{number}"), Action::AddKey(key(number)), start()).unwrap();
        }
        let refused = run(&mut books, "c-21", Action::AddKey(key(21)), start());
        assert_eq!(refused, Err(Refusal::TooManyKeys { max: 20 }));
        run(&mut books, "c-22", Action::RevokeKey(KeyId::new("k-7").unwrap()), start()).unwrap();
        run(&mut books, "c-21", Action::AddKey(key(21)), start()).unwrap();
        assert_eq!(books.head.keys.len(), 20);
    }

    #[test]
    fn only_what_is_given_of_a_key_changes() {
        let mut books = books();
        run(&mut books, "c-1", Action::AddKey(key(1)), start()).unwrap();
        let id = || KeyId::new("k-1").unwrap();
        let (expires_at, products) = (Some(Some(start())), Some(Some(vec![product()])));
        let limits = KeyChange { expires_at, products, ..KeyChange::default() };
        run(&mut books, "c-2", Action::ChangeKey(id(), limits), start()).unwrap();
        let limited = ApiKey { expires_at: Some(start()), products: Some(vec![product()]), ..key(1) };
        assert_eq!(books.head.keys, std::slice::from_ref(&limited));
        let free = KeyChange { expires_at: Some(None), disabled: Some(true), ..KeyChange::default() };
        run(&mut books, "c-3", Action::ChangeKey(id(), free), start()).unwrap();
        assert_eq!(books.head.keys, [ApiKey { expires_at: None, disabled: true, ..limited }]);
    }

    #[test]
    fn keys_and_packages_carry_a_project_and_tags_and_older_ones_the_default() {
        let mut books = books();
        run(&mut books, "c-1", Action::AddKey(key(1)), start()).unwrap();
        let text = serde_json::to_string(&books.head.keys[0]).unwrap();
        assert!(!text.contains("project") && !text.contains("tags"), "as before: {text}");
        assert_eq!(serde_json::from_str::<ApiKey>(&text).unwrap(), key(1));
        let tags = Tags::new([("team".to_owned(), "a".to_owned())].into()).unwrap();
        let project = ProjectId::new("search").unwrap();
        let change = KeyChange { project: Some(project.clone()), tags: Some(tags.clone()), ..KeyChange::default() };
        run(&mut books, "c-2", Action::ChangeKey(KeyId::new("k-1").unwrap(), change), start()).unwrap();
        assert_eq!(books.head.keys, [ApiKey { project: project.clone(), tags: tags.clone(), ..key(1) }]);
        let Action::AddPackage { package, offer, valid_from, .. } = buy("p-1", 5, None) else { unreachable!() };
        let wanted = Action::AddPackage {
            package,
            offer,
            valid_from,
            project: project.clone(),
            tags: tags.clone(),
            spare_app: None,
        };
        run(&mut books, "c-3", wanted, start()).unwrap();
        let bought = &books.pools[&product()].packages[0];
        assert_eq!((&bought.project, &bought.tags), (&project, &tags));
        let read: Package = serde_json::from_str(&serde_json::to_string(bought).unwrap()).unwrap();
        assert_eq!(read, *bought);
    }

    #[test]
    fn a_package_begins_now_or_later_and_says_so_once() {
        let mut books = books();
        let change = run(&mut books, "c-1", buy("p-1", 5, None), start()).unwrap();
        assert_eq!(change.events, [Event::PackageAdded { product: product(), package: package("p-1") }]);
        run(&mut books, "c-2", buy("p-2", 7, Some(after(48.hours()))), start()).unwrap();
        let pool = &books.pools[&product()];
        let windows: Vec<_> = pool.packages.iter().map(|p| (p.valid_from, p.valid_until.to_string())).collect();
        let ends = ["2026-03-02T23:59:59Z", "2026-03-04T23:59:59Z"].map(str::to_owned);
        assert_eq!(windows, [(start(), ends[0].clone()), (after(48.hours()), ends[1].clone())]);
        assert_eq!(pool.remaining(start()), Units::new(5));
        let never = run(&mut books, "c-3", buy("p-3", 5, Some(Timestamp::MAX)), start());
        assert_eq!(never, Err(Refusal::OutsideCalendar));
    }

    #[test]
    fn an_operator_resolves_what_is_in_suspense() {
        let check = |units: u64, used: bool, later: Span, expected: Result<[u64; 4], Refusal>| {
            let mut books = books();
            run(&mut books, "c-1", buy("p-1", 5, None), start()).unwrap();
            let bought = &mut books.pools.get_mut(&product()).unwrap().packages[0];
            (bought.free, bought.suspense) = (Units::new(2), Units::new(3));
            let (product, package, units) = (product(), package("p-1"), Units::new(units));
            let resolve = Action::ResolveSuspense { product, package, units, used };
            let places = run(&mut books, "c-2", resolve, after(later)).map(|change| {
                let pool = change.pool.unwrap();
                let package = pool.packages.iter().chain(&change.ended).next().unwrap();
                [package.free, package.suspense, package.settled, package.forfeited].map(Units::get)
            });
            assert_eq!(places, expected, "{units} {used} {later}");
        };
        check(3, true, 1.hour(), Ok([2, 0, 3, 0]));
        check(2, false, 1.hour(), Ok([4, 1, 0, 0]));
        check(0, false, 1.hour(), Ok([2, 3, 0, 0]));
        check(4, true, 1.hour(), Err(Refusal::NotInSuspense { available: Units::new(3) }));
        // Once the package has expired, what comes back is forfeited.
        check(2, false, 48.hours(), Ok([0, 1, 0, 4]));
        check(3, false, 48.hours(), Ok([0, 0, 0, 5]));
    }

    #[test]
    fn what_is_not_there_cannot_be_resolved() {
        let mut books = books();
        let resolve = |package| Action::ResolveSuspense { product: product(), package, units: Units::ONE, used: true };
        let unknown = || Err(Refusal::UnknownPackage(package("p-9")));
        assert_eq!(run(&mut books, "c-1", resolve(package("p-9")), start()), unknown());
        run(&mut books, "c-2", buy("p-1", 5, None), start()).unwrap();
        assert_eq!(run(&mut books, "c-3", resolve(package("p-9")), start()), unknown());
    }

    fn asking(reports: Vec<LeaseReport>, grant: Option<u64>) -> Sync {
        let incarnation = Incarnation { gateway: GatewayId::new("gw").unwrap(), number: 1 };
        let want = Want { now: Units::new(4), rate: Units::ZERO };
        Sync { incarnation, reports, ended: None, grant: grant.map(|number| (number, want)) }
    }

    #[test]
    fn what_one_report_returns_the_same_sync_can_grant() {
        let mut books = books();
        run(&mut books, "c-1", buy("p-1", 4, None), start()).unwrap();
        let (change, lease) = sync(&books.pools[&product()], &asking(Vec::new(), Some(1)), start());
        let Lease { parts, deadline, .. } = lease.unwrap();
        let pool = change.pool.unwrap();
        assert_eq!(sync(&pool, &asking(Vec::new(), Some(2)), start()).1, None);
        let used = vec![LeasePart { used: Units::ONE, returned: Units::new(3), ..parts[0].clone() }];
        let report = LeaseReport { number: 1, parts: used, deadline, spent: BTreeMap::new(), lost: false };
        let (change, lease) = sync(&pool, &asking(vec![report], Some(2)), start());
        assert_eq!(lease.unwrap().parts[0].granted, Units::new(3));
        assert_eq!(change.pool.unwrap().packages[0].settled, Units::ONE);
    }

    #[test]
    fn each_sync_looks_for_silent_gateways() {
        let mut books = books();
        run(&mut books, "c-1", buy("p-1", 8, None), start()).unwrap();
        let pool = sync(&books.pools[&product()], &asking(Vec::new(), Some(1)), start()).0.pool.unwrap();
        let incarnation = Incarnation { gateway: GatewayId::new("other").unwrap(), number: 1 };
        let other = Sync { incarnation, ..asking(Vec::new(), Some(1)) };
        let (change, lease) = sync(&pool, &other, after(61.seconds()));
        assert_eq!(lease.unwrap().parts[0].granted, Units::new(4));
        assert_eq!(change.pool.unwrap().packages[0].suspense, Units::new(4));
        let suspense = Units::new(4);
        assert_eq!(change.events, [Event::Suspended { product: product(), package: package("p-1"), suspense }]);
    }

    #[test]
    fn a_pools_document_is_small_and_does_not_grow_with_its_history() {
        let at = |hours: i64| start().checked_add(jiff::SignedDuration::from_hours(hours)).unwrap();
        let size = |pool: &Pool| serde_json::to_string(pool).unwrap().len();
        let gateway =
            |number| Incarnation { gateway: GatewayId::new(&format!("gateway-{number}")).unwrap(), number: 7 };
        let mut books = books();
        let mut pool = Pool::new(books.head.id.clone(), product());
        let mut first = 0;
        for hour in 0..8_760_u32 {
            // An hourly repurchase: the old package is used up by eight gateways, each of which keeps a lease.
            books.pools.insert(product(), pool);
            let change = run(
                &mut books,
                &format!("repurchase-{hour:05}"),
                buy(&format!("pkg-{hour:016}"), 160, None),
                at(i64::from(hour)),
            );
            pool = change.unwrap().pool.unwrap();
            for number in 0..8 {
                let incarnation = gateway(number);
                let mine = pool.held.get(&incarnation).map(|held| held.leases.clone()).unwrap_or_default();
                let used = |(number, lease): (u64, Lease)| {
                    let used = |part: LeasePart| LeasePart { used: part.granted, ..part };
                    let parts = lease.parts.into_iter().map(used).collect();
                    LeaseReport { number, parts, deadline: lease.deadline, spent: BTreeMap::new(), lost: false }
                };
                let reports = mine.into_iter().map(used).collect();
                let grant = Some((u64::from(hour) + 1, Want { now: Units::new(20), rate: Units::ZERO }));
                let asked = Sync { incarnation, reports, ended: None, grant };
                pool = sync(&pool, &asked, at(i64::from(hour))).0.pool.unwrap();
            }
            if hour == 100 {
                first = size(&pool);
            }
        }
        assert!(size(&pool) <= first + 64, "{} bytes, {first} at the beginning", size(&pool));
        // Four more packages, as a buyer has that stacks them.
        for number in 0..4 {
            books.pools.insert(product(), pool);
            pool = run(&mut books, &format!("more-{number}"), buy(&format!("pkg-{number}"), 1_000, None), at(8_760))
                .unwrap()
                .pool
                .unwrap();
        }
        assert!(pool.packages.len() >= 5 && pool.held.len() == 8);
        assert!(size(&pool) <= 4_096, "{} bytes", size(&pool));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_bring_an_expired_package_back() {
        let mut books = books();
        run(&mut books, "c-1", buy("p-1", 4, None), start()).unwrap();
        let expired = after(48.hours());
        let (change, lease) = sync(&books.pools[&product()], &asking(Vec::new(), Some(1)), expired);
        assert_eq!((lease, change.ended.len()), (None, 1));
        let (change, lease) = sync(&change.pool.unwrap(), &asking(Vec::new(), Some(1)), start());
        let pool = change.pool.unwrap();
        assert_eq!((lease, pool.time_high), (None, expired));
        let at = "2026-03-02T23:59:59Z".parse().unwrap();
        assert_eq!(pool.shortage(start()), Shortage::Expired { at });
    }
}
