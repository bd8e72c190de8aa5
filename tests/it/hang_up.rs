//! A client that goes away stops its seller's work, whatever it has sent before that nobody has read yet.

use std::time::{Duration, Instant};

use tokio::io::Interest;

use crate::harness::client::Request;
use crate::harness::seller::{Exchange, SSE_HEAD, Seller, chunk};
use crate::harness::world::World;
use crate::harness::{until, within};

/// How long the gateway may take to notice. The promise is 100 ms; machines that run tests are busy.
const NOTICED_WITHIN: Duration = Duration::from_millis(500);

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    Closing,
    Resetting,
}

/// The gateway ends the seller's connection soon after the client has left.
async fn is_noticed(mut exchange: Exchange, left: Instant, shown: &str) {
    let (_, seen) = exchange.gateway_ends().await;
    let took = seen.duration_since(left);
    assert!(took < NOTICED_WITHIN, "{shown}: noticed after {took:?}");
}

#[tokio::test]
async fn a_client_that_has_sent_more_than_its_request_is_missed_when_it_goes() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let request = Request::stream(&buyer.key).bytes();
    let large = Request::post("/api/x").body(&vec![b'y'; 100_000]).bytes();
    for (what, behind) in [
        ("a request", request.clone()),
        ("much more than is read", large),
        ("no HTTP", b"\0garbage\r\n\r\n".to_vec()),
        ("an empty line", b"\r\n".to_vec()),
    ] {
        for answered in [false, true] {
            for leaves in [Leaves::Closing, Leaves::Resetting] {
                let shown = format!("{what} behind, answered: {answered}, {leaves:?}");
                let mut client = world.client().await;
                client.send([&request[..], &behind].concat()).await;
                let mut exchange = seller.next().await;
                if answered {
                    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
                    client.head().await;
                    client.chunked(9).await;
                }
                let left = Instant::now();
                match leaves {
                    Leaves::Closing => drop(client),
                    Leaves::Resetting => client.wire.reset(),
                }
                is_noticed(exchange, left, &shown).await;
            }
        }
    }
    // What had a head has used its call, the others have not.
    world.charged(8).await;
}

#[tokio::test]
async fn an_upload_that_the_seller_does_not_read_ends_with_its_client() {
    let seller = Seller::by_hand_from_the_head().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = world.client().await;
    client.send(Request::post("/api/up").bearer(&buyer.key).field("Content-Length", "1000000000").bytes()).await;
    let exchange = seller.next().await;
    // Until nothing moves any more: what is sent then lies unread before the gateway.
    let piece = vec![b'u'; 1 << 20];
    while tokio::time::timeout(Duration::from_millis(300), client.wire.send(&piece)).await.is_ok() {}
    client.wire.reset();
    let gone = async || {
        let metrics = world.admin.metrics().await;
        (metrics.sum("tollgate_call_endings_total", &[("ending", "client_gone")]) == 1.0).then_some(())
    };
    within("the call ends", until("the ending is counted", gone)).await;
    // Its seller hears of it though it has not read what lies before it.
    let heard = async || exchange.wire.stream().ready(Interest::READABLE | Interest::ERROR).await.unwrap();
    let reset = async || heard().await.is_error().then_some(());
    within("the seller hears of it", until("the connection is reset", reset)).await;
    world.charged(0).await;
}

#[tokio::test]
async fn requests_behind_one_another_are_served_while_their_client_stays() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let request = Request::stream(&buyer.key).bytes();
    let mut client = world.client().await;
    client.send([&request[..], &request].concat()).await;
    for _ in 0..2 {
        let mut exchange = seller.next().await;
        // Longer than the gateway takes to look whether the client is there.
        assert!(tokio::time::timeout(NOTICED_WITHIN, exchange.wire.end()).await.is_err());
        exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n"), b"0\r\n\r\n"].concat()).await;
        exchange.done();
        assert_eq!(client.answer("POST").await.expect(200).text(), "data: 1\n\n");
    }
    world.settles(&buyer.account, 2).await;
}
