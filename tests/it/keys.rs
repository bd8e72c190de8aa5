//! API keys: shown once, bounded in number, refused when they should be, and kept only as hashes.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::admin::Buyer;
use crate::harness::client::{Answer, Request};
use crate::harness::seller::Seller;
use crate::harness::until;
use crate::harness::world::World;

async fn refused(world: &World, key: &str) -> Answer {
    world.call(&Request::chat(key)).await.expect(401)
}

async fn set(world: &World, buyer: &Buyer, change: Value) {
    let path = format!("/admin/v1/accounts/{}/keys/{}", buyer.account, buyer.key_id);
    let answer = world.admin.call("PATCH", &path, Some(&change)).await;
    assert!((200..300).contains(&answer.status()), "{}", answer.text());
}

async fn becomes(world: &World, key: &str, status: u16) {
    let asked = std::time::Instant::now();
    let probe = async || (world.call(&Request::chat(key)).await.status() == status).then_some(());
    until(&format!("the key's calls get {status}"), probe).await;
    let took = asked.elapsed();
    assert!(took <= std::time::Duration::from_secs(1), "it took {took:?}; a second is promised");
}

pub(crate) fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if memchr::memmem::find(&std::fs::read(&path).unwrap(), text.as_bytes()).is_some() {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_only_as_a_hash() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    assert!(buyer.key.starts_with("sk-tg-"));
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    let account = format!("/admin/v1/accounts/{}", buyer.account);
    for path in [account.clone(), format!("{account}/keys"), format!("{account}/keys/{}", buyer.key_id)] {
        let shown = world.admin.get(&path).await;
        assert!(!shown.text().contains(&buyer.key), "{path}");
    }
    let listed = world.admin.get(&format!("{account}/keys")).await.expect(200).text();
    assert!(listed.contains(&buyer.key_id), "{listed}");
    assert_eq!(world.stop().await.code, Some(0));
    // The middle of it alone would do: nothing may hold even that.
    let middle = &buyer.key[10..buyer.key.len() - 6];
    assert_eq!(files_with(world.dir.path(), middle), Vec::<String>::new());
    assert!(!world.gateway.said().join("\n").contains(middle));
}

#[tokio::test]
async fn an_account_has_twenty_keys_and_no_more() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&[]).await;
    let keys = format!("/admin/v1/accounts/{}/keys", buyer.account);
    for _ in 1..20 {
        world.admin.make(&keys, &json!({})).await;
    }
    let refused = world.admin.call("POST", &keys, Some(&json!({}))).await;
    assert!((400..500).contains(&refused.status()), "{} {}", refused.status(), refused.text());
    assert!(refused.text().contains("20"), "{}", refused.text());
    let gone = world.admin.call("DELETE", &format!("{keys}/{}", buyer.key_id), None).await;
    assert!((200..300).contains(&gone.status()), "{}", gone.text());
    world.admin.make(&keys, &json!({})).await;
}

#[tokio::test]
async fn what_is_no_key_or_no_known_key_is_refused_with_401_and_never_forwarded() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let typo = {
        let mut letters: Vec<char> = buyer.key.chars().collect();
        letters[12] = if letters[12] == 'a' { 'b' } else { 'a' };
        letters.into_iter().collect::<String>()
    };
    let answer = refused(&world, &typo).await;
    assert!(answer.message().contains("typo"), "{}", answer.message());
    assert_eq!(answer.code(), "invalid_api_key");
    // Well-formed, with the right checksum, never issued.
    refused(&world, "sk-tg-0123456789ABCDEFGHIJKLMNOPQRST04f25W").await;
    refused(&world, "sk-proj-abcdef").await;
    refused(&world, &buyer.key[..buyer.key.len() - 1]).await;
    let chat = Request::post("/v1/infers/chat/v1/chat/completions").json(r#"{"model":"m"}"#);
    for value in [None, Some("Bearer"), Some("Bearer "), Some("Basic dTpw"), Some(buyer.key.as_str())] {
        let request = value.map_or(chat.clone(), |value| chat.clone().field("Authorization", value));
        world.call(&request).await.expect(401);
    }
    let lower = chat.field("Authorization", &format!("bearer {}", buyer.key));
    world.call(&lower).await.expect(200);
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn disabling_and_enabling_take_effect_within_a_second() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    set(&world, &buyer, json!({ "disabled": true })).await;
    becomes(&world, &buyer.key, 401).await;
    set(&world, &buyer, json!({ "disabled": false })).await;
    becomes(&world, &buyer.key, 200).await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_a_second_and_for_ever() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    let path = format!("/admin/v1/accounts/{}/keys/{}", buyer.account, buyer.key_id);
    let answer = world.admin.call("DELETE", &path, None).await;
    assert!((200..300).contains(&answer.status()), "{}", answer.text());
    becomes(&world, &buyer.key, 401).await;
    world.crash().await;
    refused(&world, &buyer.key).await;
}

#[tokio::test]
async fn a_connection_that_called_before_does_not_keep_a_key_alive() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (first, second) = (world.buyer(&["chat-1000"]).await, world.buyer(&["chat-1000"]).await);
    let mut client = world.client().await;
    for buyer in [&first, &second, &first, &first] {
        client.call(&Request::chat(&buyer.key)).await.expect(200);
    }
    // Whose calls these were, though one connection made them all.
    world.settles(&first.account, 3).await;
    world.settles(&second.account, 1).await;
    set(&world, &first, json!({ "disabled": true })).await;
    let asked = std::time::Instant::now();
    while client.call(&Request::chat(&first.key)).await.status() == 200 {
        assert!(asked.elapsed() <= std::time::Duration::from_secs(1), "a second is promised");
    }
    client.call(&Request::chat(&second.key)).await.expect(200);
    client.call(&Request::chat(&first.key)).await.expect(401);
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1_500);
    let (_, key) = world.admin.add_key(&buyer.account, &json!({ "expires_at": end.to_string() })).await;
    world.call(&Request::chat(&key)).await.expect(200);
    let ended = async || {
        let status = world.call(&Request::chat(&key)).await.status();
        let now = jiff::Timestamp::now();
        assert!(
            status == 401 || (status == 200 && now <= end + jiff::SignedDuration::from_secs(1)),
            "{status} at {now}"
        );
        (status == 401).then_some(now)
    };
    assert!(until("the key expires", ended).await >= end);
    let keys = format!("/admin/v1/accounts/{}/keys", buyer.account);
    let past = world.admin.call("POST", &keys, Some(&json!({ "expires_at": "2020-01-01T00:00:00Z" }))).await;
    assert!((400..500).contains(&past.status()), "{}", past.text());
}

#[tokio::test]
async fn a_key_works_again_after_a_crash() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    world.crash().await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
}
