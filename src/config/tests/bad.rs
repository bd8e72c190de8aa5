//! For each key of a complete file: a typo, a duplicate, a wrong type, no value, a variable that is not set.

use super::*;

/// A line of [`BASE`] as `indent key: value`.
struct Line<'a> {
    /// From 1.
    number: usize,
    /// Everything before the key.
    lead: &'a str,
    key: &'a str,
    value: &'a str,
}

fn lines() -> Vec<Line<'static>> {
    let line = |(index, text): (usize, &'static str)| {
        let (before, value) = text.split_once(':')?;
        let key = before.trim_start_matches([' ', '-']);
        Some(Line { number: index + 1, lead: before.strip_suffix(key)?, key, value: value.trim() })
    };
    BASE.lines().enumerate().filter_map(line).collect()
}

/// Names that the operator chooses.
fn free(line: &Line<'_>) -> bool {
    ["small", "large", "x-tenant"].contains(&line.key)
}

/// [`BASE`] with one line replaced.
fn with(line: &Line<'_>, replacement: &str) -> String {
    let mut text = String::new();
    for (index, old) in BASE.lines().enumerate() {
        text.push_str(if index + 1 == line.number { replacement } else { old });
        text.push('\n');
    }
    text
}

/// A problem stands at that line and column, on a path that ends with the key, and has the word.
fn check(text: &str, number: usize, column: usize, key: &str, word: &str) {
    let problems = parsed(text).expect_err(text);
    let found = problems.iter().any(|problem| {
        let path = problem.path.trim_end_matches("\"]");
        problem.position == Some((number, column)) && path.ends_with(key) && problem.message.contains(word)
    });
    assert!(found, "line {number}, {column}, {key}, {word}:\n{problems}\n\n{text}");
}

#[test]
fn typos_get_a_suggestion() {
    for line in lines().iter().filter(|line| !free(line)) {
        let mut letters: Vec<char> = line.key.chars().collect();
        letters.swap(0, 1);
        let typo: String = letters.into_iter().collect();
        let text = with(line, &format!("{}{typo}: {}", line.lead, line.value));
        check(
            &text,
            line.number,
            line.lead.len() + 1,
            &typo,
            &format!("unknown key `{typo}` (did you mean `{}`?)", line.key),
        );
    }
}

#[test]
fn duplicates_name_the_first() {
    for line in lines() {
        let again = format!("{}{}: x", " ".repeat(line.lead.len()), line.key);
        // Before the line's own: its section follows it.
        let text = with(&line, &format!("{}{}: x\n{}", line.lead, line.key, with_value(&again, line.value)));
        let word = format!("duplicate key `{}`, first given on line {}", line.key, line.number);
        check(&text, line.number + 1, line.lead.len() + 1, line.key, &word);
    }
}

fn with_value(line: &str, value: &str) -> String {
    line.strip_suffix('x').unwrap_or(line).to_owned() + value
}

#[test]
fn a_wrong_type_names_the_right_one() {
    for line in lines().iter().filter(|line| !line.value.is_empty()) {
        let (wrong, word) = match line.value.starts_with('[') {
            true => ("5", "found a single value"),
            false => ("[5]", "found a list"),
        };
        let column = line.lead.len() + line.key.len() + 3;
        check(&with(line, &format!("{}{}: {wrong}", line.lead, line.key)), line.number, column, line.key, word);
        let section = with(line, &format!("{}{}: {{ a: b }}", line.lead, line.key));
        if ["data", "admin"].contains(&line.key) {
            check(&section, line.number, column + 2, "a", "unknown key `a`; valid here: `address`, `tls`");
        } else {
            check(&section, line.number, column, line.key, "found a section of keys");
        }
    }
}

