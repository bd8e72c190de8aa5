//! To whom a buyer allots its costs: each package and key carries a project and free tags, and usage can be grouped by
//! them. They decide nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::id::ProjectId;

/// Most tags of one key or package.
pub const TAGS_MAX: usize = 10;
/// The longest name of a tag, in bytes.
pub const TAG_NAME_BYTES_MAX: usize = 32;
/// Names and values of all tags together, in bytes: they stand in the record of every call.
pub const TAGS_BYTES_MAX: usize = 512;

/// Why tags are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`tags` are at most {TAGS_MAX}, with names of 1 to {TAG_NAME_BYTES_MAX} characters of a-z A-Z 0-9 - _ . and values \
     without control characters, at most {TAGS_BYTES_MAX} bytes in all; {0}"
)]
pub struct TagsFault(String);

/// Names with values of the owner's choice.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Checks names, values and their sum.
    ///
    /// # Errors
    /// See [`TagsFault`].
    pub fn new(tags: BTreeMap<String, String>) -> Result<Self, TagsFault> {
        if tags.len() > TAGS_MAX {
            return Err(TagsFault(format!("these are {}", tags.len())));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        for (name, value) in &tags {
            if !(1..=TAG_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(plain) {
                return Err(TagsFault(format!("{name:?} is not such a name")));
            }
            if value.chars().any(char::is_control) {
                return Err(TagsFault(format!("the value of {name:?} is not such a value")));
            }
        }
        let bytes: usize = tags.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
        if bytes > TAGS_BYTES_MAX { Err(TagsFault(format!("these have {bytes} bytes"))) } else { Ok(Self(tags)) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for Tags {
    type Error = TagsFault;
    fn try_from(tags: BTreeMap<String, String>) -> Result<Self, TagsFault> {
        Self::new(tags)
    }
}

/// A project with tags.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allocation {
    /// The project.
    pub project: ProjectId,
    /// The tags.
    pub tags: Tags,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tags: &[(&str, &str)], good: bool) {
        let tags: BTreeMap<_, _> = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(Tags::new(tags.clone()).is_ok(), good, "{tags:?}");
    }

    #[test]
    fn tags_are_few_short_and_printable() {
        check(&[], true);
        check(&[("cost-centre", "42"), ("team", "Küche 7"), ("empty", "")], true);
        check(&[(&"n".repeat(32), &"v".repeat(480))], true);
        check(&[(&"n".repeat(32), &"v".repeat(481))], false);
        check(&[(&"n".repeat(33), "v")], false);
        check(&[("", "v")], false);
        check(&[("a b", "v")], false);
        check(&[("a", "line\nline")], false);
        let names: Vec<String> = (0..11).map(|number| format!("t{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        check(&many[..10], true);
        check(&many, false);
    }

    #[test]
    fn what_is_not_accepted_is_not_read() {
        assert!(serde_json::from_str::<Tags>(r#"{"a":"b"}"#).is_ok());
        assert!(serde_json::from_str::<Tags>(r#"{"a b":"c"}"#).is_err());
    }
}
