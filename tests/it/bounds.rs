//! What a client may not do: too much, too slowly, or in a way that two parsers read differently. None of it reaches a
//! seller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::{Client, Request};
use crate::harness::seller::{Seller, plain};
use crate::harness::tls::{Files, tunnel};
use crate::harness::wire::End;
use crate::harness::world::{World, product};
use crate::harness::{until, within};

/// Largest request head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most header lines.
const FIELDS_MAX: usize = 100;
/// How long a client that must not be served is watched.
const NOT_SERVED_FOR: Duration = Duration::from_millis(400);

/// A call's head of exactly so many bytes.
fn head_of(bytes: usize, key: &str) -> Vec<u8> {
    let with = |filler: &str| Request::chat(key).field("X-Filler", filler).bytes();
    let body = r#"{"model":"m","messages":[]}"#.len();
    with(&"f".repeat(bytes - (with("").len() - body)))
}

#[tokio::test]
async fn a_head_has_at_most_32_kib() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(head_of(HEAD_BYTES_MAX, &buyer.key)).await;
    client.answer("POST").await.expect(200);
    let mut client = world.client().await;
    client.send(head_of(HEAD_BYTES_MAX + 1, &buyer.key)).await;
    let answer = client.answer("POST").await.expect(431);
    assert!(answer.head.get("x-request-id").is_some());
    assert_eq!(client.ends().await, End::Eof);
    // One that never ends is refused as well, not waited for.
    let mut client = world.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(HEAD_BYTES_MAX))).await;
    client.answer("GET").await.expect(431);
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn a_head_has_at_most_100_fields() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    // Four are there before: Host, Authorization, Content-Type, Content-Length.
    let with = |more: usize| (0..more).fold(Request::chat(&buyer.key), |r, n| r.field(&format!("X-{n}"), "v"));
    world.call(&with(FIELDS_MAX - 4)).await.expect(200);
    world.call(&with(FIELDS_MAX - 3)).await.expect(431);
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_not_waited_for() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| config["limits"]["head_timeout"] = json!("1s")).await;
    let mut client = world.client().await;
    let begun = Instant::now();
    client.send("POST /v1/infers/chat/v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let _ = crate::harness::within("the gateway gives up", client.wire.end()).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_not_waited_for() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| config["limits"]["body_timeout"] = json!("1s")).await;
    let buyer = world.buyer(&["chat-5", "api-5"]).await;
    for path in ["/v1/infers/chat/v1/chat/completions", "/api/x"] {
        let mut client = world.client().await;
        let head = Request::post(path).bearer(&buyer.key).json("{\"model\":\"m\"}").bytes();
        client.send(&head[..head.len() - 3]).await;
        client.answer("POST").await.expect(408);
        assert_eq!(client.ends().await, End::Eof);
    }
    world.charged(0).await;
    assert!(
        seller.requests().iter().all(|seen| seen.body.cut.is_some()),
        "a body that was cut is never ended properly"
    );
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_order() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| config["limits"]["idle_timeout"] = json!("1s")).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.call(&Request::chat(&buyer.key)).await.expect(200);
    assert_eq!(client.ends().await, End::Eof);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_while_all_are_busy_then_the_oldest_idle_one_goes() {
    let seller = Seller::by_hand().await;
    let world = World::with(seller.address, |config| config["limits"]["connections"] = json!(2)).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let request = Request::chat(&buyer.key);
    let answer = plain(200, "{}");
    let (mut first, mut second) = (world.client().await, world.client().await);
    first.send(request.bytes()).await;
    let mut first_at_seller = seller.next().await;
    second.send(request.bytes()).await;
    let mut second_at_seller = seller.next().await;
    let mut third = world.client().await;
    third.send(request.bytes()).await;
    let early = tokio::time::timeout(NOT_SERVED_FOR, third.wire.some()).await;
    assert!(early.is_err(), "the third was served while two were busy: {early:?}");
    assert_eq!(world.admin.get("/livez").await.status(), 200, "the limit is not the operators'");
    first_at_seller.send(&answer).await;
    first_at_seller.done();
    first.answer("POST").await.expect(200);
    let mut third_at_seller = seller.next().await;
    assert_eq!(first.ends().await, End::Eof, "it had no call");
    third_at_seller.send(&answer).await;
    third.answer("POST").await.expect(200);
    second_at_seller.send(&answer).await;
    second.answer("POST").await.expect(200);
}

