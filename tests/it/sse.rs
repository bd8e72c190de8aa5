//! Event streams: bytes untouched, nothing held back, hang-ups noticed at once, slow readers slow the seller down.

use std::time::{Duration, Instant};

use crate::harness::client::{Client, Request};
use crate::harness::seller::{Exchange, LAST_CHUNK, Reply, SSE_HEAD, Seller, chunk};
use crate::harness::wire::End;
use crate::harness::world::World;
use crate::harness::{until, within};

/// The seller must be told of a hang-up within this time.
const CANCEL_MAX: Duration = Duration::from_millis(100);
/// How often that is tried: on a busy machine one try may be late by no fault of the gateway's.
const CANCEL_TRIES: u64 = 5;
/// A seller that could send nothing for this long is taken to be held back.
const HELD_BACK_AFTER: Duration = Duration::from_millis(700);

const EVENTS: &str = "\u{feff}data: {\"choices\":[{\"delta\":{\"content\":\"h\u{e4}\u{4f60}\u{1f600}\"}}]}\r\n\r\n\
    : comment\r\rid: 7\nevent: x\ndata:one\ndata: two\n\ndata: {\"usage\":{\"total_tokens\":3}}\n\ndata: [DONE]\n\n";

/// A stream whose head both sides have.
async fn open_stream(world: &World, seller: &Seller, key: &str) -> (Client, Exchange) {
    let mut client = world.client().await;
    client.send(Request::stream(key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send(SSE_HEAD).await;
    assert_eq!(client.head().await.status(), 200);
    (client, exchange)
}

async fn passes_whole(pieces: Vec<Vec<u8>>) {
    let chunks: Vec<u8> = pieces.iter().flat_map(chunk).collect();
    let reply = [SSE_HEAD.as_bytes(), &chunks, LAST_CHUNK.as_bytes()].concat();
    let seller = Seller::always(Reply::bytes(reply)).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    let answer = world.call(&Request::stream(&buyer.key)).await.expect(200);
    assert_eq!(answer.body, pieces.concat());
    assert_eq!(answer.cut, None);
    assert_eq!(answer.head.get("content-type"), Some("text/event-stream"));
    assert_eq!(answer.head.get("content-encoding"), None);
}

#[tokio::test]
async fn a_stream_in_chunks_of_one_byte_passes_unchanged() {
    passes_whole(EVENTS.bytes().map(|byte| vec![byte]).collect()).await;
}

#[tokio::test]
async fn a_stream_in_one_chunk_with_a_line_of_four_mebibytes_passes_unchanged() {
    let long = format!("data: {}\n\n{EVENTS}", "\u{4f60}".repeat((4 << 20) / 3));
    passes_whole(vec![long.into_bytes()]).await;
}

#[tokio::test]
async fn an_event_arrives_before_the_next_is_sent_however_it_is_cut() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    let (mut client, mut exchange) = open_stream(&world, &seller, &buyer.key).await;
    // Cuts inside a code point, a line end and the two line ends of an event.
    let bytes = EVENTS.as_bytes();
    for piece in [&bytes[..2], &bytes[2..48], &bytes[48..60], &bytes[60..61], &bytes[61..]] {
        exchange.send(chunk(piece)).await;
        assert_eq!(client.chunked(piece.len()).await, piece);
    }
    exchange.send(LAST_CHUNK).await;
    exchange.done();
    assert_eq!(client.chunk().await, Ok(None));
}

#[tokio::test]
async fn half_a_chunk_is_not_held_back_either() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    let (mut client, mut exchange) = open_stream(&world, &seller, &buyer.key).await;
    exchange.send("100\r\ndata: first\n\n").await;
    assert_eq!(client.chunked(13).await, b"data: first\n\n");
}

/// One of a few tries must be in time; returns how many there were.
async fn is_cancelled_in_time(mut one: impl AsyncFnMut() -> Duration) -> u64 {
    let mut took = Vec::new();
    for tries in 1..=CANCEL_TRIES {
        took.push(one().await);
        if took.last() <= Some(&CANCEL_MAX) {
            return tries;
        }
    }
    panic!("{took:?} after the client left");
}

#[tokio::test]
async fn a_hang_up_in_the_stream_reaches_the_seller_within_100_ms() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let mut calls = 0;
    for reset in [false, true] {
        calls += is_cancelled_in_time(async || {
            let (mut client, mut exchange) = open_stream(&world, &seller, &buyer.key).await;
            exchange.send(chunk("data: 1\n\n")).await;
            client.chunked(9).await;
            let left = Instant::now();
            if reset {
                client.wire.reset()
            } else {
                drop(client)
            }
            exchange.gateway_ends().await.1 - left
        })
        .await;
    }
    world.settles(&buyer.account, calls).await;
}

