//! A run's journal, added up: what its leases were used for, and what it can say of them after its end. No I/O.

use std::collections::{BTreeMap, HashMap};

use crate::domain::account::Sync;
use crate::domain::amount::Units;
use crate::domain::id::{AccountId, Incarnation, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::settle::{LeaseReport, RunEnd};
use crate::domain::usage::ChargePart;
use crate::ports::journal::{Grant, Record};

type PoolKey = (AccountId, ProductId);

/// What a run's journal says, as far as it was read.
#[derive(Debug, Default)]
pub struct Tally {
    /// By pool: its leases by number.
    pools: BTreeMap<PoolKey, BTreeMap<u64, Grant>>,
    /// Charges whose end has not been seen, by core and call.
    open: HashMap<(u16, u64), (PoolKey, Vec<ChargePart>)>,
    closed: bool,
    /// Charges on leases that the journal does not know.
    unknown: u64,
}

impl Tally {
    /// Adds a record of one of the journal's writers; those of one writer come in their order.
    pub fn add(&mut self, writer: u16, record: Record) {
        match record {
            Record::Grant(grant) => {
                let pool = self.pools.entry((grant.account.clone(), grant.product.clone())).or_default();
                pool.insert(grant.number, grant);
            }
            Record::Charge(charge) => {
                self.open.insert((writer, charge.call), ((charge.account, charge.product), charge.parts));
            }
            Record::End(end) => {
                if let Some((pool, parts)) = self.open.remove(&(writer, end.call))
                    && end.billed
                {
                    self.count(pool, parts);
                }
            }
            Record::Ask(ask) => {
                self.pools.entry((ask.account, ask.product)).or_default();
            }
            Record::Close => self.closed = true,
            Record::Command(_) | Record::Refused(_) => {} // see `commands`
        }
    }

    /// Counts the charges that have no end: the clients may have received these heads. Returns how many there are. For
    /// when the whole journal is read.
    pub fn count_open(&mut self) -> usize {
        let open = std::mem::take(&mut self.open);
        let calls = open.len();
        open.into_values().for_each(|(pool, parts)| self.count(pool, parts));
        calls
    }

    /// How many charges draw on leases that the journal does not know. Their leases are in the books if the journal's old
    /// files were removed on purpose; else something is wrong.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Whether the run stopped in order: then nothing is missing.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// The last reports of the run, by pool.
    pub fn reports(self, run: &Incarnation, end: RunEnd) -> Vec<(PoolKey, Sync)> {
        let sync = |leases: BTreeMap<u64, Grant>| {
            let reports = leases.into_values().map(|lease| report(lease, end)).collect();
            Sync { incarnation: run.clone(), reports, ended: Some(end), grant: None }
        };
        self.pools.into_iter().map(|(pool, leases)| (pool, sync(leases))).collect()
    }

    fn count(&mut self, pool: PoolKey, parts: Vec<ChargePart>) {
        let pool = self.pools.entry(pool).or_default();
        for charged in parts {
            let lease = pool.get_mut(&charged.lease);
            let part = lease.and_then(|lease| lease.parts.iter_mut().find(|part| part.package == charged.package));
            match part {
                Some(part) => part.used.put(charged.units),
                None => self.unknown = self.unknown.saturating_add(1),
            }
        }
    }
}

fn report(lease: Grant, end: RunEnd) -> LeaseReport {
    let lost = end == RunEnd::Lost;
    let whole = |part: LeasePart| {
        let returned = if lost { Units::ZERO } else { part.granted.saturating_sub(part.used) };
        LeasePart { returned, ..part }
    };
    LeaseReport {
        number: lease.number,
        parts: lease.parts.into_iter().map(whole).collect(),
        deadline: lease.deadline,
        lost,
    }
}
