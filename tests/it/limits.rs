//! Limits: how many calls products, accounts, keys and apps may make, what the answers say of it, and that it is true.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::admin::{Buyer, text};
use crate::harness::client::{Answer, Client, Request};
use crate::harness::process::run;
use crate::harness::redis::Server;
use crate::harness::seller::{Reply, Seller, Step, plain};
use crate::harness::until;
use crate::harness::world::{World, product};

/// A gateway whose product `chat` has limits.
async fn limited(seller: &Seller, limits: Value) -> World {
    World::with(seller.address, |config| product(config, "chat")["limits"] = limits).await
}

/// Gives a key limits, or takes them away; every gateway enforces them within a second.
async fn limit_key(world: &World, buyer: &Buyer, limits: Value) {
    let path = format!("/admin/v1/accounts/{}/keys/{}", buyer.account, buyer.key_id);
    let changed = world.admin.call("PATCH", &path, Some(&json!({ "limits": limits }))).await.expect(200).json();
    assert_eq!(changed.get("limits").cloned().unwrap_or(json!({})), limits);
}

/// Calls until one is refused; returns how many were served, and the refusal.
async fn until_refused(world: &World, request: &Request) -> (usize, Answer) {
    let mut client = world.client().await;
    for served in 0..1_000 {
        let answer = client.call(request).await;
        if answer.status() != 200 {
            return (served, answer);
        }
    }
    panic!("a thousand calls were served");
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.head.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", answer.head))
}

/// The wait that a refusal asks for.
fn wait_of(answer: &Answer) -> Duration {
    let ms: u64 = header(answer, "retry-after-ms").parse().unwrap();
    let seconds: u64 = header(answer, "retry-after").parse().unwrap();
    assert_eq!(seconds, ms.div_ceil(1_000), "both say the same");
    Duration::from_millis(ms)
}

fn check_refusal(answer: &Answer, words: &[&str]) {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("rate_limit_exceeded"));
    assert_eq!(answer.head.get("x-tollgate-error-source"), Some("gateway"));
    assert_eq!(answer.code(), "rate_limit_exceeded");
    let message = answer.message();
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

#[tokio::test]
async fn a_products_rate_lets_so_many_in_and_says_when_the_next_one_is() {
    let seller = Seller::plain().await;
    let world = limited(&seller, json!({ "per_second": 5, "per_minute": 1000 })).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let first = world.call(&Request::chat(&buyer.key)).await.expect(200);
    assert_eq!(header(&first, "x-ratelimit-limit-requests"), "5");
    assert_eq!(header(&first, "x-ratelimit-remaining-requests"), "4");
    assert!(header(&first, "x-ratelimit-reset-requests").ends_with("ms"), "{:?}", first.head);
    let begun = Instant::now();
    let (served, refused) = until_refused(&world, &Request::chat(&buyer.key)).await;
    let evenly = begun.elapsed().as_millis() / 200;
    assert!(served >= 4 && served as u128 <= 5 + evenly, "{served} in {:?}", begun.elapsed());
    check_refusal(&refused, &["chat serves all its callers 5 calls a second", "try again in 1 s"]);
    assert_eq!(header(&refused, "x-ratelimit-remaining-requests"), "0");
    assert_eq!(refused.head.get("x-should-retry"), None);
    let wait = wait_of(&refused);
    assert!(wait > Duration::ZERO && wait <= Duration::from_millis(200), "{wait:?}");
    // True: whoever waits so long is let in.
    let told = Instant::now();
    until("the wait that was told is over", async || (told.elapsed() >= wait).then_some(())).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    world.settles(&buyer.account, 2 + served as u64).await;
    assert_eq!(seller.requests().len(), 2 + served, "a refused call reaches no seller");
    let metrics = world.admin.metrics().await;
    assert!(metrics.sum("tollgate_limited_total", &[("level", "product"), ("kind", "second")]) >= 1.0);
}

