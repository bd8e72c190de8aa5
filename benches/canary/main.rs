//! Searches what a run of the tests has left in a folder for every secret that was made in it: the second half of
//! `tests/canary`. Fails if it finds one, or if there was nothing to look for.
#![expect(clippy::print_stderr, reason = "what was found is the output")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a search stops at the first surprise")]

#[path = "../../tests/harness/canaries.rs"]
mod canaries;
#[path = "../../tests/harness/keep.rs"]
#[expect(dead_code, reason = "what keeps is shared with the tests; here the list is read")]
mod keep;

use std::path::Path;
use std::process::ExitCode;

use canaries::{Canaries, Traces};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("canary: name the folder that a run with TOLLGATE_TESTS_KEEP has filled");
        return ExitCode::from(64);
    };
    let folder = Path::new(&folder);
    let (mut canaries, mut traces) = (Canaries::default(), Traces::default());
    let made = std::fs::read_to_string(folder.join(keep::SECRETS)).unwrap();
    made.lines().for_each(|secret| canaries.add("a key, AppCode or app secret", secret));
    // The fixed ones have a part that names of other things have too.
    canaries.add("admin token or hash key", "s-0123456789");
    canaries.add("seller key", "-secret-1f0c");
    traces.add_folder(folder);
    traces.0.retain(|(place, _)| !place.ends_with(keep::SECRETS));
    eprintln!("{} secrets", made.lines().count());
    let found = traces.search(&canaries);
    found.iter().for_each(|found| eprintln!("{found}"));
    if found.is_empty() && !made.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
