//! Every command and flag. Secrets are never flags: they come from files or the environment.

pub mod apps;
pub mod certificate;
pub mod idempotency;
pub mod limits;
pub mod signature;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

pub use self::idempotency::Idempotency;
use crate::domain::id::{AccountId, KeyId, OfferId, PackageId, ProductId, ProjectId};
use crate::domain::network::Network;
use crate::simulate::Safeguard;

/// Tollgate: a reverse proxy that sells API calls
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(ConfigFile),
    /// Check a configuration file and say what is wrong with it
    Check(ConfigFile),
    /// Run everything on this machine, make a few calls, and stay up
    Demo(DemoArgs),
    /// The configuration's schema, or what the program makes of a file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Usage records
    #[command(subcommand)]
    Usage(UsageCommand),
    /// Commands that changed a balance: purchases, and decisions on units in suspense
    #[command(subcommand)]
    Commands(CommandsCommand),
    /// Join journals, books and a seller's log, and print each difference; exits with 1 if there is any
    Reconcile(ReconcileArgs),
    /// Recompute every balance from usage records and commands; exits with 1 if the books say otherwise
    Replay(ReplayArgs),
    /// Receipts: make a key, show the public ones, verify
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Back the store up, restore it, move it to a Redis server
    #[command(subcommand)]
    Store(StoreCommand),
    /// Sign a request with an app's secret: prints the headers to send, for `curl -H @file`
    Sign(signature::SignArgs),
    /// Check the signature of a request, and say what was signed
    Verify(signature::VerifyArgs),
    /// Make certificates for trying TLS out: an authority of your own, and files for a gateway
    DevCertificate(certificate::DevCertificateArgs),
    /// Commands that go through the admin API of a running gateway.
    #[command(flatten)]
    Remote(RemoteCommand),
    /// Live through random histories of gateways and a store, and hold the books against what was really charged
    Simulate(SimulateArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    pub config: PathBuf,
}

/// How the demo runs.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the books here and use them again; without it they are kept for this run only
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where buyers call
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Sell this OpenAI-compatible API instead of the scripted one
    #[arg(long, value_name = "URL", requires = "model")]
    pub upstream: Option<String>,
    /// File with the upstream's API key
    #[arg(long, value_name = "FILE", requires = "upstream")]
    pub upstream_key_file: Option<PathBuf>,
    /// The upstream's model to call
    #[arg(long, value_name = "MODEL", requires = "upstream")]
    pub model: Option<String>,
}

/// Which histories to live through.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many
    #[arg(long, value_name = "COUNT", default_value_t = 200_000)]
    pub histories: u64,
    /// The first one's seed; the others follow
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// On how many threads; the result does not depend on it
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub threads: u64,
    /// Leave a safeguard out, to see what it prevents
    #[arg(long, value_name = "SAFEGUARD")]
    pub without: Option<Safeguard>,
    /// Leave each safeguard out in turn, and print a table
    #[arg(long, conflicts_with = "without")]
    pub ablations: bool,
    /// Print what happens, step by step
    #[arg(long, conflicts_with = "ablations")]
    pub log: bool,
}

/// What of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print a file as the program understands it, defaults filled in, secrets left out
    Print(ConfigFile),
}

/// What to do with usage records.
#[derive(Debug, Subcommand)]
pub enum UsageCommand {
    /// Print the usage records in the gateway's journal, one JSON line each
    Export(ExportArgs),
    /// Add the records of the gateway's journal up, by hour or day
    Report(ReportArgs),
}

/// Which usage records to print.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Whose journal.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Leave out what was printed before the last mark
    #[arg(long)]
    pub since_mark: bool,
    /// Once all is written, note how far it came: the next `--since-mark` goes on from there, and records before the mark
    /// may be removed (see `journal.remove`)
    #[arg(long)]
    pub mark: bool,
}

