//! What an operator meets: starting, stopping, reloading, and everything that can be wrong with a machine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::client::{Client, Request};
use crate::harness::process::{BINARY, Gateway, run};
use crate::harness::seller::{LAST_CHUNK, SSE_HEAD, Seller, chunk};
use crate::harness::world::{SELLER_KEY, World, base_config};
use crate::harness::{admin, until};

/// Exit codes, as in sysexits.h.
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

fn write_config(dir: &Path, config: &serde_json::Value) -> PathBuf {
    let path = dir.join("tollgate.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Starts on a configuration that must not work; returns the exit code and what was said.
async fn fails_to_start(config: &serde_json::Value) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), config);
    let exit = Gateway::serve(&path).exit().await;
    (exit.code.unwrap(), exit.said)
}

fn nowhere() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

#[tokio::test]
async fn what_lies_in_the_data_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start(nowhere()).await;
    let mut folders = vec![world.data_dir()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).chain([folder.clone()]) {
            let found = path.metadata().unwrap();
            assert_eq!(found.permissions().mode() & 0o077, 0, "{}", path.display());
            if found.is_dir() && path != folder {
                folders.push(path);
            }
        }
    }
    assert!(world.data_dir().join("spool").is_dir());
}

#[test]
fn a_list_that_is_left_out_is_printed_as_what_it_means() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), &base_config(nowhere()));
    let (code, out, said) = run(&["config", "print", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("origins: Any") && out.contains("methods: Any"), "{out}");
}

#[tokio::test]
async fn sigterm_lets_open_streams_end_and_exits_0() {
    let seller = Seller::by_hand().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    client.head().await;
    client.chunked(9).await;
    world.gateway.signal(Signal::TERM);
    let data = world.data;
    let refused = async || tokio::net::TcpStream::connect(data).await.is_err().then_some(());
    until("new connections are refused", refused).await;
    exchange.send(chunk("data: 2\n\n")).await;
    assert_eq!(client.chunked(9).await, b"data: 2\n\n");
    exchange.send(LAST_CHUNK).await;
    exchange.done();
    assert_eq!(client.chunk().await, Ok(None), "ended properly");
    let exit = world.gateway.exit().await;
    assert_eq!(exit.code, Some(0), "{}", exit.said);
    let records = world.usage();
    assert_eq!((records.len(), &records[0]["ending"]), (1, &json!("complete")));
    world.restart().await;
    let package = world.admin.packages(&buyer.account).await.remove(0);
    assert_eq!((package.settled, package.free, package.leased), (1, 4, 0), "settled and given back before the end");
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_is_aborted_and_counted_once() {
    let seller = Seller::by_hand().await;
    let mut world = World::with(seller.address, |config| config["drain_timeout"] = json!("1s")).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    client.head().await;
    client.chunked(9).await;
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.said);
    assert!(client.chunk().await.is_err(), "aborted, not ended");
    let endings: Vec<_> = world.usage().into_iter().map(|record| record["ending"].clone()).collect();
    assert_eq!(endings, [json!("interrupted")], "its client has not given it up");
    world.restart().await;
    world.settles(&buyer.account, 1).await;
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_end() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| config["drain_timeout"] = json!("600s")).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.call(&Request::chat(&buyer.key)).await.expect(200);
    assert_eq!(world.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_reload_takes_a_good_file_and_keeps_the_last_good_one_otherwise() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let loaded = async |world: &World| world.admin.metrics().await.sum("tollgate_config_reload_success", &[]);
    assert_eq!(loaded(&world).await, 1.0);
    let fresh = Request::post("/v1/infers/fresh/v1/x").json("{}");
    world.call(&fresh).await.expect(404);
    world.rewrite(|config| {
        let upstream = config["products"][0]["upstream"].clone();
        config["products"].as_array_mut().unwrap().push(json!({
            "id": "fresh", "kind": "llm", "access": "open", "meter": "none", "upstream": upstream,
        }));
    });
    world.gateway.signal(Signal::HUP);
    let served = async || (world.call(&fresh).await.status() == 200).then_some(());
    until("the new product is served", served).await;
    world.rewrite(|config| config["products"][0]["bodymax"] = json!("1MiB"));
    world.gateway.signal(Signal::HUP);
    until("the bad file is reported", async || (loaded(&world).await == 0.0).then_some(())).await;
    let said = world.gateway.says("bodymax").await;
    assert!(said.contains("body_max"), "the right name is told: {said}");
    world.call(&fresh).await.expect(200);
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    world.rewrite(|config| _ = config["products"][0].as_object_mut().unwrap().remove("bodymax"));
    world.gateway.signal(Signal::HUP);
    until("the mended file is taken", async || (loaded(&world).await == 1.0).then_some(())).await;
}

