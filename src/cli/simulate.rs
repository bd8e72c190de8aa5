//! `tollgate simulate`: prints what random histories show, and how to see one of them again.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use super::args::SimulateArgs;
use super::{EXIT_DIFFERENT, EXIT_OK, EXIT_UNAVAILABLE};
use crate::simulate::{self, Outcome, Plan};

/// Lives through the histories and says how it went; 0 if the books were always right, and each safeguard that was left
/// out was missed.
pub fn simulate(args: &SimulateArgs, out: &mut dyn Write) -> ExitCode {
    match told(args, out) {
        Ok(true) => ExitCode::from(EXIT_OK),
        Ok(false) => ExitCode::from(EXIT_DIFFERENT),
        Err(_) => ExitCode::from(EXIT_UNAVAILABLE),
    }
}

fn told(args: &SimulateArgs, out: &mut dyn Write) -> io::Result<bool> {
    let (seed, histories, threads) = (args.seed, args.histories, args.threads);
    let plan = Plan { seed, histories, threads, without: args.without };
    if args.ablations {
        let (table, right) = simulate::ablations(plan);
        write!(out, "{table}")?;
        return Ok(right);
    }
    if args.log {
        return told_steps(plan, out);
    }
    let started = Instant::now();
    let outcome = simulate::many(plan);
    let seconds = started.elapsed().as_secs().max(1);
    summary(plan, &outcome, out)?;
    writeln!(out, "{seconds} s, {} histories a minute on {threads} threads", histories.saturating_mul(60) / seconds)?;
    Ok(outcome.failed == 0)
}

fn told_steps(plan: Plan, out: &mut dyn Write) -> io::Result<bool> {
    let mut right = true;
    for index in 0..plan.histories {
        let (lived, log) = simulate::one(plan.seed.wrapping_add(index), plan.without, true);
        log.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        match lived {
            Ok(_) => writeln!(out, "the books are right")?,
            Err(what) => {
                right = false;
                writeln!(out, "{what}")?;
            }
        }
    }
    Ok(right)
}

fn summary(plan: Plan, outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let done = &outcome.counts;
    writeln!(out, "{} histories from seed {}: {} wrong", plan.histories, plan.seed, outcome.failed)?;
    writeln!(
        out,
        "{} steps, {} calls, {} leases, {} commits, {} rollbacks, {} kills, {} journals lost, {} cut off or stopped, \
         {} clock steps; {} histories with faults that meet",
        done.steps_taken,
        done.calls,
        done.grants,
        done.commits,
        done.rollbacks,
        done.kills,
        done.losses,
        done.cuts,
        done.steps,
        done.double,
    )?;
    for (kind, times) in &outcome.kinds {
        writeln!(out, "{kind}: {times}")?;
    }
    if let Some(first) = &outcome.first {
        let without = plan.without.map_or(String::new(), |without| format!(" --without {}", without.name()));
        writeln!(out, "first: {}", first.what)?;
        writeln!(out, "again: tollgate simulate --seed {} --histories 1 --log{without}", first.seed)?;
    }
    Ok(())
}
