//! YAML text into a tree of texts that know their places. It gives no value a type: a text stays a text, so that
//! `1.10`, `off` and `0x10` are what the file says until a key's own rule reads them.
//!
//! serde-saphyr's parser is used without its serde side, because that stops at the first problem.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};

use super::problem::{PlaceId, Report, join};
use super::syntax::{explained, position};

/// How deep sections and lists may nest. The file's own shape needs six.
pub(super) const DEPTH_MAX: usize = 32;
/// How many values a file may hold once its aliases are expanded.
const NODES_MAX: usize = 200_000;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: PlaceId,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar without quotes that YAML takes for a number or a truth value.
    Literal(String),
    /// Any other scalar, after YAML's own escapes.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the file's order, each key once.
    Section(Vec<Entry>),
    /// Something whose problem is already noted.
    Bad,
}

/// One key of a section.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: PlaceId,
    pub(super) node: Node,
}

/// Reads one document. `None` if it cannot be parsed; then the report says where and why. Duplicate keys, tags and
/// the like are noted and left out.
pub(super) fn parse(text: &str, report: &Report<'_>) -> Option<Node> {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.block_nesting_limit = DEPTH_MAX;
    options.flow_nesting_limit = DEPTH_MAX;
    let events = Parser::new_from_str_with_options(text, options);
    Builder { events, report, anchors: HashMap::new(), brackets: Vec::new(), nodes: 0, text }.document()
}

/// The message for a file without content.
const EMPTY: &str = "the file holds no keys; begin with a copy of config/tollgate.yaml, which shows each";

struct Builder<'a> {
    events: Parser<'a, StrInput<'a>>,
    report: &'a Report<'a>,
    /// Finished nodes that aliases may name.
    anchors: HashMap<usize, Node>,
    /// The lines of brackets that are open.
    brackets: Vec<usize>,
    nodes: usize,
    text: &'a str,
}

