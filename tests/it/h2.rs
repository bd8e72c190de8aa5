//! Calls over HTTP/2: each stream is a call of its own, metered, timed and ended as over HTTP/1.

use std::time::Duration;

use http_body_util::BodyExt;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::client::{Client as Plain, Request};
use crate::harness::h2::{
    Client, DATA, END_STREAM, GOAWAY, HEADERS, Outcome, PING, PREFACE, RST_STREAM, Raw, SETTINGS, frame, headers,
};
use crate::harness::seller::{LAST_CHUNK, Reply, SSE_HEAD, Seller, Step, chunk};
use crate::harness::tls::Files;
use crate::harness::wire::End;
use crate::harness::within;
use crate::harness::world::{World, base_config, product};

/// A seller must be told of a hang-up within this time.
const CANCEL_MAX: Duration = Duration::from_millis(500);

async fn world(seller: &Seller, more: impl FnOnce(&mut Value)) -> World {
    World::with(seller.address, |config| {
        config["listeners"]["data"] = json!({ "address": "127.0.0.1:0", "h2c": true });
        more(config);
    })
    .await
}

#[tokio::test]
async fn a_request_that_only_begins_like_the_preface_is_answered() {
    let seller = Seller::plain().await;
    let world = world(&seller, |_| {}).await;
    for (line, status) in [("PRI /x HTTP/1.1", 404), ("PRI * HTTP/1.1", 400)] {
        let mut client = world.client().await;
        client.send(format!("{line}\r\nHost: a\r\n\r\n")).await;
        client.answer("PRI").await.expect(status);
    }
}

#[tokio::test]
async fn calls_take_the_whole_way_over_tls_and_arrive_as_http_1() {
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(&dir.path().join("pki"), "localhost");
    let mut config = base_config(seller.address);
    config["listeners"]["data"] =
        json!({ "address": "127.0.0.1:0", "tls": { "certificates": Files::listed(&[&files]) } });
    let api = product(&mut config, "api");
    api["accept"] = json!(["signature", "app_code", "api_key"]);
    api["app_code_query"] = json!("AppCode");
    api["host"] = json!("localhost");
    let world = World::on(dir, config).await;
    let buyer = world.buyer(&["api-50", "chat-5"]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    let mut client = Client::tls(world.data, files.client()).await;
    let at_home = |request: Request| request.field("Host", "localhost");
    for request in [
        Request::get("/api/x").field("X-Apig-AppCode", &code),
        Request::get("/api/x").field("Authorization", &format!("APPCODE {code}")),
        Request::get(&format!("/api/x?AppCode={code}")),
        Request::get("/api/x").bearer(&buyer.key),
        Request::chat(&buyer.key),
    ] {
        client.call(&at_home(request)).await.expect(200);
    }
    // The authority is what a signature covers as host, and what a product is found by.
    let body = at_home(Request::post("/api/x").json("{\"a\":1}"));
    client.call(&signer.sign(body)).await.expect(200);
    let elsewhere = client.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(404);
    assert_eq!(elsewhere.field("x-tollgate-error-code"), Some("path_not_found"));
    assert_eq!(elsewhere.field("x-request-id").map(str::len), Some(32));
    let crumbs = Request::get("/api/x").bearer(&buyer.key).field("Cookie", "a=1").also("Cookie", "b=2");
    let answer = client.call(&at_home(crumbs)).await.expect(200);
    assert_eq!(answer.head.version, http::Version::HTTP_2);
    assert!(answer.field("connection").is_none() && answer.field("x-tollgate-remaining").is_some());
    let seen = seller.requests().pop().unwrap();
    assert!(seen.head.start.ends_with(" HTTP/1.1"), "{}", seen.head.start);
    assert_eq!(
        (seen.head.get("host"), seen.head.get("cookie")),
        (Some(seller.address.to_string().as_str()), Some("a=1; b=2"))
    );
    world.settles(&buyer.account, 7).await;
    let metrics = world.admin.metrics().await;
    assert_eq!(metrics.sum("tollgate_client_connections_total", &[("protocol", "h2")]), 1.0);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_in_our_own_words() {
    let seller = Seller::plain().await;
    let world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["api-5"]).await;
    let mut client = Client::plain(world.data).await;
    let fine = Request::get("/api/x").bearer(&buyer.key).field("X-Long", &"v".repeat(30_000));
    client.call(&fine).await.expect(200);
    for length in [33_000, 60_000] {
        let answer = client.call(&fine.clone().field("X-Long", &"v".repeat(length))).await.expect(431);
        assert_eq!(answer.field("x-tollgate-error-code"), Some("head_too_large"));
        assert!(String::from_utf8_lossy(&answer.body).contains("larger than 32 KiB"), "{:?}", answer.body);
        assert!(answer.field("x-request-id").is_some());
    }
    client.call(&fine).await.expect(200); // the connection goes on
    assert_eq!(seller.requests().len(), 2);
}

#[tokio::test]
async fn calls_of_one_connection_run_beside_each_other_and_each_is_charged_once() {
    let seller = Seller::by_hand().await;
    let world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["api-50"]).await;
    let client = Client::plain(world.data).await;
    let calls: Vec<_> = (0..20)
        .map(|at| {
            let (mut client, key) = (client.clone(), buyer.key.clone());
            tokio::spawn(async move { client.call(&Request::get(&format!("/api/{at}")).bearer(&key)).await })
        })
        .collect();
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(seller.next().await); // all are open at once
    }
    while let Some(mut exchange) = open.pop() {
        let path = exchange.seen.head.target().to_owned();
        exchange.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())).await;
        exchange.done();
    }
    for (at, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap().expect(200);
        assert_eq!(answer.body, format!("/api/{at}"));
    }
    world.settles(&buyer.account, 20).await;
}

