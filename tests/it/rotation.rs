//! Keys get new texts under the same id, and the one before works on for a while.

use serde_json::{Value, json};

use crate::harness::admin::{Buyer, text};
use crate::harness::client::Request;
use crate::harness::process::run;
use crate::harness::seller::Seller;
use crate::harness::until;
use crate::harness::world::World;
use crate::keys::files_with;

fn path(buyer: &Buyer) -> String {
    format!("/admin/v1/accounts/{}/keys/{}", buyer.account, buyer.key_id)
}

async fn rotate(world: &World, buyer: &Buyer, terms: Value) -> Value {
    world.admin.call("POST", &format!("{}/rotate", path(buyer)), Some(&terms)).await.expect(200).json()
}

async fn becomes(world: &World, key: &str, status: u16) {
    let asked = std::time::Instant::now();
    let probe = async || (world.call(&Request::chat(key)).await.status() == status).then_some(());
    until(&format!("the key's calls get {status}"), probe).await;
    assert!(asked.elapsed() <= std::time::Duration::from_secs(1), "{:?}; a second is promised", asked.elapsed());
}

#[tokio::test]
async fn the_new_key_works_at_once_and_the_one_before_to_the_end_of_the_overlap() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    let terms = json!({ "description": "kept", "products": ["chat"], "tags": { "team": "a" } });
    world.admin.call("PATCH", &path(&buyer), Some(&terms)).await.expect(200);
    let mut client = world.client().await;
    client.call(&Request::chat(&buyer.key)).await.expect(200);
    let rotated = rotate(&world, &buyer, json!({ "overlap_seconds": 2 })).await;
    let begun = std::time::Instant::now();
    let key = text(&rotated, "key");
    assert!(key.starts_with("sk-tg-") && key != buyer.key);
    assert_eq!((text(&rotated, "id"), &rotated["products"]), (buyer.key_id.clone(), &json!(["chat"])));
    assert_eq!((&rotated["description"], &rotated["tags"]), (&json!("kept"), &json!({ "team": "a" })));
    assert_eq!(rotated["former"].as_array().unwrap().len(), 1, "{rotated}");
    world.call(&Request::chat(&key)).await.expect(200);
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    let ended = async || (client.call(&Request::chat(&buyer.key)).await.status() == 401).then_some(());
    until("the overlap ends", ended).await;
    assert!(begun.elapsed() >= std::time::Duration::from_millis(1_900), "{:?}", begun.elapsed());
    assert!(begun.elapsed() <= std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    let answer = world.call(&Request::chat(&buyer.key)).await.expect(401);
    assert!(answer.message().contains("replaced by a newer one"), "{}", answer.message());
    let listed = world.admin.get(&format!("/admin/v1/accounts/{}/keys", buyer.account)).await.expect(200).json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
    assert_eq!(listed["keys"][0].get("former"), None, "{listed}");
    world.crash().await;
    world.call(&Request::chat(&key)).await.expect(200);
    world.call(&Request::chat(&buyer.key)).await.expect(401);
    assert_eq!(world.stop().await.code, Some(0));
    assert!(world.usage().iter().all(|record| record["key"] == json!(buyer.key_id)), "{:?}", world.usage());
    assert_eq!(files_with(world.dir.path(), &key[10..key.len() - 6]), Vec::<String>::new());
    assert!(!world.gateway.said().join("\n").contains(&key[10..key.len() - 6]));
}

#[tokio::test]
async fn without_an_overlap_the_key_before_is_refused_within_a_second() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    let key = text(&rotate(&world, &buyer, json!({})).await, "key");
    becomes(&world, &key, 200).await;
    becomes(&world, &buyer.key, 401).await;
    world.admin.call("DELETE", &path(&buyer), None).await.expect(204);
    becomes(&world, &key, 401).await;
}

#[tokio::test]
async fn a_rotation_takes_no_place_among_the_twenty_keys_and_reaches_all_texts() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    let keys = format!("/admin/v1/accounts/{}/keys", buyer.account);
    for _ in 1..20 {
        world.admin.make(&keys, &json!({})).await;
    }
    let first = text(&rotate(&world, &buyer, json!({ "overlap_seconds": 600 })).await, "key");
    let second = text(&rotate(&world, &buyer, json!({ "overlap_seconds": 600 })).await, "key");
    for key in [&buyer.key, &first, &second] {
        becomes(&world, key, 200).await;
    }
    world.admin.call("PATCH", &path(&buyer), Some(&json!({ "disabled": true }))).await.expect(200);
    for key in [&buyer.key, &first, &second] {
        becomes(&world, key, 401).await;
    }
    world.admin.call("DELETE", &path(&buyer), None).await.expect(204);
    world.admin.make(&keys, &json!({})).await;
    let rotation = format!("{}/rotate", path(&buyer));
    world.admin.call("POST", &rotation, Some(&json!({}))).await.expect(404);
    let too_long = world.admin.call("POST", &rotation, Some(&json!({ "overlap_seconds": 2_592_001 }))).await;
    assert!(too_long.expect(422).text().contains("2592000"));
}

#[tokio::test]
async fn the_command_line_prints_the_new_key_alone() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    let token = world.dir.path().join("token");
    std::fs::write(&token, crate::harness::admin::TOKEN).unwrap();
    let admin = format!("http://{}", world.admin.address);
    let access = ["--admin", admin.as_str(), "--admin-token-file", token.to_str().unwrap()];
    let rotate = ["keys", "rotate", buyer.account.as_str(), buyer.key_id.as_str(), "--overlap-seconds", "600"];
    let (code, out, said) = run(&[&rotate[..], &access[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("600 s more"), "{said}");
    world.call(&Request::chat(out.trim_end())).await.expect(200);
    world.call(&Request::chat(&buyer.key)).await.expect(200);
}
