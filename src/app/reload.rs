//! Takes over a new configuration while the gateway runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};

use super::LoadConfig;
use super::certificates::Certificates;
use crate::admin::Reload;
use crate::config::{Catalog, Config};
use crate::proxy::catalog::Shelf;
use crate::proxy::server::Server;
use crate::service::limits::Limiter;
use crate::telemetry::metrics::Metrics;

/// What the admin API reloads by.
pub(super) fn reload_through(reloader: &Arc<Reloader>) -> Reload {
    let reloader = Arc::clone(reloader);
    Arc::new(move || {
        let reloader = Arc::clone(&reloader);
        Box::pin(async move { reloader.reload() })
    })
}

/// Takes over a new configuration.
pub(super) struct Reloader {
    load: LoadConfig,
    /// What the process was started with: the parts that cannot change while it runs.
    pub(super) running: Config,
    pub(super) catalog: Arc<ArcSwap<Catalog>>,
    server: Arc<Server>,
    pub(super) certificates: Certificates,
    pub(super) metrics: Metrics,
    limiter: Arc<Limiter>,
}

impl Reloader {
    pub(super) fn new(
        (load, running): (LoadConfig, Config),
        server: Arc<Server>,
        (certificates, metrics, limiter): (Certificates, Metrics, Arc<Limiter>),
    ) -> Self {
        let catalog = Arc::new(ArcSwap::new(Arc::clone(&running.catalog)));
        Self { load, running, catalog, server, certificates, metrics, limiter }
    }

    pub(super) fn reload(&self) -> Result<(), Vec<String>> {
        let taken = self.try_reload();
        self.metrics.reload_success.set(i64::from(taken.is_ok()));
        taken
    }

    fn try_reload(&self) -> Result<(), Vec<String>> {
        let text = |problem: &dyn std::fmt::Display| vec![problem.to_string()];
        let next = (self.load)().map_err(|problems| problems.texts())?;
        let fixed = self.fixed_that_differ(&next);
        if !fixed.is_empty() {
            let what = fixed.join(", ");
            return Err(vec![format!("{what}: cannot change while the gateway runs; change it back, or restart")]);
        }
        let parts = (&self.metrics, &*self.limiter);
        let shelf = Arc::new(Shelf::new(&next.catalog, parts).map_err(|error| text(&error))?);
        self.catalog.store(Arc::clone(&next.catalog));
        self.server.stock(&shelf);
        Ok(())
    }

    /// The settings that differ although they are only read at the start.
    fn fixed_that_differ(&self, next: &Config) -> Vec<&'static str> {
        let now = &self.running;
        let secret = |a: &SecretString, b: &SecretString| a.expose_secret() != b.expose_secret();
        let secrets = |keys: &'_ [SecretString]| -> Vec<String> {
            keys.iter().map(|key| key.expose_secret().to_owned()).collect()
        };
        [
            ("gateway", now.gateway != next.gateway),
            ("workers", now.workers != next.workers),
            ("data_dir", now.data_dir != next.data_dir),
            ("store", now.store != next.store),
            ("listeners.data", now.data_listener != next.data_listener),
            ("listeners.admin", now.admin_listener != next.admin_listener),
            ("proxies", now.proxies != next.proxies),
            ("admin.token", secret(&now.admin_token, &next.admin_token)),
            ("secrets.hash_key", secret(&now.hash_key, &next.hash_key)),
            ("secrets.seal_key", secrets(&now.seal_keys) != secrets(&next.seal_keys)),
            ("credentials", now.credentials != next.credentials),
            ("log", now.log != next.log),
            ("limits", now.limits != next.limits),
            ("receipts", now.receipts != next.receipts),
            ("journal", now.journal != next.journal),
            ("drain_timeout", now.drain_timeout != next.drain_timeout),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}