#[tokio::test]
async fn a_hang_up_ends_one_call_and_no_other() {
    let seller = Seller::by_hand().await;
    let world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let mut client = Client::plain(world.data).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut sender = client.clone();
        let request = Request::stream(&buyer.key);
        let begun = tokio::spawn(async move { sender.begin(&request).await.unwrap() });
        let mut exchange = seller.next().await;
        exchange.send(SSE_HEAD).await;
        streams.push((begun.await.unwrap(), exchange));
    }
    let ((mut kept, mut lasting), (dropped, leaving)) = (streams.remove(0), streams.remove(0));
    let hung_up = std::time::Instant::now();
    drop(dropped);
    let mut leaving = leaving;
    let (_, at) = leaving.gateway_ends().await;
    assert!(at - hung_up < CANCEL_MAX, "{:?}", at - hung_up);
    // Before an answer's head, too.
    let mut waiting = client.clone();
    let request = Request::chat(&buyer.key);
    let call = tokio::spawn(async move { waiting.begin(&request).await });
    let mut unanswered = seller.next().await;
    call.abort();
    unanswered.gateway_ends().await;
    lasting.send([chunk("data: 1\n\n"), LAST_CHUNK.into()].concat()).await;
    lasting.done();
    let body = within("the other stream", kept.body_mut().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "data: 1\n\n");
    world.charged(2).await;
    let request = Request::chat(&buyer.key);
    let call = tokio::spawn(async move { client.call(&request).await });
    let mut exchange = seller.next().await;
    exchange.send(crate::harness::seller::plain(200, "{}")).await;
    exchange.done();
    call.await.unwrap().expect(200);
}

/// A request's head in fields.
fn fields<'a>(method: &'a str, path: &'a str, bearer: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", path),
        ("authorization", bearer),
    ]
}

