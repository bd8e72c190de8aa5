//! Keys' budgets in money: what calls are worth by the packages that pay for them.

use serde_json::{Value, json};

use crate::harness::admin::Buyer;
use crate::harness::client::{Answer, Client, Request};
use crate::harness::process::run;
use crate::harness::redis::Server;
use crate::harness::seller::Seller;
use crate::harness::until;
use crate::harness::world::World;
use crate::limits::{calls_of_a_budget, two_gateways};

/// Prices: a call of `chat-50` is worth 0.1 CNY, one of `api-2` 0.5; three of `api-3` cost 10; `api-5` has no price.
fn priced(config: &mut Value) {
    for offer in config["offers"].as_array_mut().unwrap() {
        let price = match offer["id"].as_str().unwrap() {
            "chat-50" => "5.00 CNY",
            "chat-1000" => "100 CNY",
            "api-2" => "1 CNY",
            "api-3" => "10 CNY",
            "api-50" => "50 EUR",
            _ => continue,
        };
        offer["price"] = json!(price);
    }
}

/// An account with packages, and a key with a budget.
async fn budgeted(world: &World, money: Value, offers: &[&str]) -> Buyer {
    let buyer = world.buyer(offers).await;
    let (key_id, key) = world.admin.add_key(&buyer.account, &json!({ "budget": { "money": money } })).await;
    Buyer { key_id, key, ..buyer }
}

#[track_caller]
fn check_refusal(answer: Answer, words: &str) {
    let answer = answer.expect(429);
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("budget_exhausted"), "{}", answer.text());
    assert_eq!(answer.head.get("x-should-retry"), Some("false"));
    assert!(answer.message().contains(words), "{}", answer.message());
}

#[tokio::test]
async fn a_budget_ends_with_the_last_call_that_it_covers_and_survives_restarts_and_kills() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, priced).await;
    let buyer = budgeted(&world, json!({ "currency": "CNY", "total": "0.55", "per_day": "70" }), &["chat-50"]).await;
    let request = Request::chat(&buyer.key);
    for _ in 0..2 {
        world.call(&request).await.expect(200);
    }
    world.crash().await;
    world.call(&request).await.expect(200);
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    for _ in 0..2 {
        world.call(&request).await.expect(200);
    }
    let words = "the API key's budget of 0.55 CNY in all does not cover this call: 0.05 CNY is left; ask";
    check_refusal(world.call(&request).await, words);
    world.crash().await;
    check_refusal(world.call(&request).await, words);
    let chinese = world.call(&request.clone().field("Accept-Language", "zh")).await.expect(429);
    assert_eq!(
        chinese.message(),
        "该 API Key 总计 0.55 CNY 的预算不足以支付本次调用，剩余 0.05 CNY，请联系账户所有者提高预算，或更换其他 API Key"
    );
    // What is refused costs nothing, and leaves the package's units to others.
    world.settles(&buyer.account, 5).await;
    let other = world.admin.add_key(&buyer.account, &json!({})).await.1;
    world.call(&Request::chat(&other)).await.expect(200);
    // A larger budget: what was used counts.
    let path = format!("/admin/v1/accounts/{}/keys/{}", buyer.account, buyer.key_id);
    let larger = json!({ "budget": { "per_month": 9, "money": { "currency": "CNY", "per_month": "0.60" } } });
    let changed = world.admin.call("PATCH", &path, Some(&larger)).await.expect(200).json();
    assert_eq!(
        changed["budget"],
        json!({ "per_month": 9, "money": { "currency": "CNY", "per_month": "0.6" } }),
        "amounts are shown without zeros at their end"
    );
    let served = async || (world.call(&request).await.status() == 200).then_some(());
    until("one more is served", served).await;
    check_refusal(
        world.call(&request).await,
        "0.6 CNY a month does not cover this call: 0 CNY is left; it begins anew",
    );
    let metrics = world.admin.metrics().await;
    assert!(metrics.sum("tollgate_limited_total", &[("level", "key"), ("kind", "budget")]) >= 1.0);
    assert_eq!(seller.requests().len(), 7);
}

