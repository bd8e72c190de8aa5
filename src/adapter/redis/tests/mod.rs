//! What only this store does: its keys, its connections, what it refuses to work with. What every store does is in
//! `adapter/conformance.rs`.

mod refusals;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(in crate::adapter) use super::servers::{Cluster, Watched, redis_binary, valkey_binary};
use super::servers::{MASTER, Server, wait_until};
use super::*;
use crate::adapter::clock::SystemEntropy;
use crate::config::{HostPort, Login, RedisAddress, RedisServers};
use crate::domain::account::Account;
use crate::domain::id::KeyId;
use crate::domain::key::ApiKey;
use crate::ports::account_store::{Believed, Stamp, Write};
use crate::ports::clock::Clock;

/// Where the servers of a test are.
#[derive(Clone)]
pub(in crate::adapter) enum Place {
    Alone(Arc<Server>),
    Watched(Arc<Mutex<Watched>>),
    Cluster(Arc<Mutex<Cluster>>),
}

fn local(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

impl Place {
    /// One server, of a given program.
    pub(in crate::adapter) fn alone(binary: PathBuf) -> Self {
        Self::Alone(Arc::new(Server::of(binary, 0, &[])))
    }

    fn servers(&self) -> RedisServers {
        match self {
            Self::Alone(server) => RedisServers::One(RedisAddress::Socket(server.socket())),
            Self::Watched(watched) => RedisServers::Sentinel {
                master: MASTER.to_owned(),
                sentinels: watched.lock().unwrap().sentinels.iter().map(|sentinel| local(sentinel.port)).collect(),
                login: Login::default(),
            },
            Self::Cluster(cluster) => RedisServers::Cluster(
                cluster.lock().unwrap().addresses().into_iter().map(|(_, port)| local(port)).collect(),
            ),
        }
    }

    /// Carries out one command behind the store's back.
    fn ask(&self, command: &redis::Cmd) -> Value {
        match self {
            Self::Alone(server) => command.query(&mut server.connection()),
            Self::Watched(watched) => {
                let watched = watched.lock().unwrap();
                let primary = watched.pair.iter().find(|server| server.is_primary()).unwrap();
                command.query(&mut primary.connection())
            }
            Self::Cluster(cluster) => command.query(&mut cluster.lock().unwrap().connection()),
        }
        .unwrap()
    }
}

/// Settings for servers of a test, which may be slow because the machine is busy.
fn settings(servers: RedisServers, prefix: &str) -> Redis {
    Redis {
        servers,
        database: 0,
        prefix: prefix.to_owned(),
        tls: None,
        login: Login::default(),
        timeout: Duration::from_secs(5),
        volatile: true,
        durable: false,
    }
}

/// A store whose server's clock is the test's.
pub(in crate::adapter) struct World {
    pub(in crate::adapter) store: Arc<RedisStore>,
    place: Place,
}

impl World {
    pub(in crate::adapter) async fn open(place: Place, prefix: &str, clock: Arc<dyn Clock>) -> Self {
        let scripts = Scripts { clock: Some(clock), ..Scripts::new() };
        let settings = settings(place.servers(), prefix);
        let store = RedisStore::with(&settings, Arc::new(SystemEntropy), scripts).await.unwrap();
        Self { store: Arc::new(store), place }
    }

    fn keys(&self) -> &Keys {
        &self.store.shared.keys
    }

    /// The ids of an account's events.
    pub(in crate::adapter) fn outbox(&self, account: &AccountId) -> Vec<String> {
        let mut question = cmd("XRANGE");
        question.arg(self.keys().outbox(bucket_of(account))).arg("-").arg("+");
        let entries: Vec<(String, std::collections::HashMap<String, String>)> =
            redis::from_redis_value(self.place.ask(&question)).unwrap();
        let of_account = entries.into_iter().filter(|(_, fields)| fields["account"] == account.as_str());
        of_account.map(|(_, mut fields)| fields.remove("id").unwrap()).collect()
    }

    /// Replaces a document's text.
    pub(in crate::adapter) fn overwrite(&self, account: &AccountId, name: &str, body: &str) {
        let command = match name.strip_prefix("pool/") {
            Some(product) => cmd("HSET").arg(self.keys().pools(account)).arg(product).arg(body).to_owned(),
            None => cmd("SET").arg(self.keys().account(account)).arg(body).to_owned(),
        };
        self.place.ask(&command);
    }

    /// Makes every bucket that of another life.
    pub(in crate::adapter) fn forget_epochs(&self) {
        for bucket in keys::buckets() {
            self.place.ask(cmd("HDEL").arg(self.keys().server(bucket)).arg("epoch"));
        }
    }
}

/// A store as it is in production, on one server.
async fn open(server: &Server, change: impl FnOnce(&mut Redis)) -> Result<RedisStore, OpenError> {
    let mut settings = settings(RedisServers::One(RedisAddress::Socket(server.socket())), "tollgate");
    change(&mut settings);
    RedisStore::open(&settings, Arc::new(SystemEntropy)).await
}

async fn opened(server: &Server) -> RedisStore {
    open(server, |_| {}).await.unwrap()
}

fn account(id: &str) -> AccountId {
    AccountId::new(id).unwrap()
}

fn by(id: &str) -> Incarnation {
    Incarnation::try_from(format!("{id}#1")).unwrap()
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Renames an account, or opens it, with these keys.
fn naming(id: &str, loaded: Option<&Loaded>, keys: &[u8]) -> Commit {
    let before = loaded.map(|loaded| loaded.head.stamp);
    let mut head = Account::open(account(id), format!("Name of {id}"), Timestamp::UNIX_EPOCH);
    head.keys = keys.iter().map(|hash| key(*hash)).collect();
    let write = Write { expected: before, stamp: Stamp::next(before, random()), value: head };
    Commit {
        account: account(id),
        head: Some(write),
        pool: None,
        ended: Vec::new(),
        events: Vec::new(),
        durable: true,
        believed: Believed { now: Timestamp::now(), server: loaded.map(|loaded| loaded.server.clone()) },
        grants: false,
        by: by("gw"),
        turn: false,
    }
}

fn key(hash: u8) -> ApiKey {
    let id = KeyId::new(&format!("key-{hash}")).unwrap();
    ApiKey::new(id, KeyHash([hash; 32]), "sk-tg-ab…yz".into(), Timestamp::UNIX_EPOCH)
}

async fn load(store: &RedisStore, id: &str) -> Loaded {
    store.load(&account(id)).await.unwrap().unwrap()
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, impl Into<CommitError>>, words: &str) {
    match result.map_err(Into::into) {
        Err(CommitError::Store(StoreError::Unavailable(text))) => assert!(text.contains(words), "{text}"),
        other => panic!("not unavailable: {other:?}"),
    }
}

/// Asks until the store answers.
async fn until_answered<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_person_can_read_the_documents() {
    let server = Server::start(&[]);
    let store = opened(&server).await;
    store.commit(naming("acme", None, &[7])).await.unwrap();
    let text = |command: &str| redis::from_redis_value::<String>(server.ask(command)).unwrap();
    let head = text("GET tollgate:{82}:account:acme");
    assert!(head.starts_with(r#"{"version":1,"id":"acme","name":"Name of acme""#), "{head}");
    assert!(text("HGET tollgate:{82}:stamps:acme account").starts_with("1-"));
    assert!(text(&format!("GET tollgate:key:{}", "07".repeat(32))).starts_with("acme "));
    let names: Vec<String> = redis::from_redis_value(server.ask("KEYS *")).unwrap();
    assert!(names.iter().all(|name| name.starts_with("tollgate:") && !name.contains("probe")), "{names:?}");
}

#[tokio::test]
async fn installations_with_different_prefixes_know_nothing_of_each_other() {
    let server = Server::start(&[]);
    let one = opened(&server).await;
    let other = open(&server, |settings| settings.prefix = "other".to_owned()).await.unwrap();
    let mut heard = other.changes();
    one.commit(naming("a", None, &[1])).await.unwrap();
    one.heartbeat(&by("gw-1")).await.unwrap();
    assert_eq!(other.load(&account("a")).await.unwrap(), None);
    assert_eq!(other.account_of(KeyHash([1; 32])).await.unwrap(), None);
    assert_eq!(other.list(None).await.unwrap(), []);
    other.commit(naming("a", None, &[1])).await.unwrap();
    assert_eq!(other.heartbeat(&by("gw-2")).await.unwrap().live, [by("gw-2")]);
    assert_eq!(heard.try_recv(), Ok(Notice::Changed(account("a"))));
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_server_that_forgets_its_scripts_is_told_them_again() {
    let server = Server::start(&[]);
    let store = opened(&server).await;
    for round in 0..3 {
        server.ask("SCRIPT FLUSH");
        let seen = store.load(&account("a")).await.unwrap();
        server.ask("SCRIPT FLUSH");
        store.commit(naming("a", seen.as_ref(), &[])).await.unwrap();
        assert_eq!(load(&store, "a").await.head.stamp.counter, round + 1);
    }
}

#[tokio::test]
async fn what_is_wrong_with_one_accounts_keys_concerns_that_account_alone() {
    let server = Server::start(&[]);
    let store = opened(&server).await;
    let of = |name: &str, id: &str| format!("tollgate:{{{:02x}}}:{name}:{id}", bucket_of(&account(id)));
    let (stamps, head, pools) = (|id| of("stamps", id), |id| of("account", id), |id| of("pools", id));
    let cases: [(&str, Vec<String>); 8] = [
        ("another-kind", vec![format!("DEL {}", head("another-kind")), format!("LPUSH {} x", head("another-kind"))]),
        ("foreign-pools", vec![format!("SET {} x", pools("foreign-pools"))]),
        (
            "foreign-stamps",
            vec![format!("DEL {}", stamps("foreign-stamps")), format!("SET {} x", stamps("foreign-stamps"))],
        ),
        ("blank-text", vec![format!("SET {} ", head("blank-text"))]),
        ("blank-stamp", vec![format!("HSET {} account ", stamps("blank-stamp"))]),
        ("no-stamp", vec![format!("HDEL {} account", stamps("no-stamp"))]),
        ("no-text", vec![format!("DEL {}", head("no-text"))]),
        ("strange-pool", vec![format!("HSET {} a/b x", pools("strange-pool"))]),
    ];
    store.commit(naming("whole", None, &[1])).await.unwrap();
    let whole = load(&store, "whole").await;
    for (id, damage) in &cases {
        store.commit(naming(id, None, &[])).await.unwrap();
        let seen = load(&store, id).await;
        damage.iter().for_each(|command| drop(server.ask(command)));
        let broken = store.load(&account(id)).await;
        assert!(
            matches!(&broken, Err(StoreError::Broken { account, .. }) if account.as_str() == *id),
            "{id}: {broken:?}"
        );
        // A commit writes all or nothing of it.
        let answer = store.commit(naming(id, Some(&seen), &[])).await;
        let refused = matches!(&answer, Err(CommitError::Store(StoreError::Broken { .. })));
        assert!(refused || ["blank-text", "no-text", "strange-pool", "foreign-pools"].contains(id), "{id}: {answer:?}");
    }
    assert_eq!(load(&store, "whole").await.head, whole.head);
    let listed = store.list(None).await.unwrap();
    assert_eq!(listed.len(), cases.len() + 1);
    assert_eq!(listed.last().map(|entry| entry.name.as_str()), Some("Name of whole"));
}

#[tokio::test]
async fn a_foreign_key_in_a_buckets_place_leaves_the_other_buckets_alone() {
    let server = Server::start(&[]);
    let store = opened(&server).await;
    store.commit(naming("acme", None, &[])).await.unwrap();
    store.commit(naming("a", None, &[])).await.unwrap();
    let seen = load(&store, "acme").await;
    server.ask("DEL tollgate:{82}:accounts");
    server.ask("SET tollgate:{82}:accounts x");
    let refused = store.commit(naming("acme", Some(&seen), &[])).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::Broken { .. }))), "{refused:?}");
    assert_eq!(load(&store, "acme").await.head, seen.head, "nothing of it was written");
    assert_eq!(store.list(None).await.unwrap().len(), 1);
    store.commit(naming("b", None, &[])).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let mut server = Server::start(&[]);
    server.kill();
    let store = opened(&server).await;
    unavailable(store.load(&account("a")).await, "cannot be reached");
    assert_eq!(store.heard_at(), None);
    server.restart();
    until_answered(async || store.load(&account("a")).await).await;
    store.commit(naming("a", None, &[])).await.unwrap();
}

#[tokio::test]
async fn a_server_that_restarts_is_another_and_is_used_again_by_itself() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = opened(&server).await;
    store.commit(naming("a", None, &[])).await.unwrap();
    let before = load(&store, "a").await;
    server.restart();
    let after = until_answered(async || store.load(&account("a")).await).await.unwrap();
    assert_eq!(after.head, before.head);
    assert_ne!(after.server, before.server);
    let stranger = store.commit(naming("a", Some(&before), &[])).await;
    assert!(matches!(&stranger, Err(CommitError::Stranger(server)) if *server == after.server), "{stranger:?}");
    server.ask("FLUSHALL");
    store.commit(naming("a", None, &[])).await.unwrap();
    assert_ne!(load(&store, "a").await.server, after.server);
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up_after_the_time_limit() {
    const LIMIT: Duration = Duration::from_millis(100);
    let server = Server::start(&[]);
    let store = open(&server, |settings| settings.timeout = LIMIT).await.unwrap();
    store.commit(naming("a", None, &[])).await.unwrap();
    let mut changes = store.changes();
    server.signal(rustix::process::Signal::STOP);
    let (asked, seen) = (Instant::now(), naming("b", None, &[]));
    unavailable(store.commit(seen).await, "no answer within 100ms");
    assert!(asked.elapsed() < 2 * LIMIT + Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(changes.try_recv(), Ok(Notice::Changed(account("b"))), "it may have happened");
    server.signal(rustix::process::Signal::CONT);
    until_answered(async || store.load(&account("a")).await).await.unwrap();
}

#[tokio::test]
async fn a_server_that_has_become_a_replica_is_left_until_it_is_a_primary_again() {
    let server = Server::start(&[]);
    let store = opened(&server).await;
    store.commit(naming("a", None, &[])).await.unwrap();
    let seen = load(&store, "a").await;
    server.ask("REPLICAOF 127.0.0.1 1");
    unavailable(store.commit(naming("a", Some(&seen), &[])).await, "replica");
    server.ask("REPLICAOF NO ONE");
    until_answered(async || store.servers().await).await;
    store.commit(naming("a", Some(&seen), &[])).await.unwrap();
}

#[tokio::test]
async fn a_server_without_memory_refuses_writes_and_says_so() {
    let server = Server::start(&[]);
    let store = opened(&server).await;
    store.commit(naming("a", None, &[])).await.unwrap();
    let seen = load(&store, "a").await;
    server.ask("CONFIG SET maxmemory 1");
    match store.commit(naming("a", Some(&seen), &[])).await {
        Err(CommitError::Store(StoreError::Full(text))) => assert!(text.contains("raise its maxmemory"), "{text}"),
        other => panic!("not refused for want of memory: {other:?}"),
    }
    assert_eq!(load(&store, "a").await.head, seen.head);
    server.ask("CONFIG SET maxmemory 0");
    store.commit(naming("a", Some(&seen), &[])).await.unwrap();
}

#[tokio::test]
async fn a_durable_server_waits_for_nobody() {
    let server = Server::start(&[]);
    let (careful, durable) = (opened(&server).await, open(&server, |settings| settings.durable = true).await.unwrap());
    let servers = careful.servers().await.unwrap();
    let live = [by("gw-1"), by("gw-2")];
    assert_eq!(careful.check_in(&live[0], &servers, &live).await.unwrap(), CheckIn::Waiting);
    assert_eq!(durable.check_in(&live[0], &servers, &live).await.unwrap(), CheckIn::Open);
}

#[tokio::test]
async fn gateways_hear_each_other_and_know_when_they_have_missed_something() {
    let server = Server::start(&[]);
    let (one, other) = (opened(&server).await, opened(&server).await);
    let (mut own, mut theirs) = (one.changes(), other.changes());
    one.commit(naming("a", None, &[])).await.unwrap();
    one.notify(Notice::CheckIn).await.unwrap();
    for changes in [&mut own, &mut theirs] {
        assert_eq!(changes.recv().await, Ok(Notice::Changed(account("a"))));
        assert_eq!(changes.recv().await, Ok(Notice::CheckIn));
    }
    let before = other.heard_at().unwrap();
    one.heartbeat(&by("gw-1")).await.unwrap();
    let heard = async || {
        while other.heard_at().unwrap() <= before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard()).await.unwrap();
    server.ask("CLIENT KILL TYPE pubsub");
    assert_eq!(theirs.recv().await, Ok(Notice::Missed));
    assert_eq!(own.recv().await, Ok(Notice::Missed), "and its own words are not heard twice");
}

#[tokio::test]
async fn a_claim_that_no_document_bears_out_gives_way_when_it_is_old() {
    let server = Server::start(&[]);
    let store = opened(&server).await;
    for id in ["first", "second"] {
        store.commit(naming(id, None, &[])).await.unwrap();
    }
    let entry = format!("tollgate:key:{}", "07".repeat(32));
    let claim = |whose: &str, age: i64| {
        let at = Timestamp::now().as_microsecond() - age;
        redis::cmd("SET").arg(&entry).arg(format!("{whose} {at}")).exec(&mut server.connection()).unwrap();
    };
    let add = async || {
        let seen = load(&store, "second").await;
        store.commit(naming("second", Some(&seen), &[7])).await
    };
    claim("first", 0);
    let refused = add().await;
    assert!(matches!(refused, Err(CommitError::KeyTaken)), "its commit may be under way: {refused:?}");
    for (whose, age) in [("first", 60_000_000), ("nobody", 60_000_000), ("?", 0)] {
        claim(whose, age);
        add().await.unwrap();
        assert_eq!(store.account_of(KeyHash([7; 32])).await.unwrap(), Some(account("second")));
    }
    // However old a claim is: the document decides.
    claim("second", 60_000_000);
    let seen = load(&store, "first").await;
    let refused = store.commit(naming("first", Some(&seen), &[7])).await;
    assert!(matches!(refused, Err(CommitError::KeyTaken)), "{refused:?}");
    // An entry need not say where its account lies.
    let found = store.load_by_key(KeyHash([7; 32])).await.unwrap();
    assert_eq!(found.map(|found| found.head.value.id), Some(account("second")));
}

#[tokio::test]
async fn a_lost_index_of_keys_is_written_anew_after_the_check_in() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let store = open(&server, |settings| settings.durable = true).await.unwrap();
    store.commit(naming("a", None, &[1])).await.unwrap();
    store.commit(naming("b", None, &[2, 3])).await.unwrap();
    for hash in [1, 2, 3] {
        server.ask(&format!("DEL tollgate:key:{}", KeyHash([hash; 32])));
    }
    server.restart();
    let servers = until_answered(async || store.servers().await).await;
    assert_eq!(store.check_in(&by("gw"), &servers, &[by("gw")]).await.unwrap(), CheckIn::Open);
    for (hash, whose) in [(1, "a"), (2, "b"), (3, "b")] {
        wait_until("the index is complete", || {
            let entry = server.ask(&format!("GET tollgate:key:{}", KeyHash([hash; 32])));
            reply::text(entry).is_some_and(|entry| entry.starts_with(&format!("{whose} ")))
        });
    }
}

/// A clock that is set by the test.
struct SetClock(Mutex<Timestamp>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_nobody_wait() {
    let clock = Arc::new(SetClock(Mutex::new(Timestamp::now())));
    let world = World::open(Place::alone(redis_binary()), "tollgate", clock.clone()).await;
    let (store, live) = (&world.store, [by("gw-1"), by("gw-2")]);
    store.heartbeat(&live[0]).await.unwrap();
    let servers = store.servers().await.unwrap();
    assert_eq!(store.check_in(&live[0], &servers, &live).await.unwrap(), CheckIn::Waiting);
    let earlier = clock.now().checked_sub(jiff::SignedDuration::from_hours(1)).unwrap();
    *clock.0.lock().unwrap() = earlier;
    assert_eq!(store.heartbeat(&live[1]).await.unwrap().live, [live[1].clone()], "the first is silent by now");
    assert_eq!(store.check_in(&live[0], &servers, &live).await.unwrap(), CheckIn::Waiting);
    *clock.0.lock().unwrap() = earlier.checked_add(crate::domain::lease::LEASE_DURATION_MAX).unwrap();
    assert_eq!(store.check_in(&live[0], &servers, &live).await.unwrap(), CheckIn::Open);
}
