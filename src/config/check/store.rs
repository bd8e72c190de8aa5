//! Where accounts are kept: the embedded store, or a Redis or Valkey server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::Cx;
use crate::config::address::host_name;
use crate::config::bounds::{URLS_MAX, USERNAME_BYTES_MAX};
use crate::config::problem::PlaceId;
use crate::config::raw::{RawRedis, RawRedisTls, RawSentinel, RawStore, defaults};
use crate::config::read::{At, Given};
use crate::config::scalar::{Period, Secret};
use crate::config::store::{ClientCertificate, HostPort, Login, Redis, RedisAddress, RedisServers, RedisTls, Store};
use crate::domain::id::ID_BYTES_MAX;

/// What a URL looks like.
const RIGHT: &str = "write `redis://host:port/database`, `rediss://host:port/database` or `unix:/path/to/socket`";
/// The port of a URL that names none, and of a Sentinel's.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Permission bits that let others than the owner read or change a file.
const OTHERS: u32 = 0o077;

pub(super) fn store(given: Given<RawStore>, root: PlaceId, cx: Cx<'_>) -> Option<Store> {
    let At { value: raw, .. } = given.section(root)?;
    let volatile = raw.volatile.optional();
    let Some(at) = raw.redis.optional()? else {
        if let Some(at) = volatile?.filter(|at| at.value) {
            cx.report.note(at.place, "only a server can be volatile, and `redis` is not set; take `volatile` out");
            return None;
        }
        return Some(Store::Embedded);
    };
    let redis = redis(at, cx);
    let volatile = volatile?.is_some_and(|at| at.value);
    Some(Store::Redis(Box::new(Redis { volatile, ..redis? })))
}

fn redis(at: At<RawRedis>, cx: Cx<'_>) -> Option<Redis> {
    let At { place, value: raw } = at;
    let sentinel = raw.sentinel.optional();
    let cluster = raw.cluster.optional();
    let with_sentinel = matches!(sentinel, Some(Some(_)));
    let urls = urls(raw.url, raw.urls, (place, with_sentinel), cx);
    let prefix = cx.text(raw.prefix, prefix);
    let login = login(raw.username, raw.password, cx);
    let timeout = raw.timeout.or(Period(defaults::REDIS_TIMEOUT)).map(|period| period.0);
    let durable = raw.durable.or(false);
    let tls_given = raw.tls.optional();
    let servers = match (sentinel?, cluster?, urls) {
        (Some(_), Some(cluster), _) if cluster.value => {
            cx.report.note(cluster.place, "a Cluster has no Sentinels; keep `sentinel` or `cluster`");
            return None;
        }
        (sentinel, cluster, urls) => {
            let sentinel = match sentinel {
                Some(at) => Some(master(at, cx)?),
                None => None,
            };
            servers(urls?, sentinel, cluster.filter(|at| at.value).map(|at| at.place), cx)?
        }
    };
    let tls = tls(tls_given?, servers.tls, cx)?;
    let prefix = prefix?.map_or_else(|| defaults::REDIS_PREFIX.to_owned(), |at| at.value);
    let (login, timeout, durable) = (login?, timeout?, durable?);
    let Servers { servers, database, .. } = servers;
    Some(Redis { servers, database, prefix, tls, login, timeout, volatile: false, durable })
}

/// One URL, read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    address: RedisAddress,
    database: i64,
    tls: bool,
}

/// What the URLs say together.
struct Servers {
    servers: RedisServers,
    database: i64,
    tls: bool,
}

/// The URLs under `url` or `urls`, at least one.
fn urls(
    one: Given<String>,
    many: Given<Vec<Given<String>>>,
    (place, sentinels): (PlaceId, bool),
    cx: Cx<'_>,
) -> Option<Vec<At<Url>>> {
    const BOTH: &str = "`url` and `urls` are both set; keep one of them";
    let port = if sentinels { SENTINEL_PORT } else { PORT };
    let read = |text: &str| Url::read(text, port);
    match (one.optional()?, many.optional()?) {
        (Some(_), Some(many)) => {
            cx.report.note(many.place, BOTH);
            None
        }
        (None, None) => {
            let why = "the key `url` is missing; add it, as in `url: redis://127.0.0.1:6379`";
            cx.report.note_below(place, "url", why);
            None
        }
        (Some(one), None) => Some(vec![cx.rule(one, read)?]),
        (None, Some(many)) if many.value.is_empty() || many.value.len() > URLS_MAX => {
            cx.report.note(many.place, format!("{} URLs; write 1 to {URLS_MAX}", many.value.len()));
            None
        }
        (None, Some(many)) => {
            let each: Vec<_> = many.value.into_iter().map(|given| cx.text(given, read).flatten()).collect();
            each.into_iter().collect()
        }
    }
}

