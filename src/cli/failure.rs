//! How a command says that it did not end well: an exit code and a text for people.

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    /// For the exit.
    pub(super) code: u8,
    /// What went wrong.
    pub(super) text: String,
}

/// What went wrong, with its exit code.
pub(super) fn failure(code: u8, what: impl std::fmt::Display) -> Failure {
    Failure { code, text: what.to_string() }
}
