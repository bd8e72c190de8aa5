//! The end of a gateway whose reader of the access log has stalled.

use std::process::Command;

use serde_json::json;

use crate::harness::client::Request;
use crate::harness::seller::Seller;
use crate::harness::world::World;

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
