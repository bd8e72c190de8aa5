//! The commands about apps. Secrets and codes that clients have already come from files.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::limits::AppLimit;
use super::{AdminAccess, Idempotency};
use crate::domain::id::{AccountId, AppCodeId, AppId, ProductId};
use crate::domain::network::Network;

/// Apps.
#[derive(Debug, Args)]
pub struct AppsArgs {
    /// How the admin API is opened.
    #[command(flatten)]
    pub access: AdminAccess,
    /// What to do.
    #[command(subcommand)]
    pub command: AppsCommand,
}

/// What to do with apps.
#[derive(Debug, Subcommand)]
pub enum AppsCommand {
    /// Add an app; prints its AppKey, and its secret on the next line
    Add(AppAdd),
    /// List an account's apps
    List {
        /// The account's id
        #[arg(value_parser = AccountId::new)]
        account: AccountId,
    },
    /// Print an app's present secret; the gateway's log notes it
    Secret(WhichApp),
    /// Put a new secret in the place of the present one, and print it
    Rotate {
        /// Which app.
        #[command(flatten)]
        app: WhichApp,
        /// File with a secret of your own choice; without it a new one is made
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// For how many seconds the secret before is accepted, too
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap_seconds: u32,
    },
    /// Add an AppCode and print it, this once
    AddCode {
        /// Which app.
        #[command(flatten)]
        app: WhichApp,
        /// File with a code that clients have already; without it a new one is made
        #[arg(long, value_name = "FILE")]
        code_file: Option<PathBuf>,
        /// Makes asking again safe.
        #[command(flatten)]
        once: Idempotency,
    },
    /// Remove an AppCode for ever
    RemoveCode {
        /// Which app.
        #[command(flatten)]
        app: WhichApp,
        /// The AppCode's id
        #[arg(value_parser = AppCodeId::new)]
        code: AppCodeId,
    },
    /// Let an app open a product
    Bind(AppAndProduct),
    /// No longer let it
    Unbind(AppAndProduct),
    /// Set how many calls an app may make, over all products, in place of all limits that it has
    Limit(AppLimit),
    /// Set the networks from which an app is accepted, in place of those that it has
    Networks(AppNetworks),
    /// Encrypt apps' secrets with `secrets.seal_key`, so that former keys can be dropped
    Reseal {
        /// The account's id; without it all accounts
        #[arg(value_parser = AccountId::new)]
        account: Option<AccountId>,
    },
    /// Delete an app for ever, with its secrets and AppCodes
    Delete(WhichApp),
}

/// A new app.
#[derive(Debug, Args)]
pub struct AppAdd {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// Its name for people
    pub name: String,
    /// An AppKey that clients have already; without it a new one is made
    #[arg(long, value_name = "KEY")]
    pub app_key: Option<String>,
    /// File with a secret that clients have already; without it a new one is made
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// A product that it opens, may be repeated
    #[arg(long = "product", value_name = "PRODUCT", value_parser = ProductId::new)]
    pub products: Vec<ProductId>,
    /// A network from which it is accepted, like 192.0.2.7 or 2001:db8::/32, may be repeated; without it all
    #[arg(long = "network", value_name = "NETWORK", value_parser = Network::new)]
    pub networks: Vec<Network>,
    /// Makes asking again safe.
    #[command(flatten)]
    pub once: Idempotency,
}

/// An app.
#[derive(Debug, Args)]
pub struct WhichApp {
    /// The account's id
    #[arg(value_parser = AccountId::new)]
    pub account: AccountId,
    /// The app's id
    #[arg(value_parser = AppId::new)]
    pub app: AppId,
}

/// From where an app is accepted.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("networks_wanted").required(true)))]
pub struct AppNetworks {
    /// Which app.
    #[command(flatten)]
    pub app: WhichApp,
    /// A network, like 192.0.2.7 or 2001:db8::/32, may be repeated
    #[arg(long = "network", value_name = "NETWORK", value_parser = Network::new, group = "networks_wanted")]
    pub networks: Vec<Network>,
    /// All networks
    #[arg(long, group = "networks_wanted")]
    pub all_networks: bool,
}

/// An app and a product.
#[derive(Debug, Args)]
pub struct AppAndProduct {
    /// Which app.
    #[command(flatten)]
    pub app: WhichApp,
    /// The product's id
    #[arg(value_parser = ProductId::new)]
    pub product: ProductId,
}