impl<'a> Builder<'a> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's events can grow; all others carry no value")]
    fn document(&mut self) -> Option<Node> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::DocumentStart(..) => break,
                Event::StreamEnd => return self.stop(span, EMPTY),
                _ => {}
            }
        }
        let first = self.next()?;
        let start = first.1;
        let root = self.node(first, String::new())?;
        if matches!(root.value, Value::Null) {
            return self.stop(start, EMPTY);
        }
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::DocumentStart(..) => {
                    let why =
                        "a second document begins here; a configuration is one document, take the `---` or `...` out";
                    return self.stop(span, why);
                }
                Event::StreamEnd => return Some(root),
                _ => {}
            }
        }
    }

    /// The next event. Notes what the parser refuses; then there is none.
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        match self.events.next_event()? {
            Ok(found) => Some(found),
            Err(error) => {
                let at = position(error.kind(), (error.marker().line(), error.marker().col() + 1), self.text);
                let message = format!("this is not YAML: {}", explained(error.kind(), self.brackets.last().copied()));
                self.report.note_text(at.0, at.1, message);
                None
            }
        }
    }

    fn stop<T>(&self, span: Span, message: &str) -> Option<T> {
        self.report.note_text(span.start.line(), span.start.col() + 1, message.to_owned());
        None
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's events can grow; any other one is wrong here")]
    fn node(&mut self, (event, span): (Event<'a>, Span), path: String) -> Option<Node> {
        self.count(span)?;
        let place = self.report.place(path.clone(), span.start.line(), span.start.col() + 1);
        let tagged = event.tag().is_some();
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(style, anchor, _) => {
                (Value::List(self.between(style, span, |builder| builder.list(&path))?), anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                (Value::Section(self.between(style, span, |builder| builder.section(&path))?), anchor)
            }
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor).cloned() else {
                    return self.stop(span, "an alias stands inside its own anchor; write the value out");
                };
                return self.copy(&target, path, span);
            }
            _ => return self.stop(span, "no value; write one"),
        };
        let value = if tagged {
            let why = "tags such as `!!str` mean nothing here; write the value alone, in quotes if it begins with `!`";
            self.report.note(place, why);
            Value::Bad
        } else if anchor != 0 && matches!(value, Value::Null) {
            self.report.note(place, "a name after `&`, but no value; put a value that begins with `&` in quotes");
            Value::Bad
        } else {
            value
        };
        let node = Node { place, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Some(node)
    }

    /// Reads a list or section, and remembers meanwhile where its bracket was opened, if it has one.
    fn between<T>(
        &mut self,
        style: StructureStyle,
        span: Span,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        match style {
            StructureStyle::Block => read(self),
            StructureStyle::Flow => {
                self.brackets.push(span.start.line());
                let found = read(self)?;
                self.brackets.pop();
                Some(found)
            }
        }
    }

    fn list(&mut self, path: &str) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::SequenceEnd) {
                return Some(items);
            }
            items.push(self.node(next, format!("{path}[{}]", items.len()))?);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's events can grow; any other one is wrong here")]
    fn section(&mut self, path: &str) -> Option<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let (line, column) = (span.start.line(), span.start.col() + 1);
            let key = match event {
                Event::MappingEnd => return Some(entries),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    return self.stop(
                        span,
                        "this is no key; write a word, and put a value that begins with `{` or `[` in quotes",
                    );
                }
            };
            let key_path = join(path, &key);
            let key_place = self.report.place(key_path.clone(), line, column);
            let next = self.next()?;
            let mut node = self.node(next, key_path)?;
            if matches!(node.value, Value::Null) {
                node.place = key_place; // an absent value stands nowhere
            }
            match lines.get(&key) {
                Some(first) => {
                    let message = format!("duplicate key `{key}`, first given on line {first}; keep one of the two");
                    self.report.note_key(key_place, &key, message);
                }
                None => {
                    lines.insert(key.clone(), line);
                    entries.push(Entry { key, key_place, node });
                }
            }
        }
    }

    /// A copy of an anchored node under the path of its alias. Counted, so that aliases of aliases stay bounded.
    fn copy(&mut self, node: &Node, path: String, span: Span) -> Option<Node> {
        self.count(span)?;
        let place = self.report.place_again(node.place, path.clone());
        let value = match &node.value {
            Value::List(items) => {
                let copies = items.iter().enumerate();
                let copies = copies.map(|(index, item)| self.copy(item, format!("{path}[{index}]"), span));
                Value::List(copies.collect::<Option<_>>()?)
            }
            Value::Section(entries) => {
                let copies = entries.iter().map(|entry| {
                    let path = join(&path, &entry.key);
                    let key_place = self.report.place_again(entry.key_place, path.clone());
                    Some(Entry { key: entry.key.clone(), key_place, node: self.copy(&entry.node, path, span)? })
                });
                Value::Section(copies.collect::<Option<_>>()?)
            }
            plain @ (Value::Null | Value::Literal(_) | Value::Text(_) | Value::Bad) => plain.clone(),
        };
        Some(Node { place, value })
    }

    fn count(&mut self, span: Span) -> Option<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message =
                format!("more than {NODES_MAX} values, aliases expanded; write fewer: a configuration is smaller");
            return self.stop(span, &message);
        }
        Some(())
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (ScalarStyle::Plain, _) if is_truth(text) || is_number(text) => Value::Literal(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// By YAML's core schema.
pub(super) fn is_truth(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// By YAML's core schema.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(text, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (number, power) = text.split_once(['e', 'E']).map_or((text, None), |(number, power)| (number, Some(power)));
    let power_fits = power.is_none_or(|power| digits(power.strip_prefix(['-', '+']).unwrap_or(power)));
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let none_or_digits = |text: &str| text.is_empty() || digits(text);
    power_fits && none_or_digits(whole) && none_or_digits(part) && !(whole.is_empty() && part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_names_as_yaml_does() {
        for number in ["0", "-12", "+1", "1.5", "1.", ".5", "1e5", "-1.5E-3", "0x1F", "0o17", ".inf", "-.inf", ".nan"] {
            assert!(is_number(number), "{number}");
        }
        for text in
            ["", "-", ".", "1.2.3", "1a", "0x", "0xg", "0o8", "1e", "e5", "10s", "127.0.0.1", "1_000", "inf", "- 1"]
        {
            assert!(!is_number(text), "{text}");
        }
    }
}
