//! HTTP/2 that no sane client sends, frame by frame: refused on its stream, or with its connection; nothing of it
//! reaches a seller, nothing is billed, and others are served meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::Request;
use crate::harness::h2::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, HEADERS, Outcome, PADDED, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, headers,
};
use crate::harness::seller::{Seen, Seller};
use crate::harness::wire::{End, Wire};
use crate::harness::within;
use crate::harness::world::World;

mod rfc;

// Error codes (RFC 9113 section 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;

/// Where what is right is sent, and where frames are that are not.
const GOOD: &str = "/api/good";
const FRAMES: &str = "/api/frames";
/// Something must have come of a request by then.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

async fn world(seller: &Seller) -> World {
    World::with(seller.address, |config| {
        config["listeners"]["data"] = json!({ "address": "127.0.0.1:0", "h2c": true });
        config["limits"]["head_timeout"] = json!("2s");
    })
    .await
}

/// What must come of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// An answer of ours with this status, on the stream; the connection goes on.
    Status(u16),
    /// The stream is reset; the connection goes on.
    Reset(u32),
    /// The connection ends, with this code.
    Ends(u32),
    /// It comes after the stream's end: whether the answer is out by then, nobody can say. If not, the stream or the
    /// connection ends.
    Late,
}
use Expected::{Ends, Late, Reset, Status};

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A sane request, with a field changed, or added if it is not there.
fn with<'a>(base: &Fields<'a>, name: &'a str, value: &'a str) -> Fields<'a> {
    let mut fields = base.clone();
    match fields.iter_mut().find(|(there, _)| *there == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    fields
}

fn without<'a>(base: &Fields<'a>, name: &str) -> Fields<'a> {
    base.iter().copied().filter(|(there, _)| *there != name).collect()
}

