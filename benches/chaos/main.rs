//! Long runs against the real binary, with a printed seed: `crash` kills the gateway under load and compares every call
//! with the books, `race` sells out packages to racing clients. What they do is in tests/harness; here is only the
//! command line and the tables.
//!
//! `cargo bench --bench chaos -- crash --rounds 30 --seed 7`
//! `cargo bench --bench chaos -- race --rounds 20 --clients 256 --calls 1000 --fail-percent 10`
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a run stops at the first surprise")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command-line tool")]

#[path = "../../tests/harness/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod harness;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use harness::{crash, race};

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
    /// Kill -9 at random moments under load; nothing may be lost or doubled.
    Crash(Crash),
    /// Racing clients buy out packages; exactly what was sold may come through.
    Race(Race),
}

#[derive(Args)]
struct Crash {
    /// Kills.
    #[arg(long, default_value_t = 30)]
    rounds: u32,
    /// Repeats a run's moments; by default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Open-loop load.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    calls_per_second: u64,
}

#[derive(Args)]
struct Race {
    /// Packages to sell out.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Repeats which calls the seller fails; by default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients that call at once.
    #[arg(long, default_value_t = 256)]
    clients: usize,
    /// Units of each package.
    #[arg(long, default_value_t = 1_000)]
    calls: u64,
    /// How many of a hundred calls the seller fails.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=90))]
    fail_percent: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // `cargo test --all-targets` runs benchmarks without a command; the short runs are tests of their own.
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        println!("choose a run: crash or race; see --help");
        return ExitCode::SUCCESS;
    }
    let kept = match Flags::parse().run {
        Run::Crash(flags) => run_crash(&flags).await,
        Run::Race(flags) => run_race(&flags).await,
    };
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

async fn run_crash(flags: &Crash) -> bool {
    let (seed, calls_per_second) = (flags.seed.unwrap_or_else(seed_of_now), flags.calls_per_second);
    println!("crash: {} rounds of kill -9, {calls_per_second} calls/s, a third streamed, seed {seed}", flags.rounds);
    let report = crash::run(crash::Plan { rounds: flags.rounds, seed, calls_per_second }).await;
    println!("{:>5} {:>9} {:>9} {:>9}", "round", "kill ms", "in flight", "ready ms");
    for (number, round) in report.rounds.iter().enumerate() {
        let (after, ready) = (round.after.as_millis(), round.ready.as_millis());
        println!("{:>5} {after:>9} {:>9} {ready:>9}", number + 1, round.in_flight);
    }
    let differences = &report.differences;
    println!("calls begun {}, 2xx heads received {}, of them cut {}", report.calls, report.received, report.cut);
    println!("units in usage records {}, units booked {}", report.charged, report.settled);
    println!("billed but undelivered {}: {:?}", differences.undelivered.len(), differences.undelivered);
    let faults = report.faults();
    for fault in &faults {
        println!("FAULT {fault}");
    }
    println!("seed {seed}: lost {}, doubled {}", differences.lost.len(), differences.doubled.len());
    faults.is_empty()
}

async fn run_race(flags: &Race) -> bool {
    let seed = flags.seed.unwrap_or_else(seed_of_now);
    let Race { rounds, clients, calls, fail_percent, .. } = *flags;
    println!(
        "race: {clients} clients for {calls} calls, {fail_percent} % failed by the seller, {rounds} rounds, seed {seed}"
    );
    let rounds = race::run(race::Plan { rounds, seed, clients, calls, fail_percent }).await;
    println!("{:>5} {:>8} {:>8} {:>8} {:>8} {:>8}", "round", "raced", "run-off", "sold", "failed", "booked");
    let mut wrong = 0;
    for (number, round) in rounds.iter().enumerate() {
        let sold = round.sold();
        let mark = if sold == calls && round.settled == calls { "" } else { "  WRONG" };
        wrong += usize::from(!mark.is_empty());
        let race::Round { raced, run_off, failed, settled } = round;
        println!("{:>5} {raced:>8} {run_off:>8} {sold:>8} {failed:>8} {settled:>8}{mark}", number + 1);
    }
    println!("seed {seed}: {} of {} rounds sold exactly {calls}", rounds.len() - wrong, rounds.len());
    wrong == 0
}
