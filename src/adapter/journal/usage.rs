//! Usage records out of the journal: each charge joined with its end and with what its packages say. Reads only, beside
//! a running gateway too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::exported::{ExportMark, Exported};
use super::frame::FileId;
use super::on_disk::{RunOnDisk, RunsOnDisk};
use super::reader::Wanted;
use crate::domain::amount::Units;
use crate::domain::id::{Incarnation, PackageId};
use crate::domain::usage::{Charge, Ending, PackageTerms, UsageRecord};
use crate::ports::journal::{CallEnd, Damage, JournalError, Record};

/// What was found besides the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageSummary {
    /// Records shown.
    pub records: u64,
    /// Charged calls that are still open; they are shown when they have ended.
    pub open: u64,
    /// What could not be read.
    pub damage: Damage,
}

/// Shows every usage record under a data directory, run by run, in the order in which each core's calls ended. Calls
/// that their gateway's death interrupted come last in their run. `since_mark` leaves out what the last export that was
/// noted has shown; together such exports show each record once.
///
/// # Errors
/// When a file cannot be read, or a run does not say whose it is.
pub fn read_usage(
    data_dir: &Path,
    since_mark: bool,
    each: &mut dyn FnMut(UsageRecord),
) -> Result<(UsageSummary, ExportMark), JournalError> {
    let (mut summary, mut marks) = (UsageSummary::default(), ExportMark::default());
    for run in RunsOnDisk::find(data_dir)?.runs {
        let before = if since_mark { mark_of(&run)? } else { Exported::default() };
        if before.whole {
            continue;
        }
        let marked = read_run(&run, &before, &mut summary, each)?;
        marks.0.push((run.dir, marked));
    }
    Ok((summary, marks))
}

fn mark_of(run: &RunOnDisk) -> Result<Exported, JournalError> {
    Exported::read(&run.dir).map_err(|error| JournalError::Io(format!("{}: {error}", run.dir.display())))
}

/// Shows what a run has behind a mark; returns the mark behind that.
fn read_run(
    run: &RunOnDisk,
    before: &Exported,
    summary: &mut UsageSummary,
    each: &mut dyn FnMut(UsageRecord),
) -> Result<Exported, JournalError> {
    let incarnation = &run.incarnation;
    let mut terms = Terms::default();
    let mut open: BTreeMap<(u16, u64), (FileId, Charge)> = BTreeMap::new();
    let mut marked = before.clone();
    let from = before.writers.iter().map(|(writer, mark)| (*writer, mark.from_file)).collect();
    let wanted = Wanted { from: Some(&from), filed: true, ..Wanted::default() };
    let damage = run.read_places(wanted, &mut |at, record| {
        let core = at.file.writer;
        let covered = before.covers(at);
        if !covered {
            marked.pass(at);
        }
        match record {
            Record::Charge(charge) => {
                open.insert((core, charge.call), (at.file, charge));
            }
            Record::End(end) => {
                if let Some((_, charge)) = open.remove(&(core, end.call)).filter(|_| !covered) {
                    let terms = terms.of(&charge, run);
                    each(joined((incarnation, core), charge, terms, Some(end)));
                    summary.records += 1;
                }
            }
            // Those of the first writer come first; an export since a mark passes over earlier ones, see `Terms::of`.
            Record::Grant(grant) => terms.learn(grant.terms),
            Record::Ask(_) | Record::Close | Record::Command(_) | Record::Refused(_) => {}
        }
    })?;
    summary.damage.add(damage);
    marked.whole = !run.live;
    if run.live {
        summary.open += open.len() as u64;
        open.into_values().for_each(|(file, _)| marked.keep(file));
        return Ok(marked);
    }
    summary.records += open.len() as u64;
    for ((core, _), (_, charge)) in open {
        let terms = terms.of(&charge, run);
        each(joined((incarnation, core), charge, terms, None));
    }
    Ok(marked)
}

/// A charge with its end: `None` if its gateway died before.
pub(super) fn joined(
    (incarnation, core): (&Incarnation, u16),
    charge: Charge,
    terms: Vec<Arc<PackageTerms>>,
    end: Option<CallEnd>,
) -> UsageRecord {
    let billed = end.is_none_or(|end| end.billed);
    let units = if billed { charge.parts.iter().map(|part| part.units).sum() } else { Units::ZERO };
    let (ending, ended) = end.map_or((Ending::Interrupted, None), |end| (end.ending, Some(end.at)));
    UsageRecord { incarnation: incarnation.clone(), core, charge, units, ending, ended, terms }
}

/// What packages say; `None`: the journal does not tell.
#[derive(Default)]
struct Terms(BTreeMap<PackageId, Option<Arc<PackageTerms>>>);

impl Terms {
    fn learn(&mut self, terms: Vec<PackageTerms>) {
        for terms in terms {
            // The same for ever: the first is as good as any.
            let known = self.0.entry(terms.package.clone()).or_default();
            known.get_or_insert_with(|| Arc::new(terms));
        }
    }

    /// What a charge's packages say. If its grant was not read yet, all are: it lies before a mark, or has been written
    /// since they were read.
    fn of(&mut self, charge: &Charge, run: &RunOnDisk) -> Vec<Arc<PackageTerms>> {
        if charge.parts.iter().any(|part| !self.0.contains_key(&part.package)) {
            // What cannot be read shows in the reading of the whole run.
            let _ = run.read_first(&mut |record| match record {
                Record::Grant(grant) => self.learn(grant.terms),
                Record::Charge(_)
                | Record::End(_)
                | Record::Close
                | Record::Ask(_)
                | Record::Command(_)
                | Record::Refused(_) => {}
            });
            for part in &charge.parts {
                self.0.entry(part.package.clone()).or_default();
            }
        }
        let known: BTreeMap<_, _> =
            charge.parts.iter().filter_map(|part| Some((&part.package, self.0.get(&part.package)?.clone()?))).collect();
        known.into_values().collect()
    }
}
