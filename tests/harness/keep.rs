//! What tests leave behind when it is to be looked through: with `TOLLGATE_TESTS_KEEP` naming a folder, gateways say all
//! that they can, folders stay, and the secrets that were made are listed.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// The list of secrets, in the folder.
pub(crate) const SECRETS: &str = "secrets.list";

/// Where everything is kept; `None`: nowhere.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os("TOLLGATE_TESTS_KEEP").map(PathBuf::from)
}

/// Lists a secret that was made.
pub(crate) fn secret(text: &str) {
    append(SECRETS, &[text.to_owned()]);
}

/// Keeps lines in a file.
pub(crate) fn append(name: &str, lines: &[String]) {
    let Some(folder) = folder() else { return };
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = OpenOptions::new().create(true).append(true).open(folder.join(name));
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
}
