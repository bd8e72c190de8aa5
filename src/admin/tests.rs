//! The admin API over a store in memory: every route, what it gives and what it refuses.

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use prometheus::IntCounter;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use super::health::Unready;
use super::*;
use crate::adapter::clock::{SystemClock, SystemEntropy};
use crate::adapter::memory::{Fault, MemoryStore};
use crate::adapter::memory_journal::MemoryDisk;
use crate::config::{
    Access, CorsRule, Durability, HeaderRule, Meter, Methods, Origins, Product, ProductKind, Timeouts, Upstream,
};
use crate::domain::amount::Units;
use crate::domain::billable::BillableStatuses;
use crate::domain::credential::Scheme;
use crate::domain::id::Incarnation;
use crate::domain::id::{OfferId, ProductId};
use crate::domain::limit::{EachLimits, Limits};
use crate::domain::offer::{Offer, Validity};
use crate::protocol::keyring::Keyring;
use crate::service::commands::CommandLog;
use crate::service::desk::Desk;

/// Opens the router of a world.
pub(crate) const TOKEN: &str = "admin-token-of-the-tests";

struct World {
    router: Router,
    store: Arc<MemoryStore>,
    readiness: Arc<Readiness>,
    problems: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let keyring = Keyring::new(b"a secret of the tests", &[]).unwrap();
        let by = Incarnation::try_from("gw#1".to_owned()).unwrap();
        let desk = Desk::new(store.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy), by);
        let journal = Arc::new(MemoryDisk::default()).begin(desk.by.clone());
        let log = Arc::new(CommandLog::new(desk.clone(), journal.writer(0), journal));
        let accounts = Accounts::new(desk, log, keyring);
        let registry = Registry::new();
        registry.register(Box::new(IntCounter::new("tollgate_tests", "Tests.").unwrap())).unwrap();
        let problems = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&problems);
        let reload: Reload = Arc::new(move || {
            let problems = noted.lock().unwrap().clone();
            Box::pin(async move { if problems.is_empty() { Ok(()) } else { Err(problems) } })
        });
        let (readiness, catalog) = (Arc::new(Readiness::default()), Arc::new(ArcSwap::from_pointee(catalog())));
        let token = AdminToken::new(&TOKEN.into());
        let router = router(AdminState { accounts, catalog, readiness: readiness.clone(), registry, token, reload });
        Self { router, store, readiness, problems }
    }

    async fn with_account() -> Self {
        let world = Self::new();
        let opened = world.post("/admin/v1/accounts", None, json!({"name": "Acme", "id": "acme"})).await;
        assert_eq!(opened.0, 201);
        world
    }

    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.ask_keyed(method, path, None, body).await
    }

    async fn ask_keyed(&self, method: &str, path: &str, key: Option<&str>, body: Option<Value>) -> (u16, Value) {
        let mut request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        let (status, body) = self.send(request).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, key: Option<&str>, body: Value) -> (u16, Value) {
        self.ask_keyed("POST", path, key, Some(body)).await
    }

    async fn refused(&self, method: &str, path: &str, body: Value, expected: (u16, &str)) -> String {
        let (status, answer) = self.ask(method, path, Some(body)).await;
        let code = answer["error"]["code"].as_str().unwrap_or("none");
        assert_eq!((status, code), expected, "{method} {path}: {answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// A world's router, for tests of those who call it. It does not serve calls yet: it is starting.
pub(crate) fn router_of_a_world() -> Router {
    World::new().router
}

fn catalog() -> Catalog {
    let second = Duration::from_secs(1);
    let chat = Product {
        id: ProductId::new("chat").unwrap(),
        kind: ProductKind::Llm { deployment: "chat".into(), models: [("m".into(), "theirs".into())].into() },
        access: Access::Keys,
        accept: vec![Scheme::ApiKey],
        unsigned_payload: false,
        replay_protection: false,
        signature_debug: false,
        app_code_query: None,
        meter: Meter::Calls,
        buy_url: None,
        upstream: Arc::new(Upstream {
            tls: None,
            host: "127.0.0.1".into(),
            port: 9,
            authority: "127.0.0.1:9".parse().unwrap(),
            base_path: "/base".into(),
            headers: vec![("authorization".parse().unwrap(), "Bearer sellers-secret".parse().unwrap())],
            idle_connections: 1,
        }),
        timeouts: Timeouts { connect: second, head: second, idle: second, total: second },
        body_max: 1,
        on_seller_break: None,
        limits: Limits::NONE,
        each: EachLimits::default(),
        end_user_header: None,
        durability: Durability::Os,
        response_headers: HeaderRule::new(&[], &[]),
        cors: CorsRule { origins: Origins::Any, methods: Methods::Any, exposed: Vec::new(), max_age: second },
    };
    let offer = Offer {
        id: OfferId::new("calls-100").unwrap(),
        product: chat.id.clone(),
        quantity: Units::new(100),
        validity: Validity::Years(1),
        zone: TimeZone::UTC,
        billable: BillableStatuses::default(),
        price: None,
        for_apps: false,
    };
    Catalog {
        products: [(chat.id.clone(), Arc::new(chat))].into(),
        offers: [(offer.id.clone(), Arc::new(offer))].into(),
    }
}

/// Every guarded route, as the OpenAPI document lists it, with ids filled in.
fn guarded_routes() -> Vec<(String, String)> {
    let document = serde_json::to_value(document()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation.get("security").is_some() {
                let path = path.replace("{account}", "acme").replace("{key}", "key-x").replace("{package}", "pkg-x");
                let path = path.replace("{app}", "app-x").replace("{code}", "code-x").replace("{product}", "chat");
                routes.push((method.to_uppercase(), path));
            }
        }
    }
    routes
}

#[tokio::test]
async fn every_call_needs_the_token() {
    let world = World::with_account().await;
    assert_eq!(guarded_routes().len(), 27);
    for (method, path) in guarded_routes() {
        for token in [None, Some("Bearer wrong"), Some("Basic YTpi")] {
            let mut request = Request::builder().method(method.as_str()).uri(&path);
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let (status, body) = world.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(status, 401, "{method} {path} {token:?}");
            assert!(body.contains("admin token"), "{body}");
        }
        // With the token each documented route exists.
        let (_, answer) = world.ask(&method, &path, None).await;
        let code = answer["error"]["code"].as_str().unwrap_or("none").to_owned();
        assert!(!["unknown_route", "wrong_method", "no_token"].contains(&code.as_str()), "{method} {path}: {code}");
    }
}

#[tokio::test]
async fn accounts_are_opened_once() {
    let world = World::new();
    let named = json!({"name": "Acme"});
    let (status, first) = world.post("/admin/v1/accounts", Some("open-1"), named.clone()).await;
    assert_eq!(status, 201);
    let (status, again) = world.post("/admin/v1/accounts", Some("open-1"), named.clone()).await;
    assert_eq!((status, &again), (200, &first));
    assert!(first["created_at"].as_str().unwrap().parse::<Timestamp>().is_ok());
    let id = first["id"].as_str().unwrap();
    let listed = world.get("/admin/v1/accounts").await;
    assert_eq!(listed, json!({"accounts": [{"id": id, "name": "Acme"}]}));
    assert_eq!(world.get(&format!("/admin/v1/accounts?after={id}")).await, json!({"accounts": []}));
    let shown = world.get(&format!("/admin/v1/accounts/{id}")).await;
    assert_eq!((&shown["name"], &shown["keys"], &shown["pools"]), (&json!("Acme"), &json!([]), &json!([])));

    let taken = json!({"name": "Other", "id": id});
    world.refused("POST", "/admin/v1/accounts", taken, (409, "account_exists")).await;
}

#[tokio::test]
async fn bodies_are_strict_and_the_field_is_named() {
    let world = World::with_account().await;
    let check = async |method: &str, path: &str, body: Value, field: &str| {
        let message = world.refused(method, path, body, (422, "invalid_value")).await;
        assert!(message.contains(field), "{message}");
    };
    check("POST", "/admin/v1/accounts", json!({"name": "A", "nmae": 1}), "nmae").await;
    check("POST", "/admin/v1/accounts", json!({"name": 7}), "name").await;
    check("POST", "/admin/v1/accounts", json!({"name": ""}), "name").await;
    check("POST", "/admin/v1/accounts", json!({}), "name").await;
    check("POST", "/admin/v1/accounts", json!({"name": "A", "id": "not an id"}), "id").await;
    check("POST", "/admin/v1/accounts/acme/keys", json!({"expires_at": "soon"}), "expires_at").await;
    check("POST", "/admin/v1/accounts/acme/keys", json!({"expires_at": "2020-01-01T00:00:00Z"}), "expires_at").await;
    check("POST", "/admin/v1/accounts/acme/keys", json!({"models": ["m", 1]}), "models[1]").await;
    check("PATCH", "/admin/v1/accounts/acme/keys/key-x", json!({"disable": true}), "disable").await;
    check("POST", "/admin/v1/accounts/acme/packages", json!({}), "offer").await;
    check("POST", "/admin/v1/accounts/acme/packages/p/resolve", json!({"units": 0, "used": true}), "units").await;
    check("POST", "/admin/v1/accounts/acme/packages/p/resolve", json!({"units": 1}), "used").await;
}

#[tokio::test]
async fn what_is_no_json_or_too_large_is_refused_in_our_shape() {
    let world = World::new();
    let check = async |content: Option<&str>, body: String, expected: (u16, &str)| {
        let request = Request::post("/admin/v1/accounts").header("authorization", format!("Bearer {TOKEN}"));
        let request = content.into_iter().fold(request, |request, content| request.header("content-type", content));
        let (status, body) = world.send(request.body(Body::from(body)).unwrap()).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["error"]["code"].as_str().unwrap()), expected, "{body}");
    };
    let json = Some("application/json");
    let sized = |bytes: usize| format!(r#"{{"name": "A"{}}}"#, " ".repeat(bytes - 13));
    check(json, "{".into(), (400, "invalid_json")).await;
    check(json, r#"{"name": "A"} x"#.into(), (400, "invalid_json")).await;
    check(json, r#"{"name": "A", "name": "B"}"#.into(), (422, "invalid_value")).await;
    check(None, r#"{"name": "A"}"#.into(), (415, "invalid_json")).await;
    check(json, sized(request::BODY_BYTES_MAX + 1), (413, "body_too_large")).await;
    let request = Request::post("/admin/v1/accounts").header("authorization", format!("Bearer {TOKEN}"));
    let request = request.header("content-type", "application/json").body(sized(request::BODY_BYTES_MAX).into());
    assert_eq!(world.send(request.unwrap()).await.0, 201);
}

#[tokio::test]
async fn a_key_is_shown_once_and_only_there() {
    let world = World::with_account().await;
    let wanted = json!({"description": "ci", "products": ["chat"], "models": ["m"]});
    let (status, added) = world.post("/admin/v1/accounts/acme/keys", Some("k-1"), wanted.clone()).await;
    assert_eq!(status, 201);
    let (text, id) = (added["key"].as_str().unwrap(), added["id"].as_str().unwrap());
    assert!(text.starts_with("sk-tg-"));
    assert_eq!((&added["description"], &added["state"]), (&json!("ci"), &json!("usable")));

    let (status, again) = world.post("/admin/v1/accounts/acme/keys", Some("k-1"), wanted).await;
    assert_eq!((status, &again["id"], again.get("key")), (200, &json!(id), None));
    let change = json!({"disabled": true, "models": null});
    let (status, changed) = world.ask("PATCH", &format!("/admin/v1/accounts/acme/keys/{id}"), Some(change)).await;
    assert_eq!((status, &changed["state"], changed.get("models")), (200, &json!("disabled"), None));
    assert_eq!(changed["products"], json!(["chat"]));

    let listed = world.get("/admin/v1/accounts/acme/keys").await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
    let shown = world.get("/admin/v1/accounts/acme").await;
    for answer in [&again, &changed, &listed, &shown] {
        let answer = answer.to_string();
        assert!(!answer.contains(text) && !answer.contains("hash"), "{answer}");
    }

    let gone = format!("/admin/v1/accounts/acme/keys/{id}");
    assert_eq!(world.ask("DELETE", &gone, None).await.0, 204);
    world.refused("DELETE", &gone, json!({}), (404, "unknown_key")).await;
    world.refused("PATCH", &gone, json!({}), (404, "unknown_key")).await;
}

#[tokio::test]
async fn keys_and_packages_are_allotted_to_projects() {
    let world = World::with_account().await;
    let (keys, packages) = ("/admin/v1/accounts/acme/keys", "/admin/v1/accounts/acme/packages");
    let (_, plain) = world.post(keys, None, json!({})).await;
    assert_eq!((&plain["project"], plain.get("tags")), (&json!("default"), None));
    let wanted = json!({"project": "search", "tags": {"team": "a", "cost-centre": "42"}});
    let (status, added) = world.post(keys, None, wanted.clone()).await;
    assert_eq!((status, &added["project"], &added["tags"]), (201, &wanted["project"], &wanted["tags"]));
    let one = format!("{keys}/{}", added["id"].as_str().unwrap());
    let (_, changed) = world.ask("PATCH", &one, Some(json!({"tags": {"team": "b"}}))).await;
    assert_eq!((&changed["project"], &changed["tags"]), (&json!("search"), &json!({"team": "b"})));
    let (_, changed) = world.ask("PATCH", &one, Some(json!({"project": "default", "tags": {}}))).await;
    assert_eq!((&changed["project"], changed.get("tags")), (&json!("default"), None));
    let bought = json!({"offer": "calls-100", "project": "search", "tags": {"po": "7"}});
    let (status, package) = world.post(packages, None, bought).await;
    assert_eq!((status, &package["project"], &package["tags"]), (201, &json!("search"), &json!({"po": "7"})));
    assert_eq!(world.get(packages).await["packages"][0]["tags"], json!({"po": "7"}));
    for bad in
        [json!({"project": "a b"}), json!({"tags": {"a b": ""}}), json!({"tags": {"a": 1}}), json!({"tags": null})]
    {
        assert_eq!(world.post(keys, None, bad.clone()).await.0, 422, "{bad}");
    }
}

#[tokio::test]
async fn the_twenty_first_key_is_refused() {
    let world = World::with_account().await;
    for _ in 0..20 {
        assert_eq!(world.post("/admin/v1/accounts/acme/keys", None, json!({})).await.0, 201);
    }
    world.refused("POST", "/admin/v1/accounts/acme/keys", json!({}), (409, "too_many_keys")).await;
}

#[tokio::test]
async fn packages_are_added_once() {
    let world = World::with_account().await;
    let path = "/admin/v1/accounts/acme/packages";
    let (status, first) = world.post(path, Some("order-1"), json!({"offer": "calls-100"})).await;
    assert_eq!(status, 201);
    let (status, again) = world.post(path, Some("order-1"), json!({"offer": "calls-100"})).await;
    assert_eq!((status, &again), (200, &first));
    let figures = ["total", "remaining", "free", "leased", "settled", "suspense", "forfeited"];
    assert_eq!(figures.map(|name| first[name].as_u64().unwrap()), [100, 100, 100, 0, 0, 0, 0]);
    assert_eq!((&first["offer"], &first["product"]), (&json!("calls-100"), &json!("chat")));
    assert_eq!(world.get(path).await, json!({"packages": [first], "ended": []}));
    assert_eq!(world.get("/admin/v1/accounts/acme").await["pools"][0]["remaining"], json!(100));

    let message = world.refused("POST", path, json!({"offer": "x"}), (422, "unknown_offer")).await;
    assert!(message.contains("calls-100"), "{message}");
    let (status, reused) = world.post("/admin/v1/accounts/acme/keys", Some("order-1"), json!({})).await;
    assert_eq!((status, &reused["error"]["code"]), (409, &json!("idempotency_key_reused")));
    let (status, bad) = world.post(path, Some("not an id"), json!({"offer": "calls-100"})).await;
    assert_eq!((status, &bad["error"]["code"]), (400, &json!("invalid_idempotency_key")));

    let resolve = format!("{path}/{}/resolve", first["id"].as_str().unwrap());
    world.refused("POST", &resolve, json!({"units": 1, "used": true}), (409, "not_in_suspense")).await;
}

#[tokio::test]
async fn what_is_not_there_is_404_and_says_so() {
    let world = World::with_account().await;
    let package = json!({"offer": "calls-100"});
    let units = json!({"units": 1, "used": true});
    world.refused("GET", "/admin/v1/accounts/nobody", json!({}), (404, "unknown_account")).await;
    world.refused("GET", "/admin/v1/accounts/nobody/keys", json!({}), (404, "unknown_account")).await;
    world.refused("POST", "/admin/v1/accounts/nobody/keys", json!({}), (404, "unknown_account")).await;
    world.refused("GET", "/admin/v1/accounts/nobody/packages", json!({}), (404, "unknown_account")).await;
    world.refused("POST", "/admin/v1/accounts/nobody/packages", package, (404, "unknown_account")).await;
    world.refused("POST", "/admin/v1/accounts/acme/packages/p/resolve", units, (404, "unknown_package")).await;
    world.refused("GET", "/admin/v1/accounts/no%20id", json!({}), (404, "invalid_id")).await;
    world.refused("GET", "/admin/v1/accounts?before=x", json!({}), (400, "invalid_query")).await;
    world.refused("GET", "/admin/v2", json!({}), (404, "unknown_route")).await;
    world.refused("PUT", "/admin/v1/accounts", json!({}), (405, "wrong_method")).await;
    world.refused("POST", "/livez", json!({}), (405, "wrong_method")).await;
    let wrong = json!({"products": ["chta"]});
    let message = world.refused("POST", "/admin/v1/accounts/acme/keys", wrong, (422, "unknown_product")).await;
    assert!(message.contains("known are: chat"), "{message}");
}

#[tokio::test]
async fn a_store_that_is_away_is_503() {
    let world = World::with_account().await;
    world.store.fail_commits([Fault::NotWritten]);
    let package = json!({"offer": "calls-100"});
    world.refused("POST", "/admin/v1/accounts/acme/packages", package, (503, "store_unavailable")).await;
}

#[tokio::test]
async fn the_catalogue_is_shown_without_secrets() {
    let world = World::new();
    let products = world.get("/admin/v1/products").await;
    assert_eq!(products["products"][0]["path"], json!("/v1/infers/chat/v1"));
    assert_eq!(products["products"][0]["upstream"], json!("http://127.0.0.1:9/base"));
    assert!(!products.to_string().contains("sellers-secret"));
    let offers = world.get("/admin/v1/offers").await;
    let offer = &offers["offers"][0];
    assert_eq!((&offer["validity"], &offer["zone"]), (&json!({"years": 1}), &json!("UTC")));
}

#[tokio::test]
async fn a_reload_says_all_that_is_wrong() {
    let world = World::new();
    assert_eq!(world.ask("POST", "/admin/v1/reload", None).await.0, 204);
    *world.problems.lock().unwrap() = vec!["line 1: a".into(), "line 2: b".into()];
    let (status, answer) = world.ask("POST", "/admin/v1/reload", None).await;
    assert_eq!((status, &answer["error"]["problems"]), (422, &json!(["line 1: a", "line 2: b"])));
}

#[tokio::test]
async fn health_and_metrics_are_open() {
    let world = World::new();
    let open = async |path: &str| world.send(Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(open("/livez").await, (200, "ok\n".into()));
    assert_eq!(open("/readyz").await, (503, r#"{"ready":false,"reasons":["starting"]}"#.into()));
    world.readiness.clear(Unready::Starting);
    assert_eq!(open("/readyz").await, (200, r#"{"ready":true,"reasons":[]}"#.into()));
    world.readiness.raise(Unready::JournalFull);
    assert_eq!(open("/readyz").await.0, 503);
    assert!(open("/metrics").await.1.contains("# HELP tollgate_tests Tests.\n"));
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let kind = world.router.clone().oneshot(request).await.unwrap().headers()["content-type"].clone();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(open("/admin/v1/openapi.json").await.0, 200);
}

#[test]
fn the_openapi_document_is_complete() {
    let document = serde_json::to_value(document()).unwrap();
    let text = document.to_string();
    for (at, _) in text.match_indices("#/components/schemas/") {
        let name = text[at + 21..].split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    assert_eq!(document["components"]["securitySchemes"]["admin_token"]["scheme"], json!("bearer"));
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().collect();
            let guarded = operation.get("security").is_some();
            assert_eq!(statuses.iter().any(|status| *status == "401"), guarded, "{method} {path} {statuses:?}");
            assert!(statuses.iter().any(|status| status.starts_with('2')), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_server_answers_and_stops() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, None, World::new().router, async move { drop(stopped.await) }));
    let mut answer = String::new();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok\n"), "{answer}");
    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_that_ask_nothing_keep_nobody_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, None, World::new().router, std::future::pending()));
    let mut idle = Vec::new();
    for _ in 0..70 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let asked = async {
        let mut answer = String::new();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    // An idle connection is closed by itself after 10 s.
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    server.abort();
}
