//! The index from the hashes of credentials to their accounts.

use super::*;
use crate::domain::app::{App, AppChange, AppCode};
use crate::domain::id::{AppCodeId, AppId};
use crate::domain::limit::Limits;

pub(super) async fn the_key_index_follows_the_head(world: World) {
    let found = async |hash| world.store.load_by_key(KeyHash([hash; 32])).await.unwrap();
    let owner = async |hash| found(hash).await.map(|found| found.head.value.id);
    let loaded = world.opened("a").await;
    world.store.commit(world.commanding(&loaded, "c-1", Action::AddKey(key("k-1", 1)))).await.unwrap();
    let loaded = world.load("a").await;
    world.store.commit(world.commanding(&loaded, "c-2", Action::AddKey(key("k-2", 2)))).await.unwrap();
    assert_eq!((owner(1).await, owner(2).await), (Some(account("a")), Some(account("a"))));
    let loaded = world.load("a").await;
    let revoke = Action::RevokeKey(KeyId::new("k-1").unwrap());
    world.store.commit(world.commanding(&loaded, "c-3", revoke)).await.unwrap();
    assert_eq!((owner(1).await, owner(2).await), (None, Some(account("a"))));
    // What was given up can be taken by another.
    let other = world.opened("b").await;
    world.store.commit(world.commanding(&other, "c-1", Action::AddKey(key("k-1", 1)))).await.unwrap();
    assert_eq!(owner(1).await, Some(account("b")));
}

pub(super) async fn the_key_index_knows_apps_and_their_codes(world: World) {
    let owner = async |hash| world.store.account_of(KeyHash([hash; 32])).await.unwrap();
    let app = |number: u8| App {
        id: AppId::new(&format!("app-{number}")).unwrap(),
        name: "test".to_owned(),
        app_key: "key".to_owned(),
        hash: KeyHash([number; 32]),
        secrets: Vec::new(),
        codes: Vec::new(),
        products: Vec::new(),
        networks: None,
        created_at: Timestamp::UNIX_EPOCH,
        limits: Limits::NONE,
    };
    let code = |number: u8| {
        let id = AppCodeId::new(&format!("code-{number}")).unwrap();
        let (hint, created_at) = (String::new(), Timestamp::UNIX_EPOCH);
        AppChange::AddCode(AppCode { id, hash: KeyHash([number; 32]), hint, created_at })
    };
    let loaded = world.opened("a").await;
    world.store.commit(world.commanding(&loaded, "c-1", Action::AddApp(Box::new(app(1))))).await.unwrap();
    let loaded = world.load("a").await;
    world.store.commit(world.commanding(&loaded, "c-2", Action::ChangeApp(app(1).id, code(2)))).await.unwrap();
    assert_eq!((owner(1).await, owner(2).await), (Some(account("a")), Some(account("a"))));
    // Neither an app nor a key of another account can have what is taken.
    let other = world.opened("b").await;
    for action in [Action::AddApp(Box::new(app(2))), Action::AddKey(key("k-1", 1))] {
        let refused = world.store.commit(world.commanding(&other, "c-1", action)).await;
        assert!(matches!(refused, Err(CommitError::KeyTaken)), "{refused:?}");
    }
    let loaded = world.load("a").await;
    let delete = Action::ChangeApp(app(1).id, AppChange::Delete);
    world.store.commit(world.commanding(&loaded, "c-3", delete)).await.unwrap();
    assert_eq!((owner(1).await, owner(2).await), (None, None));
}

pub(super) async fn a_key_of_another_account_is_refused(world: World) {
    let (first, second) = (world.opened("a").await, world.opened("b").await);
    world.store.commit(world.commanding(&first, "c-1", Action::AddKey(key("k-1", 1)))).await.unwrap();
    let thief = world.commanding(&second, "c-1", Action::AddKey(key("k-9", 1)));
    let refused = world.store.commit(thief).await;
    assert!(matches!(refused, Err(CommitError::KeyTaken)), "{refused:?}");
    assert_eq!(world.load("b").await, second);
    assert_eq!(world.store.account_of(KeyHash([1; 32])).await.unwrap(), Some(account("a")));
}
