//! The two runs with one gateway and the embedded store: `crash` kills it under load and compares every call with the
//! books, `race` sells out packages to racing clients. What they do is in tests/harness.

use clap::Args;

use super::oracle::Verdict;
use super::round::Outcome;
use super::seed_of_now;
use crate::harness::{crash, race};

#[derive(Args)]
pub(crate) struct Crash {
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
pub(crate) struct Race {
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

pub(crate) async fn run_crash(flags: &Crash) -> bool {
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

pub(crate) async fn run_race(flags: &Race) -> bool {
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

/// The same as `crash`, for the table.
pub(crate) async fn crash_outcome(kills: u32, seed: u64) -> Outcome {
    let report = crash::run(crash::Plan { rounds: kills, seed, calls_per_second: 300 }).await;
    let differences = report.differences.clone();
    let verdict = Verdict {
        calls: report.calls,
        received: report.received,
        faults: report.faults(),
        lost: differences.lost,
        doubled: differences.doubled,
        invented: differences.invented,
        ..Verdict::default()
    };
    let ready = report.rounds.iter().map(|round| round.ready).max().unwrap_or_default();
    Outcome { verdict, gateways: 1, faults: kills, ready, ..Outcome::default() }
}
