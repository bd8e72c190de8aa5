//! Calls from browsers' pages: whose are let in, by product, and what they may read.

use serde_json::json;

use crate::harness::client::{Answer, Request};
use crate::harness::seller::{Reply, Seller};
use crate::harness::world::{World, product};

const PAGE: &str = "https://app.example.com";
const OTHER: &str = "https://other.example.com";

async fn world(seller: &Seller) -> World {
    World::with(seller.address, |config| {
        product(config, "api")["cors"] = json!({
            "origins": [PAGE, "http://localhost:3000"], "methods": ["GET", "POST"],
            "exposed_headers": ["X-Seller-Region"], "max_age": "10m",
        });
        let mut closed = product(config, "api").clone();
        (closed["id"], closed["path"]) = (json!("closed"), json!("/closed"));
        closed["cors"] = json!({ "origins": [] });
        config["products"].as_array_mut().unwrap().push(closed);
    })
    .await
}

fn preflight(target: &str, origin: &str) -> Request {
    Request::new("OPTIONS", target)
        .field("Origin", origin)
        .field("Access-Control-Request-Method", "POST")
        .field("Access-Control-Request-Headers", "authorization,x-stainless-os")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.head.get("access-control-allow-origin")
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_rule_of_its_product() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    for origin in [PAGE, "http://localhost:3000"] {
        let answer = world.call(&preflight("/api/x?y=1", origin)).await.expect(204);
        assert_eq!(allowed(&answer), Some(origin));
        assert_eq!(answer.head.get("access-control-allow-methods"), Some("GET, POST"));
        assert_eq!(answer.head.get("access-control-allow-headers"), Some("authorization,x-stainless-os"));
        assert_eq!(answer.head.get("access-control-max-age"), Some("600"));
        let vary = "origin, access-control-request-method, access-control-request-headers";
        assert_eq!(answer.head.get("vary"), Some(vary));
        assert!(answer.head.get("x-request-id").is_some());
    }
    for (target, origin) in [
        ("/api/x", OTHER),
        ("/api/x", "null"),
        ("/api/x", "https://app.example.com:8443"),
        ("/api/x", "http://app.example.com"),
        ("/api/x", "https://app.example.com.evil.test"),
        ("/closed/x", PAGE),
    ] {
        let answer = world.call(&preflight(target, origin)).await.expect(204);
        let said = |(name, _): &&(String, String)| name.to_ascii_lowercase().starts_with("access-control-");
        assert_eq!(answer.head.fields.iter().find(said), None, "{target} {origin}");
        assert!(answer.head.get("vary").unwrap().contains("origin"));
    }
    let twice = preflight("/api/x", PAGE).also("Origin", OTHER);
    assert_eq!(allowed(&world.call(&twice).await.expect(204)), None, "of two origins none is believed");
    // What names no product may be any: the answer to the call itself says more.
    for target in ["/v1/chat/completions", "/v1/models", "/v1/infers/chat/v1/chat/completions", "/nothing"] {
        let answer = world.call(&preflight(target, OTHER)).await.expect(204);
        assert_eq!(allowed(&answer), Some("*"), "{target}");
        assert_eq!(answer.head.get("access-control-allow-methods"), Some("POST"));
        assert_eq!(answer.head.get("access-control-max-age"), Some("86400"));
    }
    assert_eq!(seller.requests().len(), 0);
    world.charged(0).await;
}

#[tokio::test]
async fn a_page_reads_answers_and_refusals_of_products_that_let_it() {
    let seller = Seller::answering(|_| {
        Reply::bytes(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: accept\r\nX-Seller-Region: eu\r\n\
             Access-Control-Allow-Origin: https://evil.test\r\nAccess-Control-Allow-Credentials: true\r\n\r\n{}",
        )
    })
    .await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["api-50", "chat-50"]).await;
    let get = |target: &str| Request::get(target).bearer(&buyer.key);
    let answer = world.call(&get("/api/x").field("Origin", PAGE)).await.expect(200);
    assert_eq!(allowed(&answer), Some(PAGE));
    let exposed = answer.head.get("access-control-expose-headers").unwrap().to_owned();
    for name in ["x-request-id", "x-tollgate-remaining", "x-tollgate-error-code", "retry-after", "x-seller-region"] {
        assert!(exposed.contains(name), "{name}: {exposed}");
    }
    assert_eq!(answer.head.all("vary"), ["accept", "origin"]);
    assert_eq!(answer.head.get("access-control-allow-credentials"), None, "the seller speaks for its own origin");
    // Another page's call is served, for this is no access control, but its browser will not show the answer.
    let answer = world.call(&get("/api/x").field("Origin", OTHER)).await.expect(200);
    assert_eq!((allowed(&answer), answer.head.all("vary")), (None, vec!["accept", "origin"]));
    // Caches must not hand a page what somebody else asked for.
    let answer = world.call(&get("/api/x")).await.expect(200);
    assert_eq!((allowed(&answer), answer.head.all("vary")), (None, vec!["accept", "origin"]));
    let refused = world.call(&Request::get("/api/x").field("Origin", PAGE)).await.expect(401);
    assert_eq!(allowed(&refused), Some(PAGE), "the page can read why");
    assert_eq!(refused.head.get("x-tollgate-error-code"), Some("missing_api_key"));
    assert_eq!(allowed(&world.call(&get("/closed/x").field("Origin", PAGE)).await.expect(429)), None);
    // What names no product depends on the origin as soon as one of those that it may have meant does.
    for (origin, expected) in [(Some(OTHER), Some("*")), (Some(PAGE), Some(PAGE)), (None, None)] {
        let lost = get("/nothing");
        let answer = world.call(&origin.map_or(lost.clone(), |origin| lost.field("Origin", origin))).await.expect(404);
        assert_eq!((allowed(&answer), answer.head.all("vary").contains(&"origin")), (expected, true), "{origin:?}");
        // As does a head that is refused before it is understood: the page can read why.
        let odd = get("/api/x").field("X_Odd", "1");
        let answer = world.call(&origin.map_or(odd.clone(), |origin| odd.field("Origin", origin))).await.expect(400);
        assert_eq!((allowed(&answer), answer.head.all("vary").contains(&"origin")), (expected, true), "{origin:?}");
    }
    // The default lets every page in.
    let chat = Request::chat(&buyer.key).field("Origin", OTHER);
    let answer = world.call(&chat).await.expect(200);
    assert_eq!((allowed(&answer), answer.head.all("vary")), (Some("*"), vec!["accept"]));
    let by_model = Request::post("/v1/chat/completions").json(r#"{"model":"m"}"#).field("Origin", OTHER);
    assert_eq!(allowed(&world.call(&by_model).await.expect(401)), Some("*"));
}

#[tokio::test]
async fn options_without_a_preflights_headers_is_a_call_like_any_other() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["api-50"]).await;
    world.call(&Request::new("OPTIONS", "/api/x").field("Origin", PAGE)).await.expect(401);
    world.call(&Request::new("OPTIONS", "/api/x").field("Origin", PAGE).bearer(&buyer.key)).await.expect(200);
    assert_eq!(seller.requests().len(), 1);
}
