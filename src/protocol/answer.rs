//! The head of a seller's answer, as it stands on the wire: what it says, and where its body ends. What a buyer could
//! read otherwise than we did is refused here (RFC 9112 section 6.3).

use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::{Header, ParserConfig, Response, Status};

use super::framing::BodyFollower;
use super::head::{Framing, LENGTH_MAX};

/// Largest head of an answer, in bytes; interim answers before it count while it is not whole.
pub const ANSWER_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields of it.
pub const ANSWER_FIELDS_MAX: usize = 100;

/// Why an answer is refused. Its connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// No head of HTTP/1.
    #[error("its head is no head of HTTP/1: {0}")]
    Malformed(httparse::Error),
    /// More than [`ANSWER_HEAD_BYTES_MAX`].
    #[error("its head is larger than 64 KiB")]
    HeadTooLarge,
    /// Both a `Content-Length` and a `Transfer-Encoding`.
    #[error("it has both a length and a transfer coding")]
    TwoLengths,
    /// More than one `Content-Length`, or one that is no number.
    #[error("its length stands there more than once, or is no number")]
    LengthListed,
    /// A transfer coding that is not `chunked` alone.
    #[error("its transfer coding is not chunked alone")]
    Coding,
    /// A number that is no status.
    #[error("its status is none")]
    NoStatus,
    /// A status that switches protocols, which nobody asked for.
    #[error("it switches protocols")]
    Switched,
}

/// Where an answer's body ends.
#[derive(Clone, Debug)]
pub enum AnswerEnd {
    /// Where its framing says.
    Framed(BodyFollower),
    /// Where the connection does.
    UntilClose,
}

/// What a head says; its parts are places in the bytes that were read.
#[derive(Clone, Debug)]
pub struct AnswerHead<'a> {
    /// Its status: a final one.
    pub status: u16,
    /// The reason phrase.
    pub reason: &'a str,
    /// Its fields, as they stand there.
    pub fields: &'a [Header<'a>],
    /// Where its body ends.
    pub end: AnswerEnd,
    /// Whether another request may follow on the connection, once the body has ended.
    pub keeps: bool,
    /// Whether `Connection` may name fields that end at this hop.
    pub names_fields: bool,
    /// Where it stands: what comes before are interim answers, what comes after is the body.
    pub place: Range<usize>,
}

/// Room for a head's fields.
pub type FieldRoom<'a> = [MaybeUninit<Header<'a>>; ANSWER_FIELDS_MAX];

/// Reads the head that ends an exchange with the method HEAD or another. Interim answers before it are skipped. `None`:
/// it is not whole.
///
/// # Errors
/// [`AnswerFault`].
pub fn read_answer<'a>(
    bytes: &'a [u8],
    is_head: bool,
    room: &'a mut FieldRoom<'a>,
) -> Result<Option<AnswerHead<'a>>, AnswerFault> {
    let Some(begin) = skip_interim(bytes)? else { return Ok(None) };
    let rest = bytes.get(begin..).unwrap_or_default();
    let mut response = Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut response, rest, room);
    let Some(length) = whole(parsed, bytes)? else { return Ok(None) };
    let Response { code, version, reason, headers } = response;
    let (status, reason, fields) = (code.unwrap_or_default(), reason.unwrap_or_default(), &*headers);
    if status < 200 {
        return Err(AnswerFault::Switched);
    }
    let options = Options::of(fields);
    let framing = framing(fields)?;
    let end = match framing {
        _ if is_head || matches!(status, 204 | 304) => AnswerEnd::Framed(BodyFollower::of_answer(Framing::None)),
        Some(framing) => AnswerEnd::Framed(BodyFollower::of_answer(framing)),
        None => AnswerEnd::UntilClose,
    };
    let keeps = match version {
        Some(1) => !options.close,
        _ => options.keep_alive && !options.close,
    };
    Ok(Some(AnswerHead {
        status,
        reason,
        fields,
        end,
        keeps,
        names_fields: options.others,
        place: begin..begin.saturating_add(length),
    }))
}

