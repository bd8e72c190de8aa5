//! LLM products: which product a call finds, what of its body is read and changed, what a key may call.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Request};
use crate::harness::seller::{Reply, Seller};
use crate::harness::world::{SELLER_KEY, World, product};

/// Two LLM products behind one seller, told apart by the base path: `chat` sells the models `small` and `large`,
/// `embed` sells `vectors`, which its seller calls `vendor/vec-3`.
async fn two_products(seller: &Seller) -> World {
    let address = seller.address;
    World::with(address, |config| {
        product(config, "chat")["models"] = json!({ "small": null, "large": "vendor-large" });
        config["products"].as_array_mut().unwrap().push(json!({
            "id": "embed", "kind": "llm", "deployment": "embed-1", "models": { "vectors": "vendor/vec-3" },
            "upstream": { "base_url": format!("http://{address}/two/v1") },
        }));
        config["offers"].as_array_mut().unwrap().push(json!({
            "id": "embed-5", "product": "embed", "kind": "per_call", "calls": 5, "validity": "1y",
        }));
    })
    .await
}

fn completion(path: &str, key: &str, body: &str) -> Request {
    Request::post(path).bearer(key).json(body)
}

fn check_both_shapes(answer: &Answer) {
    let json = answer.json();
    let id = answer.head.get("x-request-id").unwrap();
    assert_eq!(json["request_id"], id, "{json}");
    assert!(json["error_code"].is_string() && json["error_msg"].is_string(), "{json}");
    assert!(json["error"]["message"].is_string() && json["error"]["type"].is_string(), "{json}");
    assert_eq!(answer.head.get("x-tollgate-error-source"), Some("gateway"));
}

