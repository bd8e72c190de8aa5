//! A gateway with everything it needs, in a folder of its own: nothing is shared between two tests.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::admin::{Admin, Buyer, TOKEN};
use super::client::{Answer, Client, Request};
use super::metrics::Metrics;
use super::process::{Exit, Gateway, run};
use super::{keep, until};

/// The seller's own credential, which no buyer may ever see.
pub(crate) const SELLER_KEY: &str = "seller-secret-1f0c";
/// Shown to buyers whose package is used up.
pub(crate) const BUY_URL: &str = "https://market.test/chat";
/// Sizes of the offers `chat-N` and `api-N`.
const OFFERED_CALLS: [u64; 7] = [1, 2, 3, 5, 50, 1_000, 1_000_000];

/// A running gateway before a seller.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) gateway: Gateway,
    pub(crate) admin: Admin,
    /// Where buyers call.
    pub(crate) data: SocketAddr,
    config: Value,
}

/// The configuration of every world: the LLM product `chat` and the HTTP product `api` under `/api`, both sold by the
/// call, with offers `chat-1` … `api-1000000`. JSON is YAML too.
pub(crate) fn base_config(seller: SocketAddr) -> Value {
    let offer = |product: &str, calls: u64| json!({ "id": format!("{product}-{calls}"), "product": product, "kind": "per_call", "calls": calls, "validity": "1y" });
    let offers = OFFERED_CALLS.iter().flat_map(|calls| [offer("chat", *calls), offer("api", *calls)]);
    json!({
        "workers": 2,
        "data_dir": "data",
        "listeners": { "data": "127.0.0.1:0", "admin": "127.0.0.1:0" },
        "admin": { "token": TOKEN },
        "secrets": { "hash_key": "hash-key-of-the-tests-0123456789" },
        "log": { "level": "info", "access": "off" },
        "limits": {},
        // Small files: a start after a kill reads them to their end, and a busy run fills some.
        "journal": { "segment_bytes": "1MiB" },
        "drain_timeout": "20s",
        "products": [
            {
                "id": "chat", "kind": "llm", "buy_url": BUY_URL, "timeouts": {},
                "upstream": { "base_url": format!("http://{seller}/v1"), "api_key": SELLER_KEY },
            },
            {
                "id": "api", "kind": "http", "path": "/api", "timeouts": {},
                "upstream": { "base_url": format!("http://{seller}"), "api_key": SELLER_KEY },
            },
        ],
        "offers": offers.collect::<Vec<_>>(),
    })
}

impl World {
    /// Starts a gateway with the base configuration.
    pub(crate) async fn start(seller: SocketAddr) -> Self {
        Self::with(seller, |_| {}).await
    }

    /// Starts one with a changed configuration.
    pub(crate) async fn with(seller: SocketAddr, change: impl FnOnce(&mut Value)) -> Self {
        let mut config = base_config(seller);
        change(&mut config);
        Self::on(tempfile::tempdir().unwrap(), config).await
    }

    /// Starts one in a given folder.
    pub(crate) async fn on(mut dir: TempDir, mut config: Value) -> Self {
        if keep::folder().is_some() {
            dir.disable_cleanup(true);
            config["log"]["level"] = json!("trace");
        }
        let path = dir.path().join("tollgate.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let gateway = Gateway::serve(&path);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world = Self { dir, gateway, admin: Admin { address: nowhere }, data: nowhere, config };
        world.ready().await;
        world
    }

    async fn ready(&mut self) {
        let (data, admin) = self.gateway.listening().await;
        (self.data, self.admin) = (data, Admin { address: admin });
        let admin = self.admin;
        until("the gateway is ready", async || (admin.get("/readyz").await.status() == 200).then_some(())).await;
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("tollgate.yaml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Changes the configuration's file; the running gateway does not look by itself.
    pub(crate) fn rewrite(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        std::fs::write(self.config_path(), self.config.to_string()).unwrap();
    }

    /// Starts again on the same folder, after the process has ended.
    pub(crate) async fn restart(&mut self) {
        self.gateway = Gateway::serve(&self.config_path());
        self.ready().await;
    }

    /// Kill -9, and a start on the same folder.
    pub(crate) async fn crash(&mut self) {
        self.gateway.kill().await;
        self.restart().await;
    }

    /// SIGTERM, and the wait for the end.
    pub(crate) async fn stop(&mut self) -> Exit {
        self.gateway.signal(Signal::TERM);
        self.gateway.exit().await
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.data).await
    }

    /// One call on a connection of its own.
    pub(crate) async fn call(&self, request: &Request) -> Answer {
        self.client().await.call(request).await
    }

    /// An account with a package of each offer, and a key.
    pub(crate) async fn buyer(&self, offers: &[&str]) -> Buyer {
        self.admin.buyer(offers).await
    }

    /// The units of an account's packages that are booked as used.
    pub(crate) async fn settled(&self, account: &str) -> u64 {
        self.admin.packages(account).await.iter().map(|package| package.settled).sum()
    }

    /// Waits until so many units are booked as used, and none beyond them.
    pub(crate) async fn settles(&self, account: &str, units: u64) {
        let settled = async || {
            let settled = self.settled(account).await;
            assert!(settled <= units, "{settled} units are booked, {units} were expected");
            (settled == units).then_some(())
        };
        until(&format!("{units} units are booked"), settled).await;
    }

    /// Waits until no call is open: what the last one gave back can be sold again. Returns the metrics after that: those
    /// of the look that found none open may have been read, one by one, while the last ones ended.
    pub(crate) async fn quiet(&self) -> Metrics {
        let quiet = async || (self.admin.metrics().await.sum("tollgate_calls_open", &[]) == 0.0).then_some(());
        until("no call is open", quiet).await;
        self.admin.metrics().await
    }

    /// Waits until no call is open; then this process must have charged so many units, over all accounts.
    pub(crate) async fn charged(&self, units: u32) {
        let metrics = self.quiet().await;
        assert_eq!(metrics.sum("tollgate_units_charged_total", &[]), f64::from(units));
    }

    /// The usage records, from the journal on the disk.
    pub(crate) fn usage(&self) -> Vec<Value> {
        let config = self.config_path();
        let (code, out, said) = run(&["usage", "export", "--config", config.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

/// Finds a product of a configuration, to change it.
pub(crate) fn product<'a>(config: &'a mut Value, id: &str) -> &'a mut Value {
    let products = config["products"].as_array_mut().unwrap();
    products.iter_mut().find(|product| product["id"] == id).unwrap()
}
