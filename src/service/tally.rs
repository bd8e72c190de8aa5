//! A run's journal, added up: what its leases were used for, and what it can say of them after its end. No I/O.

use std::collections::{BTreeMap, HashMap};

use crate::domain::account::Sync;
use crate::domain::amount::Units;
use crate::domain::budget::Used;
use crate::domain::id::{AccountId, Incarnation, KeyId, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::settle::{LeaseReport, RunEnd};
use crate::domain::usage::{CallerRef, ChargePart};
use crate::ports::journal::{Grant, Record};

type PoolKey = (AccountId, ProductId);
/// Of a charge: whose pool, by whom, what of it.
type Charged = (PoolKey, Option<CallerRef>, Vec<ChargePart>);

/// What a run's journal says, as far as it was read.
#[derive(Debug, Default)]
pub struct Tally {
    /// By pool: its leases by number.
    pools: BTreeMap<PoolKey, BTreeMap<u64, Grant>>,
    /// What keys have used of each lease.
    spent: BTreeMap<(PoolKey, u64), BTreeMap<KeyId, Used>>,
    /// Charges whose end has not been seen, by core and call.
    open: HashMap<(u16, u64), Charged>,
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
                let pool = (charge.account, charge.product);
                self.open.insert((writer, charge.call), (pool, charge.caller, charge.parts));
            }
            Record::End(end) => {
                if let Some(charge) = self.open.remove(&(writer, end.call))
                    && end.billed
                {
                    self.count(charge);
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
        open.into_values().for_each(|charge| self.count(charge));
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
        let mut spent = self.spent;
        let mut sync = |pool: PoolKey, leases: BTreeMap<u64, Grant>| {
            let mut reports = Vec::new();
            for (number, lease) in leases {
                let spent = spent.remove(&(pool.clone(), number)).unwrap_or_default();
                reports.push(LeaseReport { spent, ..report(lease, end) });
            }
            (pool, Sync { incarnation: run.clone(), reports, ended: Some(end), grant: None })
        };
        self.pools.into_iter().map(|(pool, leases)| sync(pool, leases)).collect()
    }

    fn count(&mut self, (pool, caller, parts): Charged) {
        if let Some(CallerRef::Key(key)) = caller {
            for charged in &parts {
                let grant = self.pools.get(&pool).and_then(|leases| leases.get(&charged.lease));
                let terms = grant.and_then(|grant| grant.terms.iter().find(|terms| terms.package == charged.package));
                let each = terms.map(|terms| terms.unit_worth).unwrap_or_default();
                let used = Used { units: charged.units, worth: each.times(charged.units.get()) };
                let spent = self.spent.entry((pool.clone(), charged.lease)).or_default();
                spent.entry(key.clone()).or_default().put(used);
            }
        }
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
        spent: BTreeMap::new(),
        lost,
    }
}
