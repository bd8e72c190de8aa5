//! What counts and what does not: a 2xx head that goes to the client is one unit, once, whatever happens afterwards.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::books::{request_id, units};
use crate::harness::client::{Answer, Request};
use crate::harness::seller::{LAST_CHUNK, Reply, SSE_HEAD, Seen, Seller, Step, chunk, plain};
use crate::harness::world::{BUY_URL, World, product};
use crate::harness::{crash, race, until};

/// The statuses for which a call comes: the seller answers `/api/STATUS` with it.
fn by_target(seen: &Seen) -> Reply {
    match seen.head.target().trim_start_matches("/api/").parse() {
        Ok(status @ 200..=599) => Reply::json(status, "{}"),
        Ok(_) | Err(_) => Reply::json(200, "{}"),
    }
}

/// Checks a refusal for lack of quota, on an LLM route.
fn check_exhausted(answer: Answer, code: &str) {
    let answer = answer.expect(429);
    let json = answer.json();
    assert_eq!(json["error"]["type"], "insufficient_quota");
    assert_eq!(json["error"]["code"], "insufficient_quota");
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some(code), "{json}");
    assert!(answer.text().contains(code), "the fine code is in the body too: {json}");
    assert_eq!(answer.head.get("x-should-retry"), Some("false"));
    assert_eq!(answer.head.get("retry-after"), None, "waiting does not help");
    assert_eq!(answer.head.get("x-tollgate-error-source"), Some("gateway"));
    assert!(answer.message().contains(BUY_URL), "{}", answer.message());
    assert_eq!(answer.head.get("x-request-id"), json["request_id"].as_str());
}

/// The usage records of a stopped world, and a check that they and the books say the same.
async fn records_agree(world: &mut World, account: &str) -> Vec<Value> {
    assert_eq!(world.stop().await.code, Some(0));
    let records = world.usage();
    world.restart().await;
    assert_eq!(world.settled(account).await, units(&records), "{records:?}");
    records
}

#[tokio::test]
async fn the_headers_count_down_and_the_books_follow() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-3"]).await;
    let mut client = world.client().await;
    for left in ["2", "1", "0"] {
        let answer = client.call(&Request::chat(&buyer.key)).await.expect(200);
        assert_eq!(answer.head.get("x-tollgate-remaining"), Some(left));
        assert_eq!(answer.head.get("x-tollgate-unit"), Some("calls"));
        let expires: jiff::Timestamp = answer.head.get("x-tollgate-package-expires").unwrap().parse().unwrap();
        assert!(expires > jiff::Timestamp::now());
    }
    check_exhausted(client.call(&Request::chat(&buyer.key)).await, "package_exhausted");
    world.settles(&buyer.account, 3).await;
    assert_eq!(records_agree(&mut world, &buyer.account).await.len(), 3);
    check_exhausted(world.call(&Request::chat(&buyer.key)).await, "package_exhausted");
}

#[tokio::test]
async fn while_what_is_left_is_set_aside_for_a_call_nobody_is_told_that_it_is_used_up() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1"]).await;
    let mut first = world.client().await;
    first.send(Request::chat(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    let answer = world.call(&Request::chat(&buyer.key)).await.expect(429);
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("package_exhausted"));
    assert!(answer.message().contains("set aside for calls under way; try again"), "{}", answer.message());
    assert!(answer.message().contains(BUY_URL), "{}", answer.message());
    assert_eq!((answer.head.get("x-should-retry"), answer.head.get("retry-after")), (None, Some("1")));
    let chinese = world.call(&Request::chat(&buyer.key).field("Accept-Language", "zh")).await.expect(429);
    assert!(chinese.message().contains("预留"), "{}", chinese.message());
    // It comes back: the call costs nothing.
    exchange.send(plain(500, "{}")).await;
    exchange.done();
    first.answer("POST").await.expect(500);
    let mut second = world.client().await;
    second.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    second.head().await;
    // Charged, though it goes on: it does not come back any more.
    check_exhausted(world.call(&Request::chat(&buyer.key)).await, "package_exhausted");
    exchange.send(LAST_CHUNK).await;
    exchange.done();
    check_exhausted(world.call(&Request::chat(&buyer.key)).await, "package_exhausted");
}

