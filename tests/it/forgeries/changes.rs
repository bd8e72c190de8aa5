//! What is done to a right request: each change by name. Whether the result is still right is judged elsewhere.

use jiff::{SignedDuration, Timestamp};

use super::cast::Cast;
use super::rule::{Reading, Wired, pick, request, sha256, sign, word};
use crate::harness::rng::Rng;

/// A request to be sent.
pub(super) struct Case {
    pub(super) request: Wired,
    /// Its head is malformed: it must be refused whatever it presents.
    pub(super) malformed: bool,
}

impl From<Wired> for Case {
    fn from(request: Wired) -> Self {
        Self { request, malformed: false }
    }
}

fn malformed(request: Wired) -> Case {
    Case { request, malformed: true }
}

/// Largest secret that is tried.
const HUGE: usize = 1 << 20;

/// One character replaced by another of its kind.
fn altered(rng: &mut Rng, text: &str) -> String {
    let at = rng.below(text.len() as u64) as usize;
    let new = if text.as_bytes()[at] == b'a' { "b" } else { "a" };
    format!("{}{new}{}", &text[..at], &text[at + 1..])
}

/// One letter in its other case.
fn other_case(rng: &mut Rng, text: &str) -> String {
    let letters: Vec<usize> =
        text.bytes().enumerate().filter(|(_, b)| b.is_ascii_alphabetic()).map(|(at, _)| at).collect();
    let at = letters[rng.below(letters.len() as u64) as usize];
    let letter = char::from(text.as_bytes()[at]);
    let other = if letter.is_ascii_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

/// Secrets that are none, or almost one.
fn wrong_secret(rng: &mut Rng, right: &str, which: u64) -> Vec<u8> {
    let part = 1 + rng.below(right.len() as u64 - 1) as usize;
    match which {
        0 => right[..part].into(),
        1 => format!("{right}{}", word(rng, 1)).into(),
        2 => altered(rng, right).into(),
        3 => other_case(rng, right).into(),
        4 => right.chars().rev().collect::<String>().into(),
        5 => Vec::new(),
        6 => vec![b'a'],
        7 => vec![b'a'; HUGE],
        8 => [&right.as_bytes()[..part], b"\xff\xfe"].concat(),
        9 => [&right.as_bytes()[..part], b"\"{};"].concat(),
        10 => [&right.as_bytes()[..part], b" ", &right.as_bytes()[part..]].concat(),
        11 => format!("{},{right}", right).into(),
        12 => format!("{right}, {right}").into(),
        13 => format!("{}{}", &right[..part], word(rng, (right.len() - part) as u64)).into(),
        14 => format!("{}{}", word(rng, part as u64), &right[part..]).into(),
        15 => right.replacen(&right[part - 1..part], &format!("%{:02x}", right.as_bytes()[part - 1]), 1).into(),
        16 => right.repeat(2).into(),
        17 => word(rng, right.len() as u64).into(),
        18 => b"null".to_vec(),
        _ => [&right.as_bytes()[..part], b"\0", &right.as_bytes()[part..]].concat(),
    }
}

const WRONG_SECRETS: u64 = 20;

/// What can be done to a field that holds a credential without touching the credential.
fn field_changed(rng: &mut Rng, right: &Wired, name: &str, which: u64) -> Case {
    let value = right.text(name);
    let half = value.len() / 2;
    // Whether a body is read as JSON must not depend on which of two lines counts.
    let twice = |request: Wired| Case { malformed: name == "Content-Type", request };
    match which {
        0 => right.clone().without(name).into(),
        1 => twice(right.clone().with(name, &value)),
        2 => twice(right.clone().with(name, word(rng, 70))),
        3 => malformed(right.clone().put(name, format!("{}\r\n {}", &value[..half], &value[half..]))),
        4 => malformed(right.clone().put(name, format!("{}\n{}", &value[..half], &value[half..]))),
        5 => right.clone().without(name).with(&other_case(rng, name), &value).into(),
        6 => right.clone().without(name).with(&format!("{name}."), &value).into(),
        7 => malformed(right.clone().without(name).with(&format!("{name} "), &value)),
        8 => {
            malformed(right.clone().without(name).with(&name.replacen('-', "_", 1), &value)).only_if(name.contains('-'))
        }
        9 => right.clone().put(name, format!("  {value} \t")).into(),
        10 => right.clone().put(name, format!("{value},{value}")).into(),
        11 => malformed(right.clone().with("Host", "api.test")),
        12 => malformed(right.clone().without("Host")),
        13 => malformed(right.clone().with("Content-Length", right.body.len().to_string()).with("Content-Length", "0")),
        _ => right.clone().put(name, format!("{value};")).into(),
    }
}

const FIELD_CHANGES: u64 = 15;

impl Case {
    /// What a name without a hyphen cannot show is an ordinary repetition.
    fn only_if(self, can: bool) -> Self {
        if can { self } else { Self { malformed: false, ..self } }
    }
}

/// What can be done to everything but the credential.
fn rest_changed(rng: &mut Rng, right: &Wired, which: u64) -> Case {
    let mut request = right.clone();
    match which {
        0 => request.body = [&request.body[..], b"a"].concat(),
        1 => request.body.truncate(request.body.len() / 2),
        2 => request.body.clear(),
        3 => request.target = request.target.replacen("/api/", "/api/x", 1),
        4 => request.target = reordered(&request.target),
        5 => request.target = other_case(rng, &request.target),
        6 => request.target = escaped(&request.target),
        7 => request.target = lower_escapes(&request.target),
        8 => request.target = format!("{}{}x=y", request.target, if request.target.contains('?') { '&' } else { '?' }),
        9 => request.method = if request.method == "GET" { "POST" } else { "GET" }.to_owned(),
        10 => request = request.put("Host", "other.test"),
        11 => request = request.put("Host", "API.TEST"),
        12 => request = request.put("Host", "api.test."),
        13 => request = request.put("Host", "api.test:80"),
        14 => request = request.put("Content-Type", "application/x-other"),
        15 => request = request.with("X-First", word(rng, 3)),
        16 => request = request.with("X-Unsigned", word(rng, 3)),
        17 => request.fields.reverse(),
        18 => request.fields.iter_mut().for_each(|(name, _)| *name = name.to_uppercase()),
        19 => request = request.without("Content-Type"),
        20 => request.target = request.target.replacen("/api/", "/maps/", 1),
        21 => request.target = request.target.replacen("/api/", "/apix/", 1),
        22 => request.target = request.target.split('?').next().unwrap().to_owned(),
        _ => request.body.reverse(),
    }
    request.into()
}

const REST_CHANGES: u64 = 24;

/// The parameters the other way round.
fn reordered(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    format!("{path}?{}", query.split('&').rev().collect::<Vec<_>>().join("&"))
}

/// The path's first letter after its prefix as an escape.
fn escaped(target: &str) -> String {
    let at = target[1..].find('/').unwrap() + 2;
    format!("{}%{:02X}{}", &target[..at], target.as_bytes()[at], &target[at + 1..])
}

fn lower_escapes(target: &str) -> String {
    let mut parts = target.split('%');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| format!("{text}%{}{}", part[..2].to_lowercase(), &part[2..]))
}