/// Where the final head begins. Interim answers (RFC 9110 section 15.2) say nothing that a buyer waits for.
fn skip_interim(bytes: &[u8]) -> Result<Option<usize>, AnswerFault> {
    let mut begin = 0;
    loop {
        let rest = bytes.get(begin..).unwrap_or_default();
        // What is no interim answer for certain is read with its fields.
        if !rest.get(..10).is_some_and(|line| line.starts_with(b"HTTP/1.") && line.ends_with(b" 1")) {
            return Ok(Some(begin));
        }
        let mut room = [MaybeUninit::uninit(); ANSWER_FIELDS_MAX];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut response, rest, &mut room);
        match whole(parsed, bytes)? {
            None => return Ok(None),
            Some(_) if response.code == Some(101) => return Ok(Some(begin)),
            Some(length) => begin = begin.saturating_add(length),
        }
    }
}

/// The length of a head, once it is whole. `bytes` are all that have come.
fn whole(parsed: httparse::Result<usize>, bytes: &[u8]) -> Result<Option<usize>, AnswerFault> {
    match parsed.map_err(AnswerFault::Malformed)? {
        Status::Complete(length) if length <= ANSWER_HEAD_BYTES_MAX => Ok(Some(length)),
        Status::Partial if bytes.len() <= ANSWER_HEAD_BYTES_MAX => Ok(None),
        Status::Complete(_) | Status::Partial => Err(AnswerFault::HeadTooLarge),
    }
}

/// How the fields delimit the body, if they do.
fn framing(fields: &[Header<'_>]) -> Result<Option<Framing>, AnswerFault> {
    let named = |name: &'static str| {
        let values = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        values.map(|field| field.value)
    };
    let (mut lengths, mut codings) = (named("content-length"), named("transfer-encoding"));
    match (lengths.next(), codings.next()) {
        (Some(_), Some(_)) => Err(AnswerFault::TwoLengths),
        (Some(length), None) => {
            let length = number(length).filter(|_| lengths.next().is_none());
            length.map(|length| Some(Framing::Length(length))).ok_or(AnswerFault::LengthListed)
        }
        (None, Some(coding)) if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") => {
            Err(AnswerFault::Coding)
        }
        (None, Some(_)) => Ok(Some(Framing::Chunked)),
        (None, None) => Ok(None),
    }
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
    digits.parse().ok().filter(|number| *number <= LENGTH_MAX)
}

/// What `Connection` says of the connection.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    others: bool,
}

impl Options {
    fn of(fields: &[Header<'_>]) -> Self {
        let mut options = Self::default();
        for name in connection_options(fields) {
            match name {
                name if name.eq_ignore_ascii_case(b"close") => options.close = true,
                name if name.eq_ignore_ascii_case(b"keep-alive") => options.keep_alive = true,
                _ => options.others = true,
            }
        }
        options
    }
}

/// The options of `Connection`, among them the names of fields that end at this hop.
pub fn connection_options<'a>(fields: &'a [Header<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let values = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("connection")).map(|field| field.value);
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use AnswerFault as F;

    /// What was read of a head: its status, whether the connection is kept, how much of the bytes follows it, and how its
    /// body ends.
    fn read(text: &str, is_head: bool) -> Result<Option<(u16, bool, usize, &'static str)>, AnswerFault> {
        let mut room = [MaybeUninit::uninit(); ANSWER_FIELDS_MAX];
        let head = read_answer(text.as_bytes(), is_head, &mut room)?;
        Ok(head.map(|head| {
            let end = match &head.end {
                AnswerEnd::UntilClose => "close",
                AnswerEnd::Framed(follower) => match follower.left() {
                    None => "chunks",
                    Some(0) => "none",
                    Some(_) => "length",
                },
            };
            (head.status, head.keeps, text.len() - head.place.end, end)
        }))
    }

