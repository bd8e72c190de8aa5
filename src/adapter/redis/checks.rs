//! What is looked at before a connection is used: is it the server that the configuration describes, does it keep what it
//! is given, may we do what we must? Each refusal says what to do.

use std::collections::HashMap;

use futures_util::future::join_all;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::dial::Wire;
use super::fault::{Down, Fault, Refusal};
use super::keys::{Keys, REGISTRY};
use super::reply;
use super::script::Script;
use crate::config::{Redis, RedisAddress, RedisServers};

/// The oldest version that is used: it takes what the scripts do as one change, and can name a key's last owner.
const VERSION_MIN: (u32, u32) = (7, 0);
/// How long what was written to try commands may stay, if it could not be removed.
const PROBE_MS: &str = "5000";

/// What a server must be.
pub(super) struct Checks {
    keys: Keys,
    /// Tells servers apart; tried before anything else is.
    identify: Script,
    cluster: bool,
    volatile: bool,
    username: String,
    /// Where the server is, for messages.
    place: String,
    timeout: std::time::Duration,
}

impl Checks {
    pub(super) fn new(config: &Redis, keys: Keys, identify: Script) -> Self {
        Self {
            keys,
            identify,
            cluster: matches!(config.servers, RedisServers::Cluster(_)),
            volatile: config.volatile,
            username: config.login.username.clone().unwrap_or_else(|| "default".to_owned()),
            place: place(&config.servers),
            timeout: config.timeout,
        }
    }

    fn unfit<T>(&self, why: &str) -> Result<T, Down> {
        Err(Down::Refused(Refusal::Unfit(format!("the store's server {} {why}", self.place))))
    }

    /// Why there is no connection.
    pub(super) fn unreachable(&self, error: &RedisError) -> Down {
        let said = error.to_string();
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let place = &self.place;
        if error.kind() == ErrorKind::AuthenticationFailed || has(&["WRONGPASS", "NOAUTH", "AuthenticationFailed"]) {
            let text = format!(
                "the store's server {place} does not let the user `{}` in: correct `store.redis.username` and \
                 `store.redis.password` ({said})",
                self.username
            );
            return Down::Refused(Refusal::Login(text));
        }
        let unfit = |why: &str| Down::Refused(Refusal::Unfit(format!("the store's server {place} {why} ({said})")));
        if has(&["cluster support disabled"]) {
            return unfit("is no node of a Cluster; take `store.redis.cluster` out");
        }
        if has(&["invalid peer certificate"]) {
            return unfit("has a certificate that is not trusted; name its authority in `store.redis.tls.ca_file`");
        }
        if has(&["CertificateRequired"]) {
            return unfit("wants to see our certificate; set `store.redis.tls.client_cert` and `client_key`");
        }
        if error.kind() == ErrorKind::MasterNameNotFoundBySentinel {
            return unfit("does not know the master of `store.redis.sentinel.master`; correct the name");
        }
        Down::Away(format!("the store's server {place} cannot be reached: {said}"))
    }

    /// Looks at the server behind a fresh connection.
    pub(super) async fn check(&self, wire: Wire) -> Result<(), Down> {
        let infos = self.everywhere(&wire, cmd("INFO")).await.map_err(|error| self.unanswered("info", &error))?;
        let mut persistent = true;
        for info in infos {
            persistent &= self.check_info(&Info::new(&reply::text(info).unwrap_or_default()))?;
        }
        if !persistent && !self.volatile {
            self.check_saving(&wire).await?;
        }
        self.check_commands(&wire).await?;
        self.check_scripts(wire).await
    }

