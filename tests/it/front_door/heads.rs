//! Hand-written requests: what two parsers are known to read differently, by category, beside what is odd but right.

use super::lines;
use super::run::{Case, Expect, on_both};

const POST: &str = "POST @PATH@ HTTP/1.1\r\nHost: api.test\r\n@AUTH@";
/// What an attacker would have answered as a request of its own.
const SMUGGLED: &str = "GET /api/smuggled HTTP/1.1\r\nHost: a\r\nX-Case: smuggled\r\n\r\n";

/// Cases, as they are put together.
pub(super) struct Corpus(Vec<Case>);

impl Corpus {
    /// Requests with these bytes.
    pub(super) fn raw<T: AsRef<[u8]>>(
        &mut self,
        group: &'static str,
        expect: Expect,
        all: impl IntoIterator<Item = T>,
    ) {
        self.0.extend(all.into_iter().flat_map(|bytes| on_both(group, expect, bytes)));
    }

    /// Good heads with further lines, their closing empty line and a body.
    pub(super) fn with<T: AsRef<[u8]>>(
        &mut self,
        group: &'static str,
        expect: Expect,
        all: impl IntoIterator<Item = T>,
    ) {
        let whole = |rest: T| [POST.as_bytes(), rest.as_ref()].concat();
        self.raw(group, expect, all.into_iter().map(whole));
    }

    /// Requests with another request line.
    pub(super) fn line(&mut self, group: &'static str, expect: Expect, all: &[&str]) {
        self.raw(group, expect, all.iter().map(|line| format!("{line}\r\nHost: api.test\r\n@AUTH@\r\n")));
    }

    /// Requests with other host lines.
    pub(super) fn host(&mut self, group: &'static str, expect: Expect, all: &[&str]) {
        self.raw(group, expect, all.iter().map(|lines| format!("GET @PATH@ HTTP/1.1\r\n{lines}@AUTH@\r\n")));
    }
}

/// All hand-written cases, on both routes.
pub(crate) fn cases() -> Vec<Case> {
    let mut corpus = Corpus(Vec::new());
    lengths(&mut corpus);
    encodings(&mut corpus);
    lines::request_lines(&mut corpus);
    lines::targets(&mut corpus);
    lines::hosts(&mut corpus);
    lines::field_syntax(&mut corpus);
    connection(&mut corpus);
    credentials(&mut corpus);
    sizes(&mut corpus);
    pipelines(&mut corpus);
    corpus.0
}

fn lengths(corpus: &mut Corpus) {
    let group = "content-length";
    let values = [
        "010",
        "05",
        "+5",
        "-5",
        "-0",
        "5.0",
        "5,5",
        "5, 5",
        "5, 6",
        "5 5",
        "0x5",
        "5e0",
        "five",
        "",
        "\"5\"",
        "5;",
        "00",
        "1_0",
        "٥",
        "99999999999999999999",
        "18446744073709551616",
        "18446744073709551615",
        "9223372036854775808",
    ];
    corpus.with(group, Expect::Refused, values.map(|value| format!("Content-Length: {value}\r\n\r\nhello")));
    corpus.with(
        group,
        Expect::Refused,
        [
            format!("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"),
            format!("Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello{SMUGGLED}"),
            format!("Content-Length: 0\r\ncontent-length: 5\r\n\r\n{SMUGGLED}"),
            format!("Content-Length : 5\r\n\r\nhello{SMUGGLED}"),
            format!("Content_Length: 5\r\n\r\nhello{SMUGGLED}"),
            "Content-Length: 5\r\n \r\n\r\nhello".into(),
            "Content-Length:\r\n 5\r\n\r\nhello".into(),
            "Content-Length: 5\u{b}\r\n\r\nhello".into(),
        ],
    );
    // Fewer bytes than said, and then silence.
    corpus.with(
        group,
        Expect::Refused,
        ["Content-Length: 6\r\n\r\nhello", "Content-Length: 9223372036854775807\r\n\r\nhello"],
    );
    corpus.with(
        group,
        Expect::Accepted,
        [
            "Content-Length: 5\r\n\r\nhello",
            "content-length:5\r\n\r\nhello",
            "CONTENT-LENGTH:\t5 \t\r\n\r\nhello",
            "Content-Length: 0\r\n\r\n",
            "\r\n",
        ],
    );
    corpus.raw(
        group,
        Expect::Accepted,
        ["GET", "DELETE", "OPTIONS", "PURGE"].map(|method| {
            format!("{method} @PATH@ HTTP/1.1\r\nHost: api.test\r\n@AUTH@Content-Length: 5\r\n\r\nhello")
        }),
    );
}

