//! TLS of both listeners: certificates by name and by change, clients' certificates, handshakes that fail, and calls with
//! every form of an AppCode over it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::admin::Admin;
use crate::harness::client::{Client, Request};
use crate::harness::process::{Gateway, run};
use crate::harness::seller::{Reply, SSE_HEAD, Seller, Step};
use crate::harness::tls::{Files, connect, tunnel};
use crate::harness::wire::{End, Wire};
use crate::harness::world::{World, base_config, product};
use crate::harness::{until, within};

/// A world whose data listener shows the certificate of `localhost`, and whose clients go through TLS.
async fn world_over_tls(seller: &Seller, more: impl FnOnce(&mut Value)) -> (World, Files) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(&dir.path().join("pki"), "localhost");
    let mut config = base_config(seller.address);
    config["listeners"]["data"] =
        json!({ "address": "127.0.0.1:0", "tls": { "certificates": Files::listed(&[&files]) } });
    more(&mut config);
    let world = World::on(dir, config).await;
    (world, files)
}

/// The first certificate that a server shows.
async fn shown(to: std::net::SocketAddr, client: &Arc<rustls::ClientConfig>, name: &str) -> Vec<u8> {
    let stream = connect(to, client, name).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn certificate(files: &Files) -> Vec<u8> {
    CertificateDer::from_pem_file(files.0.join("server.pem")).unwrap().to_vec()
}

#[tokio::test]
async fn calls_go_over_tls_and_every_form_of_an_app_code_with_them() {
    let seller = Seller::plain().await;
    let (mut world, files) = world_over_tls(&seller, |config| {
        let api = product(config, "api");
        api["accept"] = json!(["signature", "app_code", "api_key"]);
        api["app_code_query"] = json!("AppCode");
    })
    .await;
    let listener = world.data;
    world.data = tunnel(listener, Arc::new(files.client()), "localhost").await;
    let buyer = world.buyer(&["api-50", "chat-5"]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    for request in [
        Request::get("/api/x").field("X-Apig-AppCode", &code),
        Request::get("/api/x").field("Authorization", &format!("APPCODE {code}")),
        Request::get(&format!("/api/x?AppCode={code}")),
        Request::get("/api/x").bearer(&buyer.key),
        signer.sign(Request::post("/api/x").json("{}")),
        Request::chat(&buyer.key),
    ] {
        world.call(&request).await.expect(200);
    }
    let mut client = world.client().await;
    client.call(&Request::chat(&buyer.key)).await.expect(200);
    client.call(&Request::chat(&buyer.key)).await.expect(200);
    world.settles(&buyer.account, 8).await;
    // The gate stands behind TLS as it does without.
    client.send("GET /api/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n").await;
    client.answer("GET").await.expect(400);
    assert_eq!(client.ends().await, End::Eof);
    assert_eq!(seller.requests().len(), 8);

    let metrics = world.admin.metrics().await;
    let shaken = |labels: &[(&str, &str)]| metrics.sum("tollgate_tls_handshakes_total", labels);
    assert_eq!(shaken(&[("listener", "data"), ("version", "1.3")]), 7.0);
    assert!(shaken(&[("resumed", "yes")]) >= 1.0, "the second connection brings a ticket");
    assert!(metrics.sum("tollgate_tls_certificate_not_after_seconds", &[("listener", "data")]) > 1.7e9);
}

#[tokio::test]
async fn versions_below_1_2_are_not_spoken_and_1_2_is() {
    let seller = Seller::plain().await;
    let (mut world, files) = world_over_tls(&seller, |_| {}).await;
    let buyer = world.buyer(&["chat-5"]).await;
    let listener = world.data;
    let older = files.client_with(&[&rustls::version::TLS12], None);
    world.data = tunnel(listener, Arc::new(older), "localhost").await;
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    // Its sessions are resumed as the newer version's are.
    world.call(&Request::chat(&buyer.key)).await.expect(200);
    let metrics = world.admin.metrics().await;
    assert_eq!(metrics.sum("tollgate_tls_handshakes_total", &[("version", "1.2"), ("resumed", "yes")]), 1.0);
    // A hello of TLS 1.1 that offers what servers of its day took.
    let mut hello = vec![22, 3, 1, 0, 49, 1, 0, 0, 45, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0x00, 0x2f, 0xc0, 0x13, 1, 0, 0, 0]);
    let mut wire = Wire::connect(listener).await.unwrap();
    wire.send(&hello).await.unwrap();
    let alert = within("an alert", wire.some()).await.unwrap();
    assert_eq!(alert[0], 21, "{alert:?}");
    let refused = async || {
        let metrics = world.admin.metrics().await;
        (metrics.sum("tollgate_tls_handshake_failures_total", &[("reason", "refused")]) == 1.0).then_some(())
    };
    until("the failure is counted", refused).await;
}

#[tokio::test]
async fn what_is_no_tls_is_told_so_and_what_is_slow_is_closed() {
    let seller = Seller::plain().await;
    let (world, _) = world_over_tls(&seller, |config| config["limits"]["head_timeout"] = json!("1s")).await;
    let mut plain = Client::connect(world.data).await;
    // Some of the head's time has gone by: what remains is less than the answer is waited for.
    for _ in 0..8 {
        world.admin.metrics().await;
    }
    plain.send("GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = plain.answer("GET").await.expect(400);
    assert_eq!(answer.text(), "this port speaks TLS; write https:// instead");
    assert_eq!(plain.ends().await, End::Eof);
    let mut silent = Wire::connect(world.data).await.unwrap();
    let mut half = Wire::connect(world.data).await.unwrap();
    half.send(&[22, 3, 1, 0, 200, 1, 0, 0]).await.unwrap();
    silent.ends_silently().await;
    half.ends_silently().await;
    drop(Wire::connect(world.data).await.unwrap());
    let failures = async || {
        let metrics = world.admin.metrics().await;
        let failed = |reason| metrics.sum("tollgate_tls_handshake_failures_total", &[("reason", reason)]);
        ((failed("not_tls"), failed("timeout"), failed("gone")) == (1.0, 2.0, 1.0)).then_some(())
    };
    until("the failures are counted", failures).await;
}

#[tokio::test]
async fn the_certificate_follows_the_name_and_the_first_stands_for_others() {
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let (first, second) =
        (Files::make(&dir.path().join("1"), "a.test"), Files::make(&dir.path().join("2"), "*.b.test"));
    let mut config = base_config(seller.address);
    let certificates = Files::listed(&[&first, &second]);
    config["listeners"]["data"] = json!({ "address": "127.0.0.1:0", "tls": { "certificates": certificates } });
    let world = World::on(dir, config).await;
    let trusts = |files: &Files| Arc::new(files.client());
    assert_eq!(shown(world.data, &trusts(&first), "a.test").await, certificate(&first));
    assert_eq!(shown(world.data, &trusts(&second), "x.b.test").await, certificate(&second));
    for other in ["c.test", "b.test", "127.0.0.1"] {
        let refused = connect(world.data, &trusts(&second), other).await.unwrap_err().to_string();
        assert!(refused.contains("invalid peer certificate"), "{other} is shown the first: {refused}");
    }
}

fn replace(files: &Files, name: &str, by: &[u8]) {
    let part = files.0.join("part");
    std::fs::write(&part, by).unwrap();
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(part, files.0.join(name)).unwrap();
}

#[tokio::test]
async fn certificates_are_taken_over_when_their_files_change_and_bad_ones_are_not() {
    let seller = Seller::plain().await;
    let (world, files) = world_over_tls(&seller, |_| {}).await;
    let next = Files::make(&world.dir.path().join("next"), "localhost");
    let (old, new) = (Arc::new(files.client()), Arc::new(next.client()));
    let before = shown(world.data, &old, "localhost").await;
    // Half of the change: the key is another certificate's.
    replace(&files, "server.pem", &std::fs::read(next.0.join("server.pem")).unwrap());
    world.gateway.says("is not the key of the certificate in").await;
    assert_eq!(shown(world.data, &old, "localhost").await, before);
    assert_eq!(world.admin.metrics().await.sum("tollgate_tls_reload_success", &[]), 0.0);
    // The other half.
    replace(&files, "server.key", &std::fs::read(next.0.join("server.key")).unwrap());
    world.gateway.says("new certificates were taken over").await;
    assert_eq!(shown(world.data, &new, "localhost").await, certificate(&next));
    let told = world.gateway.said().iter().filter(|line| line.contains("is not the key")).count();
    assert_eq!(told, 1, "once for each change");
    // At SIGHUP, without waiting.
    replace(&files, "server.pem", b"nothing");
    world.gateway.signal(Signal::HUP);
    world.gateway.says("holds no certificate").await;
    assert_eq!(shown(world.data, &new, "localhost").await, certificate(&next));
    // The rest of the configuration does not wait for them.
    world.gateway.says("the configuration was taken over").await;
}

#[tokio::test]
async fn the_admin_listener_asks_for_certificates_beside_the_token() {
    let seller = Seller::plain().await;
    let dir = tempfile::tempdir().unwrap();
    let (files, other) = (Files::make(&dir.path().join("1"), "localhost"), Files::make(&dir.path().join("2"), "x"));
    let mut config = base_config(seller.address);
    let tls = json!({ "certificates": Files::listed(&[&files]), "client_ca_file": files.0.join("ca.pem") });
    config["listeners"]["admin"] = json!({ "address": "127.0.0.1:0", "tls": tls });
    let path = dir.path().join("tollgate.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut gateway = Gateway::serve(&path);
    let (_, listener) = gateway.listening().await;
    let client = Arc::new(files.client_with(rustls::ALL_VERSIONS, Some(&files)));
    let admin = Admin { address: tunnel(listener, client, "localhost").await };
    assert_eq!(admin.get("/livez").await.status(), 200);
    let buyer = admin.buyer(&["chat-5"]).await;
    assert_eq!(admin.packages(&buyer.account).await.len(), 1);
    for wrong in [files.client(), files.client_with(rustls::ALL_VERSIONS, Some(&other))] {
        // With TLS 1.3 a client learns of it when it reads.
        let ended = match connect(listener, &Arc::new(wrong), "localhost").await {
            Err(error) => error,
            Ok(mut stream) => {
                let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
                within("the connection ends", stream.read_to_end(&mut Vec::new())).await.unwrap_err()
            }
        };
        assert!(ended.to_string().contains("alert"), "{ended}");
    }
    // Commands show theirs as well.
    let (url, token) = (format!("https://localhost:{}", listener.port()), dir.path().join("token"));
    std::fs::write(&token, crate::harness::admin::TOKEN).unwrap();
    let at = |name: &str| files.0.join(name).to_str().unwrap().to_owned();
    let (ca, shown, key) = (at("ca.pem"), at("client.pem"), at("client.key"));
    let tls = ["--admin", &url, "--admin-ca-file", &ca, "--admin-cert-file", &shown, "--admin-key-file", &key];
    let list = ["accounts", "list", "--admin-token-file", token.to_str().unwrap()];
    let (code, out, said) = run(&[&list[..], &tls].concat());
    assert!(code == Some(0) && out.contains(&buyer.account), "{out}{said}");
    let (code, out, said) = run(&[&["health"][..], &tls[..4]].concat());
    assert_eq!(code, Some(69), "without a certificate: {out}{said}");
    let (code, _, said) = run(&[&["health"][..], &tls[..6]].concat());
    assert!(code == Some(78) && said.contains("belong together"), "{said}");
    // The token is asked for all the same.
    let client = Arc::new(files.client_with(rustls::ALL_VERSIONS, Some(&files)));
    let mut bare = Client::connect(tunnel(listener, client, "localhost").await).await;
    bare.call(&Request::get("/admin/v1/accounts")).await.expect(401);
}

#[tokio::test]
async fn a_stream_over_tls_arrives_event_by_event_and_its_reader_may_hang_up() {
    let seller = Seller::by_hand().await;
    let (mut world, files) = world_over_tls(&seller, |_| {}).await;
    world.data = tunnel(world.data, Arc::new(files.client()), "localhost").await;
    let buyer = world.buyer(&["chat-5"]).await;
    let mut client = world.client().await;
    client.send(Request::stream(&buyer.key).bytes()).await;
    let mut exchange = seller.next().await;
    exchange.send(SSE_HEAD).await;
    client.head().await;
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        exchange.send(crate::harness::seller::chunk(event)).await;
        assert_eq!(client.chunked(event.len()).await, event.as_bytes());
    }
    drop(client);
    exchange.gateway_ends().await;
    world.charged(1).await;
}

/// More than all buffers on the way hold.
const FLOOD_BYTES: usize = 16 << 20;

#[tokio::test]
async fn a_slow_reader_over_tls_holds_little() {
    let reply = Reply::bytes(format!("HTTP/1.1 200 OK\r\ncontent-length: {FLOOD_BYTES}\r\n\r\n"));
    let seller = Seller::always(reply.then(Step::Send(vec![b'x'; FLOOD_BYTES]))).await;
    let (world, files) = world_over_tls(&seller, |_| {}).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let client = Arc::new(files.client());
    let mut readers = Vec::new();
    let before = world.gateway.resident_bytes();
    for _ in 0..16 {
        let mut stream = connect(world.data, &client, "localhost").await.unwrap();
        stream.write_all(&Request::chat(&buyer.key).bytes()).await.unwrap();
        stream.read_exact(&mut [0; 16]).await.unwrap();
        readers.push(stream);
    }
    let steady = async || {
        let (now, received) = (world.gateway.resident_bytes(), seller.requests().len());
        (received == 16).then_some(now)
    };
    let held = until("all answers have begun", steady).await.saturating_sub(before);
    assert!(held < 16 * 256 * 1024 + (4 << 20), "{held} bytes for 16 readers");
    let mut whole = Vec::new();
    within("the rest of an answer", readers[0].read_buf(&mut whole)).await.unwrap();
    drop(readers);
    world.quiet().await;
}

/// Puts a folder's first certificate into a configuration, and checks it.
fn check(dir: &Path, config: &Value) -> String {
    let path = dir.join("tollgate.yaml");
    std::fs::write(&path, format!("{config:#}")).unwrap();
    let (code, out, said) = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(if said.is_empty() { 0 } else { 78 }), "{out}{said}");
    said
}

fn expired(files: &Files) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 2, 3));
    replace(files, "server.pem", params.self_signed(&key).unwrap().pem().as_bytes());
    replace(files, "server.key", key.serialize_pem().as_bytes());
}