    #[test]
    fn where_answers_end_and_whether_their_connection_is_kept() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, true, 5, "length")),
            ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (200, true, 0, "none")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0", (200, true, 1, "chunks")),
            ("HTTP/1.1 200 OK\r\n\r\nhello", (200, true, 5, "close")),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", (204, true, 0, "none")),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", (304, true, 0, "none")),
            ("HTTP/1.1 205 Reset Content\r\nContent-Length: 1\r\n\r\nx", (205, true, 1, "length")),
            ("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\n", (200, false, 0, "length")),
            ("HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 1\r\n\r\n", (200, false, 0, "length")),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", (200, false, 0, "length")),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", (200, true, 0, "length")),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
                (201, true, 2, "length"),
            ),
        ] {
            assert_eq!(read(text, false), Ok(Some(expected)), "{text:?}");
        }
        for framing in ["Content-Length: 5", "Transfer-Encoding: chunked", "X: y"] {
            let text = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
            assert_eq!(read(&text, true), Ok(Some((200, true, 0, "none"))), "{framing}");
        }
    }

    #[test]
    fn a_head_that_is_cut_anywhere_is_waited_for() {
        let text = "HTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(read(&text[..cut], false), Ok(None), "cut at {cut}");
        }
        assert_eq!(read(text, false), Ok(Some((200, true, 0, "length"))));
    }

    #[test]
    fn what_others_could_read_otherwise_is_refused() {
        let two = "9223372036854775808";
        for (fields, fault) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", F::TwoLengths),
            ("Content-Length: 5\r\nContent-Length: 5", F::LengthListed),
            ("Content-Length: 5, 5", F::LengthListed),
            ("Content-Length: +5", F::LengthListed),
            ("Content-Length: -1", F::LengthListed),
            ("Content-Length: 0x5", F::LengthListed),
            ("Content-Length:", F::LengthListed),
            (&format!("Content-Length: {two}"), F::LengthListed),
            ("Transfer-Encoding: gzip, chunked", F::Coding),
            ("Transfer-Encoding: gzip", F::Coding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", F::Coding),
            ("Transfer-Encoding:", F::Coding),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert_eq!(read(&text, false), Err(fault), "{fields:?}");
            assert_eq!(read(&text, true), Err(fault), "{fields:?} after HEAD");
        }
        assert_eq!(read("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false), Err(F::Switched));
        for text in [
            "garbage\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            "HTTP/1.1 200 OK\r\n y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 1x0 A\r\n\r\n",
        ] {
            assert!(matches!(read(text, false), Err(F::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn heads_are_bounded() {
        let filled = |bytes: usize| {
            let frame = "HTTP/1.1 204 A\r\nX: \r\n\r\n".len();
            format!("HTTP/1.1 204 A\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame))
        };
        assert!(matches!(read(&filled(ANSWER_HEAD_BYTES_MAX), false), Ok(Some(_))));
        assert_eq!(read(&filled(ANSWER_HEAD_BYTES_MAX + 1), false), Err(F::HeadTooLarge));
        assert_eq!(read(&filled(2 * ANSWER_HEAD_BYTES_MAX)[..ANSWER_HEAD_BYTES_MAX + 1], false), Err(F::HeadTooLarge));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let waited = interim.repeat(ANSWER_HEAD_BYTES_MAX / interim.len());
        assert_eq!(read(&waited, false), Ok(None));
        assert_eq!(read(&format!("{waited}{interim}{interim}"), false), Err(F::HeadTooLarge));
        let fields = |count: usize| format!("HTTP/1.1 204 A\r\n{}\r\n", "X: y\r\n".repeat(count));
        assert!(matches!(read(&fields(ANSWER_FIELDS_MAX), false), Ok(Some(_))));
        assert!(matches!(read(&fields(ANSWER_FIELDS_MAX + 1), false), Err(F::Malformed(_))));
    }

    #[test]
    fn options_of_the_connection_name_fields() {
        let text = "HTTP/1.1 204 A\r\nConnection: close, X-Hop ,\r\nX-Hop: 1\r\nconnection: y\r\n\r\n";
        let mut room = [MaybeUninit::uninit(); ANSWER_FIELDS_MAX];
        let head = read_answer(text.as_bytes(), false, &mut room).unwrap().unwrap();
        assert!(head.names_fields);
        let named: Vec<&[u8]> = connection_options(head.fields).collect();
        assert_eq!(named, [&b"close"[..], b"X-Hop", b"", b"y"]);
    }
}
