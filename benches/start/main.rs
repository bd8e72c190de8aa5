//! What a gateway's start and one change of a pool document cost: `restart` prepares a store and the journal of a run
//! that was killed, and measures the time from the start of the process until it is ready; `audit` settles such a journal,
//! and measures `tollgate reconcile` and `replay` over it; `document` measures decoding, changing and encoding a pool
//! document; `cold` calls once for each of many accounts, and counts what the store was asked.
//!
//! `cargo bench --bench start -- restart --packages 100000 --journal-mib 64 --pools 1000,100000 --stores embedded,redis`
//! `cargo bench --bench start -- audit --packages 1000 --pools 1000 --journal-mib 2048`
//! `cargo bench --bench start -- document`
//! `cargo bench --bench start -- cold --accounts 100000`
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a run stops at the first surprise")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command-line tool")]

mod audit;
mod cold;
mod document;
#[path = "../../tests/harness/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod harness;
mod prepare;

use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use harness::redis::Server;
use harness::world::{World, base_config};
use prepare::{Place, Plan};
use serde_json::{Value, json};

/// A start is not worth waiting for that has not ended by then; the harness gives up before.
const RUNS_MAX: u16 = 100;

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    run: Run,
    /// Given by cargo to every benchmark.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Run {
    /// From the start of the process until it is ready, after a kill.
    Restart(Restart),
    /// What `tollgate reconcile` and `tollgate replay` take over a journal that is settled.
    Audit(Audit),
    /// Decoding, changing and encoding a pool of five packages that eight gateways draw on.
    Document,
    /// What the store is asked for the first call of each of many accounts.
    Cold(cold::Cold),
}

#[derive(Args)]
struct Restart {
    /// Accounts in the store, a package each.
    #[arg(long, default_value_t = 100_000)]
    packages: u64,
    /// Size of the killed run's journal.
    #[arg(long, default_value_t = 64)]
    journal_mib: u64,
    /// How many pools the run had drawn on; several make a line each.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000")]
    pools: Vec<u64>,
    /// Where the accounts are.
    #[arg(long, value_delimiter = ',', default_value = "embedded,redis")]
    stores: Vec<Kind>,
    /// Starts of each, every one prepared anew; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(RUNS_MAX)))]
    runs: u16,
}

#[derive(Args)]
struct Audit {
    /// Accounts in the store, a package each.
    #[arg(long, default_value_t = 1_000)]
    packages: u64,
    /// Size of the journal; some two hundred bytes a call.
    #[arg(long, default_value_t = 2_048)]
    journal_mib: u64,
    /// How many pools were drawn on.
    #[arg(long, default_value_t = 1_000)]
    pools: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Embedded,
    Redis,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --all-targets` runs benchmarks without a command.
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        println!("choose a run: restart, audit, document or cold; see --help");
        return;
    }
    match Flags::parse().run {
        Run::Restart(flags) => restart(&flags).await,
        Run::Audit(flags) => audit(&flags).await,
        Run::Document => document::run(),
        Run::Cold(flags) => cold::run(&flags).await,
    }
}

async fn restart(flags: &Restart) {
    println!(
        "| store | packages | pools drawn on | journal MiB | calls in it | ready after ms (each start) | median |"
    );
    println!("|---|--:|--:|--:|--:|---|--:|");
    for kind in &flags.stores {
        for pools in &flags.pools {
            let plan = Plan { packages: flags.packages, pools: *pools, journal_bytes: flags.journal_mib << 20 };
            let (mut times, mut calls) = (Vec::new(), 0);
            for _ in 0..flags.runs {
                let took;
                (took, calls) = start_once(*kind, &plan).await;
                times.push(took);
            }
            let each = times.iter().map(u128::to_string).collect::<Vec<_>>().join(", ");
            times.sort_unstable();
            let (median, mib) = (times[times.len() / 2], flags.journal_mib);
            println!("| {kind:?} | {} | {pools} | {mib} | {calls} | {each} | {median} |", plan.packages);
        }
    }
}

async fn audit(flags: &Audit) {
    let plan = Plan { packages: flags.packages, pools: flags.pools, journal_bytes: flags.journal_mib << 20 };
    let dir = tempfile::tempdir().unwrap();
    let place = Place { data: dir.path().join("data"), redis: None };
    let calls = prepare::prepare(&place, &plan).await;
    prepare::settle(&place).await;
    let mut config: Value = base_config(([127, 0, 0, 1], 9).into());
    config["gateway"] = json!(prepare::GATEWAY);
    let path = dir.path().join("tollgate.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    audit::measure_all(&path, calls).await;
}

/// Prepares one start and carries it out; returns its milliseconds, and the calls in the journal.
async fn start_once(kind: Kind, plan: &Plan) -> (u128, u64) {
    let dir = tempfile::tempdir().unwrap();
    let server = (kind == Kind::Redis).then(|| Server::start(&["--appendonly", "yes"]));
    let place = Place { data: dir.path().join("data"), redis: server.as_ref().map(Server::socket) };
    let calls = prepare::prepare(&place, plan).await;
    let mut config: Value = base_config(([127, 0, 0, 1], 9).into()); // no call is made: nobody need listen there
    config["gateway"] = json!(prepare::GATEWAY);
    if let Some(socket) = place.redis {
        let url = format!("unix:{}", socket.display());
        config["store"] = json!({ "redis": { "url": url, "timeout": "2s" } });
    }
    let begun = Instant::now();
    let mut world = World::on(dir, config).await;
    let took = begun.elapsed();
    let unsettled = world.gateway.said().iter().filter(|line| line.contains("\"ERROR\"")).count();
    assert_eq!(unsettled, 0, "{:?}", world.gateway.said());
    world.gateway.kill().await;
    (took.as_millis(), calls)
}
