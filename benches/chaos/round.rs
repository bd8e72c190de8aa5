//! One round: servers, gateways, accounts and load of its own; a fault at a seeded moment; the wait for full service;
//! a run-off of the small accounts; an orderly end; and the evidence for the oracle.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::bank::{Bank, Engine};
use super::cases::Case;
use super::faults::{Field, Struck};
use super::fleet::{Fleet, READY_WITHIN};
use super::load::{Caller, Load, Seen, ask};
use super::oracle::{Account, Books, Call, Evidence, Purchases, Verdict, judge};
use crate::harness::admin::{Admin, TOKEN};
use crate::harness::client::Request;
use crate::harness::rng::Rng;
use crate::harness::{crash, seller::Seller};

/// Calls a second, over all gateways.
const CALLS_PER_SECOND: u64 = 300;
/// What the first account buys: more than any round uses.
const RICH: u64 = 1_000_000;
/// What the others buy, by the seed: some are used up before the fault, some after it.
const SMALL: [u64; 4] = [40, 100, 200, 400];
/// How many others there are.
const SMALL_ACCOUNTS: usize = 3;
/// The time limit of a command to the store; the configuration's default.
const STORE_TIMEOUT: Duration = Duration::from_millis(250);
/// A call's answer comes at most so much later than the store's time limit.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// The seller thinks at most so long.
const THINKS: Duration = Duration::from_millis(30);
/// What a busy machine may add.
const MACHINE: Duration = Duration::from_millis(100);
/// The load goes on for so long after full service.
const AFTERWARDS: Duration = Duration::from_millis(700);
/// A refusal is remembered for a quarter of a second; the run-off begins when none is.
const REFUSALS_FORGOTTEN: Duration = Duration::from_millis(350);
/// Between two purchases.
const SHOP_EVERY: Duration = Duration::from_millis(300);
/// Before an operator asks again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Longest wait for leases to be settled in the end; a gateway tries again until the store takes it.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
/// A round that takes longer has failed.
pub(crate) const ROUND_MAX: Duration = Duration::from_secs(300);

/// How a round is to be run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) case: &'static Case,
    pub(crate) seed: u64,
    pub(crate) engine: Engine,
    /// How many gateways; `None`: as the seed says.
    pub(crate) gateways: Option<usize>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) gateways: usize,
    pub(crate) faults: u32,
    /// From the end of the fault until every gateway has served a call that began after it.
    pub(crate) served: Duration,
    /// From the end of the fault until every gateway says that it is ready.
    pub(crate) ready: Duration,
    /// How long a call might wait for its head: what is promised, and what this machine adds.
    pub(crate) wait_max: Duration,
    /// From the start of its servers to the last look at the books.
    pub(crate) took: Duration,
    pub(crate) note: Option<String>,
    /// Where the evidence of a failed round is kept.
    pub(crate) kept_in: Option<std::path::PathBuf>,
}

/// Runs one round.
pub(crate) async fn run(plan: Plan) -> Outcome {
    let mut rng = Rng::new(plan.seed);
    let gateways = plan.gateways.unwrap_or(1 + rng.below(4) as usize);
    let served = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = Arc::clone(&served);
    let seller = Seller::forgetful(move |seen| crash::answer(seen, &notes)).await;
    let bank = Bank::open(plan.case.shape, plan.engine).await;
    let offers = [&SMALL[..], &[RICH]].concat();
    let mut fleet = Fleet::start(gateways, seller.address, &bank, (&offers, plan.seed)).await;
    let mut callers = vec![open(&fleet.members[0].admin, RICH).await];
    for _ in 0..SMALL_ACCOUNTS {
        let calls = SMALL[rng.below(SMALL.len() as u64) as usize];
        callers.push(open(&fleet.members[0].admin, calls).await);
    }
    let load = Load::new(Arc::clone(&fleet.roads), callers, plan.seed);
    let shop = Shop::open(&fleet.members[0].admin, plan.seed).await;
    let driver = tokio::spawn(Arc::clone(&load).drive(CALLS_PER_SECOND));
    let shopping = tokio::spawn(Arc::clone(&shop).buy());
    shop.look_at(&fleet);

    let key = load.callers[0].key.as_str();
    let mut field = Field { fleet: &mut fleet, bank: &bank, rng: &mut rng, key };
    let Struck { faults, disk_lost, note, breaches } = field.strike(plan.case.fault).await;
    shop.look_at(&fleet);
    let ([served_in, ready], mut late) = full_service(&fleet, &load).await;
    late.extend(breaches);
    tokio::time::sleep(AFTERWARDS).await; // load goes on
    shop.closing.store(true, Ordering::SeqCst);
    shopping.await.unwrap();
    load.stop().await;
    driver.await.unwrap();
    tokio::time::sleep(REFUSALS_FORGOTTEN).await;
    // Each account is used up by one call after the other; the accounts do not know of each other.
    let run_offs = (1..load.callers.len()).map(|caller| run_off(&load, caller, rng.below(gateways as u64) as usize));
    late.extend(join_all(run_offs).await.into_iter().flatten());
    for number in 0..gateways {
        if !fleet.stop(number).await {
            late.push(format!("gateway {number} did not stop in order"));
        }
    }
    let mut evidence = evidence(&mut fleet, &load, &shop, disk_lost).await;
    evidence.served = served.lock().unwrap().clone();
    let mut verdict = judge(&evidence);
    verdict.faults.extend(late);
    let kept_in = (!verdict.kept()).then(|| keep(&fleet, &plan, &evidence));
    let wait_max = evidence.wait_max;
    Outcome { verdict, gateways, faults, served: served_in, ready, wait_max, note, kept_in, ..Outcome::default() }
}

