//! Packages that many clients buy out at once through several gateways, while the seller fails some calls and some
//! clients hang up; then one client goes on alone until it is refused. Exactly what was bought must have been sold.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::bank::{Bank, Engine, Keeping, Shape};
use super::fleet::Fleet;
use super::load::Load;
use super::oracle::judge;
use super::round::{self, Outcome, Shop};
use crate::harness::rng::Rng;
use crate::harness::seller::{Reply, Seen, Seller};

/// Clients that call at once.
const CLIENTS: usize = 64;
/// So many of a hundred calls are failed by the seller.
const FAILS_PERCENT: u64 = 10;
/// Longest race for a package: a thousand calls a second are expected of any machine, after a generous start.
const RACE_MAX: Duration = Duration::from_secs(180);
/// A client that meets something else than an answer of the seller or a refusal waits before it calls again.
const PAUSE: Duration = Duration::from_millis(20);

/// What to race for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) gateways: usize,
    /// The size of each package; one race each.
    pub(crate) packages: Vec<u64>,
    pub(crate) seed: u64,
    pub(crate) engine: Engine,
}

/// Runs the races, one after the other, on the same gateways.
pub(crate) async fn run(plan: Plan) -> Outcome {
    let served = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = Arc::clone(&served);
    let seller = Seller::forgetful(move |seen| answer(seen, &notes)).await;
    let bank = Bank::open(Shape::Alone(Keeping::Log("everysec")), plan.engine).await;
    // The first account never runs out, as in every round; nobody calls with it here.
    let packages = [&[1], &plan.packages[..]].concat();
    let offers: Vec<u64> = packages.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let mut fleet = Fleet::start(plan.gateways, seller.address, &bank, (&offers, plan.seed)).await;
    let shop = Shop::open(&fleet.members[0].admin, plan.seed).await;
    let mut callers = Vec::new();
    for calls in &packages {
        callers.push(round::open(&fleet.members[0].admin, *calls).await);
    }
    let load = Load::new(Arc::clone(&fleet.roads), callers, plan.seed);
    let watching = Arc::clone(&load);
    let clock = tokio::spawn(async move { watching.watch_the_clock().await });
    let mut rng = Rng::new(plan.seed);
    let mut faults = Vec::new();
    for caller in 1..load.callers.len() {
        faults.extend(race(&load, caller).await);
        let gateway = rng.below(plan.gateways as u64) as usize;
        faults.extend(round::run_off(&load, caller, gateway).await);
    }
    clock.abort();
    for number in 0..plan.gateways {
        if !fleet.stop(number).await {
            faults.push(format!("gateway {number} did not stop in order"));
        }
    }
    let mut evidence = round::evidence(&mut fleet, &load, &shop, false).await;
    evidence.served = served.lock().unwrap().clone();
    let mut verdict = judge(&evidence);
    verdict.faults.extend(faults);
    Outcome { verdict, gateways: plan.gateways, wait_max: evidence.wait_max, ..Outcome::default() }
}

/// Lets many clients call at once until each is refused.
async fn race(load: &Arc<Load>, caller: usize) -> Option<String> {
    let deadline = Instant::now() + RACE_MAX;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let load = Arc::clone(load);
            tokio::spawn(async move {
                let gateway = client % load.roads.len();
                while Instant::now() < deadline {
                    match load.one_or_none(caller, gateway).await {
                        Some(429) => return true,
                        Some(200 | 500) => {}
                        _ => tokio::time::sleep(PAUSE).await,
                    }
                }
                false
            })
        })
        .collect();
    let mut refused = 0;
    for client in clients {
        refused += usize::from(client.await.unwrap());
    }
    (refused < CLIENTS).then(|| format!("{} clients met no refusal within {RACE_MAX:?}", CLIENTS - refused))
}

fn answer(seen: &Seen, served: &Mutex<BTreeSet<String>>) -> Reply {
    let id = seen.head.get("x-request-id").unwrap_or_else(|| panic!("no x-request-id: {:?}", seen.head)).to_owned();
    let number = id.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if Rng::new(number).percent(FAILS_PERCENT) {
        return Reply::json(500, r#"{"error":"scripted"}"#);
    }
    served.lock().unwrap().insert(id);
    Reply::json(200, r#"{"ok":true}"#)
}
