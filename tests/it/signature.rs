//! Signed calls: what verifies reaches the seller once and is charged, what does not costs nothing and tells nothing.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::harness::admin::Buyer;
use crate::harness::client::{Answer, Request};
use crate::harness::seller::{Reply, Seen, Seller};
use crate::harness::signer::{Signer, date};
use crate::harness::world::{World, product};
use crate::harness::{admin, until};

/// A buyer with an app that opens `api`.
async fn signing(world: &World) -> (Buyer, String, Signer) {
    let buyer = world.buyer(&["api-1000"]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    (buyer, app, signer)
}

fn post() -> Request {
    Request::post("/api/v1/things?b=2&a=1").json(r#"{"name":"thing"}"#)
}

#[tokio::test]
async fn a_signed_call_is_forwarded_without_its_signature_and_charged_once() {
    let seller = Seller::answering(|seen: &Seen| Reply::json(200, &json!(seen.text()).to_string())).await;
    let world = World::start(seller.address).await;
    let (buyer, app, signer) = signing(&world).await;
    let answer = world.call(&signer.sign(post())).await.expect(200);
    assert_eq!(answer.head.get("x-tollgate-remaining"), Some("999"));
    let seen = seller.requests().pop().unwrap();
    assert_eq!(
        (seen.head.target(), seen.body.bytes.as_slice()),
        ("/api/v1/things?b=2&a=1", &br#"{"name":"thing"}"#[..])
    );
    for gone in ["x-sdk-date", "x-sdk-content-sha256"] {
        assert_eq!(seen.head.get(gone), None, "{gone}");
    }
    assert!(!seen.head.get("authorization").unwrap().contains("SDK-HMAC"));
    let mut client = world.client().await;
    for request in [Request::get("/api/x"), Request::new("DELETE", "/api/x"), post()] {
        client.call(&signer.sign(request)).await.expect(200);
    }
    world.settles(&buyer.account, 4).await;
    assert!(world.usage().iter().all(|record| record["app"] == app.as_str()));
    let metrics = world.admin.metrics().await;
    assert_eq!(metrics.sum("tollgate_signatures_total", &[("rule", "base")]), 4.0);
    // The key of before works beside it.
    world.call(&post().bearer(&buyer.key)).await.expect(200);
}

/// What must be the same for all who may not know why.
fn seen_by_a_stranger(answer: &Answer) -> (u16, String, String) {
    let id = answer.head.get("x-request-id").unwrap().to_owned();
    let fields = answer.head.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name}: {}", value.replace(&id, "ID"))).collect();
    (answer.status(), fields.join("; "), answer.text().replace(&id, "ID"))
}

#[tokio::test]
async fn a_stranger_learns_nothing_from_a_refusal() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (buyer, _, signer) = signing(&world).await;
    let (_, unbound) = world.admin.add_app(&buyer.account, &[]).await;
    let wrong = Signer { secret: "0123456789abcdef0123456789abcdef".into(), ..signer.clone() };
    let unknown = Signer { app_key: "0123456789abcdef0123456789abcdef".into(), ..signer.clone() };
    let mut seen = Vec::new();
    for stranger in [&wrong, &unknown, &unbound, &wrong, &unknown] {
        let answer = world.call(&stranger.sign(post())).await.expect(401);
        assert_eq!(answer.code(), "APIG.0303");
        seen.push(seen_by_a_stranger(&answer));
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:#?}");
    assert!(seen[0].2.contains("verify signature fail"), "{}", seen[0].2);
    assert_eq!(seller.requests().len(), 0);
    world.charged(0).await;
}

#[tokio::test]
async fn what_was_changed_after_signing_is_refused() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (_, _, signer) = signing(&world).await;
    let signed = || signer.sign(post());
    let other_target = |target: &str| {
        let mut changed = Request::new("POST", target);
        for (name, value) in signed().fields() {
            changed = changed.field(name, value);
        }
        changed.body(signed().body_bytes())
    };
    let other_method = |method: &str| {
        let mut changed = Request::new(method, "/api/v1/things?b=2&a=1");
        for (name, value) in signed().fields() {
            changed = changed.field(name, value);
        }
        changed.body(signed().body_bytes())
    };
    for (what, request) in [
        ("body", signed().body(b"{}")),
        ("no body", signed().body(b"")),
        ("path", other_target("/api/v1/other?b=2&a=1")),
        ("query", other_target("/api/v1/things?b=2&a=1&c=3")),
        ("method", other_method("PUT")),
        ("header", signed().field("Content-Type", "text/plain")),
        ("host", signed().field("Host", "other.test")),
        ("date", signed().field("X-Sdk-Date", "20200101T000000Z")),
        ("date's form", signed().field("X-Sdk-Date", "2026-01-15T08:30:00Z")),
        ("two dates", signed().also("X-Sdk-Date", "20260115T083000Z")),
        ("hash beside", signer.sign(post()).body(b"{}").field("X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD")),
    ] {
        let answer = world.call(&request).await;
        assert_eq!((answer.status(), answer.code().as_str()), (401, "APIG.0303"), "{what}: {}", answer.text());
    }
    world.call(&other_target("/api/v1/things?a=1&b=2")).await.expect(200); // the order of parameters is not signed
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn a_signed_header_cannot_be_named_as_one_that_ends_here() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (_, _, signer) = signing(&world).await;
    let signed = || signer.sign(post().field("X-Mine", "a"));
    for connection in ["x-mine", "close, X-MINE", "keep-alive,x-mine"] {
        let answer = world.call(&signed().field("Connection", connection)).await.expect(400);
        assert!(answer.message().contains("signed header"), "{}", answer.message());
    }
    assert_eq!(seller.received_bytes(), 0);
    world.call(&signed().field("Connection", "keep-alive, x-other")).await.expect(200);
    assert_eq!(seller.request().head.get("x-mine"), Some("a"));
}

#[tokio::test]
async fn faults_that_need_no_secret_are_named() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (_, _, signer) = signing(&world).await;
    let now = Timestamp::now();
    let check = async |request: Request, code: &str, word: &str| {
        let answer = world.call(&request).await.expect(401);
        assert_eq!(answer.head.get("x-tollgate-error-code"), Some(code), "{}", answer.text());
        assert!(answer.message().contains(word), "{word}: {}", answer.text());
        assert_eq!(answer.head.get("www-authenticate"), Some("SDK-HMAC-SHA256"));
    };
    for minutes in [-16, 16] {
        let request = signer.sign_at(post(), now + SignedDuration::from_mins(minutes));
        check(request, "signature_expired", "signature expired").await;
    }
    world.call(&signer.sign_at(post(), now - SignedDuration::from_mins(14))).await.expect(200);
    let missing = signer.sign(post().field("X-Extra", "1"));
    let mut without = Request::post("/api/v1/things?b=2&a=1");
    for (name, value) in missing.fields().iter().filter(|(name, _)| name != "X-Extra") {
        without = without.field(name, value);
    }
    check(without.body(missing.body_bytes()), "invalid_signature", "x-extra").await;
    let garbled = post().field("Authorization", "SDK-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00");
    check(garbled, "invalid_signature", "malformed").await;
    let declared = post().field("X-Sdk-Date", &crate::harness::signer::date(now));
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let declared = signer.sign_with(declared.field("X-Sdk-Content-Sha256", hash), hash);
    check(declared, "invalid_signature", "body").await;
}

