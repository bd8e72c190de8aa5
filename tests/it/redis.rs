//! A gateway whose accounts are on a Redis server: what it does when the server is away, unfit, or dies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::admin::text;
use crate::harness::client::{Client, Request};
use crate::harness::process::{Gateway, run};
use crate::harness::redis::{Server, free_port};
use crate::harness::seller::Seller;
use crate::harness::signer::Signer;
use crate::harness::until;
use crate::harness::world::{World, base_config};

fn on(server: &Server) -> impl FnOnce(&mut Value) {
    let url = format!("unix:{}", server.socket().display());
    move |config| config["store"] = json!({ "volatile": true, "redis": { "url": url, "timeout": "2s" } })
}

#[tokio::test]
async fn accounts_and_keys_live_on_the_server() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let world = World::with(seller.address, on(&server)).await;
    let buyer = world.buyer(&["chat-5"]).await;
    for _ in 0..5 {
        assert_eq!(world.call(&Request::chat(&buyer.key)).await.status(), 200);
    }
    assert_eq!(world.call(&Request::chat(&buyer.key)).await.status(), 429);
    world.settles(&buyer.account, 5).await;
    assert!(!world.data_dir().join("store.sqlite3").exists());
    let keys: Vec<String> = redis::from_redis_value(server.ask("KEYS tollgate:*:account:*")).unwrap();
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn a_server_that_restarts_keeps_what_was_bought_and_used() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let seller = Seller::plain().await;
    let world = World::with(seller.address, on(&server)).await;
    let buyer = world.buyer(&["chat-50"]).await;
    assert_eq!(world.call(&Request::chat(&buyer.key)).await.status(), 200);
    server.restart();
    let served = async || (world.call(&Request::chat(&buyer.key)).await.status() == 200).then_some(());
    until("calls are served again", served).await;
    // On a lease at hand, perhaps: the gateway may not have reached the server again yet.
    let books = format!("/admin/v1/accounts/{}/packages", buyer.account);
    until("the books are read again", async || (world.admin.get(&books).await.status() == 200).then_some(())).await;
    world.settles(&buyer.account, 2).await;
}