#[tokio::test]
async fn many_calls_at_one_time_do_not_exceed_a_budget() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, priced).await;
    let buyer = budgeted(&world, json!({ "currency": "CNY", "per_month": "1" }), &["chat-1000"]).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (data, request) = (world.data, Request::chat(&buyer.key));
        calls.spawn(async move { Client::connect(data).await.call(&request).await.status() });
    }
    let statuses = calls.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10);
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    world.settles(&buyer.account, 10).await;
}

#[tokio::test]
async fn a_call_is_worth_what_its_package_says_and_one_without_a_price_nothing() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, priced).await;
    let money = json!({ "currency": "CNY", "total": "0.65" });
    let buyer = budgeted(&world, money, &["chat-50", "api-2"]).await;
    let api = || Request::get("/api/x").bearer(&buyer.key);
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    world.call(&api()).await.expect(200);
    check_refusal(world.call(&api()).await, "0.05 CNY is left");
    check_refusal(world.call(&Request::chat(&buyer.key)).await, "0.05 CNY is left");
    // What was refused is there for others; behind it comes a package without a price.
    let other = world.admin.add_key(&buyer.account, &json!({})).await.1;
    world.call(&Request::get("/api/x").bearer(&other)).await.expect(200);
    world.admin.add_package(&buyer.account, "api-5").await;
    let served = async || (world.call(&api()).await.status() == 200).then_some(());
    until("the package without a price pays", served).await;
    for _ in 0..4 {
        world.call(&api()).await.expect(200);
    }
    let empty = world.call(&api()).await.expect(429);
    assert_eq!(empty.head.get("x-tollgate-error-code"), Some("package_exhausted"));
}

#[tokio::test]
async fn a_budget_of_a_packages_price_is_enough_for_all_of_its_calls() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, priced).await;
    let buyer = budgeted(&world, json!({ "currency": "CNY", "total": "10" }), &["api-3"]).await;
    let api = Request::get("/api/x").bearer(&buyer.key);
    for _ in 0..2 {
        world.call(&api).await.expect(200);
    }
    world.crash().await;
    world.call(&api).await.expect(200);
    world.admin.add_package(&buyer.account, "api-3").await;
    let refused = async || {
        let answer = world.call(&api).await;
        (answer.head.get("x-tollgate-error-code") == Some("budget_exhausted")).then_some(answer)
    };
    let refused = until("the next package is noticed", refused).await;
    check_refusal(refused, "0.000000000000000001 CNY is left");
}

#[tokio::test]
async fn a_refused_call_uses_no_limit() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, priced).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let body = json!({
        "limits": { "per_day": 4, "concurrent": 1 },
        "budget": { "money": { "currency": "CNY", "total": "0.1" } },
    });
    let (key_id, key) = world.admin.add_key(&buyer.account, &body).await;
    world.call(&Request::chat(&key)).await.expect(200);
    for _ in 0..9 {
        check_refusal(world.call(&Request::chat(&key)).await, "0 CNY is left");
    }
    let path = format!("/admin/v1/accounts/{}/keys/{key_id}", buyer.account);
    world.admin.call("PATCH", &path, Some(&json!({ "budget": {} }))).await.expect(200);
    let mut statuses = Vec::new();
    let served = async || (world.call(&Request::chat(&key)).await.status() == 200).then_some(());
    until("there is no budget any more", served).await;
    for _ in 0..3 {
        statuses.push(world.call(&Request::chat(&key)).await.status());
    }
    assert_eq!(statuses, [200, 200, 429], "four calls of the day, whatever was refused before");
}

