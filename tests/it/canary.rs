//! Secrets that can be told from everything else, led through all that a gateway does at its most talkative, and then
//! searched for in all that it leaves behind: as they are, in base64, in hexadecimal, with escapes, and in pieces.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::admin::{TOKEN, text};
use crate::harness::canaries::{Canaries, Traces};
use crate::harness::client::{Answer, Request};
use crate::harness::process::run;
use crate::harness::redis::Server;
use crate::harness::rng::Rng;
use crate::harness::seller::{Reply, Seen, Seller, Step};
use crate::harness::signer::Signer;
use crate::harness::until;
use crate::harness::world::{World, base_config, product};

impl Traces {
    /// What a process said, and what the system shows of it.
    fn add_process(&mut self, world: &World) {
        self.add("standard error", world.gateway.said().join("\n"));
        self.add("standard output", world.gateway.printed().join("\n"));
        for file in ["cmdline", "environ"] {
            self.add(file, std::fs::read(format!("/proc/{}/{file}", world.gateway.id())).unwrap_or_default());
        }
    }

    /// An answer that the gateway gave to a buyer: of a refusal all of it, else its head.
    fn add_answer(&mut self, what: &str, answer: &Answer) {
        self.add(&format!("head of: {what}"), &answer.head.raw);
        if answer.head.get("x-tollgate-error-source") == Some("gateway") {
            self.add(&format!("body of: {what}"), &answer.body);
        }
    }
}

const SELLER_KEY: &str = "cnry-SellerKey/Zq8Rw2+Lk9TfXb4N";
const HASH_KEY: &str = "cnry-HashKey-Wm4Gx7Jd2Pq9VsYc5Ht";
const SEAL_KEY: &str = "cnry-SealKey-Bn3Kz8Rf6Tw1XgLv0Mq";
const REDIS_PASSWORD: &str = "cnry-RedisPw-Uy5Dc9Ej3Ha7SkPo1Zi";
const PROMPT: &str = "cnryPrompt Gv2Yb8Qn5Xm how do I bake bread";
const COMPLETION: &str = "cnryCompletion Hd7Wk3Lr9Zt knead, wait, bake";
const COOKIE: &str = "cnry-Cookie-Fs6Jp1Nx4Vb8Rm2Tg";
const WRONG_TOKEN: &str = "cnry-WrongToken-Xq3Mv8Bd5Kz1Ws7";

/// A text of an app that nobody else has.
fn app_text(name: &str, length: usize, seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let letter = |rng: &mut Rng| {
        char::from(b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"[rng.below(57) as usize])
    };
    let rest: String = (name.len()..length).map(|_| letter(&mut rng)).collect();
    format!("{name}{rest}")
}

async fn seller() -> Seller {
    Seller::answering(|seen: &Seen| {
        let target = seen.head.target().to_owned();
        let answer = json!({ "choices": [{ "message": { "content": COMPLETION } }] }).to_string();
        match target.as_str() {
            path if path.contains("break") => Reply::Steps(vec![Step::Reset]),
            path if path.contains("short") => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{COMPLETION}");
                Reply::bytes(head).then(Step::Close)
            }
            path if path.contains("refuse") => Reply::json(401, &answer),
            path if path.contains("nonsense") => Reply::bytes(format!("HTTP/1.1 {COMPLETION}\r\n\r\n")),
            _ => Reply::json(200, &answer),
        }
    })
    .await
}