/// Products have places in a list; a call that began before the list changed must not go to another product's seller.
#[tokio::test]
async fn a_call_whose_body_is_still_coming_keeps_its_product_through_a_reload() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let other = Request::post("/v1/infers/aaa/v1/x").json("{}");
    world.rewrite(|config| {
        let upstream = config["products"][0]["upstream"].clone();
        let before_all_others = json!({
            "id": "aaa", "kind": "llm", "access": "open", "meter": "none", "upstream": upstream,
        });
        config["products"].as_array_mut().unwrap().push(before_all_others);
    });
    world.gateway.signal(Signal::HUP);
    let served = async || (world.call(&other).await.status() == 200).then_some(());
    until("the other product is served", served).await;
    let mut client = world.client().await;
    let request = Request::chat(&buyer.key).bytes();
    let (first, rest) = request.split_at(request.len() - 2);
    client.send(first).await;
    world.rewrite(|config| {
        let products = config["products"].as_array_mut().unwrap();
        products.retain(|product| product["id"] != "aaa");
        for product in products.iter_mut().filter(|product| product["id"] != "chat") {
            product["upstream"]["base_url"] = json!(format!("http://{}", nowhere()));
        }
    });
    world.gateway.signal(Signal::HUP);
    let gone = async || (world.call(&other).await.status() == 404).then_some(());
    until("the other product is gone", gone).await;
    client.send(rest).await;
    assert_eq!(client.head().await.status(), 200);
    world.settles(&buyer.account, 1).await;
}

#[tokio::test]
async fn a_reload_disturbs_no_open_stream() {
    let seller = Seller::by_hand().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send([SSE_HEAD.as_bytes(), &chunk("data: 1\n\n")].concat()).await;
    client.head().await;
    client.chunked(9).await;
    // The product is gone for new calls, not for those that are under way.
    world.rewrite(|config| {
        config["products"].as_array_mut().unwrap().retain(|product| product["id"] != "chat");
        config["offers"].as_array_mut().unwrap().retain(|offer| offer["product"] != "chat");
    });
    world.gateway.signal(Signal::HUP);
    // Asked of the gateway itself: a call would wait for the seller's answer as long as the product is there.
    let models = Request::get("/v1/infers/chat/v1/models").bearer(&buyer.key);
    let gone = async || (world.call(&models).await.status() == 404).then_some(());
    until("the product is gone", gone).await;
    exchange.send([chunk("data: 2\n\n"), LAST_CHUNK.into()].concat()).await;
    exchange.done();
    assert_eq!(client.chunked(9).await, b"data: 2\n\n");
    assert_eq!(client.chunk().await, Ok(None));
    world.settles(&buyer.account, 1).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for which in ["data", "admin"] {
        let mut config = base_config(nowhere());
        config["listeners"][which] = json!(address);
        let (code, said) = fails_to_start(&config).await;
        assert_eq!(code, UNAVAILABLE, "{said}");
        assert!(said.contains(&address) && said.contains(which), "{said}");
    }
}

#[tokio::test]
async fn a_data_directory_serves_one_gateway_at_a_time() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let exit = Gateway::serve(&world.config_path()).exit().await;
    assert_eq!(exit.code, Some(UNAVAILABLE), "{}", exit.said);
    assert!(exit.said.contains(world.data_dir().to_str().unwrap()), "{}", exit.said);
    world.call(&Request::chat(&buyer.key)).await.expect(200);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    // Below a file there can be no folder, whoever asks; permissions would not stop root.
    for (place, name) in [(file.join("data"), "file"), (PathBuf::from("/proc/tollgate"), "/proc/tollgate")] {
        let mut config = base_config(nowhere());
        config["data_dir"] = json!(place);
        let (code, said) = fails_to_start(&config).await;
        assert!(code == UNAVAILABLE || code == CONFIG, "{code}: {said}");
        assert!(said.contains(name), "{said}");
    }
}

