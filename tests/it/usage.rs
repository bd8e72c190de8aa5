//! What is kept of a counted call: every fact of its record, its signed receipt, and the sums.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Request};
use crate::harness::process::run;
use crate::harness::seller::{LAST_CHUNK, Reply, SSE_HEAD, Seen, Seller, Step, chunk};
use crate::harness::signer::Signer;
use crate::harness::until;
use crate::harness::world::{World, product};

/// A stream for those who ask for one, else a plain answer.
fn by_body(seen: &Seen) -> Reply {
    if !seen.text().contains("\"stream\":true") {
        return Reply::json(200, r#"{"ok":true}"#);
    }
    let body = [chunk("data: 1\n\n"), chunk("data: [DONE]\n\n"), LAST_CHUNK.into()].concat();
    Reply::Steps(vec![Step::Send(SSE_HEAD.into()), Step::Send(body)])
}

/// The record of a request id, once it is there.
fn record(world: &World, request_id: &str) -> Value {
    let records = world.usage();
    let found: Vec<_> = records.iter().filter(|record| record["request_id"] == request_id).collect();
    assert_eq!(found.len(), 1, "{request_id}: {records:?}");
    found[0].clone()
}

#[track_caller]
fn holds(record: &Value, expected: Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&record[field], value, "{field}: {record}");
    }
}

