//! Generated credentials, right ones and wrong ones beside each other, on one connection: none of the wrong ones opens,
//! none of the right ones is refused, and nothing of a wrong one reaches the seller.

mod abuse;
mod cast;
mod changes;
mod judge;
mod rule;

use serde_json::json;

use crate::harness::client::Request;
use crate::harness::rng::Rng;
use crate::harness::seller::Seller;
use crate::harness::signer::{Signer, date};
use crate::harness::world::{World, product};

/// Right and wrong ones, each.
const CASES: u64 = 400;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_.~";

fn word(rng: &mut Rng, longest: u64) -> String {
    (0..=rng.below(longest)).map(|_| char::from(LETTERS[rng.below(36) as usize])).collect()
}

/// A request whose parts are all different words.
fn request(rng: &mut Rng) -> Request {
    let method = ["GET", "POST", "PUT", "PATCH", "DELETE"][rng.below(5) as usize];
    let pairs: Vec<String> = (0..rng.below(4)).map(|at| format!("{}{at}={}", word(rng, 5), word(rng, 5))).collect();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    let made = Request::new(method, &format!("/api/{}/{}{query}", word(rng, 8), word(rng, 8)));
    let made = made.field("X-First", &word(rng, 12)).field("Content-Type", "text/plain");
    made.body(word(rng, 200).as_bytes())
}

/// One letter, digit or other character put in the place of another.
fn altered(rng: &mut Rng, text: &str) -> String {
    let at = rng.below(text.len() as u64) as usize;
    let old = text.as_bytes()[at];
    let new = if old == b'a' { 'b' } else { 'a' };
    format!("{}{new}{}", &text[..at], &text[at + 1..])
}

fn with_target(request: &Request, method: &str, target: &str) -> Request {
    let mut changed = Request::new(method, target);
    for (name, value) in request.fields() {
        changed = changed.field(name, value);
    }
    changed.body(request.body_bytes())
}

fn value<'a>(request: &'a Request, name: &str) -> &'a str {
    &request.fields().iter().find(|(there, _)| there == name).unwrap().1
}

/// A signed request with something of it changed.
fn forged(rng: &mut Rng, signer: &Signer) -> Request {
    let signed = signer.sign(request(rng));
    let (target, authorization) = (signed.target().to_owned(), value(&signed, "Authorization").to_owned());
    let with = |text: String| signed.clone().field("Authorization", &text);
    match rng.below(12) {
        0 => signed.clone().body(altered(rng, std::str::from_utf8(signed.body_bytes()).unwrap()).as_bytes()),
        1 => signed.clone().body(&[signed.body_bytes(), b"a"].concat()),
        2 => with_target(&signed, signed.method(), &target.replacen("/api/", "/api/x", 1)),
        3 => with_target(
            &signed,
            signed.method(),
            &format!("{target}{}a=b", if target.contains('?') { '&' } else { '?' }),
        ),
        4 => with_target(&signed, if signed.method() == "GET" { "POST" } else { "GET" }, &target),
        5 => signed.clone().field("X-First", &format!("{}x", value(&signed, "X-First"))),
        6 => signed.clone().field("Host", "other.test"),
        7 => {
            let (before, digits) = authorization.split_at(authorization.len() - 64);
            with(format!("{before}{}", altered(rng, digits)))
        }
        8 => with(authorization.replace(&signer.app_key, &altered(rng, &signer.app_key))),
        9 => with(authorization.replace(";host;", ";")),
        10 => {
            let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
            signed.clone().field("X-Sdk-Date", &date(later))
        }
        _ => {
            let other = Signer { secret: altered(rng, &signer.secret), ..signer.clone() };
            other.sign(request(rng))
        }
    }
}

#[tokio::test]
async fn no_forged_signature_opens_and_no_right_one_is_refused() {
    let seller = Seller::plain().await;
    let world = World::start(seller.address).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let (_, signer) = world.admin.add_app(&buyer.account, &["api"]).await;
    let mut rng = Rng::new(4);
    let mut client = world.client().await;
    for case in 0..CASES {
        let bad = forged(&mut rng, &signer);
        let answer = client.call(&bad).await;
        assert_eq!(answer.status(), 401, "{case}: {bad:?}\n{}", answer.text());
        let good = signer.sign(request(&mut rng));
        let answer = client.call(&good).await;
        assert_eq!(answer.status(), 200, "{case}: {good:?}\n{}", answer.text());
    }
    assert_eq!(seller.requests().len() as u64, CASES);
    world.charged(CASES as u32).await;
}

#[tokio::test]
async fn no_altered_app_code_or_key_opens_and_no_right_one_is_refused() {
    let seller = Seller::plain().await;
    let world = World::with(seller.address, |config| {
        config["credentials"] = json!({ "allow_app_code_without_tls": true });
        product(config, "api")["accept"] = json!(["app_code", "api_key"]);
    })
    .await;
    let buyer = world.buyer(&["api-1000"]).await;
    let (app, _) = world.admin.add_app(&buyer.account, &["api"]).await;
    let (_, code) = world.admin.add_code(&buyer.account, &app).await;
    let mut rng = Rng::new(5);
    let mut client = world.client().await;
    let by_code = |text: &str| Request::get("/api/x").field("X-Apig-AppCode", text);
    let by_key = |text: &str| Request::get("/api/x").bearer(text);
    for case in 0..CASES {
        let cut = 1 + rng.below(60) as usize;
        let change = |rng: &mut Rng, text: &str| match rng.below(4) {
            0 => text[..text.len() - cut.min(text.len() - 1)].to_owned(),
            1 => format!("{text}{}", word(rng, 3)),
            2 => text.chars().rev().collect(),
            _ => altered(rng, text),
        };
        for bad in [by_code(&change(&mut rng, &code)), by_key(&change(&mut rng, &buyer.key))] {
            let answer = client.call(&bad).await;
            assert_eq!(answer.status(), 401, "{case}: {bad:?}\n{}", answer.text());
        }
        let good = if case % 2 == 0 { by_code(&code) } else { by_key(&buyer.key) };
        assert_eq!(client.call(&good).await.status(), 200, "{case}");
    }
    assert_eq!(seller.requests().len() as u64, CASES);
    world.charged(CASES as u32).await;
}
