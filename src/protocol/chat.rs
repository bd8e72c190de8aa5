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
mod tests;
