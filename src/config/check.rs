//! The raw shape into [`Config`]: every rule that a file must fulfil beyond its form. A rule that fails is noted and
//! the rest is still checked; what cannot be built is `None`. Products and offers have files of their own.

mod cors;
mod credentials;
mod headers;
mod limits;
mod listeners;
mod offer;
mod product;
mod proxies;
mod receipts;
mod store;
mod together;
mod upstream;

use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::bounds::{TOKEN_CHARS_MIN, WORKERS_MAX};
use super::load::Purpose;
use super::problem::{PlaceId, Report};
use super::raw::{Raw, RawAdmin, RawJournal, RawLevel, RawLimits, RawLog, RawRemove, defaults};
use super::read::{At, Given};
use super::scalar::{Count, Period, Secret, Size};
use super::suggest::hint;
use super::{AccessLog, Catalog, Config, Journal, Limits, Log, LogLevel, Remove};
use crate::domain::id::GatewayId;

/// Shortest admin token on any other address, in characters.
const TOKEN_CHARS_MIN_OUTSIDE: usize = 32;

/// What every check needs.
#[derive(Clone, Copy)]
struct Cx<'a> {
    /// Relative paths begin here.
    folder: &'a Path,
    purpose: Purpose,
    report: &'a Report<'a>,
}

/// Checks a whole file.
pub(super) fn config(root: At<Raw>, (folder, purpose): (&Path, Purpose), report: &Report<'_>) -> Option<Config> {
    let cx = Cx { folder, purpose, report };
    let At { place, value: raw } = root;
    let gateway = cx.text(raw.gateway, GatewayId::new).and_then(|given| match given {
        Some(at) => Some(at.value),
        None => GatewayId::new(defaults::GATEWAY).ok(),
    });
    let workers = raw.workers.or(Count(cores())).map(|count| count.0);
    let data_dir = raw.data_dir.required("data_dir", place, "/var/lib/tollgate", report);
    let data_dir = data_dir.and_then(|at| cx.path(at));
    let store = store::store(raw.store, place, cx);
    let listeners = listeners::listeners(raw.listeners, place, cx);
    let proxies = raw.proxies.section(place).and_then(|at| proxies::proxies(at.value, cx));
    let token_chars_min = match &listeners {
        Some((_, admin)) if !admin.address.ip().is_loopback() => TOKEN_CHARS_MIN_OUTSIDE,
        Some(_) | None => TOKEN_CHARS_MIN,
    };
    let admin_token = admin_token(raw.admin, place, token_chars_min, cx);
    let secrets = credentials::secrets(raw.secrets, place, cx);
    let callers = raw.credentials.section(place).and_then(|at| credentials::credentials(at.value));
    let log = raw.log.section(place).and_then(|at| log(at.value, cx));
    let limits = raw.limits.section(place).and_then(|at| limits(at.value));
    let journal = raw.journal.section(place).and_then(|at| journal(at.value));
    let receipts = receipts::receipts(raw.receipts, cx);
    let drain_timeout = period(raw.drain_timeout, defaults::DRAIN_TIMEOUT);
    let sold = product::products(raw.products, place, cx);
    let buffered_bytes = limits.as_ref().map(|limits| limits.buffered_bytes);
    together::check(&sold, buffered_bytes, report);
    let offers = offer::offers(raw.offers, &sold, cx);
    let products: Option<_> = sold.into_iter().map(|sold| sold.product.map(|p| (p.id.clone(), Arc::new(p)))).collect();
    let (data_listener, admin_listener) = listeners?;
    let (hash_key, seal_keys) = secrets?;
    Some(Config {
        gateway: gateway?,
        workers: usize::try_from(workers?).ok()?,
        data_dir: data_dir?,
        store: store?,
        data_listener,
        admin_listener,
        proxies: proxies?,
        admin_token: admin_token?,
        hash_key,
        seal_keys,
        credentials: callers?,
        log: log?,
        limits: limits?,
        journal: journal?,
        receipts: receipts?,
        drain_timeout: drain_timeout?,
        catalog: Arc::new(Catalog { products: products?, offers: offers? }),
    })
}

/// As many workers as the machine has cores, within the limit; one if it will not say.
fn cores() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u64::try_from(cores).unwrap_or(WORKERS_MAX).min(WORKERS_MAX)
}

fn period(given: Given<Period>, default: Duration) -> Option<Duration> {
    given.or(Period(default)).map(|period| period.0)
}

fn admin_token(given: Given<RawAdmin>, root: PlaceId, chars_min: usize, cx: Cx<'_>) -> Option<SecretString> {
    let admin = given.required("admin", root, "{ token: \"${file:admin.token}\" }", cx.report)?;
    let at = admin.value.token.required("token", admin.place, "\"${file:admin.token}\"", cx.report)?;
    let secret = cx.secret(at.place, at.value)?;
    let text = secret.expose_secret();
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        cx.report.note(
            at.place,
            "the token has a character that no HTTP header can carry; write visible ASCII characters without spaces",
        );
        return None;
    }
    if text.len() < chars_min {
        let why = match chars_min {
            TOKEN_CHARS_MIN_OUTSIDE => ", because `listeners.admin` can be reached from other machines",
            _ => "",
        };
        let message = format!("the token has {} characters; write at least {chars_min}{why}", text.len());
        cx.report.note(at.place, message);
        return None;
    }
    Some(secret)
}

