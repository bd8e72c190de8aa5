//! Scans a `text/event-stream` body on its raw bytes as it passes: how many events are complete,
//! and whether the stream stands between two. Nothing is kept of a line, so its length costs no
//! memory; what the events say is not read.

use memchr::memchr2;

const BOM: &[u8] = b"\xef\xbb\xbf";
const DATA: &[u8] = b"data";

/// Whether bytes that were sent at one time end with `data: [DONE]`, the event after which OpenAI's streams say no more.
pub fn ends_with_done(bytes: &[u8]) -> bool {
    let Some(line) = bytes.trim_ascii_end().strip_suffix(b"[DONE]") else { return false };
    line.trim_ascii_end().ends_with(b"data:") && bytes.ends_with(b"\n")
}

/// Follows one stream, by the WHATWG's rules of parsing: lines end with LF, CRLF or CR, an empty
/// line ends an event, a byte order mark at the start is passed over.
#[derive(Clone, Debug, Default)]
pub struct SseScanner {
    line: Line,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_return: bool,
    /// A field other than a comment stands in the event so far.
    pending: bool,
    /// One of them is `data`.
    has_data: bool,
    events: u64,
}

/// Where in a line the stream stands.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// So many bytes of a byte order mark have been seen, at the start of the stream.
    Mark(usize),
    /// So many bytes of the word `data` have been seen, from the line's start.
    Name(usize),
    Data,
    Comment,
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Mark(0)
    }
}

impl SseScanner {
    /// Takes the next bytes of the stream, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let [byte, after @ ..] = rest {
            rest = after;
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => self.end_line(),
                _ => {
                    self.line = self.line.then(*byte);
                    if matches!(self.line, Line::Data | Line::Comment | Line::Other) {
                        let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                        rest = rest.get(end..).unwrap_or_default();
                    }
                }
            }
        }
    }

    /// How many complete events carried data so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether no event has begun since the last one was complete. Comments are no event; a CR that
    /// ends an event may still be followed by its LF.
    pub fn at_boundary(&self) -> bool {
        !self.pending && matches!(self.line, Line::Mark(0) | Line::Name(0))
    }

    fn end_line(&mut self) {
        match std::mem::replace(&mut self.line, Line::Name(0)) {
            Line::Mark(0) | Line::Name(0) => {
                self.events += u64::from(self.has_data);
                self.pending = false;
                self.has_data = false;
            }
            Line::Comment => {}
            Line::Data => self.note_field(true),
            Line::Name(seen) => self.note_field(seen == DATA.len()), // the name alone: empty data
            Line::Mark(_) | Line::Other => self.note_field(false),
        }
    }

    fn note_field(&mut self, is_data: bool) {
        self.pending = true;
        self.has_data |= is_data;
    }
}