/// Heads, each sent on stream 1 as a GET without a body.
fn heads<'a>(base: &Fields<'a>, long: &'a str) -> Vec<(Fields<'a>, Expected)> {
    let also = |name, value| [base.clone(), vec![(name, value)]].concat();
    vec![
        (with(base, ":authority", "other.test@api.test"), Status(400)),
        (also("host", "other.test"), Status(400)),
        (also("host", "api.test:80"), Status(400)),
        ([also("host", "api.test"), vec![("host", "api.test")]].concat(), Status(400)),
        (also("host", ""), Status(400)),
        (without(base, ":authority"), Status(400)),
        (with(&without(base, ":authority"), "host", "a b"), Status(400)),
        (also("x_app_id", "1"), Status(400)),
        (also("x-a", " 1"), Status(400)),
        (also("x-a", "1\t"), Status(400)),
        (also("authorization", "Bearer other"), Status(400)),
        (also("content-length", "+0"), Reset(PROTOCOL_ERROR)),
        (also("content-length", "0, 0"), Reset(PROTOCOL_ERROR)),
        ([also("content-length", "0"), vec![("content-length", "0")]].concat(), Status(400)),
        (also("content-length", "00"), Status(400)),
        (also("content-length", "5"), Reset(PROTOCOL_ERROR)),
        (also("content-length", "99999999999999999999"), Reset(PROTOCOL_ERROR)),
        (also("expect", "101-switch"), Status(417)),
        (with(base, ":path", "/api/../x"), Status(400)),
        (with(base, ":path", "/api/%2e%2e/x"), Status(400)),
        (with(base, ":path", "/api/a%2fb"), Status(400)),
        (with(base, ":path", "/api/a\\b"), Status(400)),
        (with(base, ":path", "/api/%zz"), Status(400)),
        (with(base, ":path", "*"), Status(400)),
        (with(base, ":path", "/api/\u{e9}"), Status(400)),
        (with(base, ":path", ""), Reset(PROTOCOL_ERROR)),
        (with(base, ":path", "api/x"), Reset(PROTOCOL_ERROR)),
        (with(base, ":path", "http://api.test/api/x"), Reset(PROTOCOL_ERROR)),
        (with(base, ":path", "/api/ x"), Reset(PROTOCOL_ERROR)),
        (with(base, ":method", "CONNECT"), Reset(PROTOCOL_ERROR)),
        (with(base, ":method", "connect"), Status(400)),
        (with(base, ":method", "G T"), Ends(PROTOCOL_ERROR)),
        (with(base, ":scheme", "ftp"), Status(400)),
        (without(base, ":method"), Reset(PROTOCOL_ERROR)),
        (without(base, ":scheme"), Reset(PROTOCOL_ERROR)),
        (without(base, ":path"), Reset(PROTOCOL_ERROR)),
        (also("connection", "close"), Reset(PROTOCOL_ERROR)),
        (also("transfer-encoding", "chunked"), Reset(PROTOCOL_ERROR)),
        (also("upgrade", "h2c"), Reset(PROTOCOL_ERROR)),
        (also("keep-alive", "1"), Reset(PROTOCOL_ERROR)),
        (also("proxy-connection", "x"), Reset(PROTOCOL_ERROR)),
        (also("te", "gzip"), Reset(PROTOCOL_ERROR)),
        (also("X-Upper", "1"), Ends(PROTOCOL_ERROR)),
        (also("x-a", "1\r\nx-b: 2"), Ends(PROTOCOL_ERROR)),
        (also("x-a", "1\n"), Ends(PROTOCOL_ERROR)),
        (also("x-a", "a\0b"), Ends(PROTOCOL_ERROR)),
        (also("x-a", "\u{7f}"), Ends(PROTOCOL_ERROR)),
        (also("x a", "1"), Ends(PROTOCOL_ERROR)),
        (also("x:a", "1"), Ends(PROTOCOL_ERROR)),
        (also("", "1"), Ends(PROTOCOL_ERROR)),
        (also(":path", "/api/other"), Reset(PROTOCOL_ERROR)),
        (also(":status", "200"), Reset(PROTOCOL_ERROR)),
        (also(":other", "1"), Ends(PROTOCOL_ERROR)),
        (also(":protocol", "websocket"), Reset(PROTOCOL_ERROR)),
        ([base.clone(), vec![("x-a", "1"); 100]].concat(), Status(431)),
        ([base.clone(), vec![("x-a", long); 3]].concat(), Status(431)),
    ]
}

/// Frames, sent after the settings; what matters is stream 1.
fn frames(base: &Fields<'_>) -> Vec<(&'static str, Vec<u8>, Expected)> {
    let get = || headers(1, base, true);
    let post = |length| headers(1, &with(&with(base, ":method", "POST"), "content-length", length), false);
    let whole = block(base);
    let (half, rest) = whole.split_at(whole.len() / 2);
    vec![
        ("a body longer than said", [post("3"), frame(DATA, END_STREAM, 1, b"four")].concat(), Reset(PROTOCOL_ERROR)),
        ("a body shorter than said", [post("3"), frame(DATA, END_STREAM, 1, b"2")].concat(), Reset(PROTOCOL_ERROR)),
        ("padding longer than the frame", [post("3"), frame(DATA, PADDED, 1, &[9, 1])].concat(), Ends(PROTOCOL_ERROR)),
        ("DATA on no stream", frame(DATA, 0, 0, b"x"), Ends(PROTOCOL_ERROR)),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), Ends(PROTOCOL_ERROR)),
        ("HEADERS on no stream", headers(0, base, true), Ends(PROTOCOL_ERROR)),
        ("HEADERS on an even stream", headers(2, base, true), Ends(PROTOCOL_ERROR)),
        ("a lower stream after a higher", [headers(3, base, true), get()].concat(), Ends(PROTOCOL_ERROR)),
        ("a block that is no HPACK", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 8]), Ends(PROTOCOL_ERROR)),
        ("an index that is nowhere", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xfe]), Ends(PROTOCOL_ERROR)),
        ("a head that stops", [frame(HEADERS, 0, 1, half), frame(DATA, 0, 1, b"x")].concat(), Ends(PROTOCOL_ERROR)),
        (
            "a head that goes on elsewhere",
            [frame(HEADERS, 0, 1, half), frame(CONTINUATION, END_HEADERS, 3, rest)].concat(),
            Ends(PROTOCOL_ERROR),
        ),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &whole), Ends(PROTOCOL_ERROR)),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, b""), Ends(PROTOCOL_ERROR)),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), Ends(PROTOCOL_ERROR)),
        ("a window beyond its bound", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Ends(PROTOCOL_ERROR)),
        ("PING of seven bytes", frame(PING, 0, 0, &[0; 7]), Ends(PROTOCOL_ERROR)),
        ("PING of a stream", frame(PING, 0, 1, &[0; 8]), Ends(PROTOCOL_ERROR)),
        ("PRIORITY on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), Reset(PROTOCOL_ERROR)),
        ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Ends(PROTOCOL_ERROR)),
        ("WINDOW_UPDATE of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Ends(PROTOCOL_ERROR)),
        ("a push by a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), Ends(PROTOCOL_ERROR)),
        ("a frame that is too long", frame(DATA, 0, 1, &vec![0; 16_385]), Ends(FRAME_SIZE_ERROR)),
        ("a second head", [post("1"), headers(1, base, false)].concat(), Reset(PROTOCOL_ERROR)),
        ("DATA after the end", [get(), frame(DATA, END_STREAM, 1, b"x")].concat(), Ends(PROTOCOL_ERROR)),
    ]
}

