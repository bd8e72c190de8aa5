//! For each rule a file that breaks it: one part of a complete file is replaced.

use super::*;

/// Replaces a text of [`BASE`], which must be there; one problem at the line that holds `mark` has the path and the
/// words.
fn check(from: &str, to: &str, mark: &str, path: &str, words: &str) {
    assert_eq!(BASE.matches(from).count(), 1, "{from:?} must stand in the base file once");
    let text = BASE.replace(from, to);
    let line = text.lines().position(|line| line.contains(mark)).unwrap() + 1;
    let problems = parsed(&text).expect_err(to);
    let found = problems.iter().any(|problem| {
        let here = problem.position.is_some_and(|position| position.0 == line);
        here && problem.path == path && problem.message.contains(words)
    });
    assert!(found, "line {line}: {path}: …{words}…:\n{problems}");
    assert_eq!(problems.iter().count(), 1, "{problems}");
}

/// A key's value replaced; the problem stands on its line.
fn value(from: &str, to: &str, path: &str, words: &str) {
    let key = from.split_once(": ").unwrap().0.trim();
    let end = if from.ends_with('\n') { "\n" } else { "" };
    check(from, &format!("{}{key}: {to}{end}", from.split_once(key).unwrap().0), &format!("{key}: {to}"), path, words);
}

#[test]
fn what_signs_receipts() {
    value("key_id: 2026-11", "\"a b\"", "receipts.key_id", "is no key id");
    check("BEGIN PRIVATE KEY", "BEGIN A PRIVATE KEY", "A PRIVATE", "receipts.key", "no private Ed25519 key");
    check("BEGIN PUBLIC KEY", "BEGIN A PUBLIC KEY", "A PUBLIC", "receipts.earlier[0].public_key", "no public Ed25519");
    check("- id: 2025-11", "- id: 2026-11", "- id: 2026-11", "receipts.earlier[0].id", "a second key");
}

#[test]
fn the_gateway_itself() {
    value("gateway: gw-7", "gw 7", "gateway", "the first is a letter or a digit");
    value("gateway: gw-7", "\"\"", "gateway", "1 to 64 characters");
    value("gateway: gw-7", "-gw", "gateway", "1 to 64 characters");
    value("workers: 2", "0", "workers", "from 1 to 256");
    value("workers: 2", "257", "workers", "from 1 to 256");
    value("workers: 2", "-1", "workers", "not a whole number");
    value("workers: 2", "2.0", "workers", "not a whole number");
    value("workers: 2", "all", "workers", "digits alone");
    value("data_dir: data", "\" \"", "data_dir", "the path is empty");
    value("data: 127.0.0.1:8081", "localhost:80", "listeners.data", "in figures");
    value("data: 127.0.0.1:8081", "8081", "listeners.data", "not an address and port");
    value("admin: 127.0.0.1:9091", "127.0.0.1:8081", "listeners.admin", "both listeners would take port 8081");
    let at = "listeners.admin";
    check("data: 127.0.0.1:8081", "data: 0.0.0.0:9091", "admin: 127.0.0.1:9091", at, "would take port 9091");
    let free = BASE.replace("127.0.0.1:8081", "127.0.0.1:0").replace("127.0.0.1:9091", "127.0.0.1:0");
    assert!(parsed(&free).is_ok(), "port 0 is another port each time");
}

#[test]
fn whose_pages_may_call() {
    let at = "products[0].cors.origins[0]";
    for bad in [
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/x",
        "\"null\"",
        "https://*.example.com",
        "https://a@b",
        "\"\"",
        "https://",
    ] {
        value("origins: [https://app.example.com]", &format!("[{bad}]"), at, "is not an origin");
    }
    value("origins: [https://app.example.com]", "[https://App.example.com]", at, "capital letters");
    value("origins: [https://app.example.com]", "[https://app.example.com:443]", at, "its scheme's own port");
    let all = "products[0].cors.origins";
    value("origins: [https://app.example.com]", "[\"*\", https://a.example]", all, "stands for all");
    value("methods: [GET, POST]", "[get]", "products[0].cors.methods[0]", "is not a method");
    value(
        "exposed_headers: [X-Seller-Region]",
        "[\"a b\"]",
        "products[0].cors.exposed_headers[0]",
        "the name of a header",
    );
    value("max_age: 10m", "10", "products[0].cors.max_age", "has no unit");
    let none = BASE.replace("origins: [https://app.example.com]", "origins: []");
    assert!(parsed(&none).is_ok(), "nobody's pages");
}

