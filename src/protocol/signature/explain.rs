//! Where two canonical requests part: what a person needs who wonders why a signature does not fit.

/// The lines of a canonical request before its headers.
const BEFORE_HEADERS: [&str; 3] = ["method", "path", "query"];

/// The first place at which two canonical requests differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which part of the request: `method`, `path`, `query`, `header <name>`, `signed headers`, `body hash`.
    pub part: String,
    /// The line, from 1.
    pub line: usize,
    /// The character within the line, from 1.
    pub column: usize,
    /// The line of the first text; empty if it has none.
    pub ours: String,
    /// The line of the second text.
    pub theirs: String,
}

/// Finds the first difference; `None`: the texts are the same.
pub fn first_difference(ours: &str, theirs: &str) -> Option<Difference> {
    let (mine, yours): (Vec<&str>, Vec<&str>) = (ours.split('\n').collect(), theirs.split('\n').collect());
    let line = (0..mine.len().max(yours.len())).find(|at| mine.get(*at) != yours.get(*at))?;
    let (ours, theirs) = (mine.get(line).copied(), yours.get(line).copied());
    let (ours_text, theirs_text) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
    let same = ours_text.chars().zip(theirs_text.chars()).take_while(|(mine, yours)| mine == yours).count();
    Some(Difference {
        part: part_of(&mine, &yours, line),
        line: line + 1,
        column: same + 1,
        ours: ours_text.to_owned(),
        theirs: theirs_text.to_owned(),
    })
}

fn part_of(mine: &[&str], yours: &[&str], line: usize) -> String {
    if let Some(name) = BEFORE_HEADERS.get(line) {
        return (*name).to_owned();
    }
    // From the end: the body's hash, the signed headers, an empty line.
    match mine.len().checked_sub(line) {
        Some(1) => "body hash".to_owned(),
        Some(2) => "signed headers".to_owned(),
        Some(3) | None | Some(0) => "headers".to_owned(),
        Some(_) => {
            let text = mine.get(line).or(yours.get(line)).copied().unwrap_or_default();
            format!("header {}", text.split(':').next().unwrap_or_default())
        }
    }
}
