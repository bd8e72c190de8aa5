//! The tree into the raw shape. A serde deserializer that goes on after a problem: every value is read into a
//! [`Given`], which keeps "absent", "wrong, and noted", and "there" apart.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::pattern::{RESOLVED, TEXT};
use super::problem::{PlaceId, Report};
use super::suggest::{hint, listed};
use super::tree::{Entry, Node, Value, is_truth};

/// The name by which [`Given`] asks our deserializer for a place and a value.
const GIVEN: &str = "\u{0}given";
/// The serde name of sections in whose place the value of their first key may stand.
const SHORT: &str = "\0short";

/// What the file says about one key.
#[derive(Debug, Clone, Default)]
pub(super) enum Given<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// It is wrong; the report says so.
    Bad,
    /// It is there.
    Value(At<T>),
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) place: PlaceId,
    pub(super) value: T,
}

impl<T> Given<T> {
    /// The value, or the default for an absent one.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Bad => None,
            Self::Value(at) => Some(at.value),
        }
    }

    /// The value with its place; notes an absent one as a missing key of the section at `parent`.
    pub(super) fn required(self, key: &str, parent: PlaceId, example: &str, report: &Report<'_>) -> Option<At<T>> {
        match self {
            Self::Absent => {
                report.note_below(parent, key, format!("the key `{key}` is missing; add it, as in `{key}: {example}`"));
                None
            }
            Self::Bad => None,
            Self::Value(at) => Some(at),
        }
    }

    /// `None` for a wrong value, `Some(None)` for an absent one.
    pub(super) fn optional(self) -> Option<Option<At<T>>> {
        match self {
            Self::Absent => Some(None),
            Self::Bad => None,
            Self::Value(at) => Some(Some(at)),
        }
    }

    /// The value with its place, if there is one.
    pub(super) fn value(&self) -> Option<&At<T>> {
        match self {
            Self::Value(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }
}

impl<T: Default> Given<T> {
    /// A section's keys and its place; an absent section has all defaults and stands at `parent`.
    pub(super) fn section(self, parent: PlaceId) -> Option<At<T>> {
        match self {
            Self::Absent => Some(At { place: parent, value: T::default() }),
            Self::Bad => None,
            Self::Value(at) => Some(at),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GivenVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for GivenVisitor<T> {
            type Value = Given<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a place and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Given<T>, A::Error> {
                let place = parts.next_element()?.map(PlaceId);
                let value = parts.next_element().ok().flatten(); // a failure is already noted
                Ok(place.zip(value).map_or(Given::Bad, |(place, value)| Given::Value(At { place, value })))
            }
        }

        deserializer.deserialize_tuple_struct(GIVEN, 2, GivenVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Given<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    /// The value's own schema; any scalar may also be a text with `${…}` in it.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let own = T::json_schema(generator);
        let any_text = own.get("type").is_some_and(|kind| kind == "string")
            && ["pattern", "enum", "oneOf"].iter().all(|bound| own.get(*bound).is_none());
        let is = |kinds: &[&str]| own.get("type").and_then(Json::as_str).is_some_and(|kind| kinds.contains(&kind));
        if any_text {
            return json_schema!({ "type": "string", "pattern": TEXT });
        }
        if is(&["object", "array"]) {
            return generator.subschema_for::<T>();
        }
        let own = if is(&["boolean"]) { json_schema!({ "enum": [true, false, "true", "false"] }) } else { own };
        json_schema!({ "anyOf": [own, { "type": "string", "pattern": RESOLVED }] })
    }
}

/// Reads the whole tree. `None` if it is not even a section; the report says so.
pub(super) fn read<'de, T: Deserialize<'de>>(root: &'de Node, report: &'de Report<'de>) -> Option<At<T>> {
    match Given::<T>::deserialize(Reader { node: root, report }) {
        Ok(Given::Value(at)) => Some(at),
        Ok(Given::Absent | Given::Bad) | Err(_) => None,
    }
}

/// Why a value was not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// What is wrong with it; to be noted at its place.
    Said(String),
    /// The report has it already.
    Noted,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(message) => f.write_str(message),
            Self::Noted => f.write_str("already noted"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Said(message.to_string())
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    report: &'a Report<'a>,
}

impl<'a> Reader<'a> {
    fn at(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    fn text(self, expected: &str) -> Result<&'a str, Fault> {
        match &self.node.value {
            Value::Text(text) | Value::Literal(text) => Ok(text),
            Value::Null | Value::List(_) | Value::Section(_) | Value::Bad => Err(self.unexpected(expected)),
        }
    }

    /// A text, which a number or a truth value is not.
    fn words(self) -> Result<&'a str, Fault> {
        let Value::Literal(literal) = &self.node.value else { return self.text("a single value") };
        let found = if is_truth(literal) { "a truth value" } else { "a number" };
        Err(Fault::Said(format!("found {found}; write a text, and put one that looks like this in quotes")))
    }

    fn entries(self, expected: &str) -> Result<&'a [Entry], Fault> {
        match &self.node.value {
            Value::Section(entries) => Ok(entries),
            Value::Null | Value::Text(_) | Value::Literal(_) | Value::List(_) | Value::Bad => {
                Err(self.unexpected(expected))
            }
        }
    }

    /// Never quotes the value: it may be a secret.
    fn unexpected(self, expected: &str) -> Fault {
        let found = match &self.node.value {
            Value::Null => {
                let message = format!("no value; write {expected}, or take the key out if it has a default");
                return Fault::Said(message);
            }
            Value::Text(_) | Value::Literal(_) => "a single value",
            Value::List(_) => "a list",
            Value::Section(_) => "a section of keys",
            Value::Bad => return Fault::Noted,
        };
        Fault::Said(format!("found {found}; write {expected}"))
    }

    fn note(self, fault: Fault) -> Fault {
        if let Fault::Said(message) = fault {
            self.report.note(self.node.place, message);
        }
        Fault::Noted
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text("a single value")?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.words()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text("true or false")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(Fault::Said(format!("`{other}` is neither `true` nor `false`; write one of the two"))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            Value::Text(_) | Value::Literal(_) | Value::List(_) | Value::Section(_) | Value::Bad => {
                visitor.visit_some(self)
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == GIVEN {
            visitor.visit_seq(PlaceThenValue { reader: self, part: 0 })
        } else {
            self.deserialize_seq(visitor)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { reader: self, items: items.iter() }),
            Value::Null | Value::Text(_) | Value::Literal(_) | Value::Section(_) | Value::Bad => {
                Err(self.unexpected("a list, as in `[a, b]`"))
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = self.entries("a section of keys, as in `{ name: value }`")?;
        visitor.visit_map(Entries { reader: self, entries: entries.iter(), names: None, value: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let (SHORT, Value::Text(_) | Value::Literal(_), Some(key)) = (name, &self.node.value, names.first()) {
            return visitor.visit_map(Only { reader: self, key: Some(key) });
        }
        if let Value::Text(text) = &self.node.value
            && let Some(message) = without_colon(text, names)
        {
            return Err(Fault::Said(message));
        }
        let entries = self.entries(&format!("a section of keys, as in `{}: …`", names.first().unwrap_or(&"")))?;
        visitor.visit_map(Entries { reader: self, entries: entries.iter(), names: Some(names), value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let names = || variants.iter().copied();
        let text = self.text(&format!("one of {}", listed(names())))?;
        if !variants.contains(&text) {
            let message =
                format!("`{text}` is not known here{}; write one of {}", hint(text, names()), listed(names()));
            return Err(Fault::Said(message));
        }
        visitor.visit_enum(text.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple identifier
        ignored_any
    }
}

/// What a [`Given`] is made of.
struct PlaceThenValue<'a> {
    reader: Reader<'a>,
    part: u8,
}

impl<'de> SeqAccess<'de> for PlaceThenValue<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.part += 1;
        if self.part == 1 {
            return seed.deserialize(self.reader.node.place.0.into_deserializer()).map(Some);
        }
        seed.deserialize(self.reader).map(Some).map_err(|fault| self.reader.note(fault))
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    items: std::slice::Iter<'a, Node>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.items.next().map(|item| seed.deserialize(self.reader.at(item))).transpose()
    }
}

/// A value that stands for a whole section: that of its first key.
struct Only<'a> {
    reader: Reader<'a>,
    key: Option<&'static str>,
}

impl<'de> MapAccess<'de> for Only<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(key) = self.key.take() else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self.reader)
    }
}

/// A section's keys. Those that are not among `names` are noted and passed over.
struct Entries<'a> {
    reader: Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    names: Option<&'static [&'static str]>,
    value: Option<&'a Node>,
}