/// The configuration: every product accepts all, everything is said.
fn talkative(seller: &Seller, folder: &Path) -> Value {
    use std::os::unix::fs::PermissionsExt;
    for (name, secret) in
        [("admin", TOKEN), ("hash", HASH_KEY), ("seal", SEAL_KEY), ("seller", SELLER_KEY), ("redis", REDIS_PASSWORD)]
    {
        let path = folder.join(format!("{name}.secret"));
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut config = base_config(seller.address);
    config["admin"]["token"] = json!("${file:admin.secret}");
    config["secrets"] = json!({ "hash_key": "${file:hash.secret}", "seal_key": "${file:seal.secret}" });
    config["log"] = json!({ "level": "trace", "access": "stdout" });
    config["limits"]["spool_above"] = json!("64KiB");
    config["credentials"] = json!({ "allow_app_code_without_tls": true });
    product(&mut config, "chat")["upstream"]["api_key"] = json!("${file:seller.secret}");
    let api = product(&mut config, "api");
    api["upstream"]["api_key"] = json!("${file:seller.secret}");
    api["accept"] = json!(["signature", "app_code", "api_key"]);
    api["app_code_query"] = json!("AppCode");
    api["signature_debug"] = json!(true);
    api["replay_protection"] = json!(true);
    config
}

/// What a buyer holds.
struct Held {
    account: String,
    key: String,
    signer: Signer,
    code: String,
    app: String,
}

async fn buyer(world: &World, canaries: &mut Canaries) -> Held {
    let buyer = world.buyer(&["api-1000", "chat-1000"]).await;
    let (secret, code) = (app_text("cnrySecret", 40, 1), app_text("cnryCode", 72, 2));
    let apps = format!("/admin/v1/accounts/{}/apps", buyer.account);
    let terms = json!({ "name": "test", "products": ["api"], "app_key": "an-app-key", "app_secret": secret });
    let app = text(&world.admin.make(&apps, &terms).await, "id");
    world.admin.make(&format!("{apps}/{app}/codes"), &json!({ "code": code })).await;
    for (name, secret) in [("key", &buyer.key), ("app secret", &secret), ("AppCode", &code)] {
        canaries.add(name, secret);
    }
    let signer = Signer { app_key: "an-app-key".to_owned(), secret };
    Held { account: buyer.account, key: buyer.key, signer, code, app }
}

/// Calls of every scheme: right ones, wrong ones, malformed ones, and sellers that fail.
async fn calls(world: &World, held: &Held, traces: &mut Traces) {
    let Held { key, signer, code, .. } = held;
    let prompt = json!({ "model": "m", "messages": [{ "role": "user", "content": PROMPT }] }).to_string();
    let post = |path: &str| Request::post(path).json(&prompt).field("Cookie", &format!("session={COOKIE}"));
    let chat = |rest: &str| post(&format!("/v1/infers/chat/v1/{rest}"));
    let wrong = Signer { secret: app_text("cnryWrong", 40, 3), ..signer.clone() };
    let signed = signer.sign(post("/api/x"));
    let large = signer.sign(post("/api/large").body(PROMPT.repeat(4_000).as_bytes()));
    let mut requests =
        vec![signed.clone(), signed.clone(), large, signed.clone().body(PROMPT.as_bytes()), wrong.sign(post("/api/x"))];
    for path in ["/api/x", "/api/break", "/api/short", "/api/nonsense", "/nowhere"] {
        requests.push(post(path).field("X-Apig-AppCode", code));
        requests.push(post(path).field("Authorization", &format!("APPCODE {code}")));
        requests.push(post(&format!("{path}?a=b&AppCode={code}")));
        requests.push(post(path).bearer(key));
    }
    for path in ["chat/completions", "messages", "break", "refuse", "nonsense", "short"] {
        requests.push(chat(path).bearer(key));
        requests.push(chat(path).field("X-Api-Key", key).field("anthropic-version", "2023-06-01"));
    }
    // Secrets in wrong places, and beside others.
    for secret in [key, code, &signer.secret] {
        requests.push(post("/api/x").field("Authorization", secret));
        requests.push(post("/api/x").field("Authorization", &format!("{secret} {secret}")));
        requests.push(post("/api/x").bearer(secret));
        requests.push(post("/api/x").field("X-Apig-AppCode", secret));
        requests.push(post("/api/x").field("X-Apig-AppCode", &format!("{secret},{secret}")));
        requests.push(post("/api/x").bearer(secret).also("Authorization", secret));
        requests.push(post("/api/x").field("X-Bad", &format!("a\n{secret}")));
        requests.push(post("/api/x").field("Content-Length", secret));
        requests.push(post("/api/x").field("Host", &format!("{secret}@api.test")));
        requests.push(post("/api/x").field("Expect", secret));
        requests.push(post("/api/x").field(
            "Authorization",
            &format!("SDK-HMAC-SHA256 Access={secret}, SignedHeaders=host;x-sdk-date, Signature={secret}"),
        ));
        requests.push(post(&format!("/api/x?AppCode={secret}&AppCode={secret}")));
        requests.push(post(&format!("/api/x?AppCode={}", &secret[..secret.len() - 1])));
        requests.push(post("/api/x").field("X-Request-Id", "an-id").field("X-Sdk-Date", secret));
    }
    for (number, request) in requests.iter().enumerate() {
        let mut client = world.client().await;
        client.send(request.bytes()).await;
        let what = format!("call {number}: {} {}", request.method(), request.target().split('?').next().unwrap());
        if let Ok(head) = client.wire.head().await {
            let framing = head.answer_framing(request.method());
            let body = client.wire.body(framing).await;
            traces.add_answer(&what, &Answer { before: Vec::new(), head, body: body.bytes, cut: body.cut });
        }
    }
}

/// What operators do: commands, wrong tokens, good and bad reloads.
async fn operate(world: &mut World, held: &Held, traces: &mut Traces) {
    let account = format!("/admin/v1/accounts/{}", held.account);
    for path in [
        "/metrics",
        "/readyz",
        &account,
        &format!("{account}/keys"),
        &format!("{account}/apps"),
        &format!("{account}/packages"),
    ] {
        traces.add(&format!("admin: {path}"), world.admin.get(path).await.text());
    }
    let refused = Request::get(&account).bearer(WRONG_TOKEN);
    let answer = crate::harness::client::Client::connect(world.admin.address).await.call(&refused).await;
    traces.add("admin: a wrong token", answer.expect(401).text());
    let taken = json!({ "name": "again", "app_key": "an-app-key", "app_secret": held.signer.secret });
    traces.add(
        "admin: the AppKey again",
        world.admin.call("POST", &format!("{account}/apps"), Some(&taken)).await.text(),
    );
    for (field, value) in [("code", &held.code[..20]), ("app_secret", &held.signer.secret), ("code", &held.code)] {
        let path = format!("{account}/apps/{}/codes", held.app);
        traces
            .add("admin: a bad AppCode", world.admin.call("POST", &path, Some(&json!({ field: value }))).await.text());
    }
    world.gateway.signal(Signal::HUP);
    world.gateway.says("the configuration was taken over").await;
    world.rewrite(|config| {
        config["secrets"]["hash_key"] = json!(format!("{HASH_KEY}2"));
        config["admin"]["token"] = json!(&TOKEN[..14]);
        config["receipts"] = json!({ "key_id": "k", "key": SEAL_KEY });
    });
    world.gateway.signal(Signal::HUP);
    world.gateway.says("was not taken over").await;
    let (_, printed, said) = run(&["check", "--config", world.config_path().to_str().unwrap()]);
    traces.add("check of a bad configuration", format!("{printed}{said}"));
    world.rewrite(|config| {
        config["secrets"]["hash_key"] = json!("${file:hash.secret}");
        config["admin"]["token"] = json!("${file:admin.secret}");
        config.as_object_mut().unwrap().remove("receipts");
    });
}

/// Everything of one gateway: calls, commands, a crash, a restart, what the command line prints, the files.
async fn live(world: &mut World, canaries: &mut Canaries, traces: &mut Traces) {
    for (name, secret) in [
        ("seller key", SELLER_KEY),
        ("hash key", HASH_KEY),
        ("seal key", SEAL_KEY),
        ("Redis password", REDIS_PASSWORD),
        ("admin token", TOKEN),
        ("a wrong token", WRONG_TOKEN),
        ("prompt", PROMPT),
        ("completion", COMPLETION),
        ("cookie", COOKIE),
        ("a wrong secret", &app_text("cnryWrong", 40, 3)),
    ] {
        canaries.add(name, secret);
    }
    let held = buyer(world, canaries).await;
    calls(world, &held, traces).await;
    operate(world, &held, traces).await;
    traces.add_process(world);
    world.crash().await;
    calls(world, &held, traces).await;
    traces.add_process(world);
    world.stop().await;
    traces.add("last words", world.gateway.said().join("\n"));
    let (config, backup) = (world.config_path(), world.dir.path().join("backup"));
    let (config, backup) = (config.to_str().unwrap(), backup.to_str().unwrap());
    for command in [
        &["usage", "export", "--config", config][..],
        &["commands", "export", "--config", config],
        &["reconcile", "--config", config],
        &["replay", "--config", config],
        &["config", "print", "--config", config],
        &["store", "backup", "--config", config, backup],
    ] {
        let (_, printed, said) = run(command);
        traces.add(&command.join(" "), format!("{printed}{said}"));
    }
    traces.add_folder(world.dir.path());
}

/// Shows where anything was found, and that there was enough to look at.
fn judge(canaries: &Canaries, traces: &Traces) {
    assert_eq!(traces.search(canaries), Vec::<String>::new());
    let holds = |name: &str| traces.0.iter().any(|(place, bytes)| place.contains(name) && !bytes.is_empty());
    for place in
        ["standard error", "standard output", "body of", "/metrics", "cmdline", "journal", "backup", "usage export"]
    {
        assert!(holds(place), "nothing was seen of {place}");
    }
}

#[test]
fn the_search_finds_a_secret_in_every_coding_and_in_pieces() {
    let mut canaries = Canaries::default();
    canaries.add("one", "a/secret+of=the%tests-0123");
    let found = |text: &str| !canaries.found_in(text.as_bytes()).is_empty();
    assert!(found("xx a/secret+of=the%tests-0123 xx") && found("..t+of=the%test.."));
    assert!(found("a%2Fsecret%2Bof%3Dthe") && found("a%2fsecret%2bof%3dthe"));
    for before in ["", "1", "12", "123"] {
        let text = format!("{before}a/secret+of=the%tests-0123 and more");
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(found(&STANDARD.encode(&text)) && found(&URL_SAFE.encode(&text)) && found(&hex), "{before}");
    }
    assert!(!found("a/secret+of") && !found(&"nothing of it ".repeat(50)));
}

#[tokio::test]
async fn no_secret_is_left_behind_by_a_gateway_with_its_own_store() {
    let (seller, dir) = (seller().await, tempfile::tempdir().unwrap());
    let config = talkative(&seller, dir.path());
    let mut world = World::on(dir, config).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", world.gateway.id())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("1"), "no core file: {cores}");
    let (mut canaries, mut traces) = (Canaries::default(), Traces::default());
    live(&mut world, &mut canaries, &mut traces).await;
    judge(&canaries, &traces);
    assert!(traces.0.iter().any(|(place, _)| place.ends_with("store.sqlite3")));
}

#[tokio::test]
async fn no_secret_is_left_behind_by_a_gateway_on_a_server() {
    let (seller, dir) = (seller().await, tempfile::tempdir().unwrap());
    let mut server = Server::start(&["--appendonly", "yes"]);
    server.ask(&format!("ACL SETUSER tollgate on >{REDIS_PASSWORD} ~* &* +@all"));
    let mut config = talkative(&seller, dir.path());
    let url = format!("unix:{}", server.socket().display());
    config["store"] = json!({
        "redis": { "url": url, "timeout": "2s", "username": "tollgate", "password": "${file:redis.secret}" },
    });
    let mut world = World::on(dir, config).await;
    let began = Timestamp::now().as_second();
    until("signatures can be used", async || (Timestamp::now().as_second() > began).then_some(())).await;
    let (mut canaries, mut traces) = (Canaries::default(), Traces::default());
    live(&mut world, &mut canaries, &mut traces).await;
    // The server is asked with a wrong password, and goes away.
    server.ask("ACL SETUSER tollgate resetpass >another");
    let (code, printed, said) = run(&["serve", "--config", world.config_path().to_str().unwrap()]);
    assert_eq!(code, Some(78), "{said}");
    traces.add("a wrong password", format!("{printed}{said}"));
    world.rewrite(|config| {
        config["store"]["redis"]["url"] = json!(format!("redis://tollgate:{REDIS_PASSWORD}@127.0.0.1:6379"));
    });
    let (_, printed, said) = run(&["check", "--config", world.config_path().to_str().unwrap()]);
    traces.add("a password in the address", format!("{printed}{said}"));
    assert_eq!(server.ask("SAVE"), redis::Value::Okay);
    traces.add_folder(server.dir.path());
    server.kill();
    judge(&canaries, &traces);
    assert!(traces.0.iter().any(|(place, _)| place.ends_with("dump.rdb")));
    assert!(traces.0.iter().any(|(place, bytes)| place.ends_with(".aof") && !bytes.is_empty()));
}