#[test]
fn proxies() {
    value("trusted: [10.0.0.0/8, 192.0.2.7]", "[10.0.0.0/8, localhost]", "proxies.trusted[1]", "is not a network");
    value("trusted: [10.0.0.0/8, 192.0.2.7]", "[10.0.0.1/8]", "proxies.trusted[0]", "write `10.0.0.0/8`");
    value("trusted: [10.0.0.0/8, 192.0.2.7]", "[10.0.0.0/33]", "proxies.trusted[0]", "at most `/32`");
    value("header: forwarded", "X-Forwarded-For", "proxies.header", "did you mean `x-forwarded-for`?");
    value("header: forwarded", "x-real-ip", "proxies.header", "write one of `x-forwarded-for`, `forwarded`");
    check(
        "trusted: [10.0.0.0/8, 192.0.2.7]",
        "trusted: []",
        "proxy_protocol: true",
        "proxies.proxy_protocol",
        "nobody is trusted",
    );
}

#[test]
fn logs_limits_and_the_journal() {
    value("level: debug", "dbug", "log.level", "did you mean `debug`?");
    value("level: debug", "INFO", "log.level", "write one of `error`, `warn`, `info`, `debug`, `trace`");
    value("access: logs/access.log", "stdot", "log.access", "did you mean `stdout`?");
    value("access: logs/access.log", "\"\"", "log.access", "write `off`, `stdout` or the path");
    value("access: logs/access.log", "access.log", "log.access", "with a slash");
    value("  connections: 100\n", "0", "limits.connections", "from 1 to 1000000");
    value("  connections: 100\n", "1000001", "limits.connections", "from 1 to 1000000");
    value("head_timeout: 1s", "0s", "limits.head_timeout", "no time at all");
    value("head_timeout: 1s", "10", "limits.head_timeout", "has no unit");
    value("idle_timeout: 2s", "2 sec", "limits.idle_timeout", "not a unit of time");
    value("body_timeout: 3s", "31d", "limits.body_timeout", "at most `30d`");
    value("body_timeout: 3s", "soon", "limits.body_timeout", "not a duration");
    value("drain_timeout: 4s", "0ms", "drain_timeout", "at least `1ms`");
    value("buffered_bytes: 64MiB", "64MB", "limits.buffered_bytes", "not a unit of size");
    value("buffered_bytes: 64MiB", "1023KiB", "limits.buffered_bytes", "1023KiB is out of range");
    value("buffered_bytes: 64MiB", "lots", "limits.buffered_bytes", "not a size");
    value("segment_bytes: 1MiB", "255KiB", "journal.segment_bytes", "from 256KiB to 1GiB");
    value("segment_bytes: 1MiB", "1073741825", "journal.segment_bytes", "1073741825 bytes is out of range");
    check("segment_bytes: 1MiB", "keep: 6d", "keep: 6d", "journal.keep", "at least `7d`");
    check(
        "segment_bytes: 1MiB",
        "remove: always",
        "remove: always",
        "journal.remove",
        "`exported`, `settled`, `never`",
    );
}

