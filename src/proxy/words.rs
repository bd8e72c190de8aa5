//! What callers are told when a call is refused, in both languages: every text of the data plane stands in `texts`, those
//! of faults that the protocol's parsers find in `faults`. Codes and statuses are `rejection`'s.

mod faults;
pub mod texts;

use std::borrow::Cow;

use crate::protocol::language::Language;

/// A message in both languages. `{name}` stands for what a call puts in; both languages have the same names.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    /// Lower case, no full stop: what is wrong, and what to do next.
    pub english: &'static str,
    /// The same in simplified Chinese.
    pub chinese: &'static str,
}

impl Text {
    const fn in_language(&self, language: Language) -> &'static str {
        match language {
            Language::English => self.english,
            Language::Chinese => self.chinese,
        }
    }

    /// The message with what it stands for.
    pub fn with<const N: usize>(&'static self, values: [(&'static str, Said); N]) -> Said {
        Said::Text(self, values.into())
    }
}

/// A message for a caller, put into words once its language is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A name, a number, an address; or a fault's English words, which `faults` may know in Chinese.
    Plain(Cow<'static, str>),
    /// A text and what its names stand for.
    Text(&'static Text, Vec<(&'static str, Said)>),
    /// Several, with a text between any two.
    Listed(Vec<Said>, &'static Text),
}

impl From<&'static Text> for Said {
    fn from(text: &'static Text) -> Self {
        Self::Text(text, Vec::new())
    }
}

impl From<&'static str> for Said {
    fn from(plain: &'static str) -> Self {
        Self::Plain(plain.into())
    }
}

impl From<String> for Said {
    fn from(plain: String) -> Self {
        Self::Plain(plain.into())
    }
}

impl Said {
    /// In words.
    pub fn render(&self, language: Language) -> Cow<'_, str> {
        match self {
            Self::Plain(plain) => match language {
                Language::English => Cow::Borrowed(plain),
                Language::Chinese => faults::in_chinese(plain).map_or(Cow::Borrowed(&**plain), Cow::Borrowed),
            },
            Self::Text(text, values) if values.is_empty() => Cow::Borrowed(text.in_language(language)),
            Self::Text(text, values) => Cow::Owned(fill(text.in_language(language), values, language)),
            Self::Listed(all, between) => {
                let all: Vec<_> = all.iter().map(|said| said.render(language)).collect();
                Cow::Owned(all.join(between.in_language(language)))
            }
        }
    }

    /// Whether it has Chinese words.
    pub fn has_chinese(&self) -> bool {
        match self {
            Self::Plain(plain) => faults::in_chinese(plain).is_some(),
            Self::Text(..) | Self::Listed(..) => true,
        }
    }
}

/// Puts values in the places of their names.
fn fill(template: &str, values: &[(&'static str, Said)], language: Language) -> String {
    let mut filled = String::with_capacity(template.len().saturating_mul(2));
    for (at, part) in template.split('{').enumerate() {
        let (name, rest) = match part.split_once('}') {
            Some(parts) if at > 0 => parts,
            Some(_) | None => ("", part),
        };
        if let Some((_, said)) = values.iter().find(|(known, _)| *known == name) {
            filled.push_str(&said.render(language));
        }
        filled.push_str(rest);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that a template has places for, sorted.
    fn names(template: &str) -> Vec<&str> {
        let mut names: Vec<&str> = template
            .split('{')
            .skip(1)
            .map(|part| part.split_once('}').unwrap_or_else(|| panic!("{template}")).0)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_text_has_both_languages_with_the_same_places() {
        let chinese = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c) || "、；，".contains(c));
        let mut seen = std::collections::BTreeSet::new();
        for (name, text) in texts::ALL.iter().map(|(name, text)| (*name, *text)).chain(faults::all()) {
            assert!(!text.english.is_empty() && text.english.is_ascii(), "{name}: {}", text.english);
            assert!(chinese(text.chinese), "{name}: {}", text.chinese);
            assert_eq!(names(text.english), names(text.chinese), "{name}");
            assert!(
                !text.chinese.ends_with(['。', '，', '；', ' ']) || text.english.ends_with(' '),
                "{name}: {}",
                text.chinese
            );
            assert!(seen.insert(text.english), "{name} stands twice: {}", text.english);
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }

    #[test]
    fn values_stand_where_their_names_do_and_are_not_read_again() {
        static TEXT: Text = Text { english: "{a} before {b}, not {a}", chinese: "{b}在{a}后，非{a}" };
        let said = TEXT.with([("a", "{b}".into()), ("b", String::from("x").into())]);
        assert_eq!(said.render(Language::English), "{b} before x, not {b}");
        assert_eq!(said.render(Language::Chinese), "x在{b}后，非{b}");
        static OR: Text = Text { english: ", or ", chinese: "，或" };
        let listed = Said::Listed(vec!["1".into(), "2".into()], &OR);
        assert_eq!(
            (listed.render(Language::English), listed.render(Language::Chinese)),
            ("1, or 2".into(), "1，或2".into())
        );
    }
}