#[tokio::test]
async fn connections_that_owe_more_than_a_request_make_room_too() {
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(&dir.path().join("pki"), "localhost");
    let tls = json!({ "address": "127.0.0.1:0", "tls": { "certificates": Files::listed(&[&files]) } });
    let listeners = [json!("127.0.0.1:0"), json!("127.0.0.1:0"), json!({ "address": "127.0.0.1:0", "h2c": true }), tls];
    for (at, listener) in listeners.into_iter().enumerate() {
        let world = World::with(seller.address, |config| {
            // Longer than any wait of this test: nothing but room makes them go.
            config["limits"] = json!({ "connections": 3, "head_timeout": "5m", "idle_timeout": "5m" });
            config["listeners"]["data"] = listener.clone();
            if at == 1 {
                config["proxies"] = json!({ "trusted": ["127.0.0.1"], "proxy_protocol": true });
            }
        })
        .await;
        let buyer = world.buyer(&["chat-5"]).await;
        let mut silent = Vec::new();
        for _ in 0..6 {
            silent.push(world.client().await);
        }
        let to = match at {
            3 => tunnel(world.data, Arc::new(files.client()), "localhost").await,
            _ => world.data,
        };
        let mut client = Client::connect(to).await;
        if at == 1 {
            client.send("PROXY UNKNOWN\r\n").await;
        }
        client.call(&Request::chat(&buyer.key)).await.expect(200);
        silent.remove(0).ends().await;
    }
}

#[tokio::test]
async fn heads_that_parsers_read_differently_are_refused_and_not_one_byte_goes_on() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let ok = format!("Host: a\r\nAuthorization: Bearer {}\r\n", buyer.key);
    let post = "POST /v1/infers/chat/v1/x HTTP/1.1\r\n";
    let smuggled = "GET /v1/infers/chat/v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        format!("{post}{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}{ok}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}{ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content-Length: 5, 5\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content-Length: +5\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content-Length: 05\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content-Length: 0x5\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content-Length:\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content-Length: 99999999999999999999\r\n\r\n"),
        format!("{post}{ok}Content-Length : 5\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Content_Length: 5\r\n\r\nhello{smuggled}"),
        format!("{post}{ok}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}{ok}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{post}{ok}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}{ok}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}{ok}Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}{ok}X: a\r\n folded\r\n\r\n"),
        format!("{post}{ok}X: a\n\r\n"),
        format!("{}{ok}\r\n", post.replace("\r\n", "\n")),
        format!("{post}{ok}X: a\rb\r\n\r\n"),
        format!("{post}{ok}X: a\0b\r\n\r\n"),
        format!("{post}{ok}: a\r\n\r\n"),
        format!("{post}{ok}no colon\r\n\r\n"),
        format!("{post}{ok}Host: b\r\n\r\n"),
        format!("{post}Authorization: Bearer {}\r\n\r\n", buyer.key),
        format!("{post}Host: a/b\r\nAuthorization: Bearer {}\r\n\r\n", buyer.key),
        format!("{post}{ok}Authorization: Bearer {}\r\n\r\n", buyer.key),
        format!("{post}{ok}Connection: authorization\r\n\r\n"),
        format!("POST http://b/v1/infers/chat/v1/x HTTP/1.1\r\n{ok}\r\n"),
        format!("POST /v1/infers/chat/v1/x HTTP/1.0\r\n{ok}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST /v1/infers/chat/v1/x HTTP/2.0\r\n{ok}\r\n"),
        format!("POST  /v1/infers/chat/v1/x HTTP/1.1\r\n{ok}\r\n"),
        format!("POST /v1/infers/chat/v1/x y HTTP/1.1\r\n{ok}\r\n"),
        format!("POST v1/infers/chat/v1/x HTTP/1.1\r\n{ok}\r\n"),
        format!("POST /v1/infers/chat/v1/../x HTTP/1.1\r\n{ok}\r\n"),
        format!("POST /v1/infers/chat/v1/%2e%2e/x HTTP/1.1\r\n{ok}\r\n"),
        format!("POST /v1/infers/chat/v1/a%2fb HTTP/1.1\r\n{ok}\r\n"),
        format!("POST /v1/infers/chat/v1/a\\b HTTP/1.1\r\n{ok}\r\n"),
        format!("POST /v1/infers/chat/v1/%zz HTTP/1.1\r\n{ok}\r\n"),
        "\u{16}\u{3}\u{1}hello".to_owned(),
    ];
    for bytes in cases {
        let mut client = world.client().await;
        client.send(&bytes).await;
        let answer = client.answer("POST").await;
        assert_eq!(answer.status(), 400, "{bytes:?}\n{:?}", answer.head);
        assert!(answer.head.get("x-request-id").is_some() && !answer.message().is_empty(), "{bytes:?}");
    }
    assert_eq!(seller.received_bytes(), 0);
    world.charged(0).await;
}