#[tokio::test]
async fn a_hang_up_before_the_head_reaches_the_seller_within_100_ms_and_costs_nothing() {
    let seller = Seller::by_hand().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    for request in [Request::stream(&buyer.key), Request::chat(&buyer.key)] {
        is_cancelled_in_time(async || {
            let mut client = world.client().await;
            client.send(request.bytes()).await;
            let mut exchange = seller.next().await;
            let left = Instant::now();
            drop(client);
            let (_, at) = exchange.gateway_ends().await;
            world.quiet().await;
            at - left
        })
        .await;
    }
    // The only unit is still there to be sold; a seller that breaks off before any event gives it back.
    let (mut client, exchange) = open_stream(&world, &seller, &buyer.key).await;
    exchange.reset();
    assert!(client.chunk().await.is_err());
    drop(client);
    world.charged(0).await;
    world.stop().await;
    assert!(world.usage().iter().all(|record| record["units"] == 0));
}

#[tokio::test]
async fn a_slow_reader_holds_the_seller_back_and_little_memory() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    let (mut client, mut exchange) = open_stream(&world, &seller, &buyer.key).await;
    let before = world.gateway.resident_bytes();
    let piece = chunk("x".repeat(64 << 10));
    let mut sent = 0_usize;
    // What the kernel's own buffers take is not the gateway's: far less than this.
    while sent < 256 << 20 {
        match tokio::time::timeout(HELD_BACK_AFTER, exchange.wire.send(&piece)).await {
            Ok(done) => done.unwrap(),
            Err(_) => break,
        }
        sent += piece.len();
    }
    assert!(sent < 64 << 20, "nobody reads, and the seller could send {sent} bytes");
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 2 << 20, "the gateway's memory grew by {grown} bytes");
    // Once the client reads, everything flows again.
    let wanted = (sent / piece.len()) * (64 << 10);
    let read = client.chunked(wanted).await; // with the beginning of the piece that was held back
    assert!(read.len() >= wanted && read.iter().all(|byte| *byte == b'x'), "{} of {wanted}", read.len());
}

#[tokio::test]
async fn a_stream_that_breaks_is_aborted_never_ended() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    for half in ["data: 1\n\n", "data: {\"hal"] {
        let (mut client, mut exchange) = open_stream(&world, &seller, &buyer.key).await;
        exchange.send(chunk(half)).await;
        assert_eq!(client.chunked(half.len()).await, half.as_bytes());
        exchange.reset();
        let rest = within("the stream's end", client.wire.some()).await;
        let ended = match rest {
            Err(end) => end,
            // An error event may come first; the proper end of a chunked body may not.
            Ok(bytes) => {
                let text = String::from_utf8(bytes).unwrap();
                assert!(!text.contains("0\r\n\r\n"), "{text}");
                client.wire.end().await
            }
        };
        assert!(matches!(ended, End::Eof | End::Reset));
    }
    let broke = async || {
        let metrics = world.admin.metrics().await;
        (metrics.sum("tollgate_call_endings_total", &[("ending", "seller_broke")]) == 2.0).then_some(())
    };
    until("both endings are counted", broke).await;
}

/// OpenAI's Python SDK hangs up at `[DONE]`, without waiting for the body's end.
#[tokio::test]
async fn a_client_that_leaves_after_done_has_had_the_whole_stream() {
    let seller = Seller::by_hand().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let cases = [
        ("data: 1\n\ndata: [DONE]\n\n", "complete"),
        ("data: 1\r\n\r\ndata:[DONE]\r\n\r\n", "complete"),
        ("data: 1\n\n", "client_gone"),
        ("data: {\"content\":\"[DONE]\"}\n\n", "client_gone"),
        ("data: [DONE]\n\ndata: more\n\n", "client_gone"),
    ];
    for (events, _) in cases {
        let (mut client, mut exchange) = open_stream(&world, &seller, &buyer.key).await;
        exchange.send(chunk(events)).await;
        assert_eq!(client.chunked(events.len()).await, events.as_bytes());
        drop(client);
        exchange.gateway_ends().await;
    }
    world.settles(&buyer.account, 5).await;
    world.stop().await;
    let mut records = world.usage();
    records.sort_by_key(|record| record["arrived"].to_string());
    let endings: Vec<_> = records.iter().map(|record| record["ending"].as_str().unwrap_or_default()).collect();
    assert_eq!(endings, cases.map(|(_, ending)| ending));
}
