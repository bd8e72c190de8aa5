//! Whole files: the example, the schema, the defaults. Bad files are in `bad` (each key, generated) and `rules` (each
//! rule, by hand); what is no YAML is in `syntax`; how messages look is in `rendered`.

mod bad;
mod files;
mod rendered;
mod rules;
mod syntax;

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// A complete file with a line for every key.
const BASE: &str = "\
gateway: gw-7
workers: 2
data_dir: data
listeners:
  data: 127.0.0.1:8081
  admin: 127.0.0.1:9091
admin:
  token: 0123456789abcdef
secrets:
  hash_key: fedcba9876543210
log:
  level: debug
  access: logs/access.log
limits:
  connections: 100
  head_timeout: 1s
  idle_timeout: 2s
  body_timeout: 3s
  buffered_bytes: 64MiB
  failed_auth_per_minute: 50
journal:
  segment_bytes: 1MiB
drain_timeout: 4s
products:
  - id: chat
    kind: llm
    deployment: chat-1
    models:
      small: Small.gguf
      large: ~
    access: keys
    meter: calls
    buy_url: https://shop.example.com/
    upstream:
      base_url: https://seller.example.com:444/base/
      api_key: sk-seller
      headers:
        x-tenant: abc
      idle_connections: 8
    timeouts:
      connect: 1s
      head: 2s
      idle: 3s
      total: 4s
    body_max: 1MiB
    on_seller_break: void
    durability: disk
    limits:
      per_second: 100
      per_minute: 1000
      per_day: 10000
      concurrent: 20
      each_account:
        per_minute: 500
      each_key:
        per_second: 7
        concurrent: 3
      each_app:
        per_day: 900
    end_user_header: X-End-User
    response_headers: [x-seller-*]
    cors:
      origins: [https://app.example.com]
      methods: [GET, POST]
      exposed_headers: [X-Seller-Region]
      max_age: 10m
  - id: weather
    kind: http
    host: API.example.com
    path: /weather/
    strip_path: true
    access: open
    meter: none
    upstream:
      base_url: http://127.0.0.1:9001
offers:
  - id: chat-100
    product: chat
    kind: per_call
    calls: 100
    validity: 30 days
    price: 49.90 CNY
    time_zone: Asia/Shanghai
    billable:
      - statuses: any
      - from: 2025-07-16T00:00:00+08:00
        statuses: success
store:
  volatile: true
  redis:
    urls: [rediss://s-1.example.com/2, \"rediss://[::1]:26380/2\"]
    sentinel:
      master: books
      username: watcher
      password: sentinels-own
    prefix: shop-1
    username: tollgate
    password: hunter2
    timeout: 300ms
    durable: true
receipts:
  key_id: 2026-11
  key: \"-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\\n-----END PRIVATE KEY-----\"
  earlier:
    - id: 2025-11
      public_key: \"-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\\n-----END PUBLIC KEY-----\"
proxies:
  trusted: [10.0.0.0/8, 192.0.2.7]
  header: forwarded
  proxy_protocol: true
";

/// The least that a file can say.
fn least() -> Value {
    json!({
        "data_dir": "data",
        "admin": { "token": "0123456789abcdef" },
        "secrets": { "hash_key": "fedcba9876543210" },
        "products": [
            { "id": "p", "kind": "llm", "upstream": { "base_url": "http://seller" } },
            { "id": "q", "kind": "http", "path": "/q", "upstream": { "base_url": "http://seller" } },
        ],
        "offers": [{ "id": "o", "product": "p", "kind": "per_call", "calls": 1, "validity": "1d" }],
    })
}

fn no_env(_: &str) -> Option<String> {
    None
}

fn parsed(text: &str) -> Result<Config, Problems> {
    parse(text, Path::new("/etc/tollgate/tollgate.yaml"), &no_env)
}

/// A `$ref` of the schema followed.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(name) => root.pointer(name.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Fills every absent key that has a default in the schema.
fn fill(root: &Value, schema: &Value, value: &mut Value) {
    let schema = resolved(root, schema);
    if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(|item| fill(root, &schema["items"], item));
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let kind = value.get("kind").cloned();
    for (key, property) in properties {
        let description = property["description"].as_str().unwrap();
        let strange = |own: &str| description.starts_with(&format!("{own}:")) && kind != Some(json!(own));
        if strange("llm") || strange("http") {
            continue;
        }
        let fields = value.as_object_mut().unwrap();
        if let (None, Some(default)) = (fields.get(key), property.get("default")) {
            fields.insert(key.clone(), default.clone());
        }
        let found = resolved(root, property);
        // Leaving out a section that cannot be empty says something too.
        let needs = ["oneOf", "required"].into_iter().any(|word| found.get(word).is_some());
        let section = found.get("properties").is_some() && !needs;
        let required = schema["required"].as_array().is_some_and(|names| names.contains(&json!(key)));
        if section && !required {
            fields.entry(key.clone()).or_insert_with(|| json!({}));
        }
        if let Some(below) = fields.get_mut(key) {
            fill(root, property, below);
        }
    }
}

fn schema() -> Value {
    serde_json::from_str(&json_schema()).unwrap()
}

#[test]
fn a_complete_file_is_read_key_by_key() {
    let config = parsed(BASE).unwrap();
    let mut text = format!("{config:#?}");
    let product = &config.catalog.products[&ProductId::new("chat").unwrap()];
    // Sensitive values say nothing in Debug.
    for (name, value) in &product.upstream.headers {
        writeln!(text, "\n{name}: {}", value.to_str().unwrap()).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn no_secret_is_printed() {
    let text = format!("{:?}", parsed(BASE).unwrap());
    for secret in ["0123456789abcdef", "fedcba9876543210", "sk-seller", "abc\"", "sentinels-own", "hunter2"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn slow_clients_are_not_waited_for_longer_than_is_promised() {
    let limits = parsed(&least().to_string()).unwrap().limits;
    assert_eq!(limits.head_timeout, std::time::Duration::from_secs(10));
    assert_eq!(limits.body_timeout, std::time::Duration::from_secs(30));
    assert_eq!(limits.idle_timeout, std::time::Duration::from_secs(75));
}

#[test]
fn the_schema_names_the_defaults_that_hold() {
    let mut full = least();
    let schema = schema();
    fill(&schema, &schema, &mut full);
    assert_ne!(full, least());
    let debug = |value: &Value| format!("{:#?}", parsed(&value.to_string()).unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(debug(&full), debug(&least()));
}

#[test]
fn the_committed_schema_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.schema.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == json_schema(),
        "config/tollgate.schema.json is stale; run `tollgate config schema > config/tollgate.schema.json`"
    );
}

#[test]
fn every_key_of_the_schema_has_a_description_and_refuses_others() {
    let schema = schema();
    let sections = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let mut seen = 0;
    for section in sections.filter(|section| section.get("properties").is_some()) {
        assert_eq!(section["additionalProperties"], json!(false), "{section}");
        for (key, property) in section["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "{key}: {property}");
            seen += 1;
        }
        for key in section["required"].as_array().into_iter().flatten() {
            assert!(section["properties"].get(key.as_str().unwrap()).is_some(), "{key}");
        }
    }
    assert!(seen > 50, "{seen}");
}

/// Every schema of a value inside another, itself among them.
fn all_of<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(schema);
    let below = schema.as_object().into_iter().flat_map(|keys| keys.values());
    let listed = schema.as_array().into_iter().flatten();
    below.chain(listed).for_each(|schema| all_of(schema, found));
}

#[test]
fn the_schema_bounds_what_the_check_bounds() {
    let schema = schema();
    let mut all = Vec::new();
    all_of(&schema, &mut all);
    let of = |kind: &str| all.iter().filter(move |schema| schema["type"] == json!(kind)).collect::<Vec<_>>();
    assert!(of("integer").len() > 15 && of("string").len() > 50);
    for number in of("integer") {
        assert!(number["minimum"].is_u64() && number["maximum"].is_u64(), "{number}");
    }
    for text in of("string") {
        let bounded = ["pattern", "enum", "const"].iter().any(|word| text.get(word).is_some());
        assert!(bounded, "{text}");
    }
    let found = |path: &str| schema.pointer(path).unwrap_or_else(|| panic!("{path}")).clone();
    assert_eq!(found("/properties/workers/anyOf/0/oneOf/0/maximum"), json!(256));
    assert_eq!(found("/$defs/RawLimits/properties/spool_above/anyOf/0/oneOf/0/minimum"), json!(4096));
    let calls = found("/$defs/RawOffer/properties/calls/anyOf/0/oneOf/1/pattern");
    assert!(calls.as_str().unwrap().ends_with("|1000000000000))$"), "{calls}");
    let time = found("/$defs/RawRedis/properties/timeout/anyOf/0/pattern");
    assert_eq!(time, json!("^(0*([1-9][0-9]|[1-9][0-9]{2}|[1-9][0-9]{3}|10000)ms|0*([1-9]|10)s)$"));
    assert_eq!(found("/properties/products/maxItems"), json!(10_000));
    assert_eq!(found("/$defs/RawUpstream/properties/headers/maxProperties"), json!(50));
    let token = found("/$defs/RawAdmin/properties/token/anyOf/0/pattern");
    assert_eq!(token, json!("^[!-~]{16,}$"));
}

fn example() -> (std::path::PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn the_example_loads_and_shows_every_key() {
    let (path, text) = example();
    let env = |name: &str| {
        let known = ["TOLLGATE_ADMIN_TOKEN", "TOLLGATE_HASH_KEY", "SELLER_API_KEY"].contains(&name);
        known.then(|| "0123456789abcdef".to_owned())
    };
    let config = load(&path, &env).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.catalog.products.len(), config.catalog.offers.len()), (2, 1));

    let schema = schema();
    let sections = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for key in sections.filter_map(|section| section["properties"].as_object()).flat_map(|keys| keys.keys()) {
        let shown = |line: &str| {
            let line = line.trim_start_matches([' ', '#', '-']);
            line.starts_with(&format!("{key}:")) || line.contains(&format!("{{ {key}:"))
        };
        assert!(text.lines().any(shown), "config/tollgate.yaml does not show `{key}`");
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let (_, text) = example();
    let shown: Value = serde_saphyr::from_str(&text).unwrap();
    let mut empty = json!({});
    let schema = schema();
    fill(&schema, &schema, &mut empty);
    for (key, default) in empty.as_object().unwrap().iter().filter(|(key, _)| *key != "offers") {
        assert_eq!(shown.get(key), Some(default), "{key}");
    }
}
