//! What is measured, except Tollgate: the stub itself (no proxy), nginx, and the bare hyper proxy.

use crate::client::{Destination, Transport};
use crate::driver::{Load, Pace};
use crate::machine::Cores;
use crate::process::{Process, START_MAX};
use crate::tollgate::{self as gateway, Caller};
use crate::{Result, SETTLE_POLL, stub, wire};
use ::tollgate::protocol::signature::{BodyHash, DATE, SignedRequest, SigningKey, date_text, sign};
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// The body of a small call, and of every stream's.
pub(crate) const SMALL_BYTES: usize = 170;
/// The body of a call that shows what its hash costs.
pub(crate) const LARGER_BYTES: usize = 1 << 10;
/// What the official OpenAI SDK for Python sends besides (3.54.0, as recorded): the calls are those of its users.
const SDK_HEAD: [&str; 12] = [
    "accept-encoding: gzip, deflate",
    "accept: application/json",
    "user-agent: OpenAI/Python 3.54.0",
    "x-stainless-lang: python",
    "x-stainless-package-version: 3.54.0",
    "x-stainless-os: Linux",
    "x-stainless-arch: x64",
    "x-stainless-runtime: CPython",
    "x-stainless-runtime-version: 3.11.7",
    "x-stainless-async: false",
    "x-stainless-retry-count: 0",
    "x-stainless-read-timeout: 600",
];
/// What SDKs send wherever they call, as long as a key of Tollgate's: every target gets the same head to read, whether it
/// looks at the key or not.
pub(crate) const KEY_OF_NOBODY: &str = "authorization: Bearer sk-bench-000000000000000000000000000000000";
/// The server program for accounts.
const REDIS: &str = "redis-server";
/// Where Debian keeps nginx when the search path of a user does not name it.
const NGINX_OUTSIDE_PATH: &str = "/usr/sbin/nginx";

/// The targets, in the order of the report.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The stub on the target's core, without a proxy: what is left for a proxy to add to.
    Direct,
    Nginx,
    Bare,
    /// Tollgate, an open product that is not metered.
    Plain,
    /// Tollgate, key checked, quota drawn, calls counted.
    Metered,
    /// The same, its accounts on a Redis server instead of the embedded store. The server's own CPU is not counted.
    Redis,
    /// As metered, each call signed with an app's secret instead of a key.
    Signed,
    /// As metered, each call with an AppCode.
    AppCode,
    /// As metered, over TLS on kept connections.
    Tls,
    /// As metered, each call on a new connection over a resumed TLS session.
    TlsResumed,
    /// As metered, over HTTP/2 without TLS.
    H2c,
    /// As metered, over HTTP/2 and TLS.
    H2,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Direct,
        Self::Nginx,
        Self::Bare,
        Self::Plain,
        Self::Metered,
        Self::Redis,
        Self::Signed,
        Self::AppCode,
        Self::Tls,
        Self::TlsResumed,
        Self::H2c,
        Self::H2,
    ];
    /// What differs in the proxy itself, for most scenarios.
    pub(crate) const PROXIES: &[Self] =
        &[Self::Direct, Self::Nginx, Self::Bare, Self::Plain, Self::Metered, Self::Redis];
    /// What differs in the credential alone.
    pub(crate) const CREDENTIALS: &[Self] = &[Self::Metered, Self::Signed, Self::AppCode];
    /// What differs in the way to the gateway alone.
    pub(crate) const TRANSPORTS: &[Self] = &[Self::Metered, Self::Tls, Self::TlsResumed, Self::H2c, Self::H2];

    /// The name on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Bare => "bare",
            Self::Plain => "plain",
            Self::Metered => "metered",
            Self::Redis => "redis",
            Self::Signed => "signed",
            Self::AppCode => "app-code",
            Self::Tls => "tls",
            Self::TlsResumed => "tls-resumed",
            Self::H2c => "h2c",
            Self::H2 => "h2",
        }
    }
}

/// Where processes are started and what they proxy to.
pub(crate) struct Place<'a> {
    pub(crate) cores: Cores,
    pub(crate) upstream: SocketAddr,
    /// A directory of its own for this target.
    pub(crate) dir: &'a Path,
}

