//! Out of one store, into another.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::*;
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::memory::{Fault, MemoryStore};
use crate::domain::account::{Books, apply};
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::command::{Action, Command};
use crate::domain::id::{CommandId, Incarnation, OfferId, PackageId};
use crate::domain::offer::{Offer, Validity};

struct World {
    store: Arc<MemoryStore>,
    desk: Desk,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let by = Incarnation::try_from("test#1".to_owned()).unwrap();
        let desk = Desk::new(store.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy), by);
        Self { store, desk, dir: tempfile::tempdir().unwrap() }
    }

    /// An account with a package, and so many that have ended.
    async fn open(&self, id: &str, ended: usize) {
        let now = Timestamp::now();
        let id = AccountId::new(id).unwrap();
        let head = Account::open(id.clone(), format!("Name of {id}"), now);
        let product = ProductId::new("chat").unwrap();
        let package = PackageId::new("now").unwrap();
        let offer = Offer {
            id: OfferId::new("small").unwrap(),
            product: product.clone(),
            quantity: Units::new(10),
            validity: Validity::Months(1),
            zone: TimeZone::UTC,
            billable: BillableStatuses::default(),
            price: None,
            for_apps: false,
        };
        let (project, tags) = Default::default();
        let action = Action::AddPackage { package, offer, valid_from: None, project, tags, spare_app: None };
        let command = Command { id: CommandId::new("first").unwrap(), action };
        let books = Books { head, pools: std::collections::BTreeMap::new() };
        let change = apply(&books, &command, now).unwrap();
        let pool = change.pool.unwrap();
        let past = |number: usize| Past {
            product: product.clone(),
            package: Package { id: PackageId::new(&format!("past-{number}")).unwrap(), ..pool.packages[0].clone() },
        };
        let ended = (0..ended).rev().map(past).collect();
        write_account(&self.desk, &Entry { account: change.head.unwrap(), pools: vec![pool.clone()], ended })
            .await
            .unwrap();
    }

    async fn text(&self) -> String {
        let mut text = Vec::new();
        let moved = write_out(&*self.store, Timestamp::UNIX_EPOCH, &mut text).await.unwrap();
        assert!(moved.broken.is_empty());
        String::from_utf8(text).unwrap()
    }

    async fn read(&self, text: &str) -> Result<Moved, DumpError> {
        let path = self.dir.path().join("backup");
        std::fs::write(&path, text).unwrap();
        read_in(&self.desk, &path).await
    }
}

async fn full() -> World {
    let world = World::new();
    world.open("plain", 0).await;
    world.open("with-a-past", LIST_MAX + HISTORY_CHUNK + 1).await;
    world
}

#[tokio::test]
async fn what_was_written_out_is_read_in_and_again_changes_nothing() {
    let (from, to) = (full().await, World::new());
    let text = from.text().await;
    assert_eq!(to.read(&text).await.unwrap(), Moved { accounts: 2, written: 2, broken: Vec::new() });
    assert_eq!(to.text().await, text);
    assert_eq!(to.read(&text).await.unwrap(), Moved { accounts: 2, written: 0, broken: Vec::new() });
    assert_eq!(to.text().await, text);
}

#[tokio::test]
async fn an_interrupted_run_is_repeated() {
    let text = full().await.text().await;
    // Whichever commit fails for good, the next run brings the rest.
    for good in 0..14 {
        let to = World::new();
        let tries = vec![Fault::NotWritten; COMMIT_TRIES];
        let mut faults = vec![Fault::ReplyLost; good];
        faults.extend(tries);
        to.store.fail_commits(faults);
        let first = to.read(&text).await;
        assert!(matches!(first, Err(DumpError::Commit { .. })), "{good}: {first:?}");
        while to.read(&text).await.is_err() {}
        assert_eq!(to.text().await, text, "{good}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_whole_changes_nothing() {
    let text = full().await.text().await;
    let lines: Vec<&str> = text.lines().collect();
    let without = |index: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, line)| format!("{line}\n"));
        kept.collect::<String>()
    };
    for (bad, words) in [
        (without(3), "cut off"),
        (without(1), "have been changed"),
        (without(0), "have been changed"),
        (text.replace("Name of plain", "Name of plans"), "have been changed"),
        (String::new(), "cut off"),
        (text.trim_end().trim_end_matches('}').to_owned(), "cut off"),
    ] {
        let to = World::new();
        let refused = to.read(&bad).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
        assert_eq!(to.store.list(None).await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_account_that_differs_is_left_alone() {
    let text = full().await.text().await;
    let to = World::new();
    to.open("plain", 3).await; // made at another time
    let before = to.text().await;
    let refused = to.read(&text).await;
    assert!(matches!(&refused, Err(DumpError::Differs(account)) if account.as_str() == "plain"), "{refused:?}");
    assert!(to.text().await.starts_with(before.lines().take(2).collect::<Vec<_>>().join("\n").as_str()));
}
