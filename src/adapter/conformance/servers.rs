//! The properties on Redis and Valkey servers: on Valkey where there is one, on a Cluster and on a pair watched by
//! Sentinels, with a failover in the middle. How servers are started is in `tests/harness/redis.rs`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{PROPERTIES, World, stopped_clock};
use crate::adapter::redis::tests::{Cluster, Place, Watched, World as RedisWorld, valkey_binary};
use crate::ports::account_store::StoreError;

/// A store on some Redis server, with a prefix of its own.
pub(super) async fn world(place: Place, prefix: &str) -> World {
    let clock = stopped_clock();
    let there = Arc::new(RedisWorld::open(place, prefix, clock.clone()).await);
    let (reads, writes, restarts) = (there.clone(), there.clone(), there.clone());
    World {
        used: there.store.clone(),
        store: there.store.clone(),
        clock,
        outbox: Box::new(move |account| reads.outbox(account)),
        overwrite: Box::new(move |account, name, body| writes.overwrite(account, name, body)),
        restart: Some(Box::new(move || restarts.forget_epochs())),
        random: Mutex::new(1),
        _keeps: None,
    }
}

/// Asks again until the store answers.
async fn until_answered<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks every property in one place.
async fn all_in(place: &Place, when: &str) {
    for (name, property) in PROPERTIES {
        eprintln!("{name}, {when}");
        property(world(place.clone(), &format!("{when}.{name}")).await).await;
    }
}

/// Checks every property in one place before and after a failover, and that a store lives through it.
async fn all_around(place: &Place, fail_over: impl FnOnce()) {
    all_in(place, "before").await;
    let lasting = world(place.clone(), "lasting").await;
    let seen = lasting.with_package("a", 10).await;
    fail_over();
    let again = until_answered(async || lasting.store.load(&seen.head.value.id).await).await.unwrap();
    assert_eq!((again.head, again.pools), (seen.head, seen.pools));
    until_answered(async || lasting.store.servers().await).await;
    lasting.with_package("b", 10).await;
    all_in(place, "after").await;
}

/// Valkey keeps Redis's protocol, and its own promises: it is tested where there is one.
#[tokio::test]
async fn on_valkey() {
    let Some(binary) = valkey_binary() else { return };
    all_in(&Place::alone(binary), "alone").await;
}

#[tokio::test]
async fn on_a_cluster_with_a_failover() {
    let cluster = Arc::new(Mutex::new(Cluster::start()));
    let place = Place::Cluster(cluster.clone());
    all_around(&place, || cluster.lock().unwrap().fail_over()).await;
}

#[tokio::test]
async fn on_a_server_watched_by_sentinels_with_a_failover() {
    let watched = Arc::new(Mutex::new(Watched::start()));
    let place = Place::Watched(watched.clone());
    all_around(&place, || watched.lock().unwrap().fail_over()).await;
}
