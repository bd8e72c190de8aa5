//! What every store must do for several gateways: check-in, turns, the time, heartbeats, notices.

use jiff::SignedDuration;

use super::{World, account, chat, conflict, gateway};
use crate::domain::id::Incarnation;
use crate::domain::lease::LEASE_DURATION_MAX;
use crate::ports::account_store::{Commit, CommitError, Loaded, TIME_OFF_MAX, TURN_MAX};
use crate::ports::clock::Clock;
use crate::ports::gateways::{CheckIn, LIVE_FOR, Notice, ServerId, Servers};

impl World {
    /// Checks in, alone. A store that may have been emptied listens for a while before.
    pub(super) async fn check_in(&self) {
        let servers = self.store.servers().await.unwrap();
        let by = gateway("gw");
        let ask = async || self.store.check_in(&by, &servers, std::slice::from_ref(&by)).await.unwrap();
        if ask().await == CheckIn::Waiting {
            self.listen().await;
            assert_eq!(ask().await, CheckIn::Open);
        }
    }

    /// Lets so much time pass that everyone who lives must have been heard.
    async fn listen(&self) {
        self.store.heartbeat(&gateway("gw")).await.unwrap();
        self.pass(LIVE_FOR);
        self.store.heartbeat(&gateway("gw")).await.unwrap();
    }
}

pub(super) async fn a_commit_for_another_server_is_refused(world: World) {
    let seen = world.with_package("a", 10).await;
    for (server, good) in [(Some(ServerId::new("no server")), false), (None, false), (Some(seen.server.clone()), true)]
    {
        let mut commit = world.granting(&seen, "gw", 1);
        commit.believed.server = server;
        let answer = world.store.commit(commit).await;
        assert!(answer.is_ok() == good, "{answer:?}");
        let stranger = matches!(&answer, Err(CommitError::Stranger(there)) if *there == seen.server);
        assert!(good || stranger && world.load("a").await == seen, "{answer:?}");
    }
}