#[tokio::test]
async fn malformed_requests_are_refused_and_reach_no_seller() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let base: Fields<'_> = vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", "/api/bad"),
        ("authorization", &bearer),
    ];
    let long = "y".repeat(12_000);
    let (heads, framed) = (heads(&base, &long), with(&base, ":path", FRAMES));
    let (frames, spec) = (frames(&framed), rfc::cases(&framed));
    eprintln!("{} malformed heads, {} frames, {} cases of the standards", heads.len(), frames.len(), spec.len());
    let as_frames = |fields: &Fields<'_>| {
        // A frame holds 16 KiB: long heads are cut.
        let whole = block(fields);
        let mut pieces = whole.chunks(16_000).enumerate().peekable();
        let mut bytes = Vec::new();
        while let Some((at, piece)) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            let (kind, flags) = if at == 0 { (HEADERS, END_STREAM | last) } else { (CONTINUATION, last) };
            bytes.extend(frame(kind, flags, 1, piece));
        }
        bytes
    };
    let heads = heads.iter().map(|(fields, expected)| (format!("{:?}", &fields[..]), as_frames(fields), *expected));
    let frames = frames.into_iter().chain(spec).map(|(what, bytes, expected)| (what.to_owned(), bytes, expected));
    let (mut faults, mut good) = (Vec::new(), 0);
    for (what, bytes, expected) in heads.chain(frames) {
        let mut raw = Raw::connect(world.data).await;
        raw.send(&bytes).await;
        let Ok(found) = tokio::time::timeout(ANSWERED_WITHIN, raw.outcome(1)).await else {
            faults.push(format!("{what}: nothing came of it"));
            continue;
        };
        if !fits(expected, &found) {
            faults.push(format!("{}: {found:?} instead of {expected:?}", &what[..what.len().min(300)]));
        }
        good += u64::from(matches!(found, Outcome::Answered(200, _)));
        if !matches!(found, Outcome::Ended(_)) && expected != Late {
            // The connection is whole: the next request is its own.
            raw.send(&headers(301, &with(&base, ":path", GOOD), true)).await;
            let next = raw.outcome(301).await;
            good += 1;
            if !matches!(next, Outcome::Answered(200, _)) {
                faults.push(format!("after {what}: {next:?}"));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    let bad = seller.requests().into_iter().filter(|seen| seen.head.target() != GOOD);
    // Of a malformed head nothing is seen; what began before it turned out to be malformed was never ended properly.
    let whole = |seen: &Seen| seen.body.cut.is_none() && seen.head.method() != "GET";
    let bad: Vec<_> = bad.filter(|seen| seen.head.target() != FRAMES || whole(seen)).collect();
    assert!(bad.is_empty(), "{bad:?}");
    // A call whose seller has answered counts, though its client learns it with an end of the connection.
    let charged = world.quiet().await.sum("tollgate_units_charged_total", &[]);
    assert!(charged >= good as f64 && charged <= good as f64 + 5.0, "{charged} units for {good} answers");
}

fn fits(expected: Expected, found: &Outcome) -> bool {
    match (expected, found) {
        (Status(status), Outcome::Answered(found, body)) => {
            status == *found && (status == 200 || body.contains("error_code"))
        }
        (Reset(code), Outcome::Reset(found)) => code == *found,
        (Ends(code), Outcome::Ended(found)) => *found == Some(code),
        (Late, Outcome::Answered(200, _)) => true,
        (Late, Outcome::Reset(code) | Outcome::Ended(Some(code))) => [PROTOCOL_ERROR, STREAM_CLOSED].contains(code),
        (_, _) => false,
    }
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_the_others_are_not() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let fields: Fields<'_> = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", GOOD),
        ("authorization", &bearer),
    ];
    let mut raw = Raw::connect(world.data).await;
    for at in 0..=100 {
        raw.send(&headers(2 * at + 1, &fields, false)).await;
    }
    assert_eq!(raw.outcome(201).await, Outcome::Reset(REFUSED_STREAM));
    raw.send(&frame(DATA, END_STREAM, 199, b"x")).await;
    assert!(matches!(raw.outcome(199).await, Outcome::Answered(200, _)));
    drop(raw);
    world.charged(1).await;
}

/// The frames of a flood, one after the other.
type Piece<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;

/// Each with its name, over requests with these fields.
fn floods<'a>(base: &'a Fields<'a>) -> Vec<(&'static str, Piece<'a>)> {
    let stream = |at: u32| 2 * at + 1;
    let open = move |at: u32| headers(stream(at), base, false);
    vec![
        ("rapid reset", Box::new(move |at| [open(at), frame(RST_STREAM, 0, stream(at), &[0, 0, 0, 8])].concat())),
        (
            "reset by a window of nothing",
            Box::new(move |at| [open(at), frame(WINDOW_UPDATE, 0, stream(at), &[0; 4])].concat()),
        ),
        (
            "reset by a window that overflows",
            Box::new(move |at| [open(at), frame(WINDOW_UPDATE, 0, stream(at), &[0x7f, 0xff, 0xff, 0xff])].concat()),
        ),
        (
            "reset by a stream on itself",
            Box::new(move |at| {
                [open(at), frame(PRIORITY, 0, stream(at), &[&stream(at).to_be_bytes()[..], &[0]].concat())].concat()
            }),
        ),
        (
            "reset by DATA after the end",
            Box::new(move |at| [headers(stream(at), base, true), frame(DATA, 0, stream(at), b"x")].concat()),
        ),
        (
            "CONTINUATION",
            Box::new(move |at| match at {
                0 => frame(HEADERS, 0, 1, &block(base)),
                _ => frame(CONTINUATION, 0, 1, &block(&[("x-a", "1")])),
            }),
        ),
        ("empty CONTINUATION", Box::new(move |at| frame(if at == 0 { HEADERS } else { CONTINUATION }, 0, 1, b""))),
        ("empty DATA", Box::new(move |at| if at == 0 { open(0) } else { frame(DATA, 0, 1, b"") })),
        ("SETTINGS", Box::new(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]))),
        ("PING", Box::new(|_| frame(PING, 0, 0, &[7; 8]))),
        ("PRIORITY", Box::new(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]))),
        ("what is not known", Box::new(|_| frame(0xbe, 0, 0, b"x"))),
    ]
}