#[tokio::test]
async fn an_unsigned_body_passes_only_where_the_product_allows_it_and_then_streams() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        let mut free = product(config, "api").clone();
        free["id"] = json!("free");
        free["path"] = json!("/free");
        free["unsigned_payload"] = json!(true);
        free["meter"] = json!("none");
        config["products"].as_array_mut().unwrap().push(free);
    })
    .await;
    let buyer = world.buyer(&["api-5"]).await;
    let (_, signer) = world.admin.add_app(&buyer.account, &["api", "free"]).await;
    let unsigned = |target: &str| {
        let request =
            Request::post(target).json("{}").field("X-Sdk-Date", &crate::harness::signer::date(Timestamp::now()));
        signer.sign_with(request.field("X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD"), "UNSIGNED-PAYLOAD")
    };
    let refused = world.call(&unsigned("/api/x")).await.expect(401);
    assert!(refused.message().contains("UNSIGNED-PAYLOAD"), "{}", refused.text());
    world.call(&unsigned("/api/x").body(b"")).await.expect(401);
    world.call(&unsigned("/free/x")).await.expect(200);
    world.call(&unsigned("/free/x").body(b"swapped")).await.expect(200);
    world.call(&unsigned("/free/x").field("Content-Type", "text/plain")).await.expect(401);
    assert_eq!(seller.requests().len(), 2);
    // Some signers sign the hash of nothing for an empty body that they declare unsigned, however it is framed.
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let of_nothing = |target: &str| {
        let request = Request::post(target).field("X-Sdk-Date", &crate::harness::signer::date(Timestamp::now()));
        signer.sign_with(request.field("X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD"), hash)
    };
    let chunked = |target: &str, body: &str| {
        [&of_nothing(target).field("Transfer-Encoding", "chunked").bytes()[..], body.as_bytes()].concat()
    };
    for target in ["/free/x", "/api/x"] {
        world.call(&of_nothing(target)).await.expect(200);
        world.call(&of_nothing(target).field("Content-Length", "0")).await.expect(200);
        let mut client = world.client().await;
        client.send(chunked(target, "0\r\n\r\n")).await;
        client.answer("POST").await.expect(200);
        client.call(&Request::get("/free/x")).await.expect(401);
        world.call(&of_nothing(target).body(b"x")).await.expect(401);
        let mut client = world.client().await;
        client.send(chunked(target, "1\r\nx\r\n0\r\n\r\n")).await;
        client.answer("POST").await.expect(401);
    }
    assert_eq!(seller.requests().len(), 8);
    assert!(seller.requests().iter().skip(2).all(|seen| seen.body.bytes.is_empty()));
}

