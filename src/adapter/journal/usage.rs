//! Usage records out of the journal: each charge joined with its end. Reads only, beside a running gateway too.

use std::collections::BTreeMap;
use std::path::Path;

use super::data_dir::{self, RunInfo};
use super::reader;
use crate::domain::amount::Units;
use crate::domain::id::Incarnation;
use crate::domain::usage::{Charge, Ending, UsageRecord};
use crate::ports::journal::{Damage, JournalError, Record};

/// What was found besides the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageSummary {
    /// Records shown.
    pub records: u64,
    /// Charged calls that are still open; they are shown when they have ended.
    pub open: u64,
    /// What could not be read. Of a run that is going on, its last record may count as damage while it is written.
    pub damage: Damage,
}

/// Shows every usage record under a data directory, run by run, in the order in which each core's calls ended. Calls
/// that their gateway's death interrupted come last in their run.
pub fn read_usage(data_dir: &Path, each: &mut dyn FnMut(UsageRecord)) -> Result<UsageSummary, JournalError> {
    let journal = data_dir::journal(data_dir);
    let named = |path: &Path, error| JournalError::Io(format!("{}: {error}", path.display()));
    let mut summary = UsageSummary::default();
    for (_, dir) in data_dir::runs(&journal).map_err(|error| named(&journal, error))? {
        let run = RunInfo::read(&dir).map_err(|fault| JournalError::Io(fault.to_string()))?;
        let incarnation = Incarnation { gateway: run.gateway, number: run.number };
        // Asked first: what was written before a run ended is all there when the reading begins.
        let live = data_dir::is_live(&dir).map_err(|error| named(&dir, error))?;
        let mut open: BTreeMap<(u16, u64), Charge> = BTreeMap::new();
        let mut records = 0;
        let damage = reader::read_run(&dir, None, &mut |core, record| match record {
            Record::Charge(charge) => {
                open.insert((core, charge.call), charge);
            }
            Record::End(end) => {
                if let Some(charge) = open.remove(&(core, end.call)) {
                    let units = if end.billed { units(&charge) } else { Units::ZERO };
                    let (ending, ended) = (end.ending, Some(end.at));
                    each(UsageRecord { incarnation: incarnation.clone(), core, charge, units, ending, ended });
                    records += 1;
                }
            }
            Record::Grant(_) | Record::Ask(_) | Record::Close | Record::Command(_) | Record::Refused(_) => {}
        });
        let damage = damage.map_err(JournalError::Io)?;
        summary.damage.bytes += damage.bytes;
        summary.damage.missing_files += damage.missing_files;
        if live {
            summary.open += open.len() as u64;
        } else {
            records += open.len() as u64;
            for ((core, _), charge) in open {
                let (units, ending) = (units(&charge), Ending::Interrupted);
                each(UsageRecord { incarnation: incarnation.clone(), core, charge, units, ending, ended: None });
            }
        }
        summary.records += records;
    }
    Ok(summary)
}

fn units(charge: &Charge) -> Units {
    charge.parts.iter().map(|part| part.units).sum()
}
