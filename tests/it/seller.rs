//! Sellers that misbehave: what the buyer sees, what it costs, and what becomes of the connection.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::{Answer, Request};
use crate::harness::seller::{Reply, SSE_HEAD, Seen, Seller, Step, chunk, plain, refusing};
use crate::harness::world::{World, product};
use crate::harness::{until, within};

/// A world with short time-outs for its sellers.
async fn hasty(seller: &Seller) -> World {
    World::with(seller.address, |config| {
        let timeouts = json!({ "connect": "1s", "head": "1s", "idle": "1s", "total": "20s" });
        for id in ["chat", "api"] {
            product(config, id)["timeouts"] = timeouts.clone();
        }
    })
    .await
}

fn check_upstream_error(answer: Answer, status: u16, code: &str) {
    let answer = answer.expect(status);
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some(code), "{}", answer.text());
    assert_eq!(answer.head.get("x-tollgate-error-source"), Some("gateway"));
}

/// The account paid nothing, and a package of one call can still be sold.
async fn costs_nothing(world: &World, account: &str) {
    world.charged(0).await;
    assert_eq!(world.settled(account).await, 0);
}

#[tokio::test]
async fn a_seller_that_refuses_connections_is_502_and_free() {
    let (address, _kept) = refusing();
    let world = World::start(address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    for _ in 0..2 {
        let answer = world.call(&Request::chat(&buyer.key)).await;
        assert!(!answer.text().contains(&address.to_string()), "the seller's address is not the buyer's business");
        check_upstream_error(answer, 502, "upstream_connect");
    }
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn a_seller_that_stays_silent_is_504_at_the_head_timeout_and_free() {
    let seller = Seller::by_hand().await;
    let world = hasty(&seller).await;
    let buyer = world.buyer(&["chat-1"]).await;
    let mut client = world.client().await;
    let begun = Instant::now();
    client.send(Request::chat(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send("HTTP/1.1 200 OK\r\nContent-Le").await;
    check_upstream_error(client.answer("POST").await, 504, "upstream_timeout");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    exchange.gateway_ends().await;
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn a_seller_that_falls_silent_is_aborted_at_the_idle_timeout() {
    let seller = Seller::by_hand().await;
    let world = hasty(&seller).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    client.head().await;
    assert_eq!(client.chunked(9).await, b"data: 1\n\n");
    assert!(client.chunk().await.is_err(), "aborted, not ended");
    exchange.gateway_ends().await;
    let ended = async || {
        let metrics = world.admin.metrics().await;
        (metrics.sum("tollgate_call_endings_total", &[("ending", "timed_out")]) == 1.0).then_some(())
    };
    until("the ending is counted", ended).await;
}

#[tokio::test]
async fn a_broken_answer_is_aborted_never_ended_properly() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        Reply::bytes(format!("{chunked}5\r\nhello\r\n")).then(Step::Close),
        Reply::bytes(format!("{chunked}5\r\nhel")).then(Step::Close),
        Reply::bytes(format!("{chunked}5\r\nhello\r\n")).then(Step::Reset),
        Reply::bytes(format!("{chunked}5\r\nhello\r\nzz\r\n")).then(Step::Hang),
        Reply::bytes(format!("{chunked}5\r\nhelloXX0\r\n\r\n")).then(Step::Hang),
        Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").then(Step::Close),
        Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").then(Step::Reset),
    ];
    for reply in cases {
        let shown = format!("{reply:?}");
        let seller = Seller::always(reply).await;
        let world = hasty(&seller).await;
        let buyer = world.buyer(&["api-5"]).await;
        let answer = world.call(&Request::get("/api/x").bearer(&buyer.key)).await;
        match answer.status() {
            200 => assert!(answer.cut.is_some(), "{shown}: {answer:?}"),
            // The break may be seen before the head was handed on.
            status => assert_eq!(status, 502, "{shown}"),
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_seller_has_closed_costs_one_retry_and_one_charge() {
    for ending in [Step::Close, Step::Reset] {
        // The second request on each connection is met by its end: exactly when it is used again.
        let used = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let end = ending.clone();
        let seller = Seller::answering(move |seen: &Seen| match used.lock().unwrap().insert(seen.connection) {
            true => Reply::json(200, "{}"),
            false => Reply::Steps(vec![end.clone()]),
        })
        .await;
        let mut world = World::start(seller.address).await;
        let buyer = world.buyer(&["chat-5"]).await;
        let mut client = world.client().await;
        client.call(&Request::chat(&buyer.key)).await.expect(200);
        let answer = client.call(&Request::chat(&buyer.key)).await.expect(200);
        assert_eq!(answer.head.get("x-tollgate-remaining"), Some("3"));
        assert_eq!((seller.connections(), seller.requests().len()), (2, 3), "{ending:?}");
        let [_, lost, again] = &seller.requests()[..] else { panic!("three requests") };
        assert_eq!((&lost.head.raw, &lost.body), (&again.head.raw, &again.body), "the same request");
        world.settles(&buyer.account, 2).await;
        world.stop().await;
        let attempts: Vec<_> = world.usage().iter().map(|record| record["attempts"].clone()).collect();
        assert_eq!(attempts, [json!(1), json!(2)]);
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_long_before_costs_nothing_at_all() {
    let seller = Seller::always(Reply::json(200, "{}").then(Step::Close)).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let mut client = world.client().await;
    for _ in 0..20 {
        client.call(&Request::chat(&buyer.key)).await.expect(200);
    }
    world.settles(&buyer.account, 20).await;
}

#[tokio::test]
async fn a_post_whose_fresh_connection_breaks_is_not_sent_again() {
    for ending in [Step::Close, Step::Reset] {
        let seller = Seller::always(Reply::Steps(vec![ending])).await;
        let world = World::start(seller.address).await;
        let buyer = world.buyer(&["chat-1", "api-1"]).await;
        check_upstream_error(world.call(&Request::chat(&buyer.key)).await, 502, "upstream_broke");
        assert_eq!(seller.requests().len(), 1);
        let post = Request::post("/api/x").bearer(&buyer.key).body(b"once");
        check_upstream_error(world.call(&post).await, 502, "upstream_broke");
        assert_eq!(seller.requests().len(), 2);
        costs_nothing(&world, &buyer.account).await;
    }
}

#[tokio::test]
async fn a_get_whose_fresh_connection_breaks_is_sent_once_more_and_charged_once() {
    let seller = Seller::answering(|seen: &Seen| match seen.connection {
        0 => Reply::Steps(vec![Step::Close]),
        _ => Reply::json(200, "{}"),
    })
    .await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5"]).await;
    world.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
    assert_eq!(seller.requests().len(), 2);
    world.settles(&buyer.account, 1).await;
}

#[tokio::test]
async fn heads_that_no_seller_may_send_are_502_and_their_connection_is_not_used_again() {
    let fields: String = (0..120).map(|n| format!("X-{n}: v\r\n")).collect();
    let cases = [
        "garbage\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(200 << 10)),
    ];
    for bytes in cases {
        let shown = bytes.chars().take(60).collect::<String>();
        let seller = Seller::always(Reply::bytes(bytes).then(Step::Hang)).await;
        let world = hasty(&seller).await;
        let buyer = world.buyer(&["api-1"]).await;
        let answer = world.call(&Request::post("/api/x").bearer(&buyer.key)).await;
        assert_eq!(answer.status(), 502, "{shown:?}: {}", answer.text());
        seller.ended(0).await;
        costs_nothing(&world, &buyer.account).await;
    }
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_502_and_its_connection_is_not_used_again() {
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let seller = Seller::always(Reply::bytes(bytes)).await;
    let world = hasty(&seller).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        let answer = client.call(&Request::post("/api/x").bearer(&buyer.key)).await;
        check_upstream_error(answer, 502, "upstream_broke");
    }
    assert_eq!(seller.connections(), 2);
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn an_answer_whose_framing_others_could_read_otherwise_is_502() {
    let cases = [
        "Content-Length: 5, 5\r\n\r\nhello",
        "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, gzip\r\n\r\nhello",
        "Transfer-Encoding: gzip\r\n\r\nhello",
    ];
    let script = move |seen: &Seen| {
        let case = cases[seen.head.target().trim_start_matches("/api/").parse::<usize>().unwrap()];
        Reply::bytes(format!("HTTP/1.1 200 OK\r\n{case}")).then(Step::Close)
    };
    let seller = Seller::answering(script).await;
    let world = hasty(&seller).await;
    let buyer = world.buyer(&["api-5"]).await;
    for (number, case) in cases.iter().enumerate() {
        let answer = world.call(&Request::post(&format!("/api/{number}")).bearer(&buyer.key)).await;
        assert_eq!(answer.status(), 502, "{case:?}");
        check_upstream_error(answer, 502, "upstream_broke");
    }
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn a_seller_that_does_not_read_an_upload_is_late_not_its_client() {
    let seller = Seller::by_hand_from_the_head().await;
    let world = hasty(&seller).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = world.client().await;
    let length = 64 << 20;
    let head = Request::post("/api/up").bearer(&buyer.key).field("Content-Length", &length.to_string()).bytes();
    client.send(head).await;
    let exchange = seller.next().await;
    let piece = vec![b'u'; length];
    client.send(&piece).await; // what the seller does not take the gateway drops, once it has answered
    check_upstream_error(client.answer("POST").await, 504, "upstream_timeout");
    drop(exchange);
    // And one that reads all of it and then says nothing.
    let mut client = world.client().await;
    client.send(Request::post("/api/up").bearer(&buyer.key).body(b"short").bytes()).await;
    let _exchange = seller.next().await;
    check_upstream_error(client.answer("POST").await, 504, "upstream_timeout");
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn bytes_after_an_answer_are_dropped_with_their_connection() {
    let seller = Seller::always(Reply::bytes([plain(200, "{}"), b"HTTP/1.1 200 OK\r\n\r\nx".to_vec()].concat())).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = world.client().await;
    for _ in 0..3 {
        let answer = client.call(&Request::post("/api/x").bearer(&buyer.key)).await.expect(200);
        assert_eq!(answer.text(), "{}");
    }
}

#[tokio::test]
async fn redirects_pass_and_are_never_followed() {
    let reply = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let seller = Seller::always(Reply::bytes(reply)).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-1"]).await;
    world.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(302);
    assert_eq!(seller.requests().len(), 1);
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn a_seller_that_refuses_the_gateways_own_credential_is_the_operators_problem() {
    let reply =
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"vendor\"\r\nContent-Length: 6\r\n\r\nvendor";
    let seller = Seller::always(Reply::bytes(reply)).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    let answer = world.call(&Request::chat(&buyer.key)).await;
    assert_eq!(answer.head.get("www-authenticate"), None);
    assert!(!answer.text().contains("vendor"));
    check_upstream_error(answer, 502, "seller_auth");
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn a_sellers_early_answer_to_an_upload_reaches_the_buyer() {
    let seller = Seller::by_hand_from_the_head().await;
    let limits = json!({ "body_timeout": "1s", "idle_timeout": "1s" });
    let world = World::with(seller.address, |config| config["limits"] = limits).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = world.client().await;
    let head = format!(
        "POST /api/up HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 1000000\r\n\r\nbegun",
        buyer.key
    );
    client.send(head).await;
    let mut exchange = seller.next().await;
    exchange.send(plain(409, "{\"early\":1}")).await;
    let answer = client.answer("POST").await.expect(409);
    assert_eq!(answer.text(), "{\"early\":1}");
    // Neither side may be used for another request: the upload never ended.
    exchange.gateway_ends().await;
    within("the gateway closes the upload's connection", client.wire.end()).await;
    costs_nothing(&world, &buyer.account).await;
}

#[tokio::test]
async fn long_extensions_and_trailers_of_an_answer_end_at_the_gateway() {
    let extension = "e".repeat(1 << 10);
    let chunks: String = (0..60).map(|_| format!("2  ;sig={extension}\r\nok\r\n")).collect();
    let trailers: String = (0..50).map(|n| format!("X-{n}: {}\r\n", "t".repeat(600))).collect();
    let bytes = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n{trailers}\r\n");
    let seller = Seller::always(Reply::bytes(bytes)).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        let answer = client.call(&Request::post("/api/x").bearer(&buyer.key)).await.expect(200);
        assert_eq!(answer.text(), "ok".repeat(60));
    }
    assert_eq!(seller.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn an_upload_goes_on_while_its_client_does_not_read_the_answer() {
    let seller = Seller::by_hand_from_the_head().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = world.client().await;
    let (piece, length) = (vec![b'x'; 64 << 10], 16 << 20);
    let head = Request::post("/api/up").bearer(&buyer.key).field("Content-Length", &length.to_string()).bytes();
    client.send(head).await;
    let mut exchange = seller.next().await;
    exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // The answer is held back: nobody reads it.
    let mut answered = 0;
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(500), exchange.wire.send(&chunk(&piece))).await {
        sent.unwrap();
        answered += piece.len();
    }
    let upload = async {
        for _ in 0..length / piece.len() {
            client.send(&piece).await;
        }
    };
    let (read, ()) = tokio::join!(within("the seller reads the upload", exchange.wire.exactly(length)), upload);
    assert_eq!(read.unwrap().len(), length);
    assert_eq!(client.head().await.status(), 200);
    client.chunked(answered).await;
}
