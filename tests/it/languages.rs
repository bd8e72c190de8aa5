//! Refusals in the caller's language; everything but the words is the same.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Request};
use crate::harness::seller::Seller;
use crate::harness::world::{BUY_URL, World, product};

const CHINESE: &str = "zh-CN,zh;q=0.9,en;q=0.8";

fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// The body without its words and its id.
fn wordless(answer: &Answer) -> Value {
    let mut body = answer.json();
    for path in ["/error/message", "/error_msg", "/request_id"] {
        if let Some(value) = body.pointer_mut(path) {
            *value = Value::Null;
        }
    }
    body
}

/// Asks in both languages; returns what was said.
async fn both(world: &World, request: &Request, status: u16) -> (String, String) {
    let english = world.call(request).await.expect(status);
    let chinese = world.call(&request.clone().field("Accept-Language", CHINESE)).await.expect(status);
    assert_eq!(english.head.get("content-language"), Some("en"));
    assert_eq!(chinese.head.get("content-language"), Some("zh-CN"));
    for answer in [&english, &chinese] {
        assert!(answer.head.all("vary").contains(&"accept-language"), "{:?}", answer.head);
        assert_eq!(answer.head.get("content-type"), Some("application/json"));
        if let Some(message) = answer.json().pointer("/error/message") {
            assert_eq!(Some(message), answer.json().get("error_msg"), "one message in both shapes");
        }
    }
    let code = |answer: &Answer| answer.head.get("x-tollgate-error-code").map(str::to_owned);
    assert_eq!((wordless(&english), code(&english)), (wordless(&chinese), code(&chinese)));
    let (english, chinese) = (english.message(), chinese.message());
    assert!(english.is_ascii(), "{english}");
    assert!(is_chinese(&chinese), "{chinese}");
    (english, chinese)
}

