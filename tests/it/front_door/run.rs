//! Sends one case, a canary behind it, and judges what came back; afterwards, what the seller saw and what was billed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::recorder::Record;
use super::reference::{Request, Rest, read_all};
use super::table::Table;
use crate::harness::books::compare;
use crate::harness::client::{Answer, Client};
use crate::harness::wire::{Body, End};
use crate::harness::world::World;

/// Connections at one time.
const AT_ONCE: usize = 48;
/// Fields that the gateway adds or replaces on the way to the seller.
const GATEWAYS_OWN: [&str; 7] = [
    "host",
    "content-length",
    "x-request-id",
    "x-forwarded-for",
    "authorization",
    "accept-encoding",
    "transfer-encoding",
];
/// Where the two products are: of `api` bodies are handed on as they come, of `chat` they are read first.
pub(crate) const ROUTES: [&str; 2] = ["/api/x", "/v1/infers/chat/v1/x"];

/// What a case comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// With 4xx, and nothing of it is billed.
    Refused,
    /// By the gateway and the seller, all of its requests.
    Accepted,
    /// Whichever the reference reader says: it may be refused by both, or by the gateway alone.
    Any,
}

/// Bytes to send. `@AUTH@` becomes a key and the case's id as header lines, `@KEY@` the key, `@CASE@` the id.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) group: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expect: Expect,
}

/// A case for each of the two routes; `@PATH@` becomes the route's path.
pub(crate) fn on_both(group: &'static str, expect: Expect, bytes: impl AsRef<[u8]>) -> [Case; 2] {
    ROUTES.map(|path| Case { group, expect, bytes: replaced(bytes.as_ref(), "@PATH@", || path.to_owned()) })
}

/// Replaces each mark by the next text.
fn replaced(bytes: &[u8], mark: &str, mut with: impl FnMut() -> String) -> Vec<u8> {
    let (mut made, mut from) = (Vec::new(), 0);
    for at in memchr::memmem::find_iter(bytes, mark) {
        made.extend_from_slice(&bytes[from..at]);
        made.extend_from_slice(with().as_bytes());
        from = at + mark.len();
    }
    made.extend_from_slice(&bytes[from..]);
    made
}

/// What became of a case, as its client saw it.
#[derive(Debug)]
struct Outcome {
    /// The reference's requests that were answered with 2xx.
    accepted: Vec<Request>,
    /// Their ids, and the canary's.
    received: Vec<String>,
    refused: bool,
    server_errors: usize,
    faults: Vec<String>,
}

/// A key with quota for everything, and where to call.
#[derive(Clone)]
pub(crate) struct Buyers {
    pub(crate) data: std::net::SocketAddr,
    pub(crate) key: String,
}

impl Buyers {
    fn canary(&self, id: &str) -> Vec<u8> {
        format!(
            "GET /api/canary HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {}\r\nX-Case: {id}\r\n\r\n",
            self.key
        )
        .into_bytes()
    }
}

