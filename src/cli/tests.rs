//! The command line against a real admin listener.

use std::io::Read;
use std::sync::mpsc;
use std::thread::JoinHandle;

use serde_json::Value;

use super::remote::run_with;
use super::*;
use crate::admin;
use crate::admin::tests::{TOKEN, router_of_a_world};

/// An admin listener of its own on a thread of its own.
struct World {
    url: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                admin::serve(listener, None, router_of_a_world(), async { drop(stopped.await) }).await;
            });
        });
        let url = format!("http://{}", told.recv().unwrap());
        Self { url, stop: Some(stop), server: Some(server) }
    }

    fn run(&self, line: &str) -> (u8, String, String) {
        run_at(&self.url, Some(TOKEN), line)
    }

    /// Runs what must succeed; gives its output.
    fn good(&self, line: &str) -> String {
        let (exit, out, notes) = self.run(line);
        assert_eq!(exit, EXIT_OK, "{line}: {notes}");
        out
    }

    /// Runs what must fail; gives what it says.
    fn bad(&self, line: &str, expected: u8) -> String {
        let (exit, out, notes) = self.run(line);
        assert_eq!((exit, out.as_str()), (expected, ""), "{line}: {notes}");
        notes
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.server.take().map(JoinHandle::join);
    }
}

fn command(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

fn run_at(url: &str, token: Option<&str>, line: &str) -> (u8, String, String) {
    let parsed = command(&format!("tollgate {line} --admin {url}"));
    let Command::Remote(remote) = parsed.unwrap_or_else(|error| panic!("{error}")) else { panic!("{line}") };
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let exit = run_with(remote, token.map(str::to_owned), &mut out, &mut notes);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
    let mut out = Vec::new();
    completions(clap_complete::Shell::Bash, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("tollgate"));
}

#[test]
fn lines_are_understood_or_refused() {
    let check = |line: &str, good: bool| {
        let parsed = command(&format!("tollgate {line}"));
        assert_eq!(parsed.is_ok(), good, "{line}: {parsed:?}");
    };
    check("serve --config f", true);
    check("check --config f", true);
    check("demo", true);
    check("demo --dir d --listen 127.0.0.1:0 --upstream http://h --upstream-key-file f --model m", true);
    check("demo --upstream http://h", false);
    check("demo --model m", false);
    check("config schema", true);
    check("config print --config f", true);
    check("usage export --config f", true);
    check("usage export --config f --since-mark --mark", true);
    check("commands export --config f", true);
    check("reconcile --config f --data-dir a --data-dir b --usage c --commands d --seller-log e --json", true);
    check("replay --config f --usage c --without-books", true);
    check("replay --config f --seller-log e", false);
    check("usage report --config f", true);
    check("usage report --config f --per day --by account --by model --time-zone Asia/Shanghai --json", true);
    check("usage report --config f --by weather", false);
    check("receipt keygen --out f", true);
    check("receipt keys --config f", true);
    check("receipt verify --key k r", true);
    check("receipt verify r", false);
    check("completions bash", true);
    check("completions tcl", false);
    check("health", true);
    check("keys change acme key-1", false);
    check("keys change acme key-1 --disable --model a --model b", true);
    check("keys change acme key-1 --disable --enable", false);
    check("keys change acme key-1 --all-models --model a", false);
    check("keys add no/id", false);
    check("keys add acme --project search --tag team=a --tag empty=", true);
    check("keys add acme --tag team", false);
    check("keys change acme key-1 --no-tags --tag a=b", false);
    check("packages add acme --offer x --project search --tag po=7", true);
    check("packages resolve acme p --units 1 --used", true);
    check("packages resolve acme p --units 1", false);
    check("packages resolve acme p --units 1 --used --returned", false);
    check("packages resolve acme p --units 0 --used", false);
    check("accounts list --admin-token secret", false);
}

#[test]
fn a_limit_of_nothing_and_a_host_that_is_none_are_refused_with_what_is_right() {
    let refused = |line: &str, words: &str| {
        let said = Cli::try_parse_from(line.split(' ').map(|word| word.replace('~', " "))).unwrap_err().to_string();
        assert!(said.contains(words), "{line}: {said}");
    };
    for kind in ["per-second", "per-minute", "per-day", "concurrent"] {
        refused(&format!("tollgate keys limit acme key-1 --{kind} 0"), "at least 1; leave the flag out");
    }
    refused("tollgate keys budget acme key-1 --per-month 0", "--none alone");
    refused("tollgate accounts limit acme --per-day x", "at least 1");
    for host in ["a~b", "a,b", "", "a.*.b", "https://a", "a:8080", "h\u{e9}"] {
        refused(&format!("tollgate dev-certificate d --host={host}"), "not a host's name or address");
    }
    for host in ["localhost", "*.a.test", "a_b", "127.0.0.1", "::1"] {
        assert!(command(&format!("tollgate dev-certificate d --host={host}")).is_ok(), "{host}");
    }
}

/// An output that takes nothing.
struct Fails(std::io::ErrorKind);

impl Write for Fails {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

#[test]
fn where_the_output_cannot_be_written_the_disk_is_at_fault_and_a_lost_key_is_named() {
    let world = World::new();
    world.good("accounts open Acme --id acme");
    let run = |line: &str, kind| {
        let parsed = command(&format!("tollgate {line} --admin {}", world.url));
        let Ok(Command::Remote(remote)) = parsed else { panic!("{line}") };
        let mut notes = Vec::new();
        let exit = run_with(remote, Some(TOKEN.to_owned()), &mut Fails(kind), &mut notes);
        (exit, String::from_utf8(notes).unwrap())
    };
    let (full, closed) = (io::ErrorKind::StorageFull, io::ErrorKind::BrokenPipe);
    assert_eq!(run("accounts list", full).0, EXIT_UNAVAILABLE);
    assert_eq!(run("accounts list", closed), (EXIT_OK, String::new()), "whoever closed the pipe has seen enough");
    for kind in [full, closed] {
        let (exit, said) = run("keys add acme", kind);
        let keys: Value = serde_json::from_str(&world.good("keys list acme --json")).unwrap();
        let id = keys.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
        assert!(exit == EXIT_UNAVAILABLE && said.contains(&id) && said.contains("revoke it"), "{said}");
        let (exit, said) = run(&format!("keys rotate acme {id}"), kind);
        assert!(exit == EXIT_UNAVAILABLE && said.contains(&id) && said.contains("rotate it again"), "{said}");
        world.run(&format!("keys revoke acme {id}"));
    }
}

#[test]
fn a_mistake_on_the_line_exits_with_64_and_help_with_0() {
    let exit = |line: &str| parse(line.split(' ').map(Into::into)).unwrap_err();
    assert_eq!(exit("tollgate sevre"), ExitCode::from(EXIT_USAGE));
    assert_eq!(exit("tollgate --help"), ExitCode::from(EXIT_OK));
}

#[test]
fn accounts_keys_and_packages_from_first_to_last() {
    let world = World::new();
    assert_eq!(world.good("accounts open Acme --id acme"), "acme\n");
    assert_eq!(world.good("accounts list"), "ID    NAME\nacme  Acme\n");
    assert_eq!(
        world.good("accounts list --json").trim(),
        "[\n  {\n    \"id\": \"acme\",\n    \"name\": \"Acme\"\n  }\n]"
    );

    let (exit, text, notes) = world.run("keys add acme --description ci --model m");
    assert_eq!(exit, EXIT_OK);
    assert!(text.starts_with("sk-tg-") && text.lines().count() == 1);
    assert!(notes.contains("only this once") && notes.lines().count() == 1, "{notes}");
    let keys: Value = serde_json::from_str(&world.good("keys list acme --json")).unwrap();
    let id = keys[0]["id"].as_str().unwrap().to_owned();
    let changed =
        world.good(&format!("keys change acme {id} --disable --all-models --expires-at 2999-01-01T00:00:00Z"));
    assert!(changed.contains("disabled") && changed.contains("2999-01-01T00:00:00Z"), "{changed}");

    let allotted = format!("keys change acme {id} --project search --tag team=a");
    assert!(world.good(&allotted).contains("search"));
    assert!(world.good("keys list acme --json").contains("\"team\": \"a\""));
    assert!(world.bad(&format!("keys change acme {id} --tag a:b=c"), EXIT_USAGE).contains("is not such a name"));

    let added = world.good("packages add acme --offer calls-100 --idempotency-key order-1");
    assert_eq!(world.good("packages add acme --offer calls-100 --idempotency-key order-1"), added);
    assert!(added.contains("calls-100") && added.lines().count() == 2, "{added}");
    assert_eq!(world.good("packages list acme"), added);
    let shown = world.good("accounts show acme");
    assert!(shown.contains("chat: 100 left") && shown.contains(&id) && !shown.contains(text.trim()), "{shown}");

    let (exit, out, notes) = world.run(&format!("keys revoke acme {id}"));
    assert_eq!((exit, out.as_str()), (EXIT_OK, ""));
    assert!(notes.contains("revoked"));
}

#[test]
fn failures_say_what_to_do_and_exit_by_their_kind() {
    let world = World::new();
    assert!(world.bad("accounts show nobody", EXIT_USAGE).contains("there is no account nobody"));
    world.good("accounts open Acme --id acme");
    assert!(world.bad("packages add acme --offer x", EXIT_USAGE).contains("known are: calls-100"));
    assert!(world.bad("health", EXIT_UNAVAILABLE).contains("starting"));
    assert!(
        world.bad("accounts list --admin-token-file /nonexistent/token", EXIT_CONFIG).contains("--admin-token-file")
    );

    let check = |url: &str, token: Option<&str>, expected: u8, says: &str| {
        let (exit, out, notes) = run_at(url, token, "accounts list");
        assert_eq!((exit, out.as_str()), (expected, ""), "{notes}");
        assert!(notes.contains(says), "{notes}");
    };
    check(&world.url, Some("wrong"), EXIT_CONFIG, "admin token");
    check(&world.url, None, EXIT_CONFIG, "TOLLGATE_ADMIN_TOKEN");
    check("ftp://127.0.0.1:1", Some(TOKEN), EXIT_CONFIG, "http://127.0.0.1:9090");
    check("https://127.0.0.1:1", Some(TOKEN), EXIT_UNAVAILABLE, "is `tollgate serve` running?");
    check("http://127.0.0.1:1/path", Some(TOKEN), EXIT_CONFIG, "has a path");
    // The port was free a moment ago, and nobody listens on it now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(&format!("http://{free}"), Some(TOKEN), EXIT_UNAVAILABLE, "is `tollgate serve` running?");
}

#[test]
fn the_token_is_read_from_a_file() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let (exit, ..) = run_at(&world.url, None, &format!("accounts list --admin-token-file {}", file.display()));
    assert_eq!(exit, EXIT_OK);
    std::fs::write(&file, "\n").unwrap();
    let (exit, ..) = run_at(&world.url, None, &format!("accounts list --admin-token-file {}", file.display()));
    assert_eq!(exit, EXIT_CONFIG);
}

/// Answers one request so, and gives the idempotency key that came with it.
fn answering(answer: &'static str) -> (String, JoinHandle<Option<String>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        let head = String::from_utf8(head).unwrap();
        head.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned))
    });
    (url, served)
}