/// A right signed request.
pub(super) fn right_signature(rng: &mut Rng, cast: &Cast) -> Wired {
    let own = [&cast.own.app, &cast.second.app, &cast.other.app][rng.below(3) as usize];
    let (reading, signs_host) = (Reading::ALL[rng.below(4) as usize], rng.percent(85));
    sign(request(rng, "/api"), (&own.app_key, &own.secret), Timestamp::now(), (reading, signs_host))
}

/// Changes that only a signature knows.
fn signature_changed(rng: &mut Rng, cast: &Cast, right: &Wired, which: u64) -> Case {
    let value = right.text("Authorization");
    let with = |value: String| right.clone().put("Authorization", value);
    let (own, base) = (&cast.own.app, (Reading::Base, true));
    let fresh = request(rng, "/api");
    let dated = |seconds: i64| {
        let at = Timestamp::now() + SignedDuration::from_secs(seconds);
        sign(fresh.clone(), (&own.app_key, &own.secret), at, base)
    };
    match which {
        0 => with(format!("{}{}", &value[..value.len() - 64], altered(rng, &value[value.len() - 64..]))),
        1 => with(format!("{}{}", &value[..value.len() - 64], value[value.len() - 64..].to_uppercase())),
        2 => with(value[..value.len() - 2].to_owned()),
        3 => with(format!("{value}00")),
        4 => with(value.replacen("SDK-HMAC-SHA256", pick(rng, &ALGORITHMS), 1)),
        5 => with(value.replacen("Access=", pick(rng, &["Credential=", "access=", "Access= ", "", "Access=,"]), 1)),
        6 => with(value.replacen("SignedHeaders=", "SignedHeaders=x-none;", 1)),
        7 => with(value.replacen("SignedHeaders=content-type", "SignedHeaders=Content-Type", 1)),
        8 => with(value.replacen("x-sdk-date", pick(rng, &["date", "x-sdk-date;x-sdk-date"]), 1)),
        9 => with(value.replacen(", ", pick(rng, &[",", ",  ", ";", " "]), 2)),
        10 => with(value.replacen("SHA256 ", pick(rng, &["SHA256  ", "SHA256\t", "SHA256,", "SHA256"]), 1)),
        11 => right.clone().put("X-Sdk-Date", pick(rng, &DATES)),
        12 => right.clone().with("X-Sdk-Date", right.text("X-Sdk-Date")),
        13 => right.clone().put("X-Sdk-Date", format!("{0},{0}", right.text("X-Sdk-Date"))),
        14 => right.clone().without("X-Sdk-Date"),
        15 => dated(-900 + rng.below(5) as i64 - 2),
        16 => dated(900 + rng.below(5) as i64 - 2),
        17 => dated(pick(rng, &["-86400", "86400", "-3600", "3600", "-840", "840"]).parse().unwrap()),
        18 | 19 => {
            let app = &cast.useless_apps[rng.below(cast.useless_apps.len() as u64) as usize];
            sign(request(rng, "/api"), (&app.app_key, &app.secret), Timestamp::now(), base)
        }
        20 => sign(request(rng, "/api"), (&own.app_key, &cast.other.app.secret), Timestamp::now(), base),
        21 => {
            let secret = wrong_secret(rng, &own.secret, which % 5);
            let secret = String::from_utf8(secret).unwrap();
            sign(request(rng, "/api"), (&own.app_key, &secret), Timestamp::now(), base)
        }
        22 => sign(request(rng, "/api"), (&own.app_key, pick(rng, &["", "a"])), Timestamp::now(), base),
        23 => sign(request(rng, "/api"), (&own.app_key, &"a".repeat(HUGE)), Timestamp::now(), base),
        24 => with(value.replacen(&own.app_key, &cast.other.app.app_key, 1)),
        25 => right.clone().put("X-Sdk-Content-Sha256", pick(rng, &["UNSIGNED-PAYLOAD", "x", ""])),
        26 => {
            let declared =
                request(rng, "/api").without("X-Sdk-Content-Sha256").with("X-Sdk-Content-Sha256", sha256("other"));
            sign(declared, (&own.app_key, &own.secret), Timestamp::now(), base)
        }
        27 => {
            let unsigned = request(rng, "/api").put("X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD");
            sign(unsigned, (&own.app_key, &own.secret), Timestamp::now(), base)
        }
        28 => right.clone().with("X-Apig-AppCode", &cast.other.code),
        29 => right.clone().with("X-Apig-AppCode", &cast.own.code),
        30 => right.clone().with("Authorization", format!("Bearer {}", cast.own.key)),
        31 => sign(request(rng, "/api"), (&own.app_key, &own.secret), Timestamp::now(), base)
            .with("X-Apig-AppCode", &cast.second.code),
        _ => with(value.replacen("host;", "", 1)),
    }
    .into()
}

