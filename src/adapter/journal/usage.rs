//! Usage records out of the journal: each charge joined with its end and with what its packages say. Reads only, beside
//! a running gateway too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::data_dir::{self, RunInfo};
use super::reader;
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
        let mut terms = Terms::default();
        let mut open: BTreeMap<(u16, u64), Charge> = BTreeMap::new();
        let mut records = 0;
        let damage = reader::read_run(&dir, None, &mut |core, record| match record {
            Record::Charge(charge) => {
                open.insert((core, charge.call), charge);
            }
            Record::End(end) => {
                if let Some(charge) = open.remove(&(core, end.call)) {
                    let terms = terms.of(&charge, &dir);
                    each(joined((&incarnation, core), charge, terms, Some(end)));
                    records += 1;
                }
            }
            // Those of the first writer come first.
            Record::Grant(grant) => terms.learn(grant.terms),
            Record::Ask(_) | Record::Close | Record::Command(_) | Record::Refused(_) => {}
        });
        let damage = damage.map_err(JournalError::Io)?;
        summary.damage.bytes += damage.bytes;
        summary.damage.missing_files += damage.missing_files;
        if live {
            summary.open += open.len() as u64;
        } else {
            records += open.len() as u64;
            for ((core, _), charge) in open {
                let terms = terms.of(&charge, &dir);
                each(joined((&incarnation, core), charge, terms, None));
            }
        }
        summary.records += records;
    }
    Ok(summary)
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

    /// What a charge's packages say. A run that is going on may have begun to draw on one since its grants were read.
    fn of(&mut self, charge: &Charge, dir: &Path) -> Vec<Arc<PackageTerms>> {
        if charge.parts.iter().any(|part| !self.0.contains_key(&part.package)) {
            let mut learn = |_, record| match record {
                Record::Grant(grant) => self.learn(grant.terms),
                Record::Charge(_)
                | Record::End(_)
                | Record::Close
                | Record::Ask(_)
                | Record::Command(_)
                | Record::Refused(_) => {}
            };
            // What cannot be read shows in the reading of the whole run.
            let _ = reader::read_run(dir, Some(0), &mut learn);
            for part in &charge.parts {
                self.0.entry(part.package.clone()).or_default();
            }
        }
        let known: BTreeMap<_, _> =
            charge.parts.iter().filter_map(|part| Some((&part.package, self.0.get(&part.package)?.clone()?))).collect();
        known.into_values().collect()
    }
}