/// How a target is called: its address and the way there, path, headers as whole lines, and who signs the calls, if
/// anybody does.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
    pub(crate) signer: Option<Signer>,
}

/// An app's AppKey and secret.
pub(crate) struct Signer {
    pub(crate) app_key: String,
    pub(crate) secret: String,
}

impl Signer {
    /// The headers that sign a POST request, as whole lines.
    fn sign(&self, endpoint: &Endpoint, body: &str) -> Result<[String; 2]> {
        let date = date_text(Timestamp::now());
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(&endpoint.address.to_string())?);
        headers.insert(DATE, HeaderValue::from_str(&date)?);
        let request = SignedRequest { method: "POST", target: &endpoint.path, headers: &headers, authority: None };
        let key = SigningKey::new(self.secret.as_bytes());
        let authorization = sign(&self.app_key, &key, request, BodyHash::of(body.as_bytes()))?;
        Ok([format!("x-sdk-date: {date}"), format!("authorization: {authorization}")])
    }
}

/// A running target.
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    /// The server of its accounts, if it has one: ends with it.
    _store: Option<Process>,
    pub(crate) endpoint: Endpoint,
    /// The stub that answers its calls.
    pub(crate) upstream: SocketAddr,
}

impl Target {
    /// Starts the target and makes one call through it. `None`: nginx or redis-server is not installed.
    pub(crate) async fn start(kind: Kind, place: &Place<'_>) -> Result<Option<Self>> {
        let mut store = None;
        let key = async |transport| gateway::start(place, Caller::Key, transport, None).await;
        let certificate = || gateway::make_certificate(place.dir);
        let (process, endpoint) = match kind {
            Kind::Direct => start_stub(place).await?,
            Kind::Nginx => match start_nginx(place).await? {
                Some(started) => started,
                None => return Ok(None),
            },
            Kind::Bare => start_bare(place).await?,
            Kind::Plain => gateway::start(place, Caller::Nobody, Transport::Http1, None).await?,
            Kind::Metered => key(Transport::Http1).await?,
            Kind::Redis => {
                let Some((server, socket)) = start_redis(place).await? else { return Ok(None) };
                store = Some(server);
                gateway::start(place, Caller::Key, Transport::Http1, Some(&socket)).await?
            }
            Kind::Signed => gateway::start(place, Caller::App, Transport::Http1, None).await?,
            Kind::AppCode => gateway::start(place, Caller::AppCode, Transport::Http1, None).await?,
            Kind::Tls => key(Transport::Tls(certificate()?)).await?,
            Kind::TlsResumed => key(Transport::Resumed(certificate()?)).await?,
            Kind::H2c => key(Transport::H2c).await?,
            Kind::H2 => key(Transport::H2(certificate()?)).await?,
        };
        let upstream = if kind == Kind::Direct { endpoint.address } else { place.upstream };
        let target = Self { kind, process, _store: store, endpoint, upstream };
        target.try_once().await?;
        Ok(Some(target))
    }

    async fn try_once(&self) -> Result<()> {
        let mut body = Vec::new();
        let request = self.call(SMALL_BYTES)?;
        for client in &mut self.destination(request).clients(1).await? {
            let status = client.call(|data| body.extend_from_slice(data)).await?;
            if status != 200 || body.len() != stub::ANSWER_BYTES {
                let body = String::from_utf8_lossy(&body);
                return Err(format!("{} answers {status}: {body}", self.kind.name()).into());
            }
        }
        Ok(())
    }

    fn destination(&self, request: Arc<[u8]>) -> Destination {
        let Endpoint { address, transport, .. } = &self.endpoint;
        Destination { address: *address, transport: transport.clone(), request }
    }

    /// Opens clients that will make one request again and again.
    pub(crate) async fn load(&self, request: Arc<[u8]>, clients: usize, pace: Pace) -> Result<Load> {
        Ok(Load { clients: self.destination(request).clients(clients).await?, pace })
    }

    /// A call with a body of this size.
    pub(crate) fn call(&self, bytes: usize) -> Result<Arc<[u8]>> {
        self.render(bytes, "", &[])
    }

