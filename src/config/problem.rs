//! What is wrong with a configuration, and where. Collects and renders; the rules themselves are in `check`.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// The most problems that are listed; a file with more is likely not a configuration at all.
pub const PROBLEMS_MAX: usize = 100;
/// The longest source line that is shown with a caret, in characters.
const SHOWN_LINE_MAX: usize = 160;
/// A line or path that holds one of these words may be a secret's, and the line is not shown.
const SECRETIVE: [&str; 6] = ["token", "_key", "-key", "secret", "authorization", "password"];
/// A shorter content of a file is no secret, and would be found in words that have nothing to do with it. In bytes.
const CONCEALED_BYTES_MIN: usize = 4;
/// Stands in messages for what a file holds.
const CONCEALED: &str = "${file:…}";

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, both from 1; `None` if the file as a whole is meant.
    pub position: Option<(usize, usize)>,
    /// The key, as in `products[0].upstream.base_url`; empty for the whole file.
    pub path: String,
    /// What is wrong; what would be right.
    pub message: String,
    /// The source line, unless it may hold a secret.
    pub source_line: Option<String>,
}

/// Everything that is wrong with one file: at least one problem, in the order of their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    origin: PathBuf,
    problems: Vec<Problem>,
    /// How many were found beyond [`PROBLEMS_MAX`].
    unlisted: usize,
}

impl Problems {
    /// A single problem of the file as a whole.
    pub(super) fn of_file(origin: &Path, message: String) -> Self {
        let problem = Problem { position: None, path: String::new(), message, source_line: None };
        Self { origin: origin.to_owned(), problems: vec![problem], unlisted: 0 }
    }

    /// The problems, in the order of their lines.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Each as it is shown; at the end how many are not listed, if any are not.
    pub fn texts(&self) -> Vec<String> {
        let listed = self.problems.iter().map(|problem| problem.shown(&self.origin));
        let more = format!("{}: and {} more problems", self.origin.display(), self.unlisted);
        listed.chain((self.unlisted > 0).then_some(more)).collect()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join("\n"))
    }
}

impl Problem {
    /// With its file, its place and, if there is one, its line.
    fn shown(&self, origin: &Path) -> String {
        let position = self.position.map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
        let path = if self.path.is_empty() { String::new() } else { format!(": {}", self.path) };
        let mut text = format!("{}{position}{path}: {}", origin.display(), self.message);
        if let (Some(source), Some((line, column))) = (&self.source_line, self.position) {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            text.extend([format!("\n  {number} | {source}\n  {margin} | {}^", lead(source, column))]);
        }
        text
    }
}

/// As much white space as stands before a column, with the line's own tabs, so that the caret meets its character.
fn lead(source: &str, column: usize) -> String {
    source.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect()
}

/// Names a [`Place`] of the report that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlaceId(pub(super) u32);

/// Where something stands in the file.
#[derive(Debug)]
struct Place {
    path: String,
    line: usize,
    column: usize,
    /// A file readable by others, from which a part of the value here came.
    exposed: Option<PathBuf>,
}

/// Collects problems while a file is read. Shared by reference: whoever finds one notes it and goes on.
pub(super) struct Report<'a> {
    origin: &'a Path,
    text: &'a str,
    places: RefCell<Vec<Place>>,
    found: RefCell<Vec<Found>>,
    /// What files hold that values were read from.
    concealed: RefCell<Vec<String>>,
}

/// A problem whose source line is not looked up yet.
#[derive(PartialEq, Eq)]
struct Found {
    position: (usize, usize),
    path: String,
    message: String,
    /// How many characters of the source line may be shown; none of it if 0.
    shown: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(origin: &'a Path, text: &'a str) -> Self {
        let (places, found) = (RefCell::default(), RefCell::default());
        Self { origin, text, places, found, concealed: RefCell::default() }
    }

    /// Remembers a place, to be named by later notes.
    pub(super) fn place(&self, path: String, line: usize, column: usize) -> PlaceId {
        let mut places = self.places.borrow_mut();
        let id = u32::try_from(places.len()).unwrap_or(u32::MAX); // the tree's bound on nodes is far below
        places.push(Place { path, line, column, exposed: None });
        PlaceId(id)
    }

