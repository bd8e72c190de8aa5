//! Who is believed while the store's notices are not heard.

use super::*;
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::memory::MemoryStore;
use crate::adapter::memory_journal::MemoryDisk;
use crate::domain::id::Incarnation;
use crate::service::accounts::{Accounts, NewKey};
use crate::service::commands::CommandLog;
use crate::service::desk::Desk;

/// As if everything had been remembered long ago.
fn age(authenticator: &Authenticator) {
    for mut remembered in authenticator.callers.iter_mut() {
        if let Remembered::Known(_, at) = remembered.value_mut() {
            *at = at.checked_sub(CONFIRMED_FOR).unwrap();
        }
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
    let authenticator = Authenticator::new(store.clone(), keyring, Arc::default(), Duration::from_secs(1));
    let caller = async || {
        authenticator
            .caller(
                Presented { scheme: Scheme::ApiKey, text: text.expose() },
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
