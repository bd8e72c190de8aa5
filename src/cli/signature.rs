//! `tollgate sign` and `tollgate verify`: make a signature for a request, and explain one.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use jiff::Timestamp;

use super::apps::read_secret;
use super::args::signature::{SecretSource, SignArgs, VerifyArgs};
use super::{EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::domain::credential::SignatureRule;
use crate::protocol::signature::explain::first_difference;
use crate::protocol::signature::{
    BodyHash, Claim, DATE, Policy, SeenBody, SignatureFault, SignedRequest, SigningKey, date_text, sign,
};
use crate::protocol::target::read_target;

/// Where the secret is when no file is named.
pub const SECRET_VARIABLE: &str = "TOLLGATE_APP_SECRET";

/// Why nothing was signed or verified.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was asked for is wrong.
    #[error("{0}")]
    Input(String),
    /// The request cannot be signed, or its signature is refused.
    #[error("{0}")]
    Fault(#[from] SignatureFault),
    /// The signature does not fit.
    #[error("the signature does not fit")]
    Wrong,
    /// The output is closed.
    #[error("the answer cannot be printed: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Input(_) | Self::Fault(_) | Self::Wrong => EXIT_USAGE,
            Self::Output(_) => EXIT_UNAVAILABLE,
        }
    }
}

/// Prints the headers that sign a request and those that it was given, which are signed too, one a line: `curl -H @file`
/// takes them.
///
/// # Errors
/// See [`Failure`].
pub fn sign_request(
    args: &SignArgs,
    secret: Option<String>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Failure> {
    let key = signing_key(&args.secret, secret)?;
    let uri = url(&args.url)?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let host = uri.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    let host = host.ok_or_else(|| Failure::Input(format!("{} has no host; write the whole URL", args.url)))?;
    let body = match (&args.data, &args.data_file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(file)) => read_file(file)?,
        (None, None) => Vec::new(),
    };
    let mut headers = HeaderMap::new();
    for line in &args.headers {
        let (name, value) = header_line(line.as_bytes())?;
        headers.append(name, value);
    }
    if !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, value(host.as_bytes())?);
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, value(date_text(args.at.unwrap_or_else(Timestamp::now)).as_bytes())?);
    }
    let has_body = args.data.is_some() || args.data_file.is_some(); // an empty one, too, as curl has it
    let method = args.method.as_deref().unwrap_or(if has_body { "POST" } else { "GET" });
    let request = SignedRequest { method, target, headers: &headers, authority: None };
    let authorization = sign(&args.app_key, &key, request, BodyHash::of(&body))?;
    if args.canonical {
        let claim = Claim::read(authorization.as_bytes(), &headers, None)?;
        let policy = Policy { fallbacks: &[], unsigned_payload: true };
        let seen = SeenBody::Hashed(BodyHash::of(&body));
        let canonical = claim.canonical(request, seen, policy, SignatureRule::Base)?.unwrap_or_default();
        writeln!(notes, "{}", String::from_utf8_lossy(&canonical))?;
    }
    let date = headers.get(DATE).map(HeaderValue::as_bytes).unwrap_or_default();
    writeln!(out, "X-Sdk-Date: {}\nAuthorization: {authorization}", String::from_utf8_lossy(date))?;
    for line in &args.headers {
        let (name, value) = header_line(line.as_bytes())?;
        if name != DATE {
            writeln!(out, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
    }
    Ok(())
}

/// A URL as clients send it. One that they would change on its way, or that is refused whoever signs it, is not signed.
fn url(text: &str) -> Result<Uri, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Input(format!("{text}: {why}"));
    if !text.is_ascii() {
        return Err(wrong(&"holds letters that no URL has; write them as escapes like %C3%A9"));
    }
    let uri: Uri = text.parse().map_err(|error| wrong(&error))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong(&"begins with neither http:// nor https://"));
    }
    read_target(uri.path_and_query().map_or("/", |target| target.as_str())).map_err(|fault| wrong(&fault))?;
    Ok(uri)
}

