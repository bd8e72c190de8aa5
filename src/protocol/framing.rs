//! Follows a body's framing over whatever reads it arrives in: of a request, so that the gate knows where the next head
//! begins; of a seller's answer, to find the data in it. The bytes are neither kept nor changed; memory is constant.

mod trailers;

pub use trailers::check_trailer;

use self::trailers::{TrailerState, Trailers};
use super::head::{Framing, LENGTH_MAX};

/// Most digits of a chunk's size: a 64-bit number in hexadecimal.
pub const SIZE_DIGITS_MAX: u32 = 16;

/// Most bytes of chunk extensions in one request's body. Nobody uses them; half of what the engine takes.
pub const EXTENSION_BYTES_MAX: u32 = 8 * 1024;

/// The same in one chunk of an answer: some storage signs each chunk of a long answer there.
pub const ANSWER_EXTENSION_BYTES_MAX: u32 = 16 * 1024;

/// Largest trailer section, in bytes, without the empty line that closes it.
pub const TRAILER_BYTES_MAX: u32 = 8 * 1024;

/// Most trailer lines.
pub const TRAILER_FIELDS_MAX: u32 = 32;

/// The same of an answer, whose trailers end at the gateway.
pub const ANSWER_TRAILER_BYTES_MAX: u32 = 64 * 1024;
/// The same.
pub const ANSWER_TRAILER_FIELDS_MAX: u32 = 100;

/// How far a body got with the bytes it was fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// How many of the bytes belong to the body and its framing.
    pub consumed: usize,
    /// Whether the body has ended: what was not consumed begins the next head.
    pub done: bool,
}

/// Why a chunked body is refused. The connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingFault {
    /// No digit, or a byte that is none.
    #[error("a chunk size is not a plain hexadecimal number; send digits, then carriage return and line feed")]
    Size,
    /// More than [`SIZE_DIGITS_MAX`] digits, or more than [`LENGTH_MAX`].
    #[error("a chunk size is too large; send smaller chunks")]
    SizeTooLarge,
    /// An empty extension, or a byte in it that is not visible ASCII, a space or a tab.
    #[error("a chunk extension is malformed; send chunks without extensions")]
    Extension,
    /// More than [`EXTENSION_BYTES_MAX`] in one body, or [`ANSWER_EXTENSION_BYTES_MAX`] in one chunk of an answer.
    #[error("the chunk extensions are too long; send chunks without extensions")]
    ExtensionsTooLong,
    /// A line or a chunk's data that does not end with exactly one CRLF.
    #[error("a chunk line or chunk does not end with carriage return and line feed where its size says")]
    LineEnd,
    /// A trailer line that is not name, colon and value.
    #[error("a trailer line is malformed; send name, colon and value, or no trailers")]
    Trailer,
    /// A trailer that frames, routes or authenticates.
    #[error("a trailer holds a field that belongs into the head; send it there or not at all")]
    TrailerForbidden,
    /// More than [`TRAILER_BYTES_MAX`] or [`TRAILER_FIELDS_MAX`], or an answer's bounds.
    #[error("the trailers are too large; send fewer")]
    TrailersTooLarge,
}

/// Follows one body. After a fault every further call returns that fault.
#[derive(Clone, Debug)]
pub struct BodyFollower {
    state: State,
    /// Whether it is a seller's: what cannot mislead anyone is taken as it comes there, for we cut the body anew.
    answer: bool,
    extension_bytes: u32,
    trailers: Trailers,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes are left of a body with a length.
    Length(u64),
    /// In a chunk's size: what its digits say so far, and how many there were.
    Size {
        size: u64,
        digits: u32,
    },
    /// In the extension of a chunk of this size.
    Extension {
        size: u64,
        empty: bool,
    },
    /// The line feed of a chunk line must come.
    SizeLineFeed {
        size: u64,
    },
    /// So many bytes are left of the chunk.
    Data(u64),
    /// The CRLF after a chunk's data must come.
    DataReturn,
    DataLineFeed,
    Trailers(TrailerState),
    Done,
    Faulted(FramingFault),
}