#[tokio::test]
async fn an_account_without_a_package_is_told_where_to_buy_one() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-1"]).await;
    check_exhausted(world.call(&Request::chat(&buyer.key)).await, "no_package");
    // Once there is one, the next calls are served: an empty answer is not remembered for long.
    world.admin.add_package(&buyer.account, "chat-1").await;
    let served = async || (world.call(&Request::chat(&buyer.key)).await.status() == 200).then_some(());
    until("the new package is used", served).await;
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn other_products_refuse_in_their_own_shape() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-1"]).await;
    world.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
    let answer = world.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(429);
    let json = answer.json();
    assert!(json["error_code"].is_string() && json["error_msg"].is_string() && json["error"].is_null(), "{json}");
    assert_eq!(json["request_id"].as_str(), answer.head.get("x-request-id"));
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("package_exhausted"));
}

#[tokio::test]
async fn only_2xx_counts() {
    let seller = Seller::answering(by_target).await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-50"]).await;
    let mut expected = 0;
    for status in [200, 201, 204, 206, 226, 299, 300, 301, 304, 400, 404, 409, 429, 500, 502, 503, 529, 599] {
        let request = Request::get(&format!("/api/{status}")).bearer(&buyer.key);
        let answer = world.call(&request).await.expect(status);
        expected += u64::from(status < 300);
        let left = (50 - expected).to_string();
        assert_eq!(answer.head.get("x-tollgate-remaining"), Some(left.as_str()), "after {status}");
    }
    world.settles(&buyer.account, expected).await;
    let records = records_agree(&mut world, &buyer.account).await;
    assert!(records.iter().all(|record| (200..300).contains(&record["status"].as_u64().unwrap())));
}

#[tokio::test]
async fn an_offer_that_counts_every_status_does_so() {
    let seller = Seller::answering(by_target).await;
    let mut world = World::with(seller.address, |config| {
        config["offers"].as_array_mut().unwrap().push(json!({
            "id": "any", "product": "api", "kind": "per_call", "calls": 9, "validity": "30d",
            "time_zone": "Asia/Shanghai", "billable": [{ "statuses": "any" }],
        }));
    })
    .await;
    let buyer = world.buyer(&["any"]).await;
    for status in [200, 404, 500] {
        world.call(&Request::get(&format!("/api/{status}")).bearer(&buyer.key)).await.expect(status);
    }
    world.call(&Request::get("/api/200").bearer("sk-tg-none")).await.expect(401);
    world.settles(&buyer.account, 3).await;
    records_agree(&mut world, &buyer.account).await;
}

#[tokio::test]
async fn packages_are_stacked_and_the_one_that_ends_first_is_drawn_first() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| {
        for (id, validity) in [("late", "2y"), ("early", "30d")] {
            config["offers"].as_array_mut().unwrap().push(json!({
                "id": id, "product": "chat", "kind": "per_call", "calls": 2, "validity": validity,
            }));
        }
    })
    .await;
    let buyer = world.buyer(&["late", "early"]).await;
    for left in ["3", "2", "1", "0"] {
        let answer = world.call(&Request::chat(&buyer.key)).await.expect(200);
        assert_eq!(answer.head.get("x-tollgate-remaining"), Some(left));
    }
    world.settles(&buyer.account, 4).await;
    let mut records = records_agree(&mut world, &buyer.account).await;
    records.sort_by_key(|record| record["arrived"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let package = |at: usize| records[at]["parts"][0]["package"].clone();
    assert!(package(0) == package(1) && package(2) == package(3) && package(1) != package(2), "{records:?}");
}

#[tokio::test]
async fn a_usage_record_says_who_what_when_and_how_it_ended() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let before = jiff::Timestamp::now();
    world.call(&Request::chat(&buyer.key).field("X-Request-Id", "rec-1")).await.expect(200);
    world.settles(&buyer.account, 1).await;
    let records = records_agree(&mut world, &buyer.account).await;
    let record = &records[0];
    let arrived: jiff::Timestamp = record["arrived"].as_str().unwrap().parse().unwrap();
    let ended: jiff::Timestamp = record["ended"].as_str().unwrap().parse().unwrap();
    assert!(before <= arrived && arrived <= ended && ended <= jiff::Timestamp::now(), "{record}");
    let package = world.admin.packages(&buyer.account).await[0].id.clone();
    for (field, value) in [
        ("request_id", json!("rec-1")),
        ("account", json!(buyer.account)),
        ("key", json!(buyer.key_id)),
        ("product", json!("chat")),
        ("status", json!(200)),
        ("units", json!(1)),
        ("ending", json!("complete")),
        ("streamed", json!(false)),
        ("attempts", json!(1)),
    ] {
        assert_eq!(record[field], value, "{field}: {record}");
    }
    assert_eq!(record["parts"][0]["package"], package);
    assert_eq!(record["parts"][0]["units"], 1);
    assert!(record["parts"][0]["lease"].is_u64() && !record["incarnation"].is_null() && record["core"].is_u64());
}