/// Says whether a request's signature fits, by which rule, and what was signed.
///
/// # Errors
/// See [`Failure`].
pub fn verify_request(args: &VerifyArgs, secret: Option<String>, out: &mut dyn Write) -> Result<(), Failure> {
    let key = signing_key(&args.secret, secret)?;
    let wire = read_file(&args.request)?;
    let Wire { method, target, headers, body } = read_request(&wire)?;
    let request = SignedRequest { method: &method, target: &target, headers: &headers, authority: None };
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization =
        authorization.ok_or_else(|| Failure::Input("the request has no authorization header".into()))?;
    let claim = Claim::read(authorization.as_bytes(), &headers, None)?;
    let (hash, now) = (BodyHash::of(&body), args.at.unwrap_or_else(Timestamp::now));
    writeln!(out, "app key     {}", claim.app_key)?;
    writeln!(out, "signed at   {}, checked at {now:.0}", claim.date())?;
    writeln!(out, "body        {} bytes", body.len())?;
    claim.check_date(now)?;
    let policy = Policy { fallbacks: &SignatureRule::FALLBACKS, unsigned_payload: args.allow_unsigned_payload };
    let seen = SeenBody::Hashed(hash);
    if let Some(rule) = claim.verify(request, seen, [&key, &key], policy)? {
        writeln!(out, "the signature fits, by the rule {}", rule.name())?;
        return Ok(());
    }
    let canonical =
        SignatureRule::ALL.into_iter().find_map(|rule| claim.canonical(request, seen, policy, rule).ok()?);
    let ours = String::from_utf8_lossy(&canonical.unwrap_or_default()).into_owned();
    writeln!(out, "the request as it is read here:\n{ours}")?;
    if let Some(file) = &args.canonical {
        let theirs = read_file(file)?;
        let theirs = String::from_utf8_lossy(&theirs).into_owned();
        writeln!(out, "{}", compared(&ours, theirs.trim_end_matches('\n')))?;
    }
    Err(Failure::Wrong)
}

/// Where the signer's canonical request parts from ours.
fn compared(ours: &str, theirs: &str) -> String {
    let Some(found) = first_difference(ours, theirs) else {
        return "the signer's canonical request is the same: the secret is another one".to_owned();
    };
    let mut text = format!("first difference: {}, line {}, character {}", found.part, found.line, found.column);
    let _ = write!(text, "\n  here    {}\n  signer  {}", found.ours, found.theirs); // a String takes everything
    text
}

fn signing_key(source: &SecretSource, variable: Option<String>) -> Result<SigningKey, Failure> {
    let secret = match &source.secret_file {
        Some(file) => read_secret(file).map_err(|error| Failure::Input(error.to_string()))?,
        None => variable.unwrap_or_default(),
    };
    if secret.is_empty() {
        let message = format!("no secret; name its file with --secret-file, or set {SECRET_VARIABLE}");
        return Err(Failure::Input(message));
    }
    Ok(SigningKey::new(secret.as_bytes()))
}

fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::Input(format!("{} cannot be read: {error}", file.display())))
}

struct Wire {
    method: String,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Reads a request as it went over the wire; lines may end without a carriage return.
fn read_request(wire: &[u8]) -> Result<Wire, Failure> {
    let malformed = || Failure::Input("the file does not begin with a request line like GET /path HTTP/1.1".into());
    let (mut lines, mut rest) = (Vec::new(), wire);
    loop {
        let end = memchr::memchr(b'\n', rest).ok_or_else(|| {
            Failure::Input("no empty line ends the head; keep it, even where there is no body".into())
        })?;
        let (line, after) = rest.split_at_checked(end).unwrap_or_default();
        rest = after.get(1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let first = lines.next().and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(malformed)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(_), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(malformed());
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = header_line(line)?;
        headers.append(name, value);
    }
    let chunked = headers.get(header::TRANSFER_ENCODING).is_some();
    let body = if chunked { unchunked(rest)? } else { rest.to_vec() };
    Ok(Wire { method: method.to_owned(), target: target.to_owned(), headers, body })
}

/// A body without the chunks that it came in.
fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>, Failure> {
    let malformed = || Failure::Input("the chunked body is malformed or cut".into());
    let mut body = Vec::new();
    loop {
        let end = memchr::memchr(b'\n', rest).ok_or_else(malformed)?;
        let (line, after) = rest.split_at_checked(end).ok_or_else(malformed)?;
        let digits = std::str::from_utf8(line).unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| malformed())?;
        if size == 0 {
            return Ok(body); // trailers are not signed
        }
        let (data, after) = after.get(1..).and_then(|after| after.split_at_checked(size)).ok_or_else(malformed)?;
        body.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n")).ok_or_else(malformed)?;
    }
}

fn header_line(line: &[u8]) -> Result<(HeaderName, HeaderValue), Failure> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let at = memchr::memchr(b':', line).ok_or_else(|| Failure::Input(format!("{:?} is no header", shown())))?;
    let (name, rest) = line.split_at_checked(at).unwrap_or_default();
    let name = HeaderName::from_bytes(name).map_err(|error| Failure::Input(format!("{:?}: {error}", shown())))?;
    Ok((name, value(rest.get(1..).unwrap_or_default().trim_ascii())?))
}

