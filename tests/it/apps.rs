//! Apps at the admin API and on the command line: made, bought, bounded, and kept so that a look at the disk opens
//! nothing.

use serde_json::json;

use crate::harness::admin::text;
use crate::harness::client::Request;
use crate::harness::process::run;
use crate::harness::seller::Seller;
use crate::harness::signer::Signer;
use crate::harness::world::World;
use crate::keys::files_with;

#[tokio::test]
async fn the_first_purchase_of_an_http_product_makes_the_marketplaces_app_and_others_bind_to_it() {
    let seller = Seller::plain().await;
    let mut world = World::with(seller.address, |config| {
        let mut second = crate::harness::world::product(config, "api").clone();
        (second["id"], second["path"]) = (json!("second"), json!("/second"));
        config["products"].as_array_mut().unwrap().push(second);
        let offer = json!({ "id": "second-5", "product": "second", "kind": "per_call", "calls": 5, "validity": "1y" });
        config["offers"].as_array_mut().unwrap().push(offer);
    })
    .await;
    let account = world.admin.open_account("buyer").await;
    let apps = format!("/admin/v1/accounts/{account}/apps");
    let listed = async |world: &World| world.admin.get(&apps).await.expect(200).json()["apps"].clone();
    world.admin.add_package(&account, "chat-5").await;
    assert_eq!(listed(&world).await, json!([]), "an LLM product is called by keys");
    world.admin.add_package(&account, "api-5").await;
    world.admin.add_package(&account, "api-5").await;
    world.admin.add_package(&account, "second-5").await;
    let list = listed(&world).await;
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!((&list[0]["name"], &list[0]["products"]), (&json!("MARKETPLACE_APP"), &json!(["api", "second"])));
    assert_eq!(list[0]["codes"], json!([]), "AppCodes are added by hand");
    let id = text(&list[0], "id");
    let shown = world.admin.get(&format!("{apps}/{id}/secret")).await.expect(200).json();
    let signer = Signer { app_key: text(&shown, "app_key"), secret: text(&shown, "app_secret") };
    for target in ["/api/x", "/second/x"] {
        world.call(&signer.sign(Request::get(target))).await.expect(200);
    }
    let said = world.gateway.said().join("\n");
    assert!(said.contains("showAppSecret") && said.contains(&id), "the look-up is noted: {said}");
    assert!(!said.contains(&signer.secret));
    world.crash().await;
    world.call(&signer.sign(Request::get("/api/x"))).await.expect(200);
    let reserved = world.admin.call("POST", &apps, Some(&json!({ "name": "MARKETPLACE_APP" }))).await;
    reserved.expect(422);
    // Nothing on the disk and nothing that was said opens anything.
    assert_eq!(world.stop().await.code, Some(0));
    assert_eq!(files_with(world.dir.path(), &signer.secret), Vec::<String>::new());
    assert!(!world.gateway.said().join("\n").contains(&signer.secret));
}

