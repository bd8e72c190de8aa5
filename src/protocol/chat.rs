//! The few fields of an LLM request body that we read, and the two shapes of our own refusals.
//! Every other byte passes untouched; what the other fields mean is the seller's.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::usage::MODEL_BYTES_MAX;

/// What we read of an LLM request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRequest<'a> {
    /// The top-level `model`, if there is one.
    pub model: Option<ModelField<'a>>,
    /// The top-level `stream`; false if it is absent or null.
    pub stream: bool,
    /// The top-level `user`, if it is a text: whom the buyer's own user is said to be. Nothing here depends on it.
    pub user: Option<Cow<'a, str>>,
}

/// The `model` of a request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelField<'a> {
    /// The name that it holds, without JSON's escapes.
    pub name: Cow<'a, str>,
    /// Where its value stands in the body, quotes included.
    pub span: Range<usize>,
}

/// Why a request body is not read. Lines count from 1; a column is how many bytes of its line were
/// read when the fault was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The body is not JSON, or more than one text.
    #[error("the body is not valid JSON at line {line}, column {column}; send one JSON object")]
    Syntax {
        /// The line that was being read.
        line: usize,
        /// How far into it, in bytes.
        column: usize,
    },
    /// The body is not UTF-8, or begins with a byte order mark.
    #[error("the body is not plain UTF-8 at byte {offset}; send JSON in UTF-8 without a byte order mark")]
    Encoding {
        /// How many bytes stand before the first wrong one.
        offset: usize,
    },
    /// A JSON text of another kind, such as an array.
    #[error("the body is not a JSON object; send one with the field `model`")]
    NotAnObject,
    /// A field that decides here stands twice, or in another case, which servers read differently.
    #[error("the field `{field}` is repeated or written in another case; send it once, in lower case")]
    Ambiguous {
        /// `model` or `stream`.
        field: &'static str,
    },
    /// `model` is not a string.
    #[error("the field `model` is not a string; send the model's name")]
    ModelNotText,
    /// `model` is longer than any model's name.
    #[error("the field `model` is longer than 256 bytes; send the model's name")]
    ModelTooLong,
    /// `model` holds half of a surrogate pair.
    #[error("the field `model` at byte {offset} holds an escape that is no character; send the model's name")]
    ModelEscape {
        /// Where the value begins.
        offset: usize,
    },
    /// `stream` is neither a boolean nor null.
    #[error("the field `stream` is not a boolean; send true or false")]
    StreamNotBoolean,
}

