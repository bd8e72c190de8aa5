//! AppCodes, keys in other places, which schemes a product accepts, and requests that hold two credentials.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::admin::Buyer;
use crate::harness::client::Request;
use crate::harness::seller::Seller;
use crate::harness::signer::Signer;
use crate::harness::until;
use crate::harness::world::{World, product};

/// A world whose `api` accepts everything, AppCodes in the clear and in the query too.
async fn accepting_all(seller: &Seller, more: impl FnOnce(&mut Value)) -> World {
    World::with(seller.address, |config| {
        config["credentials"] = json!({ "allow_app_code_without_tls": true });
        let api = product(config, "api");
        api["accept"] = json!(["signature", "app_code", "api_key"]);
        api["app_code_query"] = json!("AppCode");
        more(config);
    })
    .await
}

struct Client {
    buyer: Buyer,
    app: String,
    signer: Signer,
    code_id: String,
    code: String,
}

async fn client(world: &World) -> Client {
    let buyer = world.buyer(&["api-1000"]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (code_id, code) = world.admin.add_code(&buyer.account, &app).await;
    Client { buyer, app, signer, code_id, code }
}

#[tokio::test]
async fn an_app_code_opens_in_each_of_its_places_and_goes_no_further() {
    let seller = Seller::plain().await;
    let mut world = accepting_all(&seller, |config| config["log"]["access"] = json!("stdout")).await;
    let Client { buyer, code, .. } = client(&world).await;
    let query = format!("/api/x?a=%20b&AppCode={code}&c=+");
    for request in [
        Request::get("/api/x").field("X-Apig-AppCode", &code),
        Request::get("/api/x").field("Authorization", &format!("APPCODE {code}")),
        Request::get("/api/x").field("Authorization", &format!("appcode {code}")),
        Request::get(&query),
        Request::get(&query.replace("AppCode", "App%43ode")),
    ] {
        world.call(&request).await.expect(200);
        let seen = seller.requests().pop().unwrap();
        let expected = if request.target() == "/api/x" { "/api/x" } else { "/api/x?a=%20b&c=+" };
        assert_eq!(seen.head.target(), expected);
        assert!(!format!("{:?}", seen.head).contains(&code));
    }
    world.settles(&buyer.account, 5).await;
    let unknown = "0".repeat(64);
    let refused = world.call(&Request::get("/api/x").field("X-Apig-AppCode", &unknown)).await.expect(401);
    assert_eq!(
        (refused.code().as_str(), refused.head.get("x-tollgate-error-code")),
        ("APIG.0303", Some("invalid_app_code"))
    );
    for bad in ["", "short", &"a".repeat(181), &format!("_{}", "a".repeat(63))] {
        world.call(&Request::get("/api/x").field("X-Apig-AppCode", bad)).await.expect(401);
    }
    assert_eq!(seller.requests().len(), 5);
    world.stop().await;
    assert!(!world.gateway.said().join("\n").contains(&code));
}

#[tokio::test]
async fn app_codes_need_tls_unless_the_operator_says_otherwise() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        product(config, "api")["accept"] = json!(["app_code"]);
    })
    .await;
    let Client { code, .. } = client(&world).await;
    let refused = world.call(&Request::get("/api/x").field("X-Apig-AppCode", &code)).await.expect(403);
    assert_eq!(refused.head.get("x-tollgate-error-code"), Some("tls_required"));
    assert_eq!(seller.requests().len(), 0);
}

