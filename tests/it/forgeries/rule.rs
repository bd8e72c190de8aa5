//! The signature's public rule, written a second time from its description and apart from the gateway: canonical request,
//! text to sign, HMAC; and requests as they go over the wire, to be signed by it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::harness::rng::Rng;

/// A request as it goes over the wire. Fields may hold any bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Wired {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Wired {
    pub(super) fn new(method: &str, target: &str) -> Self {
        let made = Self { method: method.to_owned(), target: target.to_owned(), ..Self::default() };
        made.with("Host", "api.test")
    }

    /// With a further field.
    pub(super) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(there, _)| !there.eq_ignore_ascii_case(name));
        self
    }

    /// With another value in the place of a field's.
    pub(super) fn put(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).with(name, value)
    }

    /// All values of a field, without the white space around them.
    pub(super) fn lines(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(there, _)| there.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim_ascii()).collect()
    }

    /// The value of a field that stands once.
    pub(super) fn only(&self, name: &str) -> Option<&[u8]> {
        match self.lines(name).as_slice() {
            [line] => Some(line),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> String {
        String::from_utf8(self.only(name).unwrap().to_vec()).unwrap()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        if self.lines("content-length").is_empty() {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        [&bytes, &b"\r\n"[..], &self.body].concat()
    }
}

/// How a request is read where signers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Base,
    RawPath,
    EncodedSort,
    LiteralPlus,
}

impl Reading {
    pub(super) const ALL: [Self; 4] = [Self::Base, Self::RawPath, Self::EncodedSort, Self::LiteralPlus];
}

pub(super) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes.as_ref()))
}

/// `%XX` resolved once; everything else stays.
pub(super) fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut at) = (Vec::new(), 0);
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    bytes
}

fn encode(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    bytes.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn canonical_path(path: &str, reading: Reading) -> String {
    let bytes = if reading == Reading::RawPath { path.as_bytes().to_vec() } else { decode(path.as_bytes()) };
    let encoded = bytes.split(|byte| *byte == b'/').map(encode).collect::<Vec<_>>().join("/");
    if encoded.ends_with('/') { encoded } else { encoded + "/" }
}

fn canonical_query(query: &str, reading: Reading) -> String {
    let read = |text: &str| {
        let spaced = if reading == Reading::LiteralPlus { text.to_owned() } else { text.replace('+', " ") };
        decode(spaced.as_bytes())
    };
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<_> =
        pairs.filter(|(name, _)| !name.is_empty()).map(|(name, value)| (read(name), read(value))).collect();
    match reading {
        Reading::EncodedSort => pairs.sort_by_key(|(name, value)| (encode(name), encode(value))),
        Reading::Base | Reading::RawPath | Reading::LiteralPlus => pairs.sort(),
    }
    pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

/// The signature of a request with its signed fields in this order.
pub(super) fn signature(
    secret: &str,
    request: &Wired,
    signed: &[&str],
    (payload, reading): (&str, Reading),
) -> Option<String> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut fields = Vec::new();
    for name in signed {
        let mut values = request.lines(name);
        values.sort_unstable();
        values.iter().for_each(|value| fields.extend_from_slice(&[name.as_bytes(), b":", value, b"\n"].concat()));
    }
    let (path, query) = (canonical_path(path, reading), canonical_query(query, reading));
    let head = format!("{}\n{path}\n{query}\n", request.method);
    let tail = format!("\n{}\n{payload}", signed.join(";"));
    let canonical = [head.as_bytes(), &fields, tail.as_bytes()].concat();
    let date = request.only("x-sdk-date")?;
    let text = [b"SDK-HMAC-SHA256\n", date, b"\n", sha256(canonical).as_bytes()].concat();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(&text);
    Some(hex(mac.finalize().into_bytes()))
}

/// The request with its date and its signature over all of its fields but some that signers leave out.
pub(super) fn sign(
    request: Wired,
    (app_key, secret): (&str, &str),
    at: jiff::Timestamp,
    (reading, signs_host): (Reading, bool),
) -> Wired {
    let request = request.put("X-Sdk-Date", at.strftime("%Y%m%dT%H%M%SZ").to_string());
    let mut names: Vec<String> = request.fields.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.retain(|name| {
        let unsigned = ["authorization", "content-length", "connection", "x-apig-appcode"];
        !unsigned.contains(&name.as_str()) && (signs_host || name != "host")
    });
    names.sort();
    names.dedup();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let declared = request.only("x-sdk-content-sha256").map(|hash| String::from_utf8_lossy(hash).into_owned());
    let payload = declared.unwrap_or_else(|| sha256(&request.body));
    let signature = signature(secret, &request, &names, (&payload, reading)).unwrap();
    let line = names.join(";");
    let value = format!("SDK-HMAC-SHA256 Access={app_key}, SignedHeaders={line}, Signature={signature}");
    request.with("Authorization", value)
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// So many random letters and digits.
pub(super) fn word(rng: &mut Rng, length: u64) -> String {
    (0..length).map(|_| char::from(LETTERS[rng.below(LETTERS.len() as u64) as usize])).collect()
}

pub(super) fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.below(from.len() as u64) as usize]
}

