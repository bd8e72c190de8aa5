//! The end of a gateway: what was sent before it is answered, and what has asked for nothing does not hold it up.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::client::Request;
use crate::harness::seller::Seller;
use crate::harness::tls::Files;
use crate::harness::wire::Wire;
use crate::harness::world::World;

#[tokio::test]
async fn what_was_sent_on_new_connections_before_the_end_is_answered() {
    const ROUNDS: usize = 5;
    const CLIENTS: usize = 20;
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1000"]).await;
    let request = Request::chat(&buyer.key).bytes();
    for _ in 0..ROUNDS {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(world.client().await);
        }
        for client in &mut clients {
            client.send(&request).await;
        }
        world.gateway.signal(Signal::TERM);
        for mut client in clients {
            client.answer("POST").await.expect(200);
        }
        assert_eq!(world.gateway.exit().await.code, Some(0));
        world.restart().await;
    }
    world.settles(&buyer.account, (ROUNDS * CLIENTS) as u64).await;
}

/// Ends a gateway that has a connection on which only this was sent.
async fn ends_beside(listener: Value, sent: &[u8]) {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| {
        config["listeners"]["data"] = listener;
        config["limits"]["head_timeout"] = json!("600s");
        config["drain_timeout"] = json!("600s");
    })
    .await;
    let mut client = Wire::connect(world.data).await.unwrap();
    client.send(sent).await.unwrap();
    assert_eq!(world.stop().await.code, Some(0), "beside a connection that has sent {sent:?}");
}

#[tokio::test]
async fn a_connection_that_has_asked_for_nothing_does_not_delay_the_end_whatever_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(&dir.path().join("pki"), "localhost");
    let tls = json!({ "address": "127.0.0.1:0", "tls": { "certificates": Files::listed(&[&files]) } });
    let h2c = json!({ "address": "127.0.0.1:0", "h2c": true });
    for (listener, begun) in [(json!("127.0.0.1:0"), &b"GET"[..]), (h2c, b"PRI * H"), (tls, &[22, 3, 1, 0, 200, 1])] {
        ends_beside(listener.clone(), b"").await;
        ends_beside(listener, begun).await;
    }
}

#[tokio::test]
async fn a_stalled_reader_of_the_access_log_does_not_hold_up_the_end() {
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both: whoever writes finds a reader, and the reader never reads.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut world = World::with(seller.address, |config| {
        config["drain_timeout"] = json!("1s");
        config["log"]["access"] = json!(pipe);
        config["workers"] = json!(1);
    })
    .await;
    let buyer = world.buyer(&["chat-1000000"]).await;
    let (mut client, request) = (world.client().await, Request::chat(&buyer.key));
    // More than a pipe takes.
    for _ in 0..500 {
        client.call(&request).await.expect(200);
    }
    drop(client);
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.said);
    assert!(exit.said.contains("the access log was not written to its end"), "{}", exit.said);
    drop(reader);
}