#[tokio::test]
async fn a_product_accepts_what_it_lists_and_says_what_that_is() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["credentials"] = json!({ "allow_app_code_without_tls": true });
        let api = product(config, "api").clone();
        for scheme in ["signature", "app_code", "api_key"] {
            let mut one = api.clone();
            (one["id"], one["path"], one["accept"]) = (json!(scheme), json!(format!("/{scheme}")), json!([scheme]));
            one["meter"] = json!("none");
            config["products"].as_array_mut().unwrap().push(one);
        }
    })
    .await;
    let buyer = world.buyer(&[]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["signature", "app_code", "api_key"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    for accepted in ["signature", "app_code", "api_key"] {
        let request = || Request::get(&format!("/{accepted}/x"));
        for (scheme, request) in [
            ("signature", signer.sign(request())),
            ("app_code", request().field("X-Apig-AppCode", &code)),
            ("api_key", request().bearer(&buyer.key)),
        ] {
            let answer = world.call(&request).await;
            if scheme == accepted {
                answer.expect(200);
            } else {
                let answer = answer.expect(401);
                assert_eq!(answer.head.get("x-tollgate-error-code"), Some("scheme_not_accepted"));
                assert!(answer.message().contains("set the header") || answer.message().contains("sign the request"));
            }
        }
        let nothing = world.call(&request()).await.expect(401);
        assert_eq!(nothing.head.get("x-tollgate-error-code"), Some("missing_api_key"));
    }
    // What nobody asked for: an HTTP product takes signatures and keys, an LLM product keys.
    let chat = Request::chat("x").field("X-Apig-AppCode", &code);
    let chat = signer.sign(chat.field("Authorization", "x"));
    world.call(&chat).await.expect(401);
    world.call(&Request::get("/api/x").field("X-Apig-AppCode", &code)).await.expect(401);
}

#[tokio::test]
async fn an_app_code_in_the_query_opens_a_model_that_is_named_alone() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["credentials"] = json!({ "allow_app_code_without_tls": true });
        let chat = product(config, "chat");
        chat["accept"] = json!(["app_code", "api_key"]);
        let mut closed = chat.clone();
        closed["id"] = json!("closed");
        closed["models"] = json!({ "closed-m": null });
        let mut other = closed.clone();
        (other["id"], other["app_code_query"]) = (json!("other"), json!("code"));
        other["models"] = json!({ "other-m": null });
        (chat["models"], chat["app_code_query"]) = (json!({ "chat-m": null }), json!("AppCode"));
        config["products"].as_array_mut().unwrap().extend([closed, other]);
    })
    .await;
    let buyer = world.buyer(&["chat-5"]).await;
    let (app, _) = world.admin.add_app(&buyer.account, &["chat", "other", "closed"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    let call = |parameter: &str, model: &str| {
        let target = format!("/v1/chat/completions?a=b&{parameter}={code}");
        Request::post(&target).json(&json!({ "model": model }).to_string())
    };
    world.call(&call("AppCode", "chat-m")).await.expect(200);
    assert_eq!(seller.requests().pop().unwrap().head.target(), "/v1/chat/completions?a=b");
    world.call(&Request::get(&format!("/v1/models?AppCode={code}"))).await.expect(200);
    // Each product's own name alone.
    for (parameter, model) in [("code", "chat-m"), ("AppCode", "other-m"), ("AppCode", "closed-m"), ("key", "chat-m")] {
        world.call(&call(parameter, model)).await.expect(401);
    }
    let two = Request::post(&format!("/v1/chat/completions?AppCode={code}&code={code}"));
    world.call(&two.json(r#"{"model":"chat-m"}"#)).await.expect(400);
    assert_eq!(seller.requests().len(), 1);
    world.settles(&buyer.account, 1).await;
}

#[tokio::test]
async fn two_credentials_are_one_callers_or_the_request_is_refused() {
    let seller = Seller::plain().await;
    let world = accepting_all(&seller, |_| {}).await;
    let (mine, other) = (client(&world).await, client(&world).await);
    let (_, second_key) = world.admin.add_key(&mine.buyer.account, &json!({})).await;
    let (_, second_code) = world.admin.add_code(&mine.buyer.account, &mine.app).await;
    let (_, second_app) = world.admin.add_app(&mine.buyer.account, &["api"]).await;
    let request = || Request::get("/api/x");
    let code = |request: Request, code: &str| request.field("X-Apig-AppCode", code);
    let unknown = "0".repeat(64);
    let in_query = |code: &str| Request::get(&format!("/api/x?AppCode={code}"));
    for (what, request, status) in [
        ("signature and own code", mine.signer.sign(code(request(), &mine.code)), 200),
        ("signature and another's code", mine.signer.sign(code(request(), &other.code)), 400),
        ("signature and a code of nobody", mine.signer.sign(code(request(), &unknown)), 400),
        ("key and own code", code(request().bearer(&mine.buyer.key), &mine.code), 200),
        ("key and another's code", code(request().bearer(&mine.buyer.key), &other.code), 400),
        ("the same code twice", code(in_query(&mine.code), &mine.code), 200),
        ("two codes of one app", code(in_query(&mine.code), &second_code), 200),
        ("another's code in the query", code(in_query(&other.code), &mine.code), 400),
        ("the query's name twice", in_query(&format!("{0}&AppCode={0}", mine.code)), 400),
        ("two lines of a code", code(request(), &mine.code).also("X-Apig-AppCode", &mine.code), 400),
        ("two lines of a key", request().bearer(&second_key).also("Authorization", "Bearer x"), 400),
        (
            "a wrong signature and own code",
            {
                let wrong = Signer { secret: "0123456789abcdef".into(), ..mine.signer.clone() };
                wrong.sign(code(request(), &mine.code))
            },
            401,
        ),
        ("another app of the same account", second_app.sign(code(request(), &mine.code)), 400),
        ("two lines of what is no credential here", twice(request().bearer(&mine.buyer.key), "X-Api-Key"), 400),
    ] {
        let answer = world.call(&request).await;
        assert_eq!(answer.status(), status, "{what}: {}", answer.text());
    }
    // Which one counted: the signature over the key.
    let app = mine.app.as_str();
    world.settles(&mine.buyer.account, 4).await;
    assert!(world.usage().iter().any(|record| record["app"] == app));
}

fn twice(request: Request, name: &str) -> Request {
    request.field(name, "one").also(name, "two")
}

#[tokio::test]
async fn where_nothing_is_asked_for_two_lines_of_a_credential_are_refused_too() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        let mut open = product(config, "api").clone();
        (open["id"], open["path"], open["access"], open["meter"]) =
            (json!("open"), json!("/open"), json!("open"), json!("none"));
        config["products"].as_array_mut().unwrap().push(open);
    })
    .await;
    for name in ["X-Apig-AppCode", "X-Api-Key", "Authorization"] {
        world.call(&twice(Request::get("/open/x"), name)).await.expect(400);
        world.call(&Request::get("/open/x").field(name, "one")).await.expect(200);
    }
    assert_eq!(seller.requests().len(), 3);
}

