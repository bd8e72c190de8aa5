//! `${VAR}`, `${VAR:-default}` and `${file:path}` inside values. Works on the parsed tree, so that what is put in can
//! never change the structure; keys are left alone, and what was put in is not looked at again.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::problem::{PlaceId, Report};
use super::tree::{Node, Value};

/// The largest file that `${file:…}` takes, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Permission bits that let others than the owner read or change a file.
const OTHERS: u32 = 0o077;
/// What would be right after a dollar.
const FORMS: &str = "`${VAR}`, `${VAR:-default}` or `${file:path}`; a dollar itself is written `$$`";

/// Where values come from.
pub(super) struct Sources<'a> {
    /// Looks up an environment variable.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Relative paths begin here: the folder of the configuration file.
    pub(super) folder: &'a Path,
}

/// Resolves every text of a tree in place. A text with a problem becomes [`Value::Bad`].
pub(super) fn resolve(node: &mut Node, sources: &Sources<'_>, report: &Report<'_>) {
    match &mut node.value {
        Value::Null | Value::Literal(_) | Value::Bad => {}
        Value::Text(text) => {
            if text.contains('$') {
                node.value = match resolved(text, sources, node.place, report) {
                    Ok(text) => Value::Text(text),
                    Err(message) => {
                        report.note(node.place, message);
                        Value::Bad
                    }
                };
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| resolve(item, sources, report)),
        Value::Section(entries) => entries.iter_mut().for_each(|entry| resolve(&mut entry.node, sources, report)),
    }
}

fn resolved(text: &str, sources: &Sources<'_>, place: PlaceId, report: &Report<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some(body) = after.strip_prefix('{') else {
            return Err(format!("a lone `$`; write {FORMS}"));
        };
        let Some((inside, after)) = body.split_once('}') else {
            return Err(format!("`${{` without its `}}`; write {FORMS}"));
        };
        if inside.contains(['$', '{']) {
            return Err(format!("one `${{…}}` stands inside another, which is not resolved; write {FORMS}"));
        }
        out.push_str(&value(inside, sources, place, report)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value(inside: &str, sources: &Sources<'_>, place: PlaceId, report: &Report<'_>) -> Result<String, String> {
    if let Some(path) = inside.strip_prefix("file:") {
        return from_file(path, sources.folder, place, report);
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        return Err(format!("`{name}` is not the name of a variable; write {FORMS}"));
    }
    match ((sources.env)(name).filter(|found| !found.is_empty()), default) {
        (Some(found), _) => Ok(found),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the environment variable {name} is not set or empty; set it, or give a default as in \
                 `${{{name}:-default}}`"
        )),
    }
}

fn from_file(path: &str, folder: &Path, place: PlaceId, report: &Report<'_>) -> Result<String, String> {
    if path.is_empty() {
        return Err("`${file:}` names no file; write `${file:path}`, relative to this file's folder".to_owned());
    }
    let path = folder.join(path);
    let shown = path.display();
    let (text, others_may) = read_small(&path).map_err(|why| format!("the file {shown} {why}"))?;
    if others_may {
        report.expose(place, path.clone());
    }
    if text.trim().is_empty() {
        return Err(format!("the file {shown} holds nothing but white space; write the value into it"));
    }
    let text = text.trim_end_matches(['\r', '\n']);
    report.conceal(text);
    Ok(text.to_owned())
}

/// A small text file's content, and whether others than its owner may read or change it.
fn read_small(path: &Path) -> Result<(String, bool), String> {
    // Asked first, because opening a pipe would wait for its writer.
    let kind = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !kind.is_file() {
        return Err("is not a regular file; name one".to_owned());
    }
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mode = file.metadata().map_err(|error| unreadable(&error))?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {FILE_BYTES_MAX} bytes; name a file with the value alone"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text; write the value as text".to_owned())?;
    Ok((text, mode & OTHERS != 0))
}

fn unreadable(error: &std::io::Error) -> String {
    format!("cannot be read ({error}); name a file that this process may read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved_with(text: &str, folder: &Path) -> Result<String, String> {
        let env = |name: &str| match name {
            "A" => Some("apple".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}: {x: y}".to_owned()),
            _ => None,
        };
        let report = Report::new(Path::new("f"), "");
        let place = report.place(String::new(), 1, 1);
        resolved(text, &Sources { env: &env, folder }, place, &report)
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(resolved_with(text, Path::new("/")).as_deref(), Ok(expected), "{text}");
    }

    fn refused(text: &str, word: &str) {
        let message = resolved_with(text, Path::new("/nowhere")).unwrap_err();
        assert!(message.contains(word), "{text}: {message}");
    }

    #[test]
    fn values_are_put_in_once() {
        check("plain", "plain");
        check("${A}", "apple");
        check("x${A}y${A}z", "xappleyapplez");
        check("${B:-pear}", "pear");
        check("${B:-}", "");
        check("${B:-a:-b}", "a:-b");
        check("${A:-pear}", "apple");
        check("${EMPTY:-pear}", "pear");
        check("$$", "$");
        check("$${A}", "${A}");
        check("$$$$", "$$");
        check("${NESTED}", "${A}: {x: y}");
    }

    #[test]
    fn what_is_not_a_form_is_refused() {
        refused("$A", "lone `$`");
        refused("a$", "lone `$`");
        refused("${A", "without its");
        refused("${}", "not the name");
        refused("${1A}", "not the name");
        refused("${A-b}", "not the name");
        refused("${a b}", "not the name");
        refused("${B:-${A}}", "inside another");
        refused("${B}", "B is not set or empty");
        refused("${EMPTY}", "EMPTY is not set or empty");
        refused("${file:}", "names no file");
        refused("${file:gone}", "/nowhere/gone cannot be read");
    }

    #[test]
    fn files_lose_their_last_line_end_only() {
        let folder = tempfile::tempdir().unwrap();
        let write = |bytes: &[u8]| fs::write(folder.path().join("f"), bytes).unwrap();
        let read = || resolved_with("<${file:f}>", folder.path());
        for (content, expected) in [("a", "<a>"), ("a\n", "<a>"), (" a b \r\n", "< a b >"), ("a\nb\n\n", "<a\nb>")] {
            write(content.as_bytes());
            assert_eq!(read().as_deref(), Ok(expected), "{content:?}");
        }
        for (content, word) in [(&b""[..], "white space"), (b" \n\t\n", "white space"), (b"\xff\xfe", "UTF-8")] {
            write(content);
            assert!(read().unwrap_err().contains(word), "{content:?}");
        }
        write(&vec![b'a'; FILE_BYTES_MAX as usize]);
        assert_eq!(read().unwrap().len(), FILE_BYTES_MAX as usize + 2);
        write(&vec![b'a'; FILE_BYTES_MAX as usize + 1]);
        assert!(read().unwrap_err().contains("more than 65536 bytes"));
        assert!(resolved_with("${file:.}", folder.path()).unwrap_err().contains("not a regular file"));
    }
}