/// What to do with commands.
#[derive(Debug, Subcommand)]
pub enum CommandsCommand {
    /// Print those in the gateway's journal, one JSON line each
    Export(ConfigFile),
}

/// What of the records to add up.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Whose journal.
    #[command(flatten)]
    pub config: ConfigFile,
    /// How long a row's time is
    #[arg(long, value_name = "PERIOD", value_enum, default_value = "hour")]
    pub per: PeriodArg,
    /// By what rows differ, may be repeated
    #[arg(long = "by", value_name = "FIELD", value_enum)]
    pub by: Vec<GroupArg>,
    /// Whose hours and days
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub time_zone: String,
    /// Only calls that arrived from then on, like 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Only calls that arrived before
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How long a row's time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "clap shows the comments as help, and the names say it")]
pub enum PeriodArg {
    Hour,
    Day,
}

/// By what rows differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "as above")]
pub enum GroupArg {
    Account,
    Product,
    Key,
    App,
    Project,
    Model,
}

/// What to do with receipts.
#[derive(Debug, Subcommand)]
pub enum ReceiptCommand {
    /// Make a private key in a new file and print its public key
    Keygen {
        /// The file to make, for its owner alone
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the public keys of a configuration, as its gateway publishes them
    Keys(ConfigFile),
    /// Verify a receipt and print what it says; exits with 64 if it does not hold
    Verify {
        /// The gateway's key set, or a public key in PEM
        #[arg(long, value_name = "PUBFILE")]
        key: PathBuf,
        /// The receipt; without it standard input
        #[arg(value_name = "RECEIPT")]
        receipt: Option<PathBuf>,
    },
}

/// What an audit reads.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// The gateway's configuration: its journal, and the store with the books
    #[command(flatten)]
    pub config: ConfigFile,
    /// Another gateway's data directory, with its journal; may be repeated
    #[arg(long = "data-dir", value_name = "DIR")]
    pub data_dirs: Vec<PathBuf>,
    /// An export of usage records: of other gateways, or of records that were removed since; may be repeated
    #[arg(long = "usage", value_name = "FILE")]
    pub usage: Vec<PathBuf>,
    /// An export of commands; may be repeated
    #[arg(long = "commands", value_name = "FILE")]
    pub commands: Vec<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

/// What to join.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// What to read.
    #[command(flatten)]
    pub sources: SourceArgs,
    /// A seller's own log, JSON lines with `request_id` and `status`
    #[arg(long, value_name = "FILE")]
    pub seller_log: Option<PathBuf>,
}

/// What to recompute.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// What to read.
    #[command(flatten)]
    pub sources: SourceArgs,
    /// Do not ask the store: recompute from records alone
    #[arg(long)]
    pub without_books: bool,
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Write all accounts to a file, one JSON line each; the embedded store's gateway must not run
    Backup {
        /// Whose store.
        #[command(flatten)]
        config: ConfigFile,
        /// The file to write, replaced if it is there
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
    /// Bring all accounts of a backup into the store; what is there and the same stays, what differs is an error
    Restore {
        /// Whose store.
        #[command(flatten)]
        config: ConfigFile,
        /// The backup
        #[arg(value_name = "FILE")]
        from: PathBuf,
    },
    /// Move the accounts of data_dir's embedded store to the Redis server that the configuration names; can be repeated
    Migrate(ConfigFile),
}

/// Commands that go through the admin API of a running gateway.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Open and show accounts
    Accounts(AccountsArgs),
    /// Add, list, change and revoke API keys
    Keys(KeysArgs),
    /// Add, list, bind and delete apps; their secrets and AppCodes
    Apps(apps::AppsArgs),
    /// Add and list packages, decide on their units in suspense
    Packages(PackagesArgs),
    /// Ask a running gateway whether it serves calls; exits with 0 if so, else with 69
    Health(AdminAddress),
}

