//! Which signatures were used: a table beside the documents, written by the thread that writes them. A kill of the process
//! loses none of it; a loss of power may lose the last moments, so that what is dated before the host's boot is refused.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tokio::sync::oneshot;

use crate::adapter::boot::{UNKNOWN_BOOT, boot_id};
use crate::domain::credential::SignatureUse;
use crate::ports::account_store::StoreError;
use crate::ports::replay::UsedSignature;

/// Made when it is missing: programs that do not know it leave it alone.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS used_signatures (
        name TEXT NOT NULL PRIMARY KEY, -- a keyed hash
        ends INTEGER NOT NULL -- microseconds
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS used_signatures_by_end ON used_signatures (ends);
";
/// Among the store's facts: which boot has written the table, and since when nothing of it is missing.
const BOOT: &str = "used_signatures_boot";
const SINCE: &str = "used_signatures_since";

/// What is to be done with a use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// Note it, unless so many are noted.
    Note { max: usize },
    /// Take it back; the answer is [`SignatureUse::First`] again: it is so for whoever notes it next.
    TakeBack,
}

/// A use to be noted or taken back, and who waits for the answer.
pub(super) struct Job {
    pub(super) used: UsedSignature,
    pub(super) asked: Asked,
    pub(super) answer: oneshot::Sender<Result<SignatureUse, StoreError>>,
}

/// What is known of the table.
pub(super) struct UsedSignatures {
    /// What is dated earlier may be forgotten.
    since: Timestamp,
    /// Whether the file says so. Before the first use it need not, and a file that others fill does not.
    recorded: bool,
    /// Rows; `None`: to be counted.
    rows: Option<usize>,
    /// When those that are over were last removed.
    cleared: Timestamp,
}

impl UsedSignatures {
    /// Finds out since when the table is complete.
    pub(super) fn load(db: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let fact = |name: &str| -> rusqlite::Result<Option<String>> {
            let mut statement = db.prepare("SELECT value FROM meta WHERE name = ?1")?;
            statement.query_row([name], |row| row.get(0)).optional()
        };
        let boot = boot_id();
        let same_boot = boot != UNKNOWN_BOOT && fact(BOOT)?.as_ref() == Some(&boot);
        let recorded = fact(SINCE)?.and_then(|text| Timestamp::from_second(text.parse().ok()?).ok());
        let recorded = recorded.filter(|_| same_boot);
        let is_new = !db.prepare("SELECT 1 FROM documents LIMIT 1")?.exists([])?;
        // A boot takes longer than what is cut off here, which is the step of signatures' dates. Where nobody was who
        // could have signed, nothing is forgotten.
        let this_second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let since = recorded.unwrap_or(if is_new { Timestamp::UNIX_EPOCH } else { this_second });
        Ok(Self { since, recorded: recorded.is_some(), rows: None, cleared: Timestamp::MIN })
    }

    fn record(&self, db: &Connection) -> rusqlite::Result<()> {
        let put = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
        db.execute(put, [SINCE, &self.since.as_second().to_string()])?;
        db.execute(put, [BOOT, &boot_id()])?;
        Ok(())
    }

    /// Notes uses, and takes them back, in one transaction; then answers.
    pub(super) fn write_group(&mut self, db: &mut Connection, jobs: Vec<Job>, now: Timestamp) {
        let answers = self.try_group(db, &jobs, now);
        match answers {
            Ok(answers) => {
                self.recorded = true;
                for (job, answer) in jobs.into_iter().zip(answers) {
                    let _ = job.answer.send(Ok(answer)); // fails when whoever asked has gone
                }
            }
            Err(error) => {
                self.rows = None;
                let error = StoreError::from(error);
                for job in jobs {
                    let _ = job.answer.send(Err(error.clone())); // as above
                }
            }
        }
    }

