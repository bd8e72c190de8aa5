//! Redis and Valkey servers for tests: alone, with Sentinels, as a Cluster. Each has a folder of its own, keeps nothing
//! unless told to, and is killed when it is dropped. Nothing here knows how the gateway uses them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, Value};
use tempfile::TempDir;

/// Longest wait for a server or a failover. Generous, because machines that run tests are busy.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(10);
/// After so many milliseconds without an answer a server of a Cluster or before Sentinels is taken to be gone.
const GONE_AFTER_MS: &str = "1000";
/// Slots of a Cluster.
const SLOTS: u16 = 16_384;

/// Looks again and again until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        std::thread::park_timeout(POLL);
    }
}

/// The server program under test: `$TOLLGATE_REDIS_SERVER`, or the system's.
pub(crate) fn redis_binary() -> PathBuf {
    std::env::var_os("TOLLGATE_REDIS_SERVER").unwrap_or_else(|| "redis-server".into()).into()
}

/// The Valkey server to test on as well; `None`: `$TOLLGATE_VALKEY_SERVER` is not set.
pub(crate) fn valkey_binary() -> Option<PathBuf> {
    std::env::var_os("TOLLGATE_VALKEY_SERVER").map(PathBuf::from)
}

/// Ports that systems give to nobody who does not ask for them: connections of others do not take them away.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A port that nobody listened on a moment ago, and that no other caller in this process gets.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = u32::from(PORTS.end - PORTS.start);
    // Another process begins elsewhere.
    let first = std::process::id().wrapping_mul(257);
    let candidates = (0..ports).map(|_| {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ports;
        PORTS.start + u16::try_from(offset).unwrap()
    });
    let mut free = candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().unwrap_or_else(|| panic!("no port is free"))
}

/// One running server.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    /// 0: it listens on its socket alone.
    pub(crate) port: u16,
    binary: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Server {
    /// A Redis server that keeps nothing and listens on a socket in its folder, with further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(redis_binary(), 0, arguments)
    }

    /// One that listens on a port of 127.0.0.1 as well.
    pub(crate) fn on_port(arguments: &[&str]) -> Self {
        Self::of(redis_binary(), free_port(), arguments)
    }

    /// A server of a given program. A port that someone else has just taken is replaced by another.
    pub(crate) fn of(binary: PathBuf, port: u16, arguments: &[&str]) -> Self {
        let mut dir = tempfile::tempdir().unwrap();
        // With the gateways' folders, see `tests/canary`.
        dir.disable_cleanup(std::env::var_os("TOLLGATE_TESTS_KEEP").is_some());
        let mut arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        for (name, value) in [("--save", ""), ("--appendonly", "no"), ("--loglevel", "warning")] {
            if !arguments.iter().any(|argument| argument == name) {
                arguments.extend([name.to_owned(), value.to_owned()]);
            }
        }
        let child = spawn(&binary, dir.path(), port, &arguments);
        let mut server = Self { dir, port, binary, arguments, child };
        if !server.answers_soon() && port != 0 {
            server.port = free_port();
            server.restart();
        }
        server
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Whether it listens before it ends.
    fn answers_soon(&mut self) -> bool {
        let mut ended = false;
        let socket = self.socket();
        let child = &mut self.child;
        wait_until("the server listens", || {
            ended = child.try_wait().unwrap().is_some();
            ended || std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        !ended
    }

    /// Kill -9.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }

    /// Starts it again on its folder, after it has ended.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.socket());
        self.child = spawn(&self.binary, self.dir.path(), self.port, &self.arguments);
        assert!(self.answers_soon(), "the server ends at once: {}", self.log());
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Whether it lives and is no replica.
    pub(crate) fn is_primary(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket()).is_ok() && self.info("role") == "master"
    }

    /// A connection for tests, as the server's default user without a password.
    pub(crate) fn connection(&self) -> redis::Connection {
        self.try_connection().unwrap()
    }

    fn try_connection(&self) -> redis::RedisResult<redis::Connection> {
        let address = ConnectionAddr::Unix(self.socket());
        let info = address.into_connection_info()?.set_redis_settings(RedisConnectionInfo::default());
        redis::Client::open(info)?.get_connection()
    }

    /// Carries out one command, given in words.
    pub(crate) fn ask(&self, command: &str) -> Value {
        try_ask(&mut self.connection(), command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// One line of INFO; empty if the connection breaks: Sentinels cut those of a server that they make the primary.
    pub(crate) fn info(&self, name: &str) -> String {
        let text = self.try_connection().and_then(|mut connection| {
            let text: String = redis::from_redis_value(try_ask(&mut connection, "INFO")?)?;
            Ok(text)
        });
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the server said:\n{}\n---", self.log());
        }
    }
}

fn spawn(binary: &PathBuf, dir: &std::path::Path, port: u16, arguments: &[String]) -> Child {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new(binary);
    // A Sentinel's configuration file comes first.
    let (files, options): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.ends_with(".conf"));
    command.args(files).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
    command.arg("--unixsocket").arg(dir.join("redis.sock")).arg("--dir").arg(dir).args(options);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap_or_else(|error| {
        panic!("{} cannot be started ({error}); `./tests/run` installs redis-server if it is missing", binary.display())
    })
}

/// Carries out one command, given in words.
pub(crate) fn try_ask(connection: &mut impl redis::ConnectionLike, command: &str) -> redis::RedisResult<Value> {
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query(connection)
}

/// A Cluster of three primaries, the first of which has a replica.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let node = || {
            let bus = free_port().to_string();
            let timeout = ["--cluster-node-timeout", GONE_AFTER_MS, "--cluster-replica-validity-factor", "0"];
            let own = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes", "--cluster-port", bus.as_str()];
            let server = Server::on_port(&[&own[..], &timeout[..], &["--repl-diskless-sync-delay", "0"]].concat());
            (server, bus)
        };
        let nodes: Vec<(Server, String)> = (0..4).map(|_| node()).collect();
        let [_, others @ ..] = nodes.as_slice() else { unreachable!() };
        for (other, bus) in others {
            nodes[0].0.ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port));
        }
        for (index, (primary, _)) in (0..3_u16).zip(&nodes) {
            let (first, last) = (index * SLOTS / 3, (index + 1) * SLOTS / 3 - 1);
            primary.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        let first: String = redis::from_redis_value(nodes[0].0.ask("CLUSTER MYID")).unwrap();
        let nodes: Vec<Server> = nodes.into_iter().map(|(server, _)| server).collect();
        wait_until("the replica knows its primary", || {
            try_ask(&mut nodes[3].connection(), &format!("CLUSTER REPLICATE {first}")).is_ok()
        });
        let cluster = Self { nodes };
        cluster.wait_whole(&[0, 1, 2, 3]);
        wait_until("the replica follows", || cluster.nodes[3].info("master_link_status") == "up");
        cluster
    }

    /// Waits until these nodes see every slot served.
    fn wait_whole(&self, nodes: &[usize]) {
        for node in nodes {
            wait_until("the Cluster is whole", || {
                let state: String = redis::from_redis_value(self.nodes[*node].ask("CLUSTER INFO")).unwrap();
                let known: String = redis::from_redis_value(self.nodes[*node].ask("CLUSTER NODES")).unwrap();
                state.contains("cluster_state:ok") && known.lines().count() >= 4
            });
        }
    }

    /// Kills the first primary; its replica takes over by itself.
    pub(crate) fn fail_over(&mut self) {
        self.nodes[0].kill();
        wait_until("the replica is the primary", || self.nodes[3].info("role") == "master");
        self.wait_whole(&[1, 2, 3]);
    }

    pub(crate) fn addresses(&self) -> Vec<(String, u16)> {
        self.nodes.iter().map(|node| ("127.0.0.1".to_owned(), node.port)).collect()
    }

    /// A connection for tests.
    pub(crate) fn connection(&self) -> redis::cluster::ClusterConnection {
        let nodes = self.nodes.iter().map(|node| format!("redis://127.0.0.1:{}", node.port));
        redis::cluster::ClusterClient::new(nodes).unwrap().get_connection().unwrap()
    }
}