impl Reader<'_> {
    /// Notes a key that is not among the names. Where the colon is missing, the value is a part of the key: it is cut
    /// behind its first word, since the rest may be a secret.
    fn unknown(self, entry: &Entry, names: &[&str]) {
        let Some(begin) = first_word(&entry.key).filter(|begin| begin.len() < entry.key.len()) else {
            let (near, valid) = (hint(&entry.key, names.iter().copied()), listed(names.iter().copied()));
            let message = format!("unknown key `{}`{near}; valid here: {valid}", entry.key);
            return self.report.note_key(entry.key_place, &entry.key, message);
        };
        let message = without_colon(&entry.key, names).unwrap_or_else(|| {
            let (near, valid) = (hint(begin, names.iter().copied()), listed(names.iter().copied()));
            format!("unknown key `{begin}…`{near}; write `key: value`; valid keys here: {valid}")
        });
        self.report.note_cut_key(self.node.place, entry.key_place, begin, message);
    }
}

/// The letters, digits, `_` and `-` with which a text begins.
fn first_word(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
    end.map_or(Some(text), |end| text.get(..end)).filter(|word| !word.is_empty())
}

/// What to say of a text that is one of the names and its value, with no colon and space between them.
fn without_colon(text: &str, names: &[&str]) -> Option<String> {
    let name = first_word(text).filter(|name| name.len() < text.len() && names.contains(name))?;
    Some(format!("no colon and space follow `{name}`; write `{name}: value`"))
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        for entry in self.entries.by_ref() {
            if let Some(names) = self.names.filter(|names| !names.contains(&entry.key.as_str())) {
                self.reader.unknown(entry, names);
                continue;
            }
            self.value = Some(&entry.node);
            let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let node = self.value.take().ok_or(Fault::Noted)?;
        seed.deserialize(self.reader.at(node))
    }
}