#[tokio::test]
async fn a_hang_up_after_the_head_counts_and_says_so() {
    let seller = Seller::by_hand().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    client.head().await;
    drop(client);
    exchange.gateway_ends().await;
    world.settles(&buyer.account, 1).await;
    let records = records_agree(&mut world, &buyer.account).await;
    assert_eq!((&records[0]["ending"], &records[0]["units"]), (&json!("client_gone"), &json!(1)));
}

/// How many units a call costs whose seller breaks off with these bytes sent.
async fn cost_of_break(rule: Option<&str>, sent: Vec<u8>) -> (u64, Value) {
    let seller = Seller::always(Reply::bytes(sent).then(Step::Close)).await;
    let mut world = World::with(seller.address, |config| {
        if let Some(rule) = rule {
            product(config, "chat")["on_seller_break"] = json!(rule);
        }
    })
    .await;
    let buyer = world.buyer(&["chat-1"]).await;
    let answer = world.call(&Request::chat(&buyer.key)).await.expect(200);
    assert!(answer.cut.is_some(), "a cut answer is never ended properly: {:?}", answer.text());
    let metrics = world.quiet().await;
    assert_eq!(metrics.sum("tollgate_call_endings_total", &[("ending", "seller_broke")]), 1.0);
    let left = world.call(&Request::chat(&buyer.key)).await.status();
    let records = records_agree(&mut world, &buyer.account).await;
    let units = records[0]["units"].as_u64().unwrap();
    assert_eq!(left, if units == 0 { 200 } else { 429 }, "what was taken back can be sold again");
    assert_eq!(metrics.sum("tollgate_units_voided_total", &[("product", "chat")]), if units == 0 { 1.0 } else { 0.0 });
    (units, records[0]["ending"].clone())
}