#[tokio::test]
async fn a_refusal_at_one_level_uses_nothing_at_another() {
    let seller = Seller::plain().await;
    let world = limited(&seller, json!({ "per_day": 4 })).await;
    let (one, other) = (world.buyer(&["chat-50"]).await, world.buyer(&["chat-50"]).await);
    limit_key(&world, &one, json!({ "per_day": 2 })).await;
    let limited = async || {
        let answer = world.call(&Request::chat(&one.key)).await;
        answer.head.get("x-ratelimit-limit-requests").map(str::to_owned)
    };
    // Noticed within a second; one call or more before that is the product's alone.
    let asked = Instant::now();
    until("the key's limit holds", async || (limited().await.as_deref() == Some("2")).then_some(())).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let before = seller.requests().len();
    let (served, refused) = until_refused(&world, &Request::chat(&one.key)).await;
    assert!(before <= 2 && served <= 1, "{before} {served}");
    check_refusal(&refused, &["the API key may make 2 calls a day", "ask the operator"]);
    assert!(wait_of(&refused) > Duration::from_secs(43_000));
    assert_eq!(header(&refused, "x-should-retry"), "false", "no SDK should sleep for half a day");
    for _ in 0..5 {
        check_refusal(&world.call(&Request::chat(&one.key)).await, &["API key"]);
    }
    // Of the product's four all are left but those that were served.
    let (rest, refused) = until_refused(&world, &Request::chat(&other.key)).await;
    assert_eq!(before + served + rest, 4);
    check_refusal(&refused, &["chat serves all its callers 4 calls a day"]);
    world.settles(&one.account, (before + served) as u64).await;
}

#[tokio::test]
async fn a_call_without_quota_uses_no_limit() {
    let seller = Seller::plain().await;
    let world = limited(&seller, json!({ "per_day": 2, "concurrent": 1 })).await;
    let rich = world.buyer(&["chat-5"]).await;
    // The first calls of each wait for the store; meanwhile they must not be in the others' way.
    for _ in 0..5 {
        let poor = world.buyer(&[]).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let (data, request) = (world.data, Request::chat(&poor.key));
            calls.spawn(async move { Client::connect(data).await.call(&request).await });
        }
        for answer in calls.join_all().await {
            assert_eq!(answer.expect(429).head.get("x-tollgate-error-code"), Some("no_package"));
        }
    }
    let (served, _) = until_refused(&world, &Request::chat(&rich.key)).await;
    assert_eq!(served, 2);
}

#[tokio::test]
async fn a_place_is_free_again_however_its_call_ends() {
    let seller = Seller::by_hand().await;
    let world = limited(&seller, json!({ "each_key": { "concurrent": 2 } })).await;
    let (buyer, other) = (world.buyer(&["chat-50"]).await, world.buyer(&["chat-50"]).await);
    let request = Request::chat(&buyer.key);
    let (mut stays, mut leaves) = (world.client().await, world.client().await);
    stays.send(request.bytes()).await;
    let answered = seller.next().await;
    leaves.send(request.bytes()).await;
    let unanswered = seller.next().await;
    let refused = world.call(&request).await;
    check_refusal(&refused, &["the API key may make 2 calls at one time", "when one of them has ended"]);
    assert_eq!(wait_of(&refused), Duration::from_secs(1));
    // Each key has its own.
    let mut third = world.client().await;
    third.send(Request::chat(&other.key).bytes()).await;
    let mut for_third = seller.next().await;
    for_third.send(plain(200, "{}")).await;
    for_third.done();
    third.answer("POST").await.expect(200);
    // One ends by being answered.
    let mut for_first = answered;
    for_first.send(plain(200, "{}")).await;
    for_first.done();
    stays.answer("POST").await.expect(200);
    let mut again = world.client().await;
    again.send(request.bytes()).await;
    let broken = seller.next().await;
    check_refusal(&world.call(&request).await, &["at one time"]);
    // One ends because its client hangs up before the answer.
    drop(leaves);
    let lets_in = async || {
        let mut probe = world.client().await;
        probe.send(request.bytes()).await;
        let head = tokio::select! {
            exchange = seller.next() => Ok(exchange),
            answer = probe.answer("POST") => Err(answer),
        };
        match head {
            Ok(mut exchange) => {
                exchange.send(plain(200, "{}")).await;
                exchange.done();
                probe.answer("POST").await.expect(200);
                Some(())
            }
            Err(answer) => {
                assert_eq!(answer.status(), 429, "{}", answer.text());
                None
            }
        }
    };
    until("the place of the client that hung up is free", lets_in).await;
    drop(unanswered);
    // One ends because its seller breaks off, in the middle of a head: it is not asked again.
    let mut broken = broken;
    broken.send("HTTP/1.1 200 O").await;
    broken.reset();
    assert_eq!(again.answer("POST").await.status(), 502);
    until("both places are free", lets_in).await;
}

