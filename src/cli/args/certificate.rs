//! Flags of `tollgate dev-certificate`.

use std::path::PathBuf;

use clap::Args;

/// What certificates to make.
#[derive(Debug, Args)]
pub struct DevCertificateArgs {
    /// The folder for the files; made if it is not there
    pub dir: PathBuf,
    /// A name or address that the server's certificate is made out to; may be repeated
    #[arg(long = "host", value_name = "HOST", default_value = "localhost")]
    pub hosts: Vec<String>,
    /// Also make a certificate with this name for a client of the admin listener
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// For how many days the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
}
