//! The request line: method, target and version, and the forms a target may have.

use super::{HeadFault, Malformed, Version};
use crate::protocol::class;

/// What a request line says that the rest of the head is held against.
pub(super) struct RequestLine<'a> {
    pub(super) version: Version,
    /// Host and port of an absolute-form target: must be equal to `Host`.
    pub(super) authority: Option<&'a [u8]>,
}

/// Reads a request line without its line end.
pub(super) fn read(line: &[u8]) -> Result<RequestLine<'_>, HeadFault> {
    let (Some(first), Some(last)) = (memchr::memchr(b' ', line), memchr::memrchr(b' ', line)) else {
        return Err(fault_of(line, Malformed::RequestLine));
    };
    let (Some(method), Some(target), Some(version)) =
        (line.get(..first), line.get(first + 1..last), line.get(last + 1..))
    else {
        return Err(fault_of(line, Malformed::RequestLine)); // one space only: no version
    };
    if method.is_empty() || target.is_empty() || !class::are(method, class::TOKEN) {
        return Err(fault_of(line, Malformed::RequestLine));
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(fault_of(line, version_fault(version))),
    };
    if !class::are(target, class::TARGET) {
        let fault = if target.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
            Malformed::RequestLine
        } else {
            Malformed::TargetByte
        };
        return Err(fault_of(line, fault));
    }
    // Methods are case-sensitive, but not to every server behind us.
    if method.eq_ignore_ascii_case(b"CONNECT") {
        return Err(Malformed::Connect.into());
    }
    if method.eq_ignore_ascii_case(b"TRACE") || method.eq_ignore_ascii_case(b"TRACK") {
        return Err(Malformed::Trace.into());
    }
    Ok(RequestLine { version, authority: authority(method, target)? })
}

fn authority<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<&'a [u8]>, HeadFault> {
    if target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") {
        return Ok(None);
    }
    let rest = strip_scheme(target, b"http://").or_else(|| strip_scheme(target, b"https://"));
    let rest = rest.ok_or(Malformed::TargetForm)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Ok(rest.get(..end))
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = target.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Says "wrong version" of what looks like a version, "wrong line" of anything else.
fn version_fault(text: &[u8]) -> Malformed {
    match text.strip_prefix(b"HTTP/") {
        Some([b'0'..=b'9']) => Malformed::Version,
        Some([b'0'..=b'9', b'.', b'0'..=b'9']) => Malformed::Version,
        Some(_) | None => Malformed::RequestLine,
    }
}

/// A stray carriage return is named before what it does to the line around it.
fn fault_of(line: &[u8], otherwise: Malformed) -> HeadFault {
    if line.contains(&b'\r') { Malformed::BareCarriageReturn.into() } else { otherwise.into() }
}
