//! HTTP/2 clients that take nothing, or next to nothing, of their answers, and those that hold connections without a
//! call: what they make the gateway hold, when they are ended, and that nobody else notices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::Request;
use crate::harness::h2::{
    Client, DATA, END_STREAM, GOAWAY, HEADERS, Outcome, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, headers,
};
use crate::harness::seller::{LAST_CHUNK, Reply, SSE_HEAD, Seller, chunk};
use crate::harness::until;
use crate::harness::within;
use crate::harness::world::{World, product};

/// Streams that one connection may have open.
const STREAMS: u32 = 100;
/// The widest window there is.
const WIDEST: u32 = 0x7fff_ffff;
/// How late an end may be: the sweep's step, and a busy machine.
const LATE: Duration = Duration::from_secs(3);

async fn world(seller: &Seller, more: impl FnOnce(&mut Value)) -> World {
    World::with(seller.address, |config| {
        config["listeners"]["data"] = json!({ "address": "127.0.0.1:0", "h2c": true });
        more(config);
    })
    .await
}

/// Asks for something on a stream.
fn get(stream: u32, bearer: &str) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", "/api/x"),
        ("authorization", bearer),
    ];
    headers(stream, &fields, true)
}

/// A client whose streams begin with this window, with the widest for all of them together.
async fn connect(to: SocketAddr, window: u32) -> Raw {
    let mut raw = Raw::connect(to).await;
    raw.send(&frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat())).await;
    raw.send(&room(0, WIDEST - 65_535)).await;
    raw
}

