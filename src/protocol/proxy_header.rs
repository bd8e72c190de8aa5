//! The header of the PROXY protocol, versions 1 and 2: the first bytes of a connection that a proxy opens, which say for
//! whom. Read strictly: whoever is trusted to write it can be asked to write it well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How the second version begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// How the first one does.
const WORD: &[u8] = b"PROXY ";
/// Bytes that any header has at least: as many are read to tell its version.
pub const START_BYTES: usize = SIGNATURE.len();
/// Bytes of the second version before what its length counts.
pub const V2_FIXED_BYTES: usize = 16;
/// The longest header of the first version, its line end included.
pub const V1_BYTES_MAX: usize = 107;
/// The most that a second version's length may say; addresses take 36, the rest is for extensions.
pub const V2_REST_BYTES_MAX: usize = 2048;

/// Which version begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One line of text.
    One,
    /// Binary.
    Two,
}

/// For whom the connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// For a client.
    Client(SocketAddr),
    /// For the proxy itself, as its health checks are; or it does not say, or names what is no TCP address.
    Proxy,
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFault {
    /// Another protocol: the proxy is not set to write a header.
    #[error("there is no PROXY header")]
    Missing,
    /// Not as the protocol says.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Longer than any header needs to be.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Tells the version by the first [`START_BYTES`] bytes.
///
/// # Errors
/// [`ProxyFault::Missing`].
pub fn version(start: &[u8]) -> Result<Version, ProxyFault> {
    if start == SIGNATURE {
        Ok(Version::Two)
    } else if start.starts_with(WORD) {
        Ok(Version::One)
    } else {
        Err(ProxyFault::Missing)
    }
}

/// Reads a whole header of the first version, its line end included.
///
/// # Errors
/// See [`ProxyFault`].
pub fn read_v1(line: &[u8]) -> Result<Source, ProxyFault> {
    if line.len() > V1_BYTES_MAX {
        return Err(ProxyFault::TooLong);
    }
    let text = line.strip_prefix(WORD).and_then(|rest| rest.strip_suffix(b"\r\n")).ok_or(ProxyFault::Malformed)?;
    let text = std::str::from_utf8(text).ok().filter(|text| !text.contains(['\r', '\n']));
    let text = text.ok_or(ProxyFault::Malformed)?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Source::Proxy); // what follows is not to be read
    }
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (family, source, destination) = (word(), word(), word());
    let (source_port, destination_port) = (port(word()), port(word()));
    let addresses: Option<(IpAddr, IpAddr)> = match family {
        "TCP4" => v4(source).zip(v4(destination)),
        "TCP6" => v6(source).zip(v6(destination)),
        _ => None,
    };
    let ((source, _), source_port, _) = match (addresses, source_port, destination_port) {
        (Some(addresses), Some(from), Some(to)) if words.next().is_none() => (addresses, from, to),
        _ => return Err(ProxyFault::Malformed),
    };
    Ok(Source::Client(SocketAddr::new(source, source_port)))
}