#[test]
fn a_change_of_which_nobody_knows_whether_it_was_made_can_be_repeated_by_its_key() {
    let check = |answer: &'static str, line: &str, doubtful: bool| {
        let (url, served) = answering(answer);
        let (exit, _, notes) = run_at(&url, Some(TOKEN), line);
        assert_ne!(exit, EXIT_OK, "{notes}");
        let sent = served.join().unwrap().unwrap();
        assert_eq!(notes.contains(&format!("--idempotency-key {sent}")), doubtful, "{line} {answer}: {notes}");
        sent
    };
    let away = "HTTP/1.1 503 X\r\ncontent-length: 60\r\n\r\n\
                {\"error\":{\"code\":\"store_unavailable\",\"message\":\"try again\"}}";
    let full = "HTTP/1.1 503 X\r\ncontent-length: 53\r\n\r\n\
                {\"error\":{\"code\":\"store_full\",\"message\":\"make room\"}}";
    for line in ["accounts open Acme", "keys add acme", "packages add acme --offer x"] {
        let first = check(away, line, true);
        assert_ne!(check("", line, true), first); // the gateway is gone before it has answered
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", line, true);
        check(full, line, false);
    }
    assert_eq!(check(away, "packages add acme --offer x --idempotency-key order-1", true), "order-1");
}