const SIGNATURE_CHANGES: u64 = 33;
const ALGORITHMS: [&str; 8] = [
    "SDK-HMAC-SHA512",
    "SDK-HMAC-SHA1",
    "none",
    "HMAC-MD5",
    "AWS4-HMAC-SHA256",
    "sdk-hmac-sha256",
    "SDK-HMAC-SHA256 SDK-HMAC-SHA256",
    "V11-HMAC-SHA256",
];
const DATES: [&str; 8] = [
    "",
    "now",
    "20260230T000000Z",
    "2026-01-15T08:30:00Z",
    "20260115T083000",
    "20260115t083000z",
    "19700101T000000Z",
    "99991231T235959Z",
];

/// One case of each change, right requests between them.
pub(super) fn signature_case(rng: &mut Rng, cast: &Cast, number: u64) -> Case {
    let right = right_signature(rng, cast);
    let changes = SIGNATURE_CHANGES + FIELD_CHANGES + REST_CHANGES;
    match number % (changes + 12) {
        which if which < SIGNATURE_CHANGES => signature_changed(rng, cast, &right, which),
        which if which < SIGNATURE_CHANGES + FIELD_CHANGES => {
            field_changed(rng, &right, "Authorization", which - SIGNATURE_CHANGES)
        }
        which if which < changes => rest_changed(rng, &right, which - SIGNATURE_CHANGES - FIELD_CHANGES),
        _ => right.into(),
    }
}