/// A piece of a path or query: a letter first, so that it is no dot segment, then whatever paths may hold.
fn piece(rng: &mut Rng, marks: &[&str]) -> String {
    let mut text = word(rng, 1);
    for _ in 0..rng.below(6) {
        let part = if rng.percent(50) { word(rng, 2) } else { pick(rng, marks).to_owned() };
        text.push_str(&part);
    }
    text
}

const PATH_MARKS: [&str; 18] =
    ["-", "_", ".", "~", "!", "$", "(", ")", "*", ",", ":", "@", "=", "%20", "%2B", "%41", "%e4%bd%a0", "%E5%A5%BD"];
const QUERY_MARKS: [&str; 16] =
    ["-", ".", "~", "!", "*", ",", ":", "@", "/", "?", "=", "+", "%20", "%2b", "%26", "%E5%A5%BD"];

/// A request of random parts under a path.
pub(super) fn request(rng: &mut Rng, under: &str) -> Wired {
    let segments: Vec<String> = (0..1 + rng.below(3)).map(|_| piece(rng, &PATH_MARKS)).collect();
    let pair = |rng: &mut Rng| match rng.below(5) {
        0 => piece(rng, &QUERY_MARKS).replace('=', ""),
        1 => format!("{}=", word(rng, 2)),
        2 => format!("a={}", piece(rng, &QUERY_MARKS)), // often more than once
        _ => format!("{}={}", piece(rng, &["[]", "%5B", "-"]), piece(rng, &QUERY_MARKS)),
    };
    let pairs: Vec<String> = (0..rng.below(5)).map(|_| pair(rng)).collect();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    let slash = if rng.percent(15) { "/" } else { "" };
    let method = pick(rng, &["GET", "POST", "PUT", "PATCH", "DELETE"]);
    let mut made = Wired::new(method, &format!("{under}/{}{slash}{query}", segments.join("/")));
    made = made.with("Content-Type", pick(rng, &["text/plain", "application/octet-stream", "text/csv; charset=utf-8"]));
    for _ in 0..rng.below(4) {
        let name = pick(rng, &["X-First", "x-second", "X-THIRD", "User-Agent"]);
        let value = format!("{}{}{}", word(rng, 3), pick(rng, &["", "  ", " a", ",", ";", "=", "é"]), word(rng, 3));
        if name != "User-Agent" || made.lines(name).is_empty() {
            made = made.with(name, value);
        }
    }
    if rng.percent(60) {
        made.body = (0..rng.below(300)).map(|_| rng.below(256) as u8).collect();
    }
    if rng.percent(25) {
        made = made.clone().with("X-Sdk-Content-Sha256", sha256(&made.body));
    }
    made
}