#[tokio::test]
async fn accounts_and_apps_have_limits_over_all_products() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50", "api-50"]).await;
    let account = format!("/admin/v1/accounts/{}", buyer.account);
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let limits = json!({ "per_day": 2 });
    let set = world.admin.call("PUT", &format!("{account}/apps/{app}/limits"), Some(&limits)).await.expect(200).json();
    assert_eq!(set["limits"], limits);
    let signed = || signer.sign(Request::get("/api/x"));
    let (served, refused) = until_refused(&world, &signed()).await;
    assert_eq!((served, refused.status()), (2, 429));
    assert!(refused.message().contains("the app may make 2 calls a day"), "{}", refused.message());
    assert_eq!(refused.json()["error_code"], "APIG.0308");
    // The account's: the app's two calls were before it was set.
    let limits = json!({ "per_day": 3, "concurrent": 9 });
    let set = world.admin.call("PUT", &format!("{account}/limits"), Some(&limits)).await.expect(200).json();
    assert_eq!(set, limits);
    assert_eq!(world.admin.get(&account).await.expect(200).json()["limits"], limits);
    let shown = async || {
        let answer = world.call(&Request::get("/api/x").bearer("sk-tg-none")).await;
        assert_eq!(answer.status(), 401);
        let answer = world.call(&Request::chat(&buyer.key)).await.expect(200);
        answer.head.get("x-ratelimit-remaining-requests").map(str::to_owned)
    };
    until("the account's limit holds", async || shown().await.filter(|left| left == "2")).await;
    world.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    check_refusal(&world.call(&Request::chat(&buyer.key)).await, &["the account may make 3 calls a day"]);
    let none = world.admin.call("PUT", &format!("{account}/limits"), Some(&json!({}))).await.expect(200).json();
    assert_eq!(none, json!({}));
    let free = async || (world.call(&Request::chat(&buyer.key)).await.status() == 200).then_some(());
    until("there is no limit any more", free).await;
    for (path, body, status) in [
        (format!("{account}/limits"), json!({ "per_minute": 0 }), 422),
        (format!("{account}/limits"), json!({ "per_hour": 1 }), 422),
        ("/admin/v1/accounts/nobody/limits".to_owned(), json!({}), 404),
        (format!("{account}/apps/none/limits"), json!({}), 404),
    ] {
        world.admin.call("PUT", &path, Some(&body)).await.expect(status);
    }
}

#[tokio::test]
async fn a_product_limits_each_caller_that_has_no_limit_of_its_own() {
    let seller = Seller::plain().await;
    let each = json!({ "each_key": { "per_day": 1 }, "each_account": { "per_day": 3 } });
    let world = limited(&seller, each).await;
    let buyer = world.buyer(&["chat-50", "api-50"]).await;
    let second = world.admin.add_key(&buyer.account, &json!({ "limits": { "per_day": 5 } })).await.1;
    let (served, refused) = until_refused(&world, &Request::chat(&buyer.key)).await;
    assert_eq!(served, 1);
    check_refusal(&refused, &["the API key may make 1 calls a day"]);
    world.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
    let (served, refused) = until_refused(&world, &Request::chat(&second)).await;
    assert_eq!(served, 2, "its own limit is wider than the product's for each; the account's is left");
    check_refusal(&refused, &["the account may make 3 calls a day"]);
    assert!(
        world.call(&Request::get("/api/x").bearer(&second)).await.expect(200).head.get("x-ratelimit-limit-requests")
            == Some("5")
    );
}