impl Url {
    fn read(text: &str, port_default: u16) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.starts_with("//") {
                return Err(format!("`{text}` has no absolute path; {RIGHT}"));
            }
            let address = RedisAddress::Socket(PathBuf::from(path));
            return Ok(Self { address, database: 0, tls: false });
        }
        if text.contains('@') {
            // The text is not repeated: it may hold a password.
            return Err(format!("a name or password before `@`; use `username` and `password`; {RIGHT}"));
        }
        let (tls, rest) = match (text.strip_prefix("rediss://"), text.strip_prefix("redis://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(format!("`{text}` is no address of a server; {RIGHT}")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = RedisAddress::Network(HostPort::read(authority, port_default)?);
        let database = match path {
            "" => 0,
            digits if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().unwrap_or(0),
            other => return Err(format!("`{other}` is not the number of a database; {RIGHT}")),
        };
        Ok(Self { address, database, tls })
    }
}

impl HostPort {
    fn read(authority: &str, port_default: u16) -> Result<Self, String> {
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, rest.strip_prefix(':')),
            Some(_) => return Err(format!("`{authority}` is not a host and port; {RIGHT}")),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let bracketed = authority.starts_with('[');
        if !bracketed && !host_name(host) {
            return Err(format!("`{host}` is not a host; {RIGHT}"));
        }
        let port = match port {
            None => port_default,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("`{authority}` has no port from 1 to 65535 after its `:`; {RIGHT}"))?,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if text.is_empty() || text.len() > ID_BYTES_MAX || !plain {
        return Err(format!("`{text}` is no prefix; write 1 to {ID_BYTES_MAX} characters of a-z A-Z 0-9 - _ ."));
    }
    Ok(text.to_owned())
}

fn login(username: Given<String>, password: Given<Secret>, cx: Cx<'_>) -> Option<Login> {
    let username = cx.text(username, |text| {
        let plain = text.bytes().all(|b| b.is_ascii_graphic());
        if text.is_empty() || text.len() > USERNAME_BYTES_MAX || !plain {
            return Err("not the name of a user; write visible ASCII characters without spaces");
        }
        Ok(text.to_owned())
    });
    let password = match password.optional()? {
        Some(at) => Some((at.place, cx.secret(at.place, at.value)?)),
        None => None,
    };
    match (username?, password) {
        (Some(name), None) => {
            cx.report.note(name.place, "a user without a password; add `password`, as in `\"${file:redis.password}\"`");
            None
        }
        (name, password) => {
            Some(Login { username: name.map(|at| at.value), password: password.map(|(_, secret)| secret) })
        }
    }
}

/// The name of a Sentinels' master, and who we are to them.
fn master(at: At<RawSentinel>, cx: Cx<'_>) -> Option<(String, Login)> {
    let name = at.value.master.required("master", at.place, "mymaster", cx.report);
    let name = name.and_then(|at| {
        let plain = !at.value.is_empty() && at.value.bytes().all(|b| b.is_ascii_graphic());
        if !plain {
            cx.report.note(at.place, "not the name of a master; write it as in `sentinel monitor NAME …`");
        }
        plain.then_some(at.value)
    });
    let login = login(at.value.username, at.value.password, cx);
    Some((name?, login?))
}

fn servers(
    urls: Vec<At<Url>>,
    sentinel: Option<(String, Login)>,
    cluster: Option<PlaceId>,
    cx: Cx<'_>,
) -> Option<Servers> {
    let first = urls.first()?.clone();
    let (database, tls) = (first.value.database, first.value.tls);
    if let Some(other) = urls.iter().find(|at| (at.value.tls, at.value.database) != (tls, database)) {
        cx.report.note(other.place, "not the scheme or database of the first URL; all must have the same");
        return None;
    }
    if cluster.is_some() && database != 0 {
        cx.report.note(first.place, "a Cluster has database 0 alone; take the number out");
        return None;
    }
    if sentinel.is_none() && cluster.is_none() {
        if let Some(second) = urls.get(1) {
            let why = "a second server, but neither `cluster: true` nor `sentinel` says what they are; add one of the two, \
                       or keep one URL";
            cx.report.note(second.place, why);
            return None;
        }
        return Some(Servers { servers: RedisServers::One(first.value.address), database, tls });
    }
    let mut nodes = Vec::with_capacity(urls.len());
    for At { place, value } in urls {
        let RedisAddress::Network(node) = value.address else {
            cx.report.note(place, "a socket is reached from this machine alone; write `redis://host:port`");
            return None;
        };
        nodes.push(node);
    }
    let servers = match sentinel {
        Some((master, login)) => RedisServers::Sentinel { master, sentinels: nodes, login },
        None => RedisServers::Cluster(nodes),
    };
    Some(Servers { servers, database, tls })
}

