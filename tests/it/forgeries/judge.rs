//! What must become of a request, by a rule of the test's own: from its bytes, and from what the test knows to be there.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::rule::{Reading, Wired, decode, sha256, signature};

/// What must happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// Refused with 400, 401, 403, 404 or 431.
    Refuse,
    /// Refused with 400: what it presents, or how, can be read in more than one way.
    Ambiguous,
}

/// An app or a key, as far as it opens anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) account: String,
    /// Tells the apps and keys of one account apart.
    pub(super) name: String,
    /// `None`: all.
    pub(super) products: Option<Vec<&'static str>>,
    /// It is neither disabled nor expired.
    pub(super) usable: bool,
}

/// All that is known to the gateway under test.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) keys: HashMap<String, Holder>,
    pub(super) codes: HashMap<String, Holder>,
    /// By AppKey, with the secrets.
    pub(super) apps: HashMap<String, (Holder, Vec<String>)>,
}

/// A credential as presented.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    Key(String),
    Code(String),
    Signed { app_key: String, names: Vec<String>, signature: String },
}

impl Shown {
    fn strength(&self) -> u8 {
        match self {
            Self::Key(_) => 0,
            Self::Code(_) => 1,
            Self::Signed { .. } => 2,
        }
    }
}

/// The product at a path, and what it accepts, by strength.
fn product(target: &str) -> Option<(&'static str, &'static [u8])> {
    // An escaped letter is that letter, wherever a path is read.
    let path = String::from_utf8_lossy(&decode(target.split('?').next().unwrap().as_bytes())).into_owned();
    let under = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if under("/api") {
        return Some(("api", &[0, 1, 2]));
    }
    if under("/maps") {
        return Some(("maps", &[0, 1, 2]));
    }
    under("/v1/infers/chat/v1").then_some(("chat", &[0]))
}

impl Known {
    /// Judges a request whose head is well-formed.
    pub(super) fn judge(&self, request: &Wired, now: Timestamp) -> Verdict {
        let Some((product, accepted)) = product(&request.target) else { return Verdict::Refuse };
        let shown = match shown(request, product) {
            Ok(shown) => shown,
            Err(verdict) => return verdict,
        };
        let Some(strongest) = shown.iter().max_by_key(|shown| shown.strength()) else { return Verdict::Refuse };
        if !accepted.contains(&strongest.strength()) {
            return Verdict::Refuse;
        }
        if let Shown::Signed { names, .. } = strongest
            && !is_complete_and_timely(request, names, now)
        {
            return Verdict::Refuse;
        }
        let holder = self.holder(strongest);
        for other in shown.iter().filter(|other| *other != strongest) {
            let same = match (holder, self.holder(other)) {
                (Some(one), Some(two)) => {
                    // A key and an app may go together; two keys must be one, and two of apps one app's.
                    let alike = (strongest.strength() == 0) != (other.strength() == 0) || one.name == two.name;
                    one.account == two.account && alike && one.usable && two.usable
                }
                (_, _) => false,
            };
            if !same {
                return Verdict::Ambiguous;
            }
        }
        let opens = holder.is_some_and(|holder| {
            holder.usable && holder.products.as_ref().is_none_or(|products| products.contains(&product))
        });
        if opens && self.fits(request, strongest) { Verdict::Accept } else { Verdict::Refuse }
    }

    fn holder(&self, shown: &Shown) -> Option<&Holder> {
        match shown {
            Shown::Key(text) => self.keys.get(text),
            Shown::Code(text) => self.codes.get(text),
            Shown::Signed { app_key, .. } => self.apps.get(app_key).map(|(holder, _)| holder),
        }
    }

    /// Whether a signature is one of the request; what is no signature has nothing that could not fit.
    fn fits(&self, request: &Wired, shown: &Shown) -> bool {
        let Shown::Signed { app_key, names, signature: there } = shown else { return true };
        let Some((_, secrets)) = self.apps.get(app_key) else { return false };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (own, declared) = (sha256(&request.body), request.only("x-sdk-content-sha256"));
        let payload = match declared.filter(|_| names.contains(&"x-sdk-content-sha256")) {
            None => own,
            Some(b"UNSIGNED-PAYLOAD") if request.body.is_empty() => own, // as some signers have it
            Some(declared) if declared == own.as_bytes() => own,
            Some(_) => return false,
        };
        let fits =
            |secret: &String, reading| signature(secret, request, &names, (&payload, reading)).as_ref() == Some(there);
        secrets.iter().any(|secret| Reading::ALL.iter().any(|reading| fits(secret, *reading)))
    }
}