/// Runs all cases, stops the gateway, and compares the three sides. Returns the table; panics with every fault.
pub(crate) async fn run_all(
    cases: Vec<Case>,
    mut world: World,
    seller: &super::recorder::Recorder,
    buyers: Buyers,
) -> Table {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    for (number, case) in cases.iter().cloned().enumerate() {
        let (turns, buyers) = (Arc::clone(&turns), buyers.clone());
        running.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            (number, run(&case, &format!("c{number}"), &buyers).await)
        });
    }
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    while let Some(done) = running.join_next().await {
        let (number, outcome) = done.unwrap();
        outcomes.insert(number, outcome);
    }
    let exit = world.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.said);
    assert!(!exit.said.contains("panicked"), "{}", exit.said);
    let record = seller.closed().await;
    let mut table = Table::default();
    let mut faults: Vec<String> =
        record.malformed.iter().map(|bad| format!("the seller got no request: {bad:?}")).collect();
    let mut seen = Seen::new(&record);
    for (number, case) in cases.iter().enumerate() {
        let outcome = &outcomes[&number];
        let (forwarded, cut, mut wrong) = seen.judge(&format!("c{number}"), outcome);
        let desync = wrong.len();
        wrong.extend(outcome.faults.iter().cloned());
        if case.expect == Expect::Refused && !outcome.refused || case.expect == Expect::Accepted && outcome.refused {
            wrong.push(format!("expected {:?}", case.expect));
        }
        table.count(case.group, outcome.refused, (forwarded, cut, desync), outcome.server_errors);
        faults.extend(wrong.into_iter().map(|fault| {
            let bytes = case.bytes[..case.bytes.len().min(600)].escape_ascii();
            format!("{} c{number}: {fault}\n    {bytes}\n    {:?}", case.group, outcome.faults)
        }));
    }
    faults.extend(seen.left().map(|request| format!("nobody sent this: {request:?}")));
    let received: BTreeSet<String> = outcomes.values().flat_map(|outcome| outcome.received.iter().cloned()).collect();
    let served =
        record.whole.iter().map(|(request, _)| request.get("x-request-id").unwrap_or_default().to_owned()).collect();
    let books = compare(&received, &served, &world.usage());
    if books != Default::default() {
        faults.push(format!("the books differ: {books:?}"));
    }
    table.billed = received.len();
    assert!(
        faults.is_empty(),
        "{table}\n{} faults, of which\n{}",
        faults.len(),
        faults[..faults.len().min(40)].join("\n")
    );
    table
}

async fn run(case: &Case, id: &str, buyers: &Buyers) -> Outcome {
    let mut count = 0;
    let mut next_id = || {
        count += 1;
        format!("{id}.{count}")
    };
    let bytes = replaced(&case.bytes, "@AUTH@", || "Authorization: Bearer @KEY@\r\nX-Case: @CASE@\r\n".to_owned());
    let bytes = replaced(&bytes, "@CASE@", &mut next_id);
    let mut bytes = replaced(&bytes, "@KEY@", || buyers.key.clone());
    let (requests, rest) = read_all(&bytes);
    let canary = format!("{id}.canary");
    if rest != Rest::Partial {
        bytes.extend_from_slice(&buyers.canary(&canary));
    }
    let mut client = Client::connect(buyers.data).await;
    let _ = client.wire.send(&bytes).await; // it may be refused, and the connection closed, before all of it was sent
    let mut outcome =
        Outcome { accepted: Vec::new(), received: Vec::new(), refused: false, server_errors: 0, faults: Vec::new() };
    let mut judge = Judge { client, outcome: &mut outcome, rest };
    let open = judge.answers(requests).await && judge.the_rest().await;
    if open {
        judge.canary(&canary).await;
    } else {
        // The connection is over; the next one must work.
        let mut judge = Judge { client: Client::connect(buyers.data).await, outcome: &mut outcome, rest: Rest::Clean };
        let _ = judge.client.wire.send(&buyers.canary(&canary)).await;
        judge.canary(&canary).await;
    }
    outcome
}

/// Reads what a case's connection brings.
struct Judge<'a> {
    client: Client,
    outcome: &'a mut Outcome,
    rest: Rest,
}