#[test]
fn what_is_wrong_with_certificates_is_said_with_file_and_line() {
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    type Spoil = fn(&Files, &mut Value);
    let cases: [(Spoil, &str, &str); 9] = [
        (|_, _| {}, "", ""),
        (|files, _| expired(files), "certificates[0].cert_file", "expired at 2021-02-03T00:00:00Z"),
        (|files, _| replace(files, "server.pem", b"x"), "certificates[0].cert_file", "holds no certificate"),
        (|files, _| replace(files, "server.key", b"x"), "certificates[0].key_file", "holds no private key"),
        (
            |files, _| replace(files, "server.key", &std::fs::read(files.0.join("client.key")).unwrap()),
            "certificates[0].key_file",
            "is not the key of the certificate in",
        ),
        (
            |files, _| {
                let mode = std::fs::Permissions::from_mode(0o640);
                std::fs::set_permissions(files.0.join("server.key"), mode).unwrap();
            },
            "certificates[0].key_file",
            "run `chmod 600",
        ),
        (
            |files, _| std::fs::remove_file(files.0.join("server.pem")).unwrap(),
            "certificates[0].cert_file",
            "cannot be read",
        ),
        (|_, tls| tls["certificates"] = json!([]), "tls.certificates", "0 certificates"),
        (|_, tls| tls["client_ca_file"] = json!("server.pem"), "tls.client_ca_file", "unknown key"),
    ];
    for (spoil, place, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::make(&dir.path().join("pki"), "localhost");
        let mut config = base_config(nowhere);
        let mut tls = json!({ "certificates": Files::listed(&[&files]) });
        spoil(&files, &mut tls);
        config["listeners"]["data"] = json!({ "address": "127.0.0.1:0", "tls": tls });
        let said = check(dir.path(), &config);
        assert!(said.contains(&format!("{place}: ")) || place.is_empty(), "{place}: {said}");
        assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{words}: {said}");
        assert!(words.is_empty() || said.contains("tollgate.yaml:"), "{said}");
    }
    let again = tempfile::tempdir().unwrap();
    Files::make(again.path(), "localhost");
    let (code, _, said) = run(&["dev-certificate", again.path().to_str().unwrap()]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("is there already"), "{said}");
}
