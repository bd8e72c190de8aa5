//! What the first call of an account costs the store: one call for each of many accounts, through a gateway whose accounts
//! are on a Redis server, and what that server counted meanwhile.
#![expect(clippy::float_arithmetic, reason = "figures of a measurement, no amounts")]

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tollgate::protocol::api_key::KeyHasher;

use crate::harness::client::{Client, Request};
use crate::harness::redis::Server;
use crate::harness::seller::{Reply, Seller};
use crate::harness::until;
use crate::harness::world::{World, base_config};
use crate::prepare;

/// Clients that call at the same time.
const CLIENTS: usize = 32;
/// For so long it is counted what the gateway asks when nobody calls.
const QUIET: Duration = Duration::from_secs(3);
/// More commands a second than a gateway sends that has nothing to do: it still writes the index of keys of a new server.
const BUSY: f64 = 100.0;

#[derive(Args)]
pub(crate) struct Cold {
    /// Accounts, a package and a key each, and one call.
    #[arg(long, default_value_t = 100_000)]
    accounts: u64,
}

pub(crate) async fn run(flags: &Cold) {
    let server = Server::start(&["--appendonly", "yes"]);
    let seller = Seller::forgetful(|_| Reply::json(200, "{}")).await;
    let mut config: Value = base_config(seller.address);
    let url = format!("unix:{}", server.socket().display());
    config["store"] = json!({ "redis": { "url": url, "timeout": "2s" } });
    let secret = config["secrets"]["hash_key"].as_str().unwrap().to_owned();
    let keys =
        prepare::prepare_cold(server.socket(), flags.accounts, &KeyHasher::new(secret.as_bytes()).unwrap()).await;
    let world = World::on(tempfile::tempdir().unwrap(), config).await;

    let quiet = loop {
        let before = asked(&server);
        tokio::time::sleep(QUIET).await; // a time over which is counted
        let quiet = (asked(&server) - before) / QUIET.as_secs_f64();
        if quiet < BUSY {
            break quiet;
        }
    };
    let (before, begun) = (asked(&server), Instant::now());
    let clients = (0..CLIENTS).map(|client| {
        let (keys, world) = (keys.iter().skip(client).step_by(CLIENTS), &world);
        async move {
            let mut connection: Client = world.client().await;
            for key in keys {
                assert_eq!(connection.call(&Request::chat(key.expose())).await.status(), 200);
            }
        }
    });
    futures_util::future::join_all(clients).await;
    let called = begun.elapsed().as_secs_f64();
    let all_told = async || (world.admin.metrics().await.sum("tollgate_leases_open", &[]) == 0.0).then_some(());
    until("everything is reported", all_told).await;
    let took = begun.elapsed().as_secs_f64();
    let times = asked(&server) - before - quiet * took;
    let commits = world.admin.metrics().await.sum("tollgate_store_commits_total", &[("result", "done")]);

    let calls = flags.accounts as f64;
    println!("{} accounts, one call each: called in {called:.1} s, all reported after {took:.1} s", flags.accounts);
    println!("commands a call: {:.3} (a quiet gateway's {quiet:.1} a second are taken off)", times / calls);
    println!("commits a call: {:.3}, of which no call waits for the second, the report of its use", commits / calls);
}

/// How many commands the server was sent: all of a gateway's questions about accounts are scripts.
fn asked(server: &Server) -> f64 {
    let text: String = redis::from_redis_value(server.ask("INFO commandstats")).unwrap();
    let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.map_or(0.0, |calls| calls.parse().unwrap())
}
