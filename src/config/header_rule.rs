//! Which of a seller's response headers reach the buyer, ready for look-up.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// Which of a seller's response headers reach the buyer. Hop-by-hop headers never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRule {
    allowed: Patterns,
    denied: Patterns,
}

impl HeaderRule {
    /// Lower-case names; one that ends in `*` names a prefix, `*` alone names all. Those that are `denied` no prefix
    /// includes; a name that `allowed` spells out in full passes nevertheless.
    pub fn new(allowed: &[String], denied: &[String]) -> Self {
        Self { allowed: Patterns::new(allowed), denied: Patterns::new(denied) }
    }

    /// Whether a seller's header reaches the buyer.
    pub fn allows(&self, name: &HeaderName) -> bool {
        let (allowed, denied) = (&self.allowed, &self.denied);
        allowed.names.contains_key(name)
            || (allowed.begin(name.as_str()) && !denied.begin(name.as_str()) && !denied.names.contains_key(name))
    }
}

/// Names of headers, in full or by their beginnings.
#[derive(Clone, PartialEq, Eq)]
struct Patterns {
    /// A map, for its hash: a set's costs a call more than all else here.
    names: HeaderMap<()>,
    prefixes: Vec<String>,
}

impl Patterns {
    fn new(patterns: &[String]) -> Self {
        let mut split = Self { names: HeaderMap::default(), prefixes: Vec::new() };
        for pattern in patterns {
            match (pattern.strip_suffix('*'), pattern.parse::<HeaderName>()) {
                (Some(prefix), _) => split.prefixes.push(prefix.to_owned()),
                (None, Ok(name)) => drop(split.names.insert(name, ())),
                (None, Err(_)) => {} // names no header
            }
        }
        split
    }

    fn begin(&self, name: &str) -> bool {
        self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// As they are written, sorted.
impl fmt::Debug for Patterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.keys().map(ToString::to_string);
        let mut written: Vec<String> = names.chain(self.prefixes.iter().map(|prefix| format!("{prefix}*"))).collect();
        written.sort();
        formatter.debug_list().entries(written).finish()
    }
}
