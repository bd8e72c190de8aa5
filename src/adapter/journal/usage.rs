//! Usage records out of the journal: each charge joined with its end. Reads only, beside a running gateway too.

use std::collections::BTreeMap;
use std::path::Path;

use super::exported::{ExportMark, Exported};
use super::frame::FileId;
use super::on_disk::{RunOnDisk, RunsOnDisk};
use super::reader::Wanted;
use crate::domain::amount::Units;
use crate::domain::usage::{Charge, Ending, UsageRecord};
use crate::ports::journal::{Damage, JournalError, Record};

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
    let mut open: BTreeMap<(u16, u64), (FileId, Charge)> = BTreeMap::new();
    let mut marked = before.clone();
    let from = before.writers.iter().map(|(writer, mark)| (*writer, mark.from_file)).collect();
    let wanted = Wanted { from: Some(&from), ..Wanted::default() };
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
                    let units = if end.billed { units(&charge) } else { Units::ZERO };
                    let (ending, ended) = (end.ending, Some(end.at));
                    each(UsageRecord { incarnation: incarnation.clone(), core, charge, units, ending, ended });
                    summary.records += 1;
                }
            }
            Record::Grant(_) | Record::Ask(_) | Record::Close | Record::Command(_) | Record::Refused(_) => {}
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
        let (units, ending) = (units(&charge), Ending::Interrupted);
        each(UsageRecord { incarnation: incarnation.clone(), core, charge, units, ending, ended: None });
    }
    Ok(marked)
}

fn units(charge: &Charge) -> Units {
    charge.parts.iter().map(|part| part.units).sum()
}