fn v4(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn v6(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// How many bytes follow the [`V2_FIXED_BYTES`] bytes of the second version.
///
/// # Errors
/// When it is more than any header needs.
pub fn v2_rest_bytes(fixed: &[u8; V2_FIXED_BYTES]) -> Result<usize, ProxyFault> {
    let [.., high, low] = *fixed;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > V2_REST_BYTES_MAX { Err(ProxyFault::TooLong) } else { Ok(rest) }
}

/// Reads a whole header of the second version.
///
/// # Errors
/// See [`ProxyFault`].
pub fn read_v2(fixed: &[u8; V2_FIXED_BYTES], rest: &[u8]) -> Result<Source, ProxyFault> {
    let [.., command, family, _, _] = *fixed;
    let proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(ProxyFault::Malformed),
    };
    let (source, extensions) = match family {
        0x00 => (Source::Proxy, &[][..]), // nothing is said of the rest
        0x11 => {
            let (block, more) = rest.split_first_chunk::<12>().ok_or(ProxyFault::Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *block;
            (client(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), [high, low]), more)
        }
        0x21 => {
            let (block, more) = rest.split_first_chunk::<36>().ok_or(ProxyFault::Malformed)?;
            let (source, behind) = block.split_first_chunk::<16>().ok_or(ProxyFault::Malformed)?;
            let ports = behind.get(16..18).and_then(|ports| ports.first_chunk::<2>()).ok_or(ProxyFault::Malformed)?;
            (client(IpAddr::V6(Ipv6Addr::from(*source)), *ports), more)
        }
        0x12 | 0x22 | 0x31 | 0x32 => (Source::Proxy, &[][..]), // UDP or UNIX: as if nothing were said
        _ if proxied => return Err(ProxyFault::Malformed),
        _ => (Source::Proxy, &[][..]),
    };
    check_extensions(extensions)?;
    Ok(if proxied { source } else { Source::Proxy })
}

fn client(address: IpAddr, port: [u8; 2]) -> Source {
    Source::Client(SocketAddr::new(address, u16::from_be_bytes(port)))
}

/// Extensions are passed over, but they must fill their place.
fn check_extensions(mut rest: &[u8]) -> Result<(), ProxyFault> {
    while !rest.is_empty() {
        let ([_, high, low], behind) = rest.split_first_chunk::<3>().ok_or(ProxyFault::Malformed)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = behind.get(length..).ok_or(ProxyFault::Malformed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Result<Source, ProxyFault> {
        Ok(Source::Client(text.parse().unwrap()))
    }

    #[test]
    fn lines() {
        let check = |line: &str, expected| assert_eq!(read_v1(line.as_bytes()), expected, "{line:?}");
        check("PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n", client("192.0.2.1:4711"));
        check("PROXY TCP4 192.0.2.1 10.0.0.1 0 65535\r\n", client("192.0.2.1:0"));
        check("PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", client("[2001:db8::1]:4711"));
        check("PROXY UNKNOWN\r\n", Ok(Source::Proxy));
        check("PROXY UNKNOWN ffff:: any thing 1 2\r\n", Ok(Source::Proxy));
        for bad in [
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 \r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 5\r\n",
            "PROXY TCP4  192.0.2.1 10.0.0.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 047 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1  443\r\n",
            "PROXY TCP4 192.0.2.01 10.0.0.1 1 443\r\n",
            "PROXY TCP4 2001:db8::1 ::1 4711 443\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.1 host 4711 443\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 4711 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n",
            "proxy UNKNOWN\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\r\n",
        ] {
            check(bad, Err(ProxyFault::Malformed));
        }
        check(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(91)), Ok(Source::Proxy));
        check(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)), Err(ProxyFault::TooLong));
    }

    fn fixed(command: u8, family: u8, length: usize) -> [u8; V2_FIXED_BYTES] {
        let mut fixed = [0; V2_FIXED_BYTES];
        fixed[..12].copy_from_slice(&SIGNATURE);
        fixed[12] = command;
        fixed[13] = family;
        fixed[14..].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        fixed
    }

    fn check(command: u8, family: u8, rest: &[u8], expected: Result<Source, ProxyFault>) {
        let fixed = fixed(command, family, rest.len());
        assert_eq!(v2_rest_bytes(&fixed), Ok(rest.len()));
        assert_eq!(read_v2(&fixed, rest), expected, "{command:#x} {family:#x} {rest:?}");
    }

    #[test]
    fn binary_headers() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        v6[32..].copy_from_slice(&[0x12, 0x67, 1, 187]);
        check(0x21, 0x11, &v4, client("192.0.2.1:4711"));
        check(0x21, 0x21, &v6, client("[2001:db8::]:4711"));
        let more = |extensions: &[u8]| [&v4, extensions].concat();
        check(0x21, 0x11, &more(&[4, 0, 0]), client("192.0.2.1:4711"));
        check(0x21, 0x11, &more(&[0xe0, 0, 2, 7, 7, 4, 0, 1, 9]), client("192.0.2.1:4711"));
        check(0x20, 0x00, &[], Ok(Source::Proxy));
        check(0x20, 0x11, &v4, Ok(Source::Proxy));
        check(0x20, 0x31, &[7; 5], Ok(Source::Proxy));
        check(0x21, 0x00, &[1, 2, 3], Ok(Source::Proxy));
        for length in 0..12 {
            check(0x21, 0x11, &v4[..length], Err(ProxyFault::Malformed));
        }
        check(0x21, 0x21, &v6[..35], Err(ProxyFault::Malformed));
        for bad in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 2, 1], &[4, 1, 0, 1]] {
            check(0x21, 0x11, &more(bad), Err(ProxyFault::Malformed));
        }
        for family in [0x12, 0x22, 0x31, 0x32] {
            check(0x21, family, &[0; 216], Ok(Source::Proxy));
            check(0x21, family, &[7; 3], Ok(Source::Proxy));
        }
        for family in [0x01, 0x10, 0x13, 0x41, 0xff] {
            check(0x21, family, &[0; 216], Err(ProxyFault::Malformed));
        }
        for command in [0x00, 0x01, 0x11, 0x22, 0x2f, 0x31, 0xff] {
            check(command, 0x11, &v4, Err(ProxyFault::Malformed));
        }
        assert_eq!(v2_rest_bytes(&fixed(0x21, 0x11, 2048)), Ok(2048));
        assert_eq!(v2_rest_bytes(&fixed(0x21, 0x11, 2049)), Err(ProxyFault::TooLong));
    }

    #[test]
    fn the_first_bytes_tell_the_version() {
        assert_eq!(version(&SIGNATURE), Ok(Version::Two));
        assert_eq!(version(b"PROXY TCP4 1"), Ok(Version::One));
        for other in [
            &b"GET / HTTP/1"[..],
            b"PROXYTCP4 12",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
            b"\r\n\r\n\0\r\nQUIT ",
        ] {
            assert_eq!(version(other), Err(ProxyFault::Missing));
        }
    }
}
