//! Requests that were right and were changed, hundreds for each scheme, each with the verdict of a rule that is the test's
//! own; and ten thousand right ones of random parts, signed by a signer that is the test's own.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::cast::Cast;
use super::changes::{Case, Place, right_signature, signature_case, text_case};
use super::judge::Verdict;
use super::rule::{Reading, Wired, request, sign, word};
use crate::harness::client::{Answer, Client};
use crate::harness::rng::Rng;
use crate::harness::wire::Head;
use crate::harness::within;

/// Cases of each scheme: each change several times.
const CASES: u64 = 504;
/// Right requests by the other signer.
const RIGHT: u64 = 10_000;
/// Connections that send them.
const SENDERS: u64 = 4;

/// A connection that is made anew when the gateway has closed it.
struct Line<'a> {
    cast: &'a Cast,
    client: Option<Client>,
}

impl Line<'_> {
    /// The answer; `None`: the gateway ended the connection without one, as it may when a head is far too large.
    async fn call(&mut self, request: &Wired) -> Option<Answer> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.cast.world.client().await,
        };
        let bytes = request.bytes();
        let sent = within("the gateway reads what is sent", client.wire.send(&bytes)).await;
        let head = within("an answer's head", client.wire.head()).await;
        let Ok(head) = head else {
            assert!(bytes.len() > 32 * 1024, "no answer to {request:?}");
            return None;
        };
        let framing = head.answer_framing(&request.method);
        let body = within("an answer's body", client.wire.body(framing)).await;
        if head.get("connection") != Some("close") && sent.is_ok() {
            self.client = Some(client);
        }
        Some(Answer { before: Vec::new(), head, body: body.bytes, cut: body.cut })
    }
}

/// What was seen of one scheme.
#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    accepted: u64,
    statuses: BTreeMap<u16, u64>,
    false_accepts: Vec<String>,
    false_refusals: Vec<String>,
}

impl Tally {
    fn note(&mut self, expected: Verdict, answer: Option<&Answer>, said: &str) {
        self.cases += 1;
        let status = answer.map_or(0, Answer::status);
        *self.statuses.entry(status).or_default() += 1;
        self.accepted += u64::from(status == 200);
        let fits = match expected {
            Verdict::Accept => status == 200,
            Verdict::Refuse => matches!(status, 0 | 400 | 401 | 403 | 404 | 431),
            Verdict::Ambiguous => status == 400,
        };
        if !fits {
            let text = answer.map(Answer::text).unwrap_or_default();
            let said = format!("{expected:?}, {status}: {said}\n{text}");
            if status == 200 { &mut self.false_accepts } else { &mut self.false_refusals }.push(said);
        }
    }
}

/// Sends the cases of one scheme.
async fn run(cast: &Cast, scheme: &str, seed: u64, case: impl Fn(&mut Rng, u64) -> Case) -> Tally {
    let mut rng = Rng::new(seed);
    let (mut tally, mut line) = (Tally::default(), Line { cast, client: None });
    for number in 0..CASES {
        // At the edge of a signature's time nobody can say beforehand what the gateway's clock will be.
        let (expected, answer, Case { request, .. }) = loop {
            let case = case(&mut rng, number);
            let judge = || match case.malformed {
                true => Verdict::Ambiguous,
                false => cast.known.judge(&case.request, Timestamp::now()),
            };
            let before = judge();
            let answer = line.call(&case.request).await;
            if judge() == before {
                break (before, answer, case);
            }
            tally.accepted += u64::from(answer.is_some_and(|answer| answer.status() == 200));
        };
        let said: String = format!("case {number}: {request:?}").chars().take(2_000).collect();
        tally.note(expected, answer.as_ref(), &said);
    }
    eprintln!(
        "{scheme}: seed {seed}, {} cases, {} accepted, {} false accepts, {} false refusals; statuses {:?}",
        tally.cases,
        tally.accepted,
        tally.false_accepts.len(),
        tally.false_refusals.len(),
        tally.statuses
    );
    tally
}