#[tokio::test]
async fn an_app_takes_what_clients_have_already_and_refuses_what_is_too_short() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5"]).await;
    let apps = format!("/admin/v1/accounts/{}/apps", buyer.account);
    let brought =
        json!({ "name": "old", "app_key": "an-old-app-key", "app_secret": "an-old-app-secret", "products": ["api"] });
    let signer = Signer { app_key: "an-old-app-key".into(), secret: "an-old-app-secret".into() };
    world.call(&signer.sign(Request::get("/api/x"))).await.expect(401);
    let made = world.admin.make(&apps, &brought).await;
    // That nobody had it is forgotten at once.
    world.call(&signer.sign(Request::get("/api/x"))).await.expect(200);
    let other = world.admin.open_account("other").await;
    for account in [&buyer.account, &other] {
        let taken = world.admin.call("POST", &format!("/admin/v1/accounts/{account}/apps"), Some(&brought)).await;
        assert_eq!(taken.expect(409).json()["error"]["code"], "credential_taken");
    }
    for bad in [
        json!({ "name": "" }),
        json!({ "name": "a", "app_key": "short" }),
        json!({ "name": "a", "app_key": "with,comma" }),
        json!({ "name": "a", "app_secret": "" }),
        json!({ "name": "a", "app_secret": "fifteen-letters" }),
        json!({ "name": "a", "products": ["nothing"] }),
    ] {
        world.admin.call("POST", &apps, Some(&bad)).await.expect(422);
    }
    let app = format!("{apps}/{}", text(&made, "id"));
    for length in [0, 63, 181] {
        world
            .admin
            .call("POST", &format!("{app}/codes"), Some(&json!({ "code": "a".repeat(length) })))
            .await
            .expect(422);
    }
    for number in 0..5 {
        let code = format!("{number}{}", "a".repeat(63 + 116 * usize::from(number == 4)));
        world.admin.make(&format!("{app}/codes"), &json!({ "code": code })).await;
    }
    let sixth = world.admin.call("POST", &format!("{app}/codes"), Some(&json!({}))).await.expect(409);
    assert_eq!(sixth.json()["error"]["code"], "too_many_codes");
    let taken = json!({ "code": format!("0{}", "a".repeat(63)) });
    let second = world.admin.make(&apps, &json!({ "name": "second" })).await;
    let codes = format!("{apps}/{}/codes", text(&second, "id"));
    assert_eq!(
        world.admin.call("POST", &codes, Some(&taken)).await.expect(409).json()["error"]["code"],
        "credential_taken"
    );
    for gone in [format!("{app}/codes/code-x"), format!("{apps}/app-x"), format!("{apps}/app-x/products/api")] {
        world.admin.call("DELETE", &gone, None).await.expect(404);
    }
}

#[tokio::test]
async fn an_account_has_fifty_apps_and_the_same_command_makes_one() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let account = world.admin.open_account("buyer").await;
    let apps = format!("/admin/v1/accounts/{account}/apps");
    for number in 0..50 {
        world.admin.make(&apps, &json!({ "name": number.to_string() })).await;
    }
    let refused = world.admin.call("POST", &apps, Some(&json!({ "name": "one more" }))).await.expect(409);
    assert_eq!(refused.json()["error"]["code"], "too_many_apps");
}

#[tokio::test]
async fn secrets_stay_readable_when_the_key_that_seals_them_changes() {
    let seller = Seller::plain().await;
    let mut world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let path = format!("/admin/v1/accounts/{}/apps/{app}/secret", buyer.account);
    let mut steps = Vec::new();
    for secrets in [
        json!({ "seal_key": "the-first-seal-key-0123456789" }),
        json!({ "seal_key": "the-second-seal-key-0123456789", "former_seal_keys": ["the-first-seal-key-0123456789"] }),
    ] {
        assert_eq!(world.stop().await.code, Some(0));
        world.rewrite(|config| {
            for (name, value) in secrets.as_object().unwrap() {
                config["secrets"][name] = value.clone();
            }
        });
        world.restart().await;
        world.call(&signer.sign(Request::get("/api/x"))).await.expect(200);
        assert_eq!(world.admin.get(&path).await.expect(200).json()["app_secret"], signer.secret.as_str());
        steps.push(world.admin.add_app(&buyer.account, &["api"]).await.1);
        for signer in &steps {
            world.call(&signer.sign(Request::get("/api/x"))).await.expect(200);
        }
    }
    // Without the key, what it sealed opens nothing more, and nothing else is harmed.
    assert_eq!(world.stop().await.code, Some(0));
    world.rewrite(|config| config["secrets"]["former_seal_keys"] = json!([]));
    world.restart().await;
    world.call(&steps[0].sign(Request::get("/api/x"))).await.expect(401);
    world.call(&steps[1].sign(Request::get("/api/x"))).await.expect(200);
}