    /// An answer from each server that holds accounts.
    async fn everywhere(&self, wire: &Wire, mut command: Cmd) -> RedisResult<Vec<Value>> {
        match wire.clone() {
            Wire::One(_) => Ok(vec![wire.clone().send(&command).await?]),
            Wire::Cluster(mut connection) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let answers = connection.route_command(std::mem::take(&mut command), all).await?;
                Ok(if let Value::Map(nodes) = answers {
                    nodes.into_iter().map(|(_, answer)| answer).collect()
                } else {
                    reply::list(answers).into_iter().filter_map(|pair| reply::list(pair).pop()).collect()
                })
            }
        }
    }

    /// A command that was not answered as it should have been.
    fn unanswered(&self, command: &str, error: &RedisError) -> Down {
        if forbidden(error) {
            return Down::Refused(self.lacking(&[command.to_owned()]));
        }
        match self.unreachable(error) {
            Down::Away(_) => Down::Away(match Fault::of(error, self.timeout) {
                Fault::Away(text) | Fault::Full(text) | Fault::Foreign(text) => {
                    format!("the store's server {}: {text}", self.place)
                }
                Fault::Forgotten => "the server forgets scripts at once".to_owned(),
            }),
            refused @ Down::Refused(_) => refused,
        }
    }

    /// Whether the server writes what it gets to its disk, as far as INFO says so.
    fn check_info(&self, info: &Info<'_>) -> Result<bool, Down> {
        match (info.get("redis_mode"), self.cluster) {
            ("sentinel", _) => return self.unfit("is a Sentinel; add `store.redis.sentinel: { master: … }`"),
            ("cluster", false) => return self.unfit("is a node of a Cluster; set `store.redis.cluster: true`"),
            ("standalone", true) => return self.unfit("is no node of a Cluster; take `store.redis.cluster` out"),
            _ => {}
        }
        let version = info.get("redis_version");
        if version_of(version).is_none_or(|found| found < VERSION_MIN) {
            let (major, minor) = VERSION_MIN;
            return self.unfit(&format!(
                "has version `{version}`; it must be Redis {major}.{minor} or newer, or Valkey: upgrade it"
            ));
        }
        if info.get("loading") == "1" {
            return Err(Down::Away(format!("the store's server {} is still loading its data", self.place)));
        }
        if info.get("role") == "slave" {
            let primary = format!("{}:{}", info.get("master_host"), info.get("master_port"));
            return self.unfit(&format!(
                "is a replica of {primary}; name the primary, or the Sentinels that know it, under `store.redis`"
            ));
        }
        let policy = info.get("maxmemory_policy");
        if policy != "noeviction" {
            return self.unfit(&format!(
                "has `maxmemory-policy {policy}`, by which it may throw accounts away; set it to `noeviction`"
            ));
        }
        Ok(info.get("aof_enabled") == "1")
    }

    /// Whether a server without AOF at least saves its data in RDB files.
    async fn check_saving(&self, wire: &Wire) -> Result<(), Down> {
        const NEITHER: &str = "writes nothing to its disk (`appendonly no` and no `save` points), so that all accounts \
                               are gone when it ends; set `appendonly yes`, or accept it with `store.volatile: true`";
        const UNSEEN: &str = "has no AOF, and its `save` points cannot be seen because `CONFIG GET` is not allowed; \
                              set `appendonly yes`, allow `CONFIG GET`, or accept it with `store.volatile: true`";
        let mut question = cmd("CONFIG");
        question.arg("GET").arg("save");
        let Ok(answers) = self.everywhere(wire, question).await else { return self.unfit(UNSEEN) };
        let saves = |answer: Value| reply::pairs(answer).into_iter().any(|(_, points)| !points.is_empty());
        if answers.into_iter().all(saves) { Ok(()) } else { self.unfit(NEITHER) }
    }

    /// Tries every command that is used, on keys of its own.
    async fn check_commands(&self, wire: &Wire) -> Result<(), Down> {
        let tried = self.probes().into_iter().map(|(name, command)| {
            let mut wire = wire.clone();
            async move { (name, wire.send(&command).await) }
        });
        let mut lacking = Vec::new();
        for (name, answer) in join_all(tried).await {
            if let Err(error) = answer
                && forbidden(&error)
            {
                lacking.push(name.to_owned());
            }
        }
        if lacking.is_empty() { Ok(()) } else { Err(Down::Refused(self.lacking(&lacking))) }
    }

    /// Every command that scripts and questions use, in an order in which each has something to work on.
    fn probes(&self) -> Vec<(&'static str, Cmd)> {
        let key = |kind| self.keys.probe(kind);
        let (text, hash, set, list) = (key("text"), key("hash"), key("set"), key("list"));
        let (sorted, stream) = (key("sorted"), key("stream"));
        let probe = |name: &'static str, arguments: &[&str]| (name, command(name, arguments));
        vec![
            probe("TIME", &[]),
            probe("SET", &[&text, "probe", "PX", PROBE_MS]),
            probe("GET", &[&text]),
            probe("MGET", &[&text]),
            probe("STRLEN", &[&text]),
            probe("HSET", &[&hash, "probe", "1"]),
            probe("HGET", &[&hash, "probe"]),
            probe("HMGET", &[&hash, "probe"]),
            probe("HSTRLEN", &[&hash, "probe"]),
            probe("HGETALL", &[&hash]),
            probe("HDEL", &[&hash, "probe"]),
            probe("SADD", &[&set, "probe"]),
            probe("SCARD", &[&set]),
            probe("LPUSH", &[&list, "probe"]),
            probe("LLEN", &[&list]),
            probe("LRANGE", &[&list, "0", "0"]),
            probe("ZADD", &[&sorted, "0", "probe"]),
            probe("ZCARD", &[&sorted]),
            probe("ZRANGEBYLEX", &[&sorted, "-", "+", "LIMIT", "0", "1"]),
            probe("ZRANGEBYSCORE", &[&sorted, "-inf", "+inf"]),
            probe("ZREMRANGEBYSCORE", &[&sorted, "1", "1"]),
            probe("ZREM", &[&sorted, "probe"]),
            probe("XADD", &[&stream, "MAXLEN", "1", "*", "probe", "1"]),
            probe("XLEN", &[&stream]),
            probe("PUBLISH", &[&self.keys.notices(), "probe"]),
            probe("DEL", &[&text, &hash, &set, &list, &sorted, &stream]),
        ]
    }

    fn lacking(&self, commands: &[String]) -> Refusal {
        let (names, prefix) = (commands.join(", ").to_lowercase(), self.keys.prefix());
        Refusal::Login(format!(
            "the store's server {} does not let the user `{}` do: {names}; allow it, as in `ACL SETUSER {} ~{prefix}:* \
             &{prefix}:* +@all -@admin +info` (docs/store.md names the least)",
            self.place, self.username, self.username
        ))
    }

    /// Whether scripts run, and may ask who runs them.
    async fn check_scripts(&self, mut wire: Wire) -> Result<(), Down> {
        let (server, epoch) = (self.keys.server(REGISTRY), "probe");
        // An epoch that is there stays; a new one must be random, so it is left to the first question.
        let body = self.identify.text().replace("redis.call('HSET', KEYS[1], 'epoch', epoch)", "");
        let whole = command("EVAL", &[&body, "1", &server, epoch]);
        let by_hash = command("EVALSHA", &[Script::new(&body).hash(), "1", &server, epoch]);
        for (name, command) in [("EVAL", whole), ("EVALSHA", by_hash)] {
            let Err(error) = wire.send(&command).await else { continue };
            let said = error.to_string();
            if forbidden(&error) {
                return Err(Down::Refused(self.lacking(&[name.to_owned()])));
            }
            if said.contains("not allowed from script") || said.contains("ACL failure") || said.contains("denied") {
                return self.unfit(&format!(
                    "does not let scripts do what ours must (INFO, HMGET, TIME); use one that does, or allow it ({said})"
                ));
            }
            return Err(self.unanswered(name, &error));
        }
        Ok(())
    }
}