#[test]
fn secrets() {
    value("token: 0123456789abcdef", "0123456789abcde", "admin.token", "15 characters; write at least 16");
    value("token: 0123456789abcdef", "\"\"", "admin.token", "the secret is empty");
    value("token: 0123456789abcdef", "\"${EMPTY:-}\"", "admin.token", "the secret is empty");
    value("token: 0123456789abcdef", "0123456789 abcdef", "admin.token", "no HTTP header can carry");
    value("token: 0123456789abcdef", "0123456789abcdéf", "admin.token", "no HTTP header can carry");
    value("hash_key: fedcba9876543210", "fedcba987654321", "secrets.hash_key", "15 bytes; write at least 16");
    value("hash_key: fedcba9876543210", "\"  \"", "secrets.hash_key", "the secret is empty");
    value("hash_key: fedcba9876543210", "$HASH_KEY_OF_THE_GATEWAY", "secrets.hash_key", "a lone `$`");
    value("hash_key: fedcba9876543210", "\"${HASH KEY}\"", "secrets.hash_key", "not the name of a variable");
    value("api_key: sk-seller", "\"\"", "products[0].upstream.api_key", "the secret is empty");
    value("api_key: sk-seller", "Bearer sk-seller", "products[0].upstream.api_key", "write the key alone");
    let outside = BASE.replace("admin: 127.0.0.1:9091", "admin: 0.0.0.0:9091");
    let problems = parsed(&outside).unwrap_err().to_string();
    assert!(problems.contains("write at least 32, because `listeners.admin`"), "{problems}");
    let long = outside.replace("token: 0123456789abcdef", "token: 0123456789abcdef0123456789abcdef");
    assert!(parsed(&long).is_ok());
}

#[test]
fn products() {
    value("id: chat\n", "a/b", "products[0].id", "1 to 64 characters");
    value("kind: llm", "grpc", "products[0].kind", "write one of `llm`, `http`");
    value("kind: llm", "htp", "products[0].kind", "did you mean `http`?");
    for bad in ["a/b", "\"\"", ".", "..", "a b", "ä"] {
        value("deployment: chat-1", bad, "products[0].deployment", "not one segment of a path");
    }
    value("small: Small.gguf", "\"\"", "products[0].models.small", "not a model's name");
    value("small: Small.gguf", "\"a\\nb\"", "products[0].models.small", "not a model's name");
    check("small: Small.gguf", "\" \": x", "\" \": x", "products[0].models[\" \"]", "not a model's name");
    value("access: keys", "all", "products[0].access", "write one of `keys`, `open`");
    value("access: keys", "kyes", "products[0].access", "did you mean `keys`?");
    value("access: keys", "open", "products[0].access", "with `access: open` write `meter: none`");
    check("    meter: none\n", "", "access: open", "products[1].access", "an anonymous caller has no package");
    value("meter: calls", "tokens", "products[0].meter", "write one of `calls`, `none`");
    value("buy_url: https://shop.example.com/", "shop", "products[0].buy_url", "does not begin with");
    value("buy_url: https://shop.example.com/", "https://a b/", "products[0].buy_url", "not a URL");
    value("body_max: 1MiB", "0", "products[0].body_max", "from 1 byte to 1GiB");
    value("body_max: 1MiB", "2GiB", "products[0].body_max", "2GiB is out of range");
    value("body_max: 1MiB", "65MiB", "products[0].body_max", "never fits into `limits.buffered_bytes`, which is 64MiB");
    value("on_seller_break: void", "refund", "products[0].on_seller_break", "write one of `bill`, `void`");
    value("durability: disk", "ssd", "products[0].durability", "write one of `os`, `disk`");
    value("response_headers: [x-seller-*]", "[a b]", "products[0].response_headers[0]", "not the name of a header");
    value("response_headers: [x-seller-*]", "[a, x*y]", "products[0].response_headers[1]", "not the name of a header");
    value("response_headers: [x-seller-*]", "[X-Tollgate-*]", "products[0].response_headers[0]", "never passes");
    value("response_headers: [x-seller-*]", "[te]", "products[0].response_headers[0]", "never passes");
    value("host: API.example.com", "a.example:80", "products[1].host", "a name without port");
    value("host: API.example.com", "\"\"", "products[1].host", "not a host");
    value("host: API.example.com", "https://a", "products[1].host", "not a host");
    value("path: /weather/", "weather", "products[1].path", "does not begin with `/`");
    value("path: /weather/", "\"\"", "products[1].path", "the path is empty");
    value("path: /weather/", "//weather", "products[1].path", "two slashes");
    value("path: /weather/", "/.well-known/tollgate/x", "products[1].path", "the gateway's own");
    value("failed_auth_per_minute: 50", "0", "limits.failed_auth_per_minute", "from 1 to 1000000000");
    value("per_second: 100", "0", "products[0].limits.per_second", "from 1 to 1000000000");
    value("per_day: 900", "1000000001", "products[0].limits.each_app.per_day", "from 1 to 1000000000");
    value("concurrent: 3", "a few", "products[0].limits.each_key.concurrent", "not a whole number");
    value("end_user_header: X-End-User", "Authorization", "products[0].end_user_header", "carries a credential");
    value("path: /weather/", "/a/../b", "products[1].path", "`..`");
    value("path: /weather/", "/a?b", "products[1].path", "a character other than");
    value("strip_path: true", "yes", "products[1].strip_path", "neither `true` nor `false`");
}