pub(super) async fn a_writer_whose_time_is_off_is_told_the_time(world: World) {
    let nanosecond = SignedDuration::from_nanos(1);
    let cases = [(TIME_OFF_MAX, true), (-TIME_OFF_MAX, true)];
    let wrong = [(TIME_OFF_MAX + nanosecond, false), (-TIME_OFF_MAX - nanosecond, false)];
    for (number, (off, good)) in (1..).zip(cases.into_iter().chain(wrong)) {
        let mut commit = world.opening(&format!("a-{number}"));
        let now = commit.believed.now;
        commit.believed.now = now.checked_add(off).unwrap();
        match world.store.commit(commit).await {
            Ok(_) => assert!(good, "{off}"),
            Err(CommitError::TimeOff(there)) => assert!(!good && there == now, "{off}"),
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) async fn a_server_that_may_have_forgotten_gives_no_lease_before_all_have_checked_in(world: World) {
    world.with_package("a", 10).await;
    let Some(restart) = &world.restart else { return };
    let before = world.store.servers().await.unwrap();
    world.listen().await;
    restart();
    let servers = world.store.servers().await.unwrap();
    assert_ne!(servers, before);
    let seen = world.load("a").await;
    assert!(servers.0.contains(&seen.server));
    let refused = world.store.commit(world.granting(&seen, "gw-1", 1)).await;
    assert!(matches!(refused, Err(CommitError::Closed)), "{refused:?}");
    assert_eq!(world.load("a").await, seen);
    // Reports and commands are taken all the same.
    let report = Commit { grants: false, ..world.granting(&seen, "gw-1", 1) };
    world.store.commit(report.clone()).await.unwrap();
    // One that is written already is a success, whatever it holds.
    world.store.commit(Commit { grants: true, ..report }).await.unwrap();
    let seen = world.load("a").await;
    let live = [gateway("gw-1"), gateway("gw-2")];
    let check_in = async |by: &Incarnation, servers: &Servers| world.store.check_in(by, servers, &live).await.unwrap();
    assert_eq!(check_in(&live[0], &before).await, CheckIn::Stranger);
    assert_eq!(check_in(&live[0], &servers).await, CheckIn::Waiting);
    let refused = world.store.commit(world.granting(&seen, "gw-1", 2)).await;
    assert!(matches!(refused, Err(CommitError::Closed)), "{refused:?}");
    assert_eq!(check_in(&live[1], &servers).await, CheckIn::Open);
    assert_eq!(check_in(&live[0], &servers).await, CheckIn::Open);
    world.store.commit(world.granting(&seen, "gw-1", 2)).await.unwrap();
}

pub(super) async fn a_server_that_may_not_know_who_lives_listens_before_it_gives_leases(world: World) {
    world.with_package("a", 10).await;
    let Some(restart) = &world.restart else { return };
    let millisecond = SignedDuration::from_millis(1);
    let by = gateway("gw");
    let check_in = async || {
        world.store.heartbeat(&by).await.unwrap();
        let servers = world.store.servers().await.unwrap();
        world.store.check_in(&by, &servers, std::slice::from_ref(&by)).await.unwrap()
    };
    world.listen().await;
    // The list was kept without a gap: all who are in it have checked in.
    restart();
    world.pass(LIVE_FOR);
    assert_eq!(check_in().await, CheckIn::Open);
    // Nobody was heard for so long that others may live who are no longer in it.
    restart();
    world.pass(LIVE_FOR + millisecond);
    assert_eq!(check_in().await, CheckIn::Waiting);
    world.pass(LIVE_FOR - millisecond);
    assert_eq!(check_in().await, CheckIn::Waiting);
    world.pass(millisecond);
    assert_eq!(check_in().await, CheckIn::Open);
    // The server that gives leases goes on, whoever is heard.
    world.pass(LIVE_FOR + millisecond);
    assert_eq!(check_in().await, CheckIn::Open);
}

pub(super) async fn a_gateway_that_never_checks_in_is_waited_for_as_long_as_leases_last(world: World) {
    world.with_package("a", 10).await;
    let Some(restart) = &world.restart else { return };
    restart();
    let servers = world.store.servers().await.unwrap();
    let live = [gateway("gw-1"), gateway("gw-2")];
    let check_in = async || world.store.check_in(&live[0], &servers, &live).await.unwrap();
    assert_eq!(check_in().await, CheckIn::Waiting);
    world.pass(LEASE_DURATION_MAX - SignedDuration::from_millis(1));
    assert_eq!(check_in().await, CheckIn::Waiting);
    world.pass(SignedDuration::from_millis(1));
    assert_eq!(check_in().await, CheckIn::Open);
}

pub(super) async fn a_gateway_that_is_always_late_gets_a_turn(world: World) {
    let seen = world.with_package("a", 10).await;
    let far = |seen: &Loaded, number| Commit { turn: true, ..world.granting(seen, "far", number) };
    let (near, late) = (world.granting(&seen, "near", 1), far(&seen, 1));
    world.store.commit(near).await.unwrap();
    let seen = conflict(world.store.commit(late).await).unwrap();
    let busy = async |seen: &Loaded| {
        matches!(world.store.commit(world.granting(seen, "near", 2)).await, Err(CommitError::Busy))
    };
    assert!(busy(&seen).await);
    // Another pool and another account are not concerned.
    world.with_package("b", 10).await;
    world.store.commit(far(&seen, 1)).await.unwrap();
    let seen = world.load("a").await;
    assert!(!busy(&seen).await, "the turn ends with the commit that it was for");
    conflict(world.store.commit(far(&seen, 2)).await);
    let seen = world.load("a").await;
    world.pass(TURN_MAX - SignedDuration::from_millis(1));
    assert!(busy(&seen).await);
    world.pass(SignedDuration::from_millis(1));
    assert!(!busy(&seen).await, "a turn lasts a tenth of a second at most");
}

pub(super) async fn a_gateway_lives_for_a_while_after_its_heartbeat(world: World) {
    let beat = async |id: &str| {
        let mut heard = world.store.heartbeat(&gateway(id)).await.unwrap();
        assert_eq!(heard.now, world.clock.now());
        heard.live.sort();
        heard.live
    };
    assert_eq!(beat("gw-1").await, [gateway("gw-1")]);
    assert_eq!(beat("gw-2").await, [gateway("gw-1"), gateway("gw-2")]);
    world.pass(LIVE_FOR);
    assert_eq!(beat("gw-2").await, [gateway("gw-1"), gateway("gw-2")]);
    world.pass(SignedDuration::from_millis(1));
    assert_eq!(beat("gw-2").await, [gateway("gw-2")]);
    // A clock that steps back keeps nobody alive who is gone.
    world.pass(-LIVE_FOR);
    assert_eq!(beat("gw-1").await, [gateway("gw-1"), gateway("gw-2")]);
    world.pass(-LIVE_FOR - SignedDuration::from_millis(1));
    assert_eq!(beat("gw-2").await, [gateway("gw-2")]);
    beat("gw-1").await;
    world.store.leave(&gateway("gw-2")).await.unwrap();
    assert_eq!(beat("gw-1").await, [gateway("gw-1")]);
}

pub(super) async fn every_listener_hears_every_notice(world: World) {
    let mut listeners = [world.store.changes(), world.store.changes()];
    let (account, product) = (account("a"), chat());
    let notices = [
        Notice::Changed(account.clone()),
        Notice::Recall { account: account.clone(), product: product.clone(), by: gateway("gw-1") },
        Notice::Answered { account, product, by: gateway("gw-2") },
        Notice::CheckIn,
        Notice::Missed,
    ];
    for notice in &notices {
        world.store.notify(notice.clone()).await.unwrap();
    }
    for listener in &mut listeners {
        for notice in &notices {
            assert_eq!(listener.recv().await.as_ref(), Ok(notice));
        }
    }
    assert!(world.store.heard_at().is_some());
}
