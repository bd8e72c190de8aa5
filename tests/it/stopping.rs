//! The end of a gateway whose calls, or whose reader of the access log, do not end.

use std::process::Command;

use serde_json::json;

use crate::harness::client::Request;
use crate::harness::seller::{SSE_HEAD, Seller, chunk};
use crate::harness::world::World;

#[tokio::test]
async fn a_call_that_the_end_cuts_off_is_interrupted_and_not_given_up_by_its_client() {
    let seller = Seller::by_hand().await;
    let mut world = World::with(seller.address, |config| config["drain_timeout"] = json!("500ms")).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    client.head().await;
    client.chunked(9).await;
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.said);
    let endings: Vec<_> = world.usage().into_iter().map(|record| record["ending"].clone()).collect();
    assert_eq!(endings, [json!("interrupted")]);
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
