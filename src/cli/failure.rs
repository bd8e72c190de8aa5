//! How a command says that it did not end well: an exit code and a text for people.

use std::io::Write;
use std::process::ExitCode;

use super::{EXIT_OK, EXIT_UNAVAILABLE};

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    /// For the exit.
    pub(super) code: u8,
    /// What went wrong.
    pub(super) text: String,
}

/// Ends a command that prints one text or says what went wrong.
pub(super) fn ended(done: Result<String, Failure>, out: &mut dyn Write, notes: &mut dyn Write) -> ExitCode {
    let done = done.and_then(|text| out.write_all(text.as_bytes()).map_err(|error| failure(EXIT_UNAVAILABLE, error)));
    match done {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(Failure { code, text }) => {
            let _ = writeln!(notes, "tollgate: {text}"); // nobody listens: the exit code says enough
            ExitCode::from(code)
        }
    }
}

/// What went wrong, with its exit code.
pub(super) fn failure(code: u8, what: impl std::fmt::Display) -> Failure {
    Failure { code, text: what.to_string() }
}
