//! The certificates of both listeners: read at start, looked at every few seconds and at each SIGHUP.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::telemetry::metrics::TlsMetrics;
use crate::tls::{Acceptor, TlsError};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What the data listener speaks above TLS, the best first.
const DATA_PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];
/// The same of the admin listener.
const ADMIN_PROTOCOLS: [&str; 1] = ["http/1.1"];

/// The certificates of both listeners.
#[derive(Clone)]
pub(super) struct Certificates {
    /// `None`: TLS is not spoken.
    pub(super) data: Option<Arc<Acceptor>>,
    /// `None`: TLS is not spoken.
    pub(super) admin: Option<Arc<Acceptor>>,
    metrics: TlsMetrics,
}

impl Certificates {
    /// Reads what the configuration names.
    pub(super) fn read(config: &Config, metrics: &TlsMetrics) -> Result<Self, TlsError> {
        metrics.reload_success.set(1);
        let data = config.data_listener.tls.as_ref().map(|tls| Acceptor::new("data", tls, &DATA_PROTOCOLS, metrics));
        let admin =
            config.admin_listener.tls.as_ref().map(|tls| Acceptor::new("admin", tls, &ADMIN_PROTOCOLS, metrics));
        let (data, admin) = (data.transpose()?.map(Arc::new), admin.transpose()?.map(Arc::new));
        Ok(Self { data, admin, metrics: metrics.clone() })
    }

    /// Takes over what has changed and is good.
    pub(super) fn reload(&self) {
        self.look(&mut None);
    }

    /// As [`reload`](Self::reload); a fault that is `known` is not told again.
    fn look(&self, known: &mut Option<String>) {
        let mut faults = Vec::new();
        for acceptor in [&self.data, &self.admin].into_iter().flatten() {
            match acceptor.reload() {
                Ok(true) => tracing::info!(listener = acceptor.listener(), "new certificates were taken over"),
                Ok(false) => {}
                Err(error) => faults.push(error.to_string()),
            }
        }
        self.metrics.reload_success.set(i64::from(faults.is_empty()));
        let found = (!faults.is_empty()).then(|| faults.join("; "));
        if let Some(why) = found.as_ref().filter(|_| *known != found) {
            tracing::error!(why, "new certificates were not taken over; the last good ones stay");
        }
        *known = found;
    }

    /// Looks again and again.
    pub(super) async fn watch(self) {
        if self.data.is_none() && self.admin.is_none() {
            return;
        }
        let mut known = None;
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let certificates = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                certificates.look(&mut known);
                known
            });
            known = looked.await.unwrap_or_default(); // a look that panicked has told nothing
        }
    }
}
