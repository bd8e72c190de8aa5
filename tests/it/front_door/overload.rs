//! Clients that hold connections: slow heads, bodies and readers, floods, and bodies that are still coming when the
//! answer is out. Each is ended within its time, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::{Client, Request};
use crate::harness::seller::{Reply, Seller};
use crate::harness::wire::End;
use crate::harness::world::World;
use crate::harness::{until, within};

/// The limits of these tests, shorter than anybody's.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// How late an end may be: the sweep's step, and a busy machine.
const LATE: Duration = Duration::from_secs(3);
/// Longer than each of the limits.
const LONG: Duration = Duration::from_millis(2_500);
/// Between two bytes of a client that means no good.
const DRIBBLE: Duration = Duration::from_millis(50);

fn short(config: &mut Value) {
    config["limits"] = json!({ "head_timeout": "1s", "body_timeout": "1s", "idle_timeout": "2s" });
}

/// Sends `first`, then one byte after the other until the gateway ends the connection; returns when it did, and what it
/// said before.
async fn dribble(mut client: Client, first: Vec<u8>, rest: &[u8]) -> (Duration, Vec<u8>) {
    let begun = Instant::now();
    client.send(first).await;
    let (mut said, mut rest) = (Vec::new(), rest.iter().cycle());
    loop {
        assert!(begun.elapsed() < LONG + LATE, "never ended; said {}", said.escape_ascii());
        match tokio::time::timeout(DRIBBLE, client.wire.some()).await {
            Ok(Ok(more)) => said.extend(more),
            Ok(Err(_)) => return (begun.elapsed(), said),
            Err(_) => drop(client.wire.send(&[*rest.next().unwrap()]).await), // what became of it is read next
        }
    }
}

#[tokio::test]
async fn slow_heads_are_ended_in_time_wherever_they_begin() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, short).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let good = Request::get("/api/x").bearer(&buyer.key).bytes();
    let slow = b"GET /api/x HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_vec();
    // At once, behind an answered request, and behind one in the same packet.
    let mut running = tokio::task::JoinSet::new();
    for case in 0..90 {
        let (mut client, good, slow) = (world.client().await, good.clone(), slow.clone());
        running.spawn(async move {
            match case % 3 {
                0 => dribble(client, slow, b"x").await,
                1 => {
                    client.send(&good).await;
                    client.answer("GET").await.expect(200);
                    dribble(client, slow, b"x").await
                }
                _ => dribble(client, [good, slow].concat(), b"x").await,
            }
        });
    }
    let mut slowest = Duration::ZERO;
    while let Some(done) = running.join_next().await {
        let (took, _) = done.unwrap();
        assert!(took >= HEAD_TIMEOUT - Duration::from_millis(100) && took < HEAD_TIMEOUT + LATE, "{took:?}");
        slowest = slowest.max(took);
    }
    world.charged(60).await;
    eprintln!("90 slow heads with a limit of 1 s: the last was ended after {slowest:?}");
}

#[tokio::test]
async fn a_call_is_not_ended_by_what_comes_behind_it() {
    let seller = Seller::by_hand().await;
    let world = World::with(seller.address, short).await;
    let buyer = world.buyer(&["api-5"]).await;
    let good = Request::get("/api/x").bearer(&buyer.key).bytes();
    let answer = crate::harness::seller::plain(200, "{}");
    // A part of the next head, and, on another connection, all of it.
    let mut part = world.client().await;
    part.send([&good[..], b"GET /api/x HTTP/1.1\r\n"].concat()).await;
    let mut first = seller.next().await;
    let mut whole = world.client().await;
    whole.send([&good[..], &good].concat()).await;
    let mut second = seller.next().await;
    second.send(&answer).await;
    second.done();
    whole.answer("GET").await.expect(200);
    let mut third = seller.next().await; // has come while the first was open
    let early = tokio::time::timeout(LONG, part.wire.some()).await;
    assert!(early.is_err(), "the call was ended by a part of the next head: {early:?}");
    first.send(&answer).await;
    part.answer("GET").await.expect(200);
    third.send(&answer).await;
    whole.answer("GET").await.expect(200);
    within("the rest of the head is not waited for", part.wire.end()).await;
    world.charged(3).await;
}

#[tokio::test]
async fn slow_bodies_are_ended_in_time_and_never_completed() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, short).await;
    let buyer = world.buyer(&["api-1000", "chat-1000"]).await;
    let mut running = tokio::task::JoinSet::new();
    for case in 0..40 {
        let path = ["/api/x", "/v1/infers/chat/v1/x"][case % 2];
        let request = Request::post(path).bearer(&buyer.key).body(&[b'x'; 10_000]).bytes();
        let client = world.client().await;
        running.spawn(async move { dribble(client, request[..request.len() - 9_999].to_vec(), b"x").await });
    }
    let mut slowest = Duration::ZERO;
    while let Some(done) = running.join_next().await {
        let (took, said) = done.unwrap();
        assert!(said.starts_with(b"HTTP/1.1 408 "), "{}", said.escape_ascii());
        slowest = slowest.max(took);
    }
    world.charged(0).await;
    assert!(seller.requests().iter().all(|seen| seen.body.cut.is_some()), "{:?}", seller.requests());
    eprintln!("40 bodies of 20 bytes a second: the last was answered with 408 and ended after {slowest:?}");
}