#[tokio::test]
async fn every_refusal_is_told_in_the_callers_language() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        product(config, "api")["accept"] = json!(["signature", "app_code"]);
        product(config, "chat")["models"] = json!({ "m": null });
        product(config, "chat")["body_max"] = json!("1KiB");
    })
    .await;
    let buyer = world.buyer(&["chat-1"]).await;
    let chat = Request::chat(&buyer.key);
    let path = "/v1/infers/chat/v1/chat/completions";
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    let (_, only_api) = world.admin.add_key(&buyer.account, &json!({ "products": ["api"] })).await;
    let (_, elsewhere) = world.admin.add_key(&buyer.account, &json!({ "networks": ["192.0.2.1"] })).await;
    let (_, limited) = world.admin.add_key(&buyer.account, &json!({ "models": ["other"] })).await;
    for (request, status) in [
        (Request::post(path).json(r#"{"model":"m"}"#), 401),
        (Request::chat("sk-tg-x"), 401),
        (Request::chat("sk-tg-0123456789ABCDEFGHIJKLMNOPQRST04f25W"), 401),
        (Request::get("/api/x"), 401),
        (Request::get("/api/x").bearer(&buyer.key), 401),
        (Request::get("/api/x").field("X-Apig-AppCode", &code), 403),
        (Request::get("/api/x").field("X-Apig-AppCode", "short"), 401),
        (Request::get("/api/x").field("X-Apig-AppCode", &code).also("X-Apig-AppCode", &code), 400),
        (signer.sign(Request::get("/api/x")).field("X-Sdk-Date", "20200101T000000Z"), 401),
        (signer.sign(Request::get("/api/x")).field("X-Sdk-Date", "rubbish"), 401),
        (signer.sign(Request::get("/api/x")).field("Host", "other.test"), 401),
        (Request::get("/api/x").field("Authorization", "Basic dTpw"), 401),
        (Request::chat(&only_api), 403),
        (Request::chat(&elsewhere), 403),
        (Request::chat(&limited), 403),
        (chat.clone().json(r#"{"model":"n"}"#), 404),
        (chat.clone().json(r#"{"model":"#), 400),
        (chat.clone().json(r#"{"model":5}"#), 400),
        (chat.clone().json(r#"{"model":"m","Model":"m"}"#), 400),
        (chat.clone().field("Content-Encoding", "gzip"), 415),
        (chat.clone().json(&" ".repeat(2000)), 413),
        (Request::get("/v1/models/n").bearer(&buyer.key), 404),
        (Request::get("/nothing"), 404),
        (Request::get("/v1/infers/none/v1/models"), 404),
        (Request::get("/v1/infers/chat/v2"), 404),
        (Request::get("/.well-known/tollgate/x"), 404),
        (Request::get("/.well-known/tollgate/receipt-keys"), 404),
        (Request::get("/api/%2f"), 400),
        (Request::get("/api/../x"), 400),
    ] {
        both(&world, &request, status).await;
    }
    world.call(&chat).await.expect(200);
    let (english, chinese) = both(&world, &chat, 429).await;
    assert_eq!(english, format!("0 calls of chat are left: the package is used up; buy more at {BUY_URL}"));
    assert_eq!(chinese, format!("产品 chat 剩余调用次数为 0，资源包已用完，请前往 {BUY_URL} 购买"));
    let (_, chinese) = both(&world, &signer.sign(Request::get("/api/x")), 429).await;
    assert_eq!(chinese, "账户未购买产品 api 的资源包，请联系运营方购买");
    assert_eq!(seller.requests().len(), 1);
    // A head that the strict check refuses is not read any further.
    let strange = Request::get("/api/x").field("under_score", "1").field("Accept-Language", CHINESE);
    let answer = world.call(&strange).await.expect(400);
    assert_eq!(answer.head.get("content-language"), Some("en"));
}

/// Whether a text is Chinese but for names, numbers and moments.
fn is_all_chinese(text: &str) -> bool {
    let names = ["chat", "API Key", "T", "Z"];
    let rest = names.iter().fold(text.to_owned(), |text, name| text.replace(name, ""));
    is_chinese(text) && !rest.chars().any(|c| c.is_ascii_alphabetic())
}

#[tokio::test]
async fn what_limits_and_budgets_refuse_is_told_whole() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["limits"]["failed_auth_per_minute"] = json!(1);
        product(config, "chat")["limits"] = json!({ "per_day": 3 });
    })
    .await;
    let buyer = world.buyer(&["chat-50"]).await;
    let key = async |limits: Value| {
        let (_, key) = world.admin.add_key(&buyer.account, &limits).await;
        world.call(&Request::chat(&key)).await.expect(200);
        both(&world, &Request::chat(&key), 429).await
    };
    let said = [
        key(json!({ "limits": { "per_day": 1 } })).await,
        key(json!({ "budget": { "per_month": 1 } })).await,
        key(json!({ "budget": { "total": 1 } })).await,
    ];
    assert!(said[0].0.starts_with("the API key may make 1 calls a day, and these are used up; try again in 8"));
    assert!(said[0].1.starts_with("该 API Key 的限额为每天 1 次调用，现已用完，请在 8"), "{}", said[0].1);
    assert!(said[1].1.starts_with("该 API Key 每月 1 个计量单位的预算已用完，将于 20"), "{}", said[1].1);
    assert_eq!(said[2].1, "该 API Key 总计 1 个计量单位的预算已用完，请联系账户所有者提高预算，或更换其他 API Key");
    let (english, of_product) = both(&world, &Request::chat(&buyer.key), 429).await;
    assert!(english.starts_with("chat serves all its callers 3 calls a day"), "{english}");
    let unknown = Request::chat("sk-tg-0123456789ABCDEFGHIJKLMNOPQRST04f25W");
    world.call(&unknown).await.expect(401);
    let (_, failures) = both(&world, &unknown, 429).await;
    for chinese in said.iter().map(|(_, chinese)| chinese).chain([&of_product, &failures]) {
        assert!(is_all_chinese(chinese), "{chinese}");
    }
}

#[tokio::test]
async fn quality_values_decide_and_english_is_the_default() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    for (line, language) in [
        ("zh", "zh-CN"),
        ("zh-Hans", "zh-CN"),
        ("en;q=0.5, zh;q=0.6", "zh-CN"),
        ("fr, zh-SG;q=0.1", "zh-CN"),
        ("en, zh", "en"),
        ("zh;q=0", "en"),
        ("zh-TW", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("zh;q=nonsense", "en"),
    ] {
        let answer = world.call(&Request::chat("sk-tg-x").field("Accept-Language", line)).await.expect(401);
        assert_eq!(answer.head.get("content-language"), Some(language), "{line}");
        assert_eq!(is_chinese(&answer.message()), language == "zh-CN", "{line}");
    }
    let buyer = world.buyer(&["chat-5"]).await;
    let answer = world.call(&Request::chat(&buyer.key).field("Accept-Language", "zh")).await.expect(200);
    assert_eq!(answer.head.get("content-language"), None, "a seller's words are the seller's");
    assert_eq!(seller.requests()[0].head.get("accept-language"), Some("zh"));
}