fn encodings(corpus: &mut Corpus) {
    let group = "transfer-encoding";
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let values = [
        "gzip, chunked",
        "chunked, gzip",
        "chunked, identity",
        "identity",
        "identity, chunked",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chun ked",
        "cow",
        "",
        "deflate",
        "compress, chunked",
        "chunked\0",
        "\u{b}chunked",
    ];
    corpus.with(group, Expect::Refused, values.map(|value| format!("Transfer-Encoding: {value}\r\n\r\n{chunks}")));
    corpus.with(
        group,
        Expect::Refused,
        [
            format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            format!("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{chunks}"),
            format!("Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"),
            format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{chunks}"),
            format!("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            format!("Transfer_Encoding: chunked\r\n\r\n{SMUGGLED}"),
            format!("Transfer-Encoding : chunked\r\n\r\n{chunks}"),
            format!("Transfer-Encoding:\r\n chunked\r\n\r\n{chunks}"),
            format!("Transfer-Encoding: chunked\n\r\n{chunks}"),
            format!("X: y\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            format!("Transfer.Encoding: chunked\r\nContent-Length: {}\r\n\r\n{chunks}", chunks.len()),
            format!("Transfer+Encoding: chunked\r\nContent-Length: {}\r\n\r\n{chunks}", chunks.len()),
        ],
    );
    corpus.raw(group, Expect::Refused, [
        format!("POST @PATH@ HTTP/1.0\r\nHost: api.test\r\n@AUTH@Transfer-Encoding: chunked\r\n\r\n{chunks}"),
        format!("POST @PATH@ HTTP/1.0\r\nHost: api.test\r\n@AUTH@Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunks}"),
        format!("POST @PATH@ HTTP/1.0\r\nHost: api.test\r\n@AUTH@Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
    ]);
    corpus.with(
        group,
        Expect::Accepted,
        [
            format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"),
            format!("transfer-encoding:CHUNKED\r\n\r\n{chunks}"),
            format!("Transfer-Encoding: \tchunked \r\n\r\n{chunks}"),
            format!(
                "TE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                chunks.replace("0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n")
            ),
        ],
    );
}

fn connection(corpus: &mut Corpus) {
    let group = "connection, upgrade";
    corpus.with(
        group,
        Expect::Refused,
        [
            "Upgrade: websocket\r\nConnection: Upgrade",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            "Upgrade: websocket",
            "Connection: upgrade",
            "Connection: keep-alive, Upgrade",
            "upgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade",
            "Connection: host",
            "Connection: Authorization",
            "Connection: close, authorization",
            "Connection: content-length",
            "Connection: Content-Type",
            "Connection: x-request-id",
            "Connection: X-Api-Key",
            "Connection: X-Sdk-Date",
            "Connection: x-apig-appcode",
            "Connection: x-tollgate-unit",
            "Connection: cookie",
            "Connection: a b",
            "Connection: \"close\"",
            "Connection: a:b",
            "Connection: close;",
            "Connection: transfer-encoding",
            "Expect: 200-ok",
            "Expect: 100-continue, x",
            "Expect: ",
            "Expect: 100-continue\r\nExpect: x",
        ]
        .map(|line| format!("{line}\r\n\r\n{SMUGGLED}")),
    );
    corpus.with(
        group,
        Expect::Refused,
        [format!("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}")],
    );
    corpus.with(
        group,
        Expect::Accepted,
        [
            "Connection: keep-alive",
            "Connection: close",
            "Connection: ",
            "Connection: ,close,",
            "Connection: TE, close\r\nTE: trailers",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Connection: x-mine\r\nX-Mine: a",
            "TE: trailers, deflate",
        ]
        .map(|line| format!("{line}\r\n\r\n")),
    );
    corpus.with(
        group,
        Expect::Accepted,
        ["Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "Expect: 100-Continue\r\n\r\n"],
    );
}

fn credentials(corpus: &mut Corpus) {
    let group = "credentials";
    let head = "POST @PATH@ HTTP/1.1\r\nHost: api.test\r\nX-Case: @CASE@\r\n";
    corpus.raw(
        group,
        Expect::Refused,
        [
            "",
            "Authorization:\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: @KEY@\r\n",
            "Authorization: Bearer @KEY@x\r\n",
            "Authorization: Bearer @KEY@ x\r\n",
            "Authorization: Bearer @KEY@,@KEY@\r\n",
            "Authorization: Basic @KEY@\r\n",
            "Authorization: Bearer \"@KEY@\"\r\n",
            "Authorization: Bearer ' OR 1=1\r\n",
            "Authorization: Bearer @KEY@\r\nAuthorization: Bearer @KEY@\r\n",
            "Authorization: Bearer @KEY@\r\nauthorization: Basic eDp5\r\n",
            "Authorization : Bearer @KEY@\r\n",
            "Authorization:\r\n Bearer @KEY@\r\n",
            "Authorization: Bearer @KEY@\0\r\n",
            "X-Api-Key: @KEY@\r\nX-Api-Key: @KEY@\r\n",
            "X_Api_Key: @KEY@\r\n",
            "Proxy-Authorization: Bearer @KEY@\r\n",
            "Authorization: SDK-HMAC-SHA256 Access=, SignedHeaders=, Signature=\r\n",
        ]
        .map(|lines| format!("{head}{lines}\r\n")),
    );
    corpus.raw(
        group,
        Expect::Accepted,
        ["Authorization: bearer @KEY@\r\n", "Authorization:Bearer   @KEY@\t\r\n"]
            .map(|lines| format!("{head}{lines}\r\n")),
    );
}

fn sizes(corpus: &mut Corpus) {
    let group = "size";
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: v\r\n")).collect::<String>();
    corpus.with(
        group,
        Expect::Refused,
        [
            many(98),
            many(1_000),
            many(10_000),
            "X: a\r\n".repeat(98),
            format!("X: {}\r\n", "x".repeat(33_000)),
            format!("{}: x\r\n", "x".repeat(33_000)),
            format!("X: {}\r\n", "x".repeat(1 << 20)),
        ]
        .map(|lines| format!("{lines}\r\n")),
    );
    corpus.raw(
        group,
        Expect::Refused,
        [
            format!("GET @PATH@?{} HTTP/1.1\r\nHost: api.test\r\n@AUTH@\r\n", "x".repeat(33_000)),
            format!("{} @PATH@ HTTP/1.1\r\nHost: api.test\r\n@AUTH@\r\n", "X".repeat(33_000)),
        ],
    );
    corpus.with(
        group,
        Expect::Accepted,
        [many(96), "X: a\r\n".repeat(96), format!("X: {}\r\n", "x".repeat(31_000))].map(|lines| format!("{lines}\r\n")),
    );
    corpus.raw(
        group,
        Expect::Accepted,
        [format!("GET @PATH@?{} HTTP/1.1\r\nHost: api.test\r\n@AUTH@\r\n", "x".repeat(31_000))],
    );
}

fn pipelines(corpus: &mut Corpus) {
    let group = "pipelining";
    let (get, post) =
        ("GET @PATH@ HTTP/1.1\r\nHost: api.test\r\n@AUTH@\r\n", format!("{POST}Content-Length: 5\r\n\r\nhello"));
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    corpus.raw(
        group,
        Expect::Accepted,
        [
            format!("{get}{get}"),
            format!("{post}{get}{chunked}{post}"),
            format!("{chunked}{chunked}\r\n{get}"),
            format!("{get}\r\n{post}"),
            get.repeat(20),
            // A method that nobody knows, but everyone reads.
            format!("{post}x{get}"),
            format!("{POST}Content-Length: 4\r\n\r\nhello{get}"),
            format!("{post}\r\n{post}"),
        ],
    );
    corpus.raw(
        group,
        Expect::Refused,
        [
            format!("{get}{POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
            format!("{post}\r\n\r\n{get}"),
            format!("{chunked}0\r\n\r\n{get}"),
            format!("{post}{POST}Transfer-Encoding: chunked\r\n\r\nz\r\n{get}"),
            format!("{chunked}{POST}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n{get}"),
            format!("{get}GET @PATH@ HTTP/1.1\r\n\r\n{get}"),
            format!("{get}{get}{POST}X : a\r\n\r\n{get}"),
            format!("{get}\0{get}"),
            format!("{get}GET @PATH@\r\n"),
        ],
    );
}
