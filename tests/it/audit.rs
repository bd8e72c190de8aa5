//! The bill can be checked: `reconcile` and `replay` agree with a gateway that was killed under way, and find each
//! difference that is planted; `usage export` goes on from its mark.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::client::Request;
use crate::harness::process::run;
use crate::harness::seller::{SSE_HEAD, Seller, chunk};
use crate::harness::world::World;

/// Runs a command that prints JSON lines on a world's configuration: its exit code and the lines.
fn lines(world: &World, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let config = world.config_path();
    let all = [arguments, &["--config", config.to_str().unwrap()]].concat();
    let (code, out, said) = run(&all);
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {said}");
    (
        code,
        out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect(),
    )
}

/// What `reconcile` finds, with further arguments: the differences, and the summary.
fn reconcile(world: &World, arguments: &[&str]) -> (Vec<Value>, Value) {
    let (code, found) = lines(world, &[&["reconcile", "--json"], arguments].concat());
    let differences: Vec<Value> = found.iter().filter(|line| line.get("difference").is_some()).cloned().collect();
    assert_eq!(code == Some(1), !differences.is_empty(), "{found:?}");
    (differences, found.last().unwrap()["summary"].clone())
}

/// What `replay` recomputes, and whether the books say the same.
fn replay(world: &World, arguments: &[&str]) -> (bool, Vec<Value>) {
    let (code, balances) = lines(world, &[&["replay", "--json"], arguments].concat());
    assert_eq!(code == Some(0), balances.iter().all(|line| line["agrees"] != false), "{balances:?}");
    (code == Some(0), balances)
}

/// The seller's own log: every request that came was answered with 200.
fn seller_log(world: &World, seller: &Seller) -> PathBuf {
    let path = world.dir.path().join("seller.jsonl");
    let mut text = String::new();
    for seen in seller.requests() {
        let id = seen.head.get("x-request-id").unwrap().to_owned();
        writeln!(text, "{}", json!({ "request_id": id, "status": 200, "ms": 3 })).unwrap();
    }
    std::fs::write(&path, text).unwrap();
    path
}

/// A world that has served calls, was killed, and has served more: three of each, all booked.
async fn used(seller: &Seller) -> (World, String) {
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5", "chat-50"]).await;
    for number in 0..3 {
        let request = Request::chat(&buyer.key).field("X-Request-Id", &format!("before-{number}"));
        world.call(&request).await.expect(200);
    }
    world.crash().await;
    for number in 0..3 {
        let request = Request::chat(&buyer.key).field("X-Request-Id", &format!("after-{number}"));
        world.call(&request).await.expect(200);
    }
    world.settles(&buyer.account, 6).await;
    (world, buyer.account)
}

/// The journal files of a run's cores, without those that are empty.
fn core_files(world: &World, nth_run: usize) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> = entries(&world.data_dir().join("journal"));
    runs.retain(|path| path.is_dir());
    let mut files = entries(&runs[nth_run]);
    let holds_calls = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(6).any(|text| text == b"after-" || text == b"before")
    };
    files.retain(|path| path.extension().is_some_and(|name| name == "journal") && holds_calls(path));
    files
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn a_file_that_is_named_and_is_not_there_or_is_something_else_is_what_was_asked_wrong() {
    let world = World::start(([127, 0, 0, 1], 9).into()).await;
    let garbage = world.dir.path().join("garbage.jsonl");
    std::fs::write(&garbage, "no JSON\n").unwrap();
    let config = world.config_path();
    for file in [garbage.to_str().unwrap(), "/nowhere/there.jsonl"] {
        for command in ["reconcile --usage", "reconcile --commands", "reconcile --seller-log", "store restore"] {
            let mut line: Vec<&str> = command.split(' ').chain([file]).collect();
            line.extend(["--config", config.to_str().unwrap()]);
            let (code, out, said) = run(&line);
            assert_eq!((code, out.as_str()), (Some(64), ""), "{line:?}: {said}");
            assert!(said.contains(file), "{line:?}: {said}");
        }
    }
}

#[tokio::test]
async fn after_a_kill_everything_agrees_beside_the_gateway_and_after_its_end() {
    let seller = Seller::plain().await;
    let (mut world, account) = used(&seller).await;
    let log = seller_log(&world, &seller);
    let with_log = ["--seller-log", log.to_str().unwrap()];
    for running in [true, false] {
        if !running {
            assert_eq!(world.stop().await.code, Some(0));
        }
        let (differences, summary) = reconcile(&world, &with_log);
        assert_eq!(differences, Vec::<Value>::new(), "{summary}");
        let counted = ["calls", "units", "answers", "packages", "runs"].map(|name| summary[name].as_u64().unwrap());
        assert_eq!(counted, [6, 6, 6, 2, 2], "{summary}");
        let (agrees, balances) = replay(&world, &[]);
        assert!(agrees && balances.iter().all(|line| line["agrees"] == true), "{balances:?}");
        let figures = |line: &Value| ["bought", "used", "remaining"].map(|name| line[name].as_u64().unwrap());
        let mut all: Vec<_> = balances.iter().map(figures).collect();
        all.sort_unstable();
        assert_eq!(all, [[5, 5, 0], [50, 1, 49]], "{balances:?}");
        assert!(balances.iter().all(|line| line["account"] == account && line["terms"] == "command"));
        let (good, balances) = replay(&world, &["--without-books"]);
        assert!(good && balances.iter().all(|line| line.get("agrees").is_none()), "{balances:?}");
        let config = world.config_path();
        let (code, out, _) = run(&["replay", "--without-books", "--config", config.to_str().unwrap()]);
        assert_eq!((code, out.matches("not compared").count(), out.matches("yes").count()), (Some(0), 2, 0), "{out}");
        assert!(out.ends_with("2 packages; nothing was compared, since the books were not read\n"), "{out}");
    }
}

