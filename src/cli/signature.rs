//! `tollgate sign` and `tollgate verify`: make a signature for a request, and explain one.

mod wire;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use http::{HeaderMap, HeaderValue, Uri, header};
use jiff::Timestamp;

use self::wire::{Wire, check_connection, check_front_door, head_of, header_line, read_request, value};
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
    /// The gateway does not get as far as the signature.
    #[error("the gateway refuses this request, whatever its signature: {0}")]
    Refused(String),
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
            Self::Input(_) | Self::Fault(_) | Self::Refused(_) | Self::Wrong => EXIT_USAGE,
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
    let host = host(&uri).ok_or_else(|| Failure::Input(format!("{} has no host; write the whole URL", args.url)))?;
    let body = match (&args.data, &args.data_file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(file)) => read_file(file)?,
        (None, None) => Vec::new(),
    };
    let mut headers = given_headers(&args.headers)?;
    if !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, value(host.as_bytes())?);
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, value(date_text(args.at.unwrap_or_else(Timestamp::now)).as_bytes())?);
    }
    let has_body = args.data.is_some() || args.data_file.is_some(); // an empty one, too, as curl has it
    let method = args.method.as_deref().unwrap_or(if has_body { "POST" } else { "GET" });
    check_front_door(&head_of(method, target, &headers))?;
    let request = SignedRequest { method, target, headers: &headers, authority: None };
    let authorization = sign(&args.app_key, &key, request, BodyHash::of(&body))?;
    let claim = Claim::read(authorization.as_bytes(), &headers, None)?;
    check_connection(&headers, &claim)?;
    if args.canonical {
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

/// The headers that are sent as well. What clients do not send as it is written is not signed.
fn given_headers(lines: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = header_line(line.as_bytes())?;
        if value.is_empty() {
            let message =
                format!("the header `{name}` has no value, and clients such as curl leave it out; give it one");
            return Err(Failure::Input(message));
        }
        if name == header::AUTHORIZATION {
            return Err(Failure::Input("the authorization header is what is made here; leave it out".to_owned()));
        }
        headers.append(name, value);
    }
    Ok(headers)
}

/// What clients send as `Host`: without the port that the scheme has anyway.
fn host(uri: &Uri) -> Option<String> {
    let host = uri.host().filter(|host| !host.is_empty())?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some(match uri.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
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
    let target = target_of(&target)?;
    let request = SignedRequest { method: &method, target: &target, headers: &headers, authority: None };
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization =
        authorization.ok_or_else(|| Failure::Input("the request has no authorization header".into()))?;
    let claim = Claim::read(authorization.as_bytes(), &headers, None)?;
    check_connection(&headers, &claim)?;
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

/// The path and the query, which are signed, also of a target that is a whole URL.
fn target_of(text: &str) -> Result<String, Failure> {
    let refused = |why: &dyn std::fmt::Display| Failure::Refused(why.to_string());
    let uri: Uri = text.parse().map_err(|error| refused(&error))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    read_target(target).map_err(|fault| refused(&fault))?;
    Ok(target.to_owned())
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
    fn what_clients_send_otherwise_or_the_gateway_refuses_is_not_signed() {
        let folder = tempfile::tempdir().unwrap();
        let sign = |url: &str, more: &[&str]| {
            let line = [&["sign", url, "--app-key", "k", "--canonical"], more].concat();
            run(folder.path(), &line)
        };
        for (url, host) in [
            ("http://a.test:80/", "a.test"),
            ("https://a.test:443/", "a.test"),
            ("http://a.test:443/", "a.test:443"),
            ("https://a.test:80/", "a.test:80"),
            ("https://A.test:0443/", "A.test"),
            ("http://[::1]:80/", "[::1]"),
            ("http://[::1]:8080/", "[::1]:8080"),
        ] {
            let (done, said) = sign(url, &[]);
            done.unwrap();
            assert!(said.contains(&format!("\nhost:{host}\n")), "{url}: {said}");
        }
        for (more, why) in [
            (&["-H", "X-A:"][..], "`x-a` has no value, and clients such as curl leave it out"),
            (&["-H", "X-A:  "], "`x-a` has no value"),
            (&["-H", "Authorization: Bearer x"], "the authorization header is what is made here"),
            (&["-H", "x_a: 1"], "a header name holds an underscore"),
            (&["-X", "GE T"], "the request line is malformed"),
            (&["-X", ""], "the request line is malformed"),
            (&["-X", "TRACE"], "the TRACE method is not served"),
            (&["-H", "Connection: Host"], "names a header that must reach the gateway"),
            (&["-H", "Connection: X-A", "-H", "X-A: 1"], "names a header that is signed"),
        ] {
            let (done, said) = sign("https://a.test/x", more);
            let failure = done.unwrap_err();
            assert!(failure.to_string().contains(why), "{more:?}: {failure}");
            assert_eq!((failure.exit(), said.contains("Authorization:")), (EXIT_USAGE, false), "{said}");
        }
        sign("https://a.test/x", &["-H", "Connection: close"]).0.unwrap();
    }

    #[test]
    fn verify_reads_a_request_as_the_gateway_does() {
        let folder = tempfile::tempdir().unwrap();
        let (done, signed) = run(folder.path(), &[SIGN, &["-H", "X-A: 1"]].concat());
        done.unwrap();
        let good = request(&signed);
        let verify = |text: &str| {
            std::fs::write(folder.path().join("wire"), text).unwrap();
            run(folder.path(), &["verify", "@wire", "--at", "2026-01-15T08:40:00Z"])
        };
        let with = |line: &str| good.replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
        for fine in [
            good.clone(),
            good.replace("\r\n", "\n"),
            with("Connection: close"),
            good.replace("POST /", "POST https://api.test:8443/"),
            format!("{}\n", with("Content-Length: 8")), // an editor's line end is no part of it
        ] {
            let (done, said) = verify(&fine);
            assert!(done.is_ok() && said.contains("the signature fits, by the rule base"), "{done:?} {said}");
        }
        assert!(matches!(verify(&with("Content-Length: 7")).0, Err(Failure::Wrong)));
        let cut = verify(&with("Content-Length: 9")).0.unwrap_err().to_string();
        assert!(cut.contains("8 of the 9 bytes"), "{cut}");
        for (bad, why) in [
            (with("Authorization: Bearer x"), "the authorization header is repeated"),
            (with("x_b: 1"), "a header name holds an underscore"),
            (with("Connection: x-a"), "the connection header names a header that is signed"),
            (with("Connection: host"), "names a header that must reach the gateway"),
            (good.replace("POST /", "POST https://other.test/"), "names another host"),
            (good.replace("/a%20b", "/x/../a%20b"), "a dot segment"),
        ] {
            let (done, said) = verify(&bad);
            let failure = done.unwrap_err();
            assert!(matches!(&failure, Failure::Refused(text) if text.contains(why)), "{bad}: {failure}");
            assert!(!said.contains("fits"), "{said}");
        }
    }

    #[test]
    fn what_is_no_request_is_said() {
        for bad in ["", "GET /\n\n", "GET / HTTP/1.1\nHost: a\n", "GET / HTTP/1.1\nno header\n\n"] {
            assert!(matches!(read_request(bad.as_bytes()), Err(Failure::Input(_))), "{bad}");
        }
        assert_eq!(Failure::Wrong.exit(), EXIT_USAGE);
    }
}