#[test]
fn keys_of_another_kind() {
    check("kind: llm", "kind: llm\n    host: a", "host: a", "products[0].host", "is for `kind: http`");
    check("kind: llm", "kind: llm\n    path: /a", "path: /a", "products[0].path", "is for `kind: http`");
    check("kind: llm", "kind: llm\n    strip_path: no", "strip_path: no", "products[0].strip_path", "neither");
    check("kind: llm", "kind: llm\n    strip_path: true", "strip_path: true", "products[0].strip_path", "take it out");
    let words = "for products that accept `signature`";
    check("kind: llm", "kind: llm\n    replay_protection: true", "true", "products[0].replay_protection", words);
    check("kind: http", "kind: http\n    models: {}", "models: {}", "products[1].models", "is for `kind: llm`");
    check(
        "kind: http",
        "kind: http\n    deployment: a",
        "deployment: a",
        "products[1].deployment",
        "is for `kind: llm`",
    );
}

/// A product more, at the end of the list.
fn another(product: &str, mark: &str, path: &str, words: &str) {
    check("offers:\n", &format!("{product}\noffers:\n"), mark, path, words);
}

#[test]
fn products_among_themselves() {
    let llm = |id: &str, more: &str| {
        format!("  - id: {id}\n    kind: llm\n    upstream: {{ base_url: \"http://s\" }}\n{more}")
    };
    let http =
        |more: &str| format!("  - id: other\n    kind: http\n    upstream: {{ base_url: \"http://s\" }}\n{more}");
    check("id: weather", "id: chat # 2", "id: chat # 2", "products[1].id", "`chat` is already on line 25");
    let twice = "the deployment `chat-1` is already on line 27";
    another(&llm("b", "    deployment: chat-1 # 2"), "chat-1 # 2", "products[2].deployment", twice);
    another(&llm("chat-1", ""), "- id: chat-1", "products[2].id", "`chat-1` is already on line 27");
    let models = "    models:\n      Small: x\n      large: y";
    another(&llm("b", models), "large: y", "products[2].models.large", "already sold on line 30");
    another(&llm("b", models), "large: y", "products[2].models.large", "`large-2: <the seller's name>`");
    let at = "products[2].path";
    let same = http("    host: api.EXAMPLE.com\n    path: /weather # 2");
    another(&same, "/weather # 2", at, "already has the same calls (api.example.com/weather)");
    another(&http("    path: /v1 # 2"), "path: /v1 # 2", at, "overlaps `/v1`");
    another(&http("    path: /v1/infers/x"), "path: /v1/infers/x", at, "give this product a `host`");
    another(&http("    path: /v1/weather"), "path: /v1/weather", at, "overlaps `/v1`");
    another(&http("    path: / # all"), "path: / # all", at, "overlaps `/v1`");
    another(&http(""), "- id: other", "products[2]", "needs `host`, `path` or both");
}