impl Line {
    /// Where the line stands after one more byte that ends no line.
    fn then(self, byte: u8) -> Self {
        match self {
            Self::Mark(seen) if BOM.get(seen) == Some(&byte) => {
                if seen + 1 == BOM.len() {
                    Self::Name(0)
                } else {
                    Self::Mark(seen + 1)
                }
            }
            Self::Mark(0) => Self::Name(0).then(byte),
            Self::Name(0) if byte == b':' => Self::Comment,
            Self::Name(seen) if DATA.get(seen) == Some(&byte) => Self::Name(seen + 1),
            Self::Name(seen) if seen == DATA.len() && byte == b':' => Self::Data,
            Self::Mark(_) | Self::Name(_) => Self::Other,
            Self::Data | Self::Comment | Self::Other => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (u64, bool) {
        let mut scanner = SseScanner::default();
        for piece in pieces {
            scanner.feed(piece);
        }
        (scanner.events(), scanner.at_boundary())
    }

    /// Scans the bytes whole, cut in two at every place, and one by one.
    fn check(bytes: impl AsRef<[u8]>, events: u64, at_boundary: bool) {
        let bytes = bytes.as_ref();
        let shown = String::from_utf8_lossy(bytes);
        let expected = (events, at_boundary);
        assert_eq!(scan([bytes]), expected, "{shown:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(scan([first, second]), expected, "{shown:?} cut at {cut}");
        }
        assert_eq!(scan(bytes.chunks(1)), expected, "{shown:?} byte by byte");
    }

    #[test]
    fn counts_events_with_any_line_end() {
        check("", 0, true);
        check("data: a\n\n", 1, true);
        check("data: a\r\n\r\n", 1, true);
        check("data: a\r\r", 1, true);
        check("data: a\r\n\n", 1, true);
        check("data: a\n\r\n", 1, true);
        check("data: a\r\n\r", 1, true);
        check("data: a\n\r", 1, true);
        check("data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: [DONE]\n\n", 4, true);
        check("data: a\r\n\rdata: b\r\n\r\n", 2, true);
        check("\n\n\r\n\r\rdata: a\n\n\n\n", 1, true);
    }

    #[test]
    fn tells_where_a_stream_was_cut() {
        check("d", 0, false);
        check("data", 0, false);
        check("data: a", 0, false);
        check("data: a\n", 0, false);
        check("data: a\r\n", 0, false);
        check("data: a\r", 0, false);
        check("data: a\n\ndata: b\n", 1, false);
        check("data: a\n\n:", 1, false);
        check("data: a\n\n: ka\n", 1, true);
        check("data: a\n: ka\n", 0, false);
        check("id: 1\n", 0, false);
        check(b"\xef", 0, false);
        check(b"\xef\xbb", 0, false);
        check(b"\xef\xbb\xbf", 0, true);
    }

    #[test]
    fn tells_data_from_other_fields() {
        check("data:a\n\n", 1, true);
        check("data:\n\n", 1, true);
        check("data\n\n", 1, true);
        check("data:a\ndata:b\n\n", 1, true);
        check("event: x\nid: 1\ndata: {}\nretry: 5\n\n", 1, true);
        check("event: ping\n\n", 0, true);
        check("id: 1\n\nretry: 9\n\n", 0, true);
        check(": data: a\n\n", 0, true);
        check(" data: a\n\n", 0, true);
        check("Data: a\n\n", 0, true);
        check("datax: a\n\n", 0, true);
        check("data : a\n\n", 0, true);
        check("dat\n\n", 0, true);
        check("xdata: a\n\n", 0, true);
        check("da\nta: a\n\n", 0, true);
        check("id: data: a\n\n", 0, true);
    }

    #[test]
    fn passes_over_a_mark_at_the_start_alone() {
        check(b"\xef\xbb\xbfdata: a\n\n", 1, true);
        check(b"\xef\xbb\xbf\n\ndata: a\n\n", 1, true);
        check(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", 0, true);
        check(b"\xef\xbbdata: a\n\n", 0, true);
        check(b"\xef\xbb\n\n", 0, true);
        check(b"\n\xef\xbb\xbfdata: a\n\n", 0, true);
        check(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", 1, true);
    }

    #[test]
    fn cares_for_no_code_point_and_no_length() {
        check("data: 通义😀\n\n", 1, true);
        check(b"data: \xff\xfe\x00\n\n", 1, true);
        let long = "x".repeat(4 << 20);
        assert_eq!(scan([b"data: ".as_slice(), long.as_bytes(), b"\n\ndata: b\n\n"]), (2, true));
    }

    /// The same rules on a whole text, by splitting it into lines.
    fn by_lines(text: &str) -> (u64, bool) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
        let mut lines: Vec<&str> = text.split('\n').collect();
        let unfinished = lines.pop().unwrap();
        let (mut events, mut fields) = (0, Vec::new());
        for line in lines {
            if line.is_empty() {
                events += u64::from(fields.contains(&"data"));
                fields.clear();
            } else if !line.starts_with(':') {
                fields.push(line.split(':').next().unwrap());
            }
        }
        (events, fields.is_empty() && unfinished.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn any_cut_gives_what_whole_lines_give(
            pieces in prop::collection::vec(
                prop_oneof![Just("data"), Just(":"), Just(" x"), Just("\n"), Just("\r"), Just("\r\n"), Just("id"), Just("\u{feff}")],
                0..16,
            ),
        ) {
            let text = pieces.concat();
            let (events, at_boundary) = by_lines(&text);
            check(&text, events, at_boundary);
        }
    }

    #[test]
    fn sees_the_end_of_openais_streams() {
        for done in ["data: [DONE]\n\n", "data:[DONE]\r\n\r\n", "data: 1\n\ndata: [DONE]\n", "data: [DONE] \n\n"] {
            assert!(ends_with_done(done.as_bytes()), "{done}");
        }
        for more in [
            "",
            "[DONE]\n\n",
            "data: [DONE]",
            "data: x[DONE]\n\n",
            "data: \"[DONE]\"\n\n",
            "data: [DONE]\n\ndata: 1\n\n",
        ] {
            assert!(!ends_with_done(more.as_bytes()), "{more}");
        }
    }
}