#[tokio::test]
async fn a_large_signed_body_goes_through_a_file_and_leaves_none_behind() {
    const LARGE: usize = 24 << 20;
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["limits"] = json!({ "spool_above": "64KiB" });
    })
    .await;
    let (_, _, signer) = signing(&world).await;
    world.call(&signer.sign(post())).await.expect(200);
    let before = world.gateway.resident_bytes();
    let body: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    let signed = signer.sign(Request::post("/api/up").body(&body));
    world.call(&signed).await.expect(200);
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 12 << 20, "grew by {grown} bytes");
    let seen = seller.requests().pop().unwrap();
    assert!(seen.body.bytes == body, "{} bytes arrived", seen.body.bytes.len());
    assert_eq!(seen.head.get("content-length"), Some(LARGE.to_string().as_str()));
    let mut changed = body;
    changed[LARGE - 1] ^= 1;
    world.call(&signed.clone().body(&changed)).await.expect(401);
    let folder = world.data_dir().join("spool");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    let too_large = signer.sign(Request::post("/api/up").body(&vec![0; 33 << 20]));
    let mut client = world.client().await;
    client.send(&too_large.bytes()[..4096]).await;
    assert_eq!(client.answer("POST").await.status(), 413);
}

#[tokio::test]
async fn bodies_that_nobody_we_know_has_signed_leave_room_for_others() {
    const LARGE: usize = 4 << 20;
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["limits"] = json!({ "spool_above": "64KiB", "spooled_bytes": "16MiB", "buffered_bytes": "64MiB" });
    })
    .await;
    let (_, _, signer) = signing(&world).await;
    let unknown = Signer { app_key: "0123456789abcdef0123456789abcdef".into(), ..signer.clone() };
    let body = vec![7; LARGE];
    let strange = unknown.sign(Request::post("/api/up").body(&body)).bytes();
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut client = world.client().await;
        client.send(&strange[..strange.len() - 1]).await; // taken in up to what lies in the sockets' buffers
        open.push(client);
    }
    world.call(&signer.sign(Request::post("/api/up").body(&body))).await.expect(200);
    for mut client in open {
        client.send(&strange[strange.len() - 1..]).await;
        client.answer("POST").await.expect(401);
    }
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn a_product_can_show_what_was_signed_without_its_values() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        product(config, "api")["signature_debug"] = json!(true);
    })
    .await;
    let (_, _, signer) = signing(&world).await;
    let wrong = Signer { secret: "0123456789abcdef".into(), ..signer };
    let answer = world.call(&wrong.sign(post().field("X-Canary", "canary-value"))).await.expect(401);
    let expected = "canonicalRequest:POST|/api/v1/things/|a=*&b=*|content-type:*|host:*|x-canary:*|x-sdk-date:*||content-type;host;x-canary;x-sdk-date|*";
    assert!(answer.message().contains(expected), "{}", answer.message());
}

