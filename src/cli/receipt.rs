//! `tollgate receipt`: keys for receipts, and whether a receipt holds. Needs no running gateway.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use super::args::ReceiptCommand;
use super::failure::{Failure, ended, failure};
use super::{EXIT_BUG, EXIT_CONFIG, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::app::key_set;
use crate::config;
use crate::domain::signing::{KEY_BYTES, SigningKey};
use crate::protocol::receipt::{Trusted, verify};

/// The largest receipt or key set that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Carries a command out.
pub fn run(command: &ReceiptCommand, out: &mut dyn Write, notes: &mut dyn Write) -> ExitCode {
    let done = match command {
        ReceiptCommand::Keygen { out: to } => keygen(to),
        ReceiptCommand::Keys(file) => keys(&file.config),
        ReceiptCommand::Verify { key, receipt } => check(key, receipt.as_deref()),
    };
    ended(done, out, notes)
}

/// Makes a key in a new file, and returns its public half.
fn keygen(to: &Path) -> Result<String, Failure> {
    let mut seed = [0; KEY_BYTES];
    getrandom::fill(&mut seed).map_err(|error| failure(EXIT_BUG, error))?;
    let pem = SigningKey::pem_of(seed);
    let key = SigningKey::from_pem(&pem).map_err(|error| failure(EXIT_BUG, error))?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut file = opened.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return failure(EXIT_USAGE, format!("{} is there already; a key is never overwritten", to.display()));
        }
        failure(EXIT_UNAVAILABLE, format!("{}: {error}", to.display()))
    })?;
    let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| failure(EXIT_UNAVAILABLE, format!("{}: {error}", to.display())))?;
    Ok(key.public().to_pem())
}

/// The key set, as the gateway publishes it.
fn keys(config: &Path) -> Result<String, Failure> {
    let config = config::load(config, &|name| std::env::var(name).ok());
    let config = config.map_err(|problems| failure(EXIT_CONFIG, problems))?;
    let Some(receipts) = &config.receipts else {
        return Err(failure(EXIT_CONFIG, "the configuration has no `receipts`"));
    };
    let text = serde_json::to_string_pretty(&key_set(receipts)).map_err(|error| failure(EXIT_BUG, error))?;
    Ok(text + "\n")
}

/// Verifies, and returns what the receipts say.
fn check(key: &Path, receipt: Option<&Path>) -> Result<String, Failure> {
    let trusted = String::from_utf8(read(key)?).ok().and_then(|text| Trusted::read(&text));
    let trusted = trusted.ok_or_else(|| {
        let what = "holds neither a public key in PEM nor a gateway's key set";
        failure(EXIT_CONFIG, format!("{} {what}", key.display()))
    })?;
    let text = match receipt {
        Some(path) => read(path)?,
        None => take(&mut io::stdin()).map_err(|error| failure(EXIT_UNAVAILABLE, error))?,
    };
    let payloads = verify(&text, &trusted).map_err(|fault| failure(EXIT_USAGE, fault))?;
    Ok(payloads.into_iter().map(|payload| payload + "\n").collect())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = fs::File::open(path).and_then(|mut file| take(&mut file));
    text.map_err(|error| failure(EXIT_USAGE, format!("{}: {error}", path.display())))
}

fn take(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}