fn log(raw: RawLog, cx: Cx<'_>) -> Option<Log> {
    let level = raw.level.or(RawLevel::Info).map(|level| match level {
        RawLevel::Error => LogLevel::Error,
        RawLevel::Warn => LogLevel::Warn,
        RawLevel::Info => LogLevel::Info,
        RawLevel::Debug => LogLevel::Debug,
        RawLevel::Trace => LogLevel::Trace,
    });
    let access = raw.access.optional().and_then(|given| {
        let Some(at) = given else { return Some(AccessLog::Stdout) };
        match at.value.as_str() {
            "off" => Some(AccessLog::Off),
            "stdout" => Some(AccessLog::Stdout),
            path if path.contains('/') => cx.path(at).map(AccessLog::File),
            other => {
                let hint = hint(other, ["off", "stdout"]);
                let message = format!(
                    "`{other}` is no place for the access log{hint}; write `off`, `stdout` or \
                     the path of a file with a slash in it"
                );
                cx.report.note(at.place, message);
                None
            }
        }
    });
    Some(Log { level: level?, access: access? })
}

fn journal(raw: RawJournal) -> Option<Journal> {
    let segment_bytes = raw.segment_bytes.or(Size(defaults::SEGMENT_BYTES)).map(|size| size.0);
    let keep = raw.keep.or(Period(defaults::KEEP)).map(|period| period.0);
    let remove = raw.remove.or(RawRemove::Exported).map(|remove| match remove {
        RawRemove::Exported => Remove::Exported,
        RawRemove::Settled => Remove::Settled,
        RawRemove::Never => Remove::Never,
    });
    Some(Journal { segment_bytes: segment_bytes?, keep: keep?, remove: remove? })
}

fn limits(raw: RawLimits) -> Option<Limits> {
    let connections = raw.connections.or(Count(defaults::CONNECTIONS))?;
    let failed_auth = raw.failed_auth_per_minute.or(Count(defaults::FAILED_AUTH_PER_MINUTE))?;
    let used_signatures = raw.used_signatures.or(Count(defaults::USED_SIGNATURES))?;
    Some(Limits {
        connections: usize::try_from(connections.0).ok()?,
        head_timeout: period(raw.head_timeout, defaults::HEAD_TIMEOUT)?,
        idle_timeout: period(raw.idle_timeout, defaults::IDLE_TIMEOUT)?,
        connection_age: period(raw.connection_age, defaults::CONNECTION_AGE)?,
        body_timeout: period(raw.body_timeout, defaults::BODY_TIMEOUT)?,
        buffered_bytes: raw.buffered_bytes.or(Size(defaults::BUFFERED_BYTES))?.0,
        spool_above: raw.spool_above.or(Size(defaults::SPOOL_ABOVE))?.0,
        spooled_bytes: raw.spooled_bytes.or(Size(defaults::SPOOLED_BYTES))?.0,
        failed_auth_per_minute: u32::try_from(failed_auth.0).ok().and_then(NonZeroU32::new)?,
        used_signatures: usize::try_from(used_signatures.0).ok()?,
    })
}

impl Cx<'_> {
    /// Reads a text by a rule. `None` if it was wrong, `Some(None)` if it is absent.
    fn text<T, E: Display>(
        self,
        given: Given<String>,
        rule: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<At<T>>> {
        match given.optional()? {
            Some(at) => self.rule(at, rule).map(Some),
            None => Some(None),
        }
    }

    /// Reads a text that is there by a rule.
    fn rule<T, E: Display>(self, at: At<String>, rule: impl FnOnce(&str) -> Result<T, E>) -> Option<At<T>> {
        match rule(&at.value) {
            Ok(value) => Some(At { place: at.place, value }),
            Err(error) => {
                self.report.note(at.place, error.to_string());
                None
            }
        }
    }

    /// Notes a list that is too long.
    fn at_most(self, max: usize, count: usize, what: &str, place: PlaceId) -> Option<()> {
        if count > max {
            self.report.note(place, format!("{count} {what}; write at most {max}"));
            return None;
        }
        Some(())
    }

    fn path(self, at: At<String>) -> Option<PathBuf> {
        if at.value.trim().is_empty() {
            self.report.note(at.place, "the path is empty; write one");
            return None;
        }
        if at.value.contains('\0') {
            self.report.note(at.place, "the path holds a NUL character, which no path may; take it out");
            return None;
        }
        Some(self.folder.join(at.value))
    }

    /// A secret that is not empty and comes from no file that others can read.
    fn secret(self, place: PlaceId, secret: Secret) -> Option<SecretString> {
        if let Some(file) = self.report.exposed(place) {
            let file = file.display();
            let message = format!("others than its owner may read or change the file {file}; run `chmod 600 {file}`");
            self.report.note(place, message);
            return None;
        }
        if secret.0.expose_secret().trim().is_empty() {
            self.report.note(place, "the secret is empty; write one, or name where it stands, as in `${file:path}`");
            return None;
        }
        Some(secret.0)
    }
}
