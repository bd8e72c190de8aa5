//! The commands about signatures: they need no gateway. An app's secret comes from a file or the environment.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

/// Where an app's secret is.
#[derive(Debug, Args)]
pub struct SecretSource {
    /// File with the app's secret; without it the secret is taken from the environment: TOLLGATE_APP_SECRET
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

/// A request that is to be signed.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The URL that will be called
    pub url: String,
    /// The app's AppKey
    #[arg(long, value_name = "KEY")]
    pub app_key: String,
    /// Where the secret is.
    #[command(flatten)]
    pub secret: SecretSource,
    /// The method; without it GET, or POST with a body
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub method: Option<String>,
    /// A header that is sent and signed, as `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// The body
    #[arg(short = 'd', long, value_name = "TEXT", conflicts_with = "data_file")]
    pub data: Option<String>,
    /// File with the body, byte for byte
    #[arg(long, value_name = "FILE")]
    pub data_file: Option<PathBuf>,
    /// The moment of signing, like 2027-01-01T00:00:00Z; without it now
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// Print the canonical request, too, on standard error
    #[arg(long)]
    pub canonical: bool,
}

/// A signed request that is to be checked.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// File with the request as it went over the wire: head, empty line, body
    #[arg(value_name = "FILE")]
    pub request: PathBuf,
    /// Where the secret is.
    #[command(flatten)]
    pub secret: SecretSource,
    /// The time of the check, like 2027-01-01T00:00:00Z; without it now
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// File with the canonical request that the signer made: the first difference to ours is shown
    #[arg(long, value_name = "FILE")]
    pub canonical: Option<PathBuf>,
    /// Accept a signature that leaves the body out (UNSIGNED-PAYLOAD)
    #[arg(long)]
    pub allow_unsigned_payload: bool,
}