#[tokio::test]
async fn an_app_code_may_come_through_a_trusted_proxy_that_ends_tls() {
    let seller = Seller::plain().await;
    let with = |trusted: &'static str, header: &'static str| {
        World::with(seller.address, move |config| {
            config["proxies"] = json!({ "trusted": [trusted], "header": header });
            product(config, "api")["accept"] = json!(["app_code"]);
        })
    };
    for (trusted, header, name, value, status) in [
        ("127.0.0.1", "x-forwarded-for", "X-Forwarded-Proto", "https", 200),
        ("127.0.0.1", "x-forwarded-for", "X-Forwarded-Proto", "http", 403),
        ("127.0.0.1", "x-forwarded-for", "Forwarded", "for=192.0.2.9;proto=https", 403),
        ("127.0.0.1", "forwarded", "Forwarded", "for=192.0.2.9;proto=https", 200),
        ("127.0.0.1", "forwarded", "Forwarded", "for=192.0.2.9;proto=http", 403),
        ("10.0.0.1", "x-forwarded-for", "X-Forwarded-Proto", "https", 403),
    ] {
        let world = with(trusted, header).await;
        let Client { code, .. } = client(&world).await;
        let request = Request::get("/api/x").field("X-Apig-AppCode", &code).field(name, value);
        let answer = world.call(&request).await;
        assert_eq!(answer.status(), status, "{trusted} {header} {name} {value}: {}", answer.text());
    }
}

#[tokio::test]
async fn x_api_key_opens_where_anthropics_sdks_send_it_and_nowhere_else() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let (buyer, other) = (world.buyer(&["chat-50", "api-5"]).await, world.buyer(&["chat-5"]).await);
    let with_key = |request: Request| request.field("X-Api-Key", &buyer.key);
    let body = r#"{"model":"m","messages":[]}"#;
    for target in ["/v1/messages", "/v1/infers/chat/v1/messages", "/v1/infers/chat/v1/messages/count_tokens"] {
        world.call(&with_key(Request::post(target).json(body))).await.expect(200);
        assert_eq!(seller.requests().pop().unwrap().head.get("x-api-key"), None);
    }
    let models = Request::get("/v1/models").field("anthropic-version", "2023-06-01");
    world.call(&with_key(models)).await.expect(200);
    world.call(&with_key(Request::post("/v1/infers/chat/v1/chat/completions").json(body))).await.expect(401);
    world.call(&with_key(Request::get("/api/x"))).await.expect(401);
    let messages = || Request::post("/v1/messages").json(body);
    world.call(&with_key(messages().bearer(&buyer.key))).await.expect(200);
    world.call(&with_key(messages().bearer(&other.key))).await.expect(400);
    world.call(&with_key(messages()).also("X-Api-Key", &buyer.key)).await.expect(400);
    world.call(&messages().field("X-Api-Key", "sk-tg-unknown")).await.expect(401);
}