impl Judge<'_> {
    fn fault(&mut self, fault: impl Into<String>) {
        self.outcome.faults.push(fault.into());
    }

    /// The next answer; `None` if the connection ended.
    async fn next(&mut self, method: &str) -> Result<Answer, End> {
        let mut before = Vec::new();
        let head = loop {
            let head = crate::harness::within("an answer or an end", self.client.wire.head()).await?;
            if head.status() >= 200 {
                break head;
            }
            before.push(head);
        };
        let framing = head.answer_framing(method);
        let Body { bytes, cut } = crate::harness::within("an answer's body", self.client.wire.body(framing)).await;
        Ok(Answer { before, head, body: bytes, cut })
    }

    /// Reads the answers to the requests that the reference knows; false once the connection is over.
    async fn answers(&mut self, requests: Vec<Request>) -> bool {
        for request in requests {
            let answer = match self.next(&request.method).await {
                Ok(answer) => answer,
                Err(end) => {
                    self.fault(format!("ended by {end:?} without an answer"));
                    return false;
                }
            };
            if answer.status() < 300 {
                self.received(&answer);
                let echoed = echo(&answer);
                let wanted = request.get("x-case").unwrap_or_default();
                if request.method != "HEAD" && echoed != wanted {
                    self.fault(format!("the answer is {echoed:?}'s, not {wanted:?}'s"));
                }
                let last = says_close(&answer);
                self.outcome.accepted.push(request);
                if last {
                    self.ends().await;
                    return false;
                }
            } else if !self.refused(&answer).await {
                return false;
            }
        }
        true
    }

    /// What follows the last whole request; false once the connection is over.
    async fn the_rest(&mut self) -> bool {
        if self.rest == Rest::Clean {
            return true;
        }
        match self.next("GET").await {
            Ok(answer) if answer.status() < 300 => {
                self.fault(format!("{:?} was accepted: {}", self.rest, answer.text()));
                self.received(&answer);
                false
            }
            Ok(answer) => {
                if self.refused(&answer).await {
                    self.fault(format!("{:?}, and the connection goes on", self.rest));
                }
                false
            }
            // A client that stops sending has not said what it wants: no answer is owed within a head.
            Err(End::Eof) if self.rest == Rest::Partial => {
                self.outcome.refused = true;
                false
            }
            Err(end) => {
                self.fault(format!("ended by {end:?} without a refusal"));
                false
            }
        }
    }

    async fn canary(&mut self, id: &str) {
        match self.next("GET").await {
            Ok(answer) if answer.status() == 200 && echo(&answer) == id => self.received(&answer),
            other => self.fault(format!("the canary got {other:?}")),
        }
    }

    fn received(&mut self, answer: &Answer) {
        self.outcome.received.push(answer.head.get("x-request-id").unwrap_or_default().to_owned());
    }

    /// Judges a refusal; returns whether the connection goes on.
    async fn refused(&mut self, answer: &Answer) -> bool {
        self.outcome.refused = true;
        if answer.status() >= 500 {
            self.outcome.server_errors += 1;
        }
        let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
        let message = body.as_ref().and_then(|body| body["error_msg"].as_str());
        let explained = message.is_some_and(|message| !message.is_empty()) && answer.cut.is_none();
        if !(400..500).contains(&answer.status()) || !explained || answer.head.get("x-request-id").is_none() {
            self.fault(format!("no clear refusal: {answer:?}"));
        }
        if !says_close(answer) {
            return true;
        }
        self.ends().await;
        false
    }

    /// After an answer that says so, the connection ends, and in order.
    async fn ends(&mut self) {
        match crate::harness::within("the end that was announced", self.client.wire.some()).await {
            Err(End::Eof) => {}
            Err(End::Reset) => self.fault("the connection was reset"),
            Ok(more) => self.fault(format!("more bytes after the last answer: {}", more.escape_ascii())),
        }
    }
}

fn says_close(answer: &Answer) -> bool {
    answer.head.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close"))
        || answer.head.start.starts_with("HTTP/1.0")
}

