//! What one exchange costs a gateway in computing: the pool document decoded, changed by a report and a new lease, and
//! encoded again.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tollgate::domain::account::{Sync, sync};
use tollgate::domain::amount::Units;
use tollgate::domain::id::{AccountId, GatewayId, Incarnation, ProductId};
use tollgate::domain::lease::{Lease, Want};
use tollgate::domain::pool::Pool;
use tollgate::domain::settle::LeaseReport;

use crate::prepare::{package, part};

const PACKAGES: usize = 5;
const GATEWAYS: u64 = 8;
/// Changes that one sample times, and samples.
const CHANGES: u32 = 1_000;
const SAMPLES: usize = 21;

fn asking(by: &Incarnation, number: u64, reports: Vec<LeaseReport>) -> Sync {
    let want = Want { now: Units::new(1), rate: Units::new(500) };
    Sync { incarnation: by.clone(), reports, ended: None, grant: Some((number, want)) }
}

/// Each gateway holds a lease; the first is about to report it and to ask for the next.
fn prepared(now: Timestamp) -> (Pool, Sync) {
    let (account, product) = (AccountId::new("account-0000001").unwrap(), ProductId::new("chat").unwrap());
    let mut pool = Pool::new(account, product);
    for number in 0..PACKAGES {
        pool.add(package(&format!("package-{number:07}")), &mut Vec::new());
    }
    let gateway = |number| Incarnation { gateway: GatewayId::new(&format!("gateway-{number}")).unwrap(), number: 7 };
    let mut first: Option<Lease> = None;
    for number in 0..GATEWAYS {
        let (change, lease) = sync(&pool, &asking(&gateway(number), 1, Vec::new()), now);
        pool = change.pool.unwrap();
        first = first.or(lease);
    }
    let lease = first.unwrap();
    let parts = lease.parts.iter().map(|of| part(&of.package, of.granted.get(), of.granted.get() / 2)).collect();
    let report = LeaseReport { number: 1, parts, deadline: lease.deadline, spent: Default::default(), lost: false };
    (pool, asking(&gateway(0), 2, vec![report]))
}

pub(crate) fn run() {
    let now = Timestamp::now();
    let (pool, asked) = prepared(now);
    let text = serde_json::to_string(&pool).unwrap();
    let change = || {
        let pool: Pool = serde_json::from_str(black_box(&text)).unwrap();
        let (change, lease) = sync(&pool, black_box(&asked), now);
        assert!(lease.is_some());
        serde_json::to_string(&change.pool.unwrap()).unwrap()
    };
    let mut samples: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let begun = Instant::now();
            (0..CHANGES).for_each(|_| drop(black_box(change())));
            begun.elapsed() / CHANGES
        })
        .collect();
    samples.sort_unstable();
    let (median, slowest) = (samples[SAMPLES / 2], samples[SAMPLES - 1]);
    println!("a pool of {PACKAGES} packages, {GATEWAYS} gateways: {} bytes, then {} bytes", text.len(), change().len());
    println!("decode, change, encode: {median:?} (median of {SAMPLES} samples; slowest {slowest:?})");
}