/// Reads a request body. Other values are passed over without being built, at any depth.
///
/// # Errors
/// See [`BodyFault`]; broken JSON is named before anything else.
pub fn read_request(body: &[u8]) -> Result<ChatRequest<'_>, BodyFault> {
    let text = std::str::from_utf8(body).map_err(|error| BodyFault::Encoding { offset: error.valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        return Err(BodyFault::Encoding { offset: 0 });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let mut fields = Fields::default();
    let is_object = text.trim_ascii_start().starts_with('{');
    let read = if is_object {
        json.deserialize_map(FieldsVisitor(&mut fields))
    } else {
        serde::Deserialize::deserialize(&mut json).map(|_: IgnoredAny| ())
    };
    read.and_then(|()| json.end()).map_err(|error| BodyFault::Syntax { line: error.line(), column: error.column() })?;
    if !is_object {
        return Err(BodyFault::NotAnObject);
    }
    if let Some(field) = fields.ambiguous {
        return Err(BodyFault::Ambiguous { field });
    }
    let model = fields.model.map(|value| model_field(text, value)).transpose()?;
    let stream = match fields.stream.map(RawValue::get) {
        Some("true") => true,
        Some("false" | "null") | None => false,
        Some(_) => return Err(BodyFault::StreamNotBoolean),
    };
    Ok(ChatRequest { model, stream, user: fields.user.and_then(|value| text_of(value.get())) })
}

/// Whether a body begins as a JSON object does, in whatever Unicode encoding: some servers read such a body as JSON
/// whatever its content type is, so it must be JSON to us too.
pub fn begins_like_an_object(body: &[u8]) -> bool {
    // Blanks, byte order marks, and the zeros of UTF-16 and UTF-32.
    let passed_over = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r' | 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    body.iter().find(|byte| !passed_over(byte)) == Some(&b'{')
}

/// Returns the body with the model's name replaced, as what is before, the name, and what is after: only the value's own
/// bytes change. `span` is where [`read_request`] found it in this very body.
pub fn replace_model(body: &Bytes, span: &Range<usize>, name: &str) -> [Bytes; 3] {
    let before = body.get(..span.start).unwrap_or_default();
    let after = body.get(span.end..).unwrap_or_default();
    [body.slice_ref(before), json_text(name).into(), body.slice_ref(after)]
}

fn model_field<'a>(text: &'a str, value: &'a RawValue) -> Result<ModelField<'a>, BodyFault> {
    let json = value.get();
    // A raw value borrows from the text it was read from: its address is its place there.
    let start = json.as_ptr().addr() - text.as_ptr().addr();
    if !json.starts_with('"') {
        return Err(BodyFault::ModelNotText);
    }
    // An escape takes at most six bytes for one: a text that is far too long is not even copied.
    if json.len() > MODEL_BYTES_MAX.saturating_mul(6).saturating_add(2) {
        return Err(BodyFault::ModelTooLong);
    }
    let name = text_of(json).ok_or(BodyFault::ModelEscape { offset: start })?;
    if name.len() > MODEL_BYTES_MAX {
        return Err(BodyFault::ModelTooLong);
    }
    Ok(ModelField { name, span: start..start + json.len() })
}

/// A JSON value's text, without escapes; `None`: it is no text, or holds half of a surrogate pair.
fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// The fields met so far, as they stand in the text.
#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    ambiguous: Option<&'static str>,
}

struct FieldsVisitor<'f, 'a>(&'f mut Fields<'a>);

impl<'a> Visitor<'a> for FieldsVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let fields = self.0;
        while let Some(key) = map.next_key_seed(KeyReader)? {
            let (field, place) = match key {
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::User => {
                    fields.user = Some(map.next_value()?); // of two the last, as most readers have it
                    continue;
                }
                Key::Variant(field) => {
                    map.next_value::<IgnoredAny>()?;
                    fields.ambiguous.get_or_insert(field);
                    continue;
                }
                Key::Model => (MODEL, &mut fields.model),
                Key::Stream => (STREAM, &mut fields.stream),
            };
            if place.replace(map.next_value()?).is_some() {
                fields.ambiguous.get_or_insert(field);
            }
        }
        Ok(())
    }
}

const MODEL: &str = "model";
const STREAM: &str = "stream";
const USER: &str = "user";

enum Key {
    Model,
    Stream,
    User,
    /// The named field in another case.
    Variant(&'static str),
    Other,
}

/// Tells a key's meaning without keeping its text.
struct KeyReader;

impl<'de> DeserializeSeed<'de> for KeyReader {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyReader {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            MODEL => Key::Model,
            STREAM => Key::Stream,
            USER => Key::User,
            _ if is_variant(key, MODEL) => Key::Variant(MODEL),
            _ if is_variant(key, STREAM) => Key::Variant(STREAM),
            _ => Key::Other,
        })
    }
}

/// Whether a server that ignores case would take the key for the field. Some fold by Unicode's
/// rules (Go's encoding/json): there the long s is an s too.
fn is_variant(key: &str, field: &str) -> bool {
    let fold = |letter: char| if letter == 'ſ' { 's' } else { letter.to_ascii_lowercase() };
    // Most keys differ in length already: a long s is one byte more.
    (field.len()..=field.len() + 1).contains(&key.len()) && key.chars().map(fold).eq(field.chars())
}

/// What a refusal of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// What is wrong and what to do next, for people.
    pub message: &'a str,
    /// OpenAI's `type`, or Anthropic's, such as `invalid_request_error`.
    pub kind: &'a str,
    /// The request's field at fault.
    pub param: Option<&'a str>,
    /// OpenAI's `code`, such as `insufficient_quota`.
    pub code: Option<&'a str>,
    /// Our own finer word for it, such as `package_expired`.
    pub reason: &'a str,
    /// APIG's code, such as `APIG.0303`.
    pub apig_code: &'a str,
    /// The id that is in the answer's `X-Request-Id` too.
    pub request_id: &'a str,
}

