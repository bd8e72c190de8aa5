//! What RFC 9113 and RFC 7541 say of frames, streams and header blocks, section by section, beside what the parent has.
//! The engine says PROTOCOL_ERROR where it could say more, as section 5.4 lets it.
//! Each case is sent after the preface and an empty SETTINGS; what matters is stream 1.

use super::{Expected, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, FRAMES, Fields, GOOD, PROTOCOL_ERROR, with};
use crate::harness::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, headers,
};
use Expected::{Ends, Late, Reset, Status};

/// A case's name, which begins with its section, its bytes, and what must come of it.
pub(super) type Case = (&'static str, Vec<u8>, Expected);

/// HEADERS that depend on a stream (RFC 9113 section 6.2).
const PRIORITY_FLAG: u8 = 0x20;
const ACK: u8 = 1;

/// Settings that are not as the engine's own (RFC 9113 section 6.5.2).
const TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const WINDOW: u16 = 4;
const LARGEST_FRAME: u16 = 5;

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn room(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

/// All of them.
pub(super) fn cases(get: &Fields<'_>) -> Vec<Case> {
    let post = with(get, ":method", "POST");
    [frames(get, &post), streams(get, &post), controls(get), windows(get), messages(get, &post), blocks(get)].concat()
}

/// Sections 4 and 6.1 to 6.3: how frames are cut.
fn frames(get: &Fields<'_>, post: &Fields<'_>) -> Vec<Case> {
    let (whole, fine) = (block(get), with(post, ":path", GOOD));
    let (half, rest) = whole.split_at(whole.len() / 2);
    let (begin, goes_on) = (frame(HEADERS, END_STREAM, 1, half), frame(CONTINUATION, END_HEADERS, 1, rest));
    let padded = |length: u8, padding: &[u8]| [&[length][..], &whole, padding].concat();
    let oversized = frame(HEADERS, END_STREAM | END_HEADERS, 1, &vec![0; 16_385]);
    let depends = |on: u32| [&on.to_be_bytes()[..], &[15], &whole].concat();
    let prior = HEADERS_WHOLE | PRIORITY_FLAG;
    vec![
        ("4.1 a frame of an unknown kind", [frame(0x16, 0xff, 1, b"x"), headers(1, get, true)].concat(), Status(200)),
        (
            "4.1 flags that mean nothing",
            [frame(PING, 0xfe, 0, &[0; 8]), frame(HEADERS, HEADERS_WHOLE | 0xc2, 1, &whole)].concat(),
            Status(200),
        ),
        ("4.1 the reserved bit", headers(1 | 1 << 31, get, true), Status(200)),
        (
            "4.2 DATA of the largest size",
            [headers(1, &fine, false), frame(DATA, END_STREAM, 1, &vec![0; 16_384])].concat(),
            Status(200),
        ),
        ("4.2 DATA beyond it", [headers(1, post, false), frame(DATA, 0, 1, &vec![0; 16_385])].concat(), FRAME_SIZE),
        ("4.2 HEADERS beyond it", oversized, FRAME_SIZE),
        ("4.3 a head with PING inside", [&begin[..], &frame(PING, 0, 0, &[0; 8]), &goes_on].concat(), PROTOCOL),
        ("4.3 with PRIORITY inside", [&begin[..], &frame(PRIORITY, 0, 1, &[0; 5]), &goes_on].concat(), PROTOCOL),
        ("4.3 with an unknown frame inside", [&begin[..], &frame(0x16, 0, 1, b"x"), &goes_on].concat(), PROTOCOL),
        ("4.3 with another head inside", [&begin[..], &headers(3, get, true), &goes_on].concat(), PROTOCOL),
        ("4.3 in two parts", [&begin[..], &goes_on].concat(), Status(200)),
        ("6.10 CONTINUATION after the end", [headers(1, get, true), goes_on.clone()].concat(), PROTOCOL),
        ("6.10 of no stream", [&begin[..], &frame(CONTINUATION, END_HEADERS, 0, rest)].concat(), PROTOCOL),
        ("6.10 after DATA", [headers(1, post, false), frame(DATA, 0, 1, b"x"), goes_on.clone()].concat(), PROTOCOL),
        ("6.1 DATA with padding", [headers(1, &fine, false), padded_data(&[2, 1, 0, 0])].concat(), Status(200)),
        ("6.1 with no room for its padding", [headers(1, post, false), padded_data(&[4, 1, 0, 0])].concat(), PROTOCOL),
        ("6.1 without its padding's length", [headers(1, post, false), padded_data(&[])].concat(), PROTOCOL),
        ("6.2 HEADERS with padding", frame(HEADERS, HEADERS_WHOLE | PADDED, 1, &padded(9, &[0; 9])), Status(200)),
        ("6.2 with no room for it", frame(HEADERS, HEADERS_WHOLE | PADDED, 1, &padded(255, &[])), PROTOCOL),
        ("6.2 on a stream that is itself", frame(HEADERS, prior, 1, &depends(1)), RESET),
        ("6.2 on another stream", frame(HEADERS, prior, 1, &depends(99)), Status(200)),
        ("6.3 PRIORITY of no stream", frame(PRIORITY, 0, 0, &[0; 5]), PROTOCOL),
        ("6.3 PRIORITY of four bytes", [headers(1, post, false), frame(PRIORITY, 0, 1, &[0; 4])].concat(), PROTOCOL),
        (
            "6.3 PRIORITY before its stream",
            [frame(PRIORITY, 0, 1, &[0; 5]), headers(1, get, true)].concat(),
            Status(200),
        ),
    ]
}

const HEADERS_WHOLE: u8 = END_HEADERS | END_STREAM;
const PROTOCOL: Expected = Ends(PROTOCOL_ERROR);
const RESET: Expected = Reset(PROTOCOL_ERROR);
const FRAME_SIZE: Expected = Ends(FRAME_SIZE_ERROR);

fn padded_data(content: &[u8]) -> Vec<u8> {
    frame(DATA, PADDED | END_STREAM, 1, content)
}

/// Section 5: what a stream takes, and when.
fn streams(get: &Fields<'_>, post: &Fields<'_>) -> Vec<Case> {
    let open = headers(1, post, false);
    let ended = [&open[..], &frame(DATA, END_STREAM, 1, b"x")].concat();
    vec![
        ("5.1 WINDOW_UPDATE of an idle stream", room(1, 100), PROTOCOL),
        ("5.1 CONTINUATION of an idle stream", frame(CONTINUATION, END_HEADERS, 1, &block(get)), PROTOCOL),
        ("5.1 HEADERS after the end", [&ended[..], &headers(1, get, true)].concat(), Late),
        ("5.1 DATA after the end", [&ended[..], &frame(DATA, END_STREAM, 1, b"x")].concat(), Late),
        ("5.1 HEADERS after a reset", [&open[..], &reset(1), &headers(1, get, true)].concat(), Late),
        ("5.1 DATA after a reset", [&open[..], &reset(1), &frame(DATA, 0, 1, b"x")].concat(), Late),
        ("5.1.1 a lower stream", [headers(5, post, false), open].concat(), PROTOCOL),
    ]
}

/// Sections 6.4 to 6.8: frames of the connection.
fn controls(get: &Fields<'_>) -> Vec<Case> {
    let then = |first: Vec<u8>| [first, headers(1, get, true)].concat();
    vec![
        ("6.4 RST_STREAM of no stream", reset(0), PROTOCOL),
        ("6.4 of three bytes", [headers(1, get, false), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), PROTOCOL),
        ("6.5 an answer to SETTINGS with content", frame(SETTINGS, ACK, 0, &[0; 6]), PROTOCOL),
        ("6.5 SETTINGS of seven bytes", frame(SETTINGS, 0, 0, &[0; 7]), PROTOCOL),
        ("6.5.2 push switched to 2", setting(ENABLE_PUSH, 2), PROTOCOL),
        ("6.5.2 the widest window and one", setting(WINDOW, 1 << 31), PROTOCOL),
        ("6.5.2 frames of 16,383 bytes", setting(LARGEST_FRAME, 16_383), PROTOCOL),
        ("6.5.2 frames of 16 MiB", setting(LARGEST_FRAME, 1 << 24), PROTOCOL),
        ("6.5.2 a setting that is not known", then(setting(0xff, 1)), Status(200)),
        ("6.5.2 no table", then(setting(TABLE_SIZE, 0)), Status(200)),
        ("6.7 an answer to no PING", then(frame(PING, ACK, 0, &[1; 8])), Status(200)),
        ("6.7 PING of nine bytes", frame(PING, 0, 0, &[0; 9]), PROTOCOL),
        ("6.8 GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL),
        ("6.8 GOAWAY of seven bytes", frame(GOAWAY, 0, 0, &[0; 7]), PROTOCOL),
        ("6.6 PUSH_PROMISE of a new stream", frame(PUSH_PROMISE, END_HEADERS, 3, &[0, 0, 0, 4]), PROTOCOL),
    ]
}

/// Section 6.9: windows.
fn windows(get: &Fields<'_>) -> Vec<Case> {
    let open = headers(1, &with(get, ":method", "POST"), false);
    let wide = 0x7fff_ffff;
    vec![
        ("6.9 nothing more for a stream", [&open[..], &room(1, 0)].concat(), PROTOCOL),
        ("6.9 WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), PROTOCOL),
        ("6.9.1 the connection's beyond its bound", room(0, wide), Ends(FLOW_CONTROL_ERROR)),
        ("6.9.1 a stream's beyond its bound", [&open[..], &room(1, wide)].concat(), Reset(FLOW_CONTROL_ERROR)),
        (
            "6.9.1 a stream's in two steps",
            [&open[..], &room(1, wide - 65_535), &room(1, 1)].concat(),
            Reset(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.2 a window below nothing and up again",
            [setting(WINDOW, 1), headers(1, get, true), setting(WINDOW, 0), setting(WINDOW, 65_535)].concat(),
            Status(200),
        ),
        (
            "6.9.2 a stream's beyond its bound by SETTINGS",
            [&setting(WINDOW, 0)[..], &open, &room(1, wide), &setting(WINDOW, 1)].concat(),
            Ends(FLOW_CONTROL_ERROR),
        ),
    ]
}

/// Section 8: what a request is made of.
fn messages(get: &Fields<'_>, post: &Fields<'_>) -> Vec<Case> {
    let also = |name, value| headers(1, &[&get[..], &[(name, value)]].concat(), true);
    let behind = |moved: &str| {
        let (mut first, last): (Fields<'_>, Fields<'_>) = get.iter().copied().partition(|(name, _)| *name != moved);
        first.extend(last);
        headers(1, &first, true)
    };
    let fine = with(post, ":path", GOOD);
    let trailers = |fields: &[(&str, &str)], end| [headers(1, post, false), headers(1, fields, end)].concat();
    vec![
        ("8.1 trailers that do not end the stream", trailers(&[("x-t", "1")], false), RESET),
        ("8.1 trailers", [headers(1, &fine, false), headers(1, &[("x-t", "1")], true)].concat(), Status(200)),
        // The engine drops it, and trailers end at the gateway.
        (
            "8.1 trailers with a pseudo-header",
            [headers(1, &fine, false), headers(1, &[(":method", "GET")], true)].concat(),
            Status(200),
        ),
        ("8.2.1 trailers with a name in capitals", trailers(&[("X-T", "1")], true), PROTOCOL),
        ("8.2.1 a blank before a name", also(" x", "1"), PROTOCOL),
        ("8.2.1 a carriage return in a value", also("x-a", "a\rb"), PROTOCOL),
        ("8.2.2 transfer-encoding: gzip, chunked", also("transfer-encoding", "gzip, chunked"), RESET),
        ("8.2.2 te: trailers, deflate", also("te", "trailers, deflate"), RESET),
        ("8.2.2 te: trailers", also("te", "trailers"), Status(200)),
        ("8.3 :method behind a field", behind(":method"), RESET),
        ("8.3 :path behind a field", behind(":path"), RESET),
        ("8.3 :scheme behind a field", behind(":scheme"), RESET),
        ("8.3 :authority behind a field", behind(":authority"), RESET),
        ("8.3.1 two of :method", also(":method", "GET"), RESET),
        ("8.3.1 two of :scheme", also(":scheme", "http"), RESET),
        ("8.3.1 two of :authority", also(":authority", "api.test"), RESET),
        // The engine cuts it off before anybody here sees it: what is checked is what is forwarded.
        ("8.3.1 a path with a fragment", headers(1, &with(get, ":path", &format!("{FRAMES}#y")), true), Status(200)),
        ("8.3.1 OPTIONS *", headers(1, &with(&with(get, ":method", "OPTIONS"), ":path", "*"), true), Status(404)),
        (
            "8.1.1 a body that is longer in two frames",
            [
                headers(1, &[&post[..], &[("content-length", "3")]].concat(), false),
                frame(DATA, 0, 1, b"12"),
                frame(DATA, END_STREAM, 1, b"34"),
            ]
            .concat(),
            RESET,
        ),
        (
            "8.1.1 a body that ends with trailers too soon",
            [
                headers(1, &[&post[..], &[("content-length", "3")]].concat(), false),
                frame(DATA, 0, 1, b"12"),
                headers(1, &[("x-t", "1")], true),
            ]
            .concat(),
            RESET,
        ),
        ("8.5 CONNECT to a place", connect(&[(":method", "CONNECT"), (":authority", "a.test:443")]), Status(400)),
        ("8.5 CONNECT with a path", connect(&[(":method", "CONNECT"), (":authority", "a"), (":path", "/")]), RESET),
    ]
}

fn connect(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(1, fields, true)
}

/// RFC 7541: header blocks. Each stands in HEADERS behind or before a sane head.
fn blocks(get: &Fields<'_>) -> Vec<Case> {
    let sane = block(get);
    let head = |parts: &[&[u8]]| frame(HEADERS, HEADERS_WHOLE, 1, &parts.concat());
    let huffman = |code: &[u8]| [&[0x00, 0x01, b'x', 0x80 | code.len() as u8][..], code].concat();
    vec![
        ("2.3.3 an index beyond both tables", head(&[&sane, &[0xbf]]), PROTOCOL),
        ("2.3.3 a name's index beyond both tables", head(&[&sane, &[0x7f, 0x10, 0x01, b'a']]), PROTOCOL),
        ("6.1 index 0", head(&[&sane, &[0x80]]), PROTOCOL),
        ("4.2 a change of the table's size at the end", head(&[&sane, &[0x3f, 0x01]]), PROTOCOL),
        ("4.2 at the beginning", head(&[&[0x20], &sane]), Status(200)),
        ("6.3 a table beyond what is allowed", head(&[&[0x3f, 0xe2, 0x1f], &sane]), PROTOCOL),
        (
            "5.1 an integer that does not end",
            head(&[&sane, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]),
            PROTOCOL,
        ),
        ("5.1 an integer that breaks off", head(&[&sane, &[0xff]]), PROTOCOL),
        ("5.2 a text that breaks off", head(&[&sane, &[0x00, 0x7f]]), PROTOCOL),
        ("5.2 a text longer than the block", head(&[&sane, &[0x00, 0x05, b'a']]), PROTOCOL),
        ("5.2 Huffman code", head(&[&sane, &huffman(&[0x1f])]), Status(200)),
        ("5.2 padded with zeros", head(&[&sane, &huffman(&[0x18])]), PROTOCOL),
        ("5.2 padded with a byte", head(&[&sane, &huffman(&[0x1f, 0xff])]), PROTOCOL),
        ("5.2 with the end in it", head(&[&sane, &huffman(&[0xff, 0xff, 0xff, 0xff])]), PROTOCOL),
        ("6.2.1 a field that is too large for the table", head(&[&sane, &large()]), Status(200)),
        ("6.2.3 a field that is never indexed", head(&[&sane, &[0x10, 0x01, b'x', 0x01, b'1']]), Status(200)),
    ]
}

/// A literal with indexing of 5,000 bytes: more than the table of 4,096 holds, which empties it (section 4.4).
fn large() -> Vec<u8> {
    let mut field = vec![0x40, 0x01, b'x', 0x7f, 0x89, 0x26]; // 127 + 9 + 38 * 128 = 5,000
    field.extend([b'y'; 5_000]);
    field
}