    /// Remembers the place of another use of what stands at `place`.
    pub(super) fn place_again(&self, place: PlaceId, path: String) -> PlaceId {
        let (line, column) = self.with_place(place, |found| (found.line, found.column)).unwrap_or((1, 1));
        self.place(path, line, column)
    }

    /// Notes a problem of the value at a place.
    pub(super) fn note(&self, place: PlaceId, message: impl Into<String>) {
        self.push(place, None, SHOWN_LINE_MAX, message.into());
    }

    /// Notes a problem of the key at a place. What follows the key is not shown: if the key is the misspelt name of a
    /// secret, that is the secret.
    pub(super) fn note_key(&self, place: PlaceId, key: &str, message: impl Into<String>) {
        let column = self.with_place(place, |found| found.column).unwrap_or_default();
        self.push(place, None, column.saturating_add(key.chars().count()), message.into());
    }

    /// As [`Report::note_key`], for a key of the section at `parent` of which no more than `begin` may be shown.
    pub(super) fn note_cut_key(&self, parent: PlaceId, place: PlaceId, begin: &str, message: String) {
        let path = self.with_place(parent, |found| join(&found.path, begin)).unwrap_or_default();
        let position = self.with_place(place, |found| (found.line, found.column)).unwrap_or_default();
        let shown = position.1.saturating_sub(1).saturating_add(begin.chars().count());
        self.found.borrow_mut().push(Found { position, path, message, shown });
    }

    /// Notes a problem of a key below a place that has no place of its own: it is missing.
    pub(super) fn note_below(&self, place: PlaceId, key: &str, message: impl Into<String>) {
        self.push(place, Some(key), 0, message.into());
    }

    /// Notes a problem of the text itself. The line is not shown: nobody knows yet whether it holds a secret.
    pub(super) fn note_text(&self, line: usize, column: usize, message: String) {
        self.found.borrow_mut().push(Found { position: (line, column), path: String::new(), message, shown: 0 });
    }

    fn push(&self, place: PlaceId, below: Option<&str>, shown: usize, message: String) {
        let found = self.with_place(place, |found| (found.path.clone(), (found.line, found.column)));
        let (path, position) = found.unwrap_or_default();
        let path = below.map_or(path.clone(), |key| join(&path, key));
        self.found.borrow_mut().push(Found { position, path, message, shown });
    }

    /// The place's line, for messages that name a second place.
    pub(super) fn line_of(&self, place: PlaceId) -> usize {
        self.with_place(place, |found| found.line).unwrap_or_default()
    }

    /// Remembers that a value came from a file that others can read.
    pub(super) fn expose(&self, place: PlaceId, file: PathBuf) {
        if let Some(found) = self.places.borrow_mut().get_mut(place.0 as usize) {
            found.exposed = Some(file);
        }
    }

    /// The file readable by others from which a part of the value came.
    pub(super) fn exposed(&self, place: PlaceId) -> Option<PathBuf> {
        self.with_place(place, |found| found.exposed.clone()).flatten()
    }