#[tokio::test]
async fn check_finds_what_serve_would_refuse_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        run(&["check", "--config", path.to_str().unwrap()])
    };
    let good = "data_dir: d\nadmin: { token: 0123456789abcdef }\nsecrets: { hash_key: 0123456789abcdef }\n\
                products:\n- { id: p, kind: llm, upstream: { base_url: 'http://127.0.0.1:9' } }\n";
    let (code, out, said) = check(good);
    assert_eq!(code, Some(0), "{out}{said}");
    for (bad, place, hint) in [
        (good.replace("kind: llm", "kidn: llm"), "c.yaml:5:", "kind"),
        (good.replace("kind: llm", "kind: lmm"), "c.yaml:5:", "llm"),
        (format!("{good}limits: {{ connections: many }}\n"), "c.yaml:6:", "connections"),
        (format!("{good}data_dir: e\n"), "c.yaml:6:", "data_dir"),
        (good.replace("0123456789abcdef }\nproducts", "'' }\nproducts"), "c.yaml:3:", "hash_key"),
        (good.replace("token: 0123456789abcdef", "token: '${file:no-such-file}'"), "c.yaml:2:", "no-such-file"),
        ("products: [".to_owned(), "c.yaml:1:", ""),
    ] {
        let (code, out, said) = check(&bad);
        let told = format!("{out}{said}");
        assert_eq!(code, Some(CONFIG), "{bad}\n{told}");
        assert!(told.contains(place) && told.contains(hint), "{place} {hint} expected:\n{told}");
        let path = dir.path().join("c.yaml");
        let exit = Gateway::serve(&path).exit().await;
        assert_eq!(exit.code, Some(CONFIG), "serve gives the same verdict: {}", exit.said);
    }
    assert_eq!(run(&["check", "--config", "no-such-file.yaml"]).0, Some(CONFIG));
    assert_eq!(run(&["serve", "--no-such-flag"]).0, Some(64));
}

#[tokio::test]
async fn metrics_are_clean_and_add_up() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-1", "api-5"]).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    world.call(&Request::chat(&buyer.key)).await.expect(429);
    world.call(&Request::get("/api/x").bearer(&buyer.key)).await.expect(200);
    world.call(&Request::get("/api/x")).await.expect(401);
    world.call(&Request::get("/nowhere-a-label-could-name")).await.expect(404);
    let metrics = world.quiet().await;
    assert_eq!(metrics.faults(), Vec::<String>::new());
    for (name, labels, value) in [
        ("tollgate_calls_total", vec![("product", "chat"), ("class", "2xx")], 1.0),
        ("tollgate_calls_total", vec![("product", "chat"), ("class", "4xx")], 1.0),
        ("tollgate_units_charged_total", vec![("product", "chat")], 1.0),
        ("tollgate_units_charged_total", vec![], 2.0),
        ("tollgate_rejections_total", vec![("code", "package_exhausted")], 1.0),
        ("tollgate_rejections_total", vec![("code", "missing_api_key")], 1.0),
        ("tollgate_call_endings_total", vec![("ending", "complete")], 2.0),
        ("tollgate_build_info", vec![], 1.0),
    ] {
        assert_eq!(metrics.sum(name, &labels), value, "{name} {labels:?}\n{}", metrics.text);
    }
    for secret in [&buyer.key, &buyer.account, "nowhere-a-label", admin::TOKEN] {
        assert!(!metrics.text.contains(secret), "{secret} is in the metrics");
    }
    let Ok(mut tool) = Command::new("promtool").args(["check", "metrics"]).stdin(std::process::Stdio::piped()).spawn()
    else {
        eprintln!("SKIPPED: promtool is not installed; only our own checks of /metrics ran");
        return;
    };
    std::io::Write::write_all(&mut tool.stdin.take().unwrap(), metrics.text.as_bytes()).unwrap();
    assert!(tool.wait().unwrap().success());
}

