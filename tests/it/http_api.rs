//! HTTP products: any method and body passes untouched and unheld, headers of one hop end here, and the corners of
//! HTTP/1.x that proxies get wrong.

use serde_json::json;

use crate::harness::client::{Answer, Client, Request};
use crate::harness::seller::{Reply, Seen, Seller, Step, chunk};
use crate::harness::wire::{End, Framing};
use crate::harness::within;
use crate::harness::world::{SELLER_KEY, World, product};

/// What is streamed through, and by how much the gateway may grow meanwhile.
const STREAMED_BYTES: usize = 64 << 20;
const GROWTH_MAX_BYTES: u64 = 8 << 20;

/// A world whose product `api` is open to all and not metered: these tests are about HTTP alone.
async fn open_world(seller: &Seller) -> World {
    World::with(seller.address, |config| {
        let api = product(config, "api");
        api["access"] = json!("open");
        api["meter"] = json!("none");
        let offers = config["offers"].as_array_mut().unwrap();
        offers.retain(|offer| offer["product"] != "api");
    })
    .await
}

/// Sends raw bytes on a connection of its own.
async fn raw(world: &World, bytes: impl AsRef<[u8]>, method: &str) -> (Client, Answer) {
    let mut client = world.client().await;
    client.send(bytes).await;
    let answer = client.answer(method).await;
    (client, answer)
}

#[tokio::test]
async fn every_method_passes_with_its_target_and_body() {
    let seller = Seller::answering(|seen: &Seen| Reply::json(200, &json!(seen.text()).to_string())).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-1000"]).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let target = format!("/api/a%20b/%C3%A9;c//d/?m={method}&e=&e=2&p=a+b%2Bc");
        let request = Request::new(method, &target).bearer(&buyer.key).body(b"{\x00\xffbytes}");
        let answer = world.call(&request).await.expect(200);
        let seen = seller.requests().pop().unwrap();
        assert_eq!((seen.head.method(), seen.head.target()), (method, target.as_str()));
        assert_eq!(seen.body.bytes, b"{\x00\xffbytes}");
        assert_eq!(seen.head.get("authorization"), Some(format!("Bearer {SELLER_KEY}").as_str()));
        assert_eq!(answer.head.get("content-type"), Some("application/json"));
    }
    assert_eq!(world.call(&Request::get("/api").bearer(&buyer.key)).await.expect(200).text(), "\"\"");
    let metered = 1_000 - 8;
    let last = world.call(&Request::get("/api").bearer(&buyer.key)).await;
    assert_eq!(last.head.get("x-tollgate-remaining"), Some((metered - 1).to_string().as_str()));
}

#[tokio::test]
async fn a_body_without_a_length_reaches_the_seller_with_every_method() {
    let seller = Seller::plain().await;
    let world = open_world(&seller).await;
    for method in ["GET", "HEAD", "DELETE", "POST"] {
        let request = Request::new(method, "/api/x").field("Transfer-Encoding", "chunked").bytes();
        let bytes = [&request[..], &chunk("hello"), b"0\r\n\r\n"].concat();
        let (_, answer) = raw(&world, bytes, method).await;
        answer.expect(200);
        let seen = seller.requests().pop().unwrap();
        assert_eq!((seen.head.method(), seen.text().as_str()), (method, "hello"));
    }
}