/// Gives a stream more room; 0 is the connection.
fn room(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// An answer of this size.
fn answer(bytes: usize) -> Reply {
    Reply::bytes(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{}", "x".repeat(bytes)))
}

/// Bytes that the kernel keeps for a listener's clients, because they do not read.
fn kept_by_the_kernel(listener: SocketAddr) -> u64 {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let here = format!(":{:04X}", listener.port());
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row[1].ends_with(&here) && row[3] == ESTABLISHED);
    ours.map(|row| u64::from_str_radix(row[4].split(':').next().unwrap(), 16).unwrap()).sum()
}

/// What the gateway holds more than before once the clients' answers have stopped.
async fn held(world: &World, before: u64, calls: u32) -> u64 {
    let (mut last, mut same) = (0, 0);
    until("what is held stays the same", async || {
        let now = world.gateway.resident_bytes();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        let open = world.admin.metrics().await.sum("tollgate_calls_open", &[]);
        (open == f64::from(calls) && same >= 20).then_some(())
    })
    .await;
    last.saturating_sub(before)
}

#[tokio::test]
async fn clients_that_read_nothing_hold_little_however_many_streams_they_open() {
    // Connections, the streams of each, and what they may make the gateway hold. That is 200 KiB where there is one stream,
    // and 32 KiB for each of many, beside what any open call costs (36 KiB without optimization); the rest is room for
    // what an allocator keeps. With parts of 64 KiB for all it was 9 MB and 21 MB.
    for (connections, streams, bytes_max) in [(8, 1, 4 << 20), (1, STREAMS, 10 << 20)] {
        let seller = Seller::always(answer(4 << 20)).await;
        let world = world(&seller, |_| {}).await;
        let buyer = world.buyer(&["api-1000"]).await;
        let bearer = format!("Bearer {}", buyer.key);
        let mut warm = Client::plain(world.data).await;
        warm.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
        let before = world.gateway.resident_bytes();
        let mut readers = Vec::new();
        for _ in 0..connections {
            let mut raw = connect(world.data, WIDEST).await;
            for at in 0..streams {
                raw.send(&get(2 * at + 1, &bearer)).await;
            }
            readers.push(raw);
        }
        let held = held(&world, before, connections * streams).await;
        assert!(held < bytes_max, "{connections} connections with {streams} streams hold {held} bytes");
        let kept = kept_by_the_kernel(world.data);
        assert!(kept < u64::from(connections) * 256 * 1024, "{kept} bytes in the kernel for {connections} connections");
        warm.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
        drop(readers);
        world.charged(connections * streams + 2).await;
        eprintln!("{connections} connections with {streams} streams hold {held} bytes, the kernel {kept}");
    }
}

#[tokio::test]
async fn streams_that_take_nothing_stop_none_beside_them() {
    const BYTES: usize = 1 << 20;
    let seller = Seller::always(answer(BYTES)).await;
    let world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut raw = connect(world.data, 0).await;
    for at in 0..STREAMS - 1 {
        raw.send(&get(2 * at + 1, &bearer)).await;
    }
    let mut heads = 0;
    while heads < STREAMS - 1 {
        let (kind, ..) = raw.next().await.unwrap();
        heads += u32::from(kind == HEADERS);
    }
    let taken = 2 * STREAMS - 1;
    raw.send(&get(taken, &bearer)).await;
    raw.send(&room(taken, WIDEST)).await;
    let mut came = 0;
    loop {
        let (kind, flags, of, content) = raw.next().await.unwrap();
        assert!(kind != DATA || of == taken);
        came += if kind == DATA { content.len() } else { 0 };
        if kind == DATA && flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(came, BYTES);
    drop(raw);
    world.charged(STREAMS).await;
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset_in_time_and_the_others_go_on() {
    let seller = Seller::by_hand().await;
    let world = world(&seller, |config| config["limits"]["idle_timeout"] = json!("1s")).await;
    let buyer = world.buyer(&["api-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut raw = connect(world.data, 0).await;
    let mut open = Vec::new();
    for stream in [1, 3] {
        raw.send(&get(stream, &bearer)).await;
        let mut exchange = seller.next().await;
        exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
        open.push(exchange);
    }
    raw.send(&room(3, 1_000)).await;
    let begun = Instant::now();
    let code = loop {
        let (kind, _, of, content) = raw.next().await.unwrap();
        assert!(kind != GOAWAY && (kind != DATA || of == 3));
        if kind == RST_STREAM {
            assert_eq!(of, 1);
            break u32::from_be_bytes(content.try_into().unwrap());
        }
    };
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(800) && took < Duration::from_secs(1) + LATE, "{took:?}");
    assert_eq!(code, 8, "CANCEL: it is given up");
    let (mut stalled, mut going) = (open.remove(0), open.remove(0));
    stalled.gateway_ends().await;
    going.send([chunk("data: 2\n\n"), LAST_CHUNK.into()].concat()).await;
    going.done();
    while !matches!(raw.next().await.unwrap(), (DATA, flags, 3, _) if flags & END_STREAM != 0) {}
    world.charged(2).await;
}

#[tokio::test]
async fn a_client_that_takes_its_answer_byte_by_byte_is_ended_with_the_call_s_time() {
    let seller = Seller::always(answer(1 << 20)).await;
    let world = world(&seller, |config| product(config, "api")["timeouts"]["total"] = json!("2s")).await;
    let buyer = world.buyer(&["api-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut raw = connect(world.data, 1).await;
    raw.send(&get(1, &bearer)).await;
    let (begun, mut bytes) = (Instant::now(), 0);
    let reset = async {
        loop {
            match raw.next().await.unwrap() {
                (DATA, _, 1, content) => {
                    bytes += content.len();
                    raw.send(&room(1, 1)).await;
                }
                (RST_STREAM, _, 1, _) => return,
                _ => {}
            }
        }
    };
    within("the stream is reset", reset).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_900) && took < Duration::from_secs(2) + LATE, "{took:?}");
    assert!(bytes > 1, "it took some");
    world.charged(1).await;
}

#[tokio::test]
async fn at_the_connection_limit_those_without_a_stream_make_room_at_once() {
    const LIMIT: u32 = 20;
    const NEW: u32 = 10;
    let seller = Seller::answering(|seen| match seen.head.target() {
        "/api/x" => Reply::json(200, "{}"),
        _ => Reply::ByHand,
    })
    .await;
    let world = world(&seller, |config| config["limits"]["connections"] = json!(LIMIT)).await;
    let buyer = world.buyer(&["api-50", "chat-5"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut busy = Client::plain(world.data).await;
    let stream = Request::stream(&buyer.key);
    let begun = tokio::spawn(async move { (busy.begin(&stream).await.unwrap(), busy) });
    let mut open = seller.next().await;
    open.send(SSE_HEAD).await;
    let (mut body, _busy) = begun.await.unwrap();
    // They read nothing, so they do not hear that they should go; half of them have had an answer.
    let mut idle = Vec::new();
    for at in 1..LIMIT {
        let mut raw = Raw::connect(world.data).await;
        if at % 2 == 0 {
            raw.send(&get(1, &bearer)).await;
            assert!(matches!(raw.outcome(1).await, Outcome::Answered(200, _)));
        }
        idle.push(raw);
    }
    let (mut kept, mut slowest) = (Vec::new(), Duration::ZERO);
    for _ in 0..NEW {
        let begun = Instant::now();
        let mut raw = Raw::connect(world.data).await;
        raw.send(&get(1, &bearer)).await;
        assert!(matches!(raw.outcome(1).await, Outcome::Answered(200, _)));
        slowest = slowest.max(begun.elapsed());
        kept.push(raw);
    }
    let shed = world.admin.metrics().await.sum("tollgate_connections_shed_total", &[]);
    assert!(shed >= f64::from(NEW) && shed < f64::from(NEW + 6), "{shed} were shed for {NEW}");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert_eq!(idle[0].end().await, Some(0), "a GOAWAY without an error");
    open.send([chunk("data: 1\n\n"), LAST_CHUNK.into()].concat()).await;
    open.done();
    let all = within("the open stream", http_body_util::BodyExt::collect(body.body_mut())).await.unwrap().to_bytes();
    assert_eq!(all, "data: 1\n\n");
    eprintln!("{shed} idle connections shed for {NEW} new ones, the slowest of which was answered after {slowest:?}");
}
