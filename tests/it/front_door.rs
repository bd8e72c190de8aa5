//! The front door against what two parsers could read differently: hand-written and generated requests, sent as bytes to
//! a real gateway before a seller that records every byte. `cargo test --test it front_door -- --nocapture` prints the
//! counts.

mod chunks;
mod heads;
mod json_cases;
mod json_reader;
mod lines;
mod mutations;
mod overload;
mod recorder;
mod reference;
mod run;
mod table;

use serde_json::{Value, json};

use self::json_cases::Key;
use self::recorder::Recorder;
use self::run::{Buyers, Case, run_all};
use self::table::Table;
use crate::harness::world::World;

/// Runs cases on a gateway of their own, with a key of these terms.
async fn run(name: &str, cases: Vec<Case>, terms: &Value) -> Table {
    let limits = json!({ "head_timeout": "1s", "body_timeout": "1s", "idle_timeout": "5s" });
    run_within(limits, name, cases, terms).await
}

async fn run_within(limits: Value, name: &str, cases: Vec<Case>, terms: &Value) -> Table {
    let begun = std::time::Instant::now();
    let seller = Recorder::start().await;
    let world = World::with(seller.address, |config| config["limits"] = limits).await;
    let buyer = world.buyer(&["chat-1000000", "api-1000000"]).await;
    let (_, key) = world.admin.add_key(&buyer.account, terms).await;
    let buyers = Buyers { data: world.data, key };
    let table = run_all(cases, world, &seller, buyers).await;
    eprintln!("\n{name}, in {:.1} s\n{table}", begun.elapsed().as_secs_f64());
    table
}

#[tokio::test]
async fn malformed_requests_are_refused_and_the_seller_sees_what_was_sent_or_nothing() {
    let cases = [heads::cases(), chunks::cases()].concat();
    let table = run("hand-written requests", cases, &json!({})).await;
    assert!(table.cases() - table.accepted() >= 150 && table.accepted() >= 50, "{table}");
}

#[tokio::test]
async fn mutated_framing_is_refused_or_read_as_the_reference_reads_it() {
    let table = run("generated requests", mutations::cases(), &json!({})).await;
    assert!(table.cases() >= 1_700 && table.accepted() >= 50, "{table}");
}

/// Largest body that is read, by default.
const BODY_MAX: usize = 32 << 20;

#[tokio::test]
async fn json_bodies_are_read_as_a_strict_reader_reads_them_or_refused() {
    let json = "Content-Type: application/json\r\n";
    let cases = json_cases::cases(Key::OneModel, json);
    let narrow = run("JSON bodies, a key of one model", cases, &json!({ "models": ["m"] })).await;
    assert!(narrow.cases() >= 300 && narrow.accepted() >= 50, "{narrow}");
}

#[tokio::test]
async fn a_body_may_have_32_mib_and_not_a_byte_more() {
    let cases = json_cases::sizes(BODY_MAX);
    run_within(json!({}), "JSON bodies of the largest size", cases, &json!({ "models": ["m"] })).await;
}

#[tokio::test]
async fn json_bodies_of_any_content_type_cannot_hide_what_they_say() {
    for content_type in ["Content-Type: application/json\r\n", "Content-Type: text/plain\r\n", ""] {
        let name = format!("JSON bodies, a key of any model, {content_type:?}");
        let table = run(&name, json_cases::cases(Key::AnyModel, content_type), &json!({})).await;
        assert!(table.cases() >= 300 && table.accepted() >= 50, "{table}");
    }
}
