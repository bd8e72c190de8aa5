//! What is no YAML: for each kind of refusal a text, where the problem stands, and what would be right.

use super::*;

/// The only problem of a text stands there, and says both what is wrong and what would be right.
fn check(text: &str, position: (usize, usize), wrong: &str, right: &str) {
    let problems = parsed(text).expect_err(text);
    let found: Vec<_> = problems.iter().collect();
    let [problem] = found.as_slice() else { panic!("{text:?}: {problems}") };
    assert_eq!(problem.position, Some(position), "{text:?}: {problems}");
    let (what, remedy) = problem.message.split_once("; ").unwrap_or_else(|| panic!("no remedy: {problems}"));
    assert!(what.contains(wrong) && remedy.contains(right), "{text:?}: {wrong} {right}: {problems}");
}

/// As [`check`], for [`BASE`] with one text replaced.
fn check_in(from: &str, to: &str, position: (usize, usize), wrong: &str, right: &str) {
    check(&BASE.replace(from, to), position, wrong, right);
}

#[test]
fn no_content() {
    let right = "begin with a copy of config/tollgate.yaml";
    check("", (1, 1), "holds no keys", right);
    check("# nothing\n", (2, 1), "holds no keys", right);
    check("---\n", (1, 4), "holds no keys", right);
    check("~\n", (1, 1), "holds no keys", right);
    check("- a\n", (1, 1), "found a list", "write a section of keys, as in `gateway: …`");
    check("a\n", (1, 1), "found a single value", "write a section of keys, as in `gateway: …`");
    check("gateway = a\n", (1, 1), "no colon and space follow `gateway`", "write `gateway: value`");
}

#[test]
fn tabs() {
    let check = |text: &str, position: (usize, usize)| check(text, position, "a tab", "indent with spaces");
    check("a:\n\tb: 1\n", (2, 1));
    check("a:\n  b: 1\n\tc: 1\n", (3, 1));
    check("a: 'b\n\tc'\n", (2, 1));
    check("? a\n\tb\n", (2, 1));
    check("a: |\n\tb\n", (2, 1));
}

#[test]
fn keys_and_indentation() {
    let colon = "write `key: value`";
    check("a: 1\nb 2\nc: 3\n", (2, 1), "no colon follows", colon);
    check("a: 1\nb:2\nc: 3\n", (2, 1), "no colon follows", colon);
    check("a 1\nb: 2\n", (2, 2), "a `:` where none can be", colon);
    check("a: 1\n b: 2\n", (2, 3), "a `:` where none can be", "indent all keys of a section alike");
    check("a: b: c\n", (1, 5), "a `:` where none can be", "a value with `: ` in it in quotes");
    check(&format!("{}: 1\n", "a".repeat(1100)), (1, 1101), "a `:` where none can be", colon);
    check("a: ? b\n", (1, 4), "`? ` begins a key", "in quotes");
    check("a:\n  b: 1\n c: 2\n", (3, 2), "not a key as", "indent all keys of a section alike");
    check("a:\n  b: 1\n  - c\n", (3, 5), "not a key as", "either keys or items");
    check("a:\n  - b: 1\n   c: 2\n", (3, 4), "not an item", "indent all keys of an item alike");
    check("a: - b\n", (1, 4), "an item of a list where none can be", "on a line of its own");
    check("? [a]\n: b\n", (1, 3), "this is no key", "in quotes");
    check("a: {{ b }}\n", (1, 5), "this is no key", "in quotes");
    check("-\t- a\n", (1, 3), "no space follows", "write one space");
}

#[test]
fn brackets() {
    check("a: [1\n", (1, 4), "`[` is not closed", "write `]` where it ends");
    check("a: { b: 1\n", (1, 4), "`{` is not closed", "write `}` where it ends");
    check("a: [1}\n", (1, 4), "`[` is closed by `}`", "close it with `]`");
    check("a: {b: 1]\n", (1, 4), "`{` is closed by `]`", "close it with `}`");
    check("a: ]\n", (1, 4), "no bracket is open", "take it out");
    check("a: [b\nc: d\n", (2, 2), "opened on line 1 is not closed before this", "write `{ a: b, c: d }`");
    check("x: 1\na: { b: 1\nc:\n  d: 1\n", (3, 2), "opened on line 2 is not closed", "or `[a, b]`");
    check("a: [[b] [c]]\n", (1, 9), "or a comma is missing", "or `[a, b]`");
    check("a: { b: ${C} }\n", (1, 10), "opened on line 1", "that holds one of `[]{},` in quotes");
    check("a: [b,,c]\n", (1, 7), "a value is missing", "take the comma out");
    check("a: [- b]\n", (1, 5), "`- ` inside brackets", "as in `[a, b]`");
    check("a: [-, b]\n", (1, 5), "no value can begin so", "in quotes");
    check("a: {b:[c]}\n", (1, 6), "no space follows the `:`", "write one space");
    check(&format!("a: {}", "[".repeat(40)), (1, 36), "more than 32 lists", "needs six");
}

#[test]
fn quotes_and_escapes() {
    check("a: \"1\n", (2, 1), "a text whose quote was opened above goes on here", "close the quote");
    check("a: '1\nb: 2\n", (2, 1), "a text whose quote was opened above goes on here", "close the quote");
    check("\"a", (1, 1), "a quote is not closed", "close it");
    check("\"a\n--- b\"\n", (1, 1), "a quote is not closed", "close it");
    check("a: 'it's'\n", (1, 8), "something follows the closing quote", "write `''` for a quote in it");
    check("a: \"b\" c\n", (1, 8), "something follows the closing quote", "write `\\\"` for a quote in it");
    for text in ["C:\\data", "\\xzz", "\\ud83d", "\\ud83d\\u0041", "\\ude00", "\\U00110000", "\\ud83d\\uzzzz"] {
        check(&format!("a: \"{text}\"\n"), (1, 4), "a `\\` in this text", "write `\\\\` for a backslash");
    }
}