impl BodyFollower {
    /// Follows the body of a head with this framing, from its first byte.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
        };
        Self { state, answer: false, extension_bytes: 0, trailers: Trailers::default() }
    }

    /// Follows the body of a seller's answer.
    pub fn of_answer(framing: Framing) -> Self {
        Self { answer: true, trailers: Trailers::of_answer(), ..Self::new(framing) }
    }

    /// How many bytes of data are still to come, if that is known.
    pub fn left(&self) -> Option<u64> {
        if let State::Length(left) = self.state { Some(left) } else { matches!(self.state, State::Done).then_some(0) }
    }

    /// Takes the next bytes of the connection, as many of them as belong to this body.
    ///
    /// # Errors
    /// The first [`FramingFault`]; it is the same however the bytes were cut.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, FramingFault> {
        self.feed_into(bytes, |_| ())
    }

    /// The same; hands the data among them over.
    ///
    /// # Errors
    /// As [`BodyFollower::feed`].
    pub fn feed_into(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<Fed, FramingFault> {
        let mut rest = bytes;
        loop {
            match self.state {
                State::Done => break,
                State::Faulted(fault) => return Err(fault),
                State::Length(left) => {
                    let (here, left) = take(&mut rest, left);
                    data(here);
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                }
                State::Data(left) => {
                    let (here, left) = take(&mut rest, left);
                    data(here);
                    self.state = if left == 0 { State::DataReturn } else { State::Data(left) };
                }
                State::Size { .. }
                | State::Extension { .. }
                | State::SizeLineFeed { .. }
                | State::DataReturn
                | State::DataLineFeed
                | State::Trailers(_) => {
                    let Some((byte, after)) = rest.split_first() else {
                        break;
                    };
                    rest = after;
                    self.state = self.step(*byte).unwrap_or_else(State::Faulted);
                }
            }
            if rest.is_empty() && !matches!(self.state, State::Faulted(_)) {
                break;
            }
        }
        Ok(Fed { consumed: bytes.len() - rest.len(), done: matches!(self.state, State::Done) })
    }

    /// Takes one byte of the chunks' own lines, or of the trailers.
    fn step(&mut self, byte: u8) -> Result<State, FramingFault> {
        match self.state {
            // Some servers fill the line up to a fixed width.
            State::Size { size, digits: 1.. } if self.answer && matches!(byte, b' ' | b'\t') => {
                Ok(State::Extension { size, empty: false })
            }
            State::Size { size, digits } => size_step(size, digits, byte),
            State::Extension { size, empty } => self.extension_step(size, empty, byte),
            State::SizeLineFeed { size: 0 } => line_feed(byte, State::Trailers(TrailerState::LineStart)),
            State::SizeLineFeed { size } => line_feed(byte, State::Data(size)),
            State::DataReturn if byte == b'\r' => Ok(State::DataLineFeed),
            State::DataReturn => Err(FramingFault::LineEnd),
            State::DataLineFeed => {
                if self.answer {
                    self.extension_bytes = 0;
                }
                line_feed(byte, State::Size { size: 0, digits: 0 })
            }
            State::Trailers(state) => self.trailers.step(state, byte),
            state @ (State::Length(_) | State::Data(_) | State::Done | State::Faulted(_)) => Ok(state),
        }
    }

    fn extension_step(&mut self, size: u64, empty: bool, byte: u8) -> Result<State, FramingFault> {
        match byte {
            b'\r' if empty && !self.answer => Err(FramingFault::Extension),
            b'\r' => Ok(State::SizeLineFeed { size }),
            b' '..=b'~' | b'\t' => {
                self.extension_bytes += 1;
                if self.extension_bytes > if self.answer { ANSWER_EXTENSION_BYTES_MAX } else { EXTENSION_BYTES_MAX } {
                    return Err(FramingFault::ExtensionsTooLong);
                }
                Ok(State::Extension { size, empty: false })
            }
            _ => Err(FramingFault::Extension),
        }
    }
}

/// Takes what is there of the `left` bytes; tells how many are still to come.
fn take<'a>(rest: &mut &'a [u8], left: u64) -> (&'a [u8], u64) {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    let (here, after) = rest.split_at_checked(count).unwrap_or_default();
    *rest = after;
    (here, left - count as u64)
}

fn line_feed(byte: u8, next: State) -> Result<State, FramingFault> {
    if byte == b'\n' { Ok(next) } else { Err(FramingFault::LineEnd) }
}

