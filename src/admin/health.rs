//! Is the process alive, does it serve calls, what does it count: `/livez`, `/readyz`, `/metrics`. Open to everyone who
//! reaches the admin listener.

use std::sync::atomic::{AtomicU8, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, TextEncoder};

use super::Shared;
use super::refusal::Refusal;
use super::wire::ReadyView;

/// Something that stands against sending calls here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// The parts are being put together.
    Starting,
    /// The process is stopping.
    Draining,
    /// The journal's disk has no room.
    JournalFull,
    /// The store does not answer.
    StoreAway,
    /// The store has restarted, and not all gateways have told it what they hold: no new leases.
    CheckingIn,
    /// Another process has taken this run's place.
    Superseded,
}

impl Unready {
    const ALL: [Self; 6] =
        [Self::Starting, Self::Draining, Self::JournalFull, Self::StoreAway, Self::CheckingIn, Self::Superseded];

    fn bit(self) -> u8 {
        match self {
            Self::Starting => 1,
            Self::Draining => 2,
            Self::JournalFull => 4,
            Self::StoreAway => 8,
            Self::CheckingIn => 16,
            Self::Superseded => 32,
        }
    }

    /// What `/readyz` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::JournalFull => "journal_full",
            Self::StoreAway => "store_away",
            Self::CheckingIn => "checking_in",
            Self::Superseded => "superseded",
        }
    }
}

/// What stands against sending calls here; shared by those who notice and those who ask.
#[derive(Debug)]
pub struct Readiness(AtomicU8);

impl Default for Readiness {
    /// A process that is starting.
    fn default() -> Self {
        Self(AtomicU8::new(Unready::Starting.bit()))
    }
}

impl Readiness {
    /// Notes that something stands against it.
    pub fn raise(&self, reason: Unready) {
        self.0.fetch_or(reason.bit(), Ordering::Relaxed);
    }

    /// Notes that it does no more.
    pub fn clear(&self, reason: Unready) {
        self.0.fetch_and(!reason.bit(), Ordering::Relaxed);
    }

    /// All that stands against it now; empty: calls are served.
    pub fn reasons(&self) -> Vec<Unready> {
        let bits = self.0.load(Ordering::Relaxed);
        Unready::ALL.into_iter().filter(|reason| bits & reason.bit() != 0).collect()
    }
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "The process runs")))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Calls are served, or why not.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "Calls are served", body = ReadyView),
    (status = 503, description = "Calls are not served; the reasons say why", body = ReadyView),
))]
pub(super) async fn readyz(State(admin): State<Shared>) -> (StatusCode, Json<ReadyView>) {
    let reasons: Vec<_> = admin.readiness.reasons().into_iter().map(|reason| reason.name().to_owned()).collect();
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyView { ready, reasons }))
}

/// All metrics, in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Prometheus text format 0.0.4", body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(admin): State<Shared>) -> Result<Response, Refusal> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&admin.registry.gather(), &mut text).map_err(|error| {
        tracing::error!(%error, "metrics cannot be written");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics_broken", error.to_string())
    })?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_comes_and_goes_by_itself() {
        let readiness = Readiness::default();
        assert_eq!(readiness.reasons(), [Unready::Starting]);
        for reason in Unready::ALL {
            readiness.raise(reason);
        }
        assert_eq!(readiness.reasons(), Unready::ALL);
        readiness.clear(Unready::JournalFull);
        assert!(!readiness.reasons().contains(&Unready::JournalFull) && readiness.reasons().len() == 5);
        for reason in Unready::ALL {
            readiness.clear(reason);
        }
        assert!(readiness.reasons().is_empty());
    }
}
