//! Every metric, declared once. Labels take their values from enums and from the configuration, never from a request.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::domain::credential::{SignatureRule, SignatureUse};
use crate::domain::usage::Ending;

/// Upper bounds of the duration buckets, in seconds: an LLM call may take minutes.
const DURATION_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

/// All metrics of the process.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// What `/metrics` prints.
    pub registry: Registry,
    calls: IntCounterVec,
    durations: HistogramVec,
    endings: IntCounterVec,
    charged: IntCounterVec,
    voided: IntCounterVec,
    retries: IntCounterVec,
    connects: IntCounterVec,
    rejections: IntCounterVec,
    limited: IntCounterVec,
    signatures: [IntCounter; SignatureRule::ALL.len()],
    signature_uses: IntCounterVec,
    /// Client connections that are open.
    pub connections: IntGauge,
    /// Client connections without a call that were ended to make room for others.
    pub connections_shed: IntCounter,
    /// Calls that are under way.
    pub calls_open: IntGauge,
    /// Client connections by protocol.
    pub http: HttpMetrics,
    /// Of TLS towards clients.
    pub tls: TlsMetrics,
    /// Of the ledger.
    pub ledger: LedgerMetrics,
    /// Commits to the store, by result.
    pub commits: CommitMetrics,
    /// Of the journal.
    pub journal: JournalMetrics,
    /// Access log lines that were dropped because their sink was too slow.
    pub access_dropped: IntCounter,
    /// 1 if the last reload of the configuration succeeded.
    pub reload_success: IntGauge,
}

/// What the ledger holds, and what went wrong with it.
#[derive(Debug, Clone)]
pub struct LedgerMetrics {
    /// Pools on which this gateway holds leases.
    pub pools_leased: IntGauge,
    /// Leases in this gateway's hands.
    pub leases_open: IntGauge,
    /// Units of these that are not known to be used.
    pub units_leased: IntGauge,
    /// Pools with use that the store does not know of yet.
    pub pools_unreported: IntGauge,
    /// Units in suspense, of the pools that this gateway has seen.
    pub units_suspended: IntGauge,
    /// Times that a pool was found to be used beyond what was bought: the trace of a double fault.
    pub overruns: IntCounter,
    /// Times that the store had forgotten something of a pool, which was sent again.
    pub rollbacks: IntCounter,
    /// Gateways that share the store, as it last said.
    pub gateways_live: IntGauge,
    /// Times that this gateway has checked in with the store.
    pub check_ins: IntCounter,
    /// Times that other gateways were asked for units.
    pub recalls: IntCounter,
}

/// What the journal needs of the disk, and how whole it is.
#[derive(Debug, Clone)]
pub struct JournalMetrics {
    /// 1 while calls are refused because its disk has no room.
    pub full: IntGauge,
    /// Bytes of earlier runs that were no valid record.
    pub damaged_bytes: IntGauge,
    /// What all runs take on the disk.
    pub disk_bytes: IntGauge,
    /// Files that were removed because nobody needs them.
    pub removed_files: IntCounter,
}

impl JournalMetrics {
    fn new(declare: &Declare<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            full: declare.gauge("tollgate_journal_full", "1 while the journal's disk has no room.")?,
            damaged_bytes: declare.gauge(
                "tollgate_journal_damaged_bytes",
                "Bytes of earlier journals that were no valid record, as found at start.",
            )?,
            disk_bytes: declare.gauge(
                "tollgate_journal_disk_bytes",
                "What the journals of all runs in the data directory take on the disk.",
            )?,
            removed_files: declare.counter(
                "tollgate_journal_removed_files_total",
                "Journal files removed because nobody needs them any more.",
            )?,
        })
    }
}

/// Client connections by protocol.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    /// HTTP/1.
    pub http1: IntCounter,
    /// HTTP/2.
    pub http2: IntCounter,
    /// HTTP/2 connections that were cut off because they sent little else than what costs them nothing.
    pub floods: IntCounter,
}