#[tokio::test]
async fn what_is_used_is_remembered_over_changes_of_the_account_and_of_the_configuration() {
    let seller = Seller::plain().await;
    let mut world = limited(&seller, json!({ "per_day": 5, "each_key": { "per_day": 3 } })).await;
    let buyer = world.buyer(&["chat-50"]).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    world.admin.add_package(&buyer.account, "chat-5").await;
    world.rewrite(|config| product(config, "chat")["limits"]["per_day"] = json!(6));
    world.admin.call("POST", "/admin/v1/reload", None).await.expect(204);
    let (served, refused) = until_refused(&world, &Request::chat(&buyer.key)).await;
    assert_eq!(served, 1);
    check_refusal(&refused, &["API key"]);
    let other = world.admin.add_key(&buyer.account, &json!({})).await.1;
    let (served, refused) = until_refused(&world, &Request::chat(&other)).await;
    assert_eq!(served, 3);
    check_refusal(&refused, &["API key"]);
    let third = world.admin.add_key(&buyer.account, &json!({})).await.1;
    check_refusal(&world.call(&Request::chat(&third)).await, &["chat serves all its callers 6 calls a day"]);
}

#[tokio::test]
async fn without_limits_no_header_speaks_of_any() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let answer = world.call(&Request::chat(&buyer.key)).await.expect(200);
    assert_eq!(answer.head.get("x-ratelimit-limit-requests"), None);
    // A seller's own are the seller's: the gateway's go before them.
    let script = Reply::bytes(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-ratelimit-limit-requests: 77\r\nContent-Type: text/plain\r\n\r\nok",
    );
    let seller = Seller::always(script).await;
    let world = limited(&seller, json!({ "per_day": 9 })).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let answer = world.call(&Request::chat(&buyer.key)).await.expect(200);
    assert_eq!(answer.head.all("x-ratelimit-limit-requests"), ["9"]);
}

#[tokio::test]
async fn two_gateways_let_in_what_one_may() {
    let server = Server::start(&[]);
    let seller = Seller::plain().await;
    let url = format!("unix:{}", server.socket().display());
    let start = async |gateway: &str| {
        World::with(seller.address, |config| {
            config["gateway"] = json!(gateway);
            config["store"] = json!({ "volatile": true, "redis": { "url": url, "timeout": "2s" } });
            product(config, "chat")["limits"] = json!({ "per_day": 20 });
        })
        .await
    };
    let (one, two) = (start("gw-1").await, start("gw-2").await);
    for world in [&one, &two] {
        let both = async || (world.admin.metrics().await.sum("tollgate_gateways_live", &[]) == 2.0).then_some(());
        until("each gateway knows of the other", both).await;
    }
    let buyer = one.buyer(&["chat-1000"]).await;
    let (first, refused) = until_refused(&one, &Request::chat(&buyer.key)).await;
    check_refusal(&refused, &["20 calls a day"]);
    let (second, _) = until_refused(&two, &Request::chat(&buyer.key)).await;
    assert_eq!((first, second), (10, 10), "half each");
    // When one is gone, the other has all that is left: of a day's twenty its own ten are used.
    drop(two);
    let alone = async || (one.admin.metrics().await.sum("tollgate_gateways_live", &[]) == 1.0).then_some(());
    until("the other is no longer waited for", alone).await;
    assert_eq!(until_refused(&one, &Request::chat(&buyer.key)).await.0, 10);
}

/// Presents something wrong so often; each answer is 401.
async fn fail(world: &World, times: usize, request: &Request) {
    for _ in 0..times {
        world.call(request).await.expect(401);
    }
}

