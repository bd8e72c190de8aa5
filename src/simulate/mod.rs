//! `tollgate simulate`: random histories of several gateways and a store, with a virtual clock and a seed, through the
//! same pure functions that the program runs on (`domain::account::apply` and `sync`, `service::tally`). What gateways
//! and store do around them is written here once more, small and without I/O; what was really charged is counted apart
//! (`truth`) and held against the books.
//!
//! A safeguard can be switched off here, to show that the histories catch what it prevents; the program itself has no
//! such switch.
#![expect(
    clippy::indexing_slicing,
    reason = "positions come from the same lists; a wrong one is a fault of the simulator and stops it"
)]

mod calls;
mod check_in;
mod exchange;
mod faults;
mod rng;
mod run;
mod store;
mod truth;
mod world;

use std::fmt::Write as _;

pub use world::Counts;
use world::World;

/// What keeps the books right; each can be left out to see what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Safeguard {
    /// Reports say how much was used so far, not how much more.
    Counters,
    /// After a loss the store gives no leases before all gateways have checked in.
    CheckIn,
    /// The charge is in the journal before the head goes to the client.
    Journal,
    /// The store compares before it writes.
    Compare,
    /// Stamps have a random half, and a server that lost something has another name.
    Stamp,
    /// Commands are journalled, and applied again after a loss.
    Commands,
    /// Time is the store's.
    Clock,
}

impl Safeguard {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Counters, Self::CheckIn, Self::Journal, Self::Compare, Self::Stamp, Self::Commands, Self::Clock];

    /// In words, for tables.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Counters => "reports say how much was used *so far*",
            Self::CheckIn => "no leases after a loss before all have checked in",
            Self::Journal => "the charge is in the journal before the head goes out",
            Self::Compare => "the store compares before it writes",
            Self::Stamp => "stamps have a random half, a server that lost something another name",
            Self::Commands => "commands are journalled and applied again after a loss",
            Self::Clock => "time is the store's",
        }
    }

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counters => "counters",
            Self::CheckIn => "check-in",
            Self::Journal => "journal",
            Self::Compare => "compare",
            Self::Stamp => "stamp",
            Self::Commands => "commands",
            Self::Clock => "clock",
        }
    }
}

/// Which histories to live through.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The first history's seed; the others follow.
    pub seed: u64,
    /// How many.
    pub histories: u64,
    /// On how many threads. The result does not depend on it.
    pub threads: u64,
    /// Left out, to see what it prevents.
    pub without: Option<Safeguard>,
}

/// A history that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its own seed.
    pub seed: u64,
    /// What is wrong.
    pub what: String,
}

/// What many histories showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was done in all.
    pub counts: Counts,
    /// How many went wrong.
    pub failed: u64,
    /// The one with the lowest seed.
    pub first: Option<Failure>,
    /// By the first word of what is wrong.
    pub kinds: std::collections::BTreeMap<String, u64>,
}

impl Outcome {
    fn add(&mut self, more: Self) {
        self.counts += more.counts;
        self.failed += more.failed;
        let firsts = [self.first.take(), more.first].into_iter().flatten();
        self.first = firsts.min_by_key(|failure| failure.seed);
        for (kind, times) in more.kinds {
            *self.kinds.entry(kind).or_default() += times;
        }
    }
}

/// Lives through one history; `logged` keeps what happens, step by step.
pub fn one(seed: u64, without: Option<Safeguard>, logged: bool) -> (Result<Counts, String>, Vec<String>) {
    let mut world = match World::new(seed, without, logged) {
        Ok(world) => world,
        Err(what) => return (Err(what), Vec::new()),
    };
    let lived = world.live().map(|()| world.counts);
    (lived, world.into_log())
}

/// Lives through many, on several threads.
pub fn many(plan: Plan) -> Outcome {
    let threads = plan.threads.max(1);
    let part = |thread: u64| {
        let mut outcome = Outcome::default();
        for index in (thread..plan.histories).step_by(usize::try_from(threads).unwrap_or(1)) {
            let seed = plan.seed.wrapping_add(index);
            match one(seed, plan.without, false).0 {
                Ok(counts) => outcome.counts += counts,
                Err(what) => {
                    let kind = what.split(' ').next().unwrap_or_default().trim_end_matches(':').to_owned();
                    let (first, kinds) = (Some(Failure { seed, what }), [(kind, 1)].into());
                    outcome.add(Outcome { failed: 1, first, kinds, ..Outcome::default() });
                }
            }
        }
        outcome
    };
    let mut all = Outcome::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        for part in parts {
            match part.join() {
                Ok(outcome) => all.add(outcome),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    all
}

/// The full design and each safeguard left out, as a Markdown table. The second value says whether all is as it must be.
pub fn ablations(plan: Plan) -> (String, bool) {
    let mut table = String::from("| left out | histories | wrong | how | first seed |\n|---|---|---|---|---|\n");
    let mut right = true;
    for without in std::iter::once(None).chain(Safeguard::ALL.map(Some)) {
        let outcome = many(Plan { without, ..plan });
        right &= (outcome.failed == 0) == without.is_none();
        let what = without.map_or("nothing: the full design", Safeguard::words);
        let kinds: Vec<_> = outcome.kinds.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        let first = outcome.first.map_or(String::new(), |failure| failure.seed.to_string());
        let (histories, failed, kinds) = (plan.histories, outcome.failed, kinds.join(", "));
        let _ = writeln!(table, "| {what} | {histories} | {failed} | {kinds} | {first} |");
    }
    (table, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the first seed on, every safeguard is missed within so many histories.
    const MISSED_WITHIN: u64 = 500;

    fn plan(histories: u64, threads: u64, without: Option<Safeguard>) -> Plan {
        Plan { seed: 1, histories, threads, without }
    }

    #[test]
    fn the_full_design_keeps_the_books_right() {
        let outcome = many(plan(5_000, 2, None));
        assert_eq!(outcome.first, None);
        let Counts { rollbacks, kills, losses, cuts, steps, double, .. } = outcome.counts;
        for (what, times) in [rollbacks, kills, losses, cuts, steps, double].into_iter().enumerate() {
            assert!(times > 100, "of fault {what} there are only {times}");
        }
    }

    #[test]
    fn every_safeguard_is_missed() {
        for without in Safeguard::ALL {
            let outcome = many(plan(MISSED_WITHIN, 2, Some(without)));
            assert!(outcome.failed > 0, "{without:?} can be left out of {MISSED_WITHIN} histories");
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let (one, three) =
            (many(plan(300, 1, Some(Safeguard::Counters))), many(plan(300, 3, Some(Safeguard::Counters))));
        assert_eq!(one, three);
    }

    #[test]
    fn a_failing_seed_fails_alone_and_says_how() {
        let first = many(plan(MISSED_WITHIN, 2, Some(Safeguard::CheckIn))).first.unwrap();
        let (lived, log) = one(first.seed, Some(Safeguard::CheckIn), true);
        assert_eq!(lived, Err(first.what));
        assert!(log.iter().any(|line| line.contains("the store loses")), "{log:#?}");
    }
}