#[test]
fn sellers() {
    let at = "products[0].upstream.base_url";
    let from = "base_url: https://seller.example.com:444/base/";
    value(from, "seller.example.com", at, "does not begin with `http://`");
    value(from, "ftp://seller", at, "does not begin with `http://`");
    value(from, "https://seller?key=1", at, "no query");
    value(from, "\"https://seller/#a\"", at, "fragment");
    value(from, "https://me:pw@seller", at, "use `api_key` or `headers`");
    value(from, "https://seller:0", at, "port 0");
    value(from, "https://seller:99999", at, "no port from 1 to 65535");
    value(from, "https://", at, "not a URL");
    value(from, "https://:443", at, "not a host");
    value(from, "https://seller//base", at, "two slashes");
    value(from, "\"\"", at, "does not begin with");
    let at = "products[0].upstream.headers[\"x y\"]";
    check("x-tenant: abc", "x y: abc", "x y: abc", at, "not the name of a header");
    for name in ["connection", "Transfer-Encoding", "content-length", "host", "te", "upgrade", "keep-alive"] {
        let (line, path) = (format!("{name}: abc"), format!("products[0].upstream.headers.{name}"));
        check("x-tenant: abc", &line, &line, &path, "is set by the gateway");
    }
    let at = "products[0].upstream.headers";
    check("x-tenant: abc", "x-tollgate-a: b", "x-tollgate-a", &format!("{at}.x-tollgate-a"), "by the gateway alone");
    check("x-tenant: abc", "Authorization: b", "Authorization", &format!("{at}.Authorization"), "already sets");
    value("x-tenant: abc", "\"\"", &format!("{at}.x-tenant"), "the secret is empty");
    value("x-tenant: abc", "\"a\\nb\"", &format!("{at}.x-tenant"), "not a header's value");
    value("x-tenant: abc", "\" a\"", &format!("{at}.x-tenant"), "not a header's value");
    check("x-tenant: abc", "x-a: b\n        X-A: c", "x-a: b", &format!("{at}.x-a"), "given twice");
    value("idle_connections: 8", "0", "products[0].upstream.idle_connections", "from 1 to 65536");
    check(
        "idle_connections: 8",
        "ca_file: gone.pem",
        "ca_file",
        "products[0].upstream.ca_file",
        "gone.pem cannot be read",
    );
    value("connect: 1s", "0s", "products[0].timeouts.connect", "no time at all");
    value("head: 2s", "5s", "products[0].timeouts.head", "at most `total`");
    value("idle: 3s", "fast", "products[0].timeouts.idle", "not a duration");
    check("total: 4s", "total: 1999ms", "head: 2s", "products[0].timeouts.head", "only 1.999s");
    let http = "base_url: http://seller\n      ca_file: ca.pem";
    let from = "base_url: https://seller.example.com:444/base/";
    check(from, http, "ca_file", "products[0].upstream.ca_file", "only an https seller has a certificate");
}