#[derive(Serialize)]
struct LlmError<'a> {
    error: OpenAiError<'a>,
    #[serde(flatten)]
    apig: ApigError<'a>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    what: &'static str,
    #[serde(flatten)]
    llm: LlmError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
    reason: &'a str,
}

#[derive(Serialize)]
struct ApigError<'a> {
    error_code: &'a str,
    error_msg: &'a str,
    request_id: &'a str,
}

impl<'a> ErrorFields<'a> {
    fn apig(&self) -> ApigError<'a> {
        ApigError { error_code: self.apig_code, error_msg: self.message, request_id: self.request_id }
    }

    fn llm(&self) -> LlmError<'a> {
        let Self { message, kind, param, code, reason, .. } = *self;
        LlmError { error: OpenAiError { message, kind, param, code, reason }, apig: self.apig() }
    }
}

/// Renders a refusal on an LLM route: OpenAI's shape and APIG's in one object, because the SDKs of
/// either read only their own.
pub fn error_body_llm(fields: &ErrorFields<'_>) -> Vec<u8> {
    json_text(&fields.llm())
}

/// Renders a refusal for Anthropic's SDKs, whose `kind` is one of theirs.
pub fn error_body_anthropic(fields: &ErrorFields<'_>) -> Vec<u8> {
    json_text(&AnthropicError { what: "error", llm: fields.llm() })
}

/// Renders a refusal on any other route: APIG's shape.
pub fn error_body_api(fields: &ErrorFields<'_>) -> Vec<u8> {
    json_text(&fields.apig())
}

