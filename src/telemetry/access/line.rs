//! One call's line. Written member by member: through a serializer it took more instructions than all of a call's metering.

use jiff::Timestamp;
#[cfg(test)]
use serde::Serialize;

use crate::domain::id::{AccountId, AppId, KeyId, ProductId};

/// In one second.
const NANOSECONDS: i32 = 1_000_000_000;

/// One call, as its line tells it.
#[derive(Debug)]
#[cfg_attr(test, derive(Serialize))] // what the line must look like
#[expect(missing_docs, reason = "the names are those of the line's members; docs/operating.md explains them")]
pub struct Line<'a> {
    pub time: Timestamp,
    pub request_id: &'a str,
    pub client: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub product: Option<&'a ProductId>,
    pub account: Option<&'a AccountId>,
    pub key: Option<&'a KeyId>,
    pub app: Option<&'a AppId>,
    pub model: Option<&'a str>,
    pub status: u16,
    pub source: &'static str,
    pub code: Option<&'static str>,
    pub limit: Option<&'a str>,
    pub ending: &'static str,
    pub units: u64,
    pub attempts: u8,
    pub response_bytes: u64,
    pub first_byte_us: u64,
    pub duration_us: u64,
}

/// What stands before a member's value.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

impl Line<'_> {
    /// Appends it as JSON, without a line end.
    pub(super) fn write(&self, moments: &mut Moments, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        moments.write(self.time, out);
        out.push(b'"');
        text(out, name!("request_id"), self.request_id);
        text(out, name!("client"), self.client);
        text(out, name!("method"), self.method);
        text(out, name!("path"), self.path);
        word_if_any(out, name!("product"), self.product.map(ProductId::as_str));
        word_if_any(out, name!("account"), self.account.map(AccountId::as_str));
        word_if_any(out, name!("key"), self.key.map(KeyId::as_str));
        word_if_any(out, name!("app"), self.app.map(AppId::as_str));
        text_if_any(out, name!("model"), self.model);
        number(out, name!("status"), self.status);
        word(out, name!("source"), self.source);
        word_if_any(out, name!("code"), self.code);
        text_if_any(out, name!("limit"), self.limit);
        word(out, name!("ending"), self.ending);
        number(out, name!("units"), self.units);
        number(out, name!("attempts"), self.attempts);
        number(out, name!("response_bytes"), self.response_bytes);
        number(out, name!("first_byte_us"), self.first_byte_us);
        number(out, name!("duration_us"), self.duration_us);
        out.push(b'}');
    }
}

/// Writes moments. It keeps the text of the last one's second, which most calls share with the one before: working out
/// the date takes more instructions than the rest of a line.
#[derive(Debug, Default)]
pub(super) struct Moments {
    second: Option<i64>,
    /// Without the `Z` at its end.
    text: String,
}

impl Moments {
    /// Appends a moment as a timestamp is shown: with as many digits of its second's parts as it has.
    fn write(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        let (mut second, mut nanosecond) = (time.as_second(), time.subsec_nanosecond());
        if nanosecond < 0 {
            (second, nanosecond) = (second - 1, nanosecond + NANOSECONDS); // both count back from 1970 there
        }
        if self.second != Some(second) {
            self.text = Timestamp::from_second(second).unwrap_or(time).to_string();
            self.text.pop(); // the `Z`
            self.second = Some(second);
        }
        out.extend_from_slice(self.text.as_bytes());
        if nanosecond > 0 {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(nanosecond + NANOSECONDS); // begins with a one, which keeps the zeros behind it
            out.push(b'.');
            out.extend_from_slice(digits.get(1..).unwrap_or_default().trim_end_matches('0').as_bytes());
        }
        out.push(b'Z');
    }
}

#[inline]
fn number(out: &mut Vec<u8>, name: &[u8], value: impl itoa::Integer) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[inline]
fn word_if_any(out: &mut Vec<u8>, name: &[u8], value: Option<&str>) {
    match value {
        Some(value) => word(out, name, value),
        None => none(out, name),
    }
}