#[tokio::test]
async fn the_admin_listener_opens_only_for_its_token() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let call = async |request: Request| Client::connect(world.admin.address).await.call(&request).await;
    for token in ["", "wrong-token-0123456789", &admin::TOKEN[1..]] {
        call(Request::get("/admin/v1/accounts").bearer(token)).await.expect(401);
    }
    call(Request::get("/admin/v1/accounts")).await.expect(401);
    call(Request::get("/livez")).await.expect(200);
    call(Request::get("/admin/v1/accounts").bearer(admin::TOKEN)).await.expect(200);
    // The data listener knows nothing of it.
    world.call(&Request::get("/admin/v1/accounts").bearer(admin::TOKEN)).await.expect(404);
    world.call(&Request::get("/metrics")).await.expect(404);
}

#[tokio::test]
async fn logs_hold_a_line_a_call_and_no_secret_at_any_level() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| {
        config["log"] = json!({ "level": "trace", "access": "./access.log" });
    })
    .await;
    let buyer = world.buyer(&["chat-5"]).await;
    let body = r#"{"model":"m","messages":[{"content":"canary-prompt"}]}"#;
    let path = "/v1/infers/chat/v1/chat/completions?appcode=canary-query";
    let request = Request::post(path).bearer(&buyer.key).json(body);
    world.call(&request.clone().field("X-Request-Id", "log-1").field("Cookie", "canary-cookie")).await.expect(200);
    world.call(&request.bearer("sk-tg-canary-wrong-key").field("X-Request-Id", "log-2")).await.expect(401);
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    world.call(&signer.sign(Request::get("/api/x").field("X-Request-Id", "log-3"))).await.expect(429);
    assert_eq!(world.stop().await.code, Some(0));
    let access = std::fs::read_to_string(world.dir.path().join("access.log")).unwrap();
    let mut lines: Vec<serde_json::Value> = access.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["request_id"].to_string()); // each core hands its lines on by itself
    assert_eq!(lines.len(), 3, "{access}");
    assert_eq!(
        (&lines[0]["request_id"], &lines[0]["status"], &lines[0]["units"]),
        (&json!("log-1"), &json!(200), &json!(1))
    );
    assert_eq!((&lines[0]["account"], &lines[0]["key"]), (&json!(buyer.account), &json!(buyer.key_id)));
    assert_eq!((&lines[0]["app"], &lines[2]["app"], &lines[2]["key"]), (&json!(null), &json!(app), &json!(null)));
    assert_eq!((&lines[1]["request_id"], &lines[1]["status"]), (&json!("log-2"), &json!(401)));
    let said = world.gateway.said().join("\n") + &world.gateway.printed().join("\n") + &access;
    for secret in [&buyer.key[6..], SELLER_KEY, admin::TOKEN, "canary", "hash-key-of-the-tests"] {
        assert!(!said.contains(secret), "{secret} is in a log");
    }
}

#[tokio::test]
async fn every_log_line_is_json_and_nothing_is_printed() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    assert_eq!(world.stop().await.code, Some(0));
    for line in world.gateway.said() {
        let parsed = serde_json::from_str::<serde_json::Value>(&line);
        assert!(parsed.is_ok_and(|line| line.is_object()), "{line}");
    }
    assert_eq!(world.gateway.printed(), Vec::<String>::new());
}

/// The journal files that hold anything, with how many bytes stand before the zeros at their end.
fn journals(dir: &Path) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(journals(&path));
        } else if path.extension().is_some_and(|ending| ending == "journal") {
            let bytes = std::fs::read(&path).unwrap();
            found.extend(bytes.iter().rposition(|byte| *byte != 0).map(|last| (path, last + 1)));
        }
    }
    found
}

#[tokio::test]
async fn a_damaged_end_of_a_journal_is_cut_reported_and_survived() {
    let flip = |path: &Path, used: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[used - 1] ^= 0x40;
        std::fs::write(path, bytes).unwrap();
    };
    let truncate = |path: &Path, used: usize| {
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(used as u64 - 3).unwrap();
    };
    for damage in [&flip as &dyn Fn(&Path, usize), &truncate] {
        let seller = Seller::plain().await;
        let mut world = World::start(seller.address).await;
        let buyer = world.buyer(&["chat-50"]).await;
        for _ in 0..5 {
            world.call(&Request::chat(&buyer.key)).await.expect(200);
        }
        world.settles(&buyer.account, 5).await;
        world.gateway.kill().await;
        let files = journals(&world.data_dir());
        assert!(!files.is_empty());
        for (path, used) in &files {
            damage(path, *used);
        }
        world.restart().await;
        let metrics = world.admin.metrics().await;
        assert!(metrics.sum("tollgate_journal_damaged_bytes", &[]) > 0.0, "{}", metrics.text);
        world.gateway.says("damaged").await;
        assert_eq!(world.settled(&buyer.account).await, 5, "what is in the books stays there");
        world.call(&Request::chat(&buyer.key)).await.expect(200);
    }
}