/// An account with a package of so many calls, and a key.
pub(crate) async fn open(admin: &Admin, calls: u64) -> Caller {
    let account = text(&made(admin, "", &json!({ "name": "buyer" }), None).await, "id");
    let package = json!({ "offer": format!("chaos-{calls}") });
    made(admin, &format!("/{account}/packages"), &package, Some(&format!("{account}-first"))).await;
    let key = made(admin, &format!("/{account}/keys"), &json!({ "description": "chaos" }), None).await;
    Caller { account, key: text(&key, "key"), bought: calls }
}

/// What the operator makes before a round. It is asked for again if the store does not answer in time, as it may when the
/// disk is busy: nothing has been done to it yet. `once` names what must not be made twice.
async fn made(admin: &Admin, path: &str, body: &Value, once: Option<&str>) -> Value {
    let request = Request::post(&format!("/admin/v1/accounts{path}")).bearer(TOKEN).field("Connection", "close");
    let request = once.into_iter().fold(request, |request, once| request.field("Idempotency-Key", once));
    let request = request.json(&body.to_string());
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match ask(admin.address, &request).await {
            Some((200 | 201, body)) => return serde_json::from_slice(&body).unwrap(),
            None | Some((503, _)) if Instant::now() < deadline => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            other => panic!("{path} is not made: {:?}", other.map(|(status, body)| (status, String::from_utf8(body)))),
        }
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// Waits until every gateway has served a call that began after the fault, and is ready; how long each took.
async fn full_service(fleet: &Fleet, load: &Load) -> ([Duration; 2], Vec<String>) {
    let healed = Instant::now();
    let count = fleet.members.len();
    let serving = async {
        let mut waiting: BTreeSet<usize> = (0..count).collect();
        while !waiting.is_empty() && healed.elapsed() < READY_WITHIN {
            tokio::time::sleep(Duration::from_millis(20)).await;
            for number in load.served_since(healed) {
                waiting.remove(&number);
            }
        }
        (healed.elapsed(), waiting)
    };
    let getting_ready = async {
        let mut late = BTreeSet::new();
        for number in 0..count {
            if !fleet.ready_by(number, healed + READY_WITHIN).await {
                late.insert(number);
            }
        }
        (healed.elapsed(), late)
    };
    let ((served, silent), (ready, unready)) = tokio::join!(serving, getting_ready);
    let mut late = Vec::new();
    late.extend(silent.iter().map(|number| format!("gateway {number} serves no call within {READY_WITHIN:?}")));
    late.extend(unready.iter().map(|number| format!("gateway {number} is not ready within {READY_WITHIN:?}")));
    ([served, ready], late)
}

/// Uses up an account by one call after the other, until the first refusal.
pub(crate) async fn run_off(load: &Load, caller: usize, gateway: usize) -> Option<String> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        match load.one(caller, gateway).await {
            Some(429) => return None,
            Some(200 | 500) => {}
            _ => tokio::time::sleep(Duration::from_millis(50)).await, // the store is not there yet
        }
    }
    Some(format!("the run-off of account {caller} at gateway {gateway} met no refusal within {READY_WITHIN:?}"))
}

/// Collects what is known, once every gateway has stopped in order. Starts them again, for the books, and stops them.
pub(crate) async fn evidence(fleet: &mut Fleet, load: &Load, shop: &Shop, disk_lost: bool) -> Evidence {
    let records = fleet.usage();
    fleet.serve_all().await;
    let admin = fleet.members[0].admin;
    let mut accounts = Vec::new();
    for (number, caller) in load.callers.iter().enumerate() {
        let books = settled_books(&admin, &caller.account, disk_lost).await;
        accounts.push(Account { id: caller.account.clone(), bought: caller.bought, run_off: number > 0, books });
    }
    let booked = packages(&admin, &shop.account).await;
    let command = |package: &Value| package["command"].as_str().unwrap_or_default().to_owned();
    let purchases =
        Purchases { confirmed: shop.confirmed.lock().unwrap().clone(), booked: booked.iter().map(command).collect() };
    let log = load.log();
    fleet.note_backlogs(&log);
    let call = |seen: Seen| {
        let answered = seen.head.map_or(seen.ended, |(_, at)| at);
        Call {
            disturbance: fleet.disturbance(seen.gateway, seen.began, seen.ended),
            status: seen.head.map(|(status, _)| status),
            waited: answered.duration_since(seen.began),
            whole: seen.whole,
            hung_up: seen.hung_up,
            caller: seen.caller,
            id: seen.id,
        }
    };
    Evidence {
        calls: log.into_iter().map(call).collect(),
        served: BTreeSet::new(),
        records,
        accounts,
        purchases,
        disk_lost,
        wait_max: STORE_TIMEOUT + ANSWER_WITHIN + THINKS + MACHINE + 4 * load.late(),
    }
}

