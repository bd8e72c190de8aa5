//! The header lines: their syntax, and the few fields that decide framing, host and connection.
//! Every other field is only held to the syntax.

use std::iter::zip;

use super::host;
use super::request_line::RequestLine;
use super::{Framing, HeadFacts, HeadFault, LENGTH_MAX, Malformed, Version, take_line};
use crate::protocol::class;

/// What the header lines have said so far.
#[derive(Default)]
pub(super) struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    authorization: bool,
    content_type: bool,
    expects_continue: bool,
    close: bool,
    keep_alive: bool,
}

impl<'a> Fields<'a> {
    /// Takes the header line that `bytes` begin with; returns what follows it.
    pub(super) fn take(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], HeadFault> {
        let (name, value, after) = plain_line(bytes).map_or_else(|| any_line(bytes), Ok)?;
        self.note(name, class::trim(value))?;
        Ok(after)
    }

    /// Judges the fields that mean something here; told apart by first letter and length first, which is cheap.
    pub(super) fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), HeadFault> {
        let first = name.first().map_or(b'-', u8::to_ascii_lowercase);
        match (first, name.len()) {
            (b'h', 4) if is(name, b"host") => self.note_host(value),
            (b'e', 6) if is(name, b"expect") => {
                self.expects_continue = true;
                let known = value.eq_ignore_ascii_case(b"100-continue");
                if known { Ok(()) } else { Err(HeadFault::ExpectationUnknown) }
            }
            (b'u', 7) if is(name, b"upgrade") => Err(HeadFault::UpgradeOffered),
            (b'c', 10) if is(name, b"connection") => self.note_connection(value),
            (b'c', 12) if is(name, b"content-type") => {
                if std::mem::replace(&mut self.content_type, true) {
                    return Err(Malformed::TypeRepeated.into());
                }
                Ok(())
            }
            (b'a', 13) if is(name, b"authorization") => {
                if std::mem::replace(&mut self.authorization, true) {
                    return Err(Malformed::AuthorizationRepeated.into());
                }
                Ok(())
            }
            (b'c', 14) if is(name, b"content-length") => self.note_length(value),
            (b't', 17) if is(name, b"transfer-encoding") => self.note_encoding(value),
            // Without its hyphens, or with more of them, such a name frames to whoever leaves them out.
            (b'c' | b't' | b'-', 13..) if class::resembles_framing(name) => Err(Malformed::NameResemblesGuarded.into()),
            _ => Ok(()),
        }
    }

    fn note_host(&mut self, value: &'a [u8]) -> Result<(), HeadFault> {
        if self.host.replace(value).is_some() {
            return Err(Malformed::HostRepeated.into());
        }
        if !host::is_host(value) {
            return Err(Malformed::HostMalformed.into());
        }
        Ok(())
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let leading_zero = matches!(value, [b'0', _, ..]);
        if value.is_empty() || leading_zero || !value.iter().all(u8::is_ascii_digit) {
            return Err(Malformed::LengthMalformed.into());
        }
        let length = value
            .iter()
            .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .filter(|length| *length <= LENGTH_MAX)
            .ok_or(Malformed::LengthTooLarge)?;
        match self.length.replace(length) {
            Some(_) => Err(Malformed::LengthRepeated.into()),
            None => Ok(()),
        }
    }

    fn note_encoding(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Malformed::EncodingRepeated.into());
        }
        let known = value.eq_ignore_ascii_case(b"chunked");
        if known { Ok(()) } else { Err(Malformed::EncodingUnknown.into()) }
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        for option in value.split(|byte| *byte == b',') {
            let option = class::trim(option);
            if !class::are(option, class::TOKEN) {
                return Err(Malformed::ConnectionMalformed.into());
            }
            if is(option, b"upgrade") {
                return Err(HeadFault::UpgradeOffered);
            }
            if is(option, b"keep-alive") {
                self.keep_alive = true;
                continue;
            }
            self.close |= is(option, b"close");
            let mut lower = [0; class::NAME_KEPT_BYTES];
            for (to, from) in lower.iter_mut().zip(option) {
                *to = from.to_ascii_lowercase();
            }
            let kept = lower.get(..option.len()).unwrap_or(&lower);
            if class::is_guarded(kept) {
                return Err(Malformed::ConnectionNamesGuarded.into());
            }
        }
        Ok(())
    }

    /// Holds the fields against each other and the request line, once all lines were taken.
    pub(super) fn finish(self, request: &RequestLine<'_>) -> Result<HeadFacts, HeadFault> {
        let version = request.version;
        if self.chunked && version == Version::Http10 {
            return Err(Malformed::EncodingTooOld.into());
        }
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => return Err(Malformed::LengthAndEncoding.into()),
            (Some(length), false) => Framing::Length(length),
            (None, true) => Framing::Chunked,
            (None, false) => Framing::None,
        };
        if self.host.is_none() && version == Version::Http11 {
            return Err(Malformed::HostMissing.into());
        }
        if let Some(authority) = request.authority
            && !self.host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
        {
            return Err(Malformed::AuthorityDiffers.into());
        }
        let has_body = !matches!(framing, Framing::None | Framing::Length(0));
        Ok(HeadFacts {
            version,
            framing,
            // RFC 9110 section 10.1.1: ignored in HTTP/1.0, and nobody waits without a body.
            expects_continue: self.expects_continue && version == Version::Http11 && has_body,
            keep_alive: !self.close && (version == Version::Http11 || self.keep_alive),
        })
    }
}