#[tokio::test]
async fn the_command_line_makes_apps_and_signs_what_curl_would_send() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-5"]).await;
    let token = world.dir.path().join("admin.token");
    std::fs::write(&token, crate::harness::admin::TOKEN).unwrap();
    let (admin, token) = (format!("http://{}", world.admin.address), token.display().to_string());
    let apps = |line: &[&str]| {
        let access = ["--admin", &admin, "--admin-token-file", &token];
        let (code, out, said) = run(&[&["apps"], line, &access].concat());
        assert_eq!(code, Some(0), "{line:?}: {said}");
        out
    };
    let made = apps(&["add", &buyer.account, "curl", "--product", "api"]);
    let (app_key, secret) = made.trim_end().split_once('\n').unwrap();
    let listed: serde_json::Value = serde_json::from_str(&apps(&["list", &buyer.account, "--json"])).unwrap();
    let app = listed.as_array().unwrap().iter().find(|app| app["name"] == "curl").unwrap();
    let id = text(app, "id");
    assert_eq!(apps(&["secret", &buyer.account, &id]).trim_end(), secret);
    assert_eq!(apps(&["add-code", &buyer.account, &id]).trim_end().len(), 64);
    let file = world.dir.path().join("app.secret");
    std::fs::write(&file, secret).unwrap();
    let url = format!("http://{}/api/x?b=1&a=%20", world.data);
    let file = file.display().to_string();
    let line =
        ["sign", &url, "--app-key", app_key, "--secret-file", &file, "-H", "Content-Type: text/plain", "-d", "hi"];
    let (code, headers, said) = run(&line);
    assert_eq!(code, Some(0), "{said}");
    let mut request = Request::post("/api/x?b=1&a=%20").field("Host", &world.data.to_string());
    request = request.field("Content-Type", "text/plain").body(b"hi");
    for line in headers.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.field(name, value);
    }
    world.call(&request).await.expect(200);
    apps(&["unbind", &buyer.account, &id, "api"]);
    world.call(&request).await.expect(401);
    apps(&["bind", &buyer.account, &id, "api"]);
    world.call(&request).await.expect(200);
    apps(&["delete", &buyer.account, &id]);
    world.call(&request).await.expect(401);
}

#[tokio::test]
async fn after_resealing_a_former_key_can_be_dropped() {
    let seller = Seller::plain().await;
    let (old, new) = ("the-old-seal-key-of-the-tests", "the-new-seal-key-of-the-tests");
    let mut world = World::with(seller.address, |config| config["secrets"]["seal_key"] = json!(old)).await;
    let (first, second) = (world.buyer(&["api-50"]).await, world.buyer(&["api-50"]).await);
    let (app, before) = world.admin.add_app(&first.account, &["api"]).await;
    let (_, other) = world.admin.add_app(&second.account, &["api"]).await;
    let path = format!("/admin/v1/accounts/{}/apps/{app}/secret", first.account);
    let rotated = world.admin.call("POST", &path, Some(&json!({ "overlap_seconds": 600 }))).await.expect(200).json();
    let after = Signer { app_key: before.app_key.clone(), secret: text(&rotated, "app_secret") };
    let works = async |world: &World| {
        for signer in [&before, &after, &other] {
            world.call(&signer.sign(Request::get("/api/x"))).await.expect(200);
        }
    };
    let reseal = |world: &World| {
        let token = world.dir.path().join("token");
        std::fs::write(&token, crate::harness::admin::TOKEN).unwrap();
        let admin = format!("http://{}", world.admin.address);
        run(&["apps", "reseal", "--admin", &admin, "--admin-token-file", token.to_str().unwrap()])
    };
    works(&world).await;
    // A gateway that lacks the old key is told so, and changes nothing.
    world.rewrite(|config| config["secrets"]["seal_key"] = json!(new));
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    let (code, _, said) = reseal(&world);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains(&app) && said.contains("former_seal_keys"), "{said}");
    world.rewrite(|config| config["secrets"]["former_seal_keys"] = json!([old]));
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    works(&world).await;
    // Two of the first account's app, one of the second's, and one of each MARKETPLACE_APP.
    let (code, out, said) = reseal(&world);
    assert_eq!((code, out.as_str()), (Some(0), "5 sealed anew, 0 as they should be\n"), "{said}");
    works(&world).await;
    let (code, out, said) = reseal(&world);
    assert_eq!((code, out.as_str()), (Some(0), "0 sealed anew, 5 as they should be\n"), "{said}");
    world.rewrite(|config| {
        config["secrets"].as_object_mut().unwrap().remove("former_seal_keys");
    });
    assert_eq!(world.stop().await.code, Some(0));
    world.restart().await;
    works(&world).await;
    let shown = world.admin.get(&path).await.expect(200).json();
    assert_eq!(text(&shown, "app_secret"), after.secret);
}