#[tokio::test]
async fn a_call_that_is_under_way_is_no_difference() {
    let seller = Seller::by_hand().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    client.head().await;
    let (differences, summary) = reconcile(&world, &[]);
    assert_eq!((differences, &summary["open"], &summary["units"]), (vec![], &json!(1), &json!(0)));
}

#[tokio::test]
async fn a_lost_journal_file_is_found_by_package_and_by_the_sellers_ids() {
    let seller = Seller::plain().await;
    let (mut world, _) = used(&seller).await;
    let log = seller_log(&world, &seller);
    assert_eq!(world.stop().await.code, Some(0));
    for file in core_files(&world, 1) {
        std::fs::remove_file(file).unwrap();
    }
    let (differences, _) = reconcile(&world, &["--seller-log", log.to_str().unwrap()]);
    let of = |kind: &str, field: &str| -> Vec<Value> {
        differences.iter().filter(|line| line["difference"] == kind).map(|line| line[field].clone()).collect()
    };
    assert_eq!(of("answered_not_charged", "request_id"), ["after-0", "after-1", "after-2"], "{differences:?}");
    let units: u64 = of("booked_not_charged", "units").iter().map(|units| units.as_u64().unwrap()).sum();
    assert_eq!(units, 3, "{differences:?}");
    assert!(!replay(&world, &[]).0);
}

#[tokio::test]
async fn edited_books_are_found_by_package() {
    let seller = Seller::plain().await;
    let (mut world, account) = used(&seller).await;
    assert_eq!(world.stop().await.code, Some(0));
    let books = rusqlite::Connection::open(world.data_dir().join("store.sqlite3")).unwrap();
    let edit =
        "UPDATE documents SET body = json_set(body, '$.packages[0].settled', body ->> '$.packages[0].settled' - 1,
        '$.packages[0].free', body ->> '$.packages[0].free' + 1) WHERE name = 'pool/chat'";
    assert_eq!(books.execute(edit, []).unwrap(), 1);
    let package = "SELECT body ->> '$.packages[0].id' FROM documents WHERE name = 'pool/chat'";
    let package: String = books.query_row(package, [], |row| row.get(0)).unwrap();
    let (differences, _) = reconcile(&world, &[]);
    let expected = json!({
        "difference": "charged_not_booked", "account": account, "package": package, "lease": null, "units": 1,
        "request_ids": [],
    });
    assert_eq!(differences, [expected]);
    let (agrees, balances) = replay(&world, &[]);
    let different: Vec<_> =
        balances.iter().filter(|line| line["agrees"] == false).map(|line| &line["package"]).collect();
    assert!(!agrees && different == [&json!(package)], "{balances:?}");
}

#[tokio::test]
async fn an_export_goes_on_from_its_mark_and_stands_for_the_journal() {
    let seller = Seller::plain().await;
    let (mut world, _) = used(&seller).await;
    let export = |world: &World, flags: &[&str]| lines(world, &[&["usage", "export"], flags].concat()).1;
    let ids = |records: &[Value]| {
        let mut ids: Vec<String> =
            records.iter().map(|record| record["request_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(world.stop().await.code, Some(0));
    let first = export(&world, &["--since-mark", "--mark"]);
    assert_eq!(first.len(), 6);
    assert_eq!(export(&world, &["--since-mark", "--mark"]), Vec::<Value>::new());
    world.restart().await;
    let account = first[0]["account"].as_str().unwrap().to_owned();
    let (_, key) = world.admin.add_key(&account, &json!({ "description": "again" })).await;
    world.call(&Request::chat(&key).field("X-Request-Id", "later")).await.expect(200);
    world.settles(&account, 7).await;
    assert_eq!(world.stop().await.code, Some(0));
    assert_eq!(ids(&export(&world, &["--since-mark", "--mark"])), ["later"]);
    // The first two runs' records go, and their export and that of the commands stand for them.
    let usage = world.dir.path().join("usage.jsonl");
    let text: String = first.iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(&usage, text).unwrap();
    let commands = world.dir.path().join("commands.jsonl");
    let told: String = lines(&world, &["commands", "export"]).1.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&commands, told).unwrap();
    let runs = entries(&world.data_dir().join("journal"));
    runs.iter().filter(|path| path.is_dir()).take(2).for_each(|run| std::fs::remove_dir_all(run).unwrap());
    assert!(!reconcile(&world, &[]).0.is_empty());
    let with = ["--usage", usage.to_str().unwrap(), "--commands", commands.to_str().unwrap()];
    assert_eq!(reconcile(&world, &with).0, Vec::<Value>::new());
    let (agrees, balances) = replay(&world, &with);
    assert!(agrees && balances.iter().all(|line| line["terms"] == "command"), "{balances:?}");
}

#[tokio::test]
async fn the_journals_size_is_shown() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let shown = async || {
        let metrics = world.admin.metrics().await;
        (metrics.sum("tollgate_journal_disk_bytes", &[]) > 0.0).then_some(metrics)
    };
    let metrics = crate::harness::until("the journal is looked at", shown).await;
    assert_eq!(metrics.sum("tollgate_journal_removed_files_total", &[]), 0.0);
}
