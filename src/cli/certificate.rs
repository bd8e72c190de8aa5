//! `tollgate dev-certificate`: an authority of one's own and what it signs, to try TLS out with. The authority's key is
//! not kept: nobody can sign with it later.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::args::certificate::DevCertificateArgs;
use super::failure::{Failure, ended, failure};
use super::{EXIT_BUG, EXIT_UNAVAILABLE, EXIT_USAGE};

/// The authority's name.
const AUTHORITY: &str = "Tollgate development authority";

/// Carries the command out.
pub fn run(args: &DevCertificateArgs, out: &mut dyn Write, notes: &mut dyn Write) -> ExitCode {
    ended(make(args), out, notes)
}

/// Makes the files, and returns what to do with them.
fn make(args: &DevCertificateArgs) -> Result<String, Failure> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let days = i64::from(args.days);
    let (from, until) = (today.saturating_sub(1.day()), today.saturating_add(days.days()));
    let key = KeyPair::generate().map_err(bug)?;
    let mut authority = named(Vec::new(), AUTHORITY, (from, until))?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_pem = authority.self_signed(&key).map_err(bug)?.pem();
    let issuer = Issuer::new(authority, key);

    let first = args.hosts.first().map_or("localhost", String::as_str);
    let server = signed(args.hosts.clone(), first, (from, until), (&issuer, ExtendedKeyUsagePurpose::ServerAuth))?;
    let client = args
        .client
        .as_ref()
        .map(|name| signed(Vec::new(), name, (from, until), (&issuer, ExtendedKeyUsagePurpose::ClientAuth)));
    let client = client.transpose()?;

    fs::create_dir_all(&args.dir).map_err(|error| failure(EXIT_UNAVAILABLE, named_error(&args.dir, &error)))?;
    let mut files = vec![("ca.pem", authority_pem, 0o644)];
    files.extend([("server.pem", server.0, 0o644), ("server.key", server.1, 0o600)]);
    if let Some((certificate, key)) = client {
        files.extend([("client.pem", certificate, 0o644), ("client.key", key, 0o600)]);
    }
    if let Some((name, ..)) = files.iter().find(|(name, ..)| args.dir.join(name).exists()) {
        let path = args.dir.join(name);
        return Err(failure(EXIT_USAGE, format!("{} is there already; nothing is overwritten", path.display())));
    }
    for (name, text, mode) in files {
        let path = args.dir.join(name);
        write(&path, &text, mode).map_err(|error| failure(EXIT_UNAVAILABLE, named_error(&path, &error)))?;
    }
    let dir = args.dir.display();
    Ok(format!(
        "{dir}: made for {hosts}, valid until {until}\n\
         listeners.data: {{ address: 127.0.0.1:8443, tls: {{ certificates: [{{ cert_file: {dir}/server.pem, key_file: \
         {dir}/server.key }}] }} }}\n\
         curl --cacert {dir}/ca.pem https://{first}:8443/\n",
        hosts = args.hosts.join(", "),
    ))
}

fn named(
    hosts: Vec<String>,
    name: &str,
    (from, until): (civil::Date, civil::Date),
) -> Result<CertificateParams, Failure> {
    let wrong = |error| failure(EXIT_USAGE, format!("not a host's name or address ({error}); write one as in a URL"));
    let mut params = CertificateParams::new(hosts).map_err(wrong)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let midnight =
        |day: civil::Date| date_time_ymd(i32::from(day.year()), day.month().unsigned_abs(), day.day().unsigned_abs());
    (params.not_before, params.not_after) = (midnight(from), midnight(until));
    Ok(params)
}

/// A certificate signed by the authority, and its key, both as PEM.
fn signed(
    hosts: Vec<String>,
    name: &str,
    valid: (civil::Date, civil::Date),
    (issuer, purpose): (&Issuer<'_, KeyPair>, ExtendedKeyUsagePurpose),
) -> Result<(String, String), Failure> {
    let key = KeyPair::generate().map_err(bug)?;
    let mut params = named(hosts, name, valid)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer).map_err(bug)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn named_error(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn bug(error: rcgen::Error) -> Failure {
    failure(EXIT_BUG, error)
}
