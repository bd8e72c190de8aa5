//! Who is there to be forged: accounts with keys, AppCodes and apps of every state, at a gateway that sells three products.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::judge::{Holder, Known};
use crate::harness::admin::{Buyer, text};
use crate::harness::client::Request;
use crate::harness::seller::Seller;
use crate::harness::signer::Signer;
use crate::harness::until;
use crate::harness::world::{World, product};

/// The gateway, its accounts, and what the test knows of them.
pub(super) struct Cast {
    pub(super) world: World,
    pub(super) seller: Seller,
    pub(super) known: Known,
    pub(super) own: Owned,
    /// Another account's.
    pub(super) other: Owned,
    /// Keys that open nothing: revoked, disabled, expired, for other products.
    pub(super) useless_keys: Vec<String>,
    /// AppCodes that open nothing: removed, of apps that are not bound or deleted.
    pub(super) useless_codes: Vec<String>,
    /// Apps that open nothing: not bound, bound to another product, deleted, with the secret of before.
    pub(super) useless_apps: Vec<Signer>,
    /// Of the same account as `own`, another app and key.
    pub(super) second: Owned,
}

/// What one app and one key can show.
pub(super) struct Owned {
    pub(super) key: String,
    pub(super) code: String,
    pub(super) app: Signer,
}

/// A gateway that sells `api` and `maps` for every scheme, AppCodes in the query of `api` too, and `chat` for keys.
async fn world(seller: &Seller) -> World {
    World::with(seller.address, |config| {
        let fallbacks = ["empty_hash", "raw_path", "encoded_sort", "literal_plus"];
        config["credentials"] = json!({ "allow_app_code_without_tls": true, "signature_fallbacks": fallbacks });
        let api = product(config, "api");
        api["accept"] = json!(["signature", "app_code", "api_key"]);
        let mut maps = api.clone();
        (maps["id"], maps["path"], maps["meter"]) = (json!("maps"), json!("/maps"), json!("none"));
        api["app_code_query"] = json!("AppCode");
        config["products"].as_array_mut().unwrap().push(maps);
    })
    .await
}

impl Cast {
    pub(super) async fn gather() -> Self {
        let seller = Seller::plain().await;
        let world = world(&seller).await;
        let buyer = world.buyer(&["api-1000000", "chat-1000000"]).await;
        let other = world.buyer(&["api-1000000", "chat-1000000"]).await;
        let mut known = Known::default();
        let own = owned(&world, &mut known, (&buyer, "one")).await;
        let (_, key) = world.admin.add_key(&buyer.account, &json!({ "description": "second" })).await;
        let second = owned(&world, &mut known, (&Buyer { key, ..buyer.clone() }, "two")).await;
        let other = owned(&world, &mut known, (&other, "one")).await;
        let useless_keys = useless_keys(&world, &mut known, &buyer.account).await;
        let (useless_apps, useless_codes) = useless_apps(&world, &mut known, &buyer.account).await;
        Self { world, seller, known, own, other, useless_keys, useless_codes, useless_apps, second }
    }
}

async fn owned(world: &World, known: &mut Known, (buyer, name): (&Buyer, &str)) -> Owned {
    let (app, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    let account = buyer.account.clone();
    let of_app = Holder { account, name: name.to_owned(), products: Some(vec!["api"]), usable: true };
    let of_key = Holder { products: None, ..of_app.clone() };
    known.keys.insert(buyer.key.clone(), of_key);
    known.codes.insert(code.clone(), of_app.clone());
    known.apps.insert(signer.app_key.clone(), (of_app, vec![signer.secret.clone()]));
    Owned { key: buyer.key.clone(), code, app: signer }
}

async fn useless_keys(world: &World, known: &mut Known, account: &str) -> Vec<String> {
    let admin = world.admin;
    let (revoked, revoked_key) = admin.add_key(account, &json!({})).await;
    let (disabled, disabled_key) = admin.add_key(account, &json!({})).await;
    let (_, limited_key) = admin.add_key(account, &json!({ "products": ["maps"] })).await;
    let end = Timestamp::now() + SignedDuration::from_secs(2);
    let (_, expired_key) = admin.add_key(account, &json!({ "expires_at": end.to_string() })).await;
    let keys = format!("/admin/v1/accounts/{account}/keys");
    admin.call("DELETE", &format!("{keys}/{revoked}"), None).await.expect(204);
    admin.call("PATCH", &format!("{keys}/{disabled}"), Some(&json!({ "disabled": true }))).await.expect(200);
    let is_over =
        async || (world.call(&Request::get("/maps/x").bearer(&expired_key)).await.status() == 401).then_some(());
    until("the key has expired", is_over).await;
    let holder = |name: &str, usable: bool, products| Holder {
        account: account.to_owned(),
        name: name.to_owned(),
        products,
        usable,
    };
    known.keys.insert(disabled_key.clone(), holder("disabled", false, None));
    known.keys.insert(expired_key.clone(), holder("expired", false, None));
    known.keys.insert(limited_key.clone(), holder("limited", true, Some(vec!["maps"])));
    vec![revoked_key, disabled_key, limited_key, expired_key]
}

async fn useless_apps(world: &World, known: &mut Known, account: &str) -> (Vec<Signer>, Vec<String>) {
    let admin = world.admin;
    let (mut apps, mut codes) = (Vec::new(), Vec::new());
    for products in [&[][..], &["maps"]] {
        let (app, signer) = admin.add_app(account, products).await;
        let (_, code) = admin.add_code(account, &app).await;
        let products = Some(products.iter().map(|_| "maps").collect());
        let holder = Holder { account: account.to_owned(), name: app, products, usable: true };
        known.codes.insert(code.clone(), holder.clone());
        known.apps.insert(signer.app_key.clone(), (holder, vec![signer.secret.clone()]));
        apps.push(signer);
        codes.push(code);
    }
    let path = |app: &str| format!("/admin/v1/accounts/{account}/apps/{app}");
    let (deleted, signer) = admin.add_app(account, &["api"]).await;
    let (_, code) = admin.add_code(account, &deleted).await;
    admin.call("DELETE", &path(&deleted), None).await.expect(204);
    apps.push(signer);
    codes.push(code);
    let (rotated, before) = admin.add_app(account, &["api"]).await;
    let (removed, code) = admin.add_code(account, &rotated).await;
    admin.call("DELETE", &format!("{}/codes/{removed}", path(&rotated)), None).await.expect(204);
    let terms = json!({ "overlap_seconds": 0 });
    let after = admin.call("POST", &format!("{}/secret", path(&rotated)), Some(&terms)).await.expect(200).json();
    let holder = Holder { account: account.to_owned(), name: rotated, products: Some(vec!["api"]), usable: true };
    known.apps.insert(before.app_key.clone(), (holder, vec![text(&after, "app_secret")]));
    apps.push(before);
    codes.push(code);
    (apps, codes)
}