#[expect(clippy::expect_used, reason = "strings and named fields always serialise into memory")]
fn json_text<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("serialising strings into memory cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str, model: Option<&str>, stream: bool) {
        let request = read_request(body.as_bytes()).unwrap_or_else(|fault| panic!("{body}: {fault}"));
        assert_eq!(request.model.as_ref().map(|field| field.name.as_ref()), model, "{body}");
        assert_eq!(request.stream, stream, "{body}");
        if let Some(field) = request.model {
            let value: String = serde_json::from_str(&body[field.span.clone()]).expect("the span is a JSON string");
            assert_eq!(value, field.name, "{body}");
        }
    }

    fn refused(body: impl AsRef<[u8]>, fault: BodyFault) {
        let body = body.as_ref();
        assert_eq!(read_request(body), Err(fault), "{}", String::from_utf8_lossy(body));
    }

    #[test]
    fn reads_model_and_stream() {
        for (body, model, stream) in [
            ("{}", None, false),
            (" \t\r\n{ } \n", None, false),
            (r#"{"model":"m"}"#, Some("m"), false),
            (r#"{"model":"m","stream":true}"#, Some("m"), true),
            (r#"{"stream":true,"model":"m"}"#, Some("m"), true),
            (r#"{"model":"m","stream":false}"#, Some("m"), false),
            (r#"{"model":"m","stream":null}"#, Some("m"), false),
            ("{ \"model\" :\n \"m\" , \"stream\" : true }", Some("m"), true),
            (r#"{"model":""}"#, Some(""), false),
            (r#"{"model":" m "}"#, Some(" m "), false),
            (r#"{"model":"org/m-1.5:latest@x"}"#, Some("org/m-1.5:latest@x"), false),
            (r#"{"model":"通义"}"#, Some("通义"), false),
            (r#"{"model":"\u0067pt\"\\\/\n"}"#, Some("gpt\"\\/\n"), false),
            (r#"{"model":"\ud83d\ude00"}"#, Some("😀"), false),
            (r#"{"mod\u0065l":"m"}"#, Some("m"), false),
            (r#"{"\u0073tream":true}"#, None, true),
            (r#"{"messages":[{"role":"user","content":"{\"model\":\"x\"}"}],"model":"m"}"#, Some("m"), false),
            (r#"{"a":{"model":1,"Model":2,"stream":"x"},"model":"m"}"#, Some("m"), false),
            (r#"{"a":[{"model":1},{"model":2}],"b":{"stream":1}}"#, None, false),
            (r#"{"models":1,"mode":2,"streams":3,"model ":4,"":5,"modelx":6,"odel":7}"#, None, false),
            (r#"{"x":1,"x":2,"model":"m"}"#, Some("m"), false),
            (r#"{"n":1e999,"m":-0.0,"k":123456789012345678901234567890,"model":"m"}"#, Some("m"), false),
            (r#"{"t":"\ud800","model":"m"}"#, Some("m"), false),
            (r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#, Some("m"), true),
        ] {
            read(body, model, stream);
        }
    }

    #[test]
    fn reads_whom_the_buyers_own_user_is_said_to_be_and_never_refuses_for_it() {
        for (body, user) in [
            ("{}", None),
            (r#"{"user":"u-1","model":"m"}"#, Some("u-1")),
            (r#"{"model":"m","user":"\u00fc \"x\""}"#, Some("ü \"x\"")),
            (r#"{"user":""}"#, Some("")),
            (r#"{"user":"a","user":"b"}"#, Some("b")),
            (r#"{"messages":[{"role":"user","user":"x"}]}"#, None),
            (r#"{"user":7}"#, None),
            (r#"{"user":{"id":"u"}}"#, None),
            (r#"{"user":null}"#, None),
            (r#"{"user":"\ud800"}"#, None),
            (r#"{"User":"u"}"#, None),
        ] {
            assert_eq!(read_request(body.as_bytes()).unwrap().user.as_deref(), user, "{body}");
        }
    }

    #[test]
    fn refuses_what_is_read_in_two_ways() {
        for (body, field) in [
            (r#"{"model":"a","model":"a"}"#, "model"),
            (r#"{"model":"a","model":"b","stream":true}"#, "model"),
            (r#"{"model":"a","mod\u0065l":"b"}"#, "model"),
            (r#"{"model":"a","Model":"b"}"#, "model"),
            (r#"{"Model":"a"}"#, "model"),
            (r#"{"MODEL":"a"}"#, "model"),
            (r#"{"\u004dodel":"a"}"#, "model"),
            (r#"{"Model":{"x":[1]}}"#, "model"),
            (r#"{"model":1,"MODEL":2}"#, "model"),
            (r#"{"stream":true,"stream":true}"#, "stream"),
            (r#"{"stream":null,"stream":null}"#, "stream"),
            (r#"{"Stream":false}"#, "stream"),
            (r#"{"stream":true,"STREAM":false}"#, "stream"),
            (r#"{"ſtream":true}"#, "stream"),
            (r#"{"\u017fTREAM":true}"#, "stream"),
        ] {
            refused(body, BodyFault::Ambiguous { field });
        }
    }

    #[test]
    fn refuses_values_of_the_wrong_kind() {
        for value in ["null", "1", "true", "[]", "[\"m\"]", "{}", "{\"a\":\"b\"}", "-1.5"] {
            refused(format!("{{\"model\":{value}}}"), BodyFault::ModelNotText);
        }
        for value in ["0", "1", "\"true\"", "\"\"", "[]", "{}", "[true]"] {
            refused(format!("{{\"stream\":{value}}}"), BodyFault::StreamNotBoolean);
        }
        for value in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\u0041", r"a\udfff"] {
            refused(format!("{{\"model\":\"{value}\"}}"), BodyFault::ModelEscape { offset: 9 });
        }
        for body in ["[]", "[{\"model\":\"m\"}]", "\"model\"", "1", "null", " true ", "-0"] {
            refused(body, BodyFault::NotAnObject);
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        for (body, line, column) in [
            ("", 1, 0),
            (" ", 1, 1),
            ("{", 1, 1),
            ("{\n\"model\":\n}", 3, 1),
            ("{}x", 1, 3),
            ("{}{}", 1, 3),
            ("{},", 1, 3),
            ("[1,]", 1, 4),
            ("{\"model\":\"m\",}", 1, 14),
            ("{\"model\" \"m\"}", 1, 10),
            ("{model:\"m\"}", 1, 2),
            ("{'model':'m'}", 1, 2),
            ("{\"model\":'m'}", 1, 10),
            ("{\"model\":\"m", 1, 11),
            ("{\"a\":01}", 1, 7),
            ("{\"a\":+1}", 1, 6),
            ("{\"a\":1.}", 1, 8),
            ("{\"a\":NaN}", 1, 6),
            ("{\"a\":tru}", 1, 9),
            ("{\"a\":\"\\x\"}", 1, 8),
            ("{\"a\":\"\\u12g4\"}", 1, 12),
            ("{\"a\":\"\n\"}", 1, 6),
            ("{\"a\":\"\0\"}", 1, 6),
            ("{\"a\":[}", 1, 7),
            ("{\"a\":[1}", 1, 8),
            ("{\"a\":1]", 1, 7),
            ("{1:2}", 1, 2),
            ("{}\0", 1, 3),
            ("{\"model\":1,\"model\":2", 1, 20),
            ("--boundary\r\nContent-Disposition: form-data", 1, 2),
            ("model=m&stream=true", 1, 1),
        ] {
            refused(body, BodyFault::Syntax { line, column });
        }
    }

    #[test]
    fn refuses_what_is_not_utf8() {
        refused(b"\xef\xbb\xbf{\"model\":\"m\"}", BodyFault::Encoding { offset: 0 });
        refused(b"\xff\xfe{\0}\0", BodyFault::Encoding { offset: 0 });
        refused(b"{\"model\":\"\xff\"}", BodyFault::Encoding { offset: 10 });
        refused(b"{\"a\":\"\xc3\"}", BodyFault::Encoding { offset: 6 });
        refused(b"{\"a\":\"\xed\xa0\x80\"}", BodyFault::Encoding { offset: 6 });
        refused(b"{\"a\":\"\xc0\xaf\"}", BodyFault::Encoding { offset: 6 });
    }

    #[test]
    fn tells_what_begins_like_an_object() {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for body in [
            b"{".to_vec(),
            b" \r\n\t{}".to_vec(),
            b"\xef\xbb\xbf{".to_vec(),
            wide("{}"),
            wide("\u{feff}{}"),
            b"\0\0\0{".to_vec(),
        ] {
            assert!(begins_like_an_object(&body), "{body:?}");
        }
        for body in ["", " ", "[{}]", "a=b", "--{", "\"{\"", "1"] {
            assert!(!begins_like_an_object(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn depth_and_size_are_no_danger() {
        let depth = 100_000;
        let nested = |open: &str, close: &str| open.repeat(depth) + "1" + &close.repeat(depth);
        read(&format!("{{\"a\":{},\"model\":\"m\"}}", nested("[", "]")), Some("m"), false);
        read(&format!("{{\"a\":{},\"model\":\"m\"}}", nested("{\"a\":", "}")), Some("m"), false);
        refused(format!("{{\"model\":{}}}", nested("[", "]")), BodyFault::ModelNotText);
        refused(nested("[", "]"), BodyFault::NotAnObject);
        let open = "{\"a\":".repeat(depth);
        refused(&open, BodyFault::Syntax { line: 1, column: open.len() });
        let long = format!("{{\"a\":\"{}\",\"model\":\"m\"}}", "x".repeat(4 << 20));
        read(&long, Some("m"), false);
        let model = |name: &str| format!("{{\"model\":\"{name}\"}}");
        read(&model(&"é".repeat(128)), Some(&"é".repeat(128)), false);
        read(&model(&r"\u0041".repeat(256)), Some(&"A".repeat(256)), false);
        for long in [model(&"x".repeat(257)), model(&r"\u0041".repeat(257)), model(&"x".repeat(4 << 20))] {
            refused(long, BodyFault::ModelTooLong);
        }
    }

    #[test]
    fn replaces_the_models_bytes_alone() {
        for (body, name, expected) in [
            (r#"{"model":"a"}"#, "b", r#"{"model":"b"}"#),
            (r#"{ "model" : "\u0061" , "x":1.0 } "#, "org/b", r#"{ "model" : "org/b" , "x":1.0 } "#),
            (r#"{"x":"model","model":"x"}"#, "q\"\\\n", r#"{"x":"model","model":"q\"\\\n"}"#),
            (r#"{"é":"é","model":"é"}"#, "通", r#"{"é":"é","model":"通"}"#),
        ] {
            let field = read_request(body.as_bytes()).unwrap().model.unwrap();
            let replaced = replace_model(&Bytes::from_static(body.as_bytes()), &field.span, name).concat();
            assert_eq!(String::from_utf8(replaced).unwrap(), expected);
        }
    }

    #[test]
    fn refusals_have_both_shapes_or_one() {
        let fields = ErrorFields {
            message: "the key is \"unknown\"",
            kind: "invalid_request_error",
            param: None,
            code: Some("invalid_api_key"),
            reason: "api_key_expired",
            apig_code: "APIG.0303",
            request_id: "r-1",
        };
        assert_eq!(
            String::from_utf8(error_body_llm(&fields)).unwrap(),
            r#"{"error":{"message":"the key is \"unknown\"","type":"invalid_request_error","param":null,"code":"invalid_api_key","reason":"api_key_expired"},"error_code":"APIG.0303","error_msg":"the key is \"unknown\"","request_id":"r-1"}"#
        );
        assert!(String::from_utf8(error_body_anthropic(&fields)).unwrap().starts_with(r#"{"type":"error","error":{"#));
        let fields = ErrorFields { param: Some("model"), code: None, message: "no\n", ..fields };
        assert_eq!(
            String::from_utf8(error_body_llm(&fields)).unwrap(),
            r#"{"error":{"message":"no\n","type":"invalid_request_error","param":"model","code":null,"reason":"api_key_expired"},"error_code":"APIG.0303","error_msg":"no\n","request_id":"r-1"}"#
        );
        assert_eq!(
            String::from_utf8(error_body_api(&fields)).unwrap(),
            r#"{"error_code":"APIG.0303","error_msg":"no\n","request_id":"r-1"}"#
        );
    }

    proptest! {
        #[test]
        fn a_replaced_model_reads_back_and_nothing_else_changes(old in "\\PC*", new in "\\PC*", tail in "\\PC*") {
            let body = Bytes::from(format!(
                "{{\"a\":{}, \"model\": {} ,\"b\":[{}]}}",
                serde_json::json!(tail), serde_json::json!(old), serde_json::json!(tail)
            ));
            let field = read_request(&body).unwrap().model.unwrap();
            prop_assert_eq!(field.name.as_ref(), old.as_str());
            let replaced = Bytes::from(replace_model(&body, &field.span, &new).concat());
            let again = read_request(&replaced).unwrap().model.unwrap();
            prop_assert_eq!(again.name.as_ref(), new.as_str());
            let back = replace_model(&replaced, &again.span, &old).concat();
            prop_assert_eq!(back, replace_model(&body, &field.span, &old).concat());
        }

        #[test]
        fn what_is_read_is_json(body in prop::collection::vec(
            prop_oneof![Just("{"), Just("}"), Just("\"model\""), Just(":"), Just(","), Just("\"m\""), Just("[1]"), Just("true"), Just("\"stream\"")],
            0..12,
        )) {
            let body = body.concat();
            let valid = serde_json::from_str::<serde_json::Value>(&body).is_ok();
            let fault = read_request(body.as_bytes()).err();
            prop_assert_eq!(valid, !matches!(fault, Some(BodyFault::Syntax { .. })));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_request(&body);
        }

        /// Near to what is right: what is accepted is JSON to the whole parser too, with that very model.
        #[test]
        fn an_altered_body_is_read_as_the_whole_parser_reads_it(
            altered in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:,m".to_vec())]), 0..4),
        ) {
            let mut body = br#"{"model":"m\u0065","x":[{"a":1.5e3,"model":null}],"stream":true,"user":"u"}"#.to_vec();
            for (at, byte) in altered {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Ok(read) = read_request(&body) {
                let whole: serde_json::Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}"));
                prop_assert_eq!(read.model.as_ref().map(|model| model.name.as_ref()), whole["model"].as_str());
                prop_assert_eq!(read.stream, whole["stream"] == true);
                if let Some(model) = read.model {
                    let name: String = serde_json::from_slice(&body[model.span.clone()]).unwrap();
                    prop_assert_eq!(name, model.name);
                }
            }
        }
    }
}