#[test]
fn offers() {
    value("id: chat-100", "\"chat 100\"", "offers[0].id", "1 to 64 characters");
    value("product: chat", "chta", "offers[0].product", "there is no product `chta` (did you mean `chat`?)");
    value("product: chat", "x", "offers[0].product", "write one of `chat`, `weather`");
    value("product: chat", "weather", "offers[0].product", "nothing of it can be sold");
    value("kind: per_call", "per_token", "offers[0].kind", "write one of `per_call`");
    value("    calls: 100\n", "0", "offers[0].calls", "from 1 to 1000000000000");
    value("    calls: 100\n", "1000000000001", "offers[0].calls", "out of range");
    value("    calls: 100\n", "1e3", "offers[0].calls", "not a whole number");
    value("validity: 30 days", "1m", "offers[0].validity", "minutes or months");
    value("validity: 30 days", "0d", "offers[0].validity", "not between 1 day and 100 years");
    value("validity: 30 days", "forever", "offers[0].validity", "not a validity");
    value("price: 49.90 CNY", "49.90", "offers[0].price", "an amount, a space and the currency");
    value("price: 49.90 CNY", "-1 CNY", "offers[0].price", "not an amount of money");
    value("price: 49.90 CNY", "49.90 yuan", "offers[0].price", "three capital letters");
    value("time_zone: Asia/Shanghai", "Asia/Shanghia", "offers[0].time_zone", "did you mean `Asia/Shanghai`?");
    value("time_zone: Asia/Shanghai", "+08:00", "offers[0].time_zone", "not a time zone");
    let rules = "      - statuses: any\n      - from: 2025-07-16T00:00:00+08:00\n        statuses: success\n";
    let billable = |to: &str, path: &str, words: &str| {
        let from = format!("    billable:\n{rules}");
        check(&from, &format!("    billable: {to}\n"), "billable:", path, words);
    };
    billable("[{ statuses: 2xx }]", "offers[0].billable[0].statuses", "write one of `any`, `success`");
    billable("[{ statuses: sucess }]", "offers[0].billable[0].statuses", "did you mean `success`?");
    billable("[{ from: 2025-07-16T00:00:00Z }]", "offers[0].billable[0].statuses", "`statuses` is missing");
    billable("[{ from: 2025-07-16, statuses: any }]", "offers[0].billable[0].from", "date, time and offset");
    billable("[{ statuses: any }, { statuses: any }]", "offers[0].billable[1]", "two rules begin at the same moment");
    billable("[]", "offers[0].billable", "no rule; write one");
    billable("[any]", "offers[0].billable[0]", "found a single value");
    let again = "  - { id: chat-100, product: chat, kind: per_call, calls: 1, validity: 1d }\n";
    check("offers:\n", &format!("offers:\n{again}"), "- id: chat-100", "offers[1].id", "already on line");
}

#[test]
fn aliases_may_repeat_a_value_but_not_blow_up() {
    let shared = BASE.replace("connect: 1s", "connect: &t 1s").replace("idle: 3s", "idle: *t");
    let config = parsed(&shared).unwrap();
    let timeouts = config.catalog.products[&ProductId::new("chat").unwrap()].timeouts;
    assert_eq!((timeouts.connect, timeouts.idle), (Duration::from_secs(1), Duration::from_secs(1)));

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let problems = parsed(&bomb).unwrap_err().to_string();
    assert!(problems.contains("more than 200000 values, aliases expanded"), "{problems}");
}

#[test]
fn a_value_never_changes_the_structure() {
    let env = |name: &str| (name == "X").then(|| "a\nadmin: { token: stolen }\n# {[\"'".to_owned());
    let text = BASE.replace("x-tenant: abc", "x-tenant: \"${X}\"");
    let problems = parse(&text, Path::new("t.yaml"), &env).unwrap_err();
    assert_eq!(problems.iter().count(), 1, "{problems}");
    assert!(problems.to_string().contains("not a header's value"), "{problems}");
    let number = |name: &str| (name == "N").then(|| "7".to_owned());
    let text = BASE.replace("workers: 2", "workers: ${N}");
    assert_eq!(parse(&text, Path::new("t.yaml"), &number).unwrap().workers, 7);
}

