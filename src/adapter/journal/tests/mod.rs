//! The journal as its users see it, on real files in a directory of each test's own.

mod damage;
mod removal;
mod space;
mod tail;
mod whole;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::io::Errno;

use super::disk::{Disk, RealDisk};
use super::*;
use crate::domain::amount::Units;
use crate::domain::id::{AccountId, GatewayId, KeyId, PackageId, ProductId};
use crate::domain::lease::LeasePart;
use crate::domain::usage::{CallFacts, CallerRef, Charge, ChargePart, Ending, PackageTerms, UnitClass};
use crate::ports::journal::{CallEnd, Damage, EarlierRun, EarlierRuns, Grant, Record};

/// Far more than a slow machine needs; a test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(30);
const OPTIONS: RunOptions = RunOptions { writers: 1, segment_bytes: SEGMENT_BYTES_MIN };

fn gateway() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

fn now() -> Timestamp {
    "2026-11-22T10:00:00.5Z".parse().unwrap()
}

/// Long ago, so that the runs of a new directory are numbered from 1.
fn first_start() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn open(path: &Path) -> DataDir {
    DataDir::open(path, &gateway(), first_start()).unwrap()
}

fn begin(path: &Path) -> Run {
    open(path).begin_run(OPTIONS).unwrap()
}

fn charge(call: u64) -> Charge {
    Charge {
        call,
        request_id: format!("request-{call}"),
        arrived: now(),
        account: AccountId::new("acct-1").unwrap(),
        caller: Some(CallerRef::Key(KeyId::new("key-1").unwrap())),
        product: ProductId::new("chat").unwrap(),
        parts: vec![part(3, "pkg-1")],
        status: 200,
        streamed: call.is_multiple_of(2),
        attempts: 1,
        facts: CallFacts { model: Some("m".into()), ..CallFacts::default() },
    }
}

fn part(lease: u64, package: &str) -> ChargePart {
    ChargePart { lease, package: PackageId::new(package).unwrap(), class: UnitClass::Calls, units: Units::ONE }
}

fn end(call: u64) -> CallEnd {
    CallEnd { call, ending: Ending::Complete, billed: true, at: now() }
}

fn grant(parts: usize) -> Record {
    grant_with(parts, Vec::new())
}

fn grant_with(parts: usize, terms: Vec<PackageTerms>) -> Record {
    let part = LeasePart::new(PackageId::new("pkg-1").unwrap(), Units::new(10));
    Record::Grant(Grant {
        account: AccountId::new("acct-1").unwrap(),
        product: ProductId::new("chat").unwrap(),
        number: 1,
        parts: vec![part; parts],
        deadline: now(),
        terms,
    })
}

/// Reads all of an unsettled run.
fn read(earlier: &dyn EarlierRuns, run: &EarlierRun) -> (Vec<(u16, Record)>, Damage) {
    let mut records = Vec::new();
    let damage = earlier.read(&run.incarnation, &mut |writer, record| records.push((writer, record))).unwrap();
    (records, damage)
}

/// Begins another run and reads the only unsettled one.
fn read_only_run(path: &Path) -> (Vec<(u16, Record)>, Damage) {
    let run = begin(path);
    let earlier = run.earlier();
    let unsettled = earlier.unsettled().unwrap();
    assert_eq!(unsettled.len(), 1);
    read(&*earlier, &unsettled[0])
}

/// Journal files of a run, in order.
fn files(path: &Path, run: u64) -> Vec<PathBuf> {
    let dir = path.join("journal").join(run.to_string());
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "journal"));
    files.sort();
    files
}

/// Waits for a condition that the journal's thread brings about.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::yield_now();
    }
}

/// Waits for a future on the calling thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

/// A real disk whose calls fail on demand.
#[derive(Default)]
struct FaultyDisk {
    full: AtomicBool,
    write_fails: AtomicBool,
    /// The next write fails halfway.
    write_torn: AtomicBool,
    sync_fails: AtomicBool,
    syncs: AtomicU64,
    /// Held by a test while syncs are to hang.
    sync_gate: Mutex<()>,
}

fn unless(fault: &AtomicBool, errno: Errno) -> io::Result<()> {
    if fault.load(Ordering::Relaxed) { Err(errno.into()) } else { Ok(()) }
}

impl Disk for FaultyDisk {
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        unless(&self.full, Errno::NOSPC)?;
        RealDisk.allocate(file, bytes)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        unless(&self.write_fails, Errno::IO)?;
        if self.write_torn.swap(false, Ordering::Relaxed) {
            RealDisk.write_at(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(Errno::IO.into());
        }
        RealDisk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        drop(self.sync_gate.lock().unwrap_or_else(PoisonError::into_inner));
        unless(&self.sync_fails, Errno::IO)?;
        RealDisk.sync(file)
    }
}

/// A run on a disk whose faults the test commands.
fn begin_faulty(path: &Path) -> (Arc<FaultyDisk>, Run) {
    let disk = Arc::new(FaultyDisk::default());
    let run = Run::begin(open(path), OPTIONS, Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    (disk, run)
}