#[tokio::test]
async fn a_seller_that_breaks_off_is_paid_as_the_product_says() {
    let short = plain(200, "{\"whole\":true}");
    let short = short[..short.len() - 4].to_vec();
    let stream = [SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat();
    let silent = [SSE_HEAD.as_bytes(), &chunk(": not yet\n")].concat();
    for (rule, sent, units) in [
        (None, &short, 0),
        (None, &stream, 1),
        (None, &silent, 0),
        (Some("bill"), &short, 1),
        (Some("bill"), &silent, 1),
        (Some("void"), &stream, 0),
    ] {
        let shown = String::from_utf8_lossy(sent).into_owned();
        let (cost, ending) = cost_of_break(rule, sent.clone()).await;
        assert_eq!((cost, ending), (units, json!("seller_broke")), "{rule:?} {shown}");
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_stream_counts_the_call_once() {
    let seller = Seller::by_hand().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).field("X-Request-Id", "cut-1").bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    assert_eq!(client.head().await.status(), 200);
    // A second call has reached the seller, but its client has no head: it is free.
    let mut unanswered = world.client().await;
    unanswered.send(Request::chat(&buyer.key).bytes()).await;
    let _second = seller.next().await;
    world.crash().await;
    world.settles(&buyer.account, 1).await;
    for _ in 0..2 {
        world.crash().await;
        assert_eq!(world.settled(&buyer.account).await, 1);
    }
    let records = records_agree(&mut world, &buyer.account).await;
    assert_eq!(records.len(), 1);
    assert_eq!((request_id(&records[0]), &records[0]["ending"]), ("cut-1", &json!("interrupted")));
    // What was leased to the process that died can be sold again, and no more than that.
    let mut sold = 0;
    while sold < 5 {
        let mut client = world.client().await;
        client.send(Request::chat(&buyer.key).bytes()).await;
        tokio::select! {
            mut exchange = seller.next() => {
                exchange.send(plain(200, "{}")).await;
                exchange.done();
                client.answer("POST").await.expect(200);
                sold += 1;
            }
            answer = client.answer("POST") => {
                check_exhausted(answer, "package_exhausted");
                break;
            }
        }
    }
    assert_eq!(sold, 4);
}

#[tokio::test]
async fn a_call_that_is_complete_before_the_kill_is_not_counted_again() {
    let stream = [SSE_HEAD.as_bytes(), &chunk("data: 1\n\n"), LAST_CHUNK.as_bytes()].concat();
    let seller = Seller::always(Reply::bytes(stream)).await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    for round in 1..=3 {
        world.call(&Request::stream(&buyer.key)).await.expect(200);
        world.crash().await;
        world.settles(&buyer.account, round).await;
    }
    assert_eq!(records_agree(&mut world, &buyer.account).await.len(), 3);
}

#[tokio::test]
async fn a_store_that_lost_its_last_writes_between_two_starts_sells_nothing_twice() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    world.stop().await;
    world.restart().await;
    for _ in 0..5 {
        world.call(&Request::chat(&buyer.key)).await.expect(200);
    }
    // The first run's journal is settled by the second, and then the store forgets that: SQLite drops a log that is damaged.
    world.crash().await;
    world.settles(&buyer.account, 5).await;
    world.gateway.kill().await;
    std::fs::remove_file(world.data_dir().join("store.sqlite3-wal")).unwrap();
    world.restart().await;
    world.gateway.says("the store has forgotten its last commits").await;
    world.settles(&buyer.account, 5).await;
    world.call(&Request::chat(&buyer.key)).await.expect(429);
}

#[tokio::test]
async fn journal_files_that_lost_their_content_bring_no_unit_back() {
    let seller = Seller::plain().await;
    // The grants' file, and those of the charges.
    for lost in [vec!["00"], vec!["01", "02"]] {
        let mut world = World::start(seller.address).await;
        let buyer = world.buyer(&["chat-5"]).await;
        for _ in 0..3 {
            world.call(&Request::chat(&buyer.key)).await.expect(200);
        }
        world.gateway.kill().await;
        let mut runs = std::fs::read_dir(world.data_dir().join("journal")).unwrap().map(|entry| entry.unwrap().path());
        let run = runs.find(|path| path.is_dir()).unwrap();
        for writer in &lost {
            std::fs::write(run.join(format!("{writer}-000001.journal")), "").unwrap();
        }
        world.restart().await;
        let mut sold = 3;
        while world.call(&Request::chat(&buyer.key)).await.status() == 200 {
            sold += 1;
        }
        assert!(sold <= 5, "{sold} of 5 calls were sold; lost: {lost:?}");
    }
}

#[tokio::test]
async fn the_first_calls_of_a_fresh_key_cannot_oversell_its_package() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(world.client().await);
    }
    let calls = clients.into_iter().map(|mut client| {
        let request = Request::chat(&buyer.key);
        tokio::spawn(async move { client.call(&request).await.status() })
    });
    let mut through = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            200 => through += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!((through, seller.requests().len()), (5, 5));
}

#[tokio::test]
async fn racing_clients_get_exactly_what_was_bought() {
    let plan = race::Plan { rounds: 3, seed: 11, clients: 64, calls: 50, fail_percent: 10 };
    for round in race::run(plan).await {
        assert_eq!((round.sold(), round.settled), (50, 50), "{round:?}");
    }
}

#[tokio::test]
async fn kills_under_load_lose_and_double_nothing() {
    let report = crash::run(crash::Plan { rounds: 3, seed: 5, calls_per_second: 150 }).await;
    assert_eq!(report.faults(), Vec::<String>::new(), "{report:?}");
}

#[tokio::test]
async fn an_expired_package_is_refused_as_expired() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    world.settles(&buyer.account, 1).await;
    assert_eq!(world.stop().await.code, Some(0));
    set_valid_until(&world, "2020-01-31T15:59:59Z");
    world.restart().await;
    let answer = world.call(&Request::chat(&buyer.key)).await;
    assert!(answer.message().contains("2020-01-31"), "{}", answer.message());
    check_exhausted(answer, "package_expired");
    let packages = world.admin.packages(&buyer.account).await;
    assert_eq!(packages.iter().map(|package| package.settled).sum::<u64>(), 1);
    assert_eq!(packages.iter().map(|package| package.remaining).sum::<u64>(), 0, "{packages:?}");
}