#[tokio::test]
async fn nothing_after_a_refused_head_is_read_as_a_request() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let good = String::from_utf8(Request::chat(&buyer.key).bytes()).unwrap();
    let bad = "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n";
    let mut client = world.client().await;
    client.send(format!("{good}{bad}{good}")).await;
    client.answer("POST").await.expect(200);
    client.answer("POST").await.expect(400);
    assert_eq!(client.ends().await, End::Eof);
    assert_eq!(seller.requests().len(), 1);
}

async fn chunked(world: &World, path: &str, key: &str, body: &str) -> Client {
    let mut client = world.client().await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{body}"
    );
    client.send(head).await;
    client
}

#[tokio::test]
async fn malformed_chunks_are_never_forwarded_as_a_whole_body() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50", "api-50"]).await;
    for body in ["0x2\r\n{}\r\n0\r\n\r\n", "2\n{}\n0\n\n", "\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n", "2\r\n{}0\r\n\r\n"] {
        for path in ["/v1/infers/chat/v1/x", "/api/x"] {
            let mut client = chunked(&world, path, &buyer.key, body).await;
            let answer = client.answer("POST").await;
            assert_eq!(answer.status(), 400, "{path} {body:?}");
            assert!(answer.message().contains("chunk"), "it says what is wrong: {}", answer.message());
        }
    }
    for seen in seller.requests() {
        assert!(seen.body.cut.is_some(), "{seen:?}");
        assert_eq!(seen.head.target(), "/api/x", "a body that is held whole is checked before anything is sent");
    }
    world.charged(0).await;
    let mut good = chunked(&world, "/v1/infers/chat/v1/x", &buyer.key, "2;ext=1\r\n{}\r\n0\r\nX-T: 1\r\n\r\n").await;
    good.answer("POST").await.expect(200);
    assert_eq!(seller.requests().pop().unwrap().text(), "{}");
}

#[tokio::test]
async fn a_malformed_body_is_no_body_whatever_the_method() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-50"]).await;
    for method in ["GET", "HEAD", "POST"] {
        for (parts, ends) in
            [(&["zz\r\n"][..], false), (&["5\r\nhello\r\n", "zz\r\n"], false), (&["5\r\nhello\r\n"], true)]
        {
            let mut client = world.client().await;
            let request = Request::new(method, "/api/x").bearer(&buyer.key).field("Transfer-Encoding", "chunked");
            client.send(request.bytes()).await;
            for part in parts {
                client.send(part).await;
                tokio::task::yield_now().await;
            }
            if ends {
                client.wire.finish().await; // whether there is an answer then is not ours to say
                within("the connection ends", client.wire.end()).await;
            } else {
                assert_eq!(client.answer(method).await.status(), 400, "{method} {parts:?}");
            }
        }
    }
    assert!(
        seller.requests().iter().all(|seen| seen.body.cut.is_some()),
        "none of them was whole: {seller:?}",
        seller = seller.requests()
    );
    world.charged(0).await;
}

/// A JSON body of about so many bytes.
fn body_of(bytes: usize) -> String {
    format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(bytes))
}

#[tokio::test]
async fn bodies_held_at_one_time_are_bounded_over_all_calls() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["limits"]["buffered_bytes"] = json!("1MiB");
        product(config, "chat")["body_max"] = json!("1MiB");
        product(config, "api")["body_max"] = json!("1MiB");
    })
    .await;
    let buyer = world.buyer(&["chat-1000000"]).await;
    let whole = Request::chat(&buyer.key).json(&body_of(800 << 10));
    world.call(&whole).await.expect(200);
    let bytes = whole.bytes();
    // Which of the two the gateway reads first is not ours to say: until it was the one that waits for its last byte.
    let one_waits = async || {
        let mut first = world.client().await;
        first.send(&bytes[..bytes.len() - 1]).await;
        let answer = world.call(&whole).await;
        (answer.status() != 200).then_some((first, answer))
    };
    let (mut first, answer) = until("the second body finds no room", one_waits).await;
    let answer = answer.expect(503);
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("overloaded"));
    assert!(answer.head.get("retry-after").is_some());
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    first.send(&bytes[bytes.len() - 1..]).await;
    first.answer("POST").await.expect(200);
    world.call(&whole).await.expect(200);
}

