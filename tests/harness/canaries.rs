//! The search for secrets in what gateways leave behind: as they are, in base64, in hexadecimal, with escapes, and in
//! pieces.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// A piece of a secret that must not be found.
const PIECE: usize = 12;

/// The secrets, and every piece of them in every coding.
#[derive(Default)]
pub(crate) struct Canaries {
    pieces: HashMap<[u8; PIECE], String>,
    /// By three bytes: whether a piece begins with them. The others, which are most, need not be looked up.
    begins: Vec<bool>,
}

/// Three bytes as a number.
fn three(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2])
}

impl Canaries {
    /// Adds a secret under a name that says whose it is.
    pub(crate) fn add(&mut self, name: &str, secret: &str) {
        let bytes = secret.as_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let escaped: String = bytes
            .iter()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(*b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let mut codings =
            vec![("raw", secret.to_owned()), ("escaped", escaped.clone()), ("escaped", escaped.to_lowercase())];
        codings.extend([("hex", hex.to_uppercase()), ("hex", hex)]);
        // What stands before it shifts base64; its first and last characters then mix with what is around it.
        for shift in 0..3 {
            let shifted = [&vec![0; shift][..], bytes].concat();
            for text in [STANDARD.encode(&shifted), URL_SAFE.encode(&shifted)] {
                codings.push((
                    "base64",
                    text.trim_end_matches('=')[shift + usize::from(shift > 0)..text.trim_end_matches('=').len() - 1]
                        .to_owned(),
                ));
            }
        }
        self.begins.resize(1 << 24, false);
        for (coding, text) in codings {
            for piece in text.as_bytes().windows(PIECE) {
                self.begins[three(piece)] = true;
                self.pieces.entry(piece.try_into().unwrap()).or_insert_with(|| format!("{name}, {coding}"));
            }
        }
    }

    /// Whose pieces are in some bytes.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let likely = bytes.windows(PIECE).filter(|piece| self.begins[three(piece)]);
        let mut found: Vec<String> = likely.filter_map(|piece| self.pieces.get(piece).cloned()).collect();
        found.sort();
        found.dedup();
        found
    }
}

/// All that a gateway left, by where it was found.
#[derive(Default)]
pub(crate) struct Traces(pub(crate) Vec<(String, Vec<u8>)>);

impl Traces {
    pub(crate) fn add(&mut self, place: &str, bytes: impl AsRef<[u8]>) {
        self.0.push((place.to_owned(), bytes.as_ref().to_vec()));
    }

    /// Every file in a folder but those by which the operator gives secrets.
    pub(crate) fn add_folder(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.add_folder(&path);
            } else if path.is_file() && !is_given(&path) {
                self.add(path.to_str().unwrap(), std::fs::read(&path).unwrap());
            }
        }
    }

    /// Where anything was found, and what; says how much was looked through.
    pub(crate) fn search(&self, canaries: &Canaries) -> Vec<String> {
        let size: usize = self.0.iter().map(|(_, bytes)| bytes.len()).sum();
        let found_in = |(place, bytes): &(String, Vec<u8>)| {
            let found = canaries.found_in(bytes).into_iter();
            found.map(|what| format!("{place}: {what}")).collect::<Vec<_>>()
        };
        let found: Vec<String> = self.0.iter().flat_map(found_in).collect();
        let (places, pieces) = (self.0.len(), canaries.pieces.len());
        eprintln!("{places} places, {size} bytes, {pieces} pieces of secrets: {} found", found.len());
        found
    }
}

/// Files by which the operator gives secrets.
fn is_given(path: &Path) -> bool {
    let given = ["secret", "yaml", "token"];
    let named = |name: &std::ffi::OsStr| given.iter().any(|given| name == *given);
    path.extension().is_some_and(named) || path.file_name().is_some_and(named)
}
