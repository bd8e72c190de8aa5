//! Who is believed while the store's notices are not heard.

use futures_util::FutureExt;

use super::*;
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::memory::MemoryStore;
use crate::adapter::memory_journal::MemoryDisk;
use crate::domain::id::Incarnation;
use crate::service::accounts::apps::NewApp;
use crate::service::accounts::{Accounts, NewKey};
use crate::service::commands::CommandLog;
use crate::service::desk::Desk;

/// Limits nobody.
pub(in crate::service) fn no_limits() -> (Arc<Limiter>, Failures) {
    (Arc::default(), Failures::new(std::num::NonZeroU32::MAX))
}

/// As if everything had been remembered long ago.
fn age(authenticator: &Authenticator) {
    for mut remembered in authenticator.callers.iter_mut() {
        if let Remembered::Known(_, at, _) = remembered.value_mut() {
            *at = at.checked_sub(CONFIRMED_FOR).unwrap();
        }
    }
}

#[tokio::test]
async fn where_too_many_have_failed_nobody_is_asked_but_those_who_are_known_go_on() {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let keyring = Keyring::new(b"a secret of the tests", &[]).unwrap();
    let limits = (Arc::default(), Failures::new(std::num::NonZeroU32::new(2).unwrap()));
    let authenticator = Authenticator::new(store.clone(), keyring, limits, Duration::from_secs(1));
    let ask = async |text: &str, client: &str| {
        let presented = Presented { scheme: Scheme::AppCode, text, client };
        let at = (Timestamp::now(), Duration::ZERO);
        let found = authenticator.caller(presented, at, &RefCell::default()).await;
        (found.map(drop), authenticator.failed(presented).is_ok())
    };
    assert_eq!(ask("one", "10.0.0.1").await, (Err(AuthError::Unknown), true));
    assert_eq!(ask("one", "10.0.0.1").await, (Err(AuthError::Unknown), true));
    store.be_away(true);
    let (refused, counted) = ask("two", "10.0.0.1").await;
    assert!(matches!(refused, Err(AuthError::TooMany(_))) && !counted, "{refused:?}");
    let (refused, _) = ask("two", "10.0.0.2").await;
    assert!(matches!(refused, Err(AuthError::Unavailable(_))), "another address is heard: {refused:?}");
    assert_eq!(ask("one", "10.0.0.3").await, (Err(AuthError::Unknown), false), "the credential has failed too often");
}

#[tokio::test]
async fn a_first_wrong_guess_takes_as_long_whether_the_app_key_is_known_or_not() {
    const LATE: Duration = Duration::from_secs(3600);
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let by = Incarnation::try_from("gw#1".to_owned()).unwrap();
    let desk = Desk::new(store.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy), by.clone());
    let journal = Arc::new(MemoryDisk::default()).begin(by);
    let log = Arc::new(CommandLog::new(desk.clone(), journal.writer(0), journal));
    let keyring = Keyring::new(b"a secret of the tests", &[]).unwrap();
    let accounts = Accounts::new(desk, log, keyring.clone());
    let account = accounts.open(None, None, "Acme").await.unwrap().value.id;
    let new = NewApp { name: "one".into(), app_key: None, secret: None, products: Vec::new(), networks: None };
    let app = accounts.add_app(&account, None, new).await.unwrap().app;
    let authenticator = Authenticator::new(store.clone(), keyring, no_limits(), LATE);
    fn presented(text: &str) -> Presented<'_> {
        Presented { scheme: Scheme::Signature, text, client: "" }
    }
    let right = async |text: &str| {
        let at = (Timestamp::now(), Duration::ZERO);
        authenticator.caller(presented(text), at, &RefCell::default()).await
    };
    let wrong = async |text: &str| {
        let found = right(text).await;
        if found.is_ok_and(|found| found.read.is_none()) {
            authenticator.look_as_for_nobody(presented(text), Duration::ZERO).await;
        }
    };
    let waits = |text| wrong(text).now_or_never().is_none();
    let known = app.app_key.as_str();
    right(known).await.unwrap();
    store.answer_late(LATE);
    assert!(right(known).now_or_never().is_some(), "its owner does not wait");
    for _ in 0..2 {
        assert!(waits(known) && waits("nobodys-key"));
        store.answer_late(Duration::ZERO);
        wrong("nobodys-key").await; // the look of before was not waited for
        store.answer_late(LATE);
        assert!(!waits(known) && !waits("nobodys-key"));
        // Whatever makes unknown ones forgotten.
        authenticator.forget(Some(&AccountId::try_from("another".to_owned()).unwrap()));
    }
}

#[tokio::test]
async fn while_no_notices_are_heard_keys_are_confirmed_and_believed_if_nobody_answers() {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let by = Incarnation::try_from("gw#1".to_owned()).unwrap();
    let desk = Desk::new(store.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy), by.clone());
    let journal = Arc::new(MemoryDisk::default()).begin(by);
    let log = Arc::new(CommandLog::new(desk.clone(), journal.writer(0), journal));
    let keyring = Keyring::new(b"a secret of the tests", &[]).unwrap();
    let accounts = Accounts::new(desk, log, keyring.clone());
    let account = accounts.open(None, None, "Acme").await.unwrap().value.id;
    let added = accounts.add_key(&account, None, NewKey::default()).await.unwrap();
    let (text, key) = (added.text.unwrap(), added.key.id);
    let authenticator = Authenticator::new(store.clone(), keyring, no_limits(), Duration::from_secs(1));
    let caller = async || {
        authenticator
            .caller(
                Presented { scheme: Scheme::ApiKey, text: text.expose(), client: "" },
                (Timestamp::now(), Duration::ZERO),
                &RefCell::default(),
            )
            .await
            .map(drop)
    };
    assert_eq!(caller().await, Ok(()));

    store.be_away(true);
    authenticator.deaf.store(true, Ordering::Relaxed);
    age(&authenticator);
    assert_eq!(caller().await, Ok(()), "the store does not answer: one who was known still is");
    store.be_away(false);
    store.lose_notices(true);
    accounts.revoke_key(&account, &key).await.unwrap();
    assert_eq!(caller().await, Ok(()), "confirmed a moment ago");
    age(&authenticator);
    assert_eq!(caller().await, Err(AuthError::Unknown));
}
