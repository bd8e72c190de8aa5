//! What only this store does: its file, its groups, and what happens when the file fails.

use std::fs;
use std::io::{Seek, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::broadcast;

use super::signatures::UsedSignatures;
use super::write::Writer;
use super::{OpenError, SqliteStore, open};
use crate::adapter::clock::SystemClock;
use crate::domain::account::Account;
use crate::domain::id::{AccountId, Incarnation};
use crate::ports::account_store::{
    AccountStore, Believed, Commit, CommitError, DOCUMENT_BYTES_MAX, Stamp, StoreError, Write,
};
use crate::ports::gateways::Notice;

struct World {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.sqlite3");
        Self { directory, path }
    }

    fn open(&self) -> SqliteStore {
        open_store(&self.path).unwrap()
    }

    fn refusal(&self) -> OpenError {
        let Err(error) = open_store(&self.path) else { panic!("the store was opened") };
        assert!(error.to_string().contains(self.path.to_str().unwrap()), "{error}");
        error
    }

    /// As the `sqlite3` tool would.
    fn tool(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    /// The writing half alone, with a listener for the changes it tells.
    fn writer(&self) -> (Writer, broadcast::Receiver<Notice>) {
        let (notices, listener) = broadcast::channel(16);
        let opened = open::open(&self.path).unwrap();
        let used = UsedSignatures::load(&opened.writer, Timestamp::now()).unwrap();
        (Writer::new((opened.writer, opened.lock, used), opened.server, Arc::new(SystemClock), notices), listener)
    }
}

fn open_store(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path, Arc::new(SystemClock))
}

fn account(id: &str) -> AccountId {
    AccountId::new(id).unwrap()
}

fn opening(id: &str, name: &str) -> Commit {
    let head = Account::open(account(id), name.to_owned(), Timestamp::UNIX_EPOCH);
    let write = Write { expected: None, stamp: Stamp { counter: 1, random: 7 }, value: head };
    let (ended, events) = (Vec::new(), Vec::new());
    let (head, pool, account) = (Some(write), None, account(id));
    let believed = Believed { now: Timestamp::now(), server: None };
    let by = Incarnation::try_from("gw#1".to_owned()).unwrap();
    Commit { account, head, pool, ended, events, durable: false, believed, grants: false, by, turn: false }
}

fn renaming(id: &str, name: &str, after: Stamp) -> Commit {
    let mut commit = opening(id, name);
    let write = commit.head.as_mut().unwrap();
    (write.expected, write.stamp) = (Some(after), Stamp::next(Some(after), 8));
    commit
}

const FIRST: Stamp = Stamp { counter: 1, random: 7 };

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let world = World::new();
    let store = world.open();
    store.commit(opening("a", "First")).await.unwrap();
    let before = store.load(&account("a")).await.unwrap().unwrap();
    drop(store);
    let again = world.open().load(&account("a")).await.unwrap().unwrap();
    assert_eq!((again.head, again.pools), (before.head, before.pools));
}

#[tokio::test]
async fn a_store_that_has_forgotten_commits_is_another_than_before() {
    let world = World::new();
    let server = async |store: &SqliteStore| store.servers().await.unwrap();
    let store = world.open();
    store.commit(opening("a", "First")).await.unwrap();
    let before = server(&store).await;
    drop(store);
    let older = fs::read(&world.path).unwrap();
    let store = world.open();
    assert_eq!(server(&store).await, before);
    store.commit(opening("b", "Second")).await.unwrap();
    drop(store);
    fs::write(&world.path, older).unwrap();
    let store = world.open();
    let after = server(&store).await;
    assert_ne!(after, before);
    drop(store);
    assert_eq!(server(&world.open()).await, after, "once for each loss");
}

