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
    compare();
}

/// Checks of each kind whose times are compared.
const SAMPLES: usize = 100_000;
/// Slower ones than nine tenths are what the machine did beside.
const KEPT: (usize, usize) = (9, 10);

/// Whether the time tells an AppKey that nobody has from a wrong secret: Welch's t over both kinds in random order. Above
/// 4.5 they can be told apart.
fn compare() {
    let now = parse_date("20260115T083000Z").unwrap();
    let (own, nobody, wrong) =
        (SigningKey::new(b"a secret of the bench"), SigningKey::new(b"nobody's"), SigningKey::new(b"wrong"));
    let headers = headers(&date_text(now));
    let body = vec![b'x'; 1 << 10];
    let request =
        SignedRequest { method: "POST", target: "/v1/things/42?city=here&day=2", headers: &headers, authority: None };
    let authorization = sign("an-app-key", &wrong, request, BodyHash::of(&body)).unwrap();
    let policy = Policy { fallbacks: &SignatureRule::FALLBACKS, unsigned_payload: false };
    let keys = [[&nobody, &nobody], [&own, &nobody]];
    let (mut times, mut random) = ([Vec::new(), Vec::new()], 1_u64);
    while times.iter().any(|times| times.len() < SAMPLES) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let kind = usize::from(random >> 63 == 1);
        let (Some(times), Some(keys)) = (times.get_mut(kind), keys.get(kind)) else { continue };
        let begun = Instant::now();
        let claim = Claim::read(authorization.as_bytes(), &headers, None).unwrap();
        let fits = claim.verify(request, SeenBody::Hashed(BodyHash::of(black_box(&body))), *keys, policy).unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1e9);
        assert_eq!(fits, None);
    }
    let [unknown, known] = times.map(|times| {
        let mut times: Vec<f64> = times.into_iter().take(SAMPLES).collect();
        times.sort_by(f64::total_cmp);
        times.truncate(SAMPLES * KEPT.0 / KEPT.1);
        times
    });
    let count = unknown.len();
    let ((one, one_spread), (other, other_spread)) = (moments(&unknown), moments(&known));
    let t = (one - other) / ((one_spread + other_spread) / count as f64).sqrt();
    println!("AppKey of nobody: {one:.1} ns, wrong secret: {other:.1} ns, {count} each: |t| = {:.2}", t.abs());
}

/// Mean and variance.
fn moments(times: &[f64]) -> (f64, f64) {
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    (mean, times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0))
}

fn headers(date: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "api.example.com"),
        ("content-type", "application/json"),
        ("user-agent", "a-client/1.0"),
        ("x-sdk-date", date),
    ] {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The median time of one check, in microseconds.
fn measure(body_bytes: usize, calls: u32, fits: bool) -> f64 {
    let now = parse_date("20260115T083000Z").unwrap();
    let (key, other) = (SigningKey::new(b"a secret of the bench"), SigningKey::new(b"another secret"));
    let headers = headers(&date_text(now));
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