fn tls(given: Option<At<RawRedisTls>>, spoken: bool, cx: Cx<'_>) -> Option<Option<RedisTls>> {
    let Some(At { place, value: raw }) = given else { return Some(spoken.then(RedisTls::default)) };
    if !spoken {
        cx.report.note(place, "certificates are for TLS; write `rediss://` in the URL, or take `tls` out");
        return None;
    }
    let ca_file = match raw.ca_file.optional()? {
        Some(at) => Some(certificates(at, cx)?),
        None => None,
    };
    let client = match (raw.client_cert.optional()?, raw.client_key.optional()?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (certificates(certificate, cx), private_key(key, cx));
            Some(ClientCertificate { certificate: certificate?, key: key? })
        }
        (Some(at), None) | (None, Some(at)) => {
            cx.report
                .note(at.place, "a certificate and its key belong together; set both `client_cert` and `client_key`");
            return None;
        }
    };
    Some(Some(RedisTls { ca_file, client }))
}

fn certificates(at: At<String>, cx: Cx<'_>) -> Option<PathBuf> {
    let place = at.place;
    let path = cx.path(at)?;
    if let Err(why) = super::upstream::holds_certificates(&path) {
        cx.report.note(place, format!("the file {} {why}; name a PEM file with certificates", path.display()));
        return None;
    }
    Some(path)
}

fn private_key(at: At<String>, cx: Cx<'_>) -> Option<PathBuf> {
    let place = at.place;
    let path = cx.path(at)?;
    if let Err(why) = holds_a_key(&path) {
        cx.report.note(place, format!("the file {} {why}", path.display()));
        return None;
    }
    Some(path)
}

fn holds_a_key(path: &Path) -> Result<(), String> {
    let unreadable =
        |error: std::io::Error| format!("cannot be read ({error}); name a file that this process may read");
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(format!("may be read or changed by others than its owner; run `chmod 600 {}`", path.display()));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes);
    key.map(drop).map_err(|_| "holds no private key; name a PEM file with one".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, tls: bool, host: &str, port: u16, database: i64) {
        let address = RedisAddress::Network(HostPort { host: host.to_owned(), port });
        assert_eq!(Url::read(text, PORT), Ok(Url { address, database, tls }), "{text}");
    }

    fn refused(text: &str, word: &str) {
        let message = Url::read(text, PORT).err().unwrap_or_default();
        assert!(message.contains(word), "{text}: {message:?}");
    }

    #[test]
    fn urls_are_read() {
        check("redis://127.0.0.1:6380/3", false, "127.0.0.1", 6380, 3);
        check("redis://127.0.0.1", false, "127.0.0.1", 6379, 0);
        check("rediss://redis.example.com/", true, "redis.example.com", 6379, 0);
        check("redis://[::1]:7000/15", false, "::1", 7000, 15);
        check("redis://[::1]", false, "::1", 6379, 0);
        let socket = RedisAddress::Socket(PathBuf::from("/run/redis.sock"));
        assert_eq!(Url::read("unix:/run/redis.sock", PORT), Ok(Url { address: socket, database: 0, tls: false }));
    }

    #[test]
    fn what_is_no_url() {
        refused("", "no address of a server");
        refused("127.0.0.1:6379", "no address of a server");
        refused("http://x", "no address of a server");
        refused("redis://", "is not a host");
        refused("redis://:6379", "is not a host");
        refused("redis://a b", "is not a host");
        refused("redis://x:0", "no port from 1");
        refused("redis://x:65536", "no port from 1");
        refused("redis://x:", "no port from 1");
        refused("redis://[::g]:1", "not a host and port");
        refused("redis://x/one", "not the number of a database");
        refused("redis://x/-1", "not the number of a database");
        refused("redis://x/123456", "not the number of a database");
        refused("redis://x/0/1", "not the number of a database");
        refused("redis://x?db=1", "is not a host");
        refused("unix:socket", "no absolute path");
        refused("unix://run/redis.sock", "no absolute path");
        for secret in ["redis://user:hunter2@x", "redis://:hunter2@x/0"] {
            refused(secret, "use `username` and `password`");
            assert!(!Url::read(secret, PORT).unwrap_err().contains("hunter2"));
        }
    }
}