/// Whether a name is a known one, which is in lower case. To its end, whatever differs: so several bytes are compared at
/// once.
fn is<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    let same = |name: &[u8; N]| zip(name, known).fold(true, |same, (a, b)| same & (a.to_ascii_lowercase() == *b));
    name.as_array().is_some_and(same)
}

/// A header line's name, its value with the blanks around it, and what follows the line.
type Line<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits a line as nearly all are, reading it once: its name is made of letters, digits and hyphens alone, its value has
/// no control byte. What is wrong with any other, if something is, [`any_line`] says.
fn plain_line(bytes: &[u8]) -> Option<Line<'_>> {
    let (name, rest) = bytes.split_at_checked(class::span(bytes, class::PLAIN_NAME))?;
    let rest = rest.strip_prefix(b":").filter(|_| !name.is_empty())?;
    let (value, rest) = rest.split_at_checked(class::span_without_control(rest))?;
    Some((name, value, rest.strip_prefix(b"\r\n")?))
}

/// Splits a line that is not plain. Names with other bytes are rare, and none that means something here has one.
fn any_line(bytes: &[u8]) -> Result<Line<'_>, HeadFault> {
    let (line, after) = take_line(bytes)?;
    let end = class::span(line, class::NAME);
    let Some((name @ [_, ..], [b':', value @ ..])) = line.split_at_checked(end) else {
        return Err(name_fault(line, end).into());
    };
    if !class::are(name, class::PLAIN_NAME) && class::resembles_guarded(name) {
        return Err(Malformed::NameResemblesGuarded.into());
    }
    if !class::are_values(value) {
        let fault = if value.contains(&b'\r') { Malformed::BareCarriageReturn } else { Malformed::ValueByte };
        return Err(fault.into());
    }
    Ok((name, value, after))
}

/// Says what is wrong with a line whose name ends at `end` without a colon, or is empty.
fn name_fault(line: &[u8], end: usize) -> Malformed {
    match line.get(end..) {
        None | Some([]) => Malformed::ColonMissing,
        Some([b' ' | b'\t', ..]) if end == 0 => Malformed::ObsoleteFold,
        Some([b':', ..]) => Malformed::NameEmpty,
        Some([b'_', ..]) => Malformed::NameUnderscore,
        Some([b' ' | b'\t', rest @ ..]) => {
            if rest.contains(&b':') {
                Malformed::BlankBeforeColon
            } else {
                Malformed::ColonMissing
            }
        }
        Some([b'\r', ..]) => Malformed::BareCarriageReturn,
        Some(_) => Malformed::NameByte,
    }
}