#[tokio::test]
async fn failed_authentications_are_limited_and_known_callers_go_on() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["limits"]["failed_auth_per_minute"] = json!(4);
        config["credentials"] = json!({ "allow_app_code_without_tls": true });
        product(config, "api")["accept"] = json!(["signature", "app_code", "api_key"]);
    })
    .await;
    let (known, strange) = (world.buyer(&["chat-50"]).await, world.buyer(&["chat-50"]).await);
    let (app, signer) = world.admin.add_app(&known.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&known.account, &app).await;
    world.admin.add_package(&known.account, "api-50").await;
    world.call(&Request::chat(&known.key)).await.expect(200);
    world.call(&signer.sign(Request::get("/api/x"))).await.expect(200);
    let unknown = Request::chat("sk-tg-0123456789ABCDEFGHIJKLMNOPQRST04f25W");
    let typo = Request::chat(&known.key[..known.key.len() - 1]);
    let forged = |app_key: &str| {
        let forger = crate::harness::signer::Signer { app_key: app_key.to_owned(), secret: "x".repeat(32) };
        forger.sign(Request::get("/api/x"))
    };
    fail(&world, 1, &unknown).await;
    fail(&world, 1, &typo).await;
    fail(&world, 1, &Request::get("/api/x").bearer("%%")).await;
    fail(&world, 1, &forged(&signer.app_key)).await;
    // The same answer whether the AppKey is known or not, the key a typo or not, or not yet looked up.
    let mut texts = Vec::new();
    let by_code = Request::get("/api/x").field("X-Apig-AppCode", &code);
    let others =
        [unknown.clone(), typo, Request::chat(&strange.key), by_code, forged(&signer.app_key), forged("nobodys-key")];
    for request in others {
        let answer = world.call(&request).await.expect(429);
        assert_eq!(answer.head.get("x-tollgate-error-code"), Some("too_many_failures"));
        assert_eq!(answer.code(), if answer.json()["error"].is_null() { "APIG.0308" } else { "too_many_failures" });
        let wait = wait_of(&answer);
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(15), "{wait:?}");
        let message = answer.message();
        let words = message.split(|c: char| c.is_ascii_digit()).collect::<Vec<_>>().concat();
        texts.push(words);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("from this address have failed"), "{texts:?}");
    // Who was known before goes on, by the same address.
    world.call(&Request::chat(&known.key)).await.expect(200);
    world.call(&signer.sign(Request::get("/api/x"))).await.expect(200);
    let metrics = world.admin.metrics().await;
    assert_eq!(metrics.sum("tollgate_limited_total", &[("level", "address"), ("kind", "failures")]), 6.0);
}

#[tokio::test]
async fn a_guesser_who_waits_as_told_is_heard_again() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| config["limits"]["failed_auth_per_minute"] = json!(120)).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let unknown = Request::chat("sk-tg-0123456789ABCDEFGHIJKLMNOPQRST04f25W");
    let mut client = world.client().await;
    let refused = loop {
        let answer = client.call(&unknown).await;
        if answer.status() == 429 {
            break answer;
        }
        assert_eq!(answer.status(), 401);
    };
    let (told, wait) = (Instant::now(), wait_of(&refused));
    assert!(wait <= Duration::from_millis(500), "{wait:?}");
    until("the wait that was told is over", async || (told.elapsed() >= wait).then_some(())).await;
    // One that was never looked up is now.
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    client.call(&unknown).await.expect(401);
}

/// An account with a key that has a budget.
async fn budgeted(world: &World, budget: Value, offers: &[&str]) -> Buyer {
    let buyer = world.buyer(offers).await;
    let (key_id, key) = world.admin.add_key(&buyer.account, &json!({ "budget": budget })).await;
    Buyer { key_id, key, ..buyer }
}

fn check_budget(answer: &Answer, words: &str) {
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("budget_exhausted"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "insufficient_quota");
    assert_eq!(answer.head.get("x-should-retry"), Some("false"));
    assert!(answer.message().contains(words), "{}", answer.message());
}