#[tokio::test]
async fn a_body_that_stops_ends_its_own_call_and_no_other() {
    let seller = Seller::plain().await;
    let world = world(&seller, |config| config["limits"]["body_timeout"] = json!("1s")).await;
    let buyer = world.buyer(&["api-50", "chat-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    for path in ["/api/upload", "/v1/infers/chat/v1/chat/completions"] {
        let mut raw = Raw::connect(world.data).await;
        raw.send(&headers(1, &fields("POST", path, &bearer), false)).await;
        raw.send(&frame(DATA, 0, 1, b"{\"model\":")).await;
        raw.send(&headers(3, &fields("GET", "/api/other", &bearer), true)).await;
        assert!(matches!(raw.outcome(3).await, Outcome::Answered(200, _)));
        let late = raw.outcome(1).await;
        assert!(matches!(&late, Outcome::Answered(408, body) if body.contains("stopped arriving")), "{path}: {late:?}");
        // The connection serves on.
        raw.send(&headers(5, &fields("GET", "/api/other", &bearer), true)).await;
        assert!(matches!(raw.outcome(5).await, Outcome::Answered(200, _)));
        let mut cut = Raw::connect(world.data).await;
        cut.send(&headers(1, &fields("POST", path, &bearer), false)).await;
        cut.send(&frame(DATA, 0, 1, b"{\"model\":")).await;
        drop(cut);
    }
    world.charged(4).await;
    let posts = seller.requests().into_iter().filter(|seen| seen.head.method() == "POST");
    assert!(posts.into_iter().all(|seen| seen.body.cut.is_some()), "a body that was cut is never ended properly");
}

#[tokio::test]
async fn trailers_that_belong_into_the_head_are_refused_as_in_http_1() {
    let seller = Seller::plain().await;
    let world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["api-50", "chat-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut raw = Raw::connect(world.data).await;
    let mut stream = 1;
    for path in ["/api/upload", "/v1/infers/chat/v1/chat/completions"] {
        for (name, status) in [("authorization", 400), ("host", 400), ("content-length", 400), ("x-sum", 200)] {
            raw.send(&headers(stream, &fields("POST", path, &bearer), false)).await;
            raw.send(&frame(DATA, 0, stream, b"{\"model\":\"m\"}")).await;
            raw.send(&headers(stream, &[(name, "1")], true)).await;
            let outcome = raw.outcome(stream).await;
            assert!(matches!(&outcome, Outcome::Answered(is, _) if *is == status), "{path} {name}: {outcome:?}");
            stream += 2;
        }
    }
    world.charged(2).await;
}

#[tokio::test]
async fn a_refusal_amid_an_upload_is_heard_before_the_stream_ends() {
    let seller = Seller::plain().await;
    let world = world(&seller, |_| {}).await;
    let mut raw = Raw::connect(world.data).await;
    for path in ["/api/upload", "/v1/infers/chat/v1/chat/completions"] {
        let mut raw = Raw::connect(world.data).await;
        raw.send(&headers(1, &fields("POST", path, "Bearer sk-tg-wrong"), false)).await;
        assert!(matches!(raw.outcome(1).await, Outcome::Answered(401, _)));
        for _ in 0..3 {
            raw.send(&frame(DATA, 0, 1, &[b'x'; 16_000])).await;
        }
        raw.send(&frame(PING, 0, 0, &[7; 8])).await;
        loop {
            let (kind, flags, of, _) = raw.next().await.unwrap();
            assert!(kind != RST_STREAM, "stream {of} is reset while its client sends");
            if kind == PING && flags == 1 {
                break;
            }
        }
        raw.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    }
    // A client that neither sends nor ends is not waited for: it is told that nothing more is wanted.
    raw.send(&headers(1, &fields("POST", "/api/upload", "Bearer sk-tg-wrong"), false)).await;
    assert!(matches!(raw.outcome(1).await, Outcome::Answered(401, _)));
    assert_eq!(raw.outcome(1).await, Outcome::Reset(0));
    assert_eq!(seller.connections(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_resets_its_stream() {
    let reply = Reply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot a hundred").then(Step::Close);
    let seller = Seller::always(reply).await;
    let world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["api-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut raw = Raw::connect(world.data).await;
    raw.send(&headers(1, &fields("GET", "/api/x", &bearer), true)).await;
    assert!(matches!(raw.outcome(1).await, Outcome::Reset(_)));
    world.charged(0).await;
    assert_eq!(world.admin.metrics().await.sum("tollgate_units_voided_total", &[]), 1.0);
}

#[tokio::test]
async fn an_answer_that_was_whole_is_complete_though_its_client_takes_none_of_it() {
    let whole = crate::harness::seller::plain(200, "{\"whole\":true}");
    let begun = Reply::bytes(&whole[..whole.len() - 4]).then(Step::Hang);
    for (reply, ending) in [(Reply::bytes(&whole), "complete"), (begun, "client_gone")] {
        let seller = Seller::always(reply).await;
        let mut world = world(&seller, |_| {}).await;
        let buyer = world.buyer(&["api-50"]).await;
        let mut raw = Raw::connect(world.data).await;
        raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await; // streams without a window: heads come, bodies do not
        let bearer = format!("Bearer {}", buyer.key);
        raw.send(&headers(1, &fields("GET", "/api/x", &bearer), true)).await;
        while raw.next().await.unwrap().0 != HEADERS {}
        drop(raw);
        let metrics = world.quiet().await;
        assert_eq!(metrics.sum("tollgate_call_endings_total", &[("ending", ending)]), 1.0, "{ending}");
        world.stop().await;
        let record = world.usage().pop().unwrap();
        assert_eq!((&record["ending"], &record["units"]), (&json!(ending), &json!(1)));
    }
}

/// More than all buffers on the way hold.
const FLOOD_BYTES: usize = 16 << 20;
/// A seller that could send nothing for this long is taken to be held back.
const HELD_BACK_AFTER: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_slow_reader_holds_little_and_slows_the_seller_down() {
    let seller = Seller::by_hand().await;
    let world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["api-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let before = world.gateway.resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..8 {
        // Windows as they are at first: 65,535 bytes, and never more.
        let mut raw = Raw::connect(world.data).await;
        raw.send(&headers(1, &fields("GET", "/api/x", &bearer), true)).await;
        let mut exchange = seller.next().await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n");
        exchange.send(head).await;
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while sent < FLOOD_BYTES {
                let piece = exchange.wire.send(&[b'x'; 65_536]);
                match tokio::time::timeout(HELD_BACK_AFTER, piece).await {
                    Ok(Ok(())) => sent += 65_536,
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            (exchange, sent)
        });
        readers.push((raw, flood));
    }
    let mut open = Vec::new();
    for (raw, flood) in readers {
        let (exchange, sent) = flood.await.unwrap();
        assert!(sent < FLOOD_BYTES, "the seller could send all of it");
        open.push((raw, exchange));
    }
    let held = world.gateway.resident_bytes().saturating_sub(before);
    assert!(held < 8 * 256 * 1024 + (4 << 20), "{held} bytes for 8 readers");
    drop(open);
    world.charged(8).await;
}

/// Waits until the gateway says that it takes no more; then stream 1 is ended, and the connection ends with it.
async fn finishes(raw: &mut Raw, end: impl Future<Output = ()>) {
    while raw.next().await.unwrap().0 != GOAWAY {}
    end.await;
    let mut ended = false;
    while let Some((kind, flags, of, content)) = raw.next().await {
        if kind == PING && flags == 0 {
            raw.send(&frame(PING, 1, 0, &content)).await;
        }
        ended |= kind == DATA && of == 1 && flags & END_STREAM != 0;
    }
    assert!(ended);
}

#[tokio::test]
async fn old_connections_end_once_their_calls_have() {
    let seller = Seller::by_hand().await;
    let world = world(&seller, |config| config["limits"]["connection_age"] = json!("1s")).await;
    let buyer = world.buyer(&["chat-1000000"]).await;
    let mut first = world.client().await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut raw = Raw::connect(world.data).await;
    raw.send(&headers(1, &fields("GET", "/v1/infers/chat/v1/x", &bearer), true)).await;
    let mut open = seller.next().await;
    open.send(SSE_HEAD).await;
    finishes(&mut raw, async {
        open.send([chunk("data: late\n\n"), LAST_CHUNK.into()].concat()).await;
        open.done();
    })
    .await;
    // HTTP/1 says it with the next answer.
    let answer = loop {
        first.send(Request::chat(&buyer.key).bytes()).await;
        let mut exchange = seller.next().await;
        exchange.send(crate::harness::seller::plain(200, "{}")).await;
        exchange.done();
        let answer = first.answer("POST").await.expect(200);
        if answer.head.get("connection").is_some() {
            break answer; // connections that were opened together do not end together
        }
    };
    assert_eq!(answer.head.get("connection"), Some("close"));
    assert_eq!(first.ends().await, End::Eof);
    let mut young = world.client().await;
    young.send(Request::chat(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send(crate::harness::seller::plain(200, "{}")).await;
    exchange.done();
    assert_eq!(young.answer("POST").await.expect(200).head.get("connection"), None);
}

#[tokio::test]
async fn an_idle_connection_ends_with_a_message() {
    let seller = Seller::plain().await;
    let world = world(&seller, |config| config["limits"]["idle_timeout"] = json!("1s")).await;
    let buyer = world.buyer(&["api-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    for calls in [0, 1] {
        let mut raw = Raw::connect(world.data).await;
        for _ in 0..calls {
            raw.send(&headers(1, &fields("GET", "/api/x", &bearer), true)).await;
            assert!(matches!(raw.outcome(1).await, Outcome::Answered(200, _)));
        }
        assert_eq!(raw.end().await, Some(0), "a GOAWAY without an error");
    }
}

#[tokio::test]
async fn a_stop_waits_for_streams_and_takes_no_more() {
    let seller = Seller::by_hand().await;
    let mut world = world(&seller, |_| {}).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let mut raw = Raw::connect(world.data).await;
    raw.send(&headers(1, &fields("GET", "/v1/infers/chat/v1/x", &bearer), true)).await;
    let mut exchange = seller.next().await;
    exchange.send(SSE_HEAD).await;
    while raw.next().await.unwrap().0 != HEADERS {}
    world.gateway.signal(Signal::TERM);
    finishes(&mut raw, async {
        exchange.send([chunk("data: 1\n\n"), LAST_CHUNK.into()].concat()).await;
        exchange.done();
    })
    .await;
    assert_eq!(world.gateway.exit().await.code, Some(0));
    assert_eq!(world.usage().len(), 1);
}

#[tokio::test]
async fn without_tls_it_is_spoken_only_where_the_operator_says_so() {
    let seller = Seller::plain().await;
    let off = World::start(seller.address).await;
    let mut client = Plain::connect(off.data).await;
    client.send([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await;
    client.answer("PRI").await.expect(400);
    // Where it is on, HTTP/1 is spoken as before, however slowly it begins.
    let on = world(&seller, |_| {}).await;
    let buyer = on.buyer(&["api-5"]).await;
    let request = Request::new("PUT", "/api/x").bearer(&buyer.key).body(b"x").bytes();
    let mut client = on.client().await;
    client.send(&request[..1]).await;
    client.send(&request[1..]).await;
    client.answer("PUT").await.expect(200);
    on.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
}