/// A primary and its replica, watched by three Sentinels as `books`.
pub(crate) struct Watched {
    pub(crate) pair: [Server; 2],
    pub(crate) sentinels: Vec<Server>,
}

/// The name under which the Sentinels watch the primary.
pub(crate) const MASTER: &str = "books";

impl Watched {
    pub(crate) fn start() -> Self {
        let primary = Server::on_port(&["--repl-diskless-sync-delay", "0"]);
        let replica = Server::on_port(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        wait_until("the replica follows", || replica.info("master_link_status") == "up");
        let sentinels: Vec<Server> = (0..3).map(|_| sentinel(primary.port)).collect();
        for sentinel in &sentinels {
            wait_until("the Sentinels know each other", || {
                let known = sentinel.ask(&format!("SENTINEL MASTER {MASTER}"));
                let known: std::collections::HashMap<String, String> = redis::from_redis_value(known).unwrap();
                known["num-other-sentinels"] == "2" && known["num-slaves"] == "1"
            });
        }
        Self { pair: [primary, replica], sentinels }
    }

    /// Kills the primary; the Sentinels make the replica the primary.
    pub(crate) fn fail_over(&mut self) {
        self.pair[0].kill();
        wait_until("the replica is the primary", || self.pair[1].info("role") == "master");
        let port = self.pair[1].port.to_string();
        wait_until("the Sentinels name it", || {
            let named = self.sentinels[0].ask(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}"));
            redis::from_redis_value::<Vec<String>>(named).unwrap().contains(&port)
        });
    }
}

fn sentinel(primary: u16) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor {MASTER} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {MASTER} {GONE_AFTER_MS}\n\
         sentinel failover-timeout {MASTER} 5000\n"
    );
    std::fs::write(&conf, text).unwrap();
    let port = free_port();
    let arguments = [conf.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
    let child = spawn(&redis_binary(), dir.path(), port, &arguments);
    let mut server = Server { dir, port, binary: redis_binary(), arguments: arguments.into(), child };
    assert!(server.answers_soon(), "the Sentinel ends at once: {}", server.log());
    server
}

/// An authority, and certificates by it for a server on 127.0.0.1 and for a client; made anew for each test.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    pub(crate) fn make() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        std::fs::write(made.file("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        made.openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        for name in ["server", "client"] {
            made.openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
            let signed = format!("-in {name}.csr -out {name}.pem -days 2 -extfile names");
            made.openssl(&format!("x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial {signed}"));
        }
        made
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(self.0.path()).output();
        let output = output.unwrap_or_else(|error| {
            panic!("openssl cannot be started ({error}); `./tests/run` installs it if it is missing")
        });
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