/// Appends one of our own words or ids, which have nothing that JSON escapes. Always inlined, as `text` is: a name whose
/// length is known is stored, not copied by a call.
#[inline(always)]
fn word(out: &mut Vec<u8>, name: &[u8], value: &str) {
    debug_assert!(!has_escapes(value), "{value:?}");
    out.extend_from_slice(name);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

#[inline]
fn text_if_any(out: &mut Vec<u8>, name: &[u8], value: Option<&str>) {
    match value {
        Some(value) => text(out, name, value),
        None => none(out, name),
    }
}

#[inline]
fn none(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b"null");
}

#[inline(always)]
fn text(out: &mut Vec<u8>, name: &[u8], value: &str) {
    if has_escapes(value) {
        out.extend_from_slice(name);
        let _ = serde_json::to_writer(out, value); // nothing that is written into memory fails
        return;
    }
    word(out, name, value);
}

/// Whether JSON writes a text otherwise than it stands. No early end within eight bytes: the compiler looks at them at
/// once.
fn has_escapes(text: &str) -> bool {
    let escaped = |odd, byte: &u8| odd | (*byte < b' ') | (*byte == b'"') | (*byte == b'\\');
    let (eights, rest) = text.as_bytes().as_chunks::<8>();
    eights.iter().any(|eight| eight.iter().fold(false, escaped)) || rest.iter().fold(false, escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_is_what_a_serializer_makes_of_it(
            at in -1_000_000_000_000_i64..1_000_000_000_000,
            texts in prop::collection::vec(any::<String>(), 4),
            any_texts in prop::collection::vec(prop::option::of(any::<String>()), 2),
            ids in prop::collection::vec(prop::option::of("[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}"), 4),
            (status, attempts) in any::<(u16, u8)>(),
            numbers in any::<[u64; 4]>(),
            code in prop_oneof![Just(None), Just(Some("a_code"))],
        ) {
            let product = ids[0].as_deref().map(|id| ProductId::new(id).unwrap());
            let account = ids[1].as_deref().map(|id| AccountId::new(id).unwrap());
            let key = ids[2].as_deref().map(|id| KeyId::new(id).unwrap());
            let app = ids[3].as_deref().map(|id| AppId::new(id).unwrap());
            let line = Line {
                time: Timestamp::from_microsecond(at).unwrap(),
                request_id: &texts[0],
                client: &texts[1],
                method: &texts[2],
                path: &texts[3],
                product: product.as_ref(),
                account: account.as_ref(),
                key: key.as_ref(),
                app: app.as_ref(),
                model: any_texts[0].as_deref(),
                status,
                source: "seller",
                code,
                limit: any_texts[1].as_deref(),
                ending: "complete",
                units: numbers[0],
                attempts,
                response_bytes: numbers[1],
                first_byte_us: numbers[2],
                duration_us: numbers[3],
            };
            let mut written = Vec::new();
            line.write(&mut Moments::default(), &mut written);
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&line).unwrap());
        }

        #[test]
        fn moments_are_shown_as_timestamps_are(
            first in -10_000_000_000_i64..10_000_000_000,
            steps in prop::collection::vec((-2_000_000_000_i64..2_000_000_000, 0..10_u32), 1..20),
        ) {
            let (mut moments, mut at) = (Moments::default(), i128::from(first));
            for (step, zeros) in steps {
                at += i128::from(step - step % 10_i64.pow(zeros));
                let time = Timestamp::from_nanosecond(at).unwrap();
                let mut written = Vec::new();
                moments.write(time, &mut written);
                prop_assert_eq!(String::from_utf8(written).unwrap(), time.to_string());
            }
        }
    }

    #[test]
    fn moments_with_zeros_at_either_end() {
        let mut moments = Moments::default();
        for nanosecond in [0, 1, 10, 100_000_000, 110_000_000, 999_999_999, 1_000_000_000, -1, -500_000_000] {
            let time = Timestamp::from_nanosecond(nanosecond).unwrap();
            let mut written = Vec::new();
            moments.write(time, &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), time.to_string());
        }
    }

    #[test]
    fn escapes_are_seen_wherever_they_stand() {
        for length in 1..20 {
            for (at, byte) in (0..length).flat_map(|at| (0..0x80).map(move |byte| (at, byte))) {
                let mut text = vec![b'a'; length];
                text[at] = byte;
                let text = String::from_utf8(text).unwrap();
                let escaped = serde_json::to_string(&text).unwrap().len() != length + 2;
                assert_eq!(has_escapes(&text), escaped, "{text:?}");
            }
        }
    }
}