    fn try_group(&mut self, db: &mut Connection, jobs: &[Job], now: Timestamp) -> rusqlite::Result<Vec<SignatureUse>> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !self.recorded {
            self.record(&transaction)?;
        }
        if now.as_second() != self.cleared.as_second() {
            transaction.execute("DELETE FROM used_signatures WHERE ends <= ?1", [now.as_microsecond()])?;
            (self.cleared, self.rows) = (now, None);
        }
        let count = || transaction.query_row("SELECT count(*) FROM used_signatures", [], |row| row.get::<_, i64>(0));
        let mut rows = match self.rows {
            Some(rows) => rows,
            None => usize::try_from(count()?).unwrap_or(usize::MAX),
        };
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            answers.push(match job.asked {
                Asked::Note { max } => {
                    let said = self.note(&transaction, job.used, (now, rows, max))?;
                    rows = rows.saturating_add(usize::from(said == SignatureUse::First));
                    said
                }
                Asked::TakeBack => {
                    let mut taken = transaction.prepare_cached("DELETE FROM used_signatures WHERE name = ?1")?;
                    rows = rows.saturating_sub(taken.execute([job.used.name.to_string()])?);
                    SignatureUse::First
                }
            });
        }
        transaction.commit()?;
        self.rows = Some(rows);
        Ok(answers)
    }

    fn note(
        &self,
        db: &Connection,
        used: UsedSignature,
        (now, rows, max): (Timestamp, usize, usize),
    ) -> rusqlite::Result<SignatureUse> {
        let UsedSignature { name, dated, ends } = used;
        if now >= ends {
            return Ok(SignatureUse::Over);
        }
        let (name, ends) = (name.to_string(), ends.as_microsecond());
        let mut known = db.prepare_cached("SELECT 1 FROM used_signatures WHERE name = ?1")?;
        if known.exists([&name])? {
            return Ok(SignatureUse::Again);
        }
        if dated < self.since {
            return Ok(SignatureUse::Unsure);
        }
        if rows >= max {
            return Ok(SignatureUse::Full);
        }
        db.prepare_cached("INSERT INTO used_signatures (name, ends) VALUES (?1, ?2)")?.execute((&name, ends))?;
        Ok(SignatureUse::First)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::sqlite::open::open;
    use crate::domain::key::KeyHash;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Asks as one process does after it has opened the file at a moment.
    fn note(path: &std::path::Path, (opened, now): (&str, &str), (name, dated): (u8, &str)) -> SignatureUse {
        let mut writer = open(path).unwrap().writer;
        let mut used = UsedSignatures::load(&writer, at(opened)).unwrap();
        let (answer, said) = oneshot::channel();
        let (name, dated, ends) = (KeyHash([name; 32]), at(dated), at("2026-03-01T13:00:00Z"));
        let job = Job { used: UsedSignature { name, dated, ends }, asked: Asked::Note { max: 100 }, answer };
        used.write_group(&mut writer, vec![job], at(now));
        said.blocking_recv().unwrap().unwrap()
    }

    fn put_account(path: &std::path::Path) {
        let db = open(path).unwrap().writer;
        let row = "INSERT INTO documents VALUES ('a', 'account', 1, 1, '{}')";
        assert_eq!(db.execute(row, []), Ok(1));
    }

    #[test]
    fn a_new_store_has_forgotten_nothing_until_others_fill_it() {
        const OPENED: (&str, &str) = ("2026-03-01T12:00:00Z", "2026-03-01T12:00:01Z");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.sqlite3");
        let early = "2026-03-01T11:50:00Z";
        assert_eq!(note(&path, OPENED, (1, early)), SignatureUse::First);
        put_account(&path);
        assert_eq!(note(&path, OPENED, (2, early)), SignatureUse::First, "a restart is no loss");
        let path = directory.path().join("restored.sqlite3");
        UsedSignatures::load(&open(&path).unwrap().writer, at(OPENED.0)).unwrap();
        put_account(&path);
        assert_eq!(note(&path, OPENED, (1, early)), SignatureUse::Unsure);
    }

    #[test]
    fn a_restart_forgets_nothing_and_a_boot_doubts_what_is_older() {
        const FIRST: (&str, &str) = ("2026-03-01T12:00:00.9Z", "2026-03-01T12:00:01Z");
        const LATER: (&str, &str) = ("2026-03-01T12:10:00Z", "2026-03-01T12:10:01Z");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.sqlite3");
        let same_second = "2026-03-01T12:00:00Z";
        put_account(&path);
        assert_eq!(note(&path, FIRST, (1, same_second)), SignatureUse::First);
        assert_eq!(note(&path, FIRST, (2, "2026-03-01T11:59:59Z")), SignatureUse::Unsure);
        assert_eq!(note(&path, LATER, (1, same_second)), SignatureUse::Again);
        assert_eq!(note(&path, LATER, (3, same_second)), SignatureUse::First);
        let db = open(&path).unwrap().writer;
        assert_eq!(db.execute("UPDATE meta SET value = 'another' WHERE name = ?1", [BOOT]), Ok(1));
        drop(db);
        assert_eq!(note(&path, LATER, (1, same_second)), SignatureUse::Again);
        assert_eq!(note(&path, LATER, (4, "2026-03-01T12:09:59Z")), SignatureUse::Unsure);
        assert_eq!(note(&path, LATER, (4, "2026-03-01T12:10:00Z")), SignatureUse::First);
    }
}