#[tokio::test]
async fn a_body_in_tiny_chunks_takes_little_more_memory_than_its_bytes() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let body = body_of(1 << 20);
    let before = world.gateway.resident_bytes();
    let mut client = chunked(&world, "/v1/infers/chat/v1/x", &buyer.key, "").await;
    let mut peak = before;
    for piece in body.as_bytes().chunks(4096) {
        let chunks: Vec<u8> = piece.iter().flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']).collect();
        client.send(chunks).await;
        peak = peak.max(world.gateway.resident_bytes());
    }
    client.send("0\r\n\r\n").await;
    client.answer("POST").await.expect(200);
    assert_eq!(seller.request().text(), body);
    let grown = peak.max(world.gateway.resident_bytes()) - before;
    assert!(grown < 8 << 20, "a body of a MiB took {grown} bytes");
}

#[tokio::test]
async fn the_access_log_names_what_was_refused_as_far_as_it_can_be_told() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| config["log"]["access"] = json!("stdout")).await;
    for (sent, id, method, path) in [
        (
            "DELETE /api/x?key=secret HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Request-Id: r-1\r\n\r\n",
            "r-1",
            "DELETE",
            "/api/x",
        ),
        ("PUT /api/y\nX-Request-Id: r-2\n\n", "", "PUT", "/api/y"),
        ("\u{16}\u{3}\u{1}hello", "", "-", "-"),
    ] {
        let mut client = world.client().await;
        client.send(sent).await;
        let answer = client.answer("GET").await.expect(400);
        let own = answer.head.get("x-request-id").unwrap().to_owned();
        assert!(id.is_empty() || own == id, "{sent:?}: {own}");
        let line = until("the access log has the call", async || {
            world.gateway.printed().into_iter().find(|line| line.contains(&own))
        })
        .await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["method"], &line["path"]), (&json!(method), &json!(path)), "{sent:?}");
        assert!(!line.to_string().contains("secret"), "{line}");
    }
}

#[tokio::test]
async fn a_path_that_begins_with_two_slashes_is_answered_in_its_own_shape() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let answer = world.call(&Request::get("//api/x")).await.expect(404).json();
    assert_eq!((answer["error_code"].as_str(), answer.get("error")), (Some("APIG.0101"), None), "{answer}");
    let answer = world.call(&Request::get("//v1/infers/nothing/v1/x")).await.expect(404).json();
    assert!(answer["error"]["message"].is_string(), "{answer}");
}

#[tokio::test]
async fn idle_connections_go_when_files_run_out() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let request = Request::chat(&buyer.key);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = world.client().await;
        client.call(&request).await.expect(200);
        clients.push(client);
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(world.gateway.id()).unwrap());
    let open = std::fs::read_dir(format!("/proc/{}/fd", world.gateway.id())).unwrap().count();
    let room = u64::try_from(open).unwrap();
    let limit = rustix::process::Rlimit { current: Some(room), maximum: Some(room) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    for _ in 0..3 {
        world.call(&request).await.expect(200);
    }
    let shed = world.admin.metrics().await.sum("tollgate_connections_shed_total", &[]);
    assert!(shed >= 1.0, "{shed}");
}

#[tokio::test]
async fn a_large_body_is_held_once_even_if_its_model_is_renamed() {
    let seller = Seller::by_hand().await;
    let world =
        World::with(seller.address, |config| product(config, "chat")["models"] = json!({ "m": "another" })).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let size = 30 << 20;
    let bytes = Request::chat(&buyer.key).json(&body_of(size)).bytes();
    let mut client = world.client().await;
    let before = world.gateway.resident_bytes();
    let (last, most) = bytes.split_last().unwrap();
    client.send(most).await;
    client.send([*last]).await;
    let mut peak = before;
    let arrived = async {
        loop {
            tokio::select! {
                exchange = seller.next() => return exchange,
                () = tokio::time::sleep(Duration::from_millis(1)) => peak = peak.max(world.gateway.resident_bytes()),
            }
        }
    };
    let mut exchange = within("the body arrives", arrived).await;
    assert!(
        exchange.seen.text().starts_with(r#"{"model":"another","x":"xxx"#) && exchange.seen.body.bytes.len() > size
    );
    exchange.send(plain(200, "{}")).await;
    client.answer("POST").await.expect(200);
    let grown = peak.max(world.gateway.resident_bytes()) - before;
    // While it grew, its room was made anew; the allocator gives the last one back a moment later. Two bodies are twice.
    assert!(grown < 7 * u64::try_from(size).unwrap() / 4, "a body of 30 MiB took {grown} bytes");
}
