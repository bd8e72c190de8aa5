//! What the gateway proves itself to a seller with never comes back in an answer's head, whatever the seller does with it.

use serde_json::json;

use crate::harness::client::Request;
use crate::harness::seller::{Reply, Seen, Seller};
use crate::harness::world::{SELLER_KEY, World, product};

/// A second secret, in a header of the operator's choice.
const TOKEN: &str = "partner-token-77aa";

/// A seller that sends back every header that it gets, and its secrets in other places besides.
async fn echoing() -> Seller {
    Seller::answering(|seen: &Seen| {
        let framing = ["connection", "content-length", "host", "transfer-encoding"];
        let fields = seen.head.fields.iter().filter(|(name, _)| !framing.contains(&name.to_lowercase().as_str()));
        let echo: String = fields.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Reply::bytes(format!(
            "HTTP/1.1 302 See {SELLER_KEY}\r\n{echo}X-Api-Key: {SELLER_KEY}\r\nProxy-Authorization: Basic eDp5\r\n\
             Location: /next?key={SELLER_KEY}&x=1\r\nContent-Location: /a?token={TOKEN}\r\nLink: </fine>\r\n\
             Link: </b?{SELLER_KEY}>\r\nETag: \"kept\"\r\nX-Seen: {SELLER_KEY}\r\nX-Region: eu\r\nContent-Length: 2\r\n\r\n{{}}"
        ))
    })
    .await
}

#[tokio::test]
async fn no_header_and_no_reason_of_a_seller_holds_what_we_call_it_with() {
    let seller = echoing().await;
    let world = World::with(seller.address, |config| {
        for id in ["api", "chat"] {
            let product = product(config, id);
            product["upstream"]["headers"] =
                json!({ "X-Partner-Token": TOKEN, "X-Tenant": "t-1", "Accept": "application/json", "Cache-Control": "no-cache" });
            product["response_headers"] =
                json!(["authorization", "x-api-key", "proxy-authorization", "x-partner-token", "x-tenant", "x-*"]);
        }
    })
    .await;
    let buyer = world.buyer(&["api-5", "chat-5"]).await;
    let api = Request::post("/api/x").bearer(&buyer.key).field("X-Mine", "back").json("{}");
    for request in [api, Request::chat(&buyer.key).field("X-Mine", "back")] {
        let answer = world.call(&request).await.expect(302);
        let head = String::from_utf8_lossy(&answer.head.raw).into_owned();
        for secret in [SELLER_KEY, TOKEN] {
            assert!(!head.contains(secret), "{head}");
        }
        for gone in
            ["authorization", "x-api-key", "proxy-authorization", "x-partner-token", "x-tenant", "location", "link"]
        {
            assert_eq!(answer.head.get(gone), None, "{gone}");
        }
        // What proves nothing passes as it did.
        for (name, value) in [
            ("x-mine", "back"),
            ("x-region", "eu"),
            ("etag", "\"kept\""),
            ("content-type", "application/json"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.head.get(name), Some(value), "{name}: {head}");
        }
        assert_eq!(answer.text(), "{}", "bodies are the seller's own affair");
        let seen = seller.requests().pop().unwrap();
        assert_eq!(seen.head.get("x-partner-token"), Some(TOKEN));
    }
}
