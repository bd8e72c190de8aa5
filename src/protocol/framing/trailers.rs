//! The trailer section of a chunked body.

use super::{
    ANSWER_TRAILER_BYTES_MAX, ANSWER_TRAILER_FIELDS_MAX, FramingFault, State, TRAILER_BYTES_MAX, TRAILER_FIELDS_MAX,
    line_feed,
};
use crate::protocol::class;

#[derive(Clone, Copy, Debug)]
pub(super) enum TrailerState {
    LineStart,
    Name,
    Value,
    LineFeed,
    /// The line feed of the closing empty line must come.
    LastLineFeed,
}

/// What is counted and kept of a trailer section.
#[derive(Clone, Debug, Default)]
pub(super) struct Trailers {
    answer: bool,
    bytes: u32,
    fields: u32,
    name: [u8; class::NAME_KEPT_BYTES],
    name_bytes: usize,
}

impl Trailers {
    /// Those of a seller's answer, which end at the gateway.
    pub(super) fn of_answer() -> Self {
        Self { answer: true, ..Self::default() }
    }

    /// Takes one byte of the section.
    pub(super) fn step(&mut self, state: TrailerState, byte: u8) -> Result<State, FramingFault> {
        let next = match (state, byte) {
            (TrailerState::LastLineFeed, _) => return line_feed(byte, State::Done),
            (TrailerState::LineStart, b'\r') => {
                return Ok(State::Trailers(TrailerState::LastLineFeed));
            }
            (TrailerState::LineStart, _) => {
                self.fields += 1;
                self.name_bytes = 0;
                self.keep(byte)?
            }
            (TrailerState::Name, b':') => {
                self.judge_name()?;
                TrailerState::Value
            }
            (TrailerState::Name, _) => self.keep(byte)?,
            (TrailerState::Value, b'\r') => TrailerState::LineFeed,
            (TrailerState::Value, _) if class::is_value(byte) => TrailerState::Value,
            (TrailerState::Value, b'\n') => return Err(FramingFault::LineEnd),
            (TrailerState::Value, _) => return Err(FramingFault::Trailer),
            (TrailerState::LineFeed, b'\n') => TrailerState::LineStart,
            (TrailerState::LineFeed, _) => return Err(FramingFault::LineEnd),
        };
        self.bytes += 1;
        let (bytes_max, fields_max) = match self.answer {
            true => (ANSWER_TRAILER_BYTES_MAX, ANSWER_TRAILER_FIELDS_MAX),
            false => (TRAILER_BYTES_MAX, TRAILER_FIELDS_MAX),
        };
        if self.bytes > bytes_max || self.fields > fields_max {
            return Err(FramingFault::TrailersTooLarge);
        }
        Ok(State::Trailers(next))
    }

    /// Takes a byte of a name; what is longer than the kept bytes is like no forbidden name.
    fn keep(&mut self, byte: u8) -> Result<TrailerState, FramingFault> {
        if !class::is(byte, class::NAME) {
            return Err(if byte == b'\n' { FramingFault::LineEnd } else { FramingFault::Trailer });
        }
        if let Some(place) = self.name.get_mut(self.name_bytes) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_bytes += 1;
        Ok(TrailerState::Name)
    }

    fn judge_name(&self) -> Result<(), FramingFault> {
        if self.answer {
            return Ok(()); // it goes no further
        }
        check_trailer(self.name.get(..self.name_bytes).unwrap_or(&self.name))
    }
}

/// Refuses a trailer by its name, in lower case: for those that come decoded, too.
///
/// # Errors
/// [`FramingFault::TrailerForbidden`].
pub fn check_trailer(name: &[u8]) -> Result<(), FramingFault> {
    if class::is_guarded(name) || is_of_the_head(name) {
        return Err(FramingFault::TrailerForbidden);
    }
    Ok(())
}

/// Fields besides the guarded ones that mean nothing good after a body (RFC 9110 section 6.5.1).
/// `name` is in lower case.
fn is_of_the_head(name: &[u8]) -> bool {
    matches!(
        name,
        b"transfer-encoding"
            | b"connection"
            | b"upgrade"
            | b"trailer"
            | b"te"
            | b"expect"
            | b"keep-alive"
            | b"max-forwards"
            | b"range"
            | b"content-encoding"
            | b"content-range"
            | b"cache-control"
            | b"proxy-authorization"
            | b"proxy-authenticate"
            | b"proxy-connection"
            | b"set-cookie"
    )
}
