//! The index itself: which files it covers and how far, and what it finds. Works step by step on its owner's thread.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::super::data_dir;
use super::super::frame::FileId;
use super::super::reader;
use super::super::usage::joined;
use super::part::{self, ENTRIES_MAX, Entry};
use crate::config::KEEP_MIN;
use crate::domain::id::{AccountId, Incarnation, PackageId};
use crate::domain::usage::{Charge, PackageTerms};
use crate::ports::call_records::FoundCalls;
use crate::ports::journal::{CallEnd, Record};

/// How much older the grants may be that a call draws on: more than a lease and a call last.
const GRANTS_OLDER: Duration = Duration::from_secs(24 * 3600);
/// Calls with one request id that are found, at most: the latest.
const FOUND_MAX: usize = 100;
/// Records that are looked at for one question, at most: others may have the same key.
const LOOKED_AT_MAX: usize = 10_000;

/// How far one journal file is covered.
#[derive(Default)]
struct Covered {
    /// Parts that are written.
    parts: u32,
    /// The offset up to which records are known.
    upto: u64,
    /// Nothing more will come.
    whole: bool,
    /// What the next part will hold.
    pending: Vec<Entry>,
    /// Packages that it names already.
    packages: HashSet<u32>,
}

/// One journal file of one run. In the order in which they were written, by writer.
type Place = (u64, FileId);

/// The index.
pub(super) struct Finder {
    journal: PathBuf,
    own: Incarnation,
    covered: BTreeMap<Place, Covered>,
}

impl Finder {
    /// One that covers nothing yet. `own` is the run that goes on in this process.
    pub(super) fn new(journal: PathBuf, own: Incarnation) -> Self {
        Self { journal, own, covered: BTreeMap::new() }
    }

    /// Follows what was written, by at most one part; returns whether there may be more to do.
    pub(super) fn follow(&mut self) -> io::Result<bool> {
        // Calls can be found as long as no configuration removes them.
        let since = SystemTime::now().checked_sub(KEEP_MIN).unwrap_or(SystemTime::UNIX_EPOCH);
        let grants_since = since.checked_sub(GRANTS_OLDER).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut seen = BTreeSet::new();
        let mut behind = false;
        for (run, dir) in data_dir::runs(&self.journal)? {
            let ends = self.has_ended(run, &dir);
            let files = reader::files(&dir)?;
            for file in &files {
                // One that is gone by now was old enough to be removed, or never used.
                let modified = std::fs::metadata(dir.join(file.name())).and_then(|metadata| metadata.modified());
                let since = if file.writer == 0 { grants_since } else { since };
                if modified.map_or(true, |modified| modified < since) {
                    continue;
                }
                seen.insert((run, *file));
                // A writer makes its next file ahead: one with two behind it gets nothing more.
                let after = FileId { sequence: file.sequence.saturating_add(2), ..*file };
                let growing = !ends && !files.contains(&after);
                let covered = self.covered.entry((run, *file)).or_default();
                if !behind && !covered.whole {
                    behind = covered.follow(&dir, *file, growing)?;
                }
            }
        }
        self.covered.retain(|place, _| seen.contains(place));
        Ok(behind)
    }

    fn has_ended(&self, run: u64, dir: &Path) -> bool {
        run != self.own.number && !data_dir::is_live(dir).unwrap_or(true)
    }

    /// The latest calls of an account with a request id.
    pub(super) fn find(&self, account: &AccountId, request_id: &str) -> io::Result<FoundCalls> {
        let mut found = FoundCalls::default();
        let mut looked_at = 0;
        for (place, covered) in self.covered.iter().rev().filter(|((_, file), _)| file.writer > 0) {
            for offset in covered.find(&self.dir(place), place.1, key_of_call(account, request_id))?.into_iter().rev() {
                looked_at += 1;
                if looked_at > LOOKED_AT_MAX || found.records.len() + found.open.len() >= FOUND_MAX {
                    return Ok(found);
                }
                for record in self.read(place, offset)? {
                    if let Record::Charge(charge) = record
                        && charge.account == *account
                        && charge.request_id == request_id
                    {
                        self.add(place, offset, charge, &mut found)?;
                    }
                }
            }
        }
        found.records.sort_by_key(|record| std::cmp::Reverse(record.charge.arrived));
        Ok(found)
    }

    fn add(&self, place: &Place, offset: u32, charge: Charge, found: &mut FoundCalls) -> io::Result<()> {
        let end = self.end_of(place, offset, charge.call)?;
        if end.is_none() && !self.has_ended(place.0, &self.dir(place)) {
            found.open.push(charge);
            return Ok(());
        }
        let mut terms: Vec<Arc<PackageTerms>> = Vec::new();
        for part in &charge.parts {
            if terms.iter().all(|known| known.package != part.package) {
                terms.extend(self.terms_of(place.0, &part.package)?.map(Arc::new));
            }
        }
        let incarnation = Incarnation { gateway: self.own.gateway.clone(), number: place.0 };
        found.records.push(joined((&incarnation, place.1.writer), charge, terms, end));
        Ok(())
    }

