//! What it costs to check a signature, in all: reading the header, the canonical request, hashing the body, the HMAC.
//! `cargo bench --bench signature`.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::unwrap_used, clippy::float_arithmetic, reason = "a measurement stops at the first surprise")]

use std::hint::black_box;
use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use tollgate::domain::credential::SignatureRule;
use tollgate::protocol::signature::{
    BodyHash, Claim, Policy, SeenBody, SignedRequest, SigningKey, date_text, parse_date, sign,
};

/// Rounds of which the median counts.
const ROUNDS: usize = 21;

fn main() {
    if std::arch::is_x86_feature_detected!("sha") {
        println!("SHA instructions: yes");
    } else {
        println!("SHA instructions: no");
    }
    for (name, bytes, calls) in [("no body", 0, 20_000), ("1 KiB", 1 << 10, 20_000), ("1 MiB", 1 << 20, 50)] {
        let right = measure(bytes, calls, true);
        let wrong = measure(bytes, calls, false);
        println!("{name:>8}: {right:>9.2} µs a signature that fits, {wrong:>9.2} µs one that does not");
    }
}

/// The median time of one check, in microseconds.
fn measure(body_bytes: usize, calls: u32, fits: bool) -> f64 {
    let now = parse_date("20260115T083000Z").unwrap();
    let (key, other) = (SigningKey::new(b"a secret of the bench"), SigningKey::new(b"another secret"));
    let mut headers = HeaderMap::new();
    let date = date_text(now);
    for (name, value) in [
        ("host", "api.example.com"),
        ("content-type", "application/json"),
        ("user-agent", "a-client/1.0"),
        ("x-sdk-date", date.as_str()),
    ] {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let body = vec![b'x'; body_bytes];
    let request =
        SignedRequest { method: "POST", target: "/v1/things/42?city=here&day=2", headers: &headers, authority: None };
    let authorization = sign("an-app-key", &key, request, BodyHash::of(&body)).unwrap();
    let policy = Policy { fallbacks: &SignatureRule::FALLBACKS, unsigned_payload: false };
    let keys = if fits { [&key, &other] } else { [&other, &other] };
    let check = || {
        let claim = Claim::read(authorization.as_bytes(), &headers, None).unwrap();
        claim.check_date(now).unwrap();
        claim.verify(request, SeenBody::Hashed(BodyHash::of(black_box(&body))), keys, policy).unwrap()
    };
    assert_eq!(check().is_some(), fits);
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..calls {
                black_box(check());
            }
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}