/// An account's books, once nothing is leased any more, or after a while.
async fn settled_books(admin: &Admin, account: &str, disk_lost: bool) -> Books {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let books = packages(admin, account).await.iter().fold(Books::default(), |sum, package| {
            let units = |name: &str| package[name].as_u64().unwrap_or_default();
            Books {
                total: sum.total + units("total"),
                free: sum.free + units("free"),
                leased: sum.leased + units("leased"),
                settled: sum.settled + units("settled"),
                suspense: sum.suspense + units("suspense"),
                forfeited: sum.forfeited + units("forfeited"),
                overrun: sum.overrun + units("overrun"),
            }
        });
        if (books.leased == 0 && books.total > 0) || disk_lost || Instant::now() >= deadline {
            return books;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An account's packages, those that have ended too; none if the account is not known. An operator who gets no answer
/// because the store is slow asks again.
async fn packages(admin: &Admin, account: &str) -> Vec<Value> {
    let request = Request::get(&format!("/admin/v1/accounts/{account}/packages")).bearer(TOKEN);
    let request = request.field("Connection", "close");
    let deadline = Instant::now() + READY_WITHIN;
    let body = loop {
        match ask(admin.address, &request).await {
            Some((200, body)) => break body,
            None | Some((503, _)) if Instant::now() < deadline => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            _ => return Vec::new(),
        }
    };
    let listed: Value = serde_json::from_slice(&body).unwrap();
    ["packages", "ended"].iter().flat_map(|name| listed[name].as_array().cloned().unwrap_or_default()).collect()
}

/// Somebody who buys packages all the while, at any gateway, and notes which purchases were confirmed.
pub(crate) struct Shop {
    account: String,
    seed: u64,
    admins: Mutex<Vec<Admin>>,
    confirmed: Mutex<Vec<String>>,
    closing: AtomicBool,
}

impl Shop {
    pub(crate) async fn open(admin: &Admin, seed: u64) -> Arc<Self> {
        let account = text(&made(admin, "", &json!({ "name": "shopper" }), None).await, "id");
        let admins = Mutex::new(vec![*admin]);
        Arc::new(Self { account, seed, admins, confirmed: Mutex::default(), closing: AtomicBool::new(false) })
    }

    /// Where the gateways are now; one that is not there confirms nothing.
    fn look_at(&self, fleet: &Fleet) {
        *self.admins.lock().unwrap() = fleet.members.iter().map(|member| member.admin).collect();
    }

    /// Buys until the shop closes. What is not confirmed is asked for again, elsewhere, by the same command.
    async fn buy(self: Arc<Self>) {
        let mut rng = Rng::new(!self.seed);
        let body = json!({ "offer": format!("chaos-{}", SMALL[0]) }).to_string();
        for number in 0_u64.. {
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            let command = format!("shop-{}-{number}", self.seed);
            for _ in 0..2 {
                let admin = {
                    let admins = self.admins.lock().unwrap();
                    admins[rng.below(admins.len() as u64) as usize]
                };
                let request = Request::post(&format!("/admin/v1/accounts/{}/packages", self.account));
                let request = request.bearer(TOKEN).field("Connection", "close").json(&body);
                if let Some((200 | 201, _)) = ask(admin.address, &request.field("Idempotency-Key", &command)).await {
                    self.confirmed.lock().unwrap().push(command);
                    break;
                }
            }
            tokio::time::sleep(SHOP_EVERY).await;
        }
    }
}

/// Keeps the evidence of a failed round in a folder.
fn keep(fleet: &Fleet, plan: &Plan, evidence: &Evidence) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("tollgate-chaos-{}-{}", plan.case.name, plan.seed));
    std::fs::create_dir_all(&folder).unwrap();
    fleet.keep_words(&folder);
    let calls: Vec<_> = evidence.calls.iter().map(|call| format!("{call:?}")).collect();
    std::fs::write(folder.join("calls.txt"), calls.join("\n")).unwrap();
    let records: Vec<_> = evidence.records.iter().map(Value::to_string).collect();
    std::fs::write(folder.join("records.jsonl"), records.join("\n")).unwrap();
    std::fs::write(folder.join("accounts.txt"), format!("{:#?}\n{:#?}", evidence.accounts, evidence.purchases))
        .unwrap();
    folder
}