#[test]
fn a_number_or_a_truth_value_is_no_text_without_quotes() {
    let scalar = |line: &&Line<'_>| !line.value.is_empty() && !line.value.starts_with(['[', '{']);
    for line in lines().iter().filter(scalar) {
        let column = line.lead.len() + line.key.len() + 3;
        let mut wrong = vec!["1.5", "-1"];
        if !["true", "false"].contains(&line.value) {
            wrong.push("true");
        }
        for wrong in wrong {
            check(&with(line, &format!("{}{}: {wrong}", line.lead, line.key)), line.number, column, line.key, "");
        }
    }
    let named = BASE.replace("gateway: gw-7", "gateway: \"1.5\"");
    assert!(named.contains("\"1.5\"") && parsed(&named).is_ok());
    check("gateway: 1.5", 1, 10, "gateway", "found a number; write a text, and put one that looks like this in quotes");
    check("data_dir: true", 1, 11, "data_dir", "found a truth value");
    check("data_dir: \"a\\0b\"", 1, 11, "data_dir", "NUL");
}

#[test]
fn a_section_is_no_single_value() {
    let sections =
        ["store", "listeners", "proxies", "admin", "secrets", "log", "limits", "journal", "products", "offers"];
    for key in sections {
        let text = format!("{}\n{key}: 5\n", without_section(key));
        let number = text.lines().count();
        check(&text, number, key.len() + 3, key, "found a single value");
    }
}

/// [`BASE`] without a section of the first level.
fn without_section(key: &str) -> String {
    let mut inside = false;
    let kept = BASE.lines().filter(|line| {
        if !line.starts_with(' ') {
            inside = line.starts_with(&format!("{key}:"));
        }
        !inside
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_value_is_not_the_default() {
    for line in lines().iter().filter(|line| !line.value.is_empty() && !["small", "large"].contains(&line.key)) {
        for nothing in ["", " ~", " null"] {
            let text = with(line, &format!("{}{}:{nothing}", line.lead, line.key));
            check(&text, line.number, line.lead.len() + 1, line.key, "no value; write");
        }
    }
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    for line in lines().iter().filter(|line| !line.value.is_empty()) {
        let text = with(line, &format!("{}{}: \"${{GONE}}\"", line.lead, line.key));
        let column = line.lead.len() + line.key.len() + 3;
        check(&text, line.number, column, line.key, "variable GONE is not set");
        let text = with(line, &format!("{}{}: \"${{file:gone.txt}}\"", line.lead, line.key));
        check(&text, line.number, column, line.key, "the file /etc/tollgate/gone.txt cannot be read");
    }
}

#[test]
fn required_keys_are_asked_for() {
    for (section, key) in [("admin", "token"), ("secrets", "hash_key"), ("products", ""), ("data_dir", "")] {
        let problems = parsed(&without_section(section)).unwrap_err().to_string();
        assert!(problems.contains("missing") || problems.contains("at least one product"), "{problems}");
        assert!(problems.contains(section) && problems.contains(key), "{problems}");
    }
    for key in ["token", "hash_key", "kind", "product", "calls", "validity"] {
        let line = lines().into_iter().find(|line| line.key == key).unwrap();
        let text = with(&line, "").replace("admin:\n\n", "admin: {}\n").replace("secrets:\n\n", "secrets: {}\n");
        let problems = parsed(&text).unwrap_err();
        let asked = problems.iter().any(|p| p.path.ends_with(key) && p.message.contains("is missing; add it"));
        assert!(asked, "{key}: {problems}");
    }
}

#[test]
fn every_problem_is_found_at_once() {
    let text = BASE
        .replace("workers: 2", "workers: two")
        .replace("level: debug", "level: loud")
        .replace("  connections: 100", "  conections: 100")
        .replace("base_url: http://127", "base_url: ftp://127")
        .replace("product: chat", "product: chap")
        .replace("calls: 100", "calls: 0");
    let problems = parsed(&text).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let expected = [
        "workers",
        "log.level",
        "limits.conections",
        "products[1].upstream.base_url",
        "offers[0].product",
        "offers[0].calls",
    ];
    assert_eq!(paths, expected, "{problems}");
}