#[tokio::test]
async fn a_budget_ends_with_its_last_unit_and_survives_restarts_and_kills() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = budgeted(&world, json!({ "total": 6, "per_day": 60 }), &["chat-50"]).await;
    let request = Request::chat(&buyer.key);
    for _ in 0..2 {
        world.call(&request).await.expect(200);
    }
    world.crash().await;
    for _ in 0..2 {
        world.call(&request).await.expect(200);
    }
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    let (served, refused) = until_refused(&world, &request).await;
    assert_eq!(served, 2);
    check_budget(&refused, "the API key's budget of 6 units in all is used up; ask");
    world.crash().await;
    check_budget(&world.call(&request).await, "6 units in all");
    world.settles(&buyer.account, 6).await;
    // Other keys of the account go on, and this one with a larger budget: what was used counts.
    let other = world.admin.add_key(&buyer.account, &json!({})).await.1;
    world.call(&Request::chat(&other)).await.expect(200);
    let path = format!("/admin/v1/accounts/{}/keys/{}", buyer.account, buyer.key_id);
    world.admin.call("PATCH", &path, Some(&json!({ "budget": { "per_day": 7 } }))).await.expect(200);
    let served = async || (world.call(&request).await.status() == 200).then_some(());
    until("one more is served", served).await;
    check_budget(&world.call(&request).await, "7 units a day is used up; it begins anew at 20");
    let metrics = world.admin.metrics().await;
    assert!(metrics.sum("tollgate_limited_total", &[("level", "key"), ("kind", "budget")]) >= 2.0);
}

#[tokio::test]
async fn many_calls_at_one_time_do_not_exceed_a_budget() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = budgeted(&world, json!({ "per_month": 10 }), &["chat-1000", "api-1000"]).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..64 {
        let (data, key) = (world.data, buyer.key.clone());
        calls.spawn(async move {
            let request = if number % 2 == 0 { Request::chat(&key) } else { Request::get("/api/x").bearer(&key) };
            Client::connect(data).await.call(&request).await.status()
        });
    }
    let statuses = calls.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "over both products");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    world.settles(&buyer.account, 10).await;
}

#[tokio::test]
async fn what_costs_nothing_leaves_the_budget_as_it_was() {
    let seller = Seller::answering(|seen| match seen.head.target() {
        "/api/broken" => Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").then(Step::Close),
        "/api/missing" => Reply::json(404, "{}"),
        _ => Reply::json(200, "{}"),
    })
    .await;
    let world = World::start(seller.address).await;
    let buyer = budgeted(&world, json!({ "total": 1 }), &["api-50"]).await;
    let get = |path: &str| Request::get(path).bearer(&buyer.key);
    for _ in 0..3 {
        world.call(&get("/api/missing")).await.expect(404);
        assert!(world.call(&get("/api/broken")).await.cut.is_some(), "void: the seller broke off");
        world.call(&Request::chat(&buyer.key)).await.expect(429); // no package
    }
    let served = async || (world.call(&get("/api/x")).await.status() == 200).then_some(());
    until("the calls before have ended", served).await;
    let refused = world.call(&get("/api/x")).await.expect(429);
    assert_eq!(refused.head.get("x-tollgate-error-code"), Some("budget_exhausted"));
    world.settles(&buyer.account, 1).await;
}

/// Two gateways on one server that know of each other.
pub(crate) async fn two_gateways(
    server: &Server,
    seller: &Seller,
    adjust: impl Fn(&mut Value) + Copy,
) -> (World, World) {
    let url = format!("unix:{}", server.socket().display());
    let start = async |gateway: &str| {
        World::with(seller.address, |config| {
            config["gateway"] = json!(gateway);
            config["store"] = json!({ "volatile": true, "redis": { "url": url, "timeout": "2s" } });
            adjust(config);
        })
        .await
    };
    let (one, two) = (start("gw-1").await, start("gw-2").await);
    for world in [&one, &two] {
        let both = async || (world.admin.metrics().await.sum("tollgate_gateways_live", &[]) == 2.0).then_some(());
        until("each gateway knows of the other", both).await;
    }
    (one, two)
}