impl HttpMetrics {
    fn new(declare: &Declare<'_>) -> prometheus::Result<Self> {
        let help = "Client connections that began to be served, by protocol.";
        let by_protocol = declare.counters("tollgate_client_connections_total", help, &["protocol"])?;
        Ok(Self {
            http1: by_protocol.with_label_values(&["h1"]),
            http2: by_protocol.with_label_values(&["h2"]),
            floods: declare.counter(
                "tollgate_http2_floods_total",
                "HTTP/2 connections that were cut off because they flooded the gateway with control frames.",
            )?,
        })
    }
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct TlsMetrics {
    handshakes: IntCounterVec,
    failures: IntCounterVec,
    not_after: IntGaugeVec,
    /// 1 if the certificates were read when they last changed.
    pub reload_success: IntGauge,
}

/// Why a connection to a listener with TLS was given up before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client was too slow.
    Timeout,
    /// The client went away.
    Gone,
    /// It began with something else than TLS.
    NotTls,
    /// No version, cipher or certificate suited both, or the client broke the protocol.
    Refused,
}

impl TlsMetrics {
    fn new(declare: &Declare<'_>) -> prometheus::Result<Self> {
        let help = "Until when a listener's certificate is valid, in seconds since 1970.";
        let not_after = Opts::new("tollgate_tls_certificate_not_after_seconds", help);
        Ok(Self {
            handshakes: declare.counters(
                "tollgate_tls_handshakes_total",
                "TLS handshakes of clients that succeeded; resumed: those that spared the certificate.",
                &["listener", "version", "resumed"],
            )?,
            failures: declare.counters(
                "tollgate_tls_handshake_failures_total",
                "TLS handshakes of clients that failed.",
                &["listener", "reason"],
            )?,
            not_after: declare.add(IntGaugeVec::new(not_after, &["listener", "file"]))?,
            reload_success: declare.gauge(
                "tollgate_tls_reload_success",
                "1 if the files of all certificates were good when they were last looked at.",
            )?,
        })
    }

    /// A handshake has succeeded.
    pub fn succeeded(&self, listener: &'static str, (newest, resumed): (bool, bool)) {
        let version = if newest { "1.3" } else { "1.2" };
        let resumed = if resumed { "yes" } else { "no" };
        self.handshakes.with_label_values(&[listener, version, resumed]).inc();
    }

    /// A handshake has failed.
    pub fn failed(&self, listener: &'static str, why: HandshakeFailure) {
        let reason = match why {
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::Gone => "gone",
            HandshakeFailure::NotTls => "not_tls",
            HandshakeFailure::Refused => "refused",
        };
        self.failures.with_label_values(&[listener, reason]).inc();
    }

    /// A certificate is shown from now on. `file` is its name in the configuration.
    pub fn shows(&self, listener: &'static str, file: &str, not_after: i64) {
        self.not_after.with_label_values(&[listener, file]).set(not_after);
    }
}

/// The store's commits by result.
#[derive(Debug, Clone)]
pub struct CommitMetrics {
    /// Done.
    pub done: IntCounter,
    /// Someone else was first; tried again.
    pub conflict: IntCounter,
    /// The store failed.
    pub failed: IntCounter,
}

impl CommitMetrics {
    fn new(declare: &Declare<'_>) -> prometheus::Result<Self> {
        let commits = declare.counters("tollgate_store_commits_total", "Commits to the account store.", &["result"])?;
        Ok(Self {
            done: commits.with_label_values(&["done"]),
            conflict: commits.with_label_values(&["conflict"]),
            failed: commits.with_label_values(&["failed"]),
        })
    }
}

/// The metrics of one product, looked up once.
#[derive(Debug, Clone)]
pub struct ProductMetrics {
    by_class: [IntCounter; 6],
    /// From a call's arrival to its end, in seconds.
    pub duration: Histogram,
    by_ending: [IntCounter; Ending::ALL.len()],
    /// Units charged.
    pub charged: IntCounter,
    /// Units whose charge was taken back.
    pub voided: IntCounter,
    /// Requests sent to the seller again.
    pub retries: IntCounter,
    /// Connections opened to the seller.
    pub connects: IntCounter,
}