#[tokio::test]
async fn floods_end_their_connection_and_nobody_elses() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["api-1000000"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let base: Fields<'_> = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", "/api/flood"),
        ("authorization", &bearer),
    ];
    let mut other = Client::plain(world.data).await;
    let fine = Request::get("/api/fine").bearer(&buyer.key);
    other.call(&fine).await.expect(200);
    let before = world.gateway.resident_bytes();
    for (what, piece) in &floods(&base) {
        let begun = Instant::now();
        let mut wire = Wire::connect(world.data).await.unwrap();
        wire.send(PREFACE).await.unwrap();
        wire.send(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        let flood = async {
            for at in 0..200_000_u32 {
                if wire.send(&piece(at)).await.is_err() {
                    return true;
                }
            }
            matches!(wire.end().await, End::Eof | End::Reset)
        };
        assert!(within(&format!("the connection ends: {what}"), flood).await, "{what}");
        eprintln!("a flood of {what}: the connection was ended after {:?}", begun.elapsed());
        other.call(&fine).await.expect(200);
    }
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more after all floods");
    eprintln!("after all floods the gateway holds {} KiB more", grown / 1024);
    let metrics = world.quiet().await;
    assert!(metrics.sum("tollgate_http2_floods_total", &[]) >= 4.0);
    assert_eq!(world.admin.get("/livez").await.status(), 200);
}