#[tokio::test]
async fn a_closed_store_is_one_file_for_its_owners_eyes() {
    let world = World::new();
    let store = world.open();
    store.commit(opening("a", "First")).await.unwrap();
    drop(store);
    let names = fs::read_dir(world.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["store.sqlite3", "store.sqlite3.lock"]);
    assert_eq!(fs::metadata(&world.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn another_process_can_read_the_books_as_text_while_the_store_is_open() {
    let world = World::new();
    let store = world.open();
    store.commit(opening("a", "First")).await.unwrap();
    let name: String = world
        .tool()
        .query_row("SELECT body ->> 'name' FROM documents WHERE account = 'a'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(name, "First");
}

#[tokio::test]
async fn a_store_can_be_read_beside_its_process_and_after_its_end() {
    let world = World::new();
    let read = || SqliteStore::open_to_read(&world.path, Arc::new(SystemClock));
    assert!(matches!(read(), Err(OpenError::Unusable { .. })), "reading makes no store");
    let store = world.open();
    store.commit(opening("a", "First")).await.unwrap();
    let reader = read().unwrap();
    assert_eq!(reader.list(None).await.unwrap().len(), 1);
    store.commit(opening("b", "Second")).await.unwrap();
    assert_eq!(reader.list(None).await.unwrap().len(), 2);
    let refused = reader.commit(opening("c", "Never")).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::Unavailable(_)))));
    drop((reader, store));
    assert_eq!(read().unwrap().list(None).await.unwrap().len(), 2);
    drop(world.open());
}

#[tokio::test]
async fn what_was_sent_is_written_although_nobody_waits() {
    let world = World::new();
    let store = world.open();
    for number in 0..200 {
        // The commit is polled once, which sends it, and its answer dropped.
        tokio::select! {
            biased;
            _ = store.commit(opening(&format!("a-{number}"), "First")) => {}
            () = std::future::ready(()) => {}
        }
    }
    drop(store);
    assert_eq!(world.open().list(None).await.unwrap().len(), 200);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let world = World::new();
    let text = "not a database, but long enough to have a header\n".repeat(100);
    fs::write(&world.path, &text).unwrap();
    assert!(matches!(world.refusal(), OpenError::NotAStore { .. }));
    assert_eq!(fs::read_to_string(&world.path).unwrap(), text);
}

#[test]
fn another_programs_database_is_refused() {
    let world = World::new();
    world.tool().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(world.refusal(), OpenError::NotAStore { .. }));
}