#[tokio::test]
async fn readers_that_do_not_read_are_ended_and_hold_little() {
    const READERS: usize = 20;
    let body = "x".repeat(32 << 20);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let seller = Seller::always(Reply::bytes(answer)).await;
    let world = World::with(seller.address, short).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let before = world.gateway.resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut client = world.client().await;
        client.send(Request::get("/api/x").bearer(&buyer.key).bytes()).await;
        client.head().await;
        readers.push(client);
    }
    let begun = Instant::now();
    let mut peak = 0;
    until("the readers are ended", async || {
        peak = peak.max(world.gateway.resident_bytes());
        let metrics = world.admin.metrics().await;
        (metrics.sum("tollgate_calls_open", &[]) == 0.0).then_some(())
    })
    .await;
    let (took, grown) = (begun.elapsed(), peak.saturating_sub(before));
    assert!(took < Duration::from_secs(2) + LATE, "{took:?}");
    assert!(grown < 32 << 20, "{READERS} readers took {grown} bytes");
    drop(readers);
    eprintln!(
        "{READERS} clients that read nothing of 32 MiB: ended after {took:?}, {} KiB each",
        grown / READERS as u64 / 1024
    );
}

#[tokio::test]
async fn a_flood_of_connections_sheds_the_oldest_without_a_call() {
    const LIMIT: usize = 20;
    const FLOOD: usize = 400;
    let seller = Seller::by_hand().await;
    let world = World::with(seller.address, |config| config["limits"]["connections"] = json!(LIMIT)).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let request = Request::get("/api/x").bearer(&buyer.key).bytes();
    let answer = crate::harness::seller::plain(200, "{}");
    let mut busy = world.client().await;
    busy.send(&request).await;
    let mut open = seller.next().await;
    let (mut flood, mut slowest) = (Vec::new(), Duration::ZERO);
    for number in 0..FLOOD {
        let mut silent = world.client().await;
        if number % 2 == 0 {
            silent.send("GET /api/x HTTP/1.1\r\nX: ").await;
        }
        flood.push(silent);
        if number % 20 == 19 {
            let begun = Instant::now();
            let mut client = world.client().await;
            client.send(&request).await;
            let mut exchange = seller.next().await;
            exchange.send(&answer).await;
            exchange.done();
            client.answer("GET").await.expect(200);
            slowest = slowest.max(begun.elapsed());
        }
    }
    // Each core ends its own oldest, so the last of them may be a few older or younger.
    for silent in &mut flood[..FLOOD - 2 * LIMIT] {
        assert_eq!(within("the oldest are ended", silent.wire.end()).await, End::Eof);
    }
    open.send(&answer).await;
    busy.answer("GET").await.expect(200);
    let metrics = world.admin.metrics().await;
    let shed = metrics.sum("tollgate_connections_shed_total", &[]);
    assert!(shed >= (FLOOD - 2 * LIMIT) as f64, "{shed} were shed");
    world.charged(1 + FLOOD as u32 / 20).await;
    eprintln!(
        "{FLOOD} silent connections with a limit of {LIMIT}: {shed} shed; the slowest of {} calls amid them took {slowest:?}",
        FLOOD / 20
    );
}

/// A refusal that is out while the body is still coming: whatever follows on the connection is read right, or not at all.
#[tokio::test]
async fn an_early_answer_leaves_the_next_request_intact_or_ends_the_connection() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        short(config);
        crate::harness::world::product(config, "chat")["body_max"] = json!("64KiB");
        crate::harness::world::product(config, "api")["body_max"] = json!("64KiB");
    })
    .await;
    let buyer = world.buyer(&["api-1000"]).await;
    let used_up = world.buyer(&["api-1"]).await;
    world.call(&Request::get("/api/x").bearer(&used_up.key)).await.expect(200);
    let smuggled = Request::get("/api/smuggled").bearer(&buyer.key).bytes();
    let next = Request::get("/api/next").bearer(&buyer.key).bytes();
    let (mut kept, mut closed) = (0, 0);
    for (status, path, key) in [
        (401, "/api/x", "sk-tg-wrong"),
        (401, "/v1/infers/chat/v1/x", "sk-tg-wrong"),
        (413, "/v1/infers/chat/v1/x", &buyer.key),
        (429, "/api/x", &used_up.key),
        (404, "/nowhere", &buyer.key),
    ] {
        for length in [1_000, 60_000, 200_000, 8 << 20] {
            if status == 413 && length < 100_000 {
                continue;
            }
            for sent_first in [0, 500, length] {
                let body = smuggled.iter().copied().cycle().take(length).collect::<Vec<u8>>();
                let request =
                    Request::post(path).bearer(key).field("Content-Type", "application/json").body(&body).bytes();
                let cut = request.len() - length + sent_first;
                let mut client = world.client().await;
                // The whole of it is more than the gateway takes after its answer: it may end the connection meanwhile.
                let _ = client.wire.send(&request[..cut]).await;
                let head = within("the answer", client.wire.head()).await;
                let Ok(head) = head else {
                    assert_eq!(length, 8 << 20, "{status} {length} {sent_first}: ended without an answer");
                    closed += 1;
                    continue;
                };
                assert_eq!(head.status(), status, "{path} {length} {sent_first}");
                let _ = client.wire.body(head.answer_framing("POST")).await;
                let _ = client.wire.send(&[&request[cut..], &next].concat()).await;
                match within("an answer or an end", client.wire.head()).await {
                    Ok(next) => {
                        assert_eq!(next.status(), 200, "{path} {length} {sent_first}: {next:?}");
                        kept += 1;
                    }
                    Err(_) => closed += 1,
                }
            }
        }
    }
    let seen = seller.requests();
    assert!(seen.iter().all(|seen| ["/api/x", "/api/next"].contains(&seen.head.target())), "{seen:?}");
    assert_eq!(seen.len(), 1 + kept);
    eprintln!("early answers: after {kept} the next request was answered, after {closed} the connection was ended");
}
