//! A strict reader of HTTP/1 requests, written from RFC 9112 for these tests alone. The seller of the tests reads what
//! it gets with it, and whatever the gateway accepts must be a request to it too.

/// A request that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case, values without the blanks around them; bytes above 0x7f one letter each.
    pub(crate) fields: Vec<(String, String)>,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(there, _)| there == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    /// A request of so many bytes.
    Whole(Request, usize),
    /// The beginning of one.
    Partial,
    /// Nothing that one could read in one way only.
    Malformed(&'static str),
}

/// What stands after the last whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Clean,
    Partial,
    Malformed(&'static str),
}

/// Reads requests one after the other.
pub(crate) fn read_all(bytes: &[u8]) -> (Vec<Request>, Rest) {
    let (mut requests, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match read(&bytes[at..]) {
            Read::Whole(request, used) => {
                requests.push(request);
                at += used;
            }
            Read::Partial => return (requests, Rest::Partial),
            Read::Malformed(why) => return (requests, Rest::Malformed(why)),
        }
    }
    (requests, Rest::Clean)
}

type Outcome<T> = Result<T, Read>;

fn malformed<T>(why: &'static str) -> Outcome<T> {
    Err(Read::Malformed(why))
}

/// Reads one request.
pub(crate) fn read(bytes: &[u8]) -> Read {
    whole(bytes).map_or_else(|other| other, |(request, used)| Read::Whole(request, used))
}

fn whole(bytes: &[u8]) -> Outcome<(Request, usize)> {
    let mut at = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let (method, target, minor) = request_line(line(bytes, &mut at)?)?;
    let fields = fields(bytes, &mut at)?;
    let mut request = Request { method, target, fields, body: Vec::new() };
    let framing = head(&request, minor)?;
    match framing {
        Framing::Length(length) => {
            let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length)).ok_or(Read::Partial)?;
            request.body = bytes.get(at..end).ok_or(Read::Partial)?.to_vec();
            at = end;
        }
        Framing::Chunked => request.body = chunks(bytes, &mut at)?,
    }
    Ok((request, at))
}

/// One line without its end. A carriage return or a line feed stands only in the pair that ends it.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Outcome<&'a [u8]> {
    let rest = &bytes[*at..];
    let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Err(Read::Partial) };
    match rest.get(end..) {
        Some([b'\r', b'\n', ..]) => {
            *at += end + 2;
            Ok(&rest[..end])
        }
        Some([b'\r']) => Err(Read::Partial),
        _ => malformed("a line does not end with CRLF"),
    }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn request_line(line: &[u8]) -> Outcome<(String, String, u8)> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return malformed("not three words in the request line") };
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        _ => return malformed("no version that is known"),
    };
    let visible = |byte: &u8| byte.is_ascii_graphic() && !b"#\"<>`".contains(byte);
    if !is_token(method) || target.is_empty() || !target.iter().all(visible) {
        return malformed("a byte that does not belong into the request line");
    }
    Ok((text(method), text(target), minor))
}

fn fields(bytes: &[u8], at: &mut usize) -> Outcome<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(bytes, at)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return malformed("no colon") };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) || name.contains(&b'_') {
            return malformed("no field name");
        }
        if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return malformed("a control byte in a value");
        }
        let value = text(value);
        fields.push((text(name).to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

enum Framing {
    Length(u64),
    Chunked,
}

/// Holds the fields against each other.
fn head(request: &Request, minor: u8) -> Outcome<Framing> {
    let host = match request.all("host")[..] {
        [] if minor == 0 => None,
        [host] if is_host(host) => Some(host),
        _ => return malformed("not one host"),
    };
    let (method, target) = (request.method.as_str(), request.target.as_str());
    let asterisk = target == "*" && method == "OPTIONS";
    if !target.starts_with('/') && !asterisk {
        let lower = target.to_ascii_lowercase();
        let Some(at) = ["http://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme)) else {
            return malformed("no target");
        };
        let authority = at.split(['/', '?']).next().unwrap();
        if host.is_none_or(|host| !host.eq_ignore_ascii_case(authority)) {
            return malformed("the target names another host");
        }
    }
    match (&request.all("transfer-encoding")[..], &request.all("content-length")[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") && minor == 1 => Ok(Framing::Chunked),
        ([], [length]) => {
            let plain =
                length.bytes().all(|byte| byte.is_ascii_digit()) && (*length == "0" || !length.starts_with('0'));
            match length.parse::<u64>() {
                Ok(length) if plain => Ok(Framing::Length(length)),
                _ => malformed("no content length"),
            }
        }
        _ => malformed("more than one framing, or an unknown one"),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rfind(':').filter(|_| !host.ends_with(']')) {
        Some(at) => (&host[..at], Some(&host[at + 1..])),
        None => (host, None),
    };
    let port_fits =
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let name_fits = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
    };
    port_fits && name_fits
}

fn chunks(bytes: &[u8], at: &mut usize) -> Outcome<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = chunk_size(line(bytes, at)?)?;
        if size == 0 {
            let forbidden = ["content-length", "transfer-encoding", "host", "authorization", "connection"];
            let trailers = fields(bytes, at)?;
            if trailers.iter().any(|(name, _)| forbidden.contains(&name.as_str())) {
                return malformed("a trailer that belongs into the head");
            }
            return Ok(body);
        }
        let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size)).ok_or(Read::Partial)?;
        body.extend_from_slice(bytes.get(*at..end).ok_or(Read::Partial)?);
        *at = end;
        if !line(bytes, at)?.is_empty() {
            return malformed("a chunk is longer than its size");
        }
    }
}

fn chunk_size(line: &[u8]) -> Outcome<u64> {
    let digits = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    let hexadecimal = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
    let fits = extension != b";" && extension.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    match u64::from_str_radix(&text(digits), 16) {
        Ok(size) if hexadecimal && fits => Ok(size),
        _ => malformed("no chunk size"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(text: &str) -> Rest {
        read_all(text.as_bytes()).1
    }

    #[test]
    fn the_reference_reads_what_is_right_and_nothing_else() {
        let head = "POST /x HTTP/1.1\r\nHost: a\r\n";
        let (requests, rest_of) = read_all(
            format!("{head}Content-Length: 3\r\n\r\nabc{head}Transfer-Encoding: chunked\r\n\r\n2;e\r\nde\r\n0\r\nT: 1\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(rest_of, Rest::Clean);
        assert_eq!(
            requests.iter().map(|request| request.body.as_slice()).collect::<Vec<_>>(),
            [b"abc".as_slice(), b"de"]
        );
        for partial in [
            "POST",
            &format!("{head}Content-Length: 3\r\n\r\nab"),
            &format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n"),
        ] {
            assert_eq!(rest(partial), Rest::Partial, "{partial:?}");
        }
        for bad in [
            "POST /x HTTP/1.1\nHost: a\n\n",
            "POST /x HTTP/1.1\r\n\r\n",
            "POST ! HTTP/1.1\r\nHost: a\r\n\r\n",
            &format!("{head}Host: a\r\n\r\n"),
            &format!("{head}X : a\r\n\r\n"),
            &format!("{head}X: a\0\r\n\r\n"),
            &format!("{head} X: a\r\n\r\n"),
            &format!("{head}X_Y: a\r\n\r\n"),
            &format!("{head}Content-Length: 010\r\n\r\n"),
            &format!("{head}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            &format!("{head}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n"),
            &format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
            &format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n\r\n"),
        ] {
            assert!(matches!(rest(bad), Rest::Malformed(_)), "{bad:?}");
        }
    }
}
