//! A request as it goes over the wire: read from a file, and held to what the gateway refuses before it looks at a
//! signature.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Failure;
use crate::protocol::head::{Framing, HeadFacts, check_head};
use crate::protocol::signature::Claim;

/// A request.
pub(super) struct Wire {
    pub(super) method: String,
    /// As it stands in the request line.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// As long as the head says, without chunks; all that follows a head that says nothing.
    pub(super) body: Vec<u8>,
}

/// Reads a request as it went over the wire; lines may end without a carriage return.
pub(super) fn read_request(wire: &[u8]) -> Result<Wire, Failure> {
    let malformed = || Failure::Input("the file does not begin with a request line like GET /path HTTP/1.1".into());
    let (mut lines, mut rest) = (Vec::new(), wire);
    loop {
        let end = memchr::memchr(b'\n', rest).ok_or_else(|| {
            Failure::Input("no empty line ends the head; keep it, even where there is no body".into())
        })?;
        let (line, after) = rest.split_at_checked(end).unwrap_or_default();
        rest = after.get(1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let head = [lines.join(&b"\r\n"[..]), b"\r\n\r\n".to_vec()].concat();
    let mut lines = lines.into_iter();
    let first = lines.next().and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(malformed)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(_), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(malformed());
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = header_line(line)?;
        headers.append(name, value);
    }
    let body = match check_front_door(&head)?.framing {
        Framing::Chunked => unchunked(rest)?,
        Framing::Length(length) => {
            let body = usize::try_from(length).ok().and_then(|length| rest.get(..length));
            let cut = || format!("the file holds {} of the {length} bytes that content-length says", rest.len());
            body.ok_or_else(|| Failure::Input(cut()))?.to_vec()
        }
        Framing::None => rest.to_vec(),
    };
    Ok(Wire { method: method.to_owned(), target: target.to_owned(), headers, body })
}

/// A body without the chunks that it came in.
fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>, Failure> {
    let malformed = || Failure::Input("the chunked body is malformed or cut".into());
    let mut body = Vec::new();
    loop {
        let end = memchr::memchr(b'\n', rest).ok_or_else(malformed)?;
        let (line, after) = rest.split_at_checked(end).ok_or_else(malformed)?;
        let digits = std::str::from_utf8(line).unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| malformed())?;
        if size == 0 {
            return Ok(body); // trailers are not signed
        }
        let (data, after) = after.get(1..).and_then(|after| after.split_at_checked(size)).ok_or_else(malformed)?;
        body.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n")).ok_or_else(malformed)?;
    }
}

pub(super) fn header_line(line: &[u8]) -> Result<(HeaderName, HeaderValue), Failure> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let at = memchr::memchr(b':', line).ok_or_else(|| Failure::Input(format!("{:?} is no header", shown())))?;
    let (name, rest) = line.split_at_checked(at).unwrap_or_default();
    let name = HeaderName::from_bytes(name).map_err(|error| Failure::Input(format!("{:?}: {error}", shown())))?;
    Ok((name, value(rest.get(1..).unwrap_or_default().trim_ascii())?))
}

pub(super) fn value(bytes: &[u8]) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(bytes).map_err(|error| Failure::Input(error.to_string()))
}

/// The head that a client sends.
pub(super) fn head_of(method: &str, target: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// Refuses what the gateway refuses by the head alone.
pub(super) fn check_front_door(head: &[u8]) -> Result<HeadFacts, Failure> {
    check_head(head).map_err(|fault| Failure::Refused(fault.reason().to_owned()))
}

/// Refuses a `Connection` that takes away what is signed.
pub(super) fn check_connection(headers: &HeaderMap, claim: &Claim<'_>) -> Result<(), Failure> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    if lines.flat_map(|line| line.split(',')).any(|name| claim.signs(name.trim())) {
        let message = "the connection header names a header that is signed; take that name out of it";
        return Err(Failure::Refused(message.to_owned()));
    }
    Ok(())
}