fn command(name: &str, arguments: &[&str]) -> Cmd {
    let mut command = cmd(name);
    for argument in arguments {
        command.arg(argument);
    }
    command
}

/// Whether a command was refused whatever it is asked: by the ACL, or because the server has it not.
fn forbidden(error: &RedisError) -> bool {
    let unknown = error.detail().is_some_and(|detail| detail.contains("unknown command"));
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || unknown
}

fn place(servers: &RedisServers) -> String {
    let all = |nodes: &[crate::config::HostPort]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match servers {
        RedisServers::One(RedisAddress::Network(node)) => node.to_string(),
        RedisServers::One(RedisAddress::Socket(path)) => path.display().to_string(),
        RedisServers::Sentinel { master, sentinels, .. } => format!("`{master}` (Sentinels {})", all(sentinels)),
        RedisServers::Cluster(nodes) => format!("(Cluster {})", all(nodes)),
    }
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// What INFO says, by name; what it does not say is empty.
struct Info<'a>(HashMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    fn new(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.trim_end().split_once(':')).collect())
    }

    fn get(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPort, Login};

    fn checks(cluster: bool) -> Checks {
        let node = HostPort { host: "r".to_owned(), port: 6379 };
        let one = RedisServers::One(RedisAddress::Network(node.clone()));
        let config = Redis {
            servers: if cluster { RedisServers::Cluster(vec![node]) } else { one },
            database: 0,
            prefix: "tollgate".to_owned(),
            tls: None,
            login: Login::default(),
            timeout: std::time::Duration::from_millis(250),
            volatile: false,
            durable: false,
        };
        Checks::new(&config, Keys::new("tollgate"), Script::new(""))
    }

    /// Changes one line of a good server's INFO.
    fn check(cluster: bool, line: &str, words: &str) {
        let name = line.split_once(':').map_or("", |(name, _)| name);
        let mode = if cluster { "cluster" } else { "standalone" };
        let good = ["redis_version:7.0.15", "role:master", "loading:0", "maxmemory_policy:noeviction", "aof_enabled:1"];
        let mode = format!("redis_mode:{mode}");
        let lines = good.into_iter().chain([mode.as_str()]).filter(|good| !good.starts_with(&format!("{name}:")));
        let text = lines.chain([line]).collect::<Vec<_>>().join("\r\n");
        let said = match checks(cluster).check_info(&Info::new(&text)) {
            Ok(persistent) => format!("persistent: {persistent}"),
            Err(Down::Refused(why)) => why.to_string(),
            Err(Down::Away(why)) => why,
        };
        assert!(said.contains(words), "{line}: {said}");
    }

    #[test]
    fn a_server_that_is_not_what_is_needed_is_refused() {
        check(false, "redis_version:7.0.0", "persistent: true");
        check(false, "redis_version:6.2.14", "upgrade it");
        check(false, "redis_version:7.2.4\r\nvalkey_version:9.1.2", "persistent: true");
        check(false, "redis_version:10.0.1", "persistent: true");
        check(false, "redis_version:", "upgrade it");
        check(false, "maxmemory_policy:allkeys-lru", "set it to `noeviction`");
        check(false, "maxmemory_policy:volatile-ttl", "set it to `noeviction`");
        check(false, "role:slave\r\nmaster_host:p\r\nmaster_port:1", "replica of p:1");
        check(false, "redis_mode:cluster", "set `store.redis.cluster: true`");
        check(false, "redis_mode:sentinel", "is a Sentinel");
        check(true, "redis_mode:standalone", "take `store.redis.cluster` out");
        check(true, "redis_mode:cluster", "persistent: true");
        check(false, "loading:1", "still loading");
        check(false, "aof_enabled:0", "persistent: false");
    }
}