#[tokio::test]
async fn a_server_that_is_away_at_start_is_waited_for() {
    let mut server = Server::start(&[]);
    server.kill();
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = base_config(seller.address);
    on(&server)(&mut config);
    let port = free_port();
    config["listeners"]["admin"] = json!(format!("127.0.0.1:{port}"));
    let path = dir.path().join("tollgate.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut gateway = Gateway::serve(&path);
    gateway.says("the gateway waits for it").await;
    let admin = crate::harness::admin::Admin { address: ([127, 0, 0, 1], port).into() };
    let ready = admin.get("/readyz").await;
    assert_eq!(
        (ready.status(), ready.text()),
        (503, r#"{"ready":false,"reasons":["starting","store_away"]}"#.to_owned())
    );
    assert_eq!(admin.get("/livez").await.status(), 200);
    server.restart();
    gateway.listening().await;
    until("the gateway is ready", async || (admin.get("/readyz").await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn a_document_that_is_broken_when_a_killed_gateway_starts_again_concerns_its_account_alone() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, on(&server)).await;
    let (one, other) = (world.buyer(&["chat-50"]).await, world.buyer(&["chat-50"]).await);
    for buyer in [&one, &other] {
        assert_eq!(world.call(&Request::chat(&buyer.key)).await.status(), 200);
    }
    world.gateway.kill().await;
    // The pool's document in its bucket's hash.
    let found: Vec<String> =
        redis::from_redis_value(server.ask(&format!("KEYS tollgate:*:pools:{}", one.account))).unwrap();
    let pools = &found[0];
    let whole: String = redis::from_redis_value(server.ask(&format!("HGET {pools} chat"))).unwrap();
    let set = |field: &str, to: &str| {
        let _: i64 = redis::cmd("HSET").arg(pools).arg(field).arg(to).query(&mut server.connection()).unwrap();
    };
    set("chat", "broken");
    world.restart().await;
    assert_eq!(world.call(&Request::chat(&other.key)).await.status(), 200);
    world.settles(&other.account, 2).await;
    assert_eq!(world.call(&Request::chat(&one.key)).await.status(), 503);
    // Once it is mended, nothing is lost.
    set("chat", &whole);
    world.crash().await;
    assert_eq!(world.call(&Request::chat(&one.key)).await.status(), 200);
    world.settles(&one.account, 2).await;
}

/// Another gateway on the same server.
async fn second(server: &Server, seller: &Seller) -> World {
    let there = on(server);
    let named = |config: &mut Value| {
        there(config);
        config["gateway"] = json!("gw-2");
    };
    World::with(seller.address, named).await
}

#[tokio::test]
async fn an_upgrade_may_overlap_on_one_data_directory() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let mut old = World::with(seller.address, on(&server)).await;
    let buyer = old.buyer(&["chat-5"]).await;
    let request = Request::chat(&buyer.key);
    assert_eq!(old.call(&request).await.status(), 200);
    // The new process has the same file, and ports of its own.
    let mut new = Gateway::serve(&old.config_path());
    let (data, admin) = new.listening().await;
    let admin = crate::harness::admin::Admin { address: admin };
    until("the new one is ready", async || (admin.get("/readyz").await.status() == 200).then_some(())).await;
    assert_eq!(old.call(&request).await.status(), 200);
    old.stop().await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(Client::connect(data).await.call(&request).await.status(), expected);
    }
}

#[tokio::test]
async fn two_gateways_sell_one_package_exactly() {
    const BOUGHT: usize = 50;
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let worlds = [World::with(seller.address, on(&server)).await, second(&server, &seller).await];
    let buyer = worlds[0].buyer(&["chat-50"]).await;
    let request = Request::chat(&buyer.key);
    let call = async |number: usize| worlds[number % 2].call(&request).await.status();
    let answers = futures_util::future::join_all((0..2 * BOUGHT).map(call)).await;
    let sold = answers.iter().filter(|status| **status == 200).count();
    assert!(sold <= BOUGHT, "{sold}");
    // What one gateway still holds is given back to the other: nothing is left unsold.
    let mut more = 0;
    let exhausted = async || {
        let statuses = [call(0).await, call(1).await];
        more += statuses.iter().filter(|status| **status == 200).count();
        statuses.iter().all(|status| *status == 429).then_some(())
    };
    until("both say that it is used up", exhausted).await;
    assert_eq!(sold + more, BOUGHT);
    worlds[1].settles(&buyer.account, BOUGHT as u64).await;
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_at_any_gateway() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let worlds = [World::with(seller.address, on(&server)).await, second(&server, &seller).await];
    let buyer = worlds[0].buyer(&["chat-50"]).await;
    let request = Request::chat(&buyer.key);
    for world in &worlds {
        assert_eq!(world.call(&request).await.status(), 200);
    }
    let keys = worlds[0].admin.get(&format!("/admin/v1/accounts/{}/keys", buyer.account)).await.json();
    let key = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/admin/v1/accounts/{}/keys/{key}", buyer.account);
    let revoked = worlds[0].admin.call("DELETE", &path, None).await;
    assert!(revoked.status() < 300, "{}", revoked.text());
    let at = std::time::Instant::now();
    assert_eq!(worlds[0].call(&request).await.status(), 401);
    until("the other gateway has heard", async || (worlds[1].call(&request).await.status() == 401).then_some(())).await;
    assert!(at.elapsed() < std::time::Duration::from_secs(1), "{:?}", at.elapsed());
}

/// Runs a command that must succeed, and gives its output.
fn good(arguments: &[&str]) -> String {
    let (code, out, said) = run(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    out
}

/// What an app gains and loses at one gateway holds at the other within a second, whether its AppKey was known there,
/// unknown, or never asked for.
#[tokio::test]
async fn an_app_that_changes_at_one_gateway_changes_at_all() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let one = World::with(seller.address, on(&server)).await;
    let other = second(&server, &seller).await;
    let buyer = one.buyer(&["api-1000"]).await;
    let signer = Signer { app_key: "an-old-app-key".into(), secret: "an-old-app-secret".into() };
    let becomes = async |status: u16| {
        let asked = Instant::now();
        for world in [&other, &one] {
            let call = async || world.call(&signer.sign(Request::get("/api/x"))).await.status();
            until("the change is seen", async || (call().await == status).then_some(())).await;
        }
        assert!(asked.elapsed() < Duration::from_secs(1), "a second is promised");
    };
    becomes(401).await;
    let apps = format!("/admin/v1/accounts/{}/apps", buyer.account);
    let brought = json!({ "name": "old", "app_key": signer.app_key, "app_secret": signer.secret, "products": ["api"] });
    let made = one.admin.make(&apps, &brought).await;
    becomes(200).await;
    let app = format!("{apps}/{}", text(&made, "id"));
    one.admin.call("DELETE", &format!("{app}/products/api"), None).await.expect(200);
    becomes(401).await;
    other.admin.call("PUT", &format!("{app}/products/api"), None).await.expect(200);
    becomes(200).await;
    other.admin.call("DELETE", &app, None).await.expect(204);
    becomes(401).await;
    // Its AppKey is free again.
    other.admin.make(&apps, &brought).await;
    becomes(200).await;
}

#[tokio::test]
async fn an_installation_moves_from_the_embedded_store_to_a_server_and_comes_back_from_a_backup() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    for _ in 0..3 {
        assert_eq!(world.call(&Request::chat(&buyer.key)).await.status(), 200);
    }
    world.settles(&buyer.account, 3).await;
    world.stop().await;
    world.rewrite(on(&server));
    let config = world.config_path();
    let config = config.to_str().unwrap();

    assert!(good(&["store", "migrate", "--config", config]).starts_with("1 accounts: 1 written, 0 were there"));
    assert!(
        world.data_dir().join("store.sqlite3.migrated").exists() && !world.data_dir().join("store.sqlite3").exists()
    );
    assert!(good(&["store", "migrate", "--config", config]).starts_with("1 accounts: 0 written, 1 were there"));
    world.restart().await;
    assert_eq!(world.settled(&buyer.account).await, 3);

    // The drill: everything on the server is lost, the backup brings it back.
    let backup = world.dir.path().join("backup.jsonl");
    let backup = backup.to_str().unwrap();
    good(&["store", "backup", "--config", config, backup]);
    let packages = world.admin.get(&format!("/admin/v1/accounts/{}/packages", buyer.account)).await.text();
    world.stop().await;
    server.ask("FLUSHALL");
    assert!(good(&["store", "restore", "--config", config, backup]).starts_with("1 accounts: 1 written"));
    world.restart().await;
    assert_eq!(world.admin.get(&format!("/admin/v1/accounts/{}/packages", buyer.account)).await.text(), packages);

    let text = std::fs::read_to_string(backup).unwrap();
    std::fs::write(backup, &text[..text.len() - 10]).unwrap();
    let (code, _, said) = run(&["store", "restore", "--config", config, backup]);
    assert!(code == Some(64) && said.contains("cut off") && said.contains(backup), "{said}");
}

/// Starts a gateway that must not start.
async fn refused(server: &Server, redis: Value, volatile: bool, code: i32, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = base_config(([127, 0, 0, 1], 1).into());
    on(server)(&mut config);
    config["store"]["volatile"] = json!(volatile);
    for (key, value) in redis.as_object().unwrap() {
        config["store"]["redis"][key] = value.clone();
    }
    let path = dir.path().join("tollgate.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let (ended, _, said) = run(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(ended, Some(code), "{said}");
    assert!(said.contains(words) && !said.contains("hunter2"), "{words}: {said}");
}

#[tokio::test]
async fn a_server_that_cannot_be_used_ends_the_start() {
    let server = Server::start(&[]);
    refused(&server, json!({}), false, 69, "store.volatile: true").await;
    let wrong = json!({ "username": "tollgate", "password": "hunter2" });
    refused(&server, wrong, true, 78, "does not let the user `tollgate` in").await;
    server.ask("CONFIG SET maxmemory-policy allkeys-lru");
    refused(&server, json!({}), true, 69, "noeviction").await;
}