#[tokio::test]
async fn a_rotated_secret_works_beside_the_one_before_as_long_as_was_asked_for() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (buyer, app, first) = signing(&world).await;
    let path = format!("/admin/v1/accounts/{}/apps/{app}/secret", buyer.account);
    let rotate = async |terms: serde_json::Value| {
        let rotated = world.admin.call("POST", &path, Some(&terms)).await.expect(200).json();
        Signer { app_key: first.app_key.clone(), secret: admin::text(&rotated, "app_secret") }
    };
    let becomes = async |signer: &Signer, status: u16| {
        let asked = std::time::Instant::now();
        let look = async || (world.call(&signer.sign(post())).await.status() == status).then_some(());
        until("the change is seen", look).await;
        assert!(asked.elapsed() < std::time::Duration::from_secs(1));
    };
    becomes(&first, 200).await;
    let second = rotate(json!({ "overlap_seconds": 600 })).await;
    becomes(&second, 200).await;
    becomes(&first, 200).await;
    let third = rotate(json!({})).await;
    becomes(&third, 200).await;
    for old in [&first, &second] {
        becomes(old, 401).await;
    }
    let brought = rotate(json!({ "app_secret": "a-secret-that-clients-have" })).await;
    assert_eq!(brought.secret, "a-secret-that-clients-have");
    becomes(&brought, 200).await;
    for bad in ["", "short", "with a blank in the middle"] {
        world.admin.call("POST", &path, Some(&json!({ "app_secret": bad }))).await.expect(422);
    }
    world.admin.call("DELETE", path.trim_end_matches("/secret"), None).await.expect(204);
    becomes(&brought, 401).await;
}

#[tokio::test]
async fn an_llm_product_can_accept_signatures_too() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        product(config, "chat")["accept"] = json!(["signature", "api_key"]);
    })
    .await;
    let buyer = world.buyer(&["chat-5"]).await;
    let (_, signer) = world.admin.add_app(&buyer.account, &["chat"]).await;
    let body = r#"{"model":"m","messages":[]}"#;
    for target in ["/v1/infers/chat/v1/chat/completions", "/v1/chat/completions"] {
        world.call(&signer.sign(Request::post(target).json(body))).await.expect(200);
        world.call(&signer.sign(Request::post(target).json(body)).body(b"{}")).await.expect(401);
    }
    world.call(&signer.sign(Request::get("/v1/models"))).await.expect(200);
    world.call(&signer.sign(Request::get("/v1/models")).field("Host", "b")).await.expect(401);
    world.settles(&buyer.account, 2).await;
}

#[tokio::test]
async fn a_body_that_must_be_signed_and_is_not_is_refused_before_it_is_sent() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (_, _, signer) = signing(&world).await;
    let word = "UNSIGNED-PAYLOAD";
    let request = Request::post("/api/x").field("X-Sdk-Date", &date(Timestamp::now()));
    let request = request.field("X-Sdk-Content-Sha256", word).field("Content-Length", "10");
    let request = signer.sign_with(request, word).field("Expect", "100-continue");
    let mut client = world.client().await;
    client.send(request.bytes()).await;
    let answer = client.answer("POST").await.expect(401);
    assert_eq!(answer.before.len(), 0, "the body was never asked for");
    assert!(answer.message().contains(word), "{}", answer.message());
}