/// A file system of a few MiB, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|done| done.status.success()).then(|| Self(dir))
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.path().join("ballast")).unwrap();
        for size in [64 << 10, 4 << 10, 1] {
            while std::io::Write::write_all(&mut ballast, &vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_calls_before_they_are_forwarded_and_resumes_by_itself() {
    let Some(disk) = SmallDisk::mount(8) else {
        eprintln!("SKIPPED: no small file system can be mounted here; a full disk was not tried");
        return;
    };
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["data_dir"] = json!(disk.0.path());
        config["journal"] = json!({ "segment_bytes": "256KiB" });
        config["workers"] = json!(1);
    })
    .await;
    let buyer = world.buyer(&["chat-1000000"]).await;
    let mut client = world.client().await;
    let request = Request::chat(&buyer.key);
    client.call(&request).await.expect(200);
    disk.fill();
    // The file that is allocated takes some more records; then calls are refused.
    let mut served = 1;
    let refused = loop {
        let answer = client.call(&request).await;
        match answer.status() {
            200 => served += 1,
            _ => break answer,
        }
        assert!(served < 100_000, "a full disk refuses nothing");
    };
    let refused = refused.expect(503);
    // The journal or the store may be the first to find no room.
    let code = refused.head.get("x-tollgate-error-code").unwrap();
    assert!(["metering_unavailable", "store_unavailable"].contains(&code), "{code}");
    assert!(refused.head.get("retry-after").is_some());
    assert_eq!(seller.requests().len(), served, "what is refused was not forwarded");
    let full = async || {
        let metrics = world.admin.metrics().await;
        let failed = metrics.sum("tollgate_store_commits_total", &[("result", "failed")]);
        (metrics.sum("tollgate_journal_full", &[]) == 1.0 || failed > 0.0).then_some(())
    };
    until("the full disk is reported", full).await;
    disk.make_room();
    let resumed = async || (world.call(&request).await.status() == 200).then_some(());
    until("calls are served again", resumed).await;
    let sold = seller.requests().len() as u64;
    world.settles(&buyer.account, sold).await;
}

#[tokio::test]
async fn commands_without_a_gateway_say_so() {
    let (code, out, said) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("serve") && said.is_empty(), "{out}{said}");
    let output = Command::new(BINARY).args(["serve", "--config", "/no/such/tollgate.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(CONFIG));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/tollgate.yaml"));
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_is_a_full_disk_and_not_the_end() {
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.yaml");
    std::fs::write(&path, base_config(seller.address).to_string()).unwrap();
    // The journal's files are larger: in blocks of 512 bytes or of 1,024, as the shell has it.
    let limited = format!("ulimit -f 512; exec {BINARY} serve --config {}", path.display());
    let mut gateway = Gateway::spawn(Command::new("sh").args(["-c", &limited]));
    let (_, listener) = gateway.listening().await;
    let admin = admin::Admin { address: listener };
    let ready = admin.get("/readyz").await;
    assert!(ready.status() == 503 && ready.text().contains("journal_full"), "{}", ready.text());
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code, Some(69), "its journal has no room to say that it ended in order");
}

#[tokio::test]
async fn a_standard_error_that_takes_nothing_ends_nothing() {
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.yaml");
    let mut config = base_config(seller.address);
    // Free a moment ago: it cannot say where it listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let admin = admin::Admin { address: free };
    config["listeners"]["admin"] = admin.address.to_string().into();
    std::fs::write(&path, config.to_string()).unwrap();
    let unheard = format!("exec {BINARY} serve --config {} 2>/dev/full", path.display());
    let mut gateway = Gateway::spawn(Command::new("sh").args(["-c", &unheard]));
    until("it listens", async || {
        assert_eq!(gateway.ended(), None);
        tokio::net::TcpStream::connect(admin.address).await.ok()
    })
    .await;
    until("it is ready", async || (admin.get("/readyz").await.status() == 200).then_some(())).await;
    gateway.signal(Signal::HUP);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code, Some(0));
}
