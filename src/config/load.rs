//! A file or text into a checked configuration, and the JSON Schema of such files.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::string::FromUtf8Error;

use super::interpolate::Sources;
use super::problem::{Problems, Report};
use super::raw::Raw;
use super::{Config, check, interpolate, read, tree};

/// The largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads, resolves and checks a configuration file. `env` looks up environment variables.
///
/// # Errors
/// Everything that is wrong with the file, or that it cannot be read.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    load_as(path, (env, Purpose::Start))
}

/// As [`load`], for a gateway that runs. It cannot change its listeners, and looks at their certificates by itself: one that
/// has run out keeps no new product back.
///
/// # Errors
/// As of [`load`].
pub fn load_again(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    load_as(path, (env, Purpose::Reload))
}

/// What a configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// All of it is used.
    Start,
    /// The files of the listeners' certificates are in use already.
    Reload,
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

fn load_as(path: &Path, (env, purpose): (Env<'_>, Purpose)) -> Result<Config, Problems> {
    let of_file = |message: String| Problems::of_file(path, message);
    let unreadable = |error: std::io::Error| {
        of_file(format!("the file cannot be read ({error}); name a configuration file that this process may read"))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(of_file(format!(
            "the file has more than {FILE_BYTES_MAX} bytes; name a configuration file, which is smaller"
        )));
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse_as(&text, path, (env, purpose)),
        Err(error) => not_text(path, &error),
    }
}

/// Says where a file's first byte is that is not UTF-8.
fn not_text(path: &Path, error: &FromUtf8Error) -> Result<Config, Problems> {
    let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
    let before = String::from_utf8_lossy(before);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let report = Report::new(path, "");
    let message = "this byte is not UTF-8; save the file as UTF-8".to_owned();
    report.note_text(before.matches('\n').count() + 1, line.chars().count() + 1, message);
    report.finish(None)
}

/// Checks a configuration's text. `origin` names it in problems; relative paths begin at its folder.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(text: &str, origin: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    parse_as(text, origin, (env, Purpose::Start))
}

fn parse_as(text: &str, origin: &Path, (env, purpose): (Env<'_>, Purpose)) -> Result<Config, Problems> {
    let folder = origin.parent().unwrap_or(Path::new(""));
    let report = Report::new(origin, text);
    let config = tree::parse(text, &report).and_then(|mut tree| {
        interpolate::resolve(&mut tree, &Sources { env, folder }, &report);
        let root = read::read::<Raw>(&tree, &report)?;
        check::config(root, (folder, purpose), &report)
    });
    report.finish(config)
}

/// The JSON Schema of configuration files, for editors: pretty, always in the same order, with a line end.
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(Raw);
    format!("{:#}\n", schema.as_value())
}
