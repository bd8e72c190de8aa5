//! What every store must do with documents that are too large or cannot be read.

use super::{World, account, chat};
use crate::domain::account::Account;
use crate::ports::account_store::{Commit, CommitError, DOCUMENT_BYTES_MAX, Loaded, StoreError, Write};

pub(super) async fn a_document_may_not_grow_beyond_its_limit(world: World) {
    let seen = world.opened("a").await;
    let renamed = |loaded: &Loaded, bytes: usize| {
        let before = loaded.head.stamp;
        let head = Account { name: String::new(), ..loaded.head.value.clone() };
        let empty = serde_json::to_string(&head).unwrap().len();
        let value = Account { name: "x".repeat(bytes - empty), ..head };
        let stamp = world.stamp_after(Some(before));
        Commit { head: Some(Write { expected: Some(before), stamp, value }), ..world.opening("a") }
    };
    world.store.commit(renamed(&seen, DOCUMENT_BYTES_MAX)).await.unwrap();
    let full = world.load("a").await;
    let refused = world.store.commit(renamed(&full, DOCUMENT_BYTES_MAX + 1)).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { bytes }) if bytes == DOCUMENT_BYTES_MAX + 1), "{refused:?}");
    assert_eq!(world.load("a").await, full);
    // One that is too large already can shrink, and be written at its size, but not grow.
    let mut body = serde_json::to_value(&full.head.value).unwrap();
    body["name"] = "x".repeat(DOCUMENT_BYTES_MAX + 5).into();
    let body = serde_json::to_string(&body).unwrap();
    (world.overwrite)(&account("a"), "account", &body);
    world.store.commit(renamed(&full, body.len() + 1)).await.unwrap_err();
    world.store.commit(renamed(&full, body.len())).await.unwrap();
    let large = world.load("a").await;
    world.store.commit(renamed(&large, body.len() - 1)).await.unwrap();
}

pub(super) async fn a_document_that_cannot_be_read_affects_its_account_only(world: World) {
    world.with_package("a", 10).await;
    let whole = world.with_package("b", 10).await;
    let newer = |body: &serde_json::Value| {
        let mut body = body.clone();
        body["version"] = 2.into();
        body["a_new_field"] = true.into();
        body.to_string()
    };
    let pool = serde_json::to_value(&whole.pools[&chat()].value).unwrap();
    for (name, body, reason) in [
        ("pool/chat", newer(&pool), "version 2"),
        ("pool/chat", pool.to_string().replace("packages", "packets"), "packets"),
        ("pool/chat", "{".to_owned(), "EOF"),
        ("account", "{}".to_owned(), "version"),
    ] {
        (world.overwrite)(&account("a"), name, &body);
        let error = world.store.load(&account("a")).await.unwrap_err();
        let StoreError::Broken { account: whose, document, .. } = &error else { panic!("{error:?}") };
        assert_eq!((whose, document.as_str()), (&account("a"), name));
        assert!(error.to_string().contains(reason), "{error}");
        let refused = world.store.commit(world.opening("a")).await;
        assert!(matches!(refused, Err(CommitError::Store(StoreError::Broken { .. }))), "{refused:?}");
    }
    let names: Vec<String> = world.store.list(None).await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["", "Name of b"]);
    assert_eq!(world.load("b").await, whole);
}
