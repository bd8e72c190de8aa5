//! One script, as it is sent: by its hash, and whole to a server that does not know it yet.

/// One script.
#[derive(Debug, Clone)]
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), hash: redis::Script::new(text).get_hash().to_owned() }
    }

    /// What the server runs.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// By which the server knows it.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}