/// Moves the end of every package in the store: no test can wait for a day to end.
fn set_valid_until(world: &World, end: &str) {
    let store = rusqlite::Connection::open(world.data_dir().join("store.sqlite3")).unwrap();
    let mut pools = store.prepare("SELECT rowid, body FROM documents WHERE name LIKE 'pool/%'").unwrap();
    let rows = pools.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
    for (row, body) in rows.map(Result::unwrap).collect::<Vec<_>>() {
        let mut pool: Value = serde_json::from_str(&body).unwrap();
        for package in pool["packages"].as_array_mut().unwrap() {
            package["valid_until"] = json!(end);
        }
        let changed = store.execute("UPDATE documents SET body = ?1 WHERE rowid = ?2", (pool.to_string(), row));
        assert_eq!(changed, Ok(1));
    }
}

#[tokio::test]
async fn every_request_id_is_in_the_books_once() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let mut client = world.client().await;
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let answer = client.call(&Request::chat(&buyer.key)).await.expect(200);
        assert!(ids.insert(answer.head.get("x-request-id").unwrap().to_owned()), "ids are unique");
    }
    let records = records_agree(&mut world, &buyer.account).await;
    assert_eq!(records.iter().map(|record| request_id(record).to_owned()).collect::<BTreeSet<_>>(), ids);
    assert_eq!(records.len(), 20);
}

#[tokio::test]
async fn a_product_whose_charges_wait_for_the_disk_serves_and_counts() {
    let stream = [SSE_HEAD.as_bytes(), &chunk("data: 1\n\n"), LAST_CHUNK.as_bytes()].concat();
    let seller = Seller::answering(move |seen: &Seen| match seen.text().contains("stream") {
        true => Reply::bytes(&stream),
        false => Reply::json(200, "{}"),
    })
    .await;
    let mut world = World::with(seller.address, |config| product(config, "chat")["durability"] = json!("disk")).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let mut client = world.client().await;
    for _ in 0..5 {
        assert_eq!(client.call(&Request::chat(&buyer.key)).await.expect(200).text(), "{}");
        assert_eq!(client.call(&Request::stream(&buyer.key)).await.expect(200).text(), "data: 1\n\n");
    }
    world.crash().await;
    world.settles(&buyer.account, 10).await;
}

#[tokio::test]
async fn an_answer_without_a_body_waits_for_the_disk_too_and_is_complete() {
    let seller = Seller::answering(|seen: &Seen| match seen.head.target() {
        "/api/204" => Reply::bytes("HTTP/1.1 204 No Content\r\n\r\n"),
        "/api/head" => Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        _ => Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    })
    .await;
    let mut world = World::with(seller.address, |config| product(config, "api")["durability"] = json!("disk")).await;
    let buyer = world.buyer(&["api-50"]).await;
    let mut client = world.client().await;
    for (method, target, status) in [("GET", "/api/204", 204), ("HEAD", "/api/head", 200), ("GET", "/api/empty", 200)] {
        client.call(&Request::new(method, target).bearer(&buyer.key)).await.expect(status);
    }
    world.settles(&buyer.account, 3).await;
    let records = records_agree(&mut world, &buyer.account).await;
    assert!(records.iter().all(|record| record["ending"] == "complete"), "{records:?}");
    assert_eq!(seller.connections(), 1, "each answer left the connection usable");
}

#[tokio::test]
async fn records_survive_many_journal_files_and_a_kill() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| {
        config["journal"] = json!({ "segment_bytes": "256KiB" });
        config["workers"] = json!(1);
    })
    .await;
    let buyer = world.buyer(&["chat-1000000"]).await;
    let mut client = world.client().await;
    // Some 200 bytes a record: three files and more.
    let long = format!("{:x>120}-", "");
    for number in 0..3_000 {
        let request = Request::chat(&buyer.key).field("X-Request-Id", &format!("{long}{number}"));
        client.call(&request).await.expect(200);
    }
    world.crash().await;
    world.settles(&buyer.account, 3_000).await;
    let records = records_agree(&mut world, &buyer.account).await;
    let ids: BTreeSet<_> = records.iter().map(request_id).collect();
    assert_eq!((records.len(), ids.len()), (3_000, 3_000));
}