/// Where a text stands for a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    CodeHeader,
    CodeQuery,
    Bearer,
    XApiKey,
}

impl Place {
    fn field(self) -> &'static str {
        match self {
            Self::CodeHeader => "X-Apig-AppCode",
            Self::Bearer | Self::CodeQuery => "Authorization",
            Self::XApiKey => "X-Api-Key",
        }
    }

    fn is_code(self) -> bool {
        matches!(self, Self::CodeHeader | Self::CodeQuery)
    }

    /// A request that presents a text here.
    fn presenting(self, rng: &mut Rng, text: &[u8]) -> Wired {
        let plain = request(rng, "/api");
        match self {
            Self::CodeHeader if rng.percent(25) => plain.with("Authorization", [b"APPCODE ", text].concat()),
            Self::CodeHeader => plain.with("X-Apig-AppCode", text),
            Self::Bearer => {
                plain.with("Authorization", [pick(rng, &["Bearer ", "bearer ", "BEARER   "]).as_bytes(), text].concat())
            }
            Self::XApiKey => {
                let target = plain.target.replacen("/api/", "/v1/infers/chat/v1/messages/", 1);
                let plain = plain.put("Content-Type", "application/octet-stream");
                Wired { target, ..plain }.with("X-Api-Key", text)
            }
            Self::CodeQuery => {
                let mark = if plain.target.contains('?') { '&' } else { '?' };
                let plainly = |b: &u8| b.is_ascii_alphanumeric() && !rng.clone().percent(10);
                let value: String = text
                    .iter()
                    .map(|b| if plainly(b) { char::from(*b).to_string() } else { format!("%{b:02X}") })
                    .collect();
                let target = format!("{}{mark}AppCode={value}", plain.target);
                Wired { target, ..plain }
            }
        }
    }
}

/// One case of each change to a text that stands for a caller, right ones between them.
pub(super) fn text_case(rng: &mut Rng, cast: &Cast, (place, number): (Place, u64)) -> Case {
    let owner = [&cast.own, &cast.second, &cast.other][rng.below(3) as usize];
    let (right, useless, foreign) = match place.is_code() {
        true => (&owner.code, &cast.useless_codes, &cast.own.key),
        false => (&owner.key, &cast.useless_keys, &cast.own.code),
    };
    let made = place.presenting(rng, right.as_bytes());
    let after = WRONG_SECRETS + FIELD_CHANGES + REST_CHANGES;
    match number % (after + 18) {
        which if which < WRONG_SECRETS => {
            let wrong = wrong_secret(rng, right, which);
            let request = place.presenting(rng, &wrong);
            let in_head = place != Place::CodeQuery;
            Case { request, malformed: in_head && wrong.contains(&0) }
        }
        which if which < WRONG_SECRETS + FIELD_CHANGES => match made.lines(place.field()).len() {
            1 => field_changed(rng, &made, place.field(), which - WRONG_SECRETS),
            _ => field_changed(rng, &made, "Content-Type", which - WRONG_SECRETS),
        },
        which if which < after => rest_changed(rng, &made, which - WRONG_SECRETS - FIELD_CHANGES),
        which if which < after + 4 => {
            let text = &useless[rng.below(useless.len() as u64) as usize];
            place.presenting(rng, text.as_bytes()).into()
        }
        which if which == after + 4 => place.presenting(rng, foreign.as_bytes()).into(),
        which if which < after + 10 => beside(rng, cast, made, which - after - 5).into(),
        _ => made.into(),
    }
}

/// A second credential beside the first.
fn beside(rng: &mut Rng, cast: &Cast, made: Wired, which: u64) -> Wired {
    let owner = [&cast.own, &cast.second, &cast.other][rng.below(3) as usize];
    match which {
        0 => made.with("X-Apig-AppCode", &owner.code),
        1 => made.with("Authorization", format!("Bearer {}", owner.key)),
        2 => made.with("Authorization", format!("APPCODE {}", owner.code)),
        3 => made.with("X-Api-Key", &owner.key),
        _ => {
            let mark = if made.target.contains('?') { '&' } else { '?' };
            Wired { target: format!("{}{mark}AppCode={}", made.target, owner.code), ..made }
        }
    }
}