#[tokio::test]
async fn an_accounts_money_is_in_one_currency() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, priced).await;
    let account = world.admin.open_account("buyer").await;
    let account_path = format!("/admin/v1/accounts/{account}");
    let shown = async || world.admin.get(&account_path).await.expect(200).json();
    assert_eq!(shown().await.get("currency"), None);
    world.admin.add_package(&account, "api-5").await;
    assert_eq!(shown().await.get("currency"), None, "it has no price");
    world.admin.add_package(&account, "chat-50").await;
    let account_now = shown().await;
    assert_eq!(account_now["currency"], "CNY");
    let packages = world.admin.get(&format!("{account_path}/packages")).await.expect(200).json();
    let prices: Vec<_> = packages["packages"].as_array().unwrap().iter().map(|package| package.get("price")).collect();
    assert!(
        prices.contains(&None) && prices.contains(&Some(&json!({ "amount": "5", "currency": "CNY" }))),
        "{prices:?}"
    );
    let offers = world.admin.get("/admin/v1/offers").await.expect(200).json();
    let of_offer = |id: &str| {
        let all = offers["offers"].as_array().unwrap();
        all.iter().find(|offer| offer["id"] == id).unwrap().get("price").cloned()
    };
    assert_eq!(of_offer("api-50"), Some(json!({ "amount": "50", "currency": "EUR" })));
    assert_eq!(of_offer("api-5"), None);
    let euros = json!({ "budget": { "money": { "currency": "EUR", "total": "1" } } });
    for (path, body) in [("packages", json!({ "offer": "api-50" })), ("keys", euros)] {
        let refused = world.admin.call("POST", &format!("{account_path}/{path}"), Some(&body)).await.expect(409).json();
        assert_eq!(refused["error"]["code"], "other_currency");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("is in CNY, and this is in EUR"), "{message}");
    }
    for bad in [
        json!({ "currency": "CNY" }),
        json!({ "currency": "CNY", "per_day": "0" }),
        json!({ "currency": "CNY", "per_day": 5 }),
        json!({ "currency": "yuan", "per_day": "5" }),
        json!({ "currency": "CNY", "per_day": "0.0000000001" }),
    ] {
        let body = json!({ "budget": { "money": bad } });
        world.admin.call("POST", &format!("{account_path}/keys"), Some(&body)).await.expect(422);
    }
}

#[tokio::test]
async fn two_gateways_keep_a_budget_together() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let (one, two) = two_gateways(&server, &seller, priced).await;
    let buyer = budgeted(&one, json!({ "currency": "CNY", "total": "4" }), &["chat-1000"]).await;
    let chat = Request::chat(&buyer.key);
    let (first, second) = tokio::join!(calls_of_a_budget(&one, &chat), calls_of_a_budget(&two, &chat));
    let total: u64 = first + second;
    assert!((40..=60).contains(&total), "{first} and {second}: at most a share more than the budget");
    one.settles(&buyer.account, total).await;
    for world in [&one, &two] {
        check_refusal(
            world.call(&Request::chat(&buyer.key)).await,
            "4 CNY in all does not cover this call: 0 CNY is left",
        );
    }
}

#[tokio::test]
async fn the_command_line_sets_budgets_in_money() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, priced).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let admin = format!("http://{}", world.admin.address);
    let token = world.dir.path().join("token");
    std::fs::write(&token, crate::harness::admin::TOKEN).unwrap();
    let asked = |words: &[&str]| {
        let line = ["keys", "budget", &buyer.account, &buyer.key_id];
        let access = ["--admin", &admin, "--admin-token-file", token.to_str().unwrap()];
        run(&[&line, words, &access].concat())
    };
    let (code, out, said) =
        asked(&["--per-day", "7", "--currency", "CNY", "--money-per-month", "9.50", "--money-total", "100", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let key: Value = serde_json::from_str(&out).unwrap();
    let money = json!({ "currency": "CNY", "per_month": "9.5", "total": "100" });
    assert_eq!(key["budget"], json!({ "per_day": 7, "money": money }));
    let (_, table, _) = asked(&["--currency", "CNY", "--money-per-day", "2"]);
    assert!(table.contains("2 CNY/day"), "{table}");
    let (code, _, said) = asked(&["--currency", "EUR", "--money-per-day", "2"]);
    assert!(code != Some(0) && said.contains("is in CNY"), "{code:?} {said}");
    for bad in [
        &["--money-total", "5"][..],
        &["--currency", "CNY"],
        &["--currency", "CNY", "--money-total", "0"],
        &["--currency", "CNY", "--money-total", "1e3"],
        &["--currency", "cny", "--money-total", "1"],
        &["--none", "--currency", "CNY", "--money-total", "1"],
    ] {
        assert_eq!(asked(bad).0, Some(64), "{bad:?}");
    }
    let (_, out, _) = asked(&["--none", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap().get("budget"), None);
}
