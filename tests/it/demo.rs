//! `tollgate demo`: what it leaves behind, and what it says when something is wrong.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::process::{BINARY, Exit, Gateway};
use crate::harness::seller::refusing;
use crate::harness::until;

/// Begins the demo; its own folder comes to lie in `temp`.
fn begin(temp: &Path, more: &[&str]) -> Gateway {
    let mut command = Command::new(BINARY);
    command.args(["demo", "--listen", "127.0.0.1:0"]).args(more).env("TMPDIR", temp);
    Gateway::spawn(&mut command)
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Waits for its end; nothing may be left.
async fn ends(mut demo: Gateway, temp: &Path) -> Exit {
    let exit = demo.exit().await;
    assert_eq!(entries(temp), 0, "something is left: {}", exit.said);
    exit
}

#[tokio::test]
async fn whatever_signal_ends_it_nothing_is_left() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let temp = tempfile::tempdir().unwrap();
        let demo = begin(temp.path(), &[]);
        let serving = async || demo.printed().iter().any(|line| line.contains("Serving until")).then_some(());
        until("the tour is over", serving).await;
        assert_eq!(entries(temp.path()), 1);
        let printed = demo.printed().join("\n");
        assert!(printed.contains(&format!("\n{BINARY} packages list")), "{printed}");
        // Pasted, an indented line is an error to Python, and a comment of a shell to JavaScript.
        for whole in
            ["\nfrom openai import OpenAI\nclient = OpenAI(", "\n// Node", "\nimport OpenAI from", "\ncurl -i "]
        {
            assert!(printed.contains(whole), "{whole}: {printed}");
        }
        assert!(!demo.said().iter().any(|line| line.contains("forgotten")), "{:?}", demo.said());
        demo.signal(signal);
        assert_eq!(ends(demo, temp.path()).await.code, Some(0), "{signal:?}");
    }
    let temp = tempfile::tempdir().unwrap();
    let demo = begin(temp.path(), &[]);
    until("the demo begins", async || (entries(temp.path()) > 0).then_some(())).await;
    demo.signal(Signal::TERM);
    assert_eq!(ends(demo, temp.path()).await.code, Some(0), "in the middle of its start");
}

#[tokio::test]
async fn a_seller_that_is_away_ends_it_and_nothing_is_left() {
    let temp = tempfile::tempdir().unwrap();
    let (seller, _kept) = refusing();
    let upstream = format!("http://{seller}/v1");
    let mut demo = begin(temp.path(), &["--upstream", &upstream, "--model", "m"]);
    let exit = demo.exit().await;
    let printed = demo.printed().join("\n");
    assert_eq!(exit.code, Some(69), "{}", exit.said);
    assert!(exit.said.contains("0 of 2 calls were answered") && exit.said.contains("--upstream"), "{}", exit.said);
    assert!(!printed.contains("Serving until"), "{printed}");
    assert_eq!(entries(temp.path()), 0);
}

#[tokio::test]
async fn a_key_file_that_is_not_right_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let (temp, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = files.path().join("seller.key");
    let refused = async || {
        let name = key.display().to_string();
        let upstream = ["--upstream", "http://127.0.0.1:9/v1", "--model", "m", "--upstream-key-file", &name];
        let exit = ends(begin(temp.path(), &upstream), temp.path()).await;
        assert_eq!(exit.code, Some(78), "{}", exit.said);
        assert!(exit.said.contains("seller.key") && !exit.said.contains("bug"), "{}", exit.said);
    };
    refused().await;
    std::fs::write(&key, "secret").unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    refused().await;
}
