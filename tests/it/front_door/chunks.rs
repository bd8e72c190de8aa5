//! Hand-written bodies in chunks: streamed ones are never ended properly at the seller, held ones never begin there.

use super::run::{Case, Expect, on_both};

fn chunked(group: &'static str, expect: Expect, bodies: &[&str]) -> Vec<Case> {
    let head = "POST @PATH@ HTTP/1.1\r\nHost: api.test\r\n@AUTH@Transfer-Encoding: chunked\r\n\r\n";
    bodies.iter().flat_map(|body| on_both(group, expect, format!("{head}{body}"))).collect()
}

const SIZES: &[&str] = &[
    "\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "\t5\r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "5.0\r\nhello\r\n0\r\n\r\n",
    "5,5\r\nhello\r\n0\r\n\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
    "5h\r\nhello\r\n0\r\n\r\n",
    "\"5\"\r\nhello\r\n0\r\n\r\n",
    "5_0\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello",
    "8000000000000000\r\nhello",
    "00000000000000005\r\nhello\r\n0\r\n\r\n",
    "5\0\r\nhello\r\n0\r\n\r\n",
    "\x005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n",
    "5\r\nhello\r\n-0\r\n\r\n",
    "5\r\nhello\r\n0x0\r\n\r\n",
    "5\r\nhello\r\n 0\r\n\r\n",
    "٥\r\nhello\r\n0\r\n\r\n",
    "ſ\r\nhello\r\n0\r\n\r\n",
];

const LINE_ENDS: &[&str] = &[
    "5\nhello\n0\n\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\rhello\r0\r\r",
    "5\r\rhello\r\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\n\rhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhelloo\r\n0\r\n\r\n",
    "4\r\nhello\r\n0\r\n\r\n",
    "6\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\rX\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5\r\nhello\r\n\n0\r\n\r\n",
    "5\r\n\r\nhello\r\n0\r\n\r\n",
];

const EXTENSIONS: &[&str] = &[
    "5;\r\nhello\r\n0\r\n\r\n",
    "5;a\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5;a\0\r\nhello\r\n0\r\n\r\n",
    "5;\u{7f}\r\nhello\r\n0\r\n\r\n",
    "5;é\r\nhello\r\n0\r\n\r\n",
    "5 ;a\r\nhello\r\n0\r\n\r\n",
    "5\t;a\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0;\r\n\r\n",
    "5\r\nhello\r\n0;\n\r\n",
];

const TRAILERS: &[&str] = &[
    "X\r\n",
    "X : a\r\n",
    ": a\r\n",
    " X: a\r\n",
    "X: a\r\n b\r\n",
    "X_Y: a\r\n",
    "X: \0\r\n",
    "X: a\n",
    "X: a\rb\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: other.test\r\n",
    "Authorization: Bearer x\r\n",
    "Connection: close\r\n",
    "Cookie: a=b\r\n",
    "Upgrade: h2c\r\n",
    "Content-Type: a/b\r\n",
    "Expect: x\r\n",
    "X-Api-Key: x\r\n",
    "X-Sdk-Date: x\r\n",
    "GET /api/smuggled HTTP/1.1\r\n",
];

const PARTIAL: &[&str] = &[
    "5",
    "5\r",
    "5\r\n",
    "5\r\nhel",
    "5\r\nhello",
    "5\r\nhello\r",
    "5\r\nhello\r\n",
    "5\r\nhello\r\n0",
    "5\r\nhello\r\n0\r\n",
    "5\r\nhello\r\n0\r\n\r",
    "5\r\nhello\r\n0\r\nX: a\r\n",
    "7fffffffffffffff\r\nhello",
    "5;a",
    "00000005",
];

const GOOD: &[&str] = &[
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n000\r\n\r\n",
    "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "000000005\r\nhello\r\n0\r\n\r\n",
    "1E\r\n012345678901234567890123456789\r\n0\r\n\r\n",
    "5;a\r\nhello\r\n0\r\n\r\n",
    "5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\n",
    "5; a\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\r\nY:\r\n\r\n",
    "7\r\n0\r\n\r\n0\n\r\n0\r\n\r\n",
];

/// Bodies that came whole, that never end, and that cannot be read in one way only.
pub(crate) fn cases() -> Vec<Case> {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(9_000));
    let big = [
        format!("5\r\nhello\r\n0\r\n{}\r\n", "X: a\r\n".repeat(33)),
        format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "x".repeat(9_000)),
    ];
    let mut cases = chunked("chunk size", Expect::Refused, SIZES);
    cases.extend(chunked("chunk line ends", Expect::Refused, LINE_ENDS));
    cases.extend(chunked("chunk extension", Expect::Refused, EXTENSIONS));
    cases.extend(chunked("chunk extension", Expect::Refused, &[&long]));
    let trailers = TRAILERS.iter().map(|lines| format!("5\r\nhello\r\n0\r\n{lines}\r\n"));
    for trailers in trailers.chain(big) {
        cases.extend(chunked("trailers", Expect::Refused, &[&trailers]));
    }
    cases.extend(chunked("chunks that stop", Expect::Refused, PARTIAL));
    cases.extend(chunked("chunks that are right", Expect::Accepted, GOOD));
    cases
}
