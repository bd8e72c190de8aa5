//! From where keys and apps are accepted.

use serde_json::{Value, json};

use crate::harness::client::{Answer, Request};
use crate::harness::process::run;
use crate::harness::seller::Seller;
use crate::harness::until;
use crate::harness::world::{World, product};

/// A gateway that takes the tests' own address for a trusted proxy's: calls come from wherever their header says.
async fn world(seller: &Seller) -> World {
    World::with(seller.address, |config| {
        config["proxies"] = json!({ "trusted": ["127.0.0.1"] });
        config["credentials"] = json!({ "allow_app_code_without_tls": true });
        product(config, "api")["accept"] = json!(["signature", "app_code"]);
    })
    .await
}

async fn from(world: &World, address: &str, request: &Request) -> Answer {
    world.call(&request.clone().field("X-Forwarded-For", address)).await
}

/// Waits for the status, which must come within a second.
async fn becomes(world: &World, address: &str, request: &Request, status: u16) {
    let asked = std::time::Instant::now();
    let probe = async || (from(world, address, request).await.status() == status).then_some(());
    until(&format!("calls from {address} get {status}"), probe).await;
    assert!(asked.elapsed() <= std::time::Duration::from_secs(1), "{:?}; a second is promised", asked.elapsed());
}

fn refused(answer: Answer, address: &str) {
    let answer = answer.expect(403);
    assert_eq!(answer.head.get("x-tollgate-error-code"), Some("address_not_allowed"));
    assert!(answer.message().contains(address), "{}", answer.message());
}

#[tokio::test]
async fn a_key_is_accepted_from_its_networks_alone() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let networks = json!({ "networks": ["192.0.2.0/24", "2001:db8::/32"] });
    let (id, key) = world.admin.add_key(&buyer.account, &networks).await;
    let chat = Request::chat(&key);
    for inside in ["192.0.2.0", "192.0.2.255", "2001:db8::1", "::ffff:192.0.2.7"] {
        from(&world, inside, &chat).await.expect(200);
    }
    for outside in ["192.0.3.0", "2001:db9::1", "::1", "10.0.0.1"] {
        refused(from(&world, outside, &chat).await, outside);
    }
    refused(from(&world, "::ffff:198.51.100.7", &chat).await, "from 198.51.100.7;");
    // What is asked besides calls is no exception.
    let models = Request::get("/v1/models").bearer(&key);
    from(&world, "192.0.2.1", &models).await.expect(200);
    refused(from(&world, "198.51.100.7", &models).await, "198.51.100.7");
    refused(
        from(&world, "198.51.100.7", &Request::get("/.well-known/tollgate/receipts/x").bearer(&key)).await,
        "198.51",
    );
    assert_eq!(seller.requests().len(), 4);
    world.settles(&buyer.account, 4).await;

    let path = format!("/admin/v1/accounts/{}/keys/{id}", buyer.account);
    let shown =
        world.admin.call("PATCH", &path, Some(&json!({ "networks": ["198.51.100.7"] }))).await.expect(200).json();
    assert_eq!(shown["networks"], json!(["198.51.100.7"]));
    becomes(&world, "198.51.100.7", &chat, 200).await;
    refused(from(&world, "192.0.2.1", &chat).await, "192.0.2.1");
    world.admin.call("PATCH", &path, Some(&json!({ "networks": [] }))).await.expect(200);
    becomes(&world, "198.51.100.7", &chat, 403).await;
    world.admin.call("PATCH", &path, Some(&json!({ "networks": null }))).await.expect(200);
    becomes(&world, "203.0.113.9", &chat, 200).await;
    let listed = world.admin.get(&format!("/admin/v1/accounts/{}/keys", buyer.account)).await.expect(200).text();
    assert!(!listed.contains("networks"), "{listed}");
}

#[tokio::test]
async fn an_app_is_accepted_from_its_networks_alone() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["api-50"]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    let coded = Request::get("/api/x").field("X-Apig-AppCode", &code);
    let path = format!("/admin/v1/accounts/{}/apps/{app}/networks", buyer.account);
    let allow = async |networks: Value| world.admin.call("PUT", &path, Some(&json!({ "networks": networks }))).await;
    let shown = allow(json!(["192.0.2.0/24"])).await.expect(200).json();
    assert_eq!(shown["networks"], json!(["192.0.2.0/24"]));
    becomes(&world, "198.51.100.7", &coded, 403).await;
    from(&world, "192.0.2.7", &coded).await.expect(200);
    from(&world, "192.0.2.7", &signer.sign(Request::get("/api/x"))).await.expect(200);
    refused(from(&world, "198.51.100.7", &signer.sign(Request::get("/api/x"))).await, "198.51.100.7");
    // Whoever cannot sign is told nothing of the app's networks.
    let forged = Request::get("/api/x");
    let forged = crate::harness::signer::Signer { secret: "0123456789abcdef0123".into(), ..signer }.sign(forged);
    from(&world, "198.51.100.7", &forged).await.expect(401);
    allow(Value::Null).await.expect(200);
    becomes(&world, "198.51.100.7", &coded, 200).await;
    for bad in [
        json!({}),
        json!({ "networks": ["10.0.0.1/8"] }),
        json!({ "networks": ["host"] }),
        json!({ "networks": "::1" }),
    ] {
        world.admin.call("PUT", &path, Some(&bad)).await.expect(422);
    }
    let many: Vec<String> = (0..101).map(|number| format!("10.0.0.{number}")).collect();
    let answer = allow(json!(many)).await.expect(422);
    assert!(answer.text().contains("at most 100"), "{}", answer.text());
}

#[tokio::test]
async fn networks_are_set_on_the_command_line() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["chat-50"]).await;
    let token = world.dir.path().join("token");
    std::fs::write(&token, crate::harness::admin::TOKEN).unwrap();
    let (admin, token) = (format!("http://{}", world.admin.address), token.to_str().unwrap().to_owned());
    let tollgate = |arguments: &[&str]| {
        let (code, out, said) = run(&[arguments, &["--admin", &admin, "--admin-token-file", &token]].concat());
        (code, out + &said)
    };
    let account = buyer.account.as_str();
    let change = ["keys", "change", account, &buyer.key_id, "--network", "192.0.2.7", "--network", "2001:db8::/32"];
    let (code, said) = tollgate(&change);
    assert!(code == Some(0) && said.contains("192.0.2.7,2001:db8::/32"), "{said}");
    becomes(&world, "198.51.100.7", &Request::chat(&buyer.key), 403).await;
    let (code, said) = tollgate(&["keys", "change", account, &buyer.key_id, "--all-networks"]);
    assert_eq!(code, Some(0), "{said}");
    becomes(&world, "198.51.100.7", &Request::chat(&buyer.key), 200).await;
    let (code, said) = tollgate(&["keys", "change", account, &buyer.key_id, "--network", "192.0.2.7/24"]);
    assert!(code == Some(64) && said.contains("write `192.0.2.0/24`"), "{code:?} {said}");
    let (app, _) = world.admin.add_app(account, &["api"]).await;
    let (code, said) = tollgate(&["apps", "networks", account, &app, "--network", "10.0.0.0/8"]);
    assert!(code == Some(0) && said.contains("10.0.0.0/8"), "{said}");
    let (code, said) = tollgate(&["apps", "networks", account, &app, "--all-networks"]);
    assert!(code == Some(0) && !said.contains("10.0.0.0/8"), "{said}");
    assert_eq!(tollgate(&["apps", "networks", account, &app]).0, Some(64));
}