    /// A call that is answered by this many events, this far apart.
    pub(crate) fn stream(&self, chunks: u64, interval_us: u64) -> Result<Arc<[u8]>> {
        let headers = [format!("x-stub-chunks: {chunks}"), format!("x-stub-interval-us: {interval_us}")];
        self.render(SMALL_BYTES, "\"stream\":true,", &headers)
    }

    fn render(&self, bytes: usize, fields: &str, headers: &[String]) -> Result<Arc<[u8]>> {
        let body = |content: &str| {
            format!(
                "{{\"model\":\"bench-small\",{fields}\"max_tokens\":100,\
                 \"messages\":[{{\"role\":\"user\",\"content\":\"{content}\"}}]}}"
            )
        };
        let padding = bytes.saturating_sub(body("").len());
        let body = body(&"x".repeat(padding));
        let endpoint = &self.endpoint;
        let mut headers = [&SDK_HEAD.map(str::to_owned), &*endpoint.headers, headers].concat();
        if let Some(signer) = &endpoint.signer {
            headers.extend(signer.sign(endpoint, &body)?);
        }
        Ok(wire::render("POST", &endpoint.path, endpoint.address, &headers, &body).into())
    }
}

fn direct_endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: (Ipv4Addr::LOCALHOST, port).into(),
        transport: Transport::Http1,
        path: "/v1/chat/completions".to_owned(),
        headers: vec![KEY_OF_NOBODY.to_owned()],
        signer: None,
    }
}

fn printed_port(line: &str) -> Option<u16> {
    line.strip_prefix("port ")?.parse().ok()
}

async fn start_stub(place: &Place<'_>) -> Result<(Process, Endpoint)> {
    start_own(Command::new(std::env::current_exe()?).arg("stub"), "direct", place).await
}

async fn start_bare(place: &Place<'_>) -> Result<(Process, Endpoint)> {
    start_own(Command::new(std::env::current_exe()?).arg("bare").arg(place.upstream.to_string()), "bare", place).await
}

/// Starts this program in another role.
async fn start_own(command: &mut Command, name: &str, place: &Place<'_>) -> Result<(Process, Endpoint)> {
    let mut process = Process::start(name, command, place.cores.target, place.cores, place.dir)?;
    let port = process.wait_line(printed_port).await?;
    Ok((process, direct_endpoint(port)))
}

/// A server that keeps nothing, beside the driver: it is not what is measured. `None`: it is not installed.
async fn start_redis(place: &Place<'_>) -> Result<Option<(Process, PathBuf)>> {
    if Command::new(REDIS).arg("--version").output().is_err() {
        return Ok(None);
    }
    let socket = place.dir.join("redis.sock");
    let mut command = Command::new(REDIS);
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let mut process = Process::start("redis", &mut command, place.cores.driver, place.cores, place.dir)?;
    let deadline = Instant::now() + START_MAX;
    while UnixStream::connect(&socket).await.is_err() {
        process.still_starting(deadline)?;
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(Some((process, socket)))
}

async fn start_nginx(place: &Place<'_>) -> Result<Option<(Process, Endpoint)>> {
    let found =
        ["nginx", NGINX_OUTSIDE_PATH].into_iter().find(|program| Command::new(program).arg("-v").output().is_ok());
    let Some(program) = found else {
        return Ok(None);
    };
    // nginx cannot be given port 0: ask for a free one and hope that it stays free for a moment.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let endpoint = direct_endpoint(free.local_addr()?.port());
    drop(free);
    let dir = place.dir;
    let config = dir.join("nginx.conf");
    fs::write(&config, nginx_config(place, endpoint.address))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(dir).arg("-c").arg(&config);
    command.arg("-e").arg(dir.join("error.log"));
    let mut process = Process::start("nginx", &mut command, place.cores.target, place.cores, dir)?;
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(endpoint.address).await.is_err() {
        process.still_starting(deadline)?;
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(Some((process, endpoint)))
}

/// One worker, kept upstream connections, nothing buffered, nothing logged. Request bodies of the size
/// used here fit the default buffer.
fn nginx_config(place: &Place<'_>, listen: SocketAddr) -> String {
    let (dir, upstream) = (place.dir.display(), place.upstream);
    // Started as root it would run its worker as a user that may not enter the directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user}
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {dir}/client_body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    upstream stub {{
        server {upstream};
        keepalive 4096;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://stub;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}
