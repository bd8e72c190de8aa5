//! The strict check of a request head's raw bytes: what two parsers could read differently is
//! refused here, before the HTTP engine sees it. Routing, credentials and the body are not read.

mod asked;
mod decoded;
mod fault;
mod fields;
mod host;
mod request_line;
#[cfg(test)]
mod tests;

use memchr::{memchr, memchr_iter};

pub use self::asked::{Asked, asked};
pub use self::decoded::check_decoded_head;
pub use self::fault::{HeadFault, Malformed};
use self::fields::Fields;
use self::request_line::RequestLine;
use super::class;

/// Largest request head, in bytes, with its line ends and a leading empty line.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Most header lines in one head; also what the engine takes.
pub const FIELDS_MAX: usize = 100;

/// Longest body or chunk that a head or a chunk line may announce, in bytes: what every parser
/// behind us can hold in a signed number, so that none wraps around.
pub const LENGTH_MAX: u64 = i64::MAX.unsigned_abs();

/// The HTTP version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: knows neither chunks nor interim answers.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// A body of so many bytes.
    Length(u64),
    /// A chunked body.
    Chunked,
}

/// What a gate needs to know of an accepted head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFacts {
    /// The version in the request line.
    pub version: Version,
    /// How the body after the head ends.
    pub framing: Framing,
    /// Whether the client waits for a `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// Whether the client would send another request on this connection.
    pub keep_alive: bool,
}

/// Where a request head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadEnd {
    /// The head is `start..end`; `start` leaves out one empty line that may stand before it
    /// (RFC 9112 section 2.2).
    Complete {
        /// Where the request line begins.
        start: usize,
        /// Where the byte after the closing empty line stands.
        end: usize,
    },
    /// No end yet: call again with more bytes and this value.
    Partial {
        /// How many bytes need not be searched again.
        searched: usize,
    },
    /// It will never be a head that we accept.
    Fault(HeadFault),
}

/// The head that `bytes` begin with, if it came whole and [`check_head`] accepts it, as it does nearly every one. That
/// takes one reading; what is wrong with any other [`find_head_end`] says, or [`check_head`].
pub fn whole_head(bytes: &[u8]) -> Option<(&[u8], HeadFacts)> {
    let (request, fields, after) = read_lines(bytes).ok()?;
    let head = bytes.get(..bytes.len() - after.len()).filter(|head| head.len() <= HEAD_BYTES_MAX)?;
    Some((head, fields.finish(&request).ok()?))
}

/// Looks for the end of a request head in `bytes`, which begin where the last request ended.
/// `searched` is 0 at first, then what the last [`HeadEnd::Partial`] said. A line feed without its
/// carriage return is a fault at once: a head that ends its lines so would be waited for in vain.
pub fn find_head_end(bytes: &[u8], searched: usize) -> HeadEnd {
    if let Some(first) = bytes.first()
        && !class::is(*first, class::TOKEN)
        && !matches!(first, b'\r' | b'\n')
    {
        return HeadEnd::Fault(Malformed::NotHttp.into());
    }
    for found in memchr_iter(b'\n', bytes.get(searched..).unwrap_or_default()) {
        let at = searched + found;
        let Some(before) = bytes.get(..at).and_then(|before| before.strip_suffix(b"\r")) else {
            return HeadEnd::Fault(Malformed::BareLineFeed.into());
        };
        if before == b"\r\n" {
            return HeadEnd::Fault(Malformed::BlankLines.into());
        }
        if before.ends_with(b"\r\n") {
            let end = at + 1;
            if end > HEAD_BYTES_MAX {
                return HeadEnd::Fault(HeadFault::TooLarge);
            }
            let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
            return HeadEnd::Complete { start, end };
        }
    }
    if bytes.len() >= HEAD_BYTES_MAX {
        return HeadEnd::Fault(HeadFault::TooLarge);
    }
    HeadEnd::Partial { searched: bytes.len() }
}

/// Checks one whole head: from its request line to its closing empty line, both included.
///
/// # Errors
/// The first fault found. After one the connection is good for an answer and nothing else: where
/// the next request would begin is no longer certain.
pub fn check_head(head: &[u8]) -> Result<HeadFacts, HeadFault> {
    if head.len() > HEAD_BYTES_MAX {
        return Err(HeadFault::TooLarge);
    }
    let (request, fields, after) = read_lines(head)?;
    if !after.is_empty() {
        return Err(Malformed::NotOneHead.into());
    }
    fields.finish(&request)
}

/// Reads the lines of the head that `bytes` begin with, and returns what follows its closing empty line.
fn read_lines(bytes: &[u8]) -> Result<(RequestLine<'_>, Fields<'_>, &[u8]), HeadFault> {
    let (line, mut rest) = take_line(bytes)?;
    let request = request_line::read(line)?;
    let mut fields = Fields::default();
    // One line more than the fields: the closing empty one.
    for _ in 0..=FIELDS_MAX {
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            return Ok((request, fields, after));
        }
        rest = fields.take(rest)?;
    }
    Err(HeadFault::TooManyFields)
}

/// Splits the first line off, without its line end.
fn take_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), HeadFault> {
    let end = memchr(b'\n', bytes).ok_or(Malformed::NotOneHead)?;
    let (line, rest) = bytes.split_at_checked(end + 1).ok_or(Malformed::NotOneHead)?;
    let line = line.strip_suffix(b"\r\n").ok_or(Malformed::BareLineFeed)?;
    Ok((line, rest))
}