#[test]
fn the_store() {
    let urls = "urls: [rediss://s-1.example.com/2, \"rediss://[::1]:26380/2\"]";
    value(urls, "[]", "store.redis.urls", "0 URLs; write 1 to 64");
    check(urls, "", "sentinel:", "store.redis.url", "the key `url` is missing");
    let both = format!("{urls}\n    url: redis://x");
    check(urls, &both, "urls:", "store.redis.urls", "keep one of them");
    let at = "store.redis.urls[1]";
    value(urls, "[rediss://a/2, redis://b/2]", at, "not the scheme or database of the first");
    value(urls, "[redis://a/2, redis://b/3]", at, "not the scheme or database of the first");
    value(urls, "[redis://a, unix:/run/x.sock]", at, "reached from this machine alone");
    value(urls, "[redis://a, a:1]", at, "no address of a server");
    check(
        "    durable: true",
        "    cluster: true\n    durable: true",
        "cluster:",
        "store.redis.cluster",
        "no Sentinels",
    );
    check("    durable: true", "    tls: { ca_file: x }", "tls:", "store.redis.tls.ca_file", "cannot be read");
    check("    durable: true", "    tls: { client_key: x }", "tls:", "store.redis.tls.client_key", "set both");
    value("prefix: shop-1", "\"a:b\"", "store.redis.prefix", "no prefix");
    value("prefix: shop-1", "\"{a}\"", "store.redis.prefix", "no prefix");
    value("timeout: 300ms", "9ms", "store.redis.timeout", "at least `10ms`");
    value("timeout: 300ms", "11s", "store.redis.timeout", "at most `10s`");
    value("username: tollgate", "\"\"", "store.redis.username", "not the name of a user");
    value("password: hunter2", "\" \"", "store.redis.password", "the secret is empty");
    check("    password: hunter2\n", "", "username: tollgate", "store.redis.username", "a user without a password");
    value("master: books", "\"my master\"", "store.redis.sentinel.master", "not the name of a master");
    check("      master: books\n", "", "username: watcher", "store.redis.sentinel.master", "is missing");
}

/// One file without Sentinels, with other keys of `redis` instead.
fn redis(keys: &str) -> Result<Store, String> {
    let (before, rest) = BASE.split_once("    urls:").unwrap();
    let (_, after) = rest.split_once("    prefix:").unwrap();
    let text = format!("{before}    {keys}\n    prefix:{after}");
    parsed(&text).map(|config| config.store).map_err(|problems| problems.to_string())
}

#[test]
fn the_store_without_sentinels() {
    let servers = |keys: &str| match redis(keys) {
        Ok(Store::Redis(redis)) => Ok(redis.servers),
        Ok(Store::Embedded) => Err("embedded".to_owned()),
        Err(problems) => Err(problems),
    };
    let node = |host: &str, port| HostPort { host: host.to_owned(), port };
    assert_eq!(servers("url: redis://r"), Ok(RedisServers::One(RedisAddress::Network(node("r", 6379)))));
    assert_eq!(servers("urls: [redis://r:1/7]"), Ok(RedisServers::One(RedisAddress::Network(node("r", 1)))));
    let socket = RedisServers::One(RedisAddress::Socket("/run/r.sock".into()));
    assert_eq!(servers("url: unix:/run/r.sock"), Ok(socket));
    let cluster = RedisServers::Cluster(vec![node("a", 6379), node("b", 7000)]);
    assert_eq!(servers("urls: [redis://a, redis://b:7000]\n    cluster: true"), Ok(cluster));
    for (keys, words) in [
        ("urls: [redis://a, redis://b]", "neither `cluster: true` nor `sentinel`"),
        ("url: redis://a/1\n    cluster: true", "database 0 alone"),
        ("url: redis://a\n    tls: { ca_file: x }", "certificates are for TLS"),
    ] {
        let problems = servers(keys).unwrap_err();
        assert!(problems.contains(words), "{keys}: {problems}");
    }
}

#[test]
fn the_embedded_store() {
    let config = |store: &str| {
        let (before, _) = BASE.split_once("store:").unwrap();
        parsed(&format!("{before}{store}")).map_err(|problems| problems.to_string())
    };
    for embedded in ["", "store: {}\n", "store: { volatile: false }\n"] {
        assert_eq!(config(embedded).map(|config| config.store), Ok(Store::Embedded), "{embedded}");
    }
    assert!(config("store: { volatile: true }\n").unwrap_err().contains("only a server can be volatile"));
}