    /// Remembers what a file holds: no message quotes it, for it may be a secret that stands at the wrong key. Messages
    /// quote as it is, or with escapes.
    pub(super) fn conceal(&self, text: &str) {
        let text = text.trim();
        if text.len() >= CONCEALED_BYTES_MIN {
            let escaped = format!("{text:?}");
            let escaped = escaped.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text).to_owned();
            self.concealed.borrow_mut().extend([text.to_owned(), escaped]);
        }
    }

    /// Gives what was built, or the problems. What could not be built without a problem noted is one itself.
    pub(super) fn finish<T>(self, built: Option<T>) -> Result<T, Problems> {
        let mut found = self.found.take();
        match built {
            Some(built) if found.is_empty() => return Ok(built),
            None if found.is_empty() => {
                return Err(Problems::of_file(self.origin, "the configuration could not be read".to_owned()));
            }
            Some(_) | None => {}
        }
        found.sort_by_key(|problem| problem.position);
        found.dedup();
        let unlisted = found.len().saturating_sub(PROBLEMS_MAX);
        found.truncate(PROBLEMS_MAX);
        let concealed = self.concealed.take();
        let said = |message| concealed.iter().fold(message, |message: String, text| message.replace(text, CONCEALED));
        let problems = found.into_iter().map(|found| {
            let line = self.shown_line(found.position.0, &found.path).filter(|_| found.shown > 0);
            Problem {
                position: Some(found.position),
                source_line: line.map(|line| line.chars().take(found.shown).collect()),
                path: found.path,
                message: said(found.message),
            }
        });
        Err(Problems { origin: self.origin.to_owned(), problems: problems.collect(), unlisted })
    }

    fn with_place<R>(&self, place: PlaceId, read: impl FnOnce(&Place) -> R) -> Option<R> {
        self.places.borrow().get(place.0 as usize).map(read)
    }

    /// A source line, if it is short, plain, and cannot hold a secret: neither by its words nor, as a URL may, before
    /// an `@`. A line with several keys in braces is not shown, because one of them may be a secret's misspelt name.
    fn shown_line(&self, line: usize, path: &str) -> Option<String> {
        let source = self.text.lines().nth(line.checked_sub(1)?)?.trim_end();
        let secretive = |text: &str| {
            let text = text.to_ascii_lowercase();
            SECRETIVE.iter().any(|word| text.contains(word))
        };
        let braces = source.replace("${", "").contains('{');
        let userinfo = source.contains("://") && source.contains('@');
        let hidden = braces || userinfo || path.contains(".headers") || secretive(source) || secretive(path);
        let showable = !source.is_empty() && source.chars().count() <= SHOWN_LINE_MAX;
        (showable && !hidden && !source.contains(char::is_control)).then(|| source.to_owned())
    }
}

/// The path of a key below a path.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key:?}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_quote_keys_that_are_no_plain_words() {
        assert_eq!(join("", "a"), "a");
        assert_eq!(join("a.b", "c_d-1"), "a.b.c_d-1");
        assert_eq!(join("models", "gpt-4.1"), "models[\"gpt-4.1\"]");
        assert_eq!(join("a", ""), "a[\"\"]");
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        let text = "a: 1\ntoken: hunter2\nx: { apikey: y }\nurl: http://a:b@c\nb: ${c}\n";
        let report = Report::new(Path::new("f"), text);
        assert_eq!(report.shown_line(1, "a"), Some("a: 1".to_owned()));
        assert_eq!(report.shown_line(1, "products[0].upstream.headers.x"), None);
        assert_eq!(report.shown_line(1, "admin.token"), None);
        assert_eq!(report.shown_line(2, "admin"), None);
        assert_eq!(report.shown_line(3, "x"), None);
        assert_eq!(report.shown_line(4, "x"), None);
        assert_eq!(report.shown_line(5, "x"), Some("b: ${c}".to_owned()));
        assert_eq!(report.shown_line(9, "x"), None);
        assert_eq!(report.shown_line(0, "x"), None);
    }

    #[test]
    fn what_follows_a_wrong_key_is_not_shown() {
        let report = Report::new(Path::new("f"), "  tokn: hunter2\n");
        report.note_key(report.place("admin.tokn".to_owned(), 1, 3), "tokn", "unknown");
        let problems = report.finish(None::<()>).unwrap_err();
        assert_eq!(problems.to_string(), "f:1:3: admin.tokn: unknown\n  1 |   tokn:\n    |   ^");
    }

    #[test]
    fn problems_beyond_the_limit_are_counted() {
        let report = Report::new(Path::new("f.yaml"), "a: 1\n");
        for index in 0..PROBLEMS_MAX + 2 {
            report.note_text(1, index, "bad".to_owned());
        }
        let problems = report.finish(None::<()>).unwrap_err();
        assert_eq!(problems.iter().count(), PROBLEMS_MAX);
        assert_eq!(problems.texts().len(), PROBLEMS_MAX + 1);
        assert!(problems.to_string().ends_with("f.yaml: and 2 more problems"));
    }
}