#[tokio::test]
async fn heads_that_unpack_to_megabytes_are_refused_and_hold_nothing() {
    const HEADS: u32 = 20;
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let buyer = world.buyer(&["api-1000"]).await;
    let bearer = format!("Bearer {}", buyer.key);
    let base = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "api.test"),
        (":path", "/api/bomb"),
        ("authorization", &bearer),
    ];
    let mut other = Client::plain(world.data).await;
    let fine = Request::get(GOOD).bearer(&buyer.key);
    other.call(&fine).await.expect(200);
    let before = world.gateway.resident_bytes();
    let (mut raw, mut peak, mut slowest) = (Raw::connect(world.data).await, 0, Duration::ZERO);
    let (mut refused, mut ended) = (0, 0);
    for at in 0..HEADS {
        // An entry of 4,000 bytes in the table, and 11,000 times its index: 44 MB of fields in a frame of 16 KiB.
        let entry = [&[0x40, 0x01, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
        let head = [block(&base), entry, vec![0xbe; 11_000]].concat();
        let begun = Instant::now();
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &head)).await;
        match raw.outcome(2 * at + 1).await {
            Outcome::Answered(431, _) => refused += 1,
            Outcome::Ended(Some(_)) => {
                ended += 1;
                raw = Raw::connect(world.data).await;
            }
            other @ (Outcome::Answered(..) | Outcome::Reset(_) | Outcome::Ended(None)) => panic!("{other:?}"),
        }
        slowest = slowest.max(begun.elapsed());
        peak = peak.max(world.gateway.resident_bytes());
        other.call(&fine).await.expect(200);
    }
    let grown = peak.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert!(seller.requests().iter().all(|seen| seen.head.target() == GOOD));
    world.charged(HEADS + 1).await;
    eprintln!(
        "{HEADS} heads of 44 MB in 16 KiB: {refused} answered with 431, {ended} connections ended, the slowest after \
         {slowest:?}; {} KiB more at most",
        grown / 1024
    );
}

#[tokio::test]
async fn a_head_that_is_slow_and_a_preface_that_never_comes_end_the_connection() {
    let seller = Seller::plain().await;
    let world = world(&seller).await;
    let half = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; 40]);
    for begin in [&frame(HEADERS, 0, 1, b"")[..], &half[..30], &half[..4]] {
        let mut raw = Raw::connect(world.data).await;
        raw.send(begin).await;
        raw.end().await;
    }
    for begin in [&b"PR"[..], &PREFACE[..20]] {
        let mut wire = Wire::connect(world.data).await.unwrap();
        wire.send(begin).await.unwrap();
        within("the connection ends", wire.end()).await;
    }
    assert_eq!(seller.requests().len(), 0);
}