fn value(bytes: &[u8]) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(bytes).map_err(|error| Failure::Input(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    /// Runs a command in a folder of its own, where `@` in the line stands.
    fn run(folder: &Path, line: &[&str]) -> (Result<(), Failure>, String) {
        let words = line.iter().map(|word| word.replace('@', &format!("{}/", folder.display())));
        let cli = Cli::try_parse_from(std::iter::once("tollgate".to_owned()).chain(words)).unwrap();
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let secret = Some("a secret of tests".to_owned());
        let done = if let Command::Sign(args) = &cli.command {
            sign_request(args, secret, &mut out, &mut notes)
        } else if let Command::Verify(args) = &cli.command {
            verify_request(args, secret, &mut out)
        } else {
            panic!("{line:?}")
        };
        (done, String::from_utf8([notes, out].concat()).unwrap())
    }

    const SIGN: &[&str] = &[
        "sign",
        "https://api.test:8443/a%20b?y=2&x=1",
        "--app-key",
        "key-1",
        "-H",
        "Content-Type: text/plain",
        "-d",
        "the body",
        "--at",
        "2026-01-15T08:30:00Z",
    ];

    fn request(signed: &str) -> String {
        let head = "POST /a%20b?y=2&x=1 HTTP/1.1\r\nHost: api.test:8443\r\n";
        format!("{head}{}\r\n\r\nthe body", signed.trim_end().replace('\n', "\r\n"))
    }

    #[test]
    fn what_sign_makes_verify_accepts_and_explains_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (done, signed) = run(folder.path(), SIGN);
        done.unwrap();
        assert!(signed.starts_with("X-Sdk-Date: 20260115T083000Z\nAuthorization: SDK-HMAC-SHA256 Access=key-1, "));
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("good", &request(&signed));
        let at = ["--at", "2026-01-15T08:40:00Z"];
        let verify = |more: &[&str]| run(folder.path(), &[&["verify"], more, &at].concat());
        let (done, said) = verify(&["@good"]);
        done.unwrap();
        assert!(said.contains("the signature fits, by the rule base"), "{said}");
        let chunked = "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nthe\r\n5\r\n body\r\n0\r\n\r\n";
        write("chunked", &request(&signed).replace("\r\nthe body", chunked));
        verify(&["@chunked"]).0.unwrap();

        let (done, canonical) = run(folder.path(), &[SIGN, &["--canonical"]].concat());
        done.unwrap();
        let canonical = canonical.split("\nX-Sdk-Date").next().unwrap();
        write("canonical", canonical);
        write("bad", &request(&signed).replace("x=1", "x=3"));
        let (done, said) = verify(&["@bad", "--canonical", "@canonical"]);
        assert!(matches!(done, Err(Failure::Wrong)));
        assert!(said.contains("first difference: query, line 3, character 3\n  here    x=3&y=2"), "{said}");
        write("secret", "another secret\n");
        let (done, said) = verify(&["@good", "--canonical", "@canonical", "--secret-file", "@secret"]);
        assert!(matches!(done, Err(Failure::Wrong)));
        assert!(said.contains("the secret is another one"), "{said}");
        let (done, _) = run(folder.path(), &["verify", "@good"]);
        assert!(matches!(done, Err(Failure::Fault(SignatureFault::Expired { .. }))));
    }

    #[test]
    fn what_cannot_be_sent_as_it_was_signed_is_not_signed() {
        let folder = tempfile::tempdir().unwrap();
        let signed = |url: &str, more: &[&str]| run(folder.path(), &[&["sign", url, "--app-key", "k"], more].concat());
        for url in ["ftp://a/x", "https://a/b/../c", "https://a/b%2Fc", "https://a/x?q=\u{e9}", "/x"] {
            assert!(matches!(signed(url, &[]).0, Err(Failure::Input(_))), "{url}");
        }
        let canonical = |more: &[&str]| signed("https://a/x", &[&["--canonical"], more].concat()).1;
        assert!(canonical(&["-d", ""]).starts_with("POST\n") && canonical(&[]).starts_with("GET\n"));
        let (_, headers) = signed("https://a/x", &["-H", "X-One: 1", "-H", "X-Two:  2 "]);
        assert!(headers.ends_with("\nx-one: 1\nx-two: 2\n"), "{headers}");
    }

    #[test]
    fn what_is_no_request_is_said() {
        for bad in ["", "GET /\n\n", "GET / HTTP/1.1\nHost: a\n", "GET / HTTP/1.1\nno header\n\n"] {
            assert!(matches!(read_request(bad.as_bytes()), Err(Failure::Input(_))), "{bad}");
        }
        assert_eq!(Failure::Wrong.exit(), EXIT_USAGE);
    }
}