impl ProductMetrics {
    /// The counter of calls that ended with a status of this class.
    pub fn calls(&self, status: u16) -> &IntCounter {
        let [other, classes @ ..] = &self.by_class;
        classes.get(usize::from(status / 100).wrapping_sub(1)).unwrap_or(other)
    }

    /// The counter of forwarded calls that ended this way.
    pub fn ending(&self, ending: Ending) -> &IntCounter {
        let [complete, gone, broke, timed_out, interrupted] = &self.by_ending;
        match ending {
            Ending::Complete => complete,
            Ending::ClientGone => gone,
            Ending::SellerBroke => broke,
            Ending::TimedOut => timed_out,
            Ending::Interrupted => interrupted,
        }
    }
}

/// Declares metrics and registers them; a name that is taken or malformed is a bug that the first start shows.
struct Declare<'a>(&'a Registry);

impl Declare<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = made?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    fn build_info(&self) -> prometheus::Result<()> {
        let opts = Opts::new("tollgate_build_info", "Always 1; the label tells the version.");
        let build = self.add(IntGaugeVec::new(opts, &["version"]))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(())
    }

    fn limited(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Calls refused because of a limit, by whose it is and what it counts.";
        self.counters("tollgate_limited_total", help, &["level", "kind"])
    }

    fn signatures(&self) -> prometheus::Result<[IntCounter; SignatureRule::ALL.len()]> {
        let help = "Signatures that were right, by the reading of the request under which they fit.";
        let by_rule = self.counters("tollgate_signatures_total", help, &["rule"])?;
        Ok(SignatureRule::ALL.map(|rule| by_rule.with_label_values(&[rule.name()])))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help))
    }
}

impl LedgerMetrics {
    fn new(declare: &Declare<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            pools_leased: declare.gauge("tollgate_pools_leased", "Pools on which this gateway holds leases.")?,
            leases_open: declare.gauge("tollgate_leases_open", "Leases in this gateway's hands.")?,
            units_leased: declare.gauge("tollgate_units_leased", "Units leased that are not known to be used.")?,
            pools_unreported: declare
                .gauge("tollgate_pools_unreported", "Pools with use that the store does not know of yet.")?,
            units_suspended: declare.gauge(
                "tollgate_units_suspended",
                "Units in suspense, of the pools that this gateway has seen; a journal or an operator resolves them.",
            )?,
            overruns: declare
                .counter("tollgate_overruns_total", "Times that a pool was found to be used beyond what was bought.")?,
            rollbacks: declare.counter(
                "tollgate_rollbacks_repaired_total",
                "Times that the store had forgotten something of a pool, which was sent again.",
            )?,
            gateways_live: declare
                .gauge("tollgate_gateways_live", "Gateways that share the store: each enforces its share of limits.")?,
            check_ins: declare.counter("tollgate_check_ins_total", "Check-ins with the store.")?,
            recalls: declare.counter("tollgate_recalls_total", "Times that other gateways were asked for units.")?,
        })
    }
}