#[test]
fn texts_of_several_lines() {
    for text in ["|x\n  b", "|0\n  b", ">x\n  b"] {
        check(&format!("a: {text}\n"), (1, 4), "not a text as `|` or `>` begins one", "indent the lines below alike");
    }
    check("a: |\n     \n  b\n", (3, 3), "not a text as `|` or `>` begins one", "or put the value in quotes");
    check("a: b # c\n  d: e\n", (1, 6), "after a comment", "write the value on one line");
    check("a: \"b\"#c\n", (1, 7), "a value goes on without a space", "write a space before `#`");
}

#[test]
fn signs_that_begin_no_value() {
    for sign in ['@', '`', '%'] {
        check(&format!("a: {sign}b\n"), (1, 4), &format!("begins with `{sign}`"), &format!("as in `\"{sign}…\"`"));
    }
    check("a: b\0\n", (1, 5), "the character U+0000", "take it out");
    check("\x7fELF", (1, 1), "the character U+007F", "name a text file");
    check("a: 1\n\u{feff}b: 2\n", (2, 1), "a byte order mark inside", "take it out");
    check("a: *b\n", (1, 4), "`*` names a value that no `&`", "write the value out, or in quotes");
    check("a: [*]\n", (1, 5), "without a name", "in quotes");
    check("a: & b\n", (1, 4), "without a name", "in quotes");
    check_in("gateway: gw-7", "gateway: &a*b", (1, 14), "a name after `&`, but no value", "in quotes");
    check("gateway: &a [*a]\n", (1, 14), "inside its own anchor", "write the value out");
    check_in("gateway: gw-7", "gateway: !!str a", (1, 16), "tags such as", "in quotes if it begins with `!`");
    for tag in ["!a!b", "!%zz", "!<abc", "!a,b", "!%ff", "!%c3%28", "!<a b>"] {
        check(&format!("a: {tag} c\n"), (1, 4), "a value that begins with `!` is a tag", "in quotes");
    }
}

#[test]
fn more_than_one_document() {
    let two = |text: &str, line| check(text, (line, 1), "a second document begins here", "take the `---` or `...` out");
    two(&format!("{BASE}---\n{BASE}"), BASE.lines().count() + 1);
    two("a: 1\n...\nb: 2\n", 3);
    check("a: 1\n... x\n", (2, 5), "something follows `...`", "take the `...` out");
    check("[a]\nb = 1\n", (2, 1), "not part of what stands before it", "as `key: value`");
    check("%YAML 1.2\na: 1\n", (2, 1), "not part of what stands before it", "that begin with `%` out");
    let long = format!("%TAG !e! {}\n---\na: 1\n", "x".repeat(2000));
    let directives = [
        ("%YAML 3.0\n---\na: 1\n", (1, 1)),
        ("%YAML 1.2\n%YAML 1.2\n---\na: 1\n", (2, 1)),
        ("%YAML 1.2 abc\n---\na: 1\n", (1, 1)),
        ("%YAML 1234567890123.2\n---\na: 1\n", (1, 1)),
        ("%YAML x\n---\na: 1\n", (1, 1)),
        ("%YAML 1\n---\na: 1\n", (1, 1)),
        ("%TAG !e! tag:x\n%TAG !e! tag:x\n---\na: 1\n", (2, 1)),
        ("%TAG !e\n---\na: 1\n", (1, 1)),
        ("%TAG !e! a{b\n---\na: 1\n", (1, 1)),
        ("%\na: 1\n", (1, 2)),
        ("a: 1\n%FOO x\n", (2, 1)),
        (&long, (1, 1)),
    ];
    for (text, position) in directives {
        check(text, position, "begins with `%` is a directive", "take the line out");
    }
}

#[test]
fn what_stands_behind_a_missing_colon_is_not_shown() {
    for text in
        ["admin: { token:hunter2 }", "admin: { token hunter2 }", "admin:\n  token:hunter2", "admin: token=hunter2"]
    {
        let problems = parsed(&BASE.replace("admin:\n  token: 0123456789abcdef", text)).unwrap_err().to_string();
        let words = "no colon and space follow `token`; write `token: value`";
        assert!(problems.contains(words) && !problems.contains("hunter2"), "{text}: {problems}");
    }
    let text = BASE.replace("  token: 0123456789abcdef", "  {tokn=hunter2}");
    let problems = parsed(&text).unwrap_err().to_string();
    assert!(problems.contains("unknown key `tokn…` (did you mean `token`?)"), "{problems}");
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn whatever_sign_slips_in_every_problem_says_what_would_be_right() {
    let signs = [
        "\t", ": ", ":", "- ", "[", "]", "{", "}", "\"", "'", " #", "& ", "*", "!", "|", "%", "@", ",", "? ", "\n",
        "  ",
    ];
    for ((at, _), sign) in BASE.char_indices().zip(signs.iter().cycle()).step_by(4) {
        let (before, after) = BASE.split_at(at);
        let Err(problems) = parsed(&format!("{before}{sign}{after}")) else { continue };
        for problem in problems.iter() {
            let place = problem.position.unwrap_or_else(|| panic!("no place: {problems}"));
            assert!(problem.message.contains("; "), "{sign:?} at {place:?}: {problems}");
            assert!(!problem.message.contains("as config/tollgate.yaml shows"), "{sign:?} at {place:?}: {problems}");
        }
    }
}
