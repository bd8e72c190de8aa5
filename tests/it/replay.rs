//! Products that accept a signature once: the same request sent again, in every way in which it can be sent again.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::harness::admin::text;
use crate::harness::client::{Answer, Client, Request};
use crate::harness::redis::Server;
use crate::harness::seller::{Seller, plain};
use crate::harness::signer::Signer;
use crate::harness::until;
use crate::harness::world::{World, base_config, product};

fn protected(config: &mut Value) {
    product(config, "api")["replay_protection"] = json!(true);
}

fn post() -> Request {
    Request::post("/api/v1/things?b=2&a=1").json(r#"{"name":"thing"}"#)
}

#[track_caller]
fn refused(answer: Answer, status: u16, code: &str) {
    let answer = answer.expect(status);
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some(code), "{}", answer.text());
    let scheme = (status == 401).then_some("SDK-HMAC-SHA256");
    assert_eq!(answer.head.get("www-authenticate"), scheme);
    assert_eq!(answer.head.get("retry-after"), (status == 503).then_some("1"));
}

async fn signing(world: &World) -> (String, Signer) {
    let buyer = world.buyer(&["api-1000"]).await;
    let (_, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    (buyer.account, signer)
}

/// The request with another field order, another order of parameters, and a field that is not signed.
fn disguised(signed: &Request) -> Request {
    let mut other = Request::new("POST", "/api/v1/things?a=1&b=2");
    for (name, value) in signed.fields().iter().rev() {
        other = other.field(name, value);
    }
    other.field("X-Not-Signed", "1").body(signed.body_bytes())
}

#[tokio::test]
async fn a_signature_opens_once_and_what_it_paid_for_is_charged_once() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, protected).await;
    let (account, signer) = signing(&world).await;
    let signed = signer.sign(post());
    world.call(&signed).await.expect(200);
    for again in [&signed, &disguised(&signed), &signed] {
        refused(world.call(again).await, 401, "signature_replayed");
    }
    // What does not verify uses nothing up, and is told nothing new.
    let fresh = signer.sign(post().field("X-Fresh", "1"));
    refused(world.call(&fresh.clone().body(b"{}")).await, 401, "invalid_signature");
    refused(world.call(&signed.clone().body(b"{}")).await, 401, "invalid_signature");
    world.call(&fresh).await.expect(200);
    world.settles(&account, 2).await;
    world.crash().await;
    for again in [&signed, &fresh] {
        refused(world.call(again).await, 401, "signature_replayed");
    }
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    refused(world.call(&signed).await, 401, "signature_replayed");
    world.call(&signer.sign(post().field("X-Fresh", "2"))).await.expect(200);
    world.settles(&account, 3).await;
    assert_eq!(seller.requests().len(), 3);
    let metrics = world.admin.metrics().await;
    let uses = |result| metrics.sum("tollgate_signature_uses_total", &[("result", result)]);
    assert_eq!((uses("first"), uses("again"), uses("full")), (1.0, 1.0, 0.0));
}

#[tokio::test]
async fn of_64_copies_sent_at_once_exactly_one_is_accepted() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, protected).await;
    let (account, signer) = signing(&world).await;
    for round in 0..4 {
        let signed = signer.sign(post().field("X-Round", &round.to_string()));
        let mut clients = Vec::new();
        for _ in 0..64 {
            clients.push(world.client().await);
        }
        let calls = clients.into_iter().map(|mut client| {
            let signed = signed.clone();
            tokio::spawn(async move { client.call(&signed).await.status() })
        });
        let mut statuses = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            statuses.push(call.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!((statuses[0], &statuses[1..]), (200, &[401; 63][..]));
    }
    assert_eq!(seller.requests().len(), 4);
    world.settles(&account, 4).await;
}

/// Both ends of the window, by the clock on the wall: the last seconds of a signature's time pass while it is sent.
#[tokio::test]
async fn a_used_signature_is_refused_until_its_date_is_out_of_the_window() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, protected).await;
    let (_, signer) = signing(&world).await;
    let ahead = signer.sign_at(post(), Timestamp::now() + SignedDuration::from_secs(15 * 60 - 2));
    world.call(&ahead).await.expect(200);
    refused(world.call(&ahead).await, 401, "signature_replayed");
    let mut client = world.client().await;
    let old = signer.sign_at(post(), Timestamp::now() - SignedDuration::from_secs(15 * 60 - 2));
    client.call(&old).await.expect(200);
    refused(client.call(&old).await, 401, "signature_replayed");
    let expires = async || {
        let answer = client.call(&old).await;
        assert_ne!(answer.status(), 200);
        (answer.head.get("x-tollgate-error-code") == Some("signature_expired")).then_some(())
    };
    until("the old signature is over", expires).await;
    assert_eq!(seller.requests().len(), 2);
}

