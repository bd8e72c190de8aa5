//! Flags about certificates: those of `tollgate dev-certificate`, and of commands that go to an admin listener with TLS.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::host_name;

/// What certificates to make.
#[derive(Debug, Args)]
pub struct DevCertificateArgs {
    /// The folder for the files; made if it is not there
    pub dir: PathBuf,
    /// A name or address that the server's certificate is made out to; may be repeated
    #[arg(long = "host", value_name = "HOST", default_value = "localhost", value_parser = host)]
    pub hosts: Vec<String>,
    /// Also make a certificate with this name for a client of the admin listener
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// For how many days the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
}

/// A name, with a star for its first label or without, or an address.
fn host(text: &str) -> Result<String, &'static str> {
    let fits = text.parse::<IpAddr>().is_ok() || host_name(text.strip_prefix("*.").unwrap_or(text));
    if fits { Ok(text.to_owned()) } else { Err("not a host's name or address; write one as in a URL, without a port") }
}

/// How an admin listener with TLS is known, and who we are to it.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminTls {
    /// PEM file with the only authorities that an https:// admin listener is trusted by; left out, the public ones
    #[arg(long, global = true, value_name = "FILE", env = "TOLLGATE_ADMIN_CA_FILE")]
    pub admin_ca_file: Option<PathBuf>,
    /// PEM file with the certificate to show there
    #[arg(long, global = true, value_name = "FILE", env = "TOLLGATE_ADMIN_CERT_FILE")]
    pub admin_cert_file: Option<PathBuf>,
    /// PEM file with that certificate's key
    #[arg(long, global = true, value_name = "FILE", env = "TOLLGATE_ADMIN_KEY_FILE")]
    pub admin_key_file: Option<PathBuf>,
}