#[tokio::test]
async fn an_empty_body_reaches_the_seller_with_its_length_and_no_body_without_one() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-50", "chat-50"]).await;
    for path in ["/api/x", "/v1/infers/chat/v1/x"] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            for (length, expected) in [(None, None), (Some("0"), Some("0"))] {
                let mut request = Request::new(method, path).bearer(&buyer.key);
                if let Some(length) = length {
                    request = request.field("Content-Length", length);
                }
                world.call(&request).await.expect(200);
                let seen = seller.requests().pop().unwrap();
                assert_eq!(seen.head.get("content-length"), expected, "{method} {path}");
                assert_eq!(seen.head.get("transfer-encoding"), None, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_host_and_the_longest_prefix_choose_and_the_prefix_can_be_taken_off() {
    let seller = Seller::plain().await;
    let address = seller.address;
    let world = World::with(address, |config| {
        let more = |id: &str, extra: serde_json::Value, base: &str| {
            let mut product = json!({
                "id": id, "kind": "http", "access": "open", "meter": "none",
                "upstream": { "base_url": format!("http://{address}{base}") },
            });
            for (key, value) in extra.as_object().unwrap() {
                product[key] = value.clone();
            }
            product
        };
        let products = config["products"].as_array_mut().unwrap();
        products.push(more("deep", json!({ "path": "/api/deep", "strip_path": true }), "/d"));
        products.push(more("hosted", json!({ "host": "files.test", "path": "/" }), "/h"));
    })
    .await;
    for (host, target, forwarded) in [
        ("any.test", "/api/deep/x?y=1", "/d/x?y=1"),
        ("any.test", "/api/deep", "/d/"),
        ("files.test", "/x/y", "/h/x/y"),
        ("FILES.test:80", "/", "/h/"),
    ] {
        world.call(&Request::get(target).field("Host", host)).await.expect(200);
        assert_eq!(seller.requests().pop().unwrap().head.target(), forwarded, "{host} {target}");
    }
    // Neither a longer segment nor another host belongs to it; the plain product wants a key.
    world.call(&Request::get("/api/deeper")).await.expect(401);
    world.call(&Request::get("/x/y")).await.expect(404);
}

#[tokio::test]
async fn an_upload_streams_through_without_being_held() {
    let seller = Seller::by_hand_from_the_head().await;
    let world = open_world(&seller).await;
    let mut client = world.client().await;
    let before = world.gateway.resident_bytes();
    client.send("POST /api/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(chunk("first")).await;
    let mut exchange = seller.next().await;
    assert_eq!(exchange.seen.head.request_framing(), Framing::Chunked);
    assert_eq!(within("the first piece", exchange.wire.chunk()).await, Ok(Some(b"first".to_vec())));
    let piece = chunk(vec![b'u'; 1 << 20]);
    let sending = async {
        for _ in 0..STREAMED_BYTES >> 20 {
            client.send(&piece).await;
        }
        client.send("0\r\n\r\n").await;
    };
    let receiving = async {
        let (mut count, mut peak) = (0, 0);
        while let Some(piece) = within("the upload's next piece", exchange.wire.chunk()).await.unwrap() {
            assert!(piece.iter().all(|byte| *byte == b'u'));
            count += piece.len();
            peak = peak.max(world.gateway.resident_bytes());
        }
        (count, peak)
    };
    let ((), (count, peak)) = tokio::join!(sending, receiving);
    assert_eq!(count, STREAMED_BYTES);
    assert!(peak.saturating_sub(before) < GROWTH_MAX_BYTES, "grew from {before} to {peak} bytes");
    exchange.send("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone").await;
    exchange.done();
    assert_eq!(client.answer("POST").await.expect(201).body, b"done");
}

#[tokio::test]
async fn a_download_streams_through_without_being_held() {
    let seller = Seller::by_hand().await;
    let world = open_world(&seller).await;
    let mut client = world.client().await;
    let before = world.gateway.resident_bytes();
    client.send(Request::get("/api/down").bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {STREAMED_BYTES}\r\n\r\n")).await;
    let head = client.head().await;
    assert_eq!(head.get("content-length"), Some(STREAMED_BYTES.to_string().as_str()));
    let piece = vec![b'd'; 1 << 20];
    let sending = async {
        for _ in 0..STREAMED_BYTES >> 20 {
            exchange.send(&piece).await;
        }
    };
    let receiving = async {
        let (mut count, mut peak) = (0, 0);
        while count < STREAMED_BYTES {
            count += within("the download's next piece", client.wire.some()).await.unwrap().len();
            peak = peak.max(world.gateway.resident_bytes());
        }
        (count, peak)
    };
    let ((), (count, peak)) = tokio::join!(sending, receiving);
    assert_eq!(count, STREAMED_BYTES);
    assert!(peak.saturating_sub(before) < GROWTH_MAX_BYTES, "grew from {before} to {peak} bytes");
}

#[tokio::test]
async fn headers_of_one_hop_end_here_in_both_directions() {
    let reply = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop-Down\r\nKeep-Alive: timeout=5\r\nX-Hop-Down: 1\r\n\
                 Proxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\nX-Kept: down\r\nContent-Length: 2\r\n\r\nok";
    let seller = Seller::always(Reply::bytes(reply)).await;
    let world = open_world(&seller).await;
    let request = Request::get("/api/x")
        .field("Connection", "keep-alive, X-Hop-Up")
        .field("Keep-Alive", "timeout=9")
        .field("X-Hop-Up", "1")
        .field("Proxy-Authorization", "Basic eDp5")
        .field("TE", "gzip")
        .field("X-Kept", "up")
        .field("X-Forwarded-For", "6.6.6.6")
        .field("X-Consumer-Id", "admin")
        .field("X-Tollgate-Remaining", "99");
    let answer = world.call(&request).await.expect(200);
    let seen = seller.request();
    for gone in ["keep-alive", "x-hop-up", "proxy-authorization", "te", "x-consumer-id", "x-tollgate-remaining"] {
        assert_eq!(seen.head.get(gone), None, "{gone} reached the seller");
    }
    assert_eq!(seen.head.get("x-kept"), Some("up"));
    assert_eq!(seen.head.get("x-forwarded-for"), Some("127.0.0.1"), "overwritten, not appended");
    for gone in ["keep-alive", "x-hop-down", "proxy-authenticate", "trailer", "upgrade"] {
        assert_eq!(answer.head.get(gone), None, "{gone} reached the buyer");
    }
    assert_eq!(answer.head.get("x-kept"), Some("down"));
}

#[tokio::test]
async fn answers_without_a_body_have_none_whatever_their_length_says() {
    let script = |seen: &Seen| match seen.head.target() {
        "/api/head" => Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n"),
        "/api/204" => Reply::bytes("HTTP/1.1 204 No Content\r\n\r\n"),
        "/api/304" => Reply::bytes("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n"),
        _ => Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    };
    let seller = Seller::answering(script).await;
    let world = open_world(&seller).await;
    let mut client = world.client().await;
    for (method, target, status, length) in [
        ("HEAD", "/api/head", 200, Some("1234")),
        ("GET", "/api/204", 204, None),
        ("GET", "/api/304", 304, Some("77")),
        ("DELETE", "/api/empty", 200, Some("0")),
        ("HEAD", "/api/head", 200, Some("1234")),
    ] {
        let answer = client.call(&Request::new(method, target)).await.expect(status);
        let shown = answer.head.get("content-length");
        // The length of what a 304 leaves out may be told or not.
        assert!(shown == length || (status == 304 && shown.is_none()), "{method} {target}: {shown:?}");
        assert_eq!(answer.body, b"");
    }
    assert_eq!(seller.connections(), 1, "each answer left the connection usable");
}

#[tokio::test]
async fn interim_answers_do_not_disturb_the_final_one() {
    let reply = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let seller = Seller::always(Reply::bytes(reply)).await;
    let world = open_world(&seller).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        let answer = client.call(&Request::get("/api/x")).await.expect(200);
        assert_eq!(answer.body, b"ok");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks_and_no_interim_answers() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let seller = Seller::answering(move |seen: &Seen| match seen.head.target() {
        "/api/chunked" => Reply::bytes(chunked),
        _ => Reply::json(200, "{}"),
    })
    .await;
    let world = open_world(&seller).await;
    let (mut client, answer) = raw(&world, "GET /api/chunked HTTP/1.0\r\nHost: a\r\n\r\n", "GET").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.head.get("transfer-encoding"), None);
    assert_eq!(answer.body, b"abcde");
    assert_eq!(client.ends().await, End::Eof);
    let ask = "POST /api/plain HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}";
    let (mut client, answer) = raw(&world, ask, "POST").await;
    assert_eq!((answer.status(), answer.before.len()), (200, 0));
    assert_eq!(client.ends().await, End::Eof);
}

#[tokio::test]
async fn a_client_that_expects_100_is_judged_before_it_sends_its_body() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-1", "chat-1"]).await;
    let head = |path: &str, key: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Content-Length: 13\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    for path in ["/api/x", "/v1/infers/chat/v1/x"] {
        let mut client = world.client().await;
        client.send(head(path, &buyer.key)).await;
        assert_eq!(client.head().await.status(), 100, "{path}");
        client.send(r#"{"model":"m"}"#).await;
        let answer = client.answer("POST").await.expect(200);
        assert_eq!(answer.before.len(), 0, "only one 100");
        let seen = seller.requests().pop().unwrap();
        assert_eq!((seen.text().as_str(), seen.head.get("expect")), (r#"{"model":"m"}"#, None));
    }
    for (path, key, status) in [("/api/x", "sk-tg-none", 401), ("/nowhere", &*buyer.key, 404)] {
        let (mut client, answer) = raw(&world, head(path, key), "POST").await;
        assert_eq!((answer.status(), answer.before.len()), (status, 0), "{path}");
        assert_eq!(client.ends().await, End::Eof, "the body was never asked for");
    }
    // Used up: said before the body, not after it.
    for path in ["/api/x", "/v1/infers/chat/v1/x"] {
        let (_, answer) = raw(&world, head(path, &buyer.key), "POST").await;
        assert_eq!((answer.status(), answer.before.len()), (429, 0), "{path}");
    }
    // The same of a limit and a budget; a look ahead uses neither.
    let other = world.buyer(&["chat-5"]).await;
    for (settings, code) in [
        (json!({ "limits": { "per_day": 1 } }), "rate_limit_exceeded"),
        (json!({ "budget": { "total": 1 } }), "budget_exhausted"),
    ] {
        let (_, key) = world.admin.add_key(&other.account, &settings).await;
        let mut client = world.client().await;
        client.send(head("/v1/infers/chat/v1/x", &key)).await;
        assert_eq!(client.head().await.status(), 100, "{code}");
        client.send(r#"{"model":"m"}"#).await;
        client.answer("POST").await.expect(200);
        let (_, answer) = raw(&world, head("/v1/infers/chat/v1/x", &key), "POST").await;
        assert_eq!((answer.status(), answer.before.len()), (429, 0));
        assert_eq!(answer.head.get("x-tollgate-error-code"), Some(code));
    }
    assert_eq!(seller.requests().len(), 4);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let mut client = world.client().await;
    client.send("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").await;
    client.send(vec![b'x'; 1_000_000]).await;
    client.send(vec![b'x'; 1_000_000]).await;
    client.answer("POST").await.expect(401);
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn a_client_that_reads_when_it_has_sent_all_gets_its_refusal() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let chat = "/v1/infers/chat/v1/x";
    for (path, key, mib, status) in
        [("/api/x", "sk-tg-none", 30, 401), (chat, "sk-tg-none", 30, 401), (chat, &*buyer.key, 64, 413)]
    {
        let request = Request::post(path).bearer(key).field("Content-Type", "application/json");
        let request = request.field("Content-Length", &(mib << 20).to_string()).bytes();
        let mut client = world.client().await;
        client.send(request).await;
        let piece = vec![b' '; 1 << 20];
        for _ in 0..mib {
            client.send(&piece).await;
        }
        let answer = client.answer("POST").await.expect(status);
        assert_eq!(answer.head.get("connection"), Some("close"), "it is said that the connection ends");
        assert_eq!(client.ends().await, End::Eof);
    }
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn connection_close_is_honoured_on_both_sides() {
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let seller = Seller::always(Reply::bytes(close)).await;
    let world = open_world(&seller).await;
    let mut client = world.client().await;
    for _ in 0..3 {
        let answer = client.call(&Request::get("/api/x")).await.expect(200);
        assert_ne!(answer.head.get("connection"), Some("close"), "the seller's wish is not the buyer's");
    }
    assert_eq!(seller.connections(), 3, "none of them is used again");
    let answer = client.call(&Request::get("/api/x").field("Connection", "close")).await.expect(200);
    assert_eq!(answer.head.get("connection"), Some("close"));
    assert_eq!(client.ends().await, End::Eof);
    assert_ne!(seller.requests().pop().unwrap().head.get("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_that_ends_with_the_sellers_connection_reaches_the_buyer_delimited() {
    let until_close = Reply::bytes("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it");
    let seller = Seller::always(until_close.then(Step::Close)).await;
    let world = open_world(&seller).await;
    let answer = world.call(&Request::get("/api/x")).await.expect(200);
    assert_eq!(answer.head.answer_framing("GET"), Framing::Chunked, "a cut must be visible to the buyer");
    assert_eq!((answer.text().as_str(), answer.cut), ("all of it", None));
}

#[tokio::test]
async fn a_seller_of_http_1_0_is_its_own_affair() {
    let script = |seen: &Seen| match seen.head.target() {
        "/api/length" => Reply::bytes("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").then(Step::Close),
        "/api/close" => Reply::bytes("HTTP/1.0 200 OK\r\n\r\nall of it").then(Step::Close),
        _ => Reply::bytes("HTTP/1.0 200 OK\r\n\r\nhalf of").then(Step::Reset),
    };
    let seller = Seller::answering(script).await;
    let world = open_world(&seller).await;
    let mut client = world.client().await;
    for (target, body) in [("/api/length", "ok"), ("/api/close", "all of it"), ("/api/length", "ok")] {
        let answer = client.call(&Request::get(target)).await.expect(200);
        assert!(answer.head.start.starts_with("HTTP/1.1 "), "{}", answer.head.start);
        assert_eq!((answer.text().as_str(), answer.cut), (body, None), "{target}");
    }
    let broken = client.call(&Request::get("/api/broken")).await;
    assert!(broken.status() == 502 || broken.cut.is_some(), "{broken:?}");
    // To a client of HTTP/1.0 nothing but a reset can tell.
    let (_, broken) = raw(&world, "GET /api/broken HTTP/1.0\r\n\r\n", "GET").await;
    assert!(broken.status() == 502 || broken.cut == Some(End::Reset), "{broken:?}");
}

#[tokio::test]
async fn no_upgrade_is_offered() {
    let seller = Seller::plain().await;
    let world = open_world(&seller).await;
    let request = Request::get("/api/x").field("Connection", "Upgrade").field("Upgrade", "websocket");
    let answer = world.call(&request).await.expect(400);
    assert!(answer.message().contains("upgrade"), "{}", answer.message());
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn preflights_are_answered_here_and_calls_can_be_read_by_pages() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5", "chat-5"]).await;
    for path in ["/api/x", "/v1/chat/completions", "/v1/infers/chat/v1/chat/completions"] {
        let asked = Request::new("OPTIONS", path)
            .field("Origin", "https://page.test")
            .field("Access-Control-Request-Method", "POST")
            .field("Access-Control-Request-Headers", "authorization, content-type");
        let answer = world.call(&asked).await.expect(204);
        assert_eq!(answer.head.get("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.head.get("access-control-allow-methods"), Some("POST"));
        assert_eq!(answer.head.get("access-control-allow-headers"), Some("authorization, content-type"));
    }
    assert_eq!(seller.received_bytes(), 0);
    let answer = world.call(&Request::chat(&buyer.key).field("Origin", "https://page.test")).await.expect(200);
    assert_eq!(answer.head.get("access-control-allow-origin"), Some("*"));
    assert!(answer.head.get("access-control-expose-headers").unwrap().contains("x-tollgate-remaining"));
    let answer = world.call(&Request::chat("sk-tg-x").field("Origin", "https://page.test")).await.expect(401);
    assert_eq!(answer.head.get("access-control-allow-origin"), Some("*"), "pages can read refusals too");
    world.charged(1).await;
}

#[tokio::test]
async fn requests_sent_back_to_back_are_answered_in_order() {
    let seller = Seller::answering(|seen: &Seen| Reply::json(200, &format!("\"{}\"", seen.head.target()))).await;
    let world = open_world(&seller).await;
    let mut client = world.client().await;
    let all: Vec<u8> = (0..5).flat_map(|n| Request::post(&format!("/api/{n}")).body(b"GET /x").bytes()).collect();
    client.send(all).await;
    for n in 0..5 {
        assert_eq!(client.answer("POST").await.expect(200).text(), format!("\"/api/{n}\""));
    }
}
