//! A gateway's journals in memory, for tests: what a disk would keep when its process dies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::domain::id::Incarnation;
use crate::domain::usage::LentCharge;
use crate::ports::BoxFuture;
use crate::ports::gateways::Servers;
use crate::ports::journal::{CallEnd, Damage, EarlierRun, EarlierRuns, Journal, JournalError, Position, Record};

#[derive(Debug, Default)]
struct Kept {
    records: Vec<(u16, Record)>,
    ended: bool,
    settled: bool,
}

/// What one gateway's disk keeps.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    runs: Mutex<BTreeMap<Incarnation, Kept>>,
    servers: Mutex<Option<Servers>>,
}

/// A panic of another thread leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// The journals of a run, which may read the others.
    pub fn begin(self: &Arc<Self>, run: Incarnation) -> Arc<MemoryRun> {
        lock(&self.runs).entry(run.clone()).or_default();
        Arc::new(MemoryRun { disk: Arc::clone(self), run })
    }

    /// A run's process has died, or is taken to be dead: its journal can be settled.
    pub fn end(&self, run: &Incarnation) {
        if let Some(kept) = lock(&self.runs).get_mut(run) {
            kept.ended = true;
        }
    }
}

/// One run, on its disk.
#[derive(Debug)]
pub struct MemoryRun {
    disk: Arc<MemoryDisk>,
    run: Incarnation,
}

impl MemoryRun {
    /// One of the run's writers.
    pub fn writer(self: &Arc<Self>, number: u16) -> Arc<dyn Journal> {
        Arc::new(MemoryWriter { run: Arc::clone(self), number })
    }

    /// All that the run has written.
    pub fn records(&self) -> Vec<(u16, Record)> {
        lock(&self.disk.runs).get(&self.run).map(|kept| kept.records.clone()).unwrap_or_default()
    }

    fn ended(&self, wanted: impl Fn(&Kept) -> bool) -> Vec<EarlierRun> {
        let runs = lock(&self.disk.runs);
        let ended = runs.iter().filter(|(run, kept)| **run != self.run && kept.ended && wanted(kept));
        ended.map(|(run, _)| EarlierRun { incarnation: run.clone(), same_boot: true }).collect()
    }
}

impl EarlierRuns for MemoryRun {
    fn unsettled(&self) -> Result<Vec<EarlierRun>, JournalError> {
        Ok(self.ended(|kept| !kept.settled))
    }

    fn written_since(&self, _: Timestamp) -> Result<Vec<EarlierRun>, JournalError> {
        Ok(self.ended(|_| true))
    }

    fn read(&self, run: &Incarnation, each: &mut dyn FnMut(u16, Record)) -> Result<Damage, JournalError> {
        let records = lock(&self.disk.runs).get(run).map(|kept| kept.records.clone()).unwrap_or_default();
        records.into_iter().for_each(|(writer, record)| each(writer, record));
        Ok(Damage::default())
    }

    fn read_first(&self, run: &Incarnation, each: &mut dyn FnMut(Record)) -> Result<Damage, JournalError> {
        self.read(run, &mut |writer, record| {
            if writer == 0 {
                each(record);
            }
        })
    }

    fn mark_settled(&self, run: &EarlierRun) -> Result<(), JournalError> {
        if let Some(kept) = lock(&self.disk.runs).get_mut(&run.incarnation) {
            kept.settled = true;
        }
        Ok(())
    }

    fn last_servers(&self) -> Result<Option<Servers>, JournalError> {
        Ok(lock(&self.disk.servers).clone())
    }

    fn note_servers(&self, servers: &Servers) -> Result<(), JournalError> {
        *lock(&self.disk.servers) = Some(servers.clone());
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryWriter {
    run: Arc<MemoryRun>,
    number: u16,
}

impl Journal for MemoryWriter {
    fn reserve(&self) -> Result<(), JournalError> {
        Ok(())
    }

    fn release(&self) {}

    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        let mut runs = lock(&self.run.disk.runs);
        let kept = runs.entry(self.run.run.clone()).or_default();
        kept.records.push((self.number, record.clone()));
        Ok(Position(u64::try_from(kept.records.len()).unwrap_or(u64::MAX)))
    }

    fn stage(&self, charge: LentCharge<'_>, end: Option<CallEnd>) -> Result<Position, JournalError> {
        let position = self.append(&Record::Charge(charge.into()))?;
        end.map_or(Ok(position), |end| self.append(&Record::End(end)))
    }

    fn end(&self, end: CallEnd) {
        let _ = self.append(&Record::End(end)); // never fails
    }

    fn on_disk(&self, _: Position) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
