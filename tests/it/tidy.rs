//! Holds what clippy cannot: who may import whom, how long files are, that no file is forgotten, that the example
//! configurations load, and that nothing names the machine it was written on.

use std::path::{Path, PathBuf};

use crate::harness::process::BINARY;

/// Who may name whom, by top-level module. Adding to a line is a design decision, not a fix.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("domain", &[]),
    ("protocol", &["domain"]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
    ("ports", &["domain"]),
    ("service", &["domain", "protocol", "ports", "telemetry"]),
    ("adapter", &["domain", "config", "telemetry", "ports"]),
    ("tls", &["config", "telemetry"]),
    ("proxy", &["domain", "protocol", "config", "telemetry", "ports", "service", "tls"]),
    ("admin", &["domain", "config", "telemetry", "ports", "service", "tls"]),
    ("simulate", &["domain", "ports", "service"]),
    (
        "lib",
        &[
            "adapter",
            "admin",
            "app",
            "cli",
            "config",
            "demo",
            "domain",
            "ports",
            "protocol",
            "proxy",
            "service",
            "simulate",
            "telemetry",
            "tls",
        ],
    ),
];
/// These may name everything.
const WIRING: [&str; 4] = ["app", "cli", "main", "demo"];
/// Longest file, in lines, without the tests beside its code and with them.
const LINES_MAX: usize = 600;
const LINES_WITH_TESTS_MAX: usize = 900;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose names end so, with their paths from the repository's root.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let inside = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            open.extend(inside.filter(|path| !["target", ".git"].iter().any(|skip| path.ends_with(skip))));
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            if let Ok(text) = std::fs::read_to_string(&path) {
                found.push((name, text));
            }
        }
    }
    found.sort();
    found
}

/// The top-level module that a file of `src` belongs to.
fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

/// How many modules lie between the crate's root and what a file's own items are in.
fn depth_of(path: &str) -> usize {
    let parts = path.strip_prefix("src/").unwrap().split('/').count();
    if path.ends_with("/mod.rs") || path == "src/lib.rs" || path == "src/main.rs" { parts - 1 } else { parts }
}

/// The code before the tests that stand beside it, and those tests.
fn split_tests(text: &str) -> (&str, &str) {
    text.find("#[cfg(test)]\nmod tests {").map_or((text, ""), |at| text.split_at(at))
}

/// The names that follow a path's beginning: one, or those in braces.
fn named_after(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(braced) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut names, mut depth, mut item) = (Vec::new(), 0_usize, String::new());
    for letter in braced.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(letter),
            _ => {}
        }
    }
    names.push(word(item.trim()));
    names.retain(|name| !name.is_empty());
    names
}

/// The top-level modules that code names, by `crate::`, by the library's name, or by climbing to the root.
fn uses(code: &str, depth: usize) -> Vec<String> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let climb = "super::".repeat(depth.max(1));
    let mut found = Vec::new();
    for start in ["crate::", "tollgate::", climb.as_str()] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            let whole = !before.is_alphanumeric() && !matches!(before, '_' | ':' | '$' | ')');
            if whole && (start != climb || depth > 0) {
                found.extend(named_after(&code[at + start.len()..]));
            }
        }
    }
    found
}