/// Where the admin API is.
#[derive(Debug, Clone, Args)]
pub struct AdminAddress {
    /// The gateway's admin listener
    #[arg(long, global = true, value_name = "URL", env = "TOLLGATE_ADMIN", default_value = "http://127.0.0.1:9090")]
    pub admin: String,
    /// If it speaks TLS.
    #[command(flatten)]
    pub tls: certificate::AdminTls,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// How the admin API is opened.
#[derive(Debug, Clone, Args)]
pub struct AdminAccess {
    /// Where it is.
    #[command(flatten)]
    pub address: AdminAddress,
    /// File with the admin token; without it the token is taken from the environment: TOLLGATE_ADMIN_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
}

/// Accounts.
#[derive(Debug, Args)]
pub struct AccountsArgs {
    /// How the admin API is opened.
    #[command(flatten)]
    pub access: AdminAccess,
    /// What to do.
    #[command(subcommand)]
    pub command: AccountsCommand,
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountsCommand {
    /// Open an account
    Open {
        /// Its name for people
        name: String,
        /// Its id; left out, a new one is made
        #[arg(long, value_parser = AccountId::new)]
        id: Option<AccountId>,
        /// Makes asking again safe.
        #[command(flatten)]
        once: Idempotency,
    },
    /// List all accounts
    List,
    /// Show an account with its keys and packages
    Show {
        /// The account's id
        #[arg(value_parser = AccountId::new)]
        account: AccountId,
    },
    /// Set how many calls an account may make in all, in place of all limits that it has
    Limit(limits::AccountLimit),
}

/// API keys.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// How the admin API is opened.
    #[command(flatten)]
    pub access: AdminAccess,
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Add a key and print it, this once
    Add(KeyAdd),
    /// List an account's keys
    List {
        /// The account's id
        #[arg(value_parser = AccountId::new)]
        account: AccountId,
    },
    /// Change a key
    Change(KeyChange),
    /// Set how many calls a key may make, over all products, in place of all limits that it has
    Limit(limits::KeyLimit),
    /// Set how many units a key's calls may use, or what they may be worth, in place of the whole budget that it has
    Budget(limits::KeyBudget),
    /// Put a new key in the place of the present one, under the same id, and print it, this once
    Rotate {
        /// The account's id
        #[arg(value_parser = AccountId::new)]
        account: AccountId,
        /// The key's id
        #[arg(value_parser = KeyId::new)]
        key: KeyId,
        /// For how many seconds the key before is accepted, too
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap_seconds: u32,
    },
    /// Revoke a key for ever
    Revoke {
        /// The account's id
        #[arg(value_parser = AccountId::new)]
        account: AccountId,
        /// The key's id
        #[arg(value_parser = KeyId::new)]
        key: KeyId,
    },
}

/// A new key.
#[derive(Debug, Args)]
pub struct KeyAdd {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
    /// First moment at which it is refused, like 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<Timestamp>,
    /// A product that it opens, may be repeated; without it all
    #[arg(long = "product", value_name = "PRODUCT", value_parser = ProductId::new)]
    pub products: Vec<ProductId>,
    /// A model that it opens, may be repeated; without it all
    #[arg(long = "model", value_name = "MODEL")]
    pub models: Vec<String>,
    /// A network from which it is accepted, like 192.0.2.7 or 2001:db8::/32, may be repeated; without it all
    #[arg(long = "network", value_name = "NETWORK", value_parser = Network::new)]
    pub networks: Vec<Network>,
    /// The project that its calls are allotted to
    #[arg(long, value_name = "PROJECT", value_parser = ProjectId::new, default_value = "default")]
    pub project: ProjectId,
    /// A tag, NAME=VALUE, may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    pub tags: Vec<(String, String)>,
    /// Makes asking again safe.
    #[command(flatten)]
    pub once: Idempotency,
}

/// A change of a key.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true)))]
pub struct KeyChange {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// The key's id
    #[arg(value_parser = KeyId::new)]
    pub key: KeyId,
    /// What it is for
    #[arg(long, value_name = "TEXT", group = "change")]
    pub description: Option<String>,
    /// Switch it off
    #[arg(long, group = "change")]
    pub disable: bool,
    /// Switch it on again
    #[arg(long, group = "change", conflicts_with = "disable")]
    pub enable: bool,
    /// First moment at which it is refused, like 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", group = "change")]
    pub expires_at: Option<Timestamp>,
    /// It never expires
    #[arg(long, group = "change", conflicts_with = "expires_at")]
    pub never_expires: bool,
    /// A product that it opens from now on, may be repeated
    #[arg(long = "product", value_name = "PRODUCT", value_parser = ProductId::new, group = "change")]
    pub products: Vec<ProductId>,
    /// It opens all products
    #[arg(long, group = "change", conflicts_with = "products")]
    pub all_products: bool,
    /// A model that it opens from now on, may be repeated
    #[arg(long = "model", value_name = "MODEL", group = "change")]
    pub models: Vec<String>,
    /// It opens all models
    #[arg(long, group = "change", conflicts_with = "models")]
    pub all_models: bool,
    /// A network from which it is accepted from now on, like 192.0.2.7 or 2001:db8::/32, may be repeated
    #[arg(long = "network", value_name = "NETWORK", value_parser = Network::new, group = "change")]
    pub networks: Vec<Network>,
    /// It is accepted from all networks
    #[arg(long, group = "change", conflicts_with = "networks")]
    pub all_networks: bool,
    /// The project that its calls are allotted to from now on
    #[arg(long, value_name = "PROJECT", value_parser = ProjectId::new, group = "change")]
    pub project: Option<ProjectId>,
    /// A tag that it has from now on, NAME=VALUE, may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag, group = "change")]
    pub tags: Vec<(String, String)>,
    /// It has no tags
    #[arg(long, group = "change", conflicts_with = "tags")]
    pub no_tags: bool,
}

/// Packages.
#[derive(Debug, Args)]
pub struct PackagesArgs {
    /// How the admin API is opened.
    #[command(flatten)]
    pub access: AdminAccess,
    /// What to do.
    #[command(subcommand)]
    pub command: PackagesCommand,
}

/// What to do with packages.
#[derive(Debug, Subcommand)]
pub enum PackagesCommand {
    /// Add a package of an offer
    Add {
        /// The account's id
        #[arg(value_parser = AccountId::new)]
        account: AccountId,
        /// What was bought
        #[arg(long, value_parser = OfferId::new)]
        offer: OfferId,
        /// First moment of use, like 2027-01-01T00:00:00Z; left out, now
        #[arg(long, value_name = "TIME")]
        valid_from: Option<Timestamp>,
        /// The project that its use is allotted to
        #[arg(long, value_name = "PROJECT", value_parser = ProjectId::new, default_value = "default")]
        project: ProjectId,
        /// A tag, NAME=VALUE, may be repeated
        #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
        tags: Vec<(String, String)>,
        /// Makes asking again safe.
        #[command(flatten)]
        once: Idempotency,
    },
    /// List an account's packages
    List {
        /// The account's id
        #[arg(value_parser = AccountId::new)]
        account: AccountId,
    },
    /// Decide on units in suspense: a lost journal may know that they were used
    Resolve(ResolveArgs),
}

/// A decision on units in suspense.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("outcome").required(true).args(["used", "returned"])))]
pub struct ResolveArgs {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// The package's id
    #[arg(value_parser = PackageId::new)]
    pub package: PackageId,
    /// How many units
    #[arg(long)]
    pub units: std::num::NonZeroU64,
    /// They were used and count
    #[arg(long)]
    pub used: bool,
    /// They go back for sale
    #[arg(long)]
    pub returned: bool,
    /// Makes asking again safe.
    #[command(flatten)]
    pub once: Idempotency,
}

/// A tag on the command line.
fn tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a tag is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
