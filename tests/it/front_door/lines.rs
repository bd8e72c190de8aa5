//! Hand-written request lines, targets, hosts and header lines.

use super::heads::Corpus;
use super::run::Expect;

const LINES_REFUSED: &[&str] = &[
    "POST  @PATH@ HTTP/1.1",
    "POST @PATH@  HTTP/1.1",
    " POST @PATH@ HTTP/1.1",
    "POST @PATH@ HTTP/1.1 ",
    "POST\t@PATH@\tHTTP/1.1",
    "POST @PATH@\u{b}HTTP/1.1",
    "POST @PATH@ x HTTP/1.1",
    "POST @PATH@ HTTP/1.1 HTTP/1.1",
    "POST @PATH@",
    "POST @PATH@ ",
    "POST HTTP/1.1",
    "@PATH@ HTTP/1.1",
    "POST @PATH@ http/1.1",
    "POST @PATH@ HTTP/1.2",
    "POST @PATH@ HTTP/2.0",
    "POST @PATH@ HTTP/0.9",
    "POST @PATH@ HTTP/3",
    "POST @PATH@ HTTP/1",
    "POST @PATH@ HTTP/1.10",
    "POST @PATH@ HTTP/01.1",
    "POST @PATH@ HTTP/1,1",
    "POST @PATH@ HTTP /1.1",
    "POST @PATH@ HTTPS/1.1",
    "POST @PATH@ ICY/1.1",
    "PO ST @PATH@ HTTP/1.1",
    "PO\0ST @PATH@ HTTP/1.1",
    "POST( @PATH@ HTTP/1.1",
    "\"POST\" @PATH@ HTTP/1.1",
    "POST: @PATH@ HTTP/1.1",
    "PÖST @PATH@ HTTP/1.1",
    "CONNECT @PATH@ HTTP/1.1",
    "CONNECT api.test:443 HTTP/1.1",
    "connect api.test:443 HTTP/1.1",
    "CONNECT http://api.test@PATH@ HTTP/1.1",
    "TRACE @PATH@ HTTP/1.1",
    "trace @PATH@ HTTP/1.1",
    "TRACK @PATH@ HTTP/1.1",
    "PRI * HTTP/2.0",
    "\r\n\r\nPOST @PATH@ HTTP/1.1",
];

const HEADS_REFUSED: &[&str] = &[
    "GET @PATH@\r\n",
    "GET @PATH@\r\n\r\n",
    "GET @PATH@ HTTP/1.1\n\n",
    "GET @PATH@ HTTP/1.1\nHost: api.test\n@AUTH@\n",
    "GET @PATH@ HTTP/1.1\r\r\nHost: api.test\r\n@AUTH@\r\n",
    "GET @PATH@ HTTP/1.1\rHost: api.test\r\n@AUTH@\r\n",
    "GET @PATH@ HTTP/1.1\r\n\nHost: api.test\r\n@AUTH@\r\n",
    "\nGET @PATH@ HTTP/1.1\r\nHost: api.test\r\n@AUTH@\r\n",
    "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET @PATH@ HTTP/1.1\r\nHost: api.test\r\n@AUTH@\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH-2.0-x\r\n",
    "\0",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "{\"model\":\"m\"}\r\n\r\n",
];