    /// The end of a call, beside its charge or behind it: in the same file, or in a later one of the writer.
    fn end_of(&self, from: &Place, at: u32, call: u64) -> io::Result<Option<CallEnd>> {
        let last = (from.0, FileId { writer: from.1.writer, sequence: u32::MAX });
        for (place, covered) in self.covered.range(*from..=last) {
            for offset in covered.find(&self.dir(place), place.1, key_of_end(call))? {
                if (place, offset) < (from, at) {
                    continue;
                }
                for record in self.read(place, offset)? {
                    if let Record::End(end) = record
                        && end.call == call
                    {
                        return Ok(Some(end));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What a package says, by a grant of the same run.
    fn terms_of(&self, run: u64, package: &PackageId) -> io::Result<Option<PackageTerms>> {
        let grants = |sequence| (run, FileId { writer: 0, sequence });
        for (place, covered) in self.covered.range(grants(0)..=grants(u32::MAX)) {
            for offset in covered.find(&self.dir(place), place.1, key_of_package(package))? {
                for record in self.read(place, offset)? {
                    if let Record::Grant(grant) = record
                        && let Some(terms) = grant.terms.into_iter().find(|terms| terms.package == *package)
                    {
                        return Ok(Some(terms));
                    }
                }
            }
        }
        Ok(None)
    }

    fn dir(&self, place: &Place) -> PathBuf {
        self.journal.join(place.0.to_string())
    }

    fn read(&self, place: &Place, offset: u32) -> io::Result<Vec<Record>> {
        reader::records_at(&self.dir(place), (place.1, u64::from(offset)))
    }
}

impl Covered {
    /// Takes in what a file holds beyond what is covered, by one part at most; returns whether a part was written, after
    /// which there may be more.
    fn follow(&mut self, dir: &Path, file: FileId, growing: bool) -> io::Result<bool> {
        self.take_up_parts(dir, file)?;
        if self.whole {
            return Ok(false);
        }
        let (pending, packages) = (&mut self.pending, &mut self.packages);
        let mut each = |offset: u64, record: Record| {
            let Ok(offset) = u32::try_from(offset) else { return ControlFlow::Break(()) }; // files have a gigabyte at most
            match record {
                Record::Charge(charge) => pending.push((key_of_call(&charge.account, &charge.request_id), offset)),
                Record::End(end) => pending.push((key_of_end(end.call), offset)),
                Record::Grant(grant) => {
                    let keys = grant.terms.iter().map(|terms| key_of_package(&terms.package));
                    pending.extend(keys.filter(|key| packages.insert(*key)).map(|key| (key, offset)));
                }
                Record::Close | Record::Ask(_) | Record::Command(_) | Record::Refused(_) => {}
            }
            if pending.len() < ENTRIES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let (upto, ended) = reader::scan(dir, (file, self.upto), growing, &mut each)?;
        self.upto = upto;
        let last = ended && !growing;
        let full = last || !ended;
        if full {
            part::write(&part::path(dir, file, self.parts), &mut self.pending, (upto, last))?;
            self.parts += 1;
            self.whole = last;
            self.pending = Vec::new();
            self.packages.clear();
        }
        Ok(full)
    }

    /// Goes on from the parts that an earlier process has written.
    fn take_up_parts(&mut self, dir: &Path, file: FileId) -> io::Result<()> {
        while self.pending.is_empty() && !self.whole {
            let Some((upto, last)) = part::read_head(&part::path(dir, file, self.parts))? else { break };
            self.parts += 1;
            (self.upto, self.whole) = (upto, last);
        }
        Ok(())
    }

    /// Offsets of records that may be meant, in order.
    fn find(&self, dir: &Path, file: FileId, key: u32) -> io::Result<Vec<u32>> {
        let mut offsets = Vec::new();
        for number in 0..self.parts {
            offsets.extend(part::find(&part::path(dir, file, number), key)?);
        }
        offsets.extend(self.pending.iter().filter(|(there, _)| *there == key).map(|(_, offset)| *offset));
        Ok(offsets)
    }
}

/// Nobody can choose request ids so that others' calls get long lists of the same key, beyond what `LOOKED_AT_MAX` bears.
fn key_of_call(account: &AccountId, request_id: &str) -> u32 {
    short(&[b"call", account.as_str().as_bytes(), request_id.as_bytes()])
}

fn key_of_package(package: &PackageId) -> u32 {
    short(&[b"package", package.as_str().as_bytes()])
}

/// Numbers that follow each other are spread over all keys.
fn key_of_end(call: u64) -> u32 {
    let [a, b, c, d, ..] = call.to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1)
}

fn short(parts: &[&[u8]]) -> u32 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]); // in no id
    }
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    u32::from_le_bytes([a, b, c, d])
}
