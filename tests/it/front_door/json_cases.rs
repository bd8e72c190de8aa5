//! Generated JSON bodies: what parsers read differently, and what has taken servers down.

use super::json_reader::read;
use super::run::{Case, Expect};
use crate::harness::rng::Rng;

const PATH: &str = "/v1/infers/chat/v1/chat/completions";
const GOOD: &str = r#"{"model":"m","messages":[{"role":"user","content":"h\u00e9 \"x\""}],"stream":false,"n":1}"#;
/// Bodies that differ from a good one in one to three bytes.
const ALTERED: u64 = 200;

/// Whom a body is sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// One that may call the model `m` alone: what is read must be what the strict reader reads.
    OneModel,
    /// One that may call any.
    AnyModel,
}

/// All bodies, under one content type.
pub(crate) fn cases(key: Key, content_type: &str) -> Vec<Case> {
    let groups = [
        ("json: cut short", cut()),
        ("json: altered", altered()),
        ("json: keys", keys()),
        ("json: values", values()),
        ("json: syntax", syntax()),
        ("json: encoding", encodings()),
        ("json: depth", depths()),
    ];
    let with_group = |(group, bodies): (&'static str, Vec<Vec<u8>>)| bodies.into_iter().map(move |body| (group, body));
    let bodies = groups.into_iter().flat_map(with_group);
    bodies
        .map(|(group, body)| Case {
            group,
            expect: expected(&body, key, content_type),
            bytes: request(content_type, &body),
        })
        .collect()
}

fn request(content_type: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {PATH} HTTP/1.1\r\nHost: api.test\r\n@AUTH@{content_type}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What the strict reader makes of it.
fn expected(body: &[u8], key: Key, content_type: &str) -> Expect {
    let says_json = content_type.contains("application/json");
    let before = |byte: &u8| byte.is_ascii_whitespace() || b"\0\x0b\xef\xbb\xbf\xfe\xff".contains(byte);
    let like_an_object = || body.iter().find(|byte| !before(byte)) == Some(&b'{');
    let accepted = match (read(body), key) {
        (_, Key::OneModel) if body.is_empty() => true, // nothing that names a model
        (Some(reading), Key::OneModel) => reading.model.as_deref() == Some("m"),
        (None, Key::OneModel) => false,
        (Some(_), Key::AnyModel) => true,
        (None, Key::AnyModel) => body.is_empty() || !(says_json || like_an_object()),
    };
    if accepted { Expect::Accepted } else { Expect::Refused }
}

/// Cut after each byte.
fn cut() -> Vec<Vec<u8>> {
    (0..=GOOD.len()).map(|end| GOOD.as_bytes()[..end].to_vec()).collect()
}

fn altered() -> Vec<Vec<u8>> {
    let mut rng = Rng::new(11);
    let letters = b"\"\\{}[]:,.-+eE019ntfu \t\r\n\0\x1f\x7f\x80\xc3\xed\xff/*'mM";
    let alter = |_| {
        let mut body = GOOD.as_bytes().to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(body.len() as u64) as usize;
            let letter = letters[rng.below(letters.len() as u64) as usize];
            match rng.below(3) {
                0 => body[at] = letter,
                1 => body.insert(at, letter),
                _ => drop(body.remove(at)),
            }
        }
        body
    };
    (0..ALTERED).map(alter).collect()
}

/// Two spellings of each key that decides, in both orders, equal or not; at the top and below it.
fn keys() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for (key, values, spellings) in [
        (
            "model",
            ["\"m\"", "\"other\""],
            ["model", "Model", "MODEL", "mod\\u0065l", "\\u006dodel", "\\u004dodel", "model ", "modél"],
        ),
        (
            "stream",
            ["true", "false"],
            ["stream", "Stream", "STREAM", "stre\\u0061m", "ſtream", "\\u017ftream", " stream", "str\\u0000eam"],
        ),
        ("n", ["1", "1000000000"], ["n", "N", "\\u006e", "\\u004e", "n ", "ｎ", "n\\u0000", "ŋ"]),
    ] {
        for other in spellings {
            for (first, second) in [(values[0], values[1]), (values[1], values[0]), (values[0], values[0])] {
                let rest = if key == "model" { "" } else { "\"model\":\"m\"," };
                bodies.push(format!("{{{rest}\"{key}\":{first},\"{other}\":{second}}}"));
                bodies.push(format!("{{{rest}\"{other}\":{first},\"x\":[],\"{key}\":{second}}}"));
            }
            bodies.push(format!("{{\"{other}\":{}}}", values[0]));
            bodies.push(format!("{{\"model\":\"m\",\"x\":{{\"{other}\":1,\"{key}\":2}}}}"));
        }
    }
    bodies.push(r#"{"model":"m","\ud800":1}"#.into());
    bodies.push(r#"{"model":"m","":1,"":2}"#.into());
    bodies.push(r#"{"model":"m","__proto__":{"model":"other"}}"#.into());
    bodies.push(format!("{{{}\"model\":\"m\"}}", (0..10_000).map(|n| format!("\"k{n}\":1,")).collect::<String>()));
    bodies.push(format!("{{\"{}\":1,\"model\":\"m\"}}", "model".repeat(10_000)));
    bodies.into_iter().map(String::into_bytes).collect()
}

/// Numbers, and what looks like some.
const NUMBERS: &[&str] = &[
    "1e999",
    "-1e999",
    "1E400",
    "1e-999",
    "-0",
    "0.1e+1",
    "123456789012345678901234567890",
    "18446744073709551616",
    "-9223372036854775809",
    "1e9",
    "01",
    "00",
    "+1",
    ".5",
    "1.",
    "1e",
    "1e+",
    "0x1",
    "1_000",
    "NaN",
    "Infinity",
    "-Infinity",
    "-",
    "١",
    "1 2",
    "1,2",
];

/// Other values, right and wrong.
const OTHERS: &[&str] = &[
    "null",
    "true",
    "True",
    "FALSE",
    "nul",
    "undefined",
    "none",
    "\"\"",
    "\"true\"",
    "\"1\"",
    "[]",
    "[true]",
    "{}",
    "[null,]",
    "{,}",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\"\\u0000\"",
    "\"\\x41\"",
    "\"\\u00\"",
    "\"\\uD83\"",
    "\"\\\"",
    "\"\t\"",
    "\"\n\"",
    "'m'",
    "m",
    "`m`",
    "\"m\" \"m\"",
    "",
    " ",
    "//",
    "/**/1",
    "\"m\\u0000\"",
    "\"m \"",
    "\" m\"",
    "\"M\"",
    "\"ｍ\"",
    "\"m\\n\"",
    "\"\\u006d\"",
    "\"\\u006D\"",
];

fn values() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for value in NUMBERS.iter().chain(OTHERS) {
        bodies.push(format!("{{\"model\":\"m\",\"n\":{value}}}"));
        bodies.push(format!("{{\"model\":{value}}}"));
        bodies.push(format!("{{\"model\":\"m\",\"stream\":{value}}}"));
    }
    bodies.push(format!("{{\"model\":\"m\",\"n\":{}}}", "9".repeat(100_000)));
    bodies.push(format!("{{\"model\":\"m\",\"n\":0.{}1}}", "0".repeat(100_000)));
    bodies.push(format!("{{\"model\":\"m\",\"n\":1e{}}}", "9".repeat(100_000)));
    bodies.push(format!("{{\"model\":\"{}\"}}", "m".repeat(256)));
    bodies.into_iter().map(String::into_bytes).collect()
}

fn syntax() -> Vec<Vec<u8>> {
    let around = [
        "x", "{}", ",", "]", "}", "\0", "\n", " ", "\t", "//c", "/*c*/", "#c", ";", "\u{a0}", "\u{c}", "\u{b}",
        "\u{2028}", "\u{feff}", "0", "\"\"", "null", "\r\n\r\n", "\u{1e}",
    ];
    let mut bodies: Vec<String> =
        around.iter().flat_map(|more| [format!("{GOOD}{more}"), format!("{more}{GOOD}")]).collect();
    bodies.extend(
        [
            "",
            " ",
            "{",
            "}",
            "[",
            "\"",
            "{}",
            "[]",
            "null",
            "0",
            "\"model\"",
            "[{\"model\":\"m\"}]",
            "{\"model\":\"m\",}",
            "{,\"model\":\"m\"}",
            "{\"model\" \"m\"}",
            "{\"model\"=\"m\"}",
            "{\"model\"::\"m\"}",
            "{\"model\":\"m\";}",
            "{model:\"m\"}",
            "{'model':'m'}",
            "{\"model\":\"m\"\"n\":1}",
            "{\"model\":\"m\",,\"n\":1}",
            "{\"model\":}",
            "{\"model\"}",
            "{:\"m\"}",
            "{1:\"m\"}",
            "{null:\"m\"}",
            "({\"model\":\"m\"})",
            ")]}',\n{\"model\":\"m\"}",
            "model=m",
            "model=m&stream=true",
            "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x--",
            "<model>m</model>",
            "model: m",
            "---\nmodel: m",
            "{\"model\":\"m\"}\n{\"model\":\"other\"}",
        ]
        .map(str::to_owned),
    );
    bodies.into_iter().map(String::into_bytes).collect()
}

fn encodings() -> Vec<Vec<u8>> {
    let wide = |text: &str, big: bool| {
        text.encode_utf16()
            .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect::<Vec<u8>>()
    };
    let wider = |text: &str, big: bool| {
        text.chars()
            .map(u32::from)
            .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect::<Vec<u8>>()
    };
    let marked = format!("\u{feff}{GOOD}");
    let mut bodies = vec![
        marked.clone().into_bytes(),
        [b"\xff\xfe", GOOD.as_bytes()].concat(),
        [b"\xfe\xff", GOOD.as_bytes()].concat(),
        [b"\x1f\x8b", GOOD.as_bytes()].concat(),
    ];
    for text in [GOOD, &marked] {
        bodies.extend([false, true].map(|big| wide(text, big)));
        bodies.extend([false, true].map(|big| wider(text, big)));
    }
    // Within a string and as a key: overlong forms, halves of a pair, beyond the last letter, cut short, lone bytes.
    for bad in [
        &b"\xc0\xaf"[..],
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xa0\xbd\xed\xb8\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\x80",
        b"\xff",
        b"\xe9",
        b"\xc3\x28",
        b"\xef\xbf\xbf",
        b"\xf0\x9f\x98\x80",
        b"\xef\xbb\xbf",
    ] {
        for (before, after) in [
            ("{\"model\":\"m\",\"x\":\"", "\"}"),
            ("{\"model\":\"m\",\"", "\":1}"),
            ("{\"model\":\"", "\"}"),
            ("{\"model\":\"m\"}", ""),
        ] {
            bodies.push([before.as_bytes(), bad, after.as_bytes()].concat());
        }
    }
    bodies
}

fn depths() -> Vec<Vec<u8>> {
    let nested = |open: &str, close: &str, depth: usize, closed: usize| {
        format!("{{\"model\":\"m\",\"x\":{}1{}}}", open.repeat(depth), close.repeat(closed)).into_bytes()
    };
    let mut bodies = Vec::new();
    for depth in [1, 127, 128, 129, 1_000, 10_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"model\":", "}]")] {
            bodies.push(nested(open, close, depth, depth));
            bodies.push(nested(open, close, depth, depth - 1));
            bodies.push(nested(open, close, depth, depth + 1));
            bodies.push(open.repeat(depth).into_bytes());
        }
    }
    bodies
}

/// Bodies of the largest size and one byte more, announced and in chunks.
pub(crate) fn sizes(max: usize) -> Vec<Case> {
    let of = |bytes: usize| {
        let frame = r#"{"model":"m","x":""}"#;
        format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(bytes - frame.len())).into_bytes()
    };
    let chunked = |body: &[u8]| {
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nHost: api.test\r\n@AUTH@Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        [format!("{head}{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
    };
    let json = "Content-Type: application/json\r\n";
    let announced =
        format!("POST {PATH} HTTP/1.1\r\nHost: api.test\r\n@AUTH@{json}Content-Length: {}\r\n\r\n", max + 1)
            .into_bytes();
    let case = |expect, bytes| Case { group: "json: size", expect, bytes };
    vec![
        case(Expect::Accepted, request(json, &of(max))),
        case(Expect::Accepted, chunked(&of(max))),
        case(Expect::Refused, announced),
        case(Expect::Refused, chunked(&of(max + 1))),
    ]
}