const TARGETS_REFUSED: &[&str] = &[
    "GET ! HTTP/1.1",
    "GET * HTTP/1.1",
    "GET api/x HTTP/1.1",
    "GET ?q HTTP/1.1",
    "GET #f HTTP/1.1",
    "GET @PATH@#f HTTP/1.1",
    "GET @PATH@/../y HTTP/1.1",
    "GET @PATH@/./y HTTP/1.1",
    "GET @PATH@/.. HTTP/1.1",
    "GET @PATH@/%2e%2e/y HTTP/1.1",
    "GET @PATH@/%2E./y HTTP/1.1",
    "GET @PATH@/.%2e/y HTTP/1.1",
    "GET @PATH@/..;a=b/y HTTP/1.1",
    "GET @PATH@%2fy HTTP/1.1",
    "GET @PATH@%2Fy HTTP/1.1",
    "GET @PATH@%5cy HTTP/1.1",
    "GET @PATH@\\y HTTP/1.1",
    "GET @PATH@%00 HTTP/1.1",
    "GET @PATH@% HTTP/1.1",
    "GET @PATH@%2 HTTP/1.1",
    "GET @PATH@%zz HTTP/1.1",
    "GET @PATH@%u002f HTTP/1.1",
    "GET @PATH@\u{7f} HTTP/1.1",
    "GET @PATH@\u{1} HTTP/1.1",
    "GET @PATH@é HTTP/1.1",
    "GET @PATH@<y> HTTP/1.1",
    "GET @PATH@\"y\" HTTP/1.1",
    "GET http://other.test@PATH@ HTTP/1.1",
    "GET http://api.test:80@PATH@ HTTP/1.1",
    "GET http://user@api.test@PATH@ HTTP/1.1",
    "GET http://user:word@api.test@PATH@ HTTP/1.1",
    "GET http://api.test@other.test@PATH@ HTTP/1.1",
    "GET http://api.test\\@other.test@PATH@ HTTP/1.1",
    "GET http://@PATH@ HTTP/1.1",
    "GET http:@PATH@ HTTP/1.1",
    "GET ftp://api.test@PATH@ HTTP/1.1",
    "GET file://@PATH@ HTTP/1.1",
    "GET api.test@PATH@ HTTP/1.1",
    "GET //other.test@PATH@ HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET http://api.test HTTP/1.1",
    "GET http://[::1@PATH@ HTTP/1.1",
    "GET /%61%70i/../x HTTP/1.1",
    "GET @PATH@/%252e%252e/%2e HTTP/1.1",
    "GET @PATH@/y%0d%0aX:%20a%00 HTTP/1.1",
];

const HOSTS_REFUSED: &[&str] = &[
    "",
    "Host: api.test\r\nHost: api.test\r\n",
    "Host: api.test\r\nhost: other.test\r\n",
    "Host: api.test, other.test\r\n",
    "Host:\r\n",
    "Host: \r\n",
    "Host: api.test/x\r\n",
    "Host: api.test#x\r\n",
    "Host: api.test?x\r\n",
    "Host: user@api.test\r\n",
    "Host: api.test:port\r\n",
    "Host: api.test:65536\r\n",
    "Host: api.test:-1\r\n",
    "Host: api.test:80:80\r\n",
    "Host: api test\r\n",
    "Host: api.test\t80\r\n",
    "Host: http://api.test\r\n",
    "Host: api%2etest\r\n",
    "Host: [::1\r\n",
    "Host: [::g]\r\n",
    "Host: ::1\r\n",
    "Host: api.test\u{0}\r\n",
    "Host: äpi.test\r\n",
    "Host : api.test\r\n",
    " Host: api.test\r\n",
    "Host\t: api.test\r\n",
    "X: y\r\n Host: api.test\r\n",
    "Host: api.test\\\r\n",
    "Host: {api}\r\n",
    "Host: ':1\r\n",
];

const FIELDS_REFUSED: &[&str] = &[
    ": a",
    ":",
    "no colon",
    " folded: a",
    "\tfolded: a",
    "X: a\r\n b",
    "X: a\r\n\tb",
    "X: a\r\n ",
    "X : a",
    "X\t: a",
    "X Y: a",
    "X_Y: a",
    "_: a",
    "X: a\0b",
    "X: \0",
    "X\0: a",
    "X: a\rb",
    "X: a\r",
    "X: a\nb",
    "X: a\u{b}b",
    "X: a\u{c}b",
    "X: a\u{1b}b",
    "X: a\u{7f}",
    "X: \u{8}",
    "(X): a",
    "X,Y: a",
    "X;Y: a",
    "X=Y: a",
    "X\"Y: a",
    "X/Y: a",
    "X@Y: a",
    "X[Y]: a",
    "X{Y}: a",
    "X\\Y: a",
    "X<Y>: a",
    "X?Y: a",
    "Ä: a",
    "X\u{7f}: a",
    "GET /api/smuggled HTTP/1.1",
    "\u{feff}X: a",
    "X_Consumer_Id: a",
    "Content_Type: a",
    "X-Forwarded_For: a",
];

