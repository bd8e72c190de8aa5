//! `tollgate demo`: a whole marketplace on one machine. Sets up a seller, a gateway with the embedded store and an
//! account with a package of 100 calls; gives the tour (`tour`); then stays up.

mod http;
mod seller;
mod tour;

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

use self::tour::Tour;
use crate::adapter::clock::SystemEntropy;
use crate::app::{Gateway, StartError};
use crate::cli::args::DemoArgs;
use crate::config::{self, Problems};
use crate::ports::clock::Entropy;

/// Calls in the demo's package.
const CALLS: u64 = 100;
/// Where operators call, unless it is taken.
const ADMIN: &str = "127.0.0.1:9090";

/// Why the demo ends early.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each text says what it is")]
pub enum DemoError {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("--upstream-key-file {}: {error}", path.display())]
    KeyFile { path: PathBuf, error: io::Error },
    #[error("the demo's own configuration is wrong, which is a bug:\n{0}")]
    Config(Problems),
    #[error("--upstream, --upstream-key-file and --model make a configuration that is refused:\n{0}")]
    Upstream(Problems),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Tour(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> DemoError {
    let what = what.into();
    move |error| DemoError::Io { what, error }
}

/// What is sold: the scripted seller's model, or a real one.
struct Offering {
    base_url: String,
    model: String,
    key_file: Option<PathBuf>,
    scripted: bool,
}

/// Whatever ends the demo.
struct Signals([Signal; 3]);

impl Signals {
    /// From now on a signal ends nothing by itself.
    fn heed() -> Result<Self, DemoError> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        let heeded = || Ok::<_, io::Error>(Self([interrupt?, terminate?, hangup?]));
        heeded().map_err(io_error("signals cannot be heeded"))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Runs the demo until it is interrupted. However it ends, a folder of its own is gone then, with the secrets in it.
pub async fn run(args: DemoArgs) -> Result<(), DemoError> {
    crate::telemetry::log::start(LevelFilter::WARN);
    let signals = Signals::heed()?;
    if let Some(dir) = &args.dir {
        return give(&args, dir, signals).await;
    }
    let dir = std::env::temp_dir().join(format!("tollgate-demo-{}", std::process::id()));
    let given = give(&args, &dir, signals).await;
    let removed = match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(dir.display().to_string())(error)),
        Ok(()) | Err(_) => Ok(()),
    };
    given.and(removed)
}

/// Starts everything, gives the tour, and stays until a signal comes.
async fn give(args: &DemoArgs, dir: &Path, mut signals: Signals) -> Result<(), DemoError> {
    let (gateway, tour) = tokio::select! {
        started = start(args, dir) => started?,
        () = signals.next() => return Ok(()),
    };
    let mut out = io::stdout();
    let toured = tokio::select! {
        toured = tour.give(&mut out) => toured.map(|()| false),
        () = signals.next() => Ok(true),
    };
    if let Ok(false) = toured {
        signals.next().await;
    }
    let stopped = gateway.stop(signals.next()).await.map_err(|error| DemoError::Tour(error.to_string()));
    toured.map(|_| ()).and(stopped)
}

/// Sets everything up, and starts the gateway.
async fn start(args: &DemoArgs, dir: &Path) -> Result<(Gateway, Tour), DemoError> {
    let offering = offering(args).await?;
    let admin: SocketAddr = ADMIN.parse().unwrap_or(args.listen);
    let gateway = match open(dir, (args.listen, admin), &offering).await {
        // Someone has taken the port meanwhile: any will do.
        Err(DemoError::Start(StartError::Listener { .. })) => {
            let any = |address: SocketAddr| SocketAddr::new(address.ip(), 0);
            open(dir, (any(args.listen), any(admin)), &offering).await?
        }
        opened => opened?,
    };
    let tour = Tour {
        data: gateway.data_address,
        admin: gateway.admin_address,
        token: read(&dir.join("admin.token"))?,
        model: offering.model,
        scripted: offering.scripted,
        dir: dir.to_owned(),
    };
    Ok((gateway, tour))
}

/// Starts the gateway at these addresses, or at others if they are taken.
async fn open(
    dir: &Path,
    (listen, admin): (SocketAddr, SocketAddr),
    offering: &Offering,
) -> Result<Gateway, DemoError> {
    let file = set_up(dir, (free_or(listen)?, free_or(admin)?), offering)?;
    let load = move || config::load(&file, &|name| std::env::var(name).ok());
    let config = load().map_err(if offering.scripted { DemoError::Config } else { DemoError::Upstream })?;
    Ok(Gateway::start(config, Arc::new(load)).await?)
}

async fn offering(args: &DemoArgs) -> Result<Offering, DemoError> {
    if let (Some(base_url), Some(model)) = (&args.upstream, &args.model) {
        let whole =
            |path: &PathBuf| fs::canonicalize(path).map_err(|error| DemoError::KeyFile { path: path.clone(), error });
        let key_file = args.upstream_key_file.as_ref().map(whole).transpose()?;
        return Ok(Offering { base_url: base_url.clone(), model: model.clone(), key_file, scripted: false });
    }
    let address = seller::start().await.map_err(io_error("the demo's seller"))?;
    let base_url = format!("http://{address}/v1");
    Ok(Offering { base_url, model: seller::MODEL.to_owned(), key_file: None, scripted: true })
}

/// The address itself if it is free, else another port of the same host: a demo should come up.
fn free_or(wanted: SocketAddr) -> Result<SocketAddr, DemoError> {
    let bound = TcpListener::bind(wanted).or_else(|_| TcpListener::bind((wanted.ip(), 0)));
    bound.and_then(|listener| listener.local_addr()).map_err(io_error(format!("--listen {wanted}")))
}

/// Writes the demo's configuration and its secrets, unless they are there from an earlier demo.
fn set_up(dir: &Path, (listen, admin): (SocketAddr, SocketAddr), offering: &Offering) -> Result<PathBuf, DemoError> {
    fs::create_dir_all(dir).map_err(io_error(dir.display().to_string()))?;
    for name in ["admin.token", "hash.key"] {
        let path = dir.join(name);
        if !path.exists() {
            write_secret(&path, &random_text()).map_err(io_error(path.display().to_string()))?;
        }
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string(); // a JSON string is a YAML string
    let key = offering.key_file.as_ref().map(|file| quoted(&format!("${{file:{}}}", file.display())));
    let key = key.map(|key| format!("\n      api_key: {key}")).unwrap_or_default();
    let (model, base_url) = (quoted(&offering.model), quoted(&offering.base_url));
    let text = format!(
        r#"# Written by `tollgate demo`. See config/tollgate.yaml of the project for every setting.
gateway: demo
data_dir: data
listeners: {{ data: "{listen}", admin: "{admin}" }}
admin: {{ token: "${{file:admin.token}}" }}
secrets: {{ hash_key: "${{file:hash.key}}" }}
log: {{ level: warn, access: ./access.log }}
products:
  - id: demo
    kind: llm
    models: {{ {model}: ~ }}
    buy_url: "http://{listen}/"
    upstream:
      base_url: {base_url}{key}
offers:
  - {{ id: demo-{CALLS}, product: demo, kind: per_call, calls: {CALLS}, validity: 30d }}
"#
    );
    let path = dir.join("tollgate.yaml");
    fs::write(&path, text).map_err(io_error(path.display().to_string()))?;
    Ok(path)
}

/// Sixty-four hexadecimal digits that nobody can guess.
fn random_text() -> String {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn read(path: &Path) -> Result<String, DemoError> {
    fs::read_to_string(path).map_err(io_error(path.display().to_string()))
}
