//! Generated heads: each byte that a parser might pass over, at each place of a framing header's line.

use super::run::{Case, Expect, ROUTES};

/// Every control byte, the blanks, and what parsers are known to skip, to cut at or to fold.
fn bytes() -> impl Iterator<Item = u8> {
    (0..=b' ').chain([0x7f, 0x80, 0x85, 0xa0, 0xad, 0xc0, 0xff]).chain(*b"!\"#$'(),.;:=_@[\\{|~0")
}

/// A request's head with one field in doubt; `true`: its other framing field is right.
struct Template {
    name: &'static str,
    value: &'static str,
    /// The line of the other framing field, if there is one.
    beside: &'static str,
    body: &'static str,
}

/// A request that stands in another's body, if that is read the wrong way.
const SMUGGLED: &str = "0\r\n\r\nGET /api/smuggled HTTP/1.1\r\nHost: a\r\nX-Case: smuggled\r\n\r\n";

fn templates() -> [Template; 4] {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    [
        Template { name: "Transfer-Encoding", value: "chunked", beside: "Content-Length: 62\r\n", body: SMUGGLED },
        Template { name: "Transfer-Encoding", value: "chunked", beside: "", body: chunks },
        Template { name: "Content-Length", value: "5", beside: "Transfer-Encoding: chunked\r\n", body: chunks },
        Template { name: "Content-Length", value: "5", beside: "", body: "hello" },
    ]
}

/// The field's line, end included, with the byte at each place around and within name, colon and value.
fn lines(name: &str, value: &str, byte: u8) -> Vec<Vec<u8>> {
    let middle = name.len() / 2;
    let (first, last) = name.split_at(middle);
    let half = value.len() / 2;
    let at = |parts: [&str; 2]| [parts[0].as_bytes(), &[byte], parts[1].as_bytes()].concat();
    vec![
        at(["", &format!("{name}: {value}\r\n")]),
        at([first, &format!("{last}: {value}\r\n")]),
        at([&name.replace('-', ""), &format!(": {value}\r\n")]),
        name.split('-')
            .map(str::as_bytes)
            .collect::<Vec<_>>()
            .join(&byte)
            .into_iter()
            .chain(format!(": {value}\r\n").bytes())
            .collect(),
        at([name, &format!(": {value}\r\n")]),
        at([name, &format!("{value}\r\n")]),
        at([&format!("{name}:"), &format!("{value}\r\n")]),
        at([&format!("{name}: "), &format!("{value}\r\n")]),
        at([&format!("{name}: {}", &value[..half]), &format!("{}\r\n", &value[half..])]),
        at([&format!("{name}: {value}"), "\r\n"]),
        at([&format!("{name}: {value}\r"), "\n"]),
        at([&format!("{name}: {value}\r\n"), &format!("{name}: {value}\r\n")]),
        at(["X: x", &format!("{name}: {value}\r\n")]),
        at(["X: x\r", &format!("\n{name}: {value}\r\n")]),
    ]
}

/// Whole lines that are wrong in more than a byte.
fn whole_lines(name: &str, value: &str) -> Vec<String> {
    let upper = value.to_uppercase();
    let mut lines = vec![
        format!("{name}: {upper}\r\n"),
        format!("{}: {value}\r\n", name.to_uppercase()),
        format!("{}: {value}\r\n", name.to_lowercase()),
        format!("{name}:{value}\r\n"),
        format!("{name}:\t{value}\t \r\n"),
        format!("{name}: {value}\r\n{name}: {value}\r\n"),
        format!("{name}: {value}\r\n{name}: x\r\n"),
        format!("{name}: x\r\n{name}: {value}\r\n"),
        format!("{name}:\r\n {value}\r\n"),
        format!("{name}:\r\n\t{value}\r\n"),
        format!("{name}\r\n: {value}\r\n"),
        format!("{name}: {value}, {value}\r\n"),
        format!("{name}: {value},\r\n"),
        format!("{name}: ,{value}\r\n"),
        format!("{name}: \"{value}\"\r\n"),
        format!("{name}: {value};q=1\r\n"),
        format!("{name}: {value} {value}\r\n"),
        format!("{name}: identity, {value}\r\n"),
        format!("{name}: {value}, identity\r\n"),
        format!("{name}: gzip, {value}\r\n"),
        format!("{name}: x{value}\r\n"),
        format!("{name}: {value}x\r\n"),
        format!("{name}: \r\n"),
        format!("{name}:\r\n"),
        format!("X-{name}: {value}\r\n"),
        format!("{name}-X: {value}\r\n"),
        format!("{name}{name}: {value}\r\n"),
        format!("\r\n{name}: {value}\r\n"),
        format!("X: y\n{name}: {value}\r\n"),
        format!("X: y\r{name}: {value}\r\n"),
        format!("Connection: {name}\r\n{name}: {value}\r\n"),
        format!("Trailer: {name}\r\n{name}: {value}\r\n"),
        format!("TE: {value}\r\n{name}: {value}\r\n"),
    ];
    lines.extend(
        ["+5", "-5", "05", "5.0", "0x5", "5e0", "5 5", "5,5", "5;", "five", "99999999999999999999"]
            .map(|other| format!("{name}: {other}\r\n")),
    );
    lines
}

/// All of them, in turn to the one route and the other.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for Template { name, value, beside, body } in templates() {
        let single = bytes().flat_map(|byte| lines(name, value, byte));
        let whole = whole_lines(name, value).into_iter().map(String::into_bytes);
        for line in single.chain(whole) {
            let path = ROUTES[cases.len() % 2];
            // In turn before and after the other framing field.
            let (before, after) = if cases.len() % 4 < 2 { (beside, "") } else { ("", beside) };
            let head = format!("POST {path} HTTP/1.1\r\nHost: api.test\r\n@AUTH@{before}");
            let bytes = [head.as_bytes(), &line, format!("{after}\r\n{body}").as_bytes()].concat();
            let group = if beside.is_empty() { "generated: one framing" } else { "generated: two framings" };
            cases.push(Case { group, bytes, expect: Expect::Any });
        }
    }
    cases
}