pub(super) fn request_lines(corpus: &mut Corpus) {
    let group = "request line";
    corpus.line(group, Expect::Refused, LINES_REFUSED);
    corpus.line(
        group,
        Expect::Accepted,
        &[
            "get @PATH@ HTTP/1.1",
            "Post @PATH@ HTTP/1.1",
            "M-SEARCH @PATH@ HTTP/1.1",
            "HEAD @PATH@ HTTP/1.1",
            "\r\nGET @PATH@ HTTP/1.1",
            "GET @PATH@ HTTP/1.0",
        ],
    );
    corpus.raw(group, Expect::Refused, HEADS_REFUSED.iter());
}

pub(super) fn targets(corpus: &mut Corpus) {
    let group = "target";
    corpus.line(group, Expect::Refused, TARGETS_REFUSED);
    corpus.line(
        group,
        Expect::Accepted,
        &[
            "GET @PATH@?a=../%2f&b=%zz HTTP/1.1",
            "GET http://api.test@PATH@ HTTP/1.1",
            "GET HTTP://API.TEST@PATH@?q HTTP/1.1",
            "GET https://api.test@PATH@ HTTP/1.1",
            "GET @PATH@/y%20z HTTP/1.1",
            "GET @PATH@/%252f HTTP/1.1",
            "GET @PATH@/y;a=b HTTP/1.1",
            "GET @PATH@/...//y HTTP/1.1",
            "GET @PATH@? HTTP/1.1",
            "GET @PATH@/%0d%0aX HTTP/1.1",
        ],
    );
}

pub(super) fn hosts(corpus: &mut Corpus) {
    let group = "host";
    corpus.host(group, Expect::Refused, HOSTS_REFUSED);
    corpus.host(
        group,
        Expect::Accepted,
        &[
            "Host: api.test:8080\r\n",
            "HOST:API.test\r\n",
            "Host: \t[::1]:80 \r\n",
            "Host: 127.0.0.1\r\n",
            "Host: api_test\r\n",
            "Host: a\r\n",
        ],
    );
    corpus.raw(group, Expect::Accepted, ["GET @PATH@ HTTP/1.0\r\n@AUTH@\r\n"]);
}

pub(super) fn field_syntax(corpus: &mut Corpus) {
    let group = "field syntax";
    corpus.with(group, Expect::Refused, FIELDS_REFUSED.iter().map(|line| format!("{line}\r\n\r\n")));
    corpus.with(
        group,
        Expect::Refused,
        [
            "X: a\n\n",
            "X: a\r\n\n",
            "X: a\n\r\n",
            "X: a\r\n\r",
            "X: a\r\n\rX: b\r\n\r\n",
            "X: a\r\r\n\r\n",
            "Content-Type: text/plain\r\nContent-Type: application/json\r\n\r\n",
        ],
    );
    corpus.with(
        group,
        Expect::Accepted,
        [
            "X: a\tb",
            "X:",
            "X: ",
            "x:y:z",
            "X: é",
            "X!#$%&'*+-.^`|~9: a",
            "Accept: a\r\nAccept: b",
            "X: \"a\\\"b\"",
            "Cookie: a=b; c=d",
            "X-Consumer-Id: admin",
            "X-Real-IP: 1.2.3.4",
            "X-Forwarded-For: 1.2.3.4",
            "X-App-Id: a",
            "Forwarded: for=1.2.3.4",
        ]
        .map(|line| format!("{line}\r\n\r\n")),
    );
}