#[test]
fn modules_name_only_those_that_they_may() {
    let mut faults = Vec::new();
    for (path, text) in files("src", &[".rs"]) {
        let module = module_of(&path);
        // Test files may bring the memory store and whatever else they need.
        if WIRING.contains(&module) || path.ends_with("/tests.rs") || path.contains("/tests/") {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{path}: the module {module} is not in the table"));
            continue;
        };
        let (code, tests) = split_tests(&text);
        let depth = depth_of(&path);
        for used in uses(code, depth).into_iter().chain(uses(tests, depth + 1)) {
            let top_level = MAY_USE.iter().map(|(name, _)| *name).chain(WIRING).any(|name| name == used);
            if top_level && used != module && !allowed.contains(&used.as_str()) {
                faults.push(format!("{path}: {module} may not use {used}"));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn the_import_check_sees_what_it_must() {
    for (code, depth, expected) in [
        ("use crate::proxy::gate;", 2, vec!["proxy"]),
        ("use crate::{\n    config::Limits,\n    domain::{id::KeyId, usage},\n};", 2, vec!["config", "domain"]),
        ("let x = crate::adapter::clock::now();", 1, vec!["adapter"]),
        ("pub(in crate::admin) fn f() {}", 2, vec!["admin"]),
        ("use super::super::proxy::gate;", 2, vec!["proxy"]),
        ("use super::{admin, proxy::Gate};", 1, vec!["admin", "proxy"]),
        ("// see crate::proxy", 1, vec![]),
        ("use super::gate;", 2, vec![]),
        ("use tollgate::cli;", 0, vec!["cli"]),
    ] {
        assert_eq!(uses(code, depth), expected, "{code}");
    }
}

#[test]
fn files_are_short() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for (path, text) in files(folder, &[".rs"]) {
            let (code, tests) = split_tests(&text);
            let (lines, more) = (code.lines().count(), tests.lines().count());
            if lines > LINES_MAX || lines + more > LINES_WITH_TESTS_MAX {
                faults.push(format!("{path}: {lines} lines, {more} of tests"));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn files_say_what_they_are() {
    let silent = |(path, text): (String, String)| (!text.starts_with("//! ")).then_some(path);
    let found: Vec<_> = ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, &[".rs"])).collect();
    assert_eq!(found.into_iter().filter_map(silent).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn no_file_is_forgotten() {
    let all: Vec<_> = ["src", "tests", "benches"].iter().flat_map(|folder| files(folder, &[".rs"])).collect();
    let mut faults = Vec::new();
    for (path, _) in &all {
        let (folder, file) = path.rsplit_once('/').unwrap();
        let (name, folder) = match file {
            "main.rs" | "lib.rs" => continue,
            "mod.rs" => folder.rsplit_once('/').map(|(above, name)| (name, above)).unwrap(),
            _ => (file.trim_end_matches(".rs"), folder),
        };
        let above = format!("{folder}.rs");
        let parents = ["mod.rs", "main.rs", "lib.rs"].map(|file| format!("{folder}/{file}"));
        let declares = |text: &str| {
            let ends = format!("mod {name};");
            let inline = format!("/{name}/mod.rs\"]"); // a module that another folder's file names by its path
            text.lines().any(|line| line.trim_end().ends_with(&ends) || line.contains(&inline))
        };
        let declared = all.iter().any(|(other, text)| {
            let parent = parents.contains(other) || *other == above;
            (parent || (file == "mod.rs" && other.starts_with("tests/it/"))) && declares(text)
        });
        if !declared {
            faults.push(format!("{path}: no `mod {name};` names it"));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn clippy_holds_the_length_of_functions() {
    let cargo = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lint = cargo.lines().any(|line| line.starts_with("too_many_lines = \"warn\""));
    assert!(lint, "the lint is off by default: Cargo.toml switches it on");
    let clippy = std::fs::read_to_string(root().join("clippy.toml")).unwrap();
    for limit in ["too-many-lines-threshold = 70", "too-many-arguments-threshold = 5"] {
        assert!(clippy.contains(limit), "{limit}");
    }
}

#[test]
fn example_configurations_load() {
    let examples = files("config", &[".yaml", ".yml"]);
    assert!(!examples.is_empty());
    for (path, _) in examples {
        let check = std::process::Command::new(BINARY)
            .args(["check", "--config"])
            .arg(root().join(&path))
            .envs([("TOLLGATE_ADMIN_TOKEN", "an-admin-token-for-the-example-0123456789")])
            .envs([("TOLLGATE_HASH_KEY", "a-hash-key-for-the-example-0123456789")])
            .envs([("SELLER_API_KEY", "a-key-for-the-example")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&check.stderr);
        assert_eq!(check.status.code(), Some(0), "{path}: {said}");
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Put together here, so that this file does not name them itself.
    let homes = ["home", "root", "Users"].map(|name| format!("/{name}/"));
    let texts = [".rs", ".md", ".toml", ".yaml", ".yml", ".json", ".snap", ".sh", "Dockerfile", "/run"];
    let places = ["src", "tests", "benches", "config", "docs", ".ci", "README.md", "CHANGELOG.md", "Cargo.toml"];
    let mut faults = Vec::new();
    for place in places.into_iter().filter(|place| root().join(place).exists()) {
        for (path, text) in files(place, &texts) {
            for (at, line) in text.lines().enumerate() {
                if homes.iter().any(|home| line.contains(home.as_str())) {
                    faults.push(format!("{path}:{}: {line}", at + 1));
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}