#[tokio::test]
async fn a_record_says_what_was_bought_why_it_counts_and_for_whom_it_was() {
    let seller = Seller::answering(by_body).await;
    let mut world = World::with(seller.address, |config| {
        product(config, "chat")["models"] = json!({ "m": "sellers-m", "n": null });
        product(config, "api")["end_user_header"] = json!("X-End-User");
        config["offers"].as_array_mut().unwrap().push(json!({
            "id": "dated", "product": "chat", "kind": "per_call", "calls": 9, "validity": "30d",
            "billable": [{ "statuses": "any" }, { "from": "2025-07-16T00:00:00+08:00", "statuses": "success" }],
        }));
    })
    .await;
    let account = world.admin.open_account("buyer").await;
    let at = format!("/admin/v1/accounts/{account}/packages");
    let package = json!({ "offer": "dated", "project": "shop", "tags": { "po": "7" } });
    let package = world.admin.make(&at, &package).await;
    world.admin.add_package(&account, "api-5").await;
    let terms = json!({ "project": "search", "tags": { "team": "a" } });
    let (key_id, key) = world.admin.add_key(&account, &terms).await;

    let plain = Request::chat(&key).field("X-Request-Id", "plain").json(r#"{"model":"m","user":"user-\u00fc\u0000"}"#);
    world.call(&plain).await.expect(200);
    let streamed = Request::chat(&key).field("X-Request-Id", "streamed");
    world.call(&streamed.json(r#"{"model":"n","stream":true,"user":7}"#)).await.expect(200);
    let api = Request::get("/api/x").bearer(&key);
    world.call(&api.clone().field("X-Request-Id", "named").field("X-End-User", &"u".repeat(200))).await.expect(200);
    world.call(&api.field("X-Request-Id", "unnamed")).await.expect(200);
    world.settles(&account, 4).await;
    assert_eq!(world.stop().await.code, Some(0));

    let found = record(&world, "plain");
    holds(
        &found,
        json!({
            "account": account, "key": key_id, "project": "search", "tags": { "team": "a" }, "product": "chat",
            "model": "m", "sellers_model": "sellers-m", "end_user": "user-ü ", "units": 1, "classes": { "calls": 1 },
            "estimated": false, "status": 200, "streamed": false, "ending": "complete",
        }),
    );
    holds(
        &found["parts"][0],
        json!({
            "package": package["id"], "offer": "dated", "class": "calls", "units": 1, "project": "shop",
            "tags": { "po": "7" }, "rule": { "from": "2025-07-15T16:00:00Z", "statuses": "success" },
        }),
    );
    let found = record(&world, "streamed");
    let absent = Value::Null;
    holds(&found, json!({ "model": "n", "sellers_model": absent, "end_user": absent, "streamed": true, "units": 1 }));
    let found = record(&world, "named");
    holds(&found, json!({ "model": absent, "end_user": "u".repeat(128), "product": "api" }));
    holds(
        &found["parts"][0],
        json!({ "offer": "api-5", "project": "default", "tags": absent,
        "rule": { "from": absent, "statuses": "success" } }),
    );
    holds(&record(&world, "unnamed"), json!({ "end_user": absent }));
    let said = world.gateway.said().join("\n");
    assert!(!said.contains("user-ü") && !said.contains("uuuu"), "an end user is in no log: {said}");
}

/// The forms that the frames of the cores' journal files begin with: a frame is a length, a checksum, and the payload.
fn forms(world: &World) -> Vec<u8> {
    let mut runs = std::fs::read_dir(world.data_dir().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let run = runs.find(|path| path.is_dir()).unwrap();
    let mut forms = Vec::new();
    for writer in ["01", "02"] {
        // There may be one core.
        let bytes = std::fs::read(run.join(format!("{writer}-000001.journal"))).unwrap_or_default();
        let mut rest = bytes.get(20..).unwrap_or_default(); // behind the header
        while let Some((length, after)) = rest.split_first_chunk::<4>().filter(|(length, _)| **length != [0; 4]) {
            let (_, payload) = after.split_at(4);
            forms.push(payload[0]);
            rest = &payload[u32::from_le_bytes(*length) as usize..];
        }
    }
    forms
}

#[tokio::test]
async fn the_end_of_a_whole_answer_stands_beside_its_charge_and_nowhere_else() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    for _ in 0..3 {
        world.call(&Request::chat(&buyer.key)).await.expect(200);
    }
    world.settles(&buyer.account, 3).await;
    assert_eq!(world.stop().await.code, Some(0));
    assert_eq!(forms(&world), [8; 3], "charges alone, none of which is followed by a frame for its end");
    let ended = world.usage().iter().filter(|record| record["ending"] == "complete").count();
    assert_eq!(ended, 3);
}

/// A change of a key is a change for the calls that come after it.
#[tokio::test]
async fn a_running_gateways_records_are_complete_and_follow_the_key() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    world.call(&Request::chat(&buyer.key).field("X-Request-Id", "before")).await.expect(200);
    let path = format!("/admin/v1/accounts/{}/keys/{}", buyer.account, buyer.key_id);
    world.admin.call("PATCH", &path, Some(&json!({ "project": "moved" }))).await.expect(200);
    let moved = async || {
        let id = format!("after-{}", jiff::Timestamp::now().as_nanosecond());
        world.call(&Request::chat(&buyer.key).field("X-Request-Id", &id)).await.expect(200);
        until("the end is written", async || {
            world.usage().into_iter().find(|record| record["request_id"] == id.as_str())
        })
        .await["project"]
            .eq("moved")
            .then_some(())
    };
    until("calls are allotted anew", moved).await;
    holds(&record(&world, "before"), json!({ "project": "default" }));
    assert!(world.usage().iter().all(|record| record["parts"][0]["offer"] == "chat-5"));
}

/// Makes a key file in a world's folder; returns its text and its public key.
fn keygen(world: &World, name: &str) -> (String, String) {
    let file = world.dir.path().join(name);
    let (code, public, said) = run(&["receipt", "keygen", "--out", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    (std::fs::read_to_string(file).unwrap(), public)
}

/// The answer once receipts can be looked up and the call has ended.
async fn receipt(world: &World, key: &str, request_id: &str) -> Answer {
    looked_up(world, &receipt_of(request_id).bearer(key)).await
}

fn receipt_of(request_id: &str) -> Request {
    Request::get(&format!("/.well-known/tollgate/receipts/{request_id}"))
}

async fn looked_up(world: &World, request: &Request) -> Answer {
    until("receipts are looked up", async || {
        let answer = world.call(request).await;
        (answer.status() != 503).then_some(answer)
    })
    .await
}

/// What `tollgate receipt verify` says of a text: exit code, output, complaint.
fn verify(world: &World, keys: &str, receipt: &str) -> (Option<i32>, String, String) {
    let [keys_file, receipt_file] = ["keys", "receipt"].map(|name| world.dir.path().join(name));
    std::fs::write(&keys_file, keys).unwrap();
    std::fs::write(&receipt_file, receipt).unwrap();
    run(&["receipt", "verify", "--key", keys_file.to_str().unwrap(), receipt_file.to_str().unwrap()])
}

async fn published_keys(world: &World) -> String {
    world.call(&Request::get("/.well-known/tollgate/receipt-keys")).await.expect(200).text()
}

#[tokio::test]
async fn a_buyer_gets_its_calls_receipts_and_can_verify_them_for_as_long_as_the_key_is_known() {
    let seller = Seller::answering(by_body).await;
    let mut world = World::with(seller.address, |config| {
        product(config, "chat")["models"] = json!({ "m": "sellers-secret-m" });
    })
    .await;
    let buyer = world.buyer(&["chat-5"]).await;
    let none = receipt(&world, &buyer.key, "paid").await.expect(404);
    assert!(none.message().contains("makes no receipts"), "{}", none.message());
    let (key, public) = keygen(&world, "first.key");
    world.rewrite(|config| config["receipts"] = json!({ "key_id": "first", "key": key }));
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;

    let call = Request::chat(&buyer.key).field("X-Request-Id", "paid");
    world.call(&call.json(r#"{"model":"m","user":"u-1","stream":true}"#)).await.expect(200);
    let got = receipt(&world, &buyer.key, "paid").await.expect(200);
    assert_eq!(got.head.get("content-type"), Some("application/json"));
    let (code, out, said) = verify(&world, &published_keys(&world).await, &got.text());
    assert_eq!(code, Some(0), "{said}");
    let payload: Value = serde_json::from_str(&out).unwrap();
    holds(
        &payload,
        json!({
            "kind": "tollgate-receipt", "version": 1, "request_id": "paid", "account": buyer.account, "key": buyer.key_id,
            "product": "chat", "model": "m", "end_user": "u-1", "units": 1, "status": 200, "streamed": true,
            "ending": "complete", "project": "default",
        }),
    );
    assert_eq!(payload["parts"][0]["offer"], "chat-5");
    assert!(!got.text().contains("sellers-secret"), "{}", got.text());
    assert_eq!(verify(&world, &public, &got.text()).0, Some(0), "a public key alone does too");

    // What does not hold, and why.
    let changed = got.text().replace(r#"\"units\":1"#, r#"\"units\":0"#);
    assert_ne!(changed, got.text());
    let (code, out, said) = verify(&world, &public, &changed);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    assert!(said.contains("changed"), "{said}");
    let (code, _, said) = verify(&world, r#"{"keys":[]}"#, &got.text());
    assert!(code == Some(64) && said.contains("unknown key"), "{said}");
    let (code, _, said) = verify(&world, &public, "{}");
    assert!(code == Some(64) && said.contains("malformed"), "{said}");
    assert_eq!(verify(&world, "no key", &got.text()).0, Some(78));

    // Nobody else gets it, and asking costs nothing.
    let (_, other_key) = world.admin.add_key(&buyer.account, &json!({})).await;
    let other = world.buyer(&["chat-1"]).await;
    for key in [other_key, other.key] {
        let refused = receipt(&world, &key, "paid").await.expect(404);
        assert_eq!(refused.head.get("x-tollgate-error-code"), Some("receipt_not_found"));
    }
    receipt(&world, &buyer.key, "never-made").await.expect(404);
    receipt(&world, "sk-tg-none", "paid").await.expect(401);
    world.call(&Request::get("/.well-known/tollgate/receipts/paid")).await.expect(401);
    world.call(&Request::get("/.well-known/tollgate/other")).await.expect(404);
    world.settles(&buyer.account, 1).await;

    // The same after a kill; after a change of keys the old receipt still holds.
    world.crash().await;
    assert_eq!(receipt(&world, &buyer.key, "paid").await.expect(200).text(), got.text());
    let (key, _) = keygen(&world, "second.key");
    world.rewrite(|config| {
        config["receipts"] =
            json!({ "key_id": "second", "key": key, "earlier": [{ "id": "first", "public_key": public }] });
    });
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    let anew = receipt(&world, &buyer.key, "paid").await.expect(200);
    assert_eq!(anew.json()["receipts"][0]["key_id"], "second");
    let keys = published_keys(&world).await;
    assert_eq!(verify(&world, &keys, &anew.text()).0, Some(0));
    assert_eq!(verify(&world, &keys, &got.text()).0, Some(0));
    let config = world.config_path();
    let (code, printed, said) = run(&["receipt", "keys", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), serde_json::from_str::<Value>(&keys).unwrap());
}

#[tokio::test]
async fn the_calls_of_an_app_are_its_own_in_records_receipts_and_sums_by_whatever_scheme() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| {
        config["credentials"] = json!({ "allow_app_code_without_tls": true });
        product(config, "api")["accept"] = json!(["signature", "app_code", "api_key"]);
    })
    .await;
    let (key, public) = keygen(&world, "receipts.key");
    world.rewrite(|config| config["receipts"] = json!({ "key_id": "one", "key": key }));
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    let buyer = world.buyer(&["api-5"]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    let (other_app, other) = world.admin.add_app(&buyer.account, &["api"]).await;
    let called = |id: &str| Request::get("/api/x").field("X-Request-Id", id);
    let coded = |request: Request| request.field("X-Apig-AppCode", &code);
    world.call(&signer.sign(called("signed"))).await.expect(200);
    world.call(&coded(called("coded"))).await.expect(200);
    world.call(&other.sign(called("others"))).await.expect(200);
    world.call(&called("keyed").bearer(&buyer.key)).await.expect(200);

    for id in ["signed", "coded"] {
        let by_signature = looked_up(&world, &signer.sign(receipt_of(id))).await.expect(200);
        let by_code = looked_up(&world, &coded(receipt_of(id))).await.expect(200);
        assert_eq!(by_signature.text(), by_code.text());
        let (status, out, said) = verify(&world, &public, &by_code.text());
        assert_eq!(status, Some(0), "{said}");
        let payload: Value = serde_json::from_str(&out).unwrap();
        holds(&payload, json!({ "request_id": id, "app": app, "key": Value::Null, "project": "default", "units": 1 }));
        // Neither the account's keys nor its other apps get it, nor who cannot sign.
        receipt(&world, &buyer.key, id).await.expect(404);
        looked_up(&world, &other.sign(receipt_of(id))).await.expect(404);
        let forged = Signer { secret: other.secret.clone(), ..signer.clone() };
        looked_up(&world, &forged.sign(receipt_of(id))).await.expect(401);
    }
    looked_up(&world, &coded(receipt_of("keyed"))).await.expect(404);
    let nothing = world.call(&receipt_of("signed")).await.expect(401);
    assert!(nothing.message().contains("sign the request"), "{}", nothing.message());

    world.settles(&buyer.account, 4).await;
    assert_eq!(world.stop().await.code, Some(0));
    for (id, expected) in [("signed", &app), ("coded", &app), ("others", &other_app)] {
        holds(&record(&world, id), json!({ "app": expected, "key": Value::Null, "units": 1, "ending": "complete" }));
    }
    holds(&record(&world, "keyed"), json!({ "app": Value::Null, "key": buyer.key_id }));
    let config = world.config_path();
    let config = ["--config", config.to_str().unwrap()];
    let (status, out, said) =
        run(&[&["usage", "report", "--per", "day", "--by", "app", "--by", "key", "--json"], &config[..]].concat());
    assert_eq!(status, Some(0), "{said}");
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    for (app, key, expected) in
        [(json!(app), Value::Null, 2), (json!(other_app), Value::Null, 1), (Value::Null, json!(buyer.key_id), 1)]
    {
        let rows = rows.iter().filter(|row| row["app"] == app && row["key"] == key);
        assert_eq!(rows.map(|row| row["units"]["calls"].as_u64().unwrap()).sum::<u64>(), expected, "{out}");
    }
    for audit in ["reconcile", "replay"] {
        let (status, out, said) = run(&[&[audit], &config[..]].concat());
        assert_eq!(status, Some(0), "{audit}: {out} {said}");
    }
}

#[tokio::test]
async fn a_key_file_is_its_owners_alone_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("receipt.key");
    let arguments = ["receipt", "keygen", "--out", file.to_str().unwrap()];
    let (code, public, said) = run(&arguments);
    assert_eq!(code, Some(0), "{said}");
    assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"), "{public}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&file).unwrap();
    assert_eq!(run(&arguments).0, Some(64));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn records_are_added_up_by_day_and_whoever_called() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let (_, other) = world.admin.add_key(&buyer.account, &json!({ "project": "search" })).await;
    for key in [&buyer.key, &other, &other] {
        world.call(&Request::chat(key)).await.expect(200);
    }
    world.settles(&buyer.account, 3).await;
    assert_eq!(world.stop().await.code, Some(0));
    let config = world.config_path();
    let report = ["usage", "report", "--per", "day", "--by", "project", "--config", config.to_str().unwrap()];
    let (code, out, said) = run(&[&report[..], &["--json"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    let calls = |project: &str| -> u64 {
        let rows = rows.iter().filter(|row| row["project"] == project);
        rows.map(|row| row["units"]["calls"].as_u64().unwrap()).sum() // over midnight there are two
    };
    assert_eq!((calls("default"), calls("search")), (1, 2), "{out}");
    let (code, table, _) = run(&report);
    assert!(code == Some(0) && table.starts_with("START"), "{table}");
    assert!(table.lines().next().unwrap().contains("PROJECT  CALLS  VOIDED  UNITS"), "{table}");
    let (_, none, _) = run(&[&report[..], &["--json", "--until", "2020-01-01T00:00:00Z"]].concat());
    assert_eq!(none.trim(), "[]");
}