/// Calls as fast as it goes until the key's budget is used up, and says how many were served. A share that is used up
/// is waited for, as told.
pub(crate) async fn calls_of_a_budget(world: &World, request: &Request) -> u64 {
    let (mut client, mut served) = (world.client().await, 0);
    loop {
        let answer = client.call(request).await;
        match (answer.status(), answer.head.get("x-tollgate-error-code")) {
            (200, _) => served += 1,
            (429, Some("rate_limit_exceeded")) => {
                let (told, wait) = (Instant::now(), wait_of(&answer));
                until("the wait that was told is over", async || (told.elapsed() >= wait).then_some(())).await;
            }
            (429, Some("budget_exhausted")) => return served,
            other => panic!("{other:?}: {}", answer.text()),
        }
    }
}

#[tokio::test]
async fn two_gateways_keep_a_budget_together() {
    let (server, seller) = (Server::start(&[]), Seller::plain().await);
    let (one, two) = two_gateways(&server, &seller, |_| {}).await;
    // The same product on both, then each its own.
    for own in [false, true] {
        let buyer = budgeted(&one, json!({ "total": 40 }), &["chat-1000", "api-1000"]).await;
        let (chat, api) = (Request::chat(&buyer.key), Request::get("/api/x").bearer(&buyer.key));
        let other = if own { &api } else { &chat };
        let (first, second) = tokio::join!(calls_of_a_budget(&one, &chat), calls_of_a_budget(&two, other));
        let total: u64 = first + second;
        // The bound that is stated: never more than its share beyond what the other has seen.
        assert!((40..=60).contains(&total), "{first} and {second}");
        one.settles(&buyer.account, total).await;
        // Once all is in the books nobody lets anything in.
        for world in [&one, &two] {
            check_budget(&world.call(&chat).await, "40 units in all");
        }
    }
}

#[tokio::test]
async fn the_command_line_sets_limits() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let (app, _) = world.admin.add_app(&buyer.account, &[]).await;
    let admin = format!("http://{}", world.admin.address);
    let token = world.dir.path().join("token");
    std::fs::write(&token, crate::harness::admin::TOKEN).unwrap();
    let asked = |words: &[&str]| {
        let more = ["--admin", &admin, "--admin-token-file", token.to_str().unwrap(), "--json"];
        let (code, out, said) = run(&[words, &more].concat());
        (code, serde_json::from_str::<Value>(&out).unwrap_or(Value::Null), said)
    };
    let (code, key, said) =
        asked(&["keys", "limit", &buyer.account, &buyer.key_id, "--per-minute", "2", "--concurrent", "3"]);
    assert_eq!((code, &key["limits"]), (Some(0), &json!({ "per_minute": 2, "concurrent": 3 })), "{said}");
    let (_, limited, _) = asked(&["apps", "limit", &buyer.account, &app, "--per-second", "7"]);
    assert_eq!(limited["limits"], json!({ "per_second": 7 }));
    let (_, limits, _) = asked(&["accounts", "limit", &buyer.account, "--per-day", "9"]);
    assert_eq!(limits, json!({ "per_day": 9 }));
    let (_, account, _) = asked(&["accounts", "show", &buyer.account]);
    assert_eq!((&account["limits"], text(&account["keys"][0], "id")), (&json!({ "per_day": 9 }), buyer.key_id.clone()));
    let (_, key, _) = asked(&["keys", "limit", &buyer.account, &buyer.key_id, "--none"]);
    assert_eq!(key.get("limits"), None);
    let (_, key, _) = asked(&["keys", "budget", &buyer.account, &buyer.key_id, "--per-month", "5", "--total", "9"]);
    assert_eq!(key["budget"], json!({ "per_month": 5, "total": 9 }));
    let (_, key, _) = asked(&["keys", "budget", &buyer.account, &buyer.key_id, "--none"]);
    assert_eq!(key.get("budget"), None);
    assert_eq!(asked(&["keys", "limit", &buyer.account, &buyer.key_id]).0, Some(64));
    assert_eq!(asked(&["keys", "limit", &buyer.account, &buyer.key_id, "--none", "--per-day", "1"]).0, Some(64));
}