#[tokio::test]
async fn the_path_chooses_the_product_and_the_rest_goes_to_the_sellers_base() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-50", "embed-5"]).await;
    let cases = [
        ("/v1/infers/chat/v1/chat/completions", "/v1/chat/completions", r#"{"model":"small"}"#),
        ("/v1/infers/chat/v1/completions", "/v1/completions", r#"{"model":"small"}"#),
        ("/v1/infers/embed-1/v1/embeddings", "/two/v1/embeddings", r#"{"model":"vectors"}"#),
        ("/v1/infers/chat/v1/any/other?x=1&y=%2F", "/v1/any/other?x=1&y=%2F", r#"{"model":"small"}"#),
        ("/v1/infers/chat//v1//chat/completions", "/v1/chat/completions", r#"{"model":"small"}"#),
        ("/v1//chat/completions", "/v1/chat/completions", r#"{"model":"small"}"#),
        ("//v1/chat/completions", "/v1/chat/completions", r#"{"model":"small"}"#),
    ];
    for (at, (path, target, body)) in cases.into_iter().enumerate() {
        world.call(&completion(path, &buyer.key, body)).await.expect(200);
        let requests = seller.requests();
        assert_eq!(requests[at].head.target(), target, "{path}");
        assert_eq!(requests.len(), at + 1);
    }
}

#[tokio::test]
async fn under_plain_v1_the_model_chooses_the_product() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-5", "embed-5"]).await;
    for (model, target, sent) in
        [("small", "/v1/x", "small"), ("large", "/v1/x", "vendor-large"), ("vectors", "/two/v1/x", "vendor/vec-3")]
    {
        let body = json!({ "model": model }).to_string();
        world.call(&completion("/v1/x", &buyer.key, &body)).await.expect(200);
        let seen = seller.requests().pop().unwrap();
        assert_eq!(seen.head.target(), target);
        assert_eq!(serde_json::from_slice::<Value>(&seen.body.bytes).unwrap()["model"], sent);
    }
}

#[tokio::test]
async fn a_mapped_model_changes_its_values_bytes_and_no_others() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let before = "{ \"z\" : 1.0e+2 ,\r\n\t\"model\":";
    let after = " , \"messages\":[{\"model\":\"large\",\"content\":\"h\u{e9}\\u00e9 \\/ 12345678901234567890.0\"}] }\n";
    for (written, sent) in [(" \"large\"", " \"vendor-large\""), ("\"lar\\u0067e\"", "\"vendor-large\"")] {
        let body = format!("{before}{written}{after}");
        world.call(&completion("/v1/chat/completions", &buyer.key, &body)).await.expect(200);
        assert_eq!(seller.requests().pop().unwrap().text(), format!("{before}{sent}{after}"));
    }
    let untouched = format!("{before} \"sm\\u0061ll\"{after}");
    world.call(&completion("/v1/chat/completions", &buyer.key, &untouched)).await.expect(200);
    assert_eq!(seller.requests().pop().unwrap().text(), untouched, "a name that is not mapped stays as it was written");
}

#[tokio::test]
async fn bodies_that_servers_read_differently_are_refused() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-5"]).await;
    for body in [
        r#"{"model":"small","model":"large"}"#,
        r#"{"model":"small","Model":"large"}"#,
        r#"{"MODEL":"small"}"#,
        r#"{"model":"small","stream":true,"stream":false}"#,
        r#"{"model":"small","Stream":true}"#,
        r#"{"model":"small","stream":"true"}"#,
        r#"{"model":7}"#,
        r#"{"model":"small"} {}"#,
        r#"{"model":"small""#,
        "\u{feff}{\"model\":\"small\"}",
    ] {
        for path in ["/v1/chat/completions", "/v1/infers/chat/v1/chat/completions"] {
            let answer = world.call(&completion(path, &buyer.key, body)).await;
            let answer = answer.expect(400);
            check_both_shapes(&answer);
        }
    }
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn a_product_that_lists_its_models_takes_no_body_that_it_reads_otherwise_than_the_seller_might() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let (buyer, path) = (world.buyer(&["chat-5"]).await, "/v1/infers/chat/v1/x");
    let other = Request::post(path).bearer(&buyer.key).body(br#"{"model":"secret"}"#);
    let small = Request::post(path).bearer(&buyer.key).body(br#"{"model":"small"}"#);
    let kind = |request: &Request, kind: &str| request.clone().field("Content-Type", kind);
    let (json, text) = ("application/json", "text/plain");
    for request in [
        kind(&other, "application/octet-stream"),
        kind(&other, "multipart/form-data; boundary=x"),
        kind(&other, "image/png"),
        kind(&other, text).body(b"\x1f{\"model\":\"secret\"}"),
        kind(&other, text).body(b"+AHs-\"model\":\"secret\"+AH0-"),
        kind(&small, "application/json; charset=utf-7"),
        kind(&small, "text/plain; charset=cp037"),
        kind(&small, json).field("Content-Encoding", "identity").also("Content-Encoding", "gzip"),
        kind(&small, json).field("Content-Encoding", "identity, br"),
    ] {
        let answer = world.call(&request).await;
        assert_eq!(answer.status(), 415, "{request:?}: {}", answer.text());
        check_both_shapes(&answer);
    }
    assert_eq!(seller.received_bytes(), 0);
    for coding in ["", "identity", "IDENTITY", "identity, identity"] {
        world.call(&kind(&small, json).field("Content-Encoding", coding)).await.expect(200);
    }
    world.call(&kind(&small, "application/json; charset=\"UTF-8\"")).await.expect(200);
    // Where any model may be asked for, forms with files pass as they came.
    let any = World::start(seller.address).await;
    let buyer = any.buyer(&["chat-5"]).await;
    any.call(&kind(&other, "multipart/form-data; boundary=x").bearer(&buyer.key)).await.expect(200);
    assert_eq!(seller.requests().pop().unwrap().text(), r#"{"model":"secret"}"#);
}

#[tokio::test]
async fn a_name_beyond_any_models_length_is_not_repeated() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| config["log"]["access"] = json!("stdout")).await;
    let (buyer, poor) = (world.buyer(&["chat-5"]).await, world.buyer(&[]).await);
    let body = json!({ "model": "Q".repeat(2 << 20) }).to_string();
    for key in [&buyer.key, &poor.key] {
        for path in ["/v1/x", "/v1/infers/chat/v1/x"] {
            let answer = world.call(&completion(path, key, &body)).await.expect(400);
            assert!(answer.message().contains("longer than 256 bytes") && answer.body.len() < 1024);
        }
    }
    for path in ["/v1/models/", "/v1/infers/"] {
        let path = format!("{path}{}", "Q".repeat(8 << 10));
        let answer = world.call(&Request::get(&path).bearer(&buyer.key)).await.expect(404);
        assert!(answer.body.len() < 2048, "{}", answer.body.len());
    }
    world.stop().await;
    let said: usize = world.gateway.said().iter().map(String::len).sum();
    assert!(said < 64 << 10, "{said} bytes were logged");
}

#[tokio::test]
async fn an_unknown_model_or_path_is_told_what_would_be_right() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-5", "embed-5"]).await;
    let answer = world.call(&completion("/v1/chat/completions", &buyer.key, r#"{"model":"smal"}"#)).await.expect(404);
    assert_eq!(answer.code(), "model_not_found");
    assert!(answer.message().contains("small"), "{}", answer.message());
    check_both_shapes(&answer);
    let answer = world.call(&completion("/v1/infers/chat/v1/x", &buyer.key, r#"{"model":"vectors"}"#)).await;
    let answer = answer.expect(404);
    assert!(answer.message().contains("small"), "the product's own models are named: {}", answer.message());
    let answer = world.call(&Request::post("/v1/infers/chta/v1/chat/completions").bearer(&buyer.key).json("{}")).await;
    let answer = answer.expect(404);
    assert!(answer.message().contains("/v1/infers/chat/v1"), "{}", answer.message());
    let answer = world.call(&Request::get("/v1/files").bearer(&buyer.key)).await.expect(404);
    assert!(
        answer.message().contains("/v1/infers/"),
        "without a model two products could be meant: {}",
        answer.message()
    );
    let answer = world.call(&Request::get("/nowhere").bearer(&buyer.key)).await.expect(404);
    assert!(!answer.message().is_empty());
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn without_a_model_the_only_product_that_the_key_may_call_is_meant() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-5", "embed-5"]).await;
    let (_, key) = world.admin.add_key(&buyer.account, &json!({ "products": ["embed"] })).await;
    world.call(&Request::get("/v1/files").bearer(&key)).await.expect(200);
    assert_eq!(seller.request().head.target(), "/two/v1/files");
}

#[tokio::test]
async fn models_are_listed_free_of_charge_and_only_those_that_the_key_may_call() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-5", "embed-5"]).await;
    let listed = async |key: &str, path: &str| {
        let answer = world.call(&Request::get(path).bearer(key)).await.expect(200);
        let json = answer.json();
        assert_eq!(json["object"], "list", "{json}");
        let ids = json["data"].as_array().unwrap().iter().map(|model| {
            assert_eq!(model["object"], "model", "{json}");
            model["id"].as_str().unwrap().to_owned()
        });
        let mut ids: Vec<_> = ids.collect();
        ids.sort();
        ids
    };
    assert_eq!(listed(&buyer.key, "/v1/models").await, ["large", "small", "vectors"]);
    assert_eq!(listed(&buyer.key, "/v1/infers/embed-1/v1/models").await, ["vectors"]);
    let (_, narrow) = world.admin.add_key(&buyer.account, &json!({ "products": ["chat"], "models": ["small"] })).await;
    assert_eq!(listed(&narrow, "/v1/models").await, ["small"]);
    world.call(&Request::get("/v1/models")).await.expect(401);
    world.charged(0).await;
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn a_model_is_shown_by_its_name_however_it_is_escaped_and_no_seller_hears_of_it() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        product(config, "chat")["models"] =
            json!({ "org/model-7B": null, "m\u{e9}": null, "a b": null, "50%": null, "v/1/x": null });
    })
    .await;
    let buyer = world.buyer(&["chat-5"]).await;
    for (escaped, id) in [
        ("org%2Fmodel-7B", "org/model-7B"),
        ("org%2fmodel%2D7B", "org/model-7B"),
        ("org/model-7B", "org/model-7B"),
        ("m%C3%A9", "m\u{e9}"),
        ("a%20b", "a b"),
        ("50%25", "50%"),
        ("v%2F1/x?y=%2F", "v/1/x"),
    ] {
        for base in ["/v1", "/v1/infers/chat/v1", "/v1/"] {
            let request = Request::get(&format!("{base}/models/{escaped}")).bearer(&buyer.key);
            let answer = world.call(&request).await.expect(200);
            assert_eq!(answer.json()["id"], id, "{base} {escaped}");
        }
    }
    for (refused, status) in [
        ("/v1/models/org%252Fmodel-7B", 404),
        ("/v1/models/%FF", 404),
        ("/v1/models/org%2F..%2Fx", 400),
        ("/v1/models/org%5Cx", 400),
        ("/v1/models/org%00", 400),
        ("/v1%2Fmodels/a%20b", 400),
        ("/v1/x%2Fmodels/a%2Fb", 400),
        ("/v1/chat/models/a%2Fb", 400),
        ("/v1/infers/chat/v1/files/a%2Fb", 400),
        ("/api/models/a%2Fb", 400),
    ] {
        world.call(&Request::get(refused).bearer(&buyer.key)).await.expect(status);
    }
    world.call(&Request::post("/v1/models/org%2Fmodel-7B").bearer(&buyer.key).json("{}")).await.expect(400);
    assert_eq!(seller.received_bytes(), 0);
}

#[tokio::test]
async fn what_the_list_of_models_names_can_be_called() {
    let seller = Seller::plain().await;
    let address = seller.address;
    let world = World::with(address, |config| {
        product(config, "chat")["models"] = json!({ "small": null, "taken": null });
        for (id, deployment) in [("any", "any-1"), ("shadowed", "taken")] {
            config["products"].as_array_mut().unwrap().push(json!({
                "id": id, "kind": "llm", "deployment": deployment, "access": "open", "meter": "none",
                "upstream": { "base_url": format!("http://{address}/{id}/v1") },
            }));
        }
    })
    .await;
    let buyer = world.buyer(&["chat-5"]).await;
    for (model, target) in [("any-1", "/any/v1/x"), ("small", "/v1/x"), ("taken", "/v1/x")] {
        let body = format!("{{ \"model\" : \"{model}\" }}");
        world.call(&completion("/v1/x", &buyer.key, &body)).await.expect(200);
        let seen = seller.requests().pop().unwrap();
        assert_eq!((seen.head.target(), seen.text()), (target, body));
    }
    let list = async |key: &str, path: &str| {
        let answer = world.call(&Request::get(path).bearer(key)).await.expect(200).json();
        let pair = |model: &Value| format!("{} {}", model["id"].as_str().unwrap(), model["owned_by"].as_str().unwrap());
        answer["data"].as_array().unwrap().iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(list(&buyer.key, "/v1/models").await, ["any-1 any", "small chat", "taken chat"], "each name once");
    assert_eq!(list(&buyer.key, "/v1/infers/taken/v1/models").await, ["taken shadowed"], "by its own path");
    let shown = world.call(&Request::get("/v1/models/taken").bearer(&buyer.key)).await.expect(200).json();
    assert_eq!(shown["owned_by"], "chat", "{shown}");
    let (_, other) = world.admin.add_key(&buyer.account, &json!({ "products": ["any"] })).await;
    assert_eq!(list(&other, "/v1/models").await, ["any-1 any"], "`taken` would reach a product that it does not open");
    world.call(&completion("/v1/x", &other, r#"{"model":"taken"}"#)).await.expect(403);
    let answer = world.call(&completion("/v1/x", &buyer.key, r#"{"model":"other"}"#)).await.expect(404);
    assert!(answer.message().contains("sold are any-1, small, taken;"), "{}", answer.message());
}

#[tokio::test]
async fn a_key_opens_only_the_products_and_models_on_its_lists() {
    let seller = Seller::plain().await;
    let world = two_products(&seller).await;
    let buyer = world.buyer(&["chat-5", "embed-5"]).await;
    let (_, by_product) = world.admin.add_key(&buyer.account, &json!({ "products": ["embed"] })).await;
    let (_, by_model) = world.admin.add_key(&buyer.account, &json!({ "models": ["small"] })).await;
    for (key, path, model) in [
        (&by_product, "/v1/infers/chat/v1/chat/completions", "small"),
        (&by_model, "/v1/infers/chat/v1/chat/completions", "large"),
        (&by_model, "/v1/chat/completions", "large"),
    ] {
        let answer = world.call(&completion(path, key, &json!({ "model": model }).to_string())).await.expect(403);
        check_both_shapes(&answer);
    }
    world.call(&Request::get("/api/x").bearer(&by_product)).await.expect(403);
    assert_eq!(seller.received_bytes(), 0);
    world.call(&completion("/v1/chat/completions", &by_model, r#"{"model":"small"}"#)).await.expect(200);
    world.charged(1).await;
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_refused_with_413_whether_or_not_its_length_is_told() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| product(config, "chat")["body_max"] = json!("64KiB")).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let filled = |bytes: usize| {
        let around = r#"{"model":"m","x":""}"#.len();
        format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(bytes - around))
    };
    world.call(&Request::chat(&buyer.key).json(&filled(64 << 10))).await.expect(200);
    assert_eq!(seller.request().body.bytes.len(), 64 << 10);
    let answer = world.call(&Request::chat(&buyer.key).json(&filled((64 << 10) + 1))).await.expect(413);
    check_both_shapes(&answer);
    let mut client = world.client().await;
    let head = format!(
        "POST /v1/infers/chat/v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        buyer.key
    );
    let body = crate::harness::seller::chunk(filled((64 << 10) + 1));
    client.send([head.as_bytes(), &body, b"0\r\n\r\n"].concat()).await;
    client.answer("POST").await.expect(413);
    assert_eq!(seller.requests().len(), 1);
    world.charged(1).await;
}

#[tokio::test]
async fn the_buyers_credential_stays_here_and_the_sellers_is_added() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nServer: secret-engine/1\r\n\
                 Set-Cookie: a=b\r\nX-Internal-Node: n1\r\nX-Ratelimit-Limit-Requests: 7\r\nOpenai-Version: v\r\n\r\n{}";
    let seller = Seller::always(Reply::bytes(reply)).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let request = Request::chat(&buyer.key).field("X-Request-Id", "mine-1").field("OpenAI-Beta", "x=1");
    let answer = world.call(&request).await.expect(200);
    let seen = seller.request();
    assert_eq!(seen.head.get("authorization"), Some(format!("Bearer {SELLER_KEY}").as_str()));
    assert!(!String::from_utf8_lossy(&seen.head.raw).contains(&buyer.key));
    assert_eq!(seen.head.get("openai-beta"), Some("x=1"));
    assert_eq!(seen.head.get("x-request-id"), Some("mine-1"));
    assert_eq!(seen.head.get("host"), Some(seller.address.to_string().as_str()));
    assert_eq!(answer.head.get("x-request-id"), Some("mine-1"));
    assert_eq!(answer.head.get("x-ratelimit-limit-requests"), Some("7"));
    assert_eq!(answer.head.get("openai-version"), Some("v"));
    for hidden in ["server", "set-cookie", "x-internal-node"] {
        assert_eq!(answer.head.get(hidden), None, "{hidden}");
    }
}

#[tokio::test]
async fn a_sellers_error_passes_byte_for_byte_and_is_marked_as_the_sellers() {
    let body = "{\"error\" : {\"message\":\"no such thing\",\"code\":null}}\n";
    let seller = Seller::always(Reply::json(422, body)).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let answer = world.call(&Request::chat(&buyer.key)).await.expect(422);
    assert_eq!(answer.text(), body);
    assert_eq!(answer.head.get("x-tollgate-error-source"), Some("seller"));
    world.charged(0).await;
}

#[tokio::test]
async fn open_access_needs_no_key_and_meters_nothing() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        let address = config["products"][0]["upstream"]["base_url"].clone();
        config["products"].as_array_mut().unwrap().push(json!({
            "id": "free", "kind": "llm", "access": "open", "meter": "none", "upstream": { "base_url": address },
        }));
    })
    .await;
    let answer = world.call(&Request::post("/v1/infers/free/v1/chat/completions").json(r#"{"model":"m"}"#)).await;
    let answer = answer.expect(200);
    assert_eq!(answer.head.get("x-tollgate-remaining"), None);
    world.call(&Request::post("/v1/infers/chat/v1/chat/completions").json(r#"{"model":"m"}"#)).await.expect(401);
}

#[tokio::test]
async fn a_placeholder_for_a_key_is_not_looked_at_where_the_model_is_open_to_all() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        product(config, "chat")["models"] = json!({ "m": null });
        let address = config["products"][0]["upstream"]["base_url"].clone();
        config["products"].as_array_mut().unwrap().push(json!({
            "id": "free", "kind": "llm", "access": "open", "meter": "none", "models": { "open-m": null },
            "upstream": { "base_url": address },
        }));
        config["limits"]["failed_auth_per_minute"] = json!(4);
    })
    .await;
    for key in ["EMPTY", "dummy", "sk-xxxx", "not-needed"] {
        world.call(&completion("/v1/x", key, r#"{"model":"open-m"}"#)).await.expect(200);
        let listed = world.call(&Request::get("/v1/models").bearer(key)).await.expect(200).json();
        let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
        assert_eq!(ids, ["open-m"]);
        world.call(&Request::get("/v1/models/m").bearer(key)).await.expect(404);
    }
    let seen = seller.requests();
    assert!(seen.iter().all(|seen| seen.head.get("authorization").is_none()), "no key reaches the seller");
    // What begins like one of ours may be one.
    for key in ["sk-tg-typo", "sk-tg-0123456789ABCDEFGHIJKLMNOPQRST04f25W"] {
        world.call(&completion("/v1/x", key, r#"{"model":"open-m"}"#)).await.expect(401);
    }
    for _ in 0..2 {
        let answer = world.call(&completion("/v1/x", "EMPTY", r#"{"model":"m"}"#)).await.expect(401);
        assert_eq!(answer.code(), "invalid_api_key");
    }
    let answer = world.call(&completion("/v1/x", "EMPTY", r#"{"model":"m"}"#)).await.expect(429);
    assert_eq!(answer.code(), "too_many_failures");
    assert_eq!(seller.requests().len(), seen.len());
}

#[tokio::test]
async fn an_llm_seller_is_asked_for_plain_bytes_and_what_it_compresses_all_the_same_passes() {
    let packed = b"\x1f\x8b\x08not really gzip\x00\xff";
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    let seller = Seller::always(Reply::bytes([head.as_bytes(), packed].concat())).await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5", "api-5"]).await;
    let answer = world.call(&Request::chat(&buyer.key).field("Accept-Encoding", "gzip, deflate")).await.expect(200);
    assert_eq!((answer.body.as_slice(), answer.head.get("content-encoding")), (&packed[..], Some("gzip")));
    world.call(&Request::get("/api/x").bearer(&buyer.key).field("Accept-Encoding", "br")).await.expect(200);
    let asked: Vec<_> =
        seller.requests().iter().map(|seen| seen.head.get("accept-encoding").unwrap().to_owned()).collect();
    assert_eq!(asked, ["identity", "br"]);
}
