//! What the strict check of a request's head costs: finding its end and checking it, as a gate does for each call.
//! `cargo bench --bench front`.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::unwrap_used, clippy::float_arithmetic, reason = "a measurement stops at the first surprise")]

use std::hint::black_box;
use std::time::Instant;

use tollgate::protocol::framing::BodyFollower;
use tollgate::protocol::head::{Framing, whole_head};

/// Rounds of which the median counts: many short ones, so that another process's turns fall into few of them.
const ROUNDS: usize = 2_001;
/// Checks in one round.
const CHECKS: u32 = 500;

/// What an OpenAI SDK for Python sends before a chat completion.
const SDK_HEAD: &str = "POST /v1/infers/chat/v1/chat/completions HTTP/1.1\r\nHost: gateway.example.com\r\n\
    Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nAccept: application/json\r\n\
    Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.12.0\r\nX-Stainless-Lang: python\r\n\
    X-Stainless-Package-Version: 2.12.0\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\n\
    X-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.12.3\r\n\
    Authorization: Bearer sk-tg-0123456789abcdefghijklmnopqrstuvwxyz\r\nX-Stainless-Async: false\r\n\
    x-stainless-retry-count: 0\r\nContent-Length: 170\r\n\r\n";

fn main() {
    let short = "GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n".to_owned();
    let many = format!("GET /api/x HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Field: a value of some length\r\n".repeat(90));
    for (name, head) in [("a short head", short), ("an SDK's head", SDK_HEAD.to_owned()), ("92 header lines", many)] {
        let nanoseconds = measure(|| check(black_box(head.as_bytes())));
        println!("{name:>16} of {:>4} bytes: {nanoseconds:>8.1} ns", head.len());
    }
    let chunks = format!("{}0\r\n\r\n", format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(16));
    let nanoseconds = measure(|| {
        let fed = BodyFollower::new(Framing::Chunked).feed(black_box(chunks.as_bytes())).unwrap();
        assert!(fed.done);
    });
    println!("{:>16} of 16 KiB:       {nanoseconds:>8.1} ns", "a chunked body");
}

fn check(bytes: &[u8]) {
    black_box(whole_head(bytes).unwrap());
}

/// The median time of one check, in nanoseconds.
fn measure(check: impl Fn()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            (0..CHECKS).for_each(|_| check());
            begun.elapsed().as_secs_f64() * 1e9 / f64::from(CHECKS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}