#[tokio::test]
async fn changed_credentials_of_every_scheme_get_the_verdict_of_the_rule() {
    let cast = Cast::gather().await;
    let mut accepted = 0;
    let before = cast.seller.requests().len() as u64;
    let mut wrong = Vec::new();
    let mut note = |tally: Tally| {
        assert!(tally.cases >= 400 && tally.accepted >= 100, "{tally:?}");
        accepted += tally.accepted;
        wrong.extend([tally.false_accepts, tally.false_refusals].concat());
    };
    note(run(&cast, "signature", 61, |rng, number| signature_case(rng, &cast, number)).await);
    for (place, seed) in [(Place::CodeHeader, 62), (Place::CodeQuery, 63), (Place::Bearer, 64), (Place::XApiKey, 65)] {
        note(run(&cast, &format!("{place:?}"), seed, |rng, number| text_case(rng, &cast, (place, number))).await);
    }
    assert!(wrong.is_empty(), "{} wrong verdicts, the first:\n{}", wrong.len(), wrong[0]);
    assert_eq!(cast.seller.requests().len() as u64 - before, accepted, "what was refused has not reached the seller");
    let said = cast.world.gateway.said().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test]
async fn ten_thousand_right_requests_of_another_signer_are_accepted() {
    let cast = Cast::gather().await;
    let before = cast.seller.requests().len() as u64;
    let send = async |sender: u64| {
        let mut rng = Rng::new(600 + sender);
        let mut line = Line { cast: &cast, client: None };
        for number in 0..RIGHT / SENDERS {
            let request = right_signature(&mut rng, &cast);
            let answer = line.call(&request).await.unwrap();
            assert_eq!(answer.status(), 200, "{sender}/{number}: {request:?}\n{}", answer.text());
        }
    };
    tokio::join!(send(0), send(1), send(2), send(3));
    assert_eq!(cast.seller.requests().len() as u64 - before, RIGHT);
    eprintln!("signature: {RIGHT} right requests, 0 refused");
}

/// All that a caller can see of an answer but its id and the time.
fn visible(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let Head { fields, .. } = &answer.head;
    let id = answer.head.get("x-request-id").unwrap().to_owned();
    let fields = fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
    let fields = fields.map(|(name, value)| (name.clone(), value.replace(&id, "ID"))).collect();
    (answer.status(), fields, answer.text().replace(&id, "ID"))
}

#[tokio::test]
async fn unknown_and_wrong_look_the_same() {
    let cast = Cast::gather().await;
    let (mut rng, mut line) = (Rng::new(66), Line { cast: &cast, client: None });
    let own = &cast.own.app;
    let signed = |request: Wired, app_key: &str, secret: &str| {
        sign(request, (app_key, secret), Timestamp::now(), (Reading::Base, true))
    };
    for _ in 0..50 {
        let plain = request(&mut rng, "/api").without("X-Sdk-Content-Sha256");
        let (unknown, wrong) = (word(&mut rng, own.app_key.len() as u64), word(&mut rng, own.secret.len() as u64));
        let mut refusals = vec![
            signed(plain.clone(), &own.app_key, &wrong),
            signed(plain.clone(), &unknown, &own.secret),
            signed(plain.clone(), &unknown, &wrong),
        ];
        let useless = cast.useless_apps.iter().map(|app| signed(plain.clone(), &app.app_key, &app.secret));
        refusals.extend(useless);
        same(&mut line, &refusals).await;
        let codes = cast.useless_codes.iter().cloned().chain([word(&mut rng, 64), word(&mut rng, 180)]);
        let refusals: Vec<Wired> = codes.map(|code| plain.clone().with("X-Apig-AppCode", code)).collect();
        same(&mut line, &refusals).await;
    }
}

async fn same(line: &mut Line<'_>, refusals: &[Wired]) {
    let mut first = None;
    for refused in refusals {
        let answer = line.call(refused).await.unwrap();
        assert_eq!(answer.status(), 401, "{}", answer.text());
        let seen = visible(&answer);
        assert_eq!(*first.get_or_insert(seen.clone()), seen, "{refused:?}");
    }
}
