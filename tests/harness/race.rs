//! Many clients race for one package while the seller fails some of the calls; then one client goes on alone until it
//! is refused. Exactly as many calls must have come through as were sold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::client::{Client, Request};
use super::rng::Rng;
use super::seller::{Reply, Seller};
use super::world::World;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    pub(crate) clients: usize,
    /// Units of the package.
    pub(crate) calls: u64,
    /// How many of a hundred calls the seller fails.
    pub(crate) fail_percent: u64,
}

/// One race.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Round {
    /// 2xx answers of the racing clients.
    pub(crate) raced: u64,
    /// 2xx answers of the one that went on alone.
    pub(crate) run_off: u64,
    /// Calls that the seller failed.
    pub(crate) failed: u64,
    /// Units booked as used in the end.
    pub(crate) settled: u64,
}

impl Round {
    /// How many calls came through.
    pub(crate) fn sold(&self) -> u64 {
        self.raced + self.run_off
    }
}

/// Runs the plan; each round has its own account and package.
pub(crate) async fn run(plan: Plan) -> Vec<Round> {
    let rng = Mutex::new(Rng::new(plan.seed));
    let seller = Seller::answering(move |_| match rng.lock().unwrap().percent(plan.fail_percent) {
        true => Reply::json(500, r#"{"error":"scripted"}"#),
        false => Reply::json(200, r#"{"ok":true}"#),
    });
    let seller = seller.await;
    let offer = json!({ "id": "raced", "product": "chat", "kind": "per_call", "calls": plan.calls, "validity": "1y" });
    let world = World::with(seller.address, |config| config["offers"].as_array_mut().unwrap().push(offer)).await;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        rounds.push(round(&world, plan).await);
    }
    rounds
}

async fn round(world: &World, plan: Plan) -> Round {
    let buyer = world.buyer(&["raced"]).await;
    let failed = Arc::new(AtomicU64::new(0));
    let racing: Vec<_> = (0..plan.clients)
        .map(|_| tokio::spawn(until_refused(world.data, buyer.key.clone(), Arc::clone(&failed))))
        .collect();
    let mut raced = 0;
    for client in racing {
        raced += client.await.unwrap();
    }
    let run_off = until_refused(world.data, buyer.key.clone(), Arc::clone(&failed)).await;
    if raced + run_off == plan.calls {
        world.settles(&buyer.account, plan.calls).await;
    }
    let settled = world.settled(&buyer.account).await;
    Round { raced, run_off, failed: failed.load(Ordering::SeqCst), settled }
}

/// Calls one after the other until the first 429; returns how many came through.
async fn until_refused(gateway: std::net::SocketAddr, key: String, failed: Arc<AtomicU64>) -> u64 {
    let mut client = Client::connect(gateway).await;
    let request = Request::chat(&key);
    let mut through = 0;
    loop {
        let answer = client.call(&request).await;
        match answer.status() {
            200 => through += 1,
            429 => return through,
            500 => _ = failed.fetch_add(1, Ordering::SeqCst),
            other => panic!("{other}: {}", answer.text()),
        }
    }
}
