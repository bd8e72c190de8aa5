//! One call's line. Written member by member: through a serializer it took more instructions than all of a call's metering.

use std::io::Write;

#[cfg(test)]
use serde::Serialize;

/// One call, as its line tells it.
#[derive(Debug)]
#[cfg_attr(test, derive(Serialize))] // what the line must look like
#[expect(missing_docs, reason = "the names are those of the line's members; docs/operating.md explains them")]
pub struct Line<'a> {
    pub time: jiff::Timestamp,
    pub request_id: &'a str,
    pub client: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub product: Option<&'a str>,
    pub account: Option<&'a str>,
    pub key: Option<&'a str>,
    pub app: Option<&'a str>,
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
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // Nothing that is written into memory fails.
        let _ = write!(out, "{{\"time\":\"{}\"", self.time);
        text(out, name!("request_id"), self.request_id);
        text(out, name!("client"), self.client);
        text(out, name!("method"), self.method);
        text(out, name!("path"), self.path);
        text_if_any(out, name!("product"), self.product);
        text_if_any(out, name!("account"), self.account);
        text_if_any(out, name!("key"), self.key);
        text_if_any(out, name!("app"), self.app);
        text_if_any(out, name!("model"), self.model);
        number(out, name!("status"), self.status);
        text(out, name!("source"), self.source);
        text_if_any(out, name!("code"), self.code);
        text_if_any(out, name!("limit"), self.limit);
        text(out, name!("ending"), self.ending);
        number(out, name!("units"), self.units);
        number(out, name!("attempts"), self.attempts);
        number(out, name!("response_bytes"), self.response_bytes);
        number(out, name!("first_byte_us"), self.first_byte_us);
        number(out, name!("duration_us"), self.duration_us);
        out.push(b'}');
    }
}

fn number(out: &mut Vec<u8>, name: &[u8], value: impl itoa::Integer) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn text_if_any(out: &mut Vec<u8>, name: &[u8], value: Option<&str>) {
    match value {
        Some(value) => text(out, name, value),
        None => {
            out.extend_from_slice(name);
            out.extend_from_slice(b"null");
        }
    }
}

fn text(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    // No early end: this way the compiler looks at many bytes at once.
    if value.bytes().fold(false, |odd, byte| odd | (byte < b' ') | (byte == b'"') | (byte == b'\\')) {
        let _ = serde_json::to_writer(out, value); // as above
        return;
    }
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
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
            any_texts in prop::collection::vec(prop::option::of(any::<String>()), 5),
            (status, attempts) in any::<(u16, u8)>(),
            numbers in any::<[u64; 4]>(),
            code in prop_oneof![Just(None), Just(Some("a_code")), Just(Some("an \"odd\" one\\\n"))],
        ) {
            let line = Line {
                time: jiff::Timestamp::from_microsecond(at).unwrap(),
                request_id: &texts[0],
                client: &texts[1],
                method: &texts[2],
                path: &texts[3],
                product: any_texts[0].as_deref(),
                account: any_texts[1].as_deref(),
                key: any_texts[2].as_deref(),
                app: any_texts[3].as_deref(),
                model: any_texts[4].as_deref(),
                status,
                source: "seller",
                code,
                limit: any_texts[4].as_deref(),
                ending: "complete",
                units: numbers[0],
                attempts,
                response_bytes: numbers[1],
                first_byte_us: numbers[2],
                duration_us: numbers[3],
            };
            let mut written = Vec::new();
            line.write(&mut written);
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&line).unwrap());
        }
    }
}