#[test]
fn a_newer_store_is_refused() {
    let world = World::new();
    drop(world.open());
    world.tool().pragma_update(None, "user_version", 3).unwrap();
    assert!(matches!(world.refusal(), OpenError::Newer { found: 3, .. }));
    world.tool().pragma_update(None, "user_version", 2).unwrap();
    drop(world.open());
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date_and_keeps_its_accounts() {
    let world = World::new();
    let store = world.open();
    store.commit(opening("a", "First")).await.unwrap();
    drop(store);
    world.tool().execute_batch("DROP TABLE meta; PRAGMA user_version = 1;").unwrap();
    let store = world.open();
    let loaded = store.load(&account("a")).await.unwrap().unwrap();
    assert_eq!(loaded.head.value.name, "First");
    drop(store);
    let again = world.open().load(&account("a")).await.unwrap().unwrap();
    assert_eq!(again.server, loaded.server, "the contents' life goes on");
    assert_ne!(World::new().open().servers().await.unwrap().0, [again.server]);
}

#[test]
fn a_second_process_is_refused_until_the_first_has_ended() {
    let world = World::new();
    let first = world.open();
    assert!(matches!(world.refusal(), OpenError::Locked { .. }));
    drop(first);
    drop(world.open());
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let world = World::new();
    fs::create_dir(&world.path).unwrap();
    assert!(matches!(world.refusal(), OpenError::NotWritable { .. }));
    let missing = World { path: world.directory.path().join("missing/store.sqlite3"), ..World::new() };
    assert!(matches!(missing.refusal(), OpenError::NotWritable { .. }));
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let world = World::new();
    let store = world.open();
    for number in 0..100 {
        store.commit(opening(&format!("a-{number}"), &"x".repeat(2_000))).await.unwrap();
    }
    drop(store);
    let mut file = fs::OpenOptions::new().write(true).open(&world.path).unwrap();
    file.seek(SeekFrom::Start(64 * 1024)).unwrap();
    file.write_all(&[0xa5; 16 * 1024]).unwrap();
    assert!(matches!(world.refusal(), OpenError::Damaged { .. }));
}

#[test]
fn a_conflict_does_no_harm_to_the_others_of_its_group() {
    let world = World::new();
    let (mut writer, mut changes) = world.writer();
    let stale = renaming("b", "Never", Stamp { counter: 1, random: 6 });
    let large = renaming("a", &"x".repeat(DOCUMENT_BYTES_MAX), FIRST);
    let group = [opening("a", "First"), opening("b", "Second"), stale, large, renaming("a", "Third", FIRST)];
    let answers = writer.write_group(&group);
    assert!(
        matches!(
            answers.as_slice(),
            [Ok(_), Ok(_), Err(CommitError::Conflict(Some(_))), Err(CommitError::TooLarge { .. }), Ok(_)]
        ),
        "{answers:?}"
    );
    drop(writer);
    let told: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
    assert_eq!(told, ["a", "b", "a"].map(|id| Notice::Changed(account(id))));
    let names = "SELECT group_concat(body ->> 'name') FROM (SELECT body FROM documents ORDER BY account)";
    let names: String = world.tool().query_row(names, [], |row| row.get(0)).unwrap();
    assert_eq!(names, "Third,Second");
}

#[test]
fn a_full_disk_fails_its_group_whole_and_nothing_later() {
    let world = World::new();
    let (mut writer, mut changes) = world.writer();
    writer.write_group(&[opening("a", "First")])[0].as_ref().unwrap();
    let pages: i64 = writer.db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    writer.db.pragma_update(None, "max_page_count", pages).unwrap();
    assert_eq!(changes.try_recv(), Ok(Notice::Changed(account("a"))));
    for _ in 0..3 {
        let answers = writer.write_group(&[renaming("a", "Lost", FIRST), opening("b", &"x".repeat(100_000))]);
        for answer in answers {
            assert!(matches!(answer, Err(CommitError::Store(StoreError::Full(_)))), "{answer:?}");
        }
        assert!(changes.try_recv().is_err());
    }
    // What needs no further room goes on, and the rest when there is room again.
    writer.write_group(&[renaming("a", "Second", FIRST)])[0].as_ref().unwrap();
    writer.db.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    writer.write_group(&[opening("b", &"x".repeat(100_000))])[0].as_ref().unwrap();
}

#[test]
fn a_group_waits_for_the_disk_if_one_of_it_must() {
    let world = World::new();
    let (mut writer, _changes) = world.writer();
    let mut check = |durable: &[bool], expected: i64| {
        let group: Vec<_> =
            durable.iter().map(|durable| Commit { durable: *durable, ..opening("a", "First") }).collect();
        writer.write_group(&group);
        let synchronous: i64 = writer.db.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(synchronous, expected, "{durable:?}"); // 1 is NORMAL, 2 is FULL
    };
    check(&[false], 1);
    check(&[false, true, false], 2);
    check(&[true], 2);
    check(&[false, false], 1);
}

#[test]
fn a_writer_that_holds_the_file_makes_the_store_unavailable_for_a_while() {
    let world = World::new();
    let (mut writer, _changes) = world.writer();
    writer.db.busy_timeout(std::time::Duration::ZERO).unwrap();
    let tool = world.tool();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answers = writer.write_group(&[opening("a", "First")]);
    assert!(matches!(answers[0], Err(CommitError::Store(StoreError::Unavailable(_)))), "{answers:?}");
    tool.execute_batch("ROLLBACK").unwrap();
    writer.write_group(&[opening("a", "First")])[0].as_ref().unwrap();
}
