//! The command line: every flag, and the commands that go through the admin API. Commands that run a gateway or read
//! its files are carried out by `main` and `app`.

mod apps;
pub mod args;
pub mod audit;
pub mod certificate;
mod client;
mod failure;
mod output;
pub mod receipt;
mod remote;
pub mod signature;
mod simulate;
pub mod store;
mod table;
#[cfg(test)]
mod tests;
mod tls;
pub mod usage;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use args::{Cli, Command};
pub use remote::run;
pub use simulate::simulate;

/// Done.
pub const EXIT_OK: u8 = 0;
/// What was to be checked does not agree.
pub const EXIT_DIFFERENT: u8 = 1;
/// The command line, or what it asks for, is wrong.
pub const EXIT_USAGE: u8 = 64;
/// Something that is needed does not answer.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// A fault of this program.
pub const EXIT_BUG: u8 = 70;
/// The configuration, or a credential, is wrong.
pub const EXIT_CONFIG: u8 = 78;

/// Reads the command line; help, versions and mistakes are printed here.
///
/// # Errors
/// The exit code, when there is nothing left to do.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(arguments).map_err(|error| {
        let _ = error.print(); // a closed output changes nothing
        ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { EXIT_OK })
    })
}

/// Writes completions for a shell.
///
/// # Errors
/// When the output cannot be written.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut text);
    out.write_all(&text)
}