/// Which request the seller says that it answered.
fn echo(answer: &Answer) -> String {
    let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    body.and_then(|body| body["case"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// What the seller saw, by case.
struct Seen<'a> {
    whole: BTreeMap<String, Vec<&'a (Request, usize)>>,
    cut: BTreeMap<String, usize>,
}

/// Neither a credential nor an id tells whose it was.
const NOBODY: &str = "";

impl<'a> Seen<'a> {
    fn new(record: &'a Record) -> Self {
        let (mut whole, mut cut): (BTreeMap<_, Vec<_>>, BTreeMap<_, _>) = Default::default();
        for seen in &record.whole {
            whole.entry(seen.0.get("x-case").unwrap_or(NOBODY).to_owned()).or_default().push(seen);
        }
        for bytes in &record.cut {
            let text = String::from_utf8_lossy(bytes);
            let case = text.split("\r\n").find_map(|line| line.strip_prefix("x-case: ")).unwrap_or(NOBODY);
            *cut.entry(case.to_owned()).or_default() += bytes.len();
        }
        Self { whole, cut }
    }

    /// The bytes of refused requests that the seller got whole, and those that it got cut; and what is wrong.
    fn judge(&mut self, id: &str, outcome: &Outcome) -> (usize, usize, Vec<String>) {
        let mut faults = Vec::new();
        let canary = self.whole.remove(&format!("{id}.canary")).unwrap_or_default();
        if canary.len() != 1 {
            faults.push(format!("the seller saw {} canaries", canary.len()));
        }
        for request in &outcome.accepted {
            let seen = self.whole.remove(request.get("x-case").unwrap_or_default()).unwrap_or_default();
            match seen[..] {
                [(seen, _)] => faults.extend(difference(request, seen)),
                ref other => faults.push(format!("the seller saw it {} times", other.len())),
            }
        }
        let own = format!("{id}.");
        let names =
            |map: Vec<&String>| map.into_iter().filter(|name| name.starts_with(&own)).cloned().collect::<Vec<_>>();
        let mut forwarded = 0;
        for name in names(self.whole.keys().collect()) {
            let seen = self.whole.remove(&name).unwrap_or_default();
            forwarded += seen.iter().map(|(_, used)| used).sum::<usize>();
            faults.push(format!("the seller served what was refused: {seen:?}"));
        }
        let cut = names(self.cut.keys().collect()).iter().filter_map(|name| self.cut.remove(name)).sum();
        (forwarded, cut, faults)
    }

    /// Requests of no case.
    fn left(&self) -> impl Iterator<Item = String> {
        let whole = self.whole.values().flatten().map(|seen| format!("{seen:?}"));
        let cut = self.cut.iter().map(|(name, bytes)| format!("{bytes} bytes of {name:?}"));
        whole.chain(cut)
    }
}

/// Whether the seller saw another request than the client sent.
fn difference(sent: &Request, seen: &Request) -> Option<String> {
    let differs = |what: &str| Some(format!("{what} differs: sent {sent:?}, seen {seen:?}"));
    if sent.method != seen.method {
        return differs("the method");
    }
    if sellers_target(&sent.target) != plain(&seen.target) {
        return differs("the target");
    }
    if sent.body != seen.body {
        return differs("the body");
    }
    for (name, value) in &seen.fields {
        let theirs = || sent.all(name).contains(&value.as_str());
        if !GATEWAYS_OWN.contains(&name.as_str()) && !theirs() {
            return differs(name);
        }
        // What a careless server could take for framing.
        let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let framing = matches!(letters.as_str(), "transferencoding" | "contentlength");
        let plain = matches!(name.as_str(), "transfer-encoding" | "content-length") || *name == letters;
        if framing && !plain {
            return differs("a name like one of framing:");
        }
    }
    None
}

/// Where a target leads at the seller.
fn sellers_target(target: &str) -> String {
    let lower = target.to_ascii_lowercase();
    let absolute = ["http://", "https://"].iter().find(|scheme| lower.starts_with(**scheme));
    let path = absolute.map_or(target, |scheme| {
        let rest = &target[scheme.len()..];
        rest.find(['/', '?']).map_or("/", |at| &rest[at..])
    });
    let path = plain(path);
    path.strip_prefix("/v1/infers/chat").map_or(path.clone(), str::to_owned)
}

/// One spelling of a path: letters without escapes, slashes one at a time on LLM routes.
fn plain(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut path = path.replace("%0d%0a", "%0D%0A");
    while path.starts_with("/v1") && path.contains("//") {
        path = path.replace("//", "/");
    }
    path + query
}