impl Metrics {
    /// Declares everything. An error is a bug in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let declare = Declare(&registry);
        let buckets = DURATION_BUCKETS.to_vec();
        let duration = HistogramOpts::new(
            "tollgate_call_duration_seconds",
            "From a call's arrival to the last byte of its answer.",
        );
        declare.build_info()?;
        Ok(Self {
            calls: declare.counters(
                "tollgate_calls_total",
                "Calls answered, by status class.",
                &["product", "class"],
            )?,
            durations: declare.add(HistogramVec::new(duration.buckets(buckets), &["product"]))?,
            endings: declare.counters(
                "tollgate_call_endings_total",
                "Calls that a seller answered, by how they ended.",
                &["product", "ending"],
            )?,
            charged: declare.counters("tollgate_units_charged_total", "Units charged to packages.", &["product"])?,
            voided: declare.counters(
                "tollgate_units_voided_total",
                "Units whose charge was taken back because the seller broke off.",
                &["product"],
            )?,
            retries: declare.counters(
                "tollgate_upstream_retries_total",
                "Requests sent to a seller again.",
                &["product"],
            )?,
            connects: declare.counters(
                "tollgate_upstream_connects_total",
                "Connections opened to sellers.",
                &["product"],
            )?,
            rejections: declare.counters(
                "tollgate_rejections_total",
                "Calls that the gateway itself refused or failed, by code.",
                &["code"],
            )?,
            limited: declare.limited()?,
            signatures: declare.signatures()?,
            signature_uses: declare.counters(
                "tollgate_signature_uses_total",
                "Right signatures for products with replay protection, by what the store said of them.",
                &["result"],
            )?,
            connections: declare.gauge("tollgate_connections_open", "Client connections that are open.")?,
            connections_shed: declare.counter(
                "tollgate_connections_shed_total",
                "Client connections without a call that were ended to make room for others.",
            )?,
            calls_open: declare.gauge("tollgate_calls_open", "Calls that are under way.")?,
            http: HttpMetrics::new(&declare)?,
            tls: TlsMetrics::new(&declare)?,
            ledger: LedgerMetrics::new(&declare)?,
            commits: CommitMetrics::new(&declare)?,
            journal: JournalMetrics::new(&declare)?,
            access_dropped: declare.counter(
                "tollgate_access_log_dropped_total",
                "Access log lines that their sink did not take: it failed, or was too slow.",
            )?,
            reload_success: declare.gauge(
                "tollgate_config_reload_success",
                "1 if the configuration was loaded when it was last asked for.",
            )?,
            registry: registry.clone(),
        })
    }

    /// The metrics of a product, with its label filled in.
    pub fn product(&self, product: &str) -> ProductMetrics {
        let class = |class| self.calls.with_label_values(&[product, class]);
        let ending = |ending: Ending| self.endings.with_label_values(&[product, ending.name()]);
        ProductMetrics {
            by_class: ["other", "1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            duration: self.durations.with_label_values(&[product]),
            by_ending: Ending::ALL.map(ending),
            charged: self.charged.with_label_values(&[product]),
            voided: self.voided.with_label_values(&[product]),
            retries: self.retries.with_label_values(&[product]),
            connects: self.connects.with_label_values(&[product]),
        }
    }

    /// The counter of signatures that fit by a rule.
    pub fn signatures(&self, rule: SignatureRule) -> &IntCounter {
        let [base, empty_hash, raw_path, encoded_sort, literal_plus] = &self.signatures;
        match rule {
            SignatureRule::Base => base,
            SignatureRule::EmptyHash => empty_hash,
            SignatureRule::RawPath => raw_path,
            SignatureRule::EncodedSort => encoded_sort,
            SignatureRule::LiteralPlus => literal_plus,
        }
    }

    /// The counter of calls that a limit has refused, by whose it is and what it counts; the names come from enums.
    pub fn limited(&self, (level, kind): (&'static str, &'static str)) -> IntCounter {
        self.limited.with_label_values(&[level, kind])
    }

    /// The counter of signatures of which the store said this; `None`: it did not answer.
    pub fn signature_uses(&self, said: Option<SignatureUse>) -> IntCounter {
        self.signature_uses.with_label_values(&[said.map_or("failed", SignatureUse::name)])
    }

    /// The counter of used signatures that served nothing and may be used again.
    pub fn signatures_given_back(&self) -> IntCounter {
        self.signature_uses.with_label_values(&["given_back"])
    }

    /// The counter of rejections with this code; codes come from one enum.
    pub fn rejection(&self, code: &'static str) -> IntCounter {
        self.rejections.with_label_values(&[code])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_counted_in_its_class() {
        let metrics = Metrics::new().unwrap().product("p");
        for status in [200, 299, 404, 599, 99, 600] {
            metrics.calls(status).inc();
        }
        let counts = metrics.by_class.each_ref().map(IntCounter::get);
        assert_eq!(counts, [2, 0, 2, 0, 1, 1]);
    }
}
