//! An operator at the admin API.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{Answer, Client, Request};
use super::keep;
use super::metrics::Metrics;
use super::signer::Signer;

/// Opens the admin listener of every world.
pub(crate) const TOKEN: &str = "admin-token-of-the-tests-0123456789";

/// The admin API of a running gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
}

/// An account that can call.
#[derive(Debug, Clone)]
pub(crate) struct Buyer {
    pub(crate) account: String,
    /// The key's text.
    pub(crate) key: String,
    /// The key's id.
    pub(crate) key_id: String,
}

/// Where a package's units stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) total: u64,
    pub(crate) remaining: u64,
    pub(crate) free: u64,
    pub(crate) leased: u64,
    pub(crate) settled: u64,
    pub(crate) suspense: u64,
    pub(crate) forfeited: u64,
}

impl Package {
    fn read(value: &Value) -> Self {
        let units = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"));
        let package = Self {
            id: value["id"].as_str().unwrap_or_else(|| panic!("no id in {value}")).to_owned(),
            total: units("total"),
            remaining: units("remaining"),
            free: units("free"),
            leased: units("leased"),
            settled: units("settled"),
            suspense: units("suspense"),
            forfeited: units("forfeited"),
        };
        let places = package.free + package.leased + package.settled + package.suspense + package.forfeited;
        assert_eq!(places, package.total, "a package's units stand in one place each: {package:?}");
        package
    }
}

impl Admin {
    /// Calls the API with the token, on a connection of its own.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = Request::new(method, path).bearer(TOKEN).field("Connection", "close");
        if let Some(body) = body {
            request = request.json(&body.to_string());
        }
        Client::connect(self.address).await.call(&request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    /// Makes something; returns what the API says of it.
    pub(crate) async fn make(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, Some(body)).await.expect(201).json()
    }

    pub(crate) async fn open_account(&self, name: &str) -> String {
        text(&self.make("/admin/v1/accounts", &json!({ "name": name })).await, "id")
    }

    pub(crate) async fn add_package(&self, account: &str, offer: &str) {
        self.make(&format!("/admin/v1/accounts/{account}/packages"), &json!({ "offer": offer })).await;
    }

    /// Makes a key; returns its id and its text.
    pub(crate) async fn add_key(&self, account: &str, terms: &Value) -> (String, String) {
        let made = self.make(&format!("/admin/v1/accounts/{account}/keys"), terms).await;
        keep::secret(&text(&made, "key"));
        (text(&made, "id"), text(&made, "key"))
    }

    /// Makes an app bound to products; returns its id, its AppKey and its secret.
    pub(crate) async fn add_app(&self, account: &str, products: &[&str]) -> (String, Signer) {
        let terms = json!({ "name": "test", "products": products });
        let made = self.make(&format!("/admin/v1/accounts/{account}/apps"), &terms).await;
        let signer = Signer { app_key: text(&made, "app_key"), secret: text(&made, "app_secret") };
        keep::secret(&signer.secret);
        (text(&made, "id"), signer)
    }

    /// Makes an AppCode; returns its id and its text.
    pub(crate) async fn add_code(&self, account: &str, app: &str) -> (String, String) {
        let made = self.make(&format!("/admin/v1/accounts/{account}/apps/{app}/codes"), &json!({})).await;
        keep::secret(&text(&made, "code"));
        (text(&made, "id"), text(&made, "code"))
    }

    /// An account with one package of each offer, and a key.
    pub(crate) async fn buyer(&self, offers: &[&str]) -> Buyer {
        let account = self.open_account("buyer").await;
        for offer in offers {
            self.add_package(&account, offer).await;
        }
        let (key_id, key) = self.add_key(&account, &json!({ "description": "test" })).await;
        Buyer { account, key, key_id }
    }

    /// Those that can still be drawn on, then those that are used up or over.
    pub(crate) async fn packages(&self, account: &str) -> Vec<Package> {
        let listed = self.get(&format!("/admin/v1/accounts/{account}/packages")).await.expect(200).json();
        let list = |name: &str| listed[name].as_array().unwrap_or_else(|| panic!("no {name} in {listed}")).iter();
        let packages: Vec<Package> = list("packages").chain(list("ended")).map(Package::read).collect();
        let ids: BTreeSet<_> = packages.iter().map(|package| &package.id).collect();
        assert_eq!(ids.len(), packages.len(), "a package stands in one list: {packages:?}");
        packages
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics { text: self.get("/metrics").await.expect(200).text() }
    }
}

pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}