#[tokio::test]
async fn what_is_removed_opens_nothing_within_a_second() {
    let seller = Seller::plain().await;
    let world = accepting_all(&seller, |_| {}).await;
    let Client { buyer, app, signer, code_id, code } = client(&world).await;
    let apps = format!("/admin/v1/accounts/{}/apps/{app}", buyer.account);
    let mut connection = world.client().await;
    let mut becomes = async |request: &dyn Fn() -> Request, status: u16| {
        let asked = Instant::now();
        let look = async || (connection.call(&request()).await.status() == status).then_some(());
        until("the change is seen", look).await;
        assert!(asked.elapsed() < Duration::from_secs(1));
    };
    let by_code = || Request::get("/api/x").field("X-Apig-AppCode", &code);
    let signed = || signer.sign(Request::get("/api/x"));
    becomes(&by_code, 200).await;
    becomes(&signed, 200).await;
    let product = format!("{apps}/products/api");
    world.admin.call("DELETE", &product, None).await.expect(200);
    becomes(&by_code, 401).await;
    becomes(&signed, 401).await;
    world.admin.call("PUT", &product, None).await.expect(200);
    becomes(&by_code, 200).await;
    becomes(&signed, 200).await;
    world.admin.call("DELETE", &format!("{apps}/codes/{code_id}"), None).await.expect(204);
    becomes(&by_code, 401).await;
    becomes(&signed, 200).await;
    world.admin.call("DELETE", &apps, None).await.expect(204);
    becomes(&signed, 401).await;
}

#[tokio::test]
async fn anthropics_sdks_are_refused_in_words_that_they_know() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        let chat = product(config, "chat");
        chat["models"] = json!({ "m": null });
        chat["body_max"] = json!("1KiB");
    })
    .await;
    let buyer = world.buyer(&["chat-1", "api-5"]).await;
    let (_, other) = world.admin.add_key(&buyer.account, &json!({ "products": ["api"] })).await;
    let messages = |key: &str, body: &str| Request::post("/v1/messages").field("X-Api-Key", key).json(body);
    let (call, big) = (r#"{"model":"m"}"#, format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(1024)));
    world.call(&messages(&buyer.key, call)).await.expect(200);
    for (request, status, kind, code) in [
        (messages("sk-tg-unknown", call), 401, "authentication_error", "invalid_api_key"),
        (messages(&other, call), 403, "permission_error", "product_not_allowed"),
        (messages(&buyer.key, r#"{"model":"x"}"#), 404, "not_found_error", "model_not_found"),
        (messages(&buyer.key, &big), 413, "invalid_request_error", "request_too_large"),
        (messages(&buyer.key, call), 429, "billing_error", "insufficient_quota"),
        // Their header says it on other paths.
        (
            Request::get("/v1/models").field("anthropic-version", "2023-06-01"),
            401,
            "authentication_error",
            "missing_api_key",
        ),
        (Request::post("/v1/chat/completions").json(call), 401, "invalid_request_error", "missing_api_key"),
    ] {
        let answer = world.call(&request).await.expect(status);
        let (json, anthropic) = (answer.json(), !request.target().contains("completions"));
        assert_eq!(json["type"], if anthropic { json!("error") } else { Value::Null }, "{json}");
        assert_eq!((&json["error"]["type"], &json["error"]["code"]), (&json!(kind), &json!(code)), "{json}");
        assert!(json["error"]["message"].is_string() && json["error_msg"].is_string(), "{json}");
        assert_eq!(answer.head.get("request-id"), json["request_id"].as_str(), "{json}");
    }
}