/// All credentials of a request.
fn shown(request: &Wired, product: &str) -> Result<Vec<Shown>, Verdict> {
    let path = String::from_utf8_lossy(&decode(request.target.split('?').next().unwrap().as_bytes())).into_owned();
    let anthropic = path.contains("/v1/messages") || !request.lines("anthropic-version").is_empty();
    let places = ["authorization", "x-apig-appcode", "x-api-key"].map(|name| request.lines(name));
    let [authorization, code, key] = places;
    let repeated = authorization.len() > 1 || code.len() > 1 || key.len() > 1; // looked at or not
    let key = if product == "chat" && anthropic { key } else { Vec::new() };
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let named = |pair: &&str| decode(pair.split('=').next().unwrap().as_bytes()) == b"AppCode";
    let in_query: Vec<Vec<u8>> = match product {
        "api" => query
            .split('&')
            .filter(named)
            .map(|pair| decode(pair.split_once('=').map_or("", |(_, v)| v).as_bytes()))
            .collect(),
        _ => Vec::new(),
    };
    if repeated || in_query.len() > 1 {
        return Err(Verdict::Ambiguous);
    }
    let mut shown = Vec::new();
    for value in authorization {
        shown.push(in_authorization(value).ok_or(Verdict::Refuse)?);
    }
    for value in code.into_iter().chain(in_query.iter().map(Vec::as_slice)) {
        shown.push(Shown::Code(code_of(value).ok_or(Verdict::Refuse)?));
    }
    for value in key {
        shown.push(Shown::Key(key_of(value).ok_or(Verdict::Refuse)?));
    }
    Ok(shown)
}

fn in_authorization(value: &[u8]) -> Option<Shown> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => key_of(rest.trim_start_matches(' ').as_bytes()).map(Shown::Key),
        "appcode" => code_of(rest.trim_start_matches(' ').as_bytes()).map(Shown::Code),
        "sdk-hmac-sha256" if scheme == "SDK-HMAC-SHA256" => signed(rest.trim_start_matches(' ')),
        _ => None,
    }
}

fn signed(text: &str) -> Option<Shown> {
    let (app_key, rest) = text.strip_prefix("Access=")?.split_once(',')?;
    let one_blank = |text: &'_ str| text.strip_prefix(' ').unwrap_or(text).to_owned();
    let rest = one_blank(rest);
    let (names, rest) = rest.strip_prefix("SignedHeaders=")?.split_once(',')?;
    let rest = one_blank(rest);
    let signature = rest.strip_prefix("Signature=")?;
    let token = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let names: Vec<String> = names.split(';').map(str::to_owned).collect();
    let mut distinct = names.clone();
    distinct.sort();
    distinct.dedup();
    let hex = signature.len() == 64 && signature.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let visible = (1..=128).contains(&app_key.len()) && app_key.bytes().all(|b| b.is_ascii_graphic());
    if !hex || !visible || distinct.len() != names.len() || names.len() > 64 || !names.iter().all(|name| token(name)) {
        return None;
    }
    Some(Shown::Signed { app_key: app_key.to_owned(), names, signature: signature.to_owned() })
}

fn is_complete_and_timely(request: &Wired, names: &[String], now: Timestamp) -> bool {
    let there = names.iter().all(|name| !request.lines(name).is_empty());
    let hash_once =
        !names.iter().any(|name| name == "x-sdk-content-sha256") || request.lines("x-sdk-content-sha256").len() == 1;
    let date = request.only("x-sdk-date").and_then(date_of);
    let near = date.is_some_and(|date| now.duration_since(date).abs() <= jiff::SignedDuration::from_mins(15));
    there && hash_once && near && names.iter().any(|name| name == "x-sdk-date")
}

/// `20260115T083000Z`, and nothing else.
fn date_of(text: &[u8]) -> Option<Timestamp> {
    let shape = text.len() == 16
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 => *byte == b'T',
            15 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    let text = std::str::from_utf8(text).ok().filter(|_| shape)?;
    let parsed = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    parsed.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn key_of(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let body = text.trim_end_matches('=');
    let token = !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
    (token && text.len() <= 512).then(|| text.to_owned())
}

fn code_of(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b));
    let all = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+_!@#$%-/=".contains(&b));
    (first && all && (64..=180).contains(&text.len())).then(|| text.to_owned())
}