#[tokio::test]
async fn a_call_that_is_refused_for_its_quota_has_not_used_its_signature() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, protected).await;
    let buyer = world.buyer(&[]).await;
    let (_, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let signed = signer.sign(post());
    for _ in 0..2 {
        refused_for_quota(world.call(&signed).await);
    }
    world.admin.add_package(&buyer.account, "api-5").await;
    let served = async || (world.call(&signed).await.status() == 200).then_some(());
    until("the package is noticed", served).await;
    refused(world.call(&signed).await, 401, "signature_replayed");
    assert_eq!(seller.requests().len(), 1);
}

/// The limits of an app are `per_second` and such; a refusal tells how long to wait.
fn wait_of(answer: &Answer) -> Duration {
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("rate_limit_exceeded"), "{}", answer.text());
    Duration::from_millis(answer.head.get("retry-after-ms").unwrap().parse().unwrap())
}

#[tokio::test]
async fn whoever_waits_as_a_limit_says_is_let_in_with_the_same_signature_once() {
    let seller = Seller::plain().await;
    let server = Server::start(&[]);
    let limited = |config: &mut Value| product(config, "api")["limits"] = json!({ "each_app": { "per_minute": 60 } });
    let start = async |name| on_redis_with(&server, &seller, name, limited).await;
    let (one, other) = (start("gw-1").await, start("gw-2").await);
    let (account, signer) = signing(&one).await;
    // Before that a gateway takes itself to be alone, and what it tells becomes untrue when it learns of the other.
    for gateway in [&one, &other] {
        until("both know of two gateways", async || {
            (gateway.admin.metrics().await.sum("tollgate_gateways_live", &[]) == 2.0).then_some(())
        })
        .await;
    }
    for number in 0..2 {
        let world = [&one, &other][number];
        let mut served = 0;
        let (refused_one, wait) = loop {
            let next = signer.sign(post().field("X-Number", &format!("{number}-{served}")));
            let answer = world.call(&next).await;
            if answer.status() == 429 {
                break (next, wait_of(&answer));
            }
            answer.expect(200);
            served += 1;
        };
        let told = Instant::now();
        until("the wait that was told is over", async || (told.elapsed() >= wait).then_some(())).await;
        world.call(&refused_one).await.expect(200);
        // Used now, at both; and nobody who sends it again hears anything of limits.
        for gateway in [&one, &other] {
            let again = gateway.call(&refused_one).await;
            assert_eq!((again.head.get("x-ratelimit-limit-requests"), again.head.get("retry-after")), (None, None));
            refused(again, 401, "signature_replayed");
        }
        let metrics = world.admin.metrics().await;
        assert_eq!(metrics.sum("tollgate_signature_uses_total", &[("result", "given_back")]), 1.0);
    }
    one.settles(&account, u64::try_from(seller.requests().len()).unwrap()).await;
}

#[tokio::test]
async fn a_used_signature_that_is_sent_again_takes_no_place_of_a_limit() {
    let seller = Seller::by_hand().await;
    let world = World::with(seller.address, |config| {
        protected(config);
        product(config, "api")["limits"] = json!({ "per_day": 2, "concurrent": 1 });
    })
    .await;
    let (_, signer) = signing(&world).await;
    let (signed, fresh) = (signer.sign(post()), signer.sign(post().field("X-Fresh", "1")));
    let mut client = world.client().await;
    client.send(signed.bytes()).await;
    let mut exchange = seller.next().await;
    // The only place is taken: a used one hears that it is used, a fresh one of the limit.
    for _ in 0..3 {
        refused(world.call(&signed).await, 401, "signature_replayed");
        assert_eq!(wait_of(&world.call(&fresh).await), Duration::from_secs(1));
    }
    exchange.send(plain(200, "{}")).await;
    exchange.done();
    client.answer("POST").await.expect(200);
    client.send(fresh.bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send(plain(200, "{}")).await;
    exchange.done();
    client.answer("POST").await.expect(200);
    refused(world.call(&fresh).await, 401, "signature_replayed");
}

fn refused_for_quota(answer: Answer) {
    assert_eq!(answer.expect(429).head.get("x-tollgate-error-code"), Some("no_package"));
}

#[tokio::test]
async fn without_protection_and_with_other_credentials_the_same_call_can_be_sent_again() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (_, signer) = signing(&world).await;
    let signed = signer.sign(post());
    world.call(&signed).await.expect(200);
    world.call(&signed).await.expect(200);
    let world = World::with(seller.address, protected).await;
    let buyer = world.buyer(&["api-5"]).await;
    for _ in 0..2 {
        world.call(&post().bearer(&buyer.key)).await.expect(200);
    }
}

#[tokio::test]
async fn when_no_more_can_be_remembered_further_signatures_are_refused() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        protected(config);
        config["limits"]["used_signatures"] = json!(256);
    })
    .await;
    let (account, signer) = signing(&world).await;
    let mut client = world.client().await;
    let numbered = |number: u32| signer.sign(post().field("X-Number", &number.to_string()));
    for number in 0..256 {
        client.call(&numbered(number)).await.expect(200);
    }
    let more = numbered(256);
    for _ in 0..2 {
        refused(client.call(&more).await, 503, "replay_unavailable");
    }
    let metrics = world.admin.metrics().await;
    assert_eq!(metrics.sum("tollgate_signature_uses_total", &[("result", "full")]), 2.0);
    assert_eq!(seller.requests().len(), 256);
    world.settles(&account, 256).await;
}

