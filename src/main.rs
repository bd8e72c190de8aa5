//! Starts the program: reads the command line, carries the command out, ends with its exit code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tollgate::adapter::redis::{OpenError, Refusal};
use tollgate::app::{Gateway, LoadConfig, StartError};
use tollgate::cli::args::{Command, CommandsCommand, ConfigCommand};
use tollgate::cli::store::Failure;
use tollgate::cli::{self, EXIT_BUG, EXIT_CONFIG, EXIT_DIFFERENT, EXIT_OK, EXIT_UNAVAILABLE};
use tollgate::config::{self, Config, LogLevel, Problems};
use tollgate::demo::{self, DemoError};
use tollgate::telemetry;
use tracing::level_filters::LevelFilter;

/// A call allocates some forty times: glibc's allocator took 5 % of a core under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Serve(file) => serve(&file.config),
        Command::Check(file) => check(&file.config),
        Command::Demo(args) => {
            run(async move { demo::run(args).await.map_err(|error| complain(&error, demo_code(&error))) })
        }
        Command::Config(ConfigCommand::Schema) => print(config::json_schema().as_bytes()),
        Command::Config(ConfigCommand::Print(file)) => match load(&file.config) {
            Ok(config) => print(format!("{config:#?}\n").as_bytes()),
            Err(problems) => complain(&problems, EXIT_CONFIG),
        },
        Command::Usage(command) => cli::usage::run(&command, &mut io::stdout().lock(), &mut io::stderr()),
        Command::Commands(CommandsCommand::Export(file)) => {
            audited(async move { cli::audit::commands(&file, &mut out()) })
        }
        Command::Reconcile(args) => audited(async move { cli::audit::reconcile(&args, &mut out()).await }),
        Command::Replay(args) => audited(async move { cli::audit::replay(&args, &mut out()).await }),
        Command::Receipt(command) => cli::receipt::run(&command, &mut io::stdout(), &mut io::stderr()),
        Command::Store(command) => run(async move {
            let done = cli::store::run(command, &mut io::stdout()).await;
            done.map_err(|failure| complain(&failure, failure.code))
        }),
        Command::Sign(args) => {
            let secret = std::env::var(cli::signature::SECRET_VARIABLE).ok();
            let done = cli::signature::sign_request(&args, secret, &mut io::stdout(), &mut io::stderr());
            done.map_or_else(|failure| complain(&failure, failure.exit()), |()| ExitCode::from(EXIT_OK))
        }
        Command::Verify(args) => {
            let secret = std::env::var(cli::signature::SECRET_VARIABLE).ok();
            let done = cli::signature::verify_request(&args, secret, &mut io::stdout());
            done.map_or_else(|failure| complain(&failure, failure.exit()), |()| ExitCode::from(EXIT_OK))
        }
        Command::DevCertificate(args) => cli::certificate::run(&args, &mut io::stdout(), &mut io::stderr()),
        Command::Remote(command) => cli::run(command, &mut io::stdout(), &mut io::stderr()),
        Command::Simulate(args) => cli::simulate(&args, &mut io::stdout()),
        Command::Completions { shell } => match cli::completions(shell, &mut io::stdout()) {
            Ok(()) => ExitCode::from(EXIT_OK),
            Err(error) => complain(&error, EXIT_UNAVAILABLE),
        },
    }
}

/// Says on standard error why the command was not carried out.
fn complain(what: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "tollgate: {what}"); // nobody listens: the exit code says enough
    ExitCode::from(code)
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => complain(&error, EXIT_UNAVAILABLE),
    }
}

fn load(path: &Path) -> Result<Config, Problems> {
    config::load(path, &|name| std::env::var(name).ok())
}

/// Runs a command on the control runtime: everything but the calls themselves.
fn run(command: impl Future<Output = Result<(), ExitCode>>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command).err().unwrap_or(ExitCode::from(EXIT_OK)),
        Err(error) => complain(&error, EXIT_BUG),
    }
}

/// Runs a command that says whether what it looked at agrees.
fn audited(command: impl Future<Output = Result<bool, Failure>>) -> ExitCode {
    run(async move {
        match command.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ExitCode::from(EXIT_DIFFERENT)),
            Err(failure) => Err(complain(&failure, failure.code)),
        }
    })
}

/// Standard output for many lines.
fn out() -> io::BufWriter<io::Stdout> {
    io::BufWriter::new(io::stdout())
}

fn check(path: &Path) -> ExitCode {
    match load(path) {
        Ok(config) => {
            let (products, offers) = (config.catalog.products.len(), config.catalog.offers.len());
            print(format!("{}: good, {products} products and {offers} offers\n", path.display()).as_bytes())
        }
        Err(problems) => complain(&problems, EXIT_CONFIG),
    }
}

fn serve(path: &Path) -> ExitCode {
    let config = match load(path) {
        Ok(config) => config,
        Err(problems) => return complain(&problems, EXIT_CONFIG),
    };
    telemetry::log::start(filter(config.log.level));
    forbid_core_files();
    let again: LoadConfig = {
        let path = path.to_owned();
        Arc::new(move || config::load_again(&path, &|name| std::env::var(name).ok()))
    };
    run(async move {
        // A file at its size limit (`ulimit -f`) is a write that fails, as on a full disk, and not the end of the process.
        let _large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map_err(|error| complain(&error, EXIT_BUG))?;
        let gateway = Gateway::start(config, again).await.map_err(|error| complain(&error, start_code(&error)))?;
        let signals = || Ok::<_, io::Error>((signal(SignalKind::terminate())?, signal(SignalKind::hangup())?));
        let (mut terminate, mut hangup) = signals().map_err(|error| complain(&error, EXIT_BUG))?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = tokio::signal::ctrl_c() => break,
                _ = hangup.recv() => gateway.reload(),
            }
        }
        // A second signal means: at once.
        let hurry = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        gateway.stop(hurry).await.map_err(|error| complain(&error, EXIT_UNAVAILABLE))
    })
}

/// A core file would hold every secret. One byte is the limit that programs which take core files through a pipe heed, too.
fn forbid_core_files() {
    let most = getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(most), maximum: Some(most) }) {
        tracing::warn!(%error, "a crash may leave a core file, which would hold secrets");
    }
}

/// Whether the file is to blame, something that the file names, or the program.
fn start_code(error: &StartError) -> u8 {
    match error {
        StartError::DataDir(_)
        | StartError::Store(_)
        | StartError::Redis(OpenError::Refused(Refusal::Unfit(_)) | OpenError::Thread(_))
        | StartError::Listener { .. }
        | StartError::AccessLog { .. }
        | StartError::Recovery(_)
        | StartError::Journal(_)
        | StartError::Os(_) => EXIT_UNAVAILABLE,
        StartError::Catalog(_)
        | StartError::Tls(_)
        | StartError::Secret(_)
        | StartError::Redis(OpenError::Refused(Refusal::Login(_)) | OpenError::Unusable(_)) => EXIT_CONFIG,
        StartError::NoWriter | StartError::Metrics(_) => EXIT_BUG,
    }
}

/// The same for the demo.
fn demo_code(error: &DemoError) -> u8 {
    match error {
        DemoError::Io { .. } | DemoError::Tour(_) => EXIT_UNAVAILABLE,
        DemoError::KeyFile { .. } | DemoError::Upstream(_) => EXIT_CONFIG,
        DemoError::Config(_) => EXIT_BUG,
        DemoError::Start(error) => start_code(error),
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
