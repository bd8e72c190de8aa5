//! "Did you mean": the nearest of a list of names. Says nothing when none is near.

/// The longest word that is compared, in characters.
const COMPARED_MAX: usize = 64;

/// The name nearest to what was written, if it is near enough to be a typo of it.
pub(super) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = plain(written);
    if written.is_empty() || written.len() > COMPARED_MAX {
        return None;
    }
    let near = (written.len() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(&written, &plain(name)), name))
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// " (did you mean `x`?)", or nothing.
pub(super) fn hint<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, names).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// Names in backticks, with commas.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn plain(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Insertions, removals, replacements and swaps of neighbours that lead from one word to the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let cell = |line: &[usize], at: usize| line.get(at).copied().unwrap_or(usize::MAX / 2);
            let replaced = cell(&last, column) + usize::from(a != b);
            let mut best = replaced.min(cell(&last, column + 1) + 1).min(cell(&current, column) + 1);
            let swapped = row > 0 && column > 0 && from.get(row - 1) == Some(b) && to.get(column - 1) == Some(a);
            if swapped {
                best = best.min(cell(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: Option<&str>) {
        let names = ["base_url", "api_key", "headers", "ca_file", "idle_connections", "id"];
        assert_eq!(nearest(written, names), expected, "{written}");
    }

    #[test]
    fn typos_find_their_name_and_other_words_do_not() {
        check("base_ulr", Some("base_url"));
        check("baseUrl", Some("base_url"));
        check("base-url", Some("base_url"));
        check("apikey", Some("api_key"));
        check("header", Some("headers"));
        check("idel_conections", Some("idle_connections"));
        check("di", Some("id"));
        check("timeouts", None);
        check("", None);
        check("x", None);
        check(&"x".repeat(65), None);
    }
}