/// A gateway on a Redis server, with a name of its own.
async fn on_redis(server: &Server, seller: &Seller, name: &str) -> World {
    on_redis_with(server, seller, name, |_| {}).await
}

async fn on_redis_with(server: &Server, seller: &Seller, name: &str, change: impl FnOnce(&mut Value)) -> World {
    let mut config = base_config(seller.address);
    protected(&mut config);
    change(&mut config);
    config["gateway"] = json!(name);
    config["store"] = json!({
        "volatile": true,
        "redis": { "url": format!("unix:{}", server.socket().display()), "timeout": "2s" },
    });
    let world = World::on(tempfile::tempdir().unwrap(), config).await;
    // Dates are whole seconds: what is dated in the second in which the server's memory began may be older than that.
    let began = Timestamp::now().as_second();
    let later = async || (Timestamp::now().as_second() > began).then_some(());
    until("a second in which the server remembers begins", later).await;
    world
}

#[tokio::test]
async fn gateways_on_one_server_accept_a_signature_once_among_them() {
    let seller = Seller::plain().await;
    let server = Server::start(&[]);
    let (mut one, other) = (on_redis(&server, &seller, "gw-1").await, on_redis(&server, &seller, "gw-2").await);
    let (account, signer) = signing(&one).await;
    let signed = signer.sign(post());
    one.call(&signed).await.expect(200);
    for gateway in [&one, &other] {
        refused(gateway.call(&signed).await, 401, "signature_replayed");
    }
    let raced = signer.sign(post().field("X-Fresh", "1"));
    let calls = (0..64).map(|number| {
        let (to, raced) = (if number % 2 == 0 { one.data } else { other.data }, raced.clone());
        tokio::spawn(async move { Client::connect(to).await.call(&raced).await.status() })
    });
    let mut accepted = 0;
    for call in calls.collect::<Vec<_>>() {
        let status = call.await.unwrap();
        assert!(matches!(status, 200 | 401), "{status}");
        accepted += u32::from(status == 200);
    }
    assert_eq!(accepted, 1);
    one.crash().await;
    for gateway in [&one, &other] {
        refused(gateway.call(&raced).await, 401, "signature_replayed");
    }
    one.settles(&account, 2).await;
    assert_eq!(seller.requests().len(), 2);
    // The names are keyed hashes: nothing of the signature is in the server.
    let keys: Vec<String> = redis::from_redis_value(server.ask("KEYS *:signatures")).unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        let names: Vec<String> = redis::from_redis_value(server.ask(&format!("ZRANGE {key} 0 -1"))).unwrap();
        let value = &signed.fields().iter().find(|(name, _)| name == "Authorization").unwrap().1;
        assert!(names.iter().all(|name| name.len() == 32 && !value.contains(name)));
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_has_forgotten_accepts_no_old_signature() {
    let seller = Seller::plain().await;
    let mut server = Server::start(&[]);
    let world = on_redis(&server, &seller, "gw-1").await;
    let (account, signer) = signing(&world).await;
    let signed = signer.sign(post());
    world.call(&signed).await.expect(200);
    let kept = signer.sign(post().field("X-Kept", "1"));
    world.settles(&account, 1).await;
    let dump: redis::Value = server.ask("SAVE");
    assert_eq!(dump, redis::Value::Okay);
    server.kill();
    let warm = signer.sign(post().field("X-Warm", "1"));
    // Whichever is noticed first: that signatures cannot be asked for, or that callers cannot.
    let away = world.call(&warm).await.expect(503);
    let code = away.head.get("x-tollgate-error-code");
    assert!(matches!(code, Some("replay_unavailable" | "store_unavailable")), "{}", away.text());
    // It comes back without what it knew of signatures, as after a loss of its tail.
    server.restart();
    for key in redis::from_redis_value::<Vec<String>>(server.ask("KEYS *:signatures")).unwrap() {
        server.ask(&format!("DEL {key}"));
    }
    let admin = world.admin;
    until("the gateway is ready again", async || (admin.get("/readyz").await.status() == 200).then_some(())).await;
    for old in [&signed, &kept, &warm] {
        refused(world.call(old).await, 503, "replay_unavailable");
    }
    let mut number = 0;
    let fresh = async || {
        number += 1;
        let answer = world.call(&signer.sign(post().field("X-Fresh", &number.to_string()))).await;
        assert!(matches!(answer.status(), 200 | 503), "{}", answer.text());
        (answer.status() == 200).then_some(())
    };
    until("what is signed from now on is accepted", fresh).await;
    refused(world.call(&signed).await, 503, "replay_unavailable");
    world.settles(&account, 2).await;
    let reason = text(&world.call(&signed).await.json(), "error_msg");
    assert!(reason.contains("sign the request again"), "{reason}");
}