fn size_step(size: u64, digits: u32, byte: u8) -> Result<State, FramingFault> {
    if let Some(digit) = char::from(byte).to_digit(16) {
        // Sixteen digits are 64 bits: the shift loses nothing.
        let size = size << 4 | u64::from(digit);
        if digits == SIZE_DIGITS_MAX || size > LENGTH_MAX {
            return Err(FramingFault::SizeTooLarge);
        }
        return Ok(State::Size { size, digits: digits + 1 });
    }
    match byte {
        _ if digits == 0 => Err(FramingFault::Size),
        b'\r' => Ok(State::SizeLineFeed { size }),
        b';' => Ok(State::Extension { size, empty: true }),
        b'\n' => Err(FramingFault::LineEnd),
        _ => Err(FramingFault::Size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FramingFault as F;
    use proptest::prelude::*;

    /// Feeds the pieces; returns how much was consumed and whether the body ended.
    fn follow<'a>(framing: Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Fed, FramingFault> {
        let mut follower = BodyFollower::new(framing);
        let mut total = follower.feed(b"")?;
        for piece in pieces {
            let fed = follower.feed(piece)?;
            total = Fed { consumed: total.consumed + fed.consumed, done: fed.done };
            if fed.done {
                assert_eq!(follower.feed(b"more"), Ok(Fed { consumed: 0, done: true }));
                break;
            }
            assert_eq!(fed.consumed, piece.len());
        }
        Ok(total)
    }

    /// Feeds the bytes whole, cut in two at every place, and one by one.
    fn check(framing: Framing, bytes: &[u8], expected: Result<Fed, FramingFault>) {
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(follow(framing, [bytes]), expected, "{shown:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(follow(framing, [first, second]), expected, "{shown:?} cut at {cut}");
        }
        assert_eq!(follow(framing, bytes.chunks(1)), expected, "{shown:?} byte by byte");
    }

    /// A chunked body that ends; the text after `|`, if any, is the next head's.
    fn ends(text: &str) {
        let (body, next) = text.split_once('|').unwrap_or((text, ""));
        let expected = Ok(Fed { consumed: body.len(), done: true });
        check(Framing::Chunked, format!("{body}{next}").as_bytes(), expected);
    }

    fn refused(text: &str, fault: FramingFault) {
        check(Framing::Chunked, text.as_bytes(), Err(fault));
    }

    #[test]
    fn bodies_without_chunks() {
        let fed = |consumed, done| Ok(Fed { consumed, done });
        check(Framing::None, b"GET / HTTP/1.1", fed(0, true));
        check(Framing::Length(0), b"GET", fed(0, true));
        check(Framing::Length(3), b"", fed(0, false));
        check(Framing::Length(3), b"ab", fed(2, false));
        check(Framing::Length(3), b"abc", fed(3, true));
        check(Framing::Length(3), b"abcGET", fed(3, true));
        check(Framing::Length(LENGTH_MAX), b"abc", fed(3, false));
    }

    #[test]
    fn chunked_bodies_that_end() {
        ends("0\r\n\r\n");
        ends("0\r\n\r\n|GET / HTTP/1.1\r\n");
        ends("3\r\nabc\r\n0\r\n\r\n|x");
        ends("3\r\n\r\n\r\r\n0\r\n\r\n");
        ends("a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n");
        ends("0000000000000003\r\nabc\r\n0\r\n\r\n");
        ends("3;a\r\nabc\r\n0;b=\"c d\"\r\n\r\n");
        ends("3; a\t= b\r\nabc\r\n0\r\n\r\n");
        ends("0\r\nX-Checksum: 1\r\n\r\n|x");
        ends("0\r\nx:\r\ny:\t\r\nz: a:b \u{e9}\r\n\r\n");
        ends("0\r\nx-a-name-that-is-longer-than-what-is-kept: 1\r\n\r\n");
        ends("0\r\nhost-name: 1\r\nx-sdk: 2\r\n\r\n");
    }

    #[test]
    fn chunked_bodies_that_go_on() {
        for text in
            ["", "3", "3\r", "3\r\n", "3\r\nab", "3\r\nabc", "3\r\nabc\r\n", "0\r\n", "0\r\nx: y\r\n", "0\r\n\r"]
        {
            check(Framing::Chunked, text.as_bytes(), Ok(Fed { consumed: text.len(), done: false }));
        }
        check(Framing::Chunked, b"7fffffffffffffff\r\nabc", Ok(Fed { consumed: 21, done: false }));
    }

    /// Feeds an answer's bytes cut in two at every place; returns its data, what was consumed and whether it ended.
    fn data_of(framing: Framing, bytes: &[u8]) -> Result<(String, usize, bool), FramingFault> {
        let read = |cut: usize| {
            let (mut follower, mut data, mut consumed, mut done) =
                (BodyFollower::of_answer(framing), Vec::new(), 0, false);
            let (first, second) = bytes.split_at(cut);
            for piece in [first, second] {
                let fed = follower.feed_into(piece, |part| data.extend_from_slice(part))?;
                (consumed, done) = (consumed + fed.consumed, fed.done);
            }
            Ok((String::from_utf8(data).unwrap(), consumed, done))
        };
        let whole = read(bytes.len());
        (0..bytes.len()).for_each(|cut| assert_eq!(read(cut), whole, "cut at {cut}"));
        whole
    }

    #[test]
    fn the_data_of_answers_and_what_sellers_may_do_besides() {
        for (text, data, after) in [
            ("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", ""),
            ("3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200", "abc", "HTTP/1.1 200"),
            ("3   \r\nabc\r\n0\t\r\n\r\n", "abc", ""),
            ("3;\r\nabc\r\n0;a=b\r\n\r\n", "abc", ""),
            ("3\r\nabc\r\n0\r\nHost: x\r\nSet-Cookie: a\r\n\r\n", "abc", ""),
        ] {
            let consumed = text.len() - after.len();
            assert_eq!(data_of(Framing::Chunked, text.as_bytes()), Ok((data.into(), consumed, true)), "{text:?}");
        }
        assert_eq!(data_of(Framing::Length(3), b"abcd"), Ok(("abc".into(), 3, true)));
        assert_eq!(data_of(Framing::Length(5), b"abcd"), Ok(("abcd".into(), 4, false)));
        for (text, fault) in [
            (" 3\r\n", F::Size),
            ("3 \nabc", F::Extension),
            ("3\nabc", F::LineEnd),
            ("3\r\nabcd", F::LineEnd),
            ("x\r\n", F::Size),
            ("0\r\nno colon\r\n", F::Trailer),
        ] {
            assert_eq!(data_of(Framing::Chunked, text.as_bytes()), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn an_answers_extensions_are_bounded_by_the_chunk() {
        let chunk = |bytes: u32| format!("1;{}\r\nx\r\n", "e".repeat(bytes as usize));
        let follow = |text: &str| BodyFollower::of_answer(Framing::Chunked).feed(text.as_bytes()).map(|fed| fed.done);
        assert_eq!(follow(&format!("{}0\r\n\r\n", chunk(ANSWER_EXTENSION_BYTES_MAX).repeat(3))), Ok(true));
        assert_eq!(follow(&chunk(ANSWER_EXTENSION_BYTES_MAX + 1)), Err(F::ExtensionsTooLong));
        let trailers = |fields: u32| format!("0\r\n{}\r\n", "x: y\r\n".repeat(fields as usize));
        assert_eq!(follow(&trailers(ANSWER_TRAILER_FIELDS_MAX)), Ok(true));
        assert_eq!(follow(&trailers(ANSWER_TRAILER_FIELDS_MAX + 1)), Err(F::TrailersTooLarge));
    }

    #[test]
    fn chunk_lines_are_strict() {
        for text in ["\r\n", "0x3\r\nabc", " 3\r\n", "3 \r\n", "3\t;a\r\n", "+3\r\n", "-1\r\n", "g\r\n", ";a\r\n", "\0"]
        {
            refused(text, F::Size);
        }
        refused("3\r\nabc\r\n\r\n", F::Size); // a blank chunk-size line is no end
        refused("\n", F::Size);
        refused("8000000000000000\r\n", F::SizeTooLarge);
        refused("ffffffffffffffff\r\n", F::SizeTooLarge);
        refused("00000000000000003\r\n", F::SizeTooLarge);
        refused("10000000000000000\r\n", F::SizeTooLarge);
        for text in ["3\nabc", "3\rabc", "3\r\r\n", "3\r\nabc\n", "3\r\nabcd\r\n", "3\r\nabc\rx", "3\r\nabc0\r\n"] {
            refused(text, F::LineEnd);
        }
        refused("0\r\n\rx", F::LineEnd);
        refused("0\n\n", F::LineEnd);
        for text in ["3;\r\n", "3;a\nabc", "3;a\0\r\n", "3;a\u{7f}\r\n", "3;\u{e9}\r\n", "3;a\u{1}"] {
            refused(text, F::Extension);
        }
    }

    #[test]
    fn trailers_are_strict() {
        for text in [
            "x\r\n",
            "x y: 1\r\n",
            "x : 1\r\n",
            ": 1\r\n",
            " x: 1\r\n",
            "x: 1\r\n y\r\n",
            "x_y: 1\r\n",
            "x: \0\r\n",
            "é: 1\r\n",
        ] {
            refused(&format!("0\r\n{text}\r\n"), F::Trailer);
        }
        for text in ["x: 1\n", "x\n", "\n", "x: 1\rY: 2\r\n"] {
            refused(&format!("0\r\n{text}\r\n"), F::LineEnd);
        }
        for name in [
            "Content-Length",
            "transfer-encoding",
            "Host",
            "authorization",
            "Proxy-Authorization",
            "cookie",
            "content-type",
            "Content-Encoding",
            "Connection",
            "Upgrade",
            "Expect",
            "TE",
            "Trailer",
            "X-Api-Key",
            "X-Request-Id",
            "X-Apig-AppCode",
            "x-sdk-date",
            "x-sdk-and-more-than-is-kept-of-a-name",
            "X-Tollgate-Unit",
        ] {
            refused(&format!("0\r\n{name}: 1\r\n\r\n"), F::TrailerForbidden);
        }
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let chunked = |text: String| follow(Framing::Chunked, [text.as_bytes()]).map(|fed| fed.done);
        let extension = |bytes: u32| format!("1;{}\r\na\r\n0;a\r\n\r\n", "b".repeat(bytes as usize - 1));
        assert_eq!(chunked(extension(EXTENSION_BYTES_MAX)), Ok(true));
        assert_eq!(chunked(extension(EXTENSION_BYTES_MAX + 1)), Err(F::ExtensionsTooLong));

        let trailers = |count: u32| format!("0\r\n{}\r\n", "x: 1\r\n".repeat(count as usize));
        assert_eq!(chunked(trailers(TRAILER_FIELDS_MAX)), Ok(true));
        assert_eq!(chunked(trailers(TRAILER_FIELDS_MAX + 1)), Err(F::TrailersTooLarge));

        let trailer = |bytes: u32| format!("0\r\nx:{}\r\n\r\n", "b".repeat(bytes as usize - 4));
        assert_eq!(chunked(trailer(TRAILER_BYTES_MAX)), Ok(true));
        assert_eq!(chunked(trailer(TRAILER_BYTES_MAX + 1)), Err(F::TrailersTooLarge));
    }

    #[test]
    fn a_fault_stays() {
        let mut follower = BodyFollower::new(Framing::Chunked);
        assert_eq!(follower.feed(b"x"), Err(F::Size));
        assert_eq!(follower.feed(b"0\r\n\r\n"), Err(F::Size));
        assert_eq!(follower.feed(b""), Err(F::Size));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            pieces in prop::collection::vec(
                prop_oneof![Just("3"), Just("\r\n"), Just("abc"), Just("0"), Just(";e"), Just("x: y"), Just("\r"), Just("\n")],
                0..14,
            ),
        ) {
            let bytes = pieces.concat().into_bytes();
            let whole = follow(Framing::Chunked, [bytes.as_slice()]);
            check(Framing::Chunked, &bytes, whole);
        }

        /// Near to what is right, so that cuts fall into every state, and any bytes at all.
        #[test]
        fn any_bytes_in_any_cuts_give_the_same(
            length in prop_oneof![Just(None), (0..64_u64).prop_map(Some)],
            chunks in prop::collection::vec((0..20_usize, any::<bool>()), 0..4),
            altered in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cuts in prop::collection::vec(1..9_usize, 1..40),
        ) {
            let framing = length.map_or(Framing::Chunked, Framing::Length);
            let mut bytes: Vec<u8> = chunks.iter().flat_map(|(size, extended)| {
                let extension = if *extended { ";a=b" } else { "" };
                format!("{size:x}{extension}\r\n{}\r\n", "x".repeat(*size)).into_bytes()
            }).collect();
            bytes.extend(b"0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n");
            for (at, byte) in altered {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(*cut.min(&rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(follow(framing, pieces), follow(framing, [bytes.as_slice()]));
        }
    }
}
